import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mgpo.errors import UserError
from mgpo.images.boxes import BoxRule, ParsedBox, box_candidates, parse_box
from mgpo.images.views import Frame

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
        json.dumps([{"bbox_2d": [10, 20, 110, 120], "label": "sign"}], indent=4),
        json.dumps({"objects": [{"where": {"bbox_2d": [10, 20, 110, 120]}}]}, indent=8),
        "```json\n" + json.dumps([{"label": "sign", "bbox_2d": [10.0, 20.0, 110.0, 120.0]}], indent="\t\t") + "\n```",
        '[{"bbox_2d": ["10", "20", "110", "120"]}]',
        "[{'bbox_2d': ['10', '20', '110', '120'], 'label': 'sign',},]",
        "{'bbox_2d': [10, 20, 110, 120,],}",
        '{"bbox_2d": "10, 20, 110, 120"}',
        '{"bbox": [10, 20, 110, 120]}',
        '{"box": [10, 20, 110, 120], "label": "sign"}',
        'I count [1, 2, 300, 40] things. {"bbox": [10, 20, 110, 120]}',
        '{"bounding_box": {"x1": 10, "y1": 20, "x2": 110, "y2": 120}}',
        '{"x1": 10, "y1": 20, "x2": 110, "y2": 120}',
        '{"y1": "20", "x1": "10", "y2": "120", "x2": "110"}',
        '{"label": "sign", "x_min": 10, "y_min": 20, "x_max": 110, "y_max": 120}',
        "xmin=10, ymin=20, xmax=110, ymax=120",
        '{"left": 10, "top": 20, "right": 110, "bottom": 120}',
        '{"x0": 10, "y0": 20, "x1": 110, "y1": 120}',
        '{"x": 10, "y": 20, "width": 100, "height": 100}',
        '{"x": 5, "y": 6} is its middle; {"x1": 10, "y1": 20, "x2": 110, "y2": 120}',
        "<box>(10, 20), (110, 120)</box>",
        "<box>10, 20, 110, 120</box>",
        "<|object_ref_start|>sign<|object_ref_end|><|box_start|>(10,20),(110,120)<|box_end|>",
        '{"bbox_2d": [[10, 20], [110, 120]]}',
        "from (10, 20) (110, 120)",
        "<think>[200, 200, 300, 300]</think>[10, 20, 110, 120]",
    ],
)
def test_what_models_write(text):
    assert parse_box(text, SIZE).box == GOOD


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
        ("(10, 20), (110, 120), (10, 120)", "not_four"),
        ('[{"point_2d": [10, 20]}, {"point_2d": [110, 120]}]', "not_four"),
        ('{"x1": 10, "y1": 20, "x2": 110}', "no_box"),
        ('{"x": 10, "y": 20}', "no_box"),
        ('{"x1": 110, "y1": 20, "x2": 10, "y2": 120}', "inverted"),
        ("<think>[10, 20, 110, 120]", "no_box"),
    ],
)
def test_refusals_have_reasons(text, reason):
    parsed_box = parse_box(text, SIZE)
    assert parsed_box.box is None
    assert parsed_box.reason == reason


def test_thresholds_are_configuration():
    text = '{"bbox_2d": [10, 20, 38, 120]}'
    assert parse_box(text, SIZE, rule=BoxRule(min_side=27)).box is not None
    assert parse_box(text, SIZE, rule=BoxRule(min_side=1, max_aspect=2)).reason == "too_thin"


def test_the_published_rule_wants_more_than_one_patch():
    assert BoxRule().refuse((0, 0, 28, 100), SIZE) == "too_small"
    assert BoxRule().refuse((0, 0, 29, 100), SIZE) is None


def test_frames():
    text = "[100, 200, 500, 600]"
    assert parse_box(text, SIZE, Frame.THOUSAND).box == (40.0, 60.0, 200.0, 180.0)
    assert parse_box("[0.1, 0.2, 0.5, 0.6]", SIZE, Frame.UNIT).box == pytest.approx((40.0, 60.0, 200.0, 180.0))


@settings(max_examples=400)
@given(st.text(alphabet='[](){}0123456789.,-+eE "bbox_2d:\n`jsonan\u0660', max_size=300))
def test_never_raises_and_judges_fairly(text):
    parsed_box = parse_box(text, SIZE)
    assert (parsed_box.box is None) == (parsed_box.reason is not None)
    if parsed_box.box is not None:
        assert BoxRule().refuse(parsed_box.box, SIZE) is None


@given(st.tuples(*[st.integers(-50, 450)] * 4))
def test_written_boxes_are_found(box):
    parsed_box = parse_box(json.dumps([{"bbox_2d": box, "label": "x"}]), SIZE)
    assert parsed_box.candidate == tuple(map(float, box))
    assert parsed_box.reason == BoxRule().refuse(parsed_box.candidate, SIZE)


CLIPS = BoxRule(clip=True)


