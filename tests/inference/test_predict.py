"""Predictions in bulk: one row a question, in order, whatever happens to the process or to a picture."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mgpo.data.base import DataError
from mgpo.data.scenes import Scenes
from mgpo.data.unlabelled import unlabelled_questions
from mgpo.errors import UserError
from mgpo.inference.predict import predict
from mgpo.inference.prediction_file import ORIGIN, Predictions
from tests.conftest import make_pictures
from tests.test_cli import ROOT, run

ASK = "Which letter stands on the red mark?"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return make_pictures(tmp_path_factory.mktemp("pictures"), 60)


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def kill_when(path, rows, *arguments):
    """Start `predict`, and kill it hard as soon as that many rows are written."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "mgpo", "predict", "--output", str(path), *arguments]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (path.exists() and path.read_bytes().count(b"\n") >= rows):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"
    return path.read_bytes().count(b"\n")


@pytest.mark.slow
def test_a_killed_run_goes_on_and_loses_or_repeats_nothing(pictures, tmp_path):
    arguments = ["--data", str(pictures), "--question", ASK, "--batch_size", "4"]
    written = kill_when(tmp_path / "killed.jsonl", 20, *arguments)
    assert 20 <= written < 60
    with (tmp_path / "killed.jsonl").open("ab") as file:
        file.write(b'{"id": "0059.png", "answ')  # as a kill in the middle of a write leaves it
    done = run("predict", "--output", str(tmp_path / "killed.jsonl"), *arguments, cwd=tmp_path)
    assert "60 questions, 0 with an error" in done.stdout
    predict(str(pictures), str(tmp_path / "whole.jsonl"), ASK, batch_size=16)
    killed, whole = (rows_of(tmp_path / name) for name in ("killed.jsonl", "whole.jsonl"))
    assert [row["id"] for row in killed] == [f"{i:04d}.png" for i in range(60)]
    for one, other in zip(killed, whole):
        assert one.pop("logprob") == pytest.approx(other.pop("logprob"), abs=1e-3)
        assert one == other


@pytest.mark.slow
def test_a_thousand_pictures_killed_half_way(tmp_path):
    pictures = make_pictures(tmp_path, 1000)
    arguments = ["--data", str(pictures), "--question", ASK]
    written = kill_when(tmp_path / "rows.jsonl", 500, *arguments)
    assert 500 <= written < 1000
    run("predict", "--output", str(tmp_path / "rows.jsonl"), *arguments, cwd=tmp_path)
    assert [row["id"] for row in rows_of(tmp_path / "rows.jsonl")] == [f"{i:04d}.png" for i in range(1000)]


def test_rows_hold_boxes_in_pixels_of_the_original(pictures, tmp_path):
    source = Scenes(3, split="val", side=2048)
    asks = [{"image": f"{i}.png", "question": source[i].text, "answer": source[i].answer} for i in range(3)]
    asks.append({"image": "0.png", "question": source[0].text, "choices": ["C", source[0].answer], "id": "chosen"})
    for i in range(3):
        source[i].picture.load().save(tmp_path / f"{i}.png")
    (tmp_path / "asks.jsonl").write_text("\n\n".join(map(json.dumps, asks)))
    predict(str(tmp_path / "asks.jsonl"), str(tmp_path / "rows.jsonl"))
    rows = rows_of(tmp_path / "rows.jsonl")
    assert [row["id"] for row in rows] == ["asks-1", "asks-3", "asks-5", "chosen"]
    assert rows[3]["choices"] == ["C", source[0].answer] and "right" not in rows[3]
    looks = 0
    for row, ask in zip(rows[:3], asks):
        assert row["truth"] == ask["answer"] and row["right"] == (row["answer"] == row["truth"])
        assert row["turns"] == len(row["replies"]) == len(row["boxes"]) == 2
        assert row["logprob"] < 0
        for (left, top, right, bottom), box in zip(row["regions"], row["boxes"]):
            looks += 1
            assert 0 <= left < right <= 2048 and 0 <= top < bottom <= 2048
            assert max(abs(a - b) for a, b in zip((left, top, right, bottom), box)) <= 1
            assert right - left > 224  # pixels of the original, not of the 112 that the model sees
    assert looks


