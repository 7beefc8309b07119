"""The forms in which people keep questions: Hugging Face's tables and folders, lists, objects, other names."""

import base64
import gzip
from datetime import datetime

import datasets
import pytest

from mgpo.data import tables
from mgpo.data.base import DataError
from mgpo.data.files import Files
from mgpo.data.module import Decoded
from mgpo.data.scenes import Scenes
from mgpo.data.unlabelled import unlabelled_questions
from mgpo.errors import UserError
from mgpo.rewards import ExactAnswer
from tests.helpers.published import base64_png, png, same, snapshot, write_jsonl

ROW = {"image": "0.png", "question": "What?", "answer": "7"}


@pytest.fixture
def folder(tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(png(i))
    return tmp_path


def files(folder, *rows, **options):
    return Files(str(write_jsonl(folder / "q.jsonl", list(rows))), **options)


def table(count=3, **cells):
    rows = [{"image": {"bytes": png(i), "path": None}, "question": f"What {i}?", "answer": "7"} for i in range(count)]
    return datasets.Dataset.from_list([{**row, **cells} for row in rows]).cast_column("image", datasets.Image())


def everything(source, count=3):
    """Whether all questions are there with their pictures."""
    return len(source) == count and all(same(source[i], i) for i in range(count))


@pytest.mark.parametrize("choices", [None, ["7", "8"]])
def test_an_image_struct(folder, choices):
    table(**({"choices": choices} if choices else {})).to_parquet(str(folder / "q.parquet"))
    source = Files(str(folder / "q.parquet"))
    assert everything(source) and source[0].answer == ("A" if choices else "7")
    assert everything_asked(folder / "q.parquet")


def everything_asked(path, **options):
    questions = unlabelled_questions(str(path), **options)
    return len(questions) == 3 and all(same(question, i) for i, question in enumerate(questions))


def test_an_image_struct_of_paths(folder):
    """As `datasets` writes it where images were files of another machine: the end of the path is what is here too."""
    (folder / "sub").mkdir()
    (folder / "sub" / "0.png").write_bytes(png(1))
    paths = ["/elsewhere/data/0.png", "/elsewhere/data/sub/0.png", "/elsewhere/data/2.png"]
    rows = [{**ROW, "image": {"bytes": None, "path": path}, "question": f"{i}?"} for i, path in enumerate(paths)]
    datasets.Dataset.from_list(rows).to_parquet(str(folder / "q.parquet"))
    source = Files(str(folder / "q.parquet"))
    assert everything(source) and "3 pictures had paths of another machine" in source.complaint()
    rows += [{**ROW, "image": {"bytes": None, "path": path}} for path in ("/a/1.png", "/b/1.png", "/elsewhere/3.png")]
    source = files(folder, *rows)
    assert len(source) == 4 and "had several paths" in source.bad[0] and "no such file is here" in source.bad[1]


@pytest.mark.parametrize("column", ["image", "images"])
def test_a_list_of_one_image(folder, column):
    struct = [[{"bytes": png(i), "path": None}] for i in range(3)]
    rows = {column: struct, "problem": [f"<image>What {i}?" for i in range(3)], "answer": ["7"] * 3}
    made = datasets.Dataset.from_dict(rows).cast_column(column, datasets.List(datasets.Image()))
    made.to_parquet(str(folder / "q.parquet"))
    made.save_to_disk(str(folder / "saved"))
    for path in ("q.parquet", "saved"):
        source = Files(str(folder / path), columns={"question": "problem"})
        assert everything(source) and source[1].text == "What 1?"
    assert everything_asked(folder / "saved", columns={"question": "problem"})
    rows = [{"question": f"{i}", "answer": "7", column: [f"{i}.png"]} for i in range(3)]
    assert everything(files(folder, *rows))


def test_a_list_of_images_without_one_costs_the_row(folder):
    both = {"bytes": png(0), "path": None}, None
    rows = [{**ROW, "images": list(both)[:n]} for n in (1, 2, 0)]
    feature = datasets.Features(
        images=datasets.List(datasets.Image()), question=datasets.Value("string"), answer=datasets.Value("string")
    )
    made = datasets.Dataset.from_list([{k: v for k, v in row.items() if k != "image"} for row in rows], feature)
    made.to_parquet(str(folder / "q.parquet"))
    source = Files(str(folder / "q.parquet"))
    assert len(source) == 1 and same(source[0], 0)
    assert source.bad == ["row 2, column images, picture 2: it is empty", "row 3, column images: it is empty"]


@pytest.mark.parametrize("form", ["one", "splits"])
def test_a_folder_of_save_to_disk(folder, form):
    made = table() if form == "one" else datasets.DatasetDict(test=table(1), validation=table())
    made.save_to_disk(str(folder / "saved"))
    assert everything(Files(str(folder / "saved"), hub_split=None if form == "one" else "validation"))
    if form == "splits":
        with pytest.raises(DataError, match="no split 'train'; there are test, validation"):
            Files(str(folder / "saved"))


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv", "train/metadata.jsonl", "train/metadata.csv"])
def test_a_folder_of_images_with_metadata(tmp_path, name):
    place = (tmp_path / name).parent
    place.mkdir(exist_ok=True)
    rows = [
        {"file_name": f"{i}.png", "question": f"What, {i}?", "answer": a} for i, a in enumerate(("007", "x", "1e5"))
    ]
    for i in range(3):
        (place / f"{i}.png").write_bytes(png(i))
    if name.endswith("jsonl"):
        write_jsonl(tmp_path / name, rows)
    else:
        lines = [",".join(f'"{value}"' for value in row.values()) for row in rows]
        (tmp_path / name).write_text("\n".join(["file_name,question,answer", *lines]))
    source = Files(str(tmp_path))
    assert everything(source) and [q.answer for q in source.questions] == ["007", "x", "1e5"]
    assert everything_asked(tmp_path)


@pytest.mark.parametrize("by", ["folder", "hub"])
@pytest.mark.parametrize("form", ["parquet", "jsonl", "csv"])
def test_a_repository(tmp_path, form, by, monkeypatch):
    """By its name it is loaded as from the hub, of which a folder takes the place here."""
    (tmp_path / "data").mkdir()
    rows = [{**ROW, "image": f"{i}.png", "answer": a, "question": f"{i}?"} for i, a in enumerate(("007", "x", "1e5"))]
    if form == "parquet":
        table().to_parquet(str(tmp_path / "data" / "train-00000-of-00001.parquet"))
    elif form == "jsonl":
        written = [{**row, "image": base64_png(i)} for i, row in enumerate(rows)]
        write_jsonl(tmp_path / "data" / "train-00000-of-00002.jsonl", written[:2])
        write_jsonl(tmp_path / "data" / "train-00001-of-00002.jsonl", [{**written[2], "answer": 10**5}])
    else:
        lines = [f"{base64_png(i)},{row['question']},{row['answer']}" for i, row in enumerate(rows)]
        (tmp_path / "data" / "train.csv").write_text("\n".join(["image,question,answer", *lines]))
    if by == "hub":
        monkeypatch.setattr(tables, "open_folder", lambda path, *where: tables.open_hub(str(path), *where))
    source = Files(str(tmp_path))
    assert everything(source)
    answers = {"parquet": ["7"] * 3, "csv": ["007", "x", "1e5"], "jsonl": ["007", "x", "100000"]}
    assert [q.answer for q in source.questions] == answers[form]
    assert len({q.id for q in source.questions}) == 3


def test_a_repository_that_is_not_there(monkeypatch):
    def load_dataset(*args, **kwargs):
        raise ConnectionError

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(DataError, match=r"owner/name: the hub can't be reached.*nor is there a file or folder"):
        Files("owner/name")
    with pytest.raises(DataError, match=r"owner/name\.jsonl: there is no such file"):
        Files("owner/name.jsonl")


@pytest.mark.parametrize("name", ["q.csv", "q.tsv", "q.csv.gz", "semicolons.csv", "bom.csv"])
def test_tables_of_texts(folder, name):
    """Quoted line ends, an index without a name as pandas writes it, and values that look like others."""
    separator = "\t" if "tsv" in name else ";" if "semi" in name else ","
    lines = [["", "image", "question", "answer", "choices"]]
    lines += [[str(i), f"{i}.png", f'"What, {i}\n; or?"', answer, ""] for i, answer in enumerate(("007", "NA", "5.0"))]
    data = "\r\n".join(separator.join(line) for line in lines).encode("utf-8-sig" if "bom" in name else "utf-8")
    (folder / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    source = Files(str(folder / name))
    assert everything(source) and [q.answer for q in source.questions] == ["007", "NA", "5.0"]
    assert source[2].text == "What, 2\n; or?" and source[2].choices == ()


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("<image>What?", "What?"), ("<image>\nWhat?", "What?"), ("What?\n<image>", "What?"),
        ("<IMAGE 1> What?", "What?"),
        ("Look: <image>\nWhat?", "Look:\nWhat?"), ("<|vision_start|><|image_pad|><|vision_end|>What?", "What?"),
        ("What of <image_1>?", "What of ?"),
    ],
)  # fmt: skip
def test_marks_of_the_image_are_taken_out_and_said(folder, text, plain):
    source = files(folder, {**ROW, "question": text})
    assert source[0].text == plain and "1 rows had <image> in their question" in source.complaint()
    with pytest.raises(DataError, match="column question: it is empty"):
        files(folder, {**ROW, "question": "<image>"})


