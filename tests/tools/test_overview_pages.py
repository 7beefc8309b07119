"""What `mgpo data` writes down: conversations to their end, and a page on which no row can do anything."""

import json
import re

import pytest

from mgpo.dialogues import BlindAnswer, FreeTurns, SingleTurn, TwoTurn
from mgpo.images.decoding import FilePicture
from mgpo.images.views import Frame
from mgpo.tools.overview.facts import Fact, look
from mgpo.tools.overview.sheet import some, write_sheet
from mgpo.tools.overview.told import conversation, middle
from mgpo.types import Question
from tests.conftest import MemoryPicture, make_question, noise_image

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)> \x1b[31m[bold]red[/bold] \ud800"


@pytest.mark.parametrize(
    ("dialogue", "pictures", "choices"),
    [(TwoTurn(), 2, 1), (SingleTurn(), 1, 1), (FreeTurns(turns=3), 3, 3), (BlindAnswer(), 2, 1)],
)
def test_a_conversation_is_told_to_its_end(policy, dialogue, pictures, choices):
    question = make_question(noise_image(224, 224), choices=("red", "blue"), answer="A")
    (fact,) = look(policy, dialogue, [question], 1, 32)
    told = conversation(policy, dialogue, fact)
    assert told.count("[picture ") == pictures and told.count("(B) blue") == choices
    assert "answers]" in told and "No part could be cut out" not in told


def test_the_middle_is_named_in_the_units_of_the_family():
    named = {frame: json.loads(middle((200, 100), frame).strip("`json\n"))[0]["bbox_2d"] for frame in Frame}
    assert named == {Frame.PIXELS: [50, 25, 150, 75], Frame.THOUSAND: [250, 250, 750, 750],
                     Frame.UNIT: [0.25, 0.25, 0.75, 0.75]}  # fmt: skip


def hostile_facts():
    question = Question(HOSTILE, MemoryPicture(noise_image(30, 20)), HOSTILE * 100, HOSTILE, (HOSTILE, "b"), HOSTILE)
    gone = Question("gone", FilePicture("/none.png"), "?", "1")
    return [Fact(question, (30, 20), (28, 28), 12, why=HOSTILE), Fact(gone, (1, 1), (28, 28), 9)]


def test_nothing_that_a_row_says_runs_on_the_page(tmp_path):
    write_sheet(tmp_path / "it.html", hostile_facts(), f"Questions {HOSTILE}")
    page = (tmp_path / "it.html").read_text()
    body = page.partition("<body>")[2]
    assert set(re.findall(r"<(\w+)", body)) == {"h1", "ul", "li", "img", "p"} and "\x1b" not in page
    assert re.findall(r"<img[^>]*>", body) == re.findall(r'<img alt="" src="data:image/webp;base64,[\w+/=]+">', body)
    assert "there is no such file" in body and "default-src 'none'" in page and len(page) < 20_000


@pytest.mark.browser
def test_the_page_opens_without_complaint(browser, tmp_path):
    write_sheet(tmp_path / "it.html", hostile_facts(), "Questions")
    page, troubles = browser.new_page(), []
    page.on("console", lambda message: troubles.append(message.text))
    page.on("dialog", lambda dialog: troubles.append(dialog.message))
    page.on("request", lambda request: request.url.startswith(("file:", "data:")) or troubles.append(request.url))
    page.goto((tmp_path / "it.html").as_uri())
    assert page.evaluate("getComputedStyle(document.querySelector('ul')).display") == "grid"  # the style was let in
    assert page.locator("li").count() == 2 and troubles == []
    page.close()


def test_every_category_has_a_row_on_the_page():
    kinds = ["common"] * 98 + ["rare"]
    facts = [Fact(Question(str(i), MemoryPicture(None), "?", "1", (), kind)) for i, kind in enumerate(kinds)]
    assert len(some(facts, 24)) == 24 and "rare" in {fact.question.category for fact in some(facts, 24)}
