import csv
import json

import datasets
import pytest

from mgpo.data import image_columns, row_source
from mgpo.data.base import DataError, question_of
from mgpo.data.batches import Batches, Decoded
from mgpo.data.files import Files
from mgpo.data.module import VQAData
from mgpo.data.scenes import Scenes
from mgpo.types import Question
from tests.conftest import noise_image

ROW = {"image": "a.png", "question": "What?", "answer": "7"}


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "b.png"):
        noise_image(32, 32).save(tmp_path / name)
    return tmp_path


def write(folder, rows, name="q.jsonl"):
    path = folder / name
    path.write_text("\n".join(json.dumps(row) if isinstance(row, dict) else row for row in rows))
    return str(path)


def test_rows_become_questions(folder):
    rows = [ROW, {**ROW, "image": "b.png", "answer": "blue", "choices": ["red", "blue"], "category": "colour", "id": 5}]
    source = Files(write(folder, rows), split="mine")
    first, second = source[0], source[1]
    assert (first.text, first.answer, first.choices, first.split) == ("What?", "7", (), "mine")
    assert (second.answer, second.choices, second.category, second.id) == ("B", ("red", "blue"), "colour", "5")
    assert first.picture.load().size == (32, 32)


def test_parquet_reads_alike(folder):
    rows = [{**ROW, "choices": ["7", "8"]}, {**ROW, "image": "b.png", "choices": ["6", "7"]}]
    datasets.Dataset.from_list(rows).to_parquet(str(folder / "q.parquet"))
    assert [q.answer for q in Files(str(folder / "q.parquet")).questions] == ["A", "B"]


@pytest.mark.parametrize(
    ("cell", "right"),
    [
        ('["3", "three"]', ("3", "three")),
        ("['3', 'three', '3']", ("3", "three")),
        ('[3, "three"]', ("3", "three")),
        ('["three", 3, 3.0]', ("three", "3", "3.0")),
        ('["three", [3]]', ('["three", [3]]',)),
        ("[1, 2]", ("[1, 2]",)),  # a list of numbers may be what was asked for
        ("[sic]", ("[sic]",)),
        ("three", ("three",)),
    ],
)
def test_a_cell_of_a_csv_file_may_list_answers(folder, cell, right):
    with open(folder / "q.csv", "w", newline="") as file:
        csv.writer(file).writerows([["image", "question", "answer"], ["a.png", "How many?", cell]])
    (question,) = Files(str(folder / "q.csv")).questions
    assert (question.answer, *question.accepted) == right


def test_a_picture_of_many_questions_is_looked_at_once(folder, monkeypatch):
    looks = []
    monkeypatch.setattr(image_columns, "check_image", looks.append)
    rows = [{**ROW, "image": f"{'ab'[i % 2]}.png", "question": f"What {i}?"} for i in range(6)]
    assert len(Files(write(folder, rows))) == 6 and looks == [folder / "a.png", folder / "b.png"]


def test_a_file_that_takes_long_to_read_is_told_by_one_process(folder, monkeypatch, capsys):
    monkeypatch.setattr(row_source, "PATIENCE", -1.0)
    path = write(folder, [ROW, {**ROW, "image": "b.png"}])
    Files(path)
    assert capsys.readouterr().err == f"{path}: 0 rows read …\n{path}: 1 rows read …\n"
    monkeypatch.setenv("LOCAL_RANK", "1")
    Files(path)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("column", ["bbox", "Boxes", "points"])
def test_boxes_are_refused_unless_dropped(folder, column):
    path = write(folder, [{**ROW, column: [1, 2, 3, 4]}])
    with pytest.raises(DataError, match=r"answers alone.*drop_columns"):
        Files(path)
    assert len(Files(path, drop_columns=[column])) == 1


def test_a_question_has_no_field_for_a_box():
    assert not {"box", "bbox", "region", "boxes", "point"} & set(Question.__dataclass_fields__)


def test_bad_rows_are_left_out_and_named(folder):
    (folder / "empty.png").touch()
    rows = [
        ROW,
        {**ROW, "image": "missing.png"},
        {**ROW, "image": "empty.png"},
        {**ROW, "answer": ""},
        {**ROW, "answer": "green", "choices": ["red", "blue"]},
        {**ROW, "image": "../../etc/passwd"},
        ROW,
        {**ROW, "question": "Other?", "choices": ["only one"]},
    ]
    source = Files(write(folder, rows))
    assert len(source) == 1
    said = source.complaint()
    assert "7 rows are left out" in said
    for number, words in {
        2: "missing.png: there is no such file", 3: "the file is empty", 4: "column answer: it is empty",
        5: "'green' is not among the 2 choices", 6: "leads out of",
    }.items():  # fmt: skip
        assert f"row {number}, column" in said
        assert words in said
    assert "row 7, the same as row 1" in source.bad[5]
    assert "column choices" in source.bad[6]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"image": "a.png", "question": "?"}], "column 'answer' is missing"),
        ([{**ROW, "image": "no.png"}], "no row can be used"),
        (["{not json"], "can't be read"),
        ([], "can.t be read|no rows"),
    ],
)
def test_files_that_cannot_be_used(folder, rows, words):
    with pytest.raises(DataError, match=words):
        Files(write(folder, rows))