def test_columns_are_called_by_other_names(folder):
    row = {
        "picture": "0.png",
        "problem": "Which?",
        "solution": 1,
        "options": ["a", "b"],
        "kind": "x",
        "key": 5,
        "id": 9,
    }
    names = dict(image="picture", question="problem", answer="solution", choices="options", category="kind", id="key")
    question = files(folder, row, columns=names, index_base=0)[0]
    assert (question.text, question.answer, question.choices) == ("Which?", "B", ("a", "b"))
    assert (question.category, question.id) == ("x", "5")
    with pytest.raises(DataError, match=r"column 'problems' is missing; the file has picture, problem.* columns: {"):
        files(folder, row, columns={**names, "question": "problems"})
    with pytest.raises(DataError, match="columns: 'picture' is none of image, question"):
        files(folder, row, columns={"picture": "image"})


def test_a_picture_that_is_in_the_rows_is_looked_at_before(folder):
    bad = base64.b64encode(b"no image" * 1000).decode()
    rows = [{**ROW, "image": base64_png(0)}, {**ROW, "image": bad}, {**ROW, "image": base64_png(0)}]
    source = files(folder, *rows, {**ROW, "image": {"bytes": base64_png(1)}}, {**ROW, "image": {"path": "2.png"}})
    assert everything(source)
    assert source.bad == ["row 2, column image: this is not an image that can be read", "row 3, the same as row 1"]
    assert Decoded(source)[0].image is not None


