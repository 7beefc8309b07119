"""Files of questions as they should not be: a row costs itself, a file ends in one sentence, nothing else happens."""

import json

import datasets
import pytest

from mgpo.data.base import DataError
from mgpo.data.files import Files
from mgpo.data.unlabelled import unlabelled_questions
from mgpo.errors import UserError
from tests.conftest import noise_image

GOOD = {"image": "a.png", "question": "What is it?", "answer": "7"}


@pytest.fixture
def folder(tmp_path):
    noise_image(32, 32).save(tmp_path / "a.png")
    return tmp_path


def read(folder, *lines, name="q.jsonl", encoding="utf-8"):
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / name).write_bytes(text.encode(encoding, "surrogatepass"))
    return Files(str(folder / name))


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ({"image": None}, "column image"), ({"image": 7}, "column image"), ({"image": ["a.png"] * 33}, "33 pictures"),
        ({"image": {"bytes": "x"}}, "column image"), ({"image": True}, "column image"), ({"image": " "}, "is empty"),
        ({"image": "http://127.0.0.1/a.png"}, "column image"), ({"image": "file:///etc/passwd"}, "column image"),
        ({"image": "ftp://x/a.png"}, "column image"), ({"image": "/etc/passwd"}, "leads out of"),
        ({"image": "x/../../a.png"}, "leads out of"), ({"image": "a\0.png"}, "no file can be called"),
        ({"image": "b" * 100_000}, "column image"), ({"question": None}, "column question"),
        ({"question": ["What?"]}, "column question"), ({"answer": None}, "column answer"),
        ({"answer": [1]}, "column answer"), ({"answer": {}}, "column answer"), ({"answer": False}, "column answer"),
        ({"answer": "\t\n"}, "is empty"), ({"choices": "red, blue"}, "column choices"),
        ({"choices": [["red"], ["blue"]]}, "column choices"), ({"choices": [1, 2]}, "column choices"),
        ({"choices": {"A": "red"}}, "column choices"), ({"choices": ["red", None]}, "column choices"),
        ({"choices": ["red", "blue"], "answer": "C"}, "column answer"),
        ({"choices": [f"option {i}" for i in range(27)], "answer": "option 1"}, "column choices"),
        ({"choices": ["7"] * 2000}, "column choices"),
    ],
)  # fmt: skip
def test_a_cell_that_cannot_be_used_is_named(folder, cells, words):
    with pytest.raises(DataError, match=words) as caught:
        read(folder, {**GOOD, **cells})
    said = str(caught.value)
    assert "q.jsonl" in said and "row 1" in said and "\n" not in said and len(said) < 1000


@pytest.mark.parametrize(
    "cells", [{"image": None}, {"question": None}, {"answer": None}, {"choices": []}, {"image": "none.png"}]
)
def test_it_costs_its_row_alone(folder, cells):
    source = read(folder, GOOD, {**GOOD, **cells}, {**GOOD, "question": "Another?"})
    assert len(source) == 2
    assert len(source.bad) == 1 and source.bad[0].startswith("row 2, ")


@pytest.mark.parametrize("answer", [7, 7.5, -0.0, 10**18])
def test_a_number_is_an_answer(folder, answer):
    assert read(folder, {**GOOD, "answer": answer})[0].answer == str(answer)


@pytest.mark.parametrize("answer", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_an_answer_that_is_no_finite_number_is_refused(folder, answer):
    with pytest.raises(DataError, match=r"q\.jsonl"):
        read(folder, '{"image": "a.png", "question": "?", "answer": ' + answer + "}")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "latin-1"])
def test_another_encoding_ends_in_one_sentence(folder, encoding):
    line = '{"image": "a.png", "question": "Was hei\u00dft das?", "answer": "7"}'
    with pytest.raises(DataError, match=r"q\.jsonl.* can't be read") as caught:
        read(folder, line, encoding=encoding)
    assert "\n" not in str(caught.value)


