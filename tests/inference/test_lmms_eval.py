"""lmms-eval finds the model by its entry point and is answered with what a task can judge."""

import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

from mgpo.answers import given
from mgpo.errors import UserError
from mgpo.inference.base import Answer, InMemory
from mgpo.inference.lmms_prompts import said, split_prompt
from mgpo.inference.predict import row_of
from mgpo.types import Question, Trajectory
from tests.conftest import noise_image
from tests.test_cli import ROOT


@pytest.mark.parametrize(
    ("prompt", "question", "choices"),
    [
        ("Which?\nA. red\nB. blue\nAnswer with the letter directly.", "Which?", ("red", "blue")),
        ("Two\nlines?\n(A) a, b\n(B) c\n(C) d", "Two\nlines?", ("a, b", "c", "d")),
        ("Which?\nA) red\nC) blue", "Which?\nA) red\nC) blue", ()),
        ("Plan:\nA. one\nthen which?\nA. x\nB. y", "Plan:\nA. one\nthen which?", ("x", "y")),
        ("A. is for apple", "A. is for apple", ()),
        (" What is\nthere? ", "What is\nthere?", ()),
        ("", "", ()),
    ],
)
def test_prompts_are_taken_apart(prompt, question, choices):
    assert split_prompt(prompt) == (question, choices)


@pytest.mark.parametrize(
    ("answer", "choices", "letter"),
    [("(B)", ("red", "blue"), "B"), ("Blue.", ("red", "blue"), "B"), ("pink", ("red", "blue"), None), ("7", (), "7")],
)
def test_the_answer_is_the_letter_of_an_option_wherever_it_is_handed_out(answer, choices, letter):
    picture = noise_image(8, 8)
    question = Question("q", InMemory(picture), "Which?", "", choices)
    trajectory = Trajectory(question, picture, answer=answer)
    assert Answer(trajectory).answer == row_of(question, trajectory)["answer"] == letter
    assert said(trajectory) == (letter or answer)  # a task judges what was said, whatever it is


def test_a_question_that_a_server_failed_on_is_no_empty_answer():
    picture = noise_image(8, 8)
    failed = Trajectory(Question("q-3", InMemory(picture), "?", ""), picture, failed="the server answers 500")
    with pytest.raises(UserError, match="question q-3: the server answers 500"):
        said(failed)


def test_the_entry_point_leads_somewhere():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["lmms_eval.models"]
    module, name = declared["mgpo"].split(":")
    spec = find_spec(module)  # found, not imported: lmms-eval may not be here
    assert spec is not None and spec.origin is not None
    source = Path(spec.origin).read_text()
    assert f"def {name}()" in source and "mgpo.inference.lmms_eval.MGPOModel" in source


def test_the_harness_asks_the_model_it_finds():
    pytest.importorskip("lmms_eval")
    from lmms_eval.api.instance import Instance
    from lmms_eval.models import MODEL_REGISTRY_V2, get_model

    import mgpo
    from mgpo.data.scenes import Scenes
    from mgpo.inference.lmms_eval_manifest import manifest

    MODEL_REGISTRY_V2.register_manifest(manifest(), overwrite=True)  # as its entry point does
    model = get_model("mgpo").create_from_arg_string("pretrained=embedded", {"batch_size": 3, "device": "cpu"})
    source = Scenes(8, ("attribute", "attribute_choice"), split="val", side=512)
    docs = [source[i] for i in range(8)]
    model.task_dict = {"scenes": {"test": docs}}

    def prompt(question):
        options = "".join(f"\n{letter}. {text}" for letter, text in zip("ABCDE", question.choices))
        return question.text + (options + "\nAnswer with the option's letter directly." if options else "")

    def request(number, pictures=1):
        arguments = (prompt(docs[number]), {"max_new_tokens": 1}, lambda d: [d.picture.load()] * pictures, number)
        metadata = {"task": "scenes", "doc_id": number, "repeats": 1}
        return Instance("generate_until", (*arguments, "scenes", "test"), 0, metadata)

    replies = model.generate_until([request(i) for i in range(8)])
    records = mgpo.load().evaluate(source)
    assert replies == [given(record.answer, record.choices) or record.replies[-1] for record in records]
    assert any(record.crops for record in records)
    assert len(model.generate_until([request(0, 2)])) == 1
    with pytest.raises(UserError, match="pictures are needed"):
        model.generate_until([request(0, 0)])