@pytest.mark.parametrize("value", [b"x" * 2_000_000, {"bytes": b"x" * 2_000_000, "path": None}, "y" * 2_000_000])
def test_no_message_is_longer_than_a_few_lines(folder, value):
    for column in ("image", "question", "answer", "choices", "category", "id"):
        rows = [
            {"image": "0.png", "question": f"{i}?", "answer": "7", "choices": None, column: value} for i in range(9)
        ]
        datasets.Dataset.from_list(rows).to_parquet(str(folder / "q.parquet"))
        try:
            said = Files(str(folder / "q.parquet")).complaint() or ""
        except DataError as error:
            said = str(error)
        assert len(said) <= 600 and "\n" not in said


def test_a_single_picture_is_asked_about(folder):
    (question,) = unlabelled_questions(str(folder / "1.png"), "What?")
    assert (question.id, question.text) == ("1.png", "What?") and same(question, 1)
    with pytest.raises(DataError, match=r"1\.png is a picture; say with --question"):
        unlabelled_questions(str(folder / "1.png"))


def test_what_is_asked_may_have_no_answers(folder):
    table().remove_columns(["answer", "question"]).save_to_disk(str(folder / "saved"))
    assert everything_asked(folder / "saved", question="What?")
    with pytest.raises(DataError, match="row 1: column question: a text is needed"):
        unlabelled_questions(str(folder / "saved"))
    rows = [{**ROW, "bbox": [1, 2, 3, 4], "answer": None}, {"image": "none.png", "question": "?"}]
    assert [q.answer for q in unlabelled_questions(str(write_jsonl(folder / "q.jsonl", rows)))] == ["", ""]