def test_few_answers_are_shown_with_their_boxes(pictures, tmp_path, capsys):
    picture = pictures / "0000.png"
    predict(str(picture), str(tmp_path / "one.jsonl"), ASK)
    shown, (row,) = capsys.readouterr(), rows_of(tmp_path / "one.jsonl")
    head, answer, *boxes, closing = shown.out.splitlines()
    assert (head, answer) == (f"{row['image']}: {ASK}", f"  answer: {row['answer']}")
    assert [line.split("(")[0].strip() for line in boxes] == [
        "box: " + ", ".join(f"{side:.0f}" for side in box) for box in row["boxes"] if box is not None
    ]
    assert closing == f"predictions: {tmp_path / 'one.jsonl'} (1 question, 0 with an error)"
    assert shown.err == ""  # no bar of one step


def test_of_many_the_progress_is_told_in_lines(pictures, tmp_path, capsys):
    predict(str(pictures), str(tmp_path / "rows.jsonl"), ASK, batch_size=20)
    shown = capsys.readouterr()
    *lines, closing = shown.out.splitlines()
    assert [line.split()[1] for line in lines] == ["20/60", "40/60", "60/60"] and closing.startswith("predictions: ")
    assert shown.err == ""


def test_a_bad_picture_costs_its_row_only(pictures, tmp_path, capsys):
    for name, content in (("a.png", b"no picture"), ("c.png", b"")):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "b.png").write_bytes((pictures / "0000.png").read_bytes())
    predict(str(tmp_path), str(tmp_path / "rows.jsonl"), ASK, batch_size=1)
    rows = rows_of(tmp_path / "rows.jsonl")
    assert [row["id"] for row in rows] == ["a.png", "b.png", "c.png"]
    assert "not an image" in rows[0]["error"] and "empty" in rows[2]["error"] and "error" not in rows[1]
    assert "3 questions, 2 with an error" in capsys.readouterr().out


def test_a_name_that_is_too_long_costs_its_row_only(pictures, tmp_path):
    (tmp_path / "a.png").write_bytes((pictures / "0000.png").read_bytes())
    asks = [{"image": name, "question": ASK} for name in ("a" * 300 + ".png", "a.png")]
    (tmp_path / "asks.jsonl").write_text("\n".join(map(json.dumps, asks)))
    predict(str(tmp_path / "asks.jsonl"), str(tmp_path / "rows.jsonl"))
    rows = rows_of(tmp_path / "rows.jsonl")
    assert "no such file" in rows[0]["error"] and "error" not in rows[1]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"question": "Which letter stands on the blue mark?"}, "input"),
        ({"options": {"max_pixels": 7840}}, "model"),
        ({"dialogue": "SingleTurn"}, "dialogue"),
    ],
)
def test_a_file_is_gone_on_with_from_the_same_things_only(pictures, tmp_path, changes, named):
    from mgpo import dialogues

    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a.png").write_bytes((pictures / "0000.png").read_bytes())
    arguments = {"data": str(tmp_path / "one"), "output": str(tmp_path / "rows.jsonl"), "question": ASK}
    predict(**arguments)
    before = (tmp_path / "rows.jsonl").read_bytes()
    if "dialogue" in changes:
        changes = {"dialogue": getattr(dialogues, changes["dialogue"])()}
    with pytest.raises(UserError, match=f"was begun with another {named}"):
        predict(**{**arguments, **changes})
    predict(**arguments, batch_size=3)
    assert (tmp_path / "rows.jsonl").read_bytes() == before


