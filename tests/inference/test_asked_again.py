"""`predict` once more: what failed is asked again, one process writes at a time, and all failed is no success."""

import json
import subprocess
import sys

import pytest

from mgpo.cli import main
from mgpo.data.scenes import Scenes
from mgpo.errors import UserError
from mgpo.inference.predict import predict
from mgpo.inference.prediction_file import LOCK, ORIGIN, Predictions
from tests.helpers.serving import Server

HOLD = "import fcntl, sys, time; f = open(sys.argv[1], 'ab'); fcntl.lockf(f, 2); print(flush=True); time.sleep(99)"


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(5):
        Scenes(1, split="val", side=64)[0].picture.load().save(folder / f"{i}.png")
    asks = [{"image": f"pictures/{i}.png", "question": f"Number {i}?", "id": str(i)} for i in range(5)]
    (tmp_path / "asks.jsonl").write_text("\n".join(map(json.dumps, asks)))
    return tmp_path


class Fails:
    """A server that fails on the questions that are named, and says of the others what their number is."""

    def __init__(self, *failing):
        self.failing = failing

    def __call__(self, path, body, headers):
        number = body["messages"][1]["content"][1]["text"].split("?")[0].split()[-1]
        if number in self.failing:
            return 500, {"error": {"message": "boom"}}
        return 200, {"choices": [{"message": {"content": f"\\boxed{{{number}}}"}, "finish_reason": "stop"}]}


def ask(folder, server, output="rows.jsonl", **options):
    from mgpo.dialogues import SingleTurn

    settings = {"model": "x", "retries": 0, "max_pixels": 3136, "min_pixels": 784, **options}
    predict(str(folder / "asks.jsonl"), str(folder / output), None, server.url, settings, SingleTurn(), batch_size=2)


def rows(folder):
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]


def test_rows_with_an_error_are_asked_again_and_no_others(pictures, capsys):
    with Server(Fails("1", "4")) as server:
        ask(pictures, server)
        assert "5 questions, 2 with an error); started again, it asks those once more" in capsys.readouterr().out
        before = rows(pictures)
        server.answers, server.seen = Fails("4"), []
        ask(pictures, server)
        assert len(server.seen) == 2
        after = rows(pictures)
        server.answers, server.seen = Fails(), []
        ask(pictures, server)
        assert len(server.seen) == 1 and "5 questions, 0 with an error)" in capsys.readouterr().out
    assert [row["id"] for row in before] == [row["id"] for row in after] == [row["id"] for row in rows(pictures)]
    assert [row["id"] for row in after if "error" in row] == ["4"]
    assert [row.get("answer") for row in rows(pictures)] == ["0", "1", "2", "3", "4"]
    assert [row for row in rows(pictures) if row["id"] in "023"] == [row for row in before if row["id"] in "023"]


def test_all_failed_is_no_success_and_nothing_is_lost(pictures):
    with Server(Fails(*"01234")) as server:
        with pytest.raises(
            UserError, match=r"none of the 5 questions was answered, the first because: .* boom"
        ) as error:
            ask(pictures, server)
        assert ["error" in row for row in rows(pictures)] == [True] * 5 and len(str(error.value)) <= 600
        server.answers = Fails()
        ask(pictures, server, max_new_tokens=9)  # with another limit: there are no answers that came from the first
    assert not any("error" in row for row in rows(pictures))


def test_the_command_line_says_so(pictures, capsys):
    arguments = ["--data", str(pictures / "asks.jsonl"), "--output", str(pictures / "rows.jsonl")]
    with Server(Fails(*"01234")) as server, pytest.raises(SystemExit, match=r"^mgpo: none of the 5 questions"):
        main(["predict", *arguments, "--model", server.url, "--options", '{"model": "x", "retries": 0}'])
    with Server(lambda *request: (200, b"[" * 100_000)) as server, pytest.raises(SystemExit, match="is no JSON"):
        main(["predict", *arguments, "--model", server.url, "--options", '{"model": "x", "retries": 0}'])


def test_answers_of_another_model_are_kept_for_that(pictures):
    with Server(Fails("1")) as server:
        ask(pictures, server)
        with pytest.raises(UserError, match="begun with another limit of tokens"):
            ask(pictures, server, max_new_tokens=9)
    assert len(rows(pictures)) == 5


def test_rows_that_stand_twice_are_kept_once(tmp_path):
    path = tmp_path / "rows.jsonl"
    Predictions(path, {}).append([{"id": "1", "answer": "A"}, {"id": "2", "error": "?"}, {"id": "1", "answer": "B"}])
    again = Predictions(path, {})
    assert again.rows == [{"id": "1", "answer": "A"}] and len(path.read_text().splitlines()) == 1


def test_one_process_writes_at_a_time_and_a_dead_one_lets_go(pictures):
    path = pictures / f"rows.jsonl{LOCK}"
    with (
        subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE) as holder,
        Server(Fails()) as server,
    ):
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(UserError, match=r"rows.jsonl is being written by another process; wait until"):
            ask(pictures, server)
        assert not (pictures / "rows.jsonl").exists()
        ask(pictures, server, "others.jsonl")
        holder.kill()
        holder.wait()
        ask(pictures, server)
    assert len(rows(pictures)) == 5
    assert {path.name for path in pictures.glob("rows*")} == {"rows.jsonl", f"rows.jsonl{ORIGIN}"}


@pytest.mark.parametrize("origin", ["[1]", "[" * 100_000, "3", "null", "nonsense", ""])
def test_what_says_where_rows_came_from_may_be_anything(tmp_path, origin):
    (tmp_path / "rows.jsonl").write_text("")
    (tmp_path / f"rows.jsonl{ORIGIN}").write_text(origin)
    with pytest.raises(UserError, match="what it came from, can't be read"):
        Predictions(tmp_path / "rows.jsonl", {})


def test_a_nested_line_is_no_row(tmp_path):
    Predictions(tmp_path / "rows.jsonl", {}).append([{"id": "1"}])
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write("[" * 100_000 + "\n" + '{"id": "2"}\n')
    with pytest.raises(UserError, match="line 2: this is no row of predictions"):
        Predictions(tmp_path / "rows.jsonl", {})


def test_where_nothing_can_be_written_the_advice_is_that_of_predict(tmp_path, pictures):
    (tmp_path / "file").write_text("")
    with Server(Fails()) as server, pytest.raises(UserError, match="name another --output") as error:
        ask(pictures, server, "file/rows.jsonl")
    assert "ckpt_path" not in str(error.value)
