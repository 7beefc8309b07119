"""Scores against figures worked out by hand, and the harnesses' rules against their own outcomes."""

import pytest

from mgpo.data.benchmarks import FSC147, POPE, HRBench4K, MMERealWorld, MMERealWorldLite, MultipleChoice, VStar
from mgpo.data.benchmarks.harness import first_letter, options, vstar_forms, whole_reply, yes_or_no
from mgpo.data.scenes import Scenes
from mgpo.errors import UserError
from mgpo.evaluation.published import as_markdown, as_text
from mgpo.evaluation.scoring import reread, score, summary
from mgpo.metrics.record import Record
from tests.answers.test_replies import ROWS

FORMS = {
    "first_letter": first_letter, "vstar": vstar_forms, "options": options, "whole": whole_reply, "yes_no": yes_or_no,
}  # fmt: skip


def record(right=True, category="", part="", truth="A", answer=None, reply="", choices=(), name="q"):
    return Record(
        id=name, split="s", category=category, truth=truth, answer=answer, right=right, turns=1, valid_box=None,
        reason=None, box=None, subimage_right=None, crops=0, replies=(reply,), choices=choices, part=part,
    )  # fmt: skip


def test_vstar_is_a_mean_over_questions_not_over_categories():
    records = [record(True, "direct_attributes")] * 3 + [record(False, "relative_position")]
    result = score(VStar, records)
    assert (result.n, result.value) == (4, 0.75)
    assert result.parts == {"direct_attributes": 1.0, "relative_position": 0.0}


def test_mme_realworld_prints_its_rows():
    records = [
        record(True, "Perception/OCR with Complex Context"), record(False, "Perception/OCR"),
        record(True, "Perception/OCR"), record(False, "Perception/Autonomous_Driving"),
        record(True, "Reasoning/Autonomous_Driving"), record(False, "Reasoning/Diagram and Table"),
    ]  # fmt: skip
    result = score(MMERealWorld, records)
    assert result.value == 0.5
    assert list(result.parts) == [
        "Perception", "Perception OCR", "Perception RS", "Perception DT", "Perception MO", "Perception AD",
        "Reasoning", "Reasoning OCR", "Reasoning DT", "Reasoning MO", "Reasoning AD",
    ]  # fmt: skip
    assert result.parts["Perception"] == 0.5
    assert result.parts["Perception OCR"] == pytest.approx(2 / 3)
    assert result.parts["Reasoning AD"] == 1.0 and result.parts["Reasoning DT"] == 0.0
    assert result.parts["Perception RS"] is None


def test_hrbench_averages_cycles_of_any_size():
    """Cycle 0: 1 of 1 right; cycle 1: 1 of 4: (1 + 1/4) / 2, not 2 of 5."""
    records = [record(True, "single", "0")]
    records += [record(i == 0, "single" if i < 2 else "cross", "1") for i in range(4)]
    result = score(HRBench4K, records)
    assert result.value == pytest.approx(0.625)
    assert result.parts == {"cross": 0.0, "single": 0.75, "cycle 0": 1.0, "cycle 1": 0.25}


def test_pope_takes_yes_as_positive():
    """Of 3 yes and 3 no: 2 hits, 1 miss without an answer, 1 false alarm, 2 right no."""
    given = [("Yes", "yes"), ("yes, a dog", "yes"), (None, "yes"), ("Yes.", "no"), ("no", "no"), ("No", "no")]
    records = [record(category="random", truth=truth, answer=answer) for answer, truth in given]
    result = score(POPE, [*records, record(category="popular", truth="no", answer="yes")])
    part = {name.removeprefix("random "): v for name, v in result.parts.items() if name.startswith("random")}
    assert part == {
        "accuracy": pytest.approx(4 / 6), "F1": pytest.approx(2 * 2 / 6), "precision": pytest.approx(2 / 3),
        "recall": pytest.approx(2 / 3), "yes ratio": 0.5,
    }  # fmt: skip
    assert result.value == pytest.approx(4 / 7)
    assert result.parts["F1"] == pytest.approx(4 / 7)
    assert result.parts["popular F1"] == 0 and result.parts["popular recall"] is None


def test_counting_is_exact_and_errors_are_over_numbers():
    given = [("12", "12"), ("about 12 cars", "12"), ("ten", "12"), (None, "12"), ("2 or 3", "3"), ("1,200", "1200")]
    result = score(FSC147, [record(truth=truth, answer=answer) for answer, truth in given])
    assert result.value == 0.5
    assert result.parts == {"mean absolute error": 0.5, "a number given": pytest.approx(4 / 6)}


@pytest.mark.parametrize(
    ("source", "name"),
    [(Scenes, "accuracy"), (FSC147, "counting"), (HRBench4K, "hrbench"), (MMERealWorldLite, "mme_realworld"),
     (MultipleChoice, "multiple_choice"), (POPE, "pope"), (VStar, "vstar")],
)  # fmt: skip
def test_no_questions_have_no_score(source, name):
    report = summary(source, [])
    assert (report["score"], report["n"], report["value"]) == (name, 0, None)


