"""JSON as it stands: whatever the first rows look like, however large the file, in every form."""

import gzip
import json
import pickle
import tracemalloc

import pytest

from mgpo.data.base import DataError
from mgpo.data.benchmarks import MMERealWorld
from mgpo.data.files import Files
from mgpo.data.image_columns import LinePicture
from mgpo.data.json_rows import read_rows
from tests.conftest import noise_image
from tests.helpers.published import mme_rows, same, write_jsonl

ROW = {"image": "a.png", "question": "What?", "answer": "7"}


@pytest.fixture
def folder(tmp_path):
    noise_image(32, 32).save(tmp_path / "a.png")
    return tmp_path


def rows(count, **last):
    """So many rows that differ, of which the last is another kind."""
    first = [{**ROW, "question": f"What {i}?", "answer": i} for i in range(count - 1)]
    return [*first, {**ROW, "question": "And this?", **last}]


@pytest.mark.parametrize(
    "last",
    [
        {"answer": "EXIT"}, {"answer": 1.5}, {"answer": "B", "choices": ["red", "blue"]},
        {"answer": "blue", "choices": {"A": "red", "B": "blue"}}, {"category": "signs"}, {"id": "x"},
        {"note": [{"deep": None}]},
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ["lines", "list"])
def test_later_rows_may_be_of_other_types(folder, last, form):
    """More than the 10 MB by which a reader would take the types."""
    filler = "x" * 1_500_000
    written = [{**row, "filler": filler if i % 400 == 0 else ""} for i, row in enumerate(rows(4001, **last))]
    path = folder / ("q.jsonl" if form == "lines" else "q.json")
    path.write_text("\n".join(map(json.dumps, written)) if form == "lines" else json.dumps(written, indent=1))
    assert path.stat().st_size > 12_000_000
    source = Files(str(path))
    assert len(source) == 4001 and not source.bad
    answer = "B" if "choices" in last else str(last.get("answer", "7"))
    assert (source[17].answer, source[4000].answer) == ("17", answer)


@pytest.mark.parametrize("text", ["2024-01-01", "12:30", "2024-01-01T10:00:00Z", "007", "1e5", "null", "true", "NaN"])
def test_what_is_quoted_is_a_text(folder, text):
    many = [{**ROW, "question": f"What {i}?", "answer": text, "id": text, "category": text} for i in range(3)]
    source = Files(str(write_jsonl(folder / "q.jsonl", many)))
    assert [(q.answer, q.category) for q in source.questions] == [(text, text)] * 3
    assert source[0].id == text


@pytest.mark.parametrize("answer", [5, 5.0, 1.50, -3, 10**18])
def test_a_number_stays_the_number_that_it_is(folder, answer):
    """Beside a text and a fraction, which would make all of them fractions or texts in a table of one type."""
    written = [{**ROW, "answer": answer}, {**ROW, "answer": 2.5, "question": "?"}, {**ROW, "question": "!"}]
    assert Files(str(write_jsonl(folder / "q.jsonl", written)))[0].answer == str(answer)


@pytest.mark.parametrize("form", ["lines", "crlf", "blank lines", "list", "indented list", "indented objects", "gzip"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_every_form_of_a_file(folder, form, mark):
    written = [{**ROW, "question": f"Wo ist „Straße {i}“? 😀"} for i in range(3)]
    lines = [json.dumps(row, ensure_ascii=False) for row in written]
    text = {
        "lines": "\n".join(lines), "crlf": "\r\n".join(lines) + "\r\n", "blank lines": "\n\n" + "\n \n".join(lines),
        "list": json.dumps(written), "indented list": json.dumps(written, indent=2),
        "indented objects": "\n".join(json.dumps(row, indent=2) for row in written), "gzip": "\n".join(lines),
    }[form]  # fmt: skip
    data = mark + text.encode()
    path = folder / ("q.jsonl.gz" if form == "gzip" else "q.json")
    path.write_bytes(gzip.compress(data) if form == "gzip" else data)
    assert [q.text for q in Files(str(path)).questions] == [row["question"] for row in written]


@pytest.mark.parametrize("many", [False, True])
def test_places_are_those_of_the_rows(tmp_path, many):
    """In bytes, with signs of several, in pieces that end anywhere."""
    written = [{"a": "é" * (i % 50), "b": [i, {"c": ']}\\"'}], "d": "x" * (i % 7 * 40_000)} for i in range(200)]
    lines = [json.dumps(row, ensure_ascii=i % 2 == 0) for i, row in enumerate(written)]
    path = tmp_path / "q.json"
    path.write_text("[" + " ,\n".join(lines) + "]" if many else "\n".join(lines), encoding="utf-8")
    data = path.read_bytes()
    found = list(read_rows(path))
    assert [row for *_, row in found] == written
    assert [json.loads(data[start : start + size]) for _, start, size, _ in found] == written


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"a": 1}\n{"a": 1,}', 2), ('{"a": 1}\n{"a": 1} {"a": 2}', 2), ('[{"a": 1}\n{"a": 2}]', 2),
        ('[{"a": 1},\n\n{"a": 2}', 3), ('[{"a": 1}]\n7', 2), ('{"a": 1}\n["b"]', 2), ('{"a": 1}\n\n"b', 3),
        ('{"a": 1}\n{"a": "b', 2), ('{"a": 1}\n{"a": "\\ud83', 2), ('{"a": tru', 1), ('{"a": "b\tc"}', 1),
    ],
)  # fmt: skip
def test_what_is_no_row_names_its_line(tmp_path, text, line):
    (tmp_path / "q.jsonl").write_text(text)
    with pytest.raises(DataError, match=rf"q\.jsonl, line {line}: this is no JSON object") as caught:
        list(read_rows(tmp_path / "q.jsonl"))
    assert "\n" not in str(caught.value) and len(str(caught.value)) <= 600


@pytest.mark.parametrize("cut", [0, 4, -9])
def test_a_damaged_archive_ends_in_one_sentence(folder, cut):
    data = gzip.compress(json.dumps(ROW).encode() * 100)
    (folder / "q.jsonl.gz").write_bytes(data[:cut] if cut else b"\x1f\x8bnonsense")
    with pytest.raises(DataError, match=r"q\.jsonl\.gz.*can't be read"):
        Files(str(folder / "q.jsonl.gz"))


def test_half_a_surrogate_pair_costs_its_row(folder):
    path = folder / "q.jsonl"
    path.write_text(json.dumps(ROW) + "\n" + json.dumps({**ROW, "question": "What \ud83d?"}))
    source = Files(str(path))
    assert len(source) == 1 and "row 2, column question: it holds half of a surrogate pair" in source.complaint()


def test_images_stay_in_the_file_until_they_are_loaded(tmp_path):
    source = MMERealWorld(path=str(write_jsonl(tmp_path / "t.jsonl", mme_rows())))
    picture = pickle.loads(pickle.dumps(source[4].picture))  # as a worker sends it back
    assert isinstance(picture, LinePicture) and len(pickle.dumps(picture)) < 1000
    assert same(source[4], 4)
    (tmp_path / "t.jsonl").write_text("{}")
    with pytest.raises(ValueError, match="no longer what it was"):
        picture.load()


def test_a_file_is_never_held_as_a_whole(tmp_path):
    path = tmp_path / "q.json"
    with path.open("w") as file:
        file.write("[" + ", ".join(json.dumps({"a": "x" * 100_000, "n": i}) for i in range(400)) + "]")
    tracemalloc.start()
    count = sum(1 for _ in read_rows(path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 400 and peak < path.stat().st_size / 4
