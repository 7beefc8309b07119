"""JSON of strangers that is nested without end is refused in a sentence, wherever it is read."""

import pytest

from mgpo.data.benchmarks.counting import published
from mgpo.data.unlabelled import unlabelled_questions
from mgpo.errors import UserError
from mgpo.gallery.page import read_page
from mgpo.rewards.shaping import MatchedPoints
from mgpo.tools.plan.settings import own_cap
from mgpo.utils.atomic_files import parse_json

DEEP = "[" * 100_000


def test_nested_json_is_a_value_error():
    for text in (DEEP, DEEP.encode(), '{"a":' * 100_000):
        with pytest.raises(ValueError):
            parse_json(text)
    assert parse_json('{"a": [1]}') == {"a": [1]}


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("rows.jsonl", lambda folder: unlabelled_questions(str(folder / "rows.jsonl"), "Which?")),
        ("Train_Test_Val_FSC_147.json", lambda folder: published(folder, "test")),
        ("points.json", lambda folder: MatchedPoints(str(folder / "points.json"))),
        ("gallery.html", lambda folder: read_page(folder / "gallery.html")),
        ("preprocessor_config.json", lambda folder: own_cap(str(folder))),
    ],
)
@pytest.mark.filterwarnings("ignore:MatchedPoints learns")
def test_files_are_refused_in_a_sentence(tmp_path, name, read):
    page = f'<script type="application/json" id="gallery">{DEEP}</script>'
    (tmp_path / name).write_text(page if name.endswith("html") else DEEP)
    with pytest.raises(UserError) as error:
        read(tmp_path)
    assert len(str(error.value)) <= 600
