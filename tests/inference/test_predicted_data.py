"""What `predict` is asked about: rows whose answers may be anything, and pictures wherever they lie."""

import json

import pytest
from PIL import Image

from mgpo.data.unlabelled import unlabelled_questions
from mgpo.images.decoding import FilePicture
from tests.conftest import make_pictures
from tests.test_cli import run

ASK = "What does it say?"


def test_an_answer_that_cant_be_right_is_not_judged_and_told_of(tmp_path):
    rows = [
        {"image": "a.png", "question": "?", "choices": ["x", "y"], "answer": answer} for answer in ("z", 1, True, "y")
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.warns(
        UserWarning, match=r"3 of 4 answers can't be right and are not judged: line 1, column answer: 'z'"
    ):
        assert [q.answer for q in unlabelled_questions(str(tmp_path / "rows.jsonl"))] == ["", "", "", "B"]
    with pytest.warns(UserWarning, match="2 of 4 answers"):
        counted = unlabelled_questions(str(tmp_path / "rows.jsonl"), index_base=0)
    assert [q.answer for q in counted] == ["", "B", "", "B"]


def test_pictures_may_lie_elsewhere_than_their_rows(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"image": "a.png", "question": "?"}')
    (tmp_path / "pictures").mkdir()
    (question,) = unlabelled_questions(str(tmp_path / "rows.jsonl"), images=str(tmp_path / "pictures"))
    assert question.picture == FilePicture(str(tmp_path / "pictures" / "a.png"))


def test_pictures_of_every_kind_are_asked_about_and_hidden_files_are_not(tmp_path):
    for name in ("a.jfif", "b.HEIC", ".c.png", ".thumbs/d.png", "e/f.jpe", "g.svg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert [q.id for q in unlabelled_questions(str(tmp_path), ASK)] == ["a.jfif", "b.HEIC", "e/f.jpe"]


@pytest.mark.slow
def test_a_warning_is_a_sentence_without_a_place_in_the_code(tmp_path):
    make_pictures(tmp_path, 1)
    (tmp_path / "rows.jsonl").write_text(
        json.dumps({"image": "0000.png", "question": ASK, "choices": ["x", "y"], "answer": "z"})
    )
    said = run("predict", "--data=rows.jsonl", cwd=tmp_path).stderr.splitlines()
    assert said[0] == "mgpo predict …"
    assert said[1].startswith("warning: rows.jsonl: 1 of 1 answers can't be right") and len(said) == 2


def test_a_folder_is_asked_about_all_pictures_that_can_be_read(tmp_path):
    names = ["a.png", "b.mpo", "c.ppm", "d.TGA", "e.jp2", "f.bmp", "g.tiff"]
    for name in names:
        Image.new("RGB", (32, 32)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("none")
    questions = unlabelled_questions(str(tmp_path), "What?")
    assert [question.id for question in questions] == names
    assert all(question.picture.load().size == (32, 32) for question in questions)