def test_a_mark_of_byte_order_is_passed_over(folder):
    assert read(folder, GOOD, encoding="utf-8-sig")[0].text == "What is it?"


@pytest.mark.parametrize(
    "text",
    ["\0" * 100, "[1, 2]", "7", '"text"', "null", '{"image": "a.png"', "[" * 100_000, "\ud800", "{}\n{}",
     '{"a": ' * 5000,
     '{"image": "a.png", "question": "?", "answer": "\ud800"', "\x1f\x8b\x08\0\0", "PK\x03\x04", "PAR1"],
)  # fmt: skip
def test_what_holds_no_rows_ends_in_one_sentence(folder, text):
    for name in ("q.jsonl", "q.json"):
        with pytest.raises(DataError) as caught:
            read(folder, text, name=name)
        assert name in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 1000


@pytest.mark.parametrize("name", ["q.parquet", "q.tsv"])
@pytest.mark.parametrize("data", [b"", b"PAR1PAR1", b"\xff\xfe\0\0", b"\0" * 1000, b"image\tquestion\n", b'"\n"\t"'])
def test_tables_that_hold_no_rows_end_in_one_sentence(folder, name, data):
    (folder / name).write_bytes(data)
    with pytest.raises(DataError) as caught:
        Files(str(folder / name))
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_a_table_without_rows(folder):
    datasets.Dataset.from_dict({"image": [], "question": [], "answer": []}).to_parquet(str(folder / "q.parquet"))
    with pytest.raises(DataError, match=r"q\.parquet"):
        Files(str(folder / "q.parquet"))


def test_a_line_of_megabytes_is_a_row_like_any_other(folder):
    assert len(read(folder, GOOD, {**GOOD, "question": "[" * 3_000_000})[1].text) == 3_000_000


def test_a_key_that_stands_twice_is_named(folder):
    with pytest.raises(DataError, match=r"q\.jsonl.*line 2.*twice"):
        read(folder, GOOD, '{"image": "none.png", "image": "a.png", "question": "?", "answer": "7"}')


@pytest.mark.parametrize("name", ["q.jsonl", "q.json"])
@pytest.mark.parametrize(
    "text", ['{"a": ' + "[" * 50_000 + "]" * 50_000 + "}", '{"a": ' * 20_000 + "1" + "}" * 20_000, "null", "\n null{}",
             '[null, {"image": "a.png"}]'],
)  # fmt: skip
def test_what_would_end_the_reader_is_refused_before(folder, name, text):
    with pytest.raises(DataError, match=r"line \d.*(null|nested)"):
        read(folder, text, name=name)


@pytest.mark.parametrize("line", ["[1]", "nul", "{", '{"image": "a.png", "id": {}}', "\0", "[" * 50_000,
                                  '{"image": "../a.png"}', '{"image": "a.png", "question": true}',
                                  '{"image": "a.png", "choices": [[1]]}',
                                  '{"image": "a.png", "id": NaN, "choices": ["a", "b"]}', "9" * 5000,
                                  '{"image": "a.png", "question": ' + "9" * 5000 + "}"])  # fmt: skip
def test_questions_to_be_asked_name_the_line(folder, line):
    (folder / "q.jsonl").write_text('{"image": "a.png"}\n' + line + "\n")
    with pytest.raises(UserError, match="line 2") as caught:
        unlabelled_questions(str(folder / "q.jsonl"), "What?")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "image,question,answer\n"])
def test_a_table_with_nothing_in_it_is_not_called_damaged(folder, text):
    with pytest.raises(DataError, match=r"q\.csv: there are no rows in it"):
        read(folder, text, name="q.csv")


def test_arguments_that_a_file_can_not_have_are_told_of(folder):
    read(folder, GOOD)
    for options, said in (
        (dict(images=str(folder / "none")), "images: there is no folder .*none"),
        (dict(hub_split="test"), "q.jsonl is one file; hub_split and config"),
        (dict(config="full"), "q.jsonl is one file"),
    ):
        with pytest.raises(DataError, match=said):
            Files(str(folder / "q.jsonl"), **options)