def test_names_that_utf_8_cannot_hold_are_answered_once(pictures, tmp_path):
    """A file's name may be any bytes, and JSON may escape half a pair of surrogates."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    picture = (pictures / "0000.png").read_bytes()
    (folder / "a.png").write_bytes(picture)
    (folder / os.fsdecode(b"b\xff.png")).write_bytes(picture)
    (folder / "asks.jsonl").write_text(json.dumps({"image": "a.png", "question": ASK, "id": "half \ud83d"}))
    for data, ids in ((folder, ["a.png", "b\\udcff.png"]), (folder / "asks.jsonl", ["half \\ud83d"])):
        for _ in range(2):
            predict(str(data), str(tmp_path / f"{data.name}.rows"), ASK)
        rows = rows_of(tmp_path / f"{data.name}.rows")
        assert [row["id"] for row in rows] == ids and not any("error" in row for row in rows)


@pytest.mark.parametrize("other", ['"\\ud83d"', '"\\\\ud83d"'])
def test_ids_are_unique_as_they_are_written(tmp_path, other):
    rows = [f'{{"image": "a.png", "question": "?", "id": {name}}}' for name in ('"\\ud83d"', other)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    with pytest.raises(DataError, match="stands twice"):
        unlabelled_questions(str(tmp_path / "rows.jsonl"))


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(st.text(max_size=12), min_size=1, max_size=6), cut=st.integers(0, 400), batch=st.integers(1, 3))
def test_whatever_a_write_left_behind_the_file_ends_whole(tmp_path_factory, texts, cut, batch):
    path = tmp_path_factory.mktemp("torn") / "rows.jsonl"
    rows = [{"id": str(i), "text": text} for i, text in enumerate(texts)]
    Predictions(path, {"input": 1}).append(rows)
    path.write_bytes(path.read_bytes()[:cut])
    again = Predictions(path, {"input": 1})
    assert list(again.rows) == rows[: len(again.rows)]
    todo = [row for row in rows if row["id"] not in again.done]
    for start in range(0, len(todo), batch):
        again.append(todo[start : start + batch])
    assert [json.loads(line) for line in path.read_bytes().decode().split("\n")[:-1]] == rows


def test_files_that_are_no_predictions_are_left_alone(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("my notes\n")
    with pytest.raises(UserError, match="what it came from, can't be read"):
        Predictions(path, {})
    Path(f"{path}{ORIGIN}").write_text("{}")
    path.write_text('my notes\n{"id": "1"}\n')
    with pytest.raises(UserError, match="line 1: this is no row of predictions"):
        Predictions(path, {})
    assert path.read_text().startswith("my notes")
    for folder in (tmp_path, Path(".")):
        with pytest.raises(UserError, match="can't be written: it is a folder; name another --output"):
            Predictions(folder, {})


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("nonsense", "line 2: this is no JSON object"),
        ("[" * 100_000, "no JSON object"),
        ('{"image": "a.png"}', "column question: a text is needed"),
        ('{"image": "a\\u0000.png", "question": "?"}', r"no file can be called 'a\x00.png'"),
        ('{"image": "../../etc/passwd", "question": "?"}', "leads out of"),
        ('{"image": "a.png", "question": "?", "choices": ["x"]}', "1 choices"),
        ('{"image": "a.png", "question": "?", "id": "rows-1"}', "stands twice"),
    ],
)
def test_rows_that_cant_be_asked_are_named_before_anything_is_asked(tmp_path, line, words):
    (tmp_path / "rows.jsonl").write_text('{"image": "a.png", "question": "Which?"}\n' + line)
    with pytest.raises(DataError, match=r"rows\.jsonl, line 2") as error:
        unlabelled_questions(str(tmp_path / "rows.jsonl"))
    assert words in str(error.value)


def test_there_must_be_something_to_ask(tmp_path):
    for data, question, words in (
        (tmp_path, None, "--question"),
        (tmp_path, ASK, "no pictures"),
        (tmp_path / "none", ASK, "no such folder or file"),
        (Path(__file__), ASK, "a .jsonl file is needed"),
    ):
        with pytest.raises(DataError, match=words):
            unlabelled_questions(str(data), question)
