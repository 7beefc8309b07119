"""Rows with a list of images: questions with several pictures, wherever the images lie."""

import json

import datasets
import pytest

from mgpo.data.base import DataError
from mgpo.data.files import Files
from mgpo.data.image_columns import MOST_PICTURES
from mgpo.data.image_marks import without_marks
from mgpo.data.unlabelled import unlabelled_questions
from mgpo.dialogues import FreeTurns, SingleTurn, TwoTurn
from mgpo.inference.base import InMemory
from mgpo.tools.overview.facts import kind_of, look, summarise
from mgpo.tools.overview.sheet import card
from mgpo.tools.overview.told import conversation
from mgpo.types import Trajectory
from tests.conftest import noise_image
from tests.helpers.published import SIZE, base64_png, png, write_jsonl

ROW = {"question": "What differs?", "answer": "7"}


@pytest.fixture
def folder(tmp_path):
    for i in range(4):
        (tmp_path / f"{i}.png").write_bytes(png(i))
    return tmp_path


def seeds(question):
    """Which of the noise images its pictures are, in order."""
    known = {noise_image(*SIZE, seed).tobytes(): seed for seed in range(4)}
    return [known[picture.load().tobytes()] for picture in question.pictures]


def structs(*numbers):
    return [{"bytes": png(i), "path": None} for i in numbers]