def test_an_empty_cell_is_no_cell(folder):
    row = {**ROW, "choices": "", "category": "", "id": ""}
    question = files(folder, row)[0]
    assert (question.id, question.category, question.choices) == ("q-1", "", ())


def test_folders_of_the_same_name_are_not_taken_for_each_other(tmp_path):
    """A repository whose card is the same, downloaded elsewhere, or once more."""
    for name in ("one", "other"):
        snapshot(tmp_path / name / "data", table(answer=name), "train")
        assert [q.answer for q in Files(str(tmp_path / name / "data")).questions] == [name] * 3
    table(2, answer="new").to_parquet(str(tmp_path / "one" / "data" / "data" / "train-00000-of-00001.parquet"))
    assert [q.answer for q in Files(str(tmp_path / "one" / "data")).questions] == ["new"] * 2
    with pytest.raises(DataError, match=r"Unknown split \"test\". Should be one of \['train'\]"):
        Files(str(tmp_path / "one" / "data"), hub_split="test")
    assert len(Files(str(tmp_path / "one" / "data"), hub_split="train[:1]")) == 1


def test_the_column_that_is_missing_is_the_one_to_be_named(tmp_path):
    path = tmp_path / "wrong.jsonl"
    path.write_text('{"picture": "a.png", "question": "What?", "answer": "EXIT"}\n')
    with pytest.raises(DataError, match=r"column 'image' is missing; .*say which with columns: {image: …}"):
        Files(str(path))


@pytest.mark.parametrize("numbers", [dict(count=-3), dict(count=2, side=0), dict(count=2, seed=-1)])
def test_numbers_that_cannot_be_meant_are_refused(numbers):
    with pytest.raises(UserError, match=r"Scenes: \w+ is -?\d; it should be at least"):
        Scenes(**numbers)


@pytest.mark.parametrize("row", ["0.png,What, then?,7", "1,0.png,What?,7"])
def test_a_first_row_that_is_longer_than_the_header_is_not_cut(folder, row):
    """All rows would have been, and "then?" be the answer."""
    (folder / "q.csv").write_text(f"image,question,answer\n{row}\n0.png,What?,8\n")
    with pytest.raises(DataError, match=r"q\.csv: row 1 has 4 cells and the header 3; put texts that hold a ',' in"):
        Files(str(folder / "q.csv"))
    (folder / "data").mkdir()
    for part, second in enumerate(("0.png,What?,8", row)):
        (folder / "data" / f"train-{part}.csv").write_text(f"image,question,answer\n{second}\n0.png,What?,8\n")
    with pytest.raises(DataError, match=r"can't be read.*does not match length of data"):
        Files(str(folder))


def test_a_date_in_a_table_is_a_date(folder):
    """As pandas writes it to Parquet it has a time, midnight, which no answer has."""
    days = [datetime(2024, 1, 5), datetime(2024, 1, 5, 9, 30), datetime(2024, 2, 1)]
    table().remove_columns("answer").add_column("answer", days).to_parquet(str(folder / "q.parquet"))
    questions = Files(str(folder / "q.parquet")).questions
    assert [q.answer for q in questions] == ["2024-01-05", "2024-01-05 09:30:00", "2024-02-01"]
    assert ExactAnswer()("January 5, 2024", questions[0]) == 1