def test_missing_file_and_unknown_kind_of_file(folder):
    with pytest.raises(DataError, match="no such file"):
        Files(str(folder / "none.jsonl"))
    (folder / "q.txt").write_text("x")
    with pytest.raises(DataError, match=r"\.jsonl"):
        Files(str(folder / "q.txt"))


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_any_number_of_ranks_goes_on_with_the_same_questions(ranks):
    """Whoever dealt the first eight of twenty, the next ones are the same."""

    def deal(ranks, state=None):
        data = Decoded(Scenes(20, side=64))
        loaders = [Batches(data, ranks, rank, 4 // ranks, True, 0, 0) for rank in range(ranks)]
        for loader in loaders if state else ():
            loader.load_state_dict(state)
        steps = zip(*loaders, strict=True)
        return loaders, (sorted(sample.question.id for batch in step for sample in batch) for step in steps)

    before, dealt = deal(2)
    first = [next(dealt), next(dealt)]
    (state,) = {str(loader.state_dict()): loader.state_dict() for loader in before}.values()
    assert first + list(deal(ranks, state)[1]) == list(deal(1)[1])


def test_a_picture_that_breaks_later_costs_its_row_only(folder):
    source = Files(write(folder, [ROW, {**ROW, "image": "b.png"}]))
    (folder / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    samples = [Decoded(source)[i] for i in range(2)]
    assert samples[0].image is not None
    assert samples[1].image is None
    assert "b.png" in samples[1].why


def test_scenes_are_reproducible_and_their_splits_differ():
    source = Scenes(4, kinds=("attribute", "counting"), side=256)
    assert source[1].category == "counting"
    assert source[1].picture.load().tobytes() == source[1].picture.load().tobytes()
    assert source[0].picture.scene != Scenes(4, split="val")[0].picture.scene
    assert len(Scenes(4, split="ood")[0].picture.scene.marks) > 6
    with pytest.raises(IndexError):
        source[4]


@pytest.mark.parametrize("bad", [dict(kinds=("colour",)), dict(split="dev")])
def test_unknown_names_are_refused(bad):
    with pytest.raises(DataError, match="take"):
        Scenes(2, **bad)


def test_the_order_of_training_comes_from_the_seed():
    def order(seed):
        data = VQAData(train=Scenes(8, side=64), batch_size=2, num_workers=0, seed=seed)
        return [sample.question.id for batch in data.train_dataloader() for sample in batch]

    assert order(0) == order(0) != order(1)
    assert sorted(order(0)) == sorted(order(1))


def test_a_resumed_loader_goes_on_where_it_stopped():
    data = VQAData(train=Scenes(8, side=64), batch_size=2, num_workers=0)
    loader = data.train_dataloader()
    seen, state = [], None
    for i, batch in enumerate(loader):
        seen.append([sample.question.id for sample in batch])
        if i == 1:
            state = loader.state_dict()
    again = data.train_dataloader()
    again.load_state_dict(state)
    assert [[sample.question.id for sample in batch] for batch in again] == seen[2:]


def test_an_id_that_stands_twice_loses_no_question(folder):
    """An id of the image, with several questions: each is still told apart in a report."""
    rows = [{**ROW, "id": name, "question": f"What {i}?"} for i, name in enumerate(["7", "7", "8", "7-5", "7"])]
    source = Files(write(folder, rows))
    assert [source[i].id for i in range(len(source))] == ["7", "7-2", "8", "7-5", "7-5-5"]


def test_large_marks_are_a_share_that_every_kind_gets():
    kinds = ("attribute", "counting")
    source = Scenes(40, kinds, large=0.25)
    large = [source[i] for i in range(40) if source[i].category.endswith(", large")]
    assert len(large) == 10
    assert {question.category for question in large} == {f"{kind}, large" for kind in kinds}
    with pytest.raises(DataError, match="shares"):
        Scenes(4, large=2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"train": "mine.jsonl"},
            r"data\.train is the text 'mine\.jsonl'; a file is mgpo\.data\.Files\('mine\.jsonl'\)",
        ),
        ({"val": Scenes(2)}, r"data\.val is a list of sources, such as \[Scenes\(…\)\]"),
    ],
)
def test_what_is_no_source_or_no_list_of_them_is_told_with_what_would_be_one(options, words):
    with pytest.raises(DataError, match=words):
        VQAData(**options)


def test_a_text_that_is_no_text_is_told_by_its_source():
    class Tweets(list):
        pass

    with pytest.raises(DataError, match="the source Tweets: a text of question 0 holds half of a"):
        question_of(Tweets([Question("0", None, "Wo? \ud83d", "da")]), 0)
    for wrong in (Question("0", None, 5, "da"), Question("0", None, "Wo?", "A", choices=(1, 2))):
        with pytest.raises(DataError, match="text, choices and answers of question 0 have to be texts"):
            question_of(Tweets([wrong]), 0)


def test_two_sources_that_could_not_be_told_apart_are_refused(folder):
    """Ids of both are test-1, test-2, …: as one split each question would hide another."""
    for name in ("charts", "signs"):
        (folder / name).mkdir()
        write(folder / name, [ROW, {**ROW, "image": "b.png"}], "test.jsonl")

    def source(name, **options):
        return Files(str(folder / name / "test.jsonl"), str(folder), **options)

    said = "two sources report under the split 'files', and both have a question 'test-1'; give one of them another"
    for key in ("val", "test"):
        with pytest.raises(DataError, match=f"data.{key}: {said}"):
            VQAData(**{key: [source("charts"), source("signs")]}).setup("validate")
        VQAData(**{key: [source("charts"), source("signs", split="signs")]}).setup("validate")
    VQAData(val=[source("charts")], test=[source("charts")]).setup("validate")