FORMS = {
    "paths": [["0.png", "2.png"], ["1.png"], ["3.png", "1.png", "0.png"]],
    "base64": [[base64_png(i) for i in numbers] for numbers in ([0, 2], [1], [3, 1, 0])],
    "mixed": [["0.png", base64_png(2)], [base64_png(1)], [base64_png(3), "1.png", base64_png(0)]],
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("column", ["images", "image", "pics"])
def test_a_list_in_json_is_several_pictures_in_order(folder, form, column):
    path = str(write_jsonl(folder / "q.jsonl", [{**ROW, column: cell} for cell in FORMS[form]]))
    columns = {"image": "pics"} if column == "pics" else None
    source = Files(path, columns=columns)
    assert [seeds(source[i]) for i in range(len(source))] == [[0, 2], [1], [3, 1, 0]]
    assert [seeds(question) for question in unlabelled_questions(path, columns=columns)] == [[0, 2], [1], [3, 1, 0]]


@pytest.mark.parametrize("feature", [datasets.List(datasets.Image()), datasets.List(datasets.Value("string"))])
def test_a_list_in_a_table_is_several_pictures_in_order(folder, feature):
    paths = isinstance(feature.feature, datasets.Value)
    cells = [[f"{i}.png" for i in n] if paths else structs(*n) for n in ([0, 2], [1], [3, 1, 0])]
    made = datasets.Dataset.from_dict(
        {"images": cells, "question": ["?"] * 3, "answer": ["7"] * 3},
        datasets.Features(images=feature, question=datasets.Value("string"), answer=datasets.Value("string")),
    )
    made.to_parquet(str(folder / "q.parquet"))
    source = Files(str(folder / "q.parquet"))
    assert [seeds(source[i]) for i in range(3)] == [[0, 2], [1], [3, 1, 0]]


@pytest.mark.parametrize(("images", "words"), [
    (["0.png", None], "column images, picture 2: it is empty"),
    (["none.png", "0.png"], "column images, picture 1: none.png: there is no such file"),
    (["0.png", "1.png", "bad.png"], "column images, picture 3: bad.png: this is not an image"),
    (["0.png", "/etc/passwd"], "picture 2: '/etc/passwd' leads out of"),
    (["0.png", True], "column images, picture 2"),
    (["0.png"] * (MOST_PICTURES + 1), f"{MOST_PICTURES + 1} pictures; a question can have {MOST_PICTURES}"),
    (["0.png", "http://127.0.0.1/a.png"], "picture 2: 'http://127.0.0.1/a.png' is an address"),
])  # fmt: skip
def test_an_image_that_cannot_be_had_costs_its_row_and_is_named(folder, images, words):
    (folder / "bad.png").write_text("no image")
    good = {**ROW, "images": ["1.png", "2.png"]}
    source = Files(str(write_jsonl(folder / "q.jsonl", [{**ROW, "images": images}, good])))
    assert len(source) == 1 and words in source.bad[0]


def test_the_same_pictures_in_another_order_are_another_question(folder):
    rows = [{**ROW, "images": images} for images in (["0.png", "1.png"], ["1.png", "0.png"], ["0.png", "1.png"])]
    source = Files(str(write_jsonl(folder / "q.jsonl", rows)))
    assert len(source) == 2 and source.bad == ["row 3, the same as row 1"]


@pytest.mark.parametrize(("words", "pictures", "plain"), [
    ("<image>\n<image>\nWhat differs?", 2, "What differs?"), ("<image><image> What differs?", 2, "What differs?"),
    ("Is <image> older than <image>?", 2, "Is picture 1 older than picture 2?"),
    ("Is <image 2> older than <image 1>?", 2, "Is picture 2 older than picture 1?"),
    ("<image>Is it in\n<image>\n?", 2, "Is it in\npicture 2\n?"),
    ("Are <image><image> alike?", 2, "Are picture 1 picture 2 alike?"),
    ("<|vision_start|><|image_pad|><|vision_end|>Which?", 2, "Which?"),
    ("What is in <image 1>?", 1, "What is in ?"), ("Is a < b?", 2, "Is a < b?"),
])  # fmt: skip
def test_marks_in_a_text_become_numbers(words, pictures, plain):
    assert without_marks(words, pictures) == plain


@pytest.mark.parametrize("words", ["<image><image><image>Which?", "What is in <image 3>?", "Is it <image_0>?"])
def test_a_mark_without_a_picture_costs_its_row(words):
    with pytest.raises(DataError, match=r"stands for picture [03]; the row has 2 pictures"):
        without_marks(words, 2)


def test_the_overview_counts_every_picture(policy, folder):
    noise_image(400, 200).save(folder / "wide.png")
    path = write_jsonl(folder / "q.jsonl", [{**ROW, "images": ["0.png", "wide.png"]}, {**ROW, "images": "1.png"}])
    source = Files(str(path))
    for dialogue in (TwoTurn(), SingleTurn(), FreeTurns()):
        facts = look(policy, dialogue, source, 10, 32)
        for fact in facts:
            images = [picture.load() for picture in fact.question.pictures]
            trajectory = Trajectory.begin(fact.question, *images)
            messages = dialogue.open(trajectory, policy.resolution)
            prompt = policy.chat.open(messages, lambda view, t=trajectory: policy.pixels(view.pixels(t.original(view))))
            assert fact.tokens == len(prompt.ids)
            assert fact.sizes == tuple((image.size, view.size) for image, view in zip(images, trajectory.views))
        assert facts[0].tokens > facts[1].tokens
    pictures = summarise(policy, source, facts)["pictures"]
    assert pictures["a_question"] == {"min": 1, "median": 1.5, "max": 2} and pictures["width"]["max"] == 400
    assert card(facts[0]).count("<img") == 2
    assert "Picture 2: <|vision_start|>[picture 168x84, 18 tokens]" in conversation(policy, FreeTurns(), facts[0])


def test_a_reason_is_one_kind_whichever_picture_it_is_of():
    reasons = [f"row {n}, column images, picture {n}: x.png: there is no such file" for n in (1, 12)]
    assert set(map(kind_of, reasons)) == {"column images: there is no such file"}


def test_predictions_say_which_picture_a_box_is_in(folder, tmp_path):
    from mgpo.inference.predict import row_of
    from tests.dialogues.test_several_pictures import ANSWER, SECOND, say, start

    dialogue = TwoTurn()
    trajectory, _ = start(dialogue)
    for text in (SECOND, ANSWER):
        say(dialogue, trajectory, text)
    row = json.loads(json.dumps(row_of(trajectory.question, trajectory)))
    assert (row["answer"], row["box_pictures"], row["region_pictures"]) == ("A", [2, None], [2])
    assert row["images"] == [None, None]
    assert "images" not in row_of(unlabelled_questions(str(folder / "0.png"), "What?")[0], None, "?")


def test_several_pictures_are_asked_about_at_once():
    import mgpo
    from mgpo.errors import UserError

    model = mgpo.load()
    images = [noise_image(300, 200, i) for i in range(2)]
    answer = model.ask(images, "Which letter stands on the red mark?")
    assert [original.size for original in answer.trajectory.originals] == [(300, 200)] * 2
    assert len(answer.trajectory.turns[0].prompt.images) == 2 and len(answer.pictures) == len(answer.boxes)
    assert answer.trajectory.question.others == (InMemory(images[1]),)
    with pytest.raises(UserError, match="no picture to ask about"):
        model.ask([], "Which?")