def test_a_score_that_is_none_is_said_in_one_sentence():
    class Named(VStar):
        score = "bleu"

    class Share(VStar):
        score = staticmethod(lambda records: 0.5)

    for source, shown in ((Named, "'bleu'"), (Share, "0.5")):
        with pytest.raises(UserError, match=rf"{source.__name__}\.score gives {shown}; it should be a static method"):
            score(source, [])


def test_the_harnesses_rules_give_what_the_harnesses_give():
    """Expected outcomes were made with the harnesses' own functions."""
    checked = 0
    for row in ROWS:
        for name, outcome in row.get("harness", {}).items():
            assert FORMS[name](row["reply"], tuple(row.get("choices", ()))) == outcome, (name, row["reply"])
            checked += 1
    assert checked > 1000


@pytest.mark.parametrize(
    ("rule", "reply", "outcome"),
    [
        (first_letter, "Based on the image, the answer is C.", "B"),
        (first_letter, "", "A"),
        (first_letter, "The best option is C", "C"),
        (first_letter, "nothing here is written in capitals at all, not even once", None),
        (vstar_forms, "The jacket is red.", "D"),
        (vstar_forms, r"\boxed{C}", None),
        (options, "The answer is B because of the sleeve that can be seen at the left", None),
        (options, "red, I'd say", "A"),
        (yes_or_no, "no-one, yes", None),
    ],
)
def test_what_is_odd_about_them(rule, reply, outcome):
    assert rule(reply, ("red", "blue", "green", "black")) == outcome


def test_flips_are_counted_and_shown():
    choices = ("red", "blue", "green", "black")
    replies = [("Based on it: \\boxed{C}", "C", True), ("B", "B", True), ("Blurred.", None, False)] * 4
    records = [
        record(right, answer=answer, truth="B" if answer is None else answer, reply=reply, choices=choices, name=str(i))
        for i, (reply, answer, right) in enumerate(replies)
    ]
    result = summary(MMERealWorld, records)
    assert result["value"] == pytest.approx(2 / 3)
    theirs = result["harness"]["VLMEvalKit"]
    assert theirs["value"] == pytest.approx(2 / 3)  # as many, but not the same ones
    assert (theirs["flips"], theirs["right_by_ours_only"], len(theirs["first"])) == (8, 4, 5)
    assert theirs["first"][0] == {
        "id": "0", "reply": "Based on it: \\boxed{C}", "ours": "C", "theirs": "B", "truth": "C",
        "why": "the rule reads another place of the reply",
    }  # fmt: skip
    assert theirs["first"][1]["why"].startswith("the reply commits to none")


def test_rereading_keeps_what_a_score_needs():
    again = reread(
        record(False, "cross", "3", "B", reply="it is B", choices=("x", "y")), HRBench4K.harnesses["VLMEvalKit"]
    )
    assert (again.right, again.category, again.part, again.answer) == (True, "cross", "3", "B")


def test_pope_is_scored_and_flipped_by_the_same_judgement():
    """lmms-eval takes no "Yes, there is"; here the answer's first word counts, whatever the reward made of it."""
    records = [
        record(False, truth="yes", answer="Yes, there is a dog", reply="Yes, there is a dog."),
        record(True, truth="yes", answer="yes", reply="yes"),
        record(False, truth="no", answer="No, none", reply="\\boxed{No, none}"),
    ]
    result = summary(POPE, records)
    assert result["value"] == 1
    theirs = result["harness"]["lmms-eval"]
    assert (theirs["value"], theirs["flips"], theirs["right_by_ours_only"]) == (pytest.approx(1 / 3), 2, 2)
    assert theirs["parts"]["accuracy"] == theirs["value"]
    assert result["harness"]["VLMEvalKit"]["flips"] == 0


def test_published_figures_are_labelled_and_blank_where_there_are_none():
    run = {"mine": {"V*": 70.25, "POPE": None}}
    lines = as_markdown(run).splitlines()
    assert lines[0] == "|  | V* | MME-RW-Lite | HR-4K | HR-8K | POPE |"
    assert "| Qwen2.5-VL-7B (published) | 58.6 | 46.1 |  |  |  |" in lines
    assert "| Qwen2.5-VL-7B + MGPO (published) | 76.4 | 60.5 | 74.2 | 71.2 | 86.1 |" in lines
    assert lines[-1] == "| mine | 70.2 |  |  |  |  |"
    assert all("(published)" in line for line in lines[2:-1])
    assert not any("counting" in line for line in lines)
    assert "| counting: Qwen2.5-VL-7B (published) |  |  |  |  |  | 13.0 |" in as_markdown(
        {"mine": {"Pixmo-Count": 1.0}}
    )
    assert "arXiv 2507.05920" in as_text(run)