@pytest.mark.parametrize(
    ("text", "box", "clipped"),
    [
        ("[10, 20, 110, 120]", GOOD, False),
        ("[10, 20, 450, 320]", (10, 20, 400, 300), True),
        ("[-5, -9, 110, 120]", (0, 0, 110, 120), True),
        ("[0, 0, 400, 300]", (0, 0, 400, 300), False),
    ],
)
def test_a_box_past_the_edge_is_cut_to_the_picture_where_that_is_wanted(text, box, clipped):
    parsed_box = parse_box(text, SIZE, rule=CLIPS)
    assert (parsed_box.box, parsed_box.clipped, parsed_box.reason) == (box, clipped, None)
    plain = parse_box(text, SIZE)
    assert plain.clipped is None and (plain.reason == "outside") is clipped


@pytest.mark.parametrize(
    ("text", "reason"),
    [("[500, 20, 600, 120]", "outside"), ("[380, 20, 600, 120]", "too_small"), ("[450, 20, 10, 120]", "inverted"),
     ("[-90, 20, -10, 120]", "outside")],
)  # fmt: skip
def test_what_is_left_of_a_box_must_be_usable(text, reason):
    assert parse_box(text, SIZE, rule=CLIPS) == ParsedBox(None, reason, parse_box(text, SIZE).candidate)


@given(st.tuples(*[st.integers(-50, 450)] * 4))
def test_clipping_changes_no_box_that_is_valid_and_never_leaves_the_picture(box):
    plain, clipped = (parse_box(str(list(box)), SIZE, rule=rule) for rule in (BoxRule(), CLIPS))
    if plain.box is not None:
        assert (clipped.box, clipped.clipped) == (plain.box, False)
    if clipped.box is not None:
        assert BoxRule().refuse(clipped.box, SIZE) is None
        assert clipped.candidate == tuple(map(float, box))


NAMES = [["x1", "y1", "x2", "y2"], ["left", "top", "right", "bottom"], ["xmin", "ymin", "xmax", "ymax"]]


@given(st.tuples(*[st.integers(0, 400)] * 4), st.sampled_from([None, 1, 2, 4, 16]), st.booleans(), st.randoms())
def test_boxes_are_found_however_they_are_laid_out(box, indent, quoted, random):
    numbers = [str(side) for side in box] if quoted else list(box)
    names = random.choice(NAMES)
    sides = dict(random.sample([*zip(names, numbers)], 4))
    key = random.choice(["bbox_2d", "bbox", "box"])
    for written in ({key: numbers}, {key: [numbers[:2], numbers[2:]]}, {key: sides}, sides):
        text = json.dumps([{**written, "label": "a sign"}], indent=indent)
        for form in (text, text.replace('"', "'"), f"```json\n{text}\n```", text.rstrip("]} \n") + "]"):
            assert parse_box(form, SIZE).candidate == tuple(map(float, box)), form


@pytest.mark.parametrize(
    "piece", ["[1 ", "[1, ", "(1, 2), ", '"x1": 1, ', "<box>1, ", "[ \n", '"bbox": "', "[1, 2],", "x: 1 y: 2 "]
)
def test_long_texts_end(piece):
    parse_box(piece * 40_000, SIZE)


@pytest.mark.parametrize("text", ["left=10, top=20, right=70, bottom=80.", "It is x1: 10, y1: 20, x2: 70, y2: 80."])
def test_sides_at_the_end_of_a_sentence(text):
    assert box_candidates(text) == [(10, 20, 70, 80)]


@pytest.mark.parametrize(
    "text",
    [
        '{"x1": 10, "y1": 20, "x2": 110, "y2": 120} or [200, 100, 300, 200]',
        '{"box": [200, 100, 300, 200]} {"bbox_2d": [10, 20, 110, 120]}',
    ],
)
def test_what_stands_first_counts_behind_the_key_that_was_asked_for(text):
    assert parse_box(text, SIZE).box == GOOD


def test_of_several_refusals_the_first_is_told():
    assert parse_box("[10, 10, 20, 20] then [30, 30, 10, 10]", SIZE).reason == "too_small"
    assert parse_box("[30, 30, 10, 10] then [10, 10, 20, 20]", SIZE).reason == "inverted"


def test_bounds_of_a_box_are_no_boxes_themselves():
    rule = BoxRule(max_aspect=4, min_side=28)
    assert rule.refuse((0, 0, 200, 50), SIZE) == "too_thin" and rule.refuse((0, 0, 199, 50), SIZE) is None
    assert rule.refuse((0, 0, 28, 100), SIZE) == "too_small" and rule.refuse((0, 0, 29, 100), SIZE) is None
    assert rule.refuse((0, 0, *SIZE), SIZE) is None


@pytest.mark.parametrize("options", [{"min_side": -1}, {"max_aspect": 1}, {"min_side": math.nan}])
def test_rules_that_make_no_sense_are_refused(options):
    with pytest.raises(UserError, match=r"dialogue\.rule\.min_side"):
        BoxRule(**options)
