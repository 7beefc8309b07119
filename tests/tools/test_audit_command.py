"""`mgpo audit`: files, tables, page, marks that are known to it alone, a server, and mistakes in one sentence."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

import mgpo
from mgpo.data import Scenes
from mgpo.data.unlabelled import unlabelled_questions
from mgpo.dialogues import SingleTurn
from mgpo.errors import UserError
from mgpo.evaluation.audit_summary import RATES, row_of, summarise
from mgpo.inference.client import ServerError
from mgpo.tools.audit.audit_table import format_audit
from mgpo.tools.audit.command import audit, questions
from mgpo.tools.audit.marks import covered, marks_of
from mgpo.world.model import CAPS
from mgpo.world.questions import KINDS as WORLD_KINDS
from tests.evaluation.test_audit import audited
from tests.helpers.cheats import Cheat, from_crop, known
from tests.helpers.cheats import questions as coloured
from tests.helpers.serving import Engine, Server
from tests.test_cli import ROOT


@pytest.mark.parametrize("split", ["val", "ood"])
def test_marks_of_a_question_are_drawn_again_from_its_id(split):
    source = Scenes(8, WORLD_KINDS, split, large=0.5, side=256)
    for i in range(8):
        question = source[i]
        marks = marks_of(question)
        assert all(mark in question.picture.scene.marks and mark.colour in question.text for mark in marks)
        assert len(marks) == (2 if "relative" in question.category else 1)
        assert marks_of(replace(question, id=f"part#2/{question.id}", source="part")) == marks
        assert marks_of(replace(question, id="attribute-9-9-9")) is None
    assert marks_of(coloured()[0]) is None and covered(coloured()[0], [(0, 0, 9, 9)]) is None


def test_a_mark_is_covered_as_far_as_a_part_reaches():
    question = Scenes(1, side=1000)[0]
    ((x, y, r),) = ((m.x * 1000, m.y * 1000, m.radius * 1000) for m in marks_of(question))
    left, right = (round(x - r) - 2, round(y - r) - 2, round(x), round(y + r) + 2), (0, 0, 1000, 1000)
    assert covered(question, [left]) == pytest.approx(0.5, abs=0.02)
    assert covered(question, [left, right]) == 1 and covered(question, []) == 0


def test_of_two_marks_both_have_to_be_covered():
    question = Scenes(1, ("relative_position",), side=1000)[0]
    left, right = sorted(marks_of(question), key=lambda mark: mark.x)
    between = round(500 * (left.x + left.radius + right.x - right.radius))
    assert covered(question, [(0, 0, between, 1000)]) < 0.1
    assert covered(question, [(0, 0, between, 1000), (0, 0, 1000, 1000)]) == 1


def test_right_answers_with_the_box_elsewhere_are_told():
    """Every answer counts as right here, and no box is where the mark is."""
    source = Scenes(12, side=448)
    found = [source[i] for i in range(12) if not covered(source[i], [(0, 0, 112, 112)])]
    rows = []
    for one in audited(Cheat(from_crop), reward=lambda *_: 1.0, samples=[(q, q.picture.load()) for q in found]):
        rows.append({**row_of(one), "covered": covered(one.trajectory.question, row_of(one)["regions"])})
    rates = summarise(rows)["rates"]
    assert rates["mark_outside"]["share"] == rates["right_ungrounded"]["share"] == 1 and len(found) > 5
    assert rates["grounded"]["share"] == 0


@pytest.mark.parametrize("width", [80, 120])
def test_tables_fit_the_terminal_and_name_every_kind(width):
    rows = [row_of(one) for one in audited(Cheat(from_crop))]
    for row, large in zip(rows, (True, False, True, False)):
        row["category"], row["covered"], row["margin"] = "letters, large" if large else "letters", 0.9 * large, 2.0
    text = format_audit(summarise(rows), width)
    assert max(map(len, text.splitlines())) <= width
    for words in ("black in place of the crop", "the same part of another picture", "evidence margin: 2.00 nats"):
        assert words in text
    assert (
        RATES["mark_outside"].words in text
        and "HART" in text
        and "51.3" in text
        and "…" not in text.replace("are …", "")
    )


def test_where_nothing_was_cut_out_that_is_said():
    rows = [row_of(one) for one in audited(Cheat(known), dialogue=SingleTurn())]
    text = format_audit(summarise(rows), 80)
    assert "4 questions, accuracy 1.000; no crop was shown in any" in text and "black" not in text


def test_a_server_is_audited_as_the_model_in_process_is(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    model, source = mgpo.load(), Scenes(4, ("attribute", "counting"), "val", side=512)
    with Server(Engine(model.policy)) as server:
        audit(
            server.url, source=source, output=str(tmp_path / "served"), dialogue=model.dialogue, rollouts=1,
            options={"max_new_tokens": 32, **CAPS},
        )  # fmt: skip
    audit(source=source, output=str(tmp_path / "own"), rollouts=1)
    served, own = (json.loads((tmp_path / name / "audit.json").read_text()) for name in ("served", "own"))
    assert served["margin"]["mean"] is None and own["margin"]["n"] == own["with_crop"] > 0
    for one, other in zip(served["questions"], own["questions"], strict=True):
        for kind in set(own["kinds"]) - {"crop", "distractor"}:
            assert one["kinds"].get(kind) == other["kinds"].get(kind)
    assert "black in place of the crop" in capsys.readouterr().out


def test_the_page_shows_what_was_shown_and_lets_nothing_in(tmp_path, monkeypatch):
    hostile = "<script>alert(1)</script>"
    asked = [replace(q, text=f"{hostile} {q.text}") for q in coloured()]
    monkeypatch.setattr("mgpo.tools.audit.command.load_with", lambda *_, **__: Cheat(known))
    audit("any", source=asked, output=str(tmp_path))
    page = (tmp_path / "audit.html").read_text()
    assert "<script" not in page and "script-src" not in page and "default-src 'none'" in page
    assert page.count("<article>") == 4 and page.count("<img") == 4 * (2 + 11)  # without a distractor
    assert "noise in its place" in page and "the crop alone, asked anew" in page


def test_an_audit_that_is_broken_off_keeps_what_it_has(tmp_path, monkeypatch, capsys):
    """As by a server that is gone."""
    model = Cheat(known)
    answered = model._reply

    def until(history, sampling, seed, stop_text):
        if "picture 2" in str(history):
            raise ServerError("the server is gone")
        return answered(history, sampling, seed, stop_text)

    model._reply = until
    monkeypatch.setattr("mgpo.tools.audit.command.load_with", lambda *_, **__: model)
    with pytest.raises(ServerError, match="the server is gone"):
        audit("any", source=coloured(), output=str(tmp_path), batch_size=2)
    written = json.loads((tmp_path / "audit.json").read_text())
    assert [row["id"] for row in written["questions"]] == ["q0", "q1"] and written["asked"] == 4
    assert "broken off: 2 of 4 questions were asked" in capsys.readouterr().out
    assert (tmp_path / "audit.html").is_file()


def test_a_file_of_questions_is_taken_and_those_without_an_answer_are_left_out(tmp_path):
    rows = []
    for question in coloured():
        question.picture.load().save(tmp_path / f"{question.id}.png")
        rows.append({"image": f"{question.id}.png", "question": question.text, "answer": question.answer})
    del rows[0]["answer"]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    known_, unknown = questions("embedded", unlabelled_questions(str(tmp_path / "q.jsonl")), None, None)
    assert [q.answer for q in known_] == ["G", "B", "Y"] and [left["why"] for left in unknown] == [
        "its answer is not known"
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (dict(data="a.jsonl", source=[]), "give one of the two"),
        (dict(rollouts=0), "at least 1"),
        (dict(model="runs/nope"), "there is no folder runs/nope"),
        (dict(model="Qwen/Qwen2.5-VL-7B-Instruct"), "brings no validation questions"),
        (dict(source=[replace(coloured()[0], answer="")]), "none of the questions has an answer"),
        (dict(source=coloured(), options={"path": "embedded"}), "--options.path: that is --model"),
        (dict(source=coloured(), options={"device": "gpu"}), "device is 'gpu', which can't be used"),
        (dict(source=coloured(), output=__file__), "a part of the path is a file; name another --output"),
    ],
)
def test_mistakes_are_told_in_one_sentence(arguments, said):
    with pytest.raises(UserError, match=said):
        audit(**arguments)


@pytest.mark.slow
def test_the_command_itself(tmp_path):
    command = [sys.executable, "-m", "mgpo", "audit", "--source=mgpo.data.Scenes", "--source.count=3"]
    command += ["--source.split=val", "--source.side=512", "--rollouts=1", f"--output={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "val: 3 questions, accuracy" in done.stdout and max(map(len, done.stdout.splitlines())) <= 200
    written = json.loads((tmp_path / "audit.json").read_text())
    assert [q["id"] for q in written["questions"]] == [f"attribute-2-0-{i}" for i in range(3)]
    assert all(q["covered"] is not None for q in written["questions"])
