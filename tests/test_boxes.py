import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mgpo.boxes import BoxRule, find_box
from mgpo.views import Frame

SIZE = (400, 300)
GOOD = (10.0, 20.0, 110.0, 120.0)


@pytest.mark.parametrize(
    "text",
    [
        '```json\n[{"bbox_2d": [10, 20, 110, 120], "label": "sign"}]\n```',
        '[{"bbox_2d": [10, 20, 110, 120], "label": "sign"}]',
        '{"bbox_2d": [10, 20, 110, 120]}',
        '{"bbox_2d": [[10, 20, 110, 120]]}',
        '[[{"bbox_2d": [10.0, 20.0, 110.0, 120.0]}]]',
        "Sure! The area is [10, 20, 110, 120], near the top.",
        '```json\n[{"bbox_2d": [10, 20, 110, 120], "label": "cut of',
        '```json\n[{"bbox_2d": [1, 2, 3, 4]}, {"bbox_2d": [10, 20, 110, 120]}]\n```',
        'I count [1, 2, 3, 40] things. ```json\n[{"bbox_2d": [10,20,110,120]}]```',
        "(10, 20, 110, 120)",
        '{"bbox_2d": [\n  10,\n  20,\n  110,\n  120\n]} and then some text',
    ],
)
def test_what_models_write(text):
    assert find_box(text, SIZE).box == GOOD


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no_box"),
        ("I can't see it.", "no_box"),
        ('{"bbox_2d": [10, 20, 110]}', "not_four"),
        ('{"bbox_2d": [10, 20, 110, 120, 130]}', "not_four"),
        ('{"bbox_2d": [110, 20, 10, 120]}', "inverted"),
        ('{"bbox_2d": [10, 120, 110, 20]}', "inverted"),
        ('{"bbox_2d": [10, 20, 10, 120]}', "inverted"),
        ('{"bbox_2d": [10, 20, 401, 120]}', "outside"),
        ('{"bbox_2d": [-1, 20, 110, 120]}', "outside"),
        ('{"bbox_2d": [10, 20, 38, 120]}', "too_small"),
        ('{"bbox_2d": [nan, 20, 38, 120]}', "no_box"),
        ('{"bbox_2d": [1e999, 20, 38, 120]}', "no_box"),
    ],
)
def test_refusals_have_reasons(text, reason):
    finding = find_box(text, SIZE)
    assert finding.box is None
    assert finding.reason == reason


def test_thresholds_are_configuration():
    text = '{"bbox_2d": [10, 20, 38, 120]}'
    assert find_box(text, SIZE, rule=BoxRule(min_side=27)).box is not None
    assert find_box(text, SIZE, rule=BoxRule(min_side=1, max_aspect=2)).reason == "too_thin"


def test_the_published_rule_wants_more_than_one_patch():
    assert BoxRule().refuse((0, 0, 28, 100), SIZE) == "too_small"
    assert BoxRule().refuse((0, 0, 29, 100), SIZE) is None


def test_frames():
    text = "[100, 200, 500, 600]"
    assert find_box(text, SIZE, Frame.THOUSAND).box == (40.0, 60.0, 200.0, 180.0)
    assert find_box("[0.1, 0.2, 0.5, 0.6]", SIZE, Frame.UNIT).box == pytest.approx((40.0, 60.0, 200.0, 180.0))


@settings(max_examples=400)
@given(st.text(alphabet='[](){}0123456789.,-+eE "bbox_2d:\n`jsonan\u0660', max_size=300))
def test_never_raises_and_judges_fairly(text):
    finding = find_box(text, SIZE)
    assert (finding.box is None) == (finding.reason is not None)
    if finding.box is not None:
        assert BoxRule().refuse(finding.box, SIZE) is None


@given(st.tuples(*[st.integers(-50, 450)] * 4))
def test_written_boxes_are_found(box):
    finding = find_box(json.dumps([{"bbox_2d": box, "label": "x"}]), SIZE)
    assert finding.candidate == tuple(map(float, box))
    assert finding.reason == BoxRule().refuse(finding.candidate, SIZE)
