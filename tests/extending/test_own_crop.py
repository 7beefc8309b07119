"""What is cut out for a box, of one's own: a function in one file that says which view is shown."""

import json
from functools import partial

import pytest

import mgpo
from mgpo.dialogues import BlindAnswer, FreeTurns, TwoTurn, WithMargin
from mgpo.errors import UserError
from mgpo.evaluation.counterfactuals import counterfactuals
from mgpo.evaluation.greedy import assess
from mgpo.gallery.data import snapshot
from mgpo.gallery.drawing import look
from mgpo.inference.base import Answer
from mgpo.inference.local import Model
from mgpo.rewards import ExactAnswer
from mgpo.rollout.episodes import roll_out
from mgpo.rollout.in_process import Sampling
from tests.conftest import make_question, noise_image
from tests.helpers.cases import RULE, case_of, failures
from tests.rollout.test_rollout import Scripted

LYING = """
    from mgpo.images import Box, View, VisionResolution

    def lying(view: View, box: Box, resolution: VisionResolution) -> View:
        part = view.crop(box, resolution.crop)
        tall = part.extent[1] > part.extent[0]
        return view.crop(box, resolution.crop, turn=1) if tall else part

    class Turned:
        def __init__(self, quarters: int = 1) -> None:
            self.quarters = quarters

        def __call__(self, view: View, box: Box, resolution: VisionResolution) -> View:
            return view.crop(box, resolution.crop, turn=self.quarters)
"""
GREEDY = Sampling(6, 0.0)
TALL = [(make_question(noise_image(320, 640, i), f"q{i}"), noise_image(320, 640, i)) for i in range(2)]


@pytest.fixture
def turned(write_file, configured):
    """The dialogue of the shipped configuration with a cut of one's own."""
    write_file("my_cuts", LYING)
    dialogue = configured("--model.dialogue.cut=my_cuts.Turned", "--model.dialogue.cut.quarters=3").model.dialogue
    dialogue.rule = RULE
    return dialogue


def test_a_function_is_named_by_its_path(write_file, configured):
    write_file("my_cuts", LYING)
    cli = configured("--model.dialogue.cut=my_cuts.lying")
    assert cli.model.dialogue.cut.__name__ == "lying"
    assert "cut: my_cuts.lying" in cli.parser.dump(cli.config)


def test_a_shipped_cut_takes_arguments(configured):
    cut = configured("--model.dialogue.cut=mgpo.dialogues.WithMargin", "--model.dialogue.cut.share=0.5").model.dialogue
    assert isinstance(cut.cut, WithMargin) and cut.cut.share == 0.5


def test_what_is_shown_lies_as_the_cut_says_everywhere(policy, turned):
    """In rollouts, in the question about the sub-image alone, in an answer's crops, on the gallery's pictures."""
    trajectories = roll_out(policy, Scripted(1), turned, TALL, 1, GREEDY, (0, 0))
    for trajectory, (_, image) in zip(trajectories, TALL):
        view = trajectory.views[1]
        left, top, right, bottom = view.region
        assert view.turn == 3 and view.size == policy.resolution.crop((bottom - top, right - left))
        lying = image.crop(view.region).rotate(90, expand=True)
        assert view.cut(image).tobytes() == lying.tobytes()
        shown = policy.pixels(view.pixels(image)).patches
        assert trajectory.turns[1].prompt.images[0].patches.equal(shown)
        assert Answer(trajectory).crops[0].tobytes() == lying.tobytes()
        assert look(trajectory).width > 0
    (entry, _) = snapshot(trajectories, 1)
    assert len(entry["images"]) == 2


def test_the_sub_image_alone_is_asked_about_as_it_was_shown(policy, turned):
    asked = []

    def play(dialogue, samples, copies, sampling, key, resolution=None):
        asked.append([image for _, image in samples])
        sampler = Scripted(1) if resolution is None else Scripted(10**6)
        return roll_out(policy, sampler, dialogue, samples, copies, sampling, key, resolution)

    records = assess(play, policy.resolution, turned, TALL, GREEDY, ExactAnswer(), 0)
    for record, (_, image), alone in zip(records, TALL, asked[1], strict=True):
        assert alone.tobytes() == image.crop(record.regions[0]).rotate(90, expand=True).tobytes()
    rows = counterfactuals(partial(roll_out, policy, Scripted(1)), turned, TALL, GREEDY, ExactAnswer(), 0)
    assert len(rows) == len(TALL)


def test_free_turns_take_a_cut_too(policy):
    dialogue = FreeTurns(2, rule=RULE, cut=WithMargin(1.0))
    plain = FreeTurns(2, rule=RULE)
    (padded, _), (box, _) = (roll_out(policy, Scripted(1), d, TALL, 1, GREEDY, (0, 0)) for d in (dialogue, plain))
    inner, outer = box.views[1].region, padded.views[1].region
    assert all(a <= b for a, b in zip(outer[:2], inner[:2])) and all(a >= b for a, b in zip(outer[2:], inner[2:]))
    assert outer != inner


@pytest.mark.parametrize("kind", [TwoTurn, FreeTurns])
def test_the_doctor_finds_the_mark_where_the_cut_puts_it(policy, turned, kind):
    for cut in (turned.cut, WithMargin(0.3)):
        assert failures(case_of(policy, kind(rule=RULE, cut=cut))) == {}


def test_the_doctor_is_not_fooled_by_a_view_that_says_one_thing_and_shows_another(policy, turned, monkeypatch):
    case = case_of(policy, turned)
    trajectory = case.dictated[0]
    trajectory.views[1] = type(trajectory.views[1])(trajectory.views[1].region, trajectory.views[1].size, 1)
    assert "in the crop the mark is at" in failures(case)["boxes land"]


def test_an_export_brings_its_cut_along(policy, turned, tmp_path):
    Model(policy, turned).save(tmp_path / "out")
    cut = mgpo.load(tmp_path / "out").dialogue.cut
    assert (type(cut).__name__, cut.quarters) == ("Turned", 3)
    Model(policy, TwoTurn()).save(tmp_path / "plain")
    assert "cut" not in json.loads((tmp_path / "plain/mgpo.json").read_text())["dialogue"]["init_args"]


@pytest.mark.parametrize("kind", [TwoTurn, BlindAnswer, FreeTurns])
def test_a_cut_that_gives_no_view_is_told_and_no_box_is_blamed_for_it(policy, kind):
    def forgetful(view, box, resolution):
        view.crop(box, resolution.crop)

    said = "dialogue.cut: forgetful gives None for a usable box; it should return a View"
    with pytest.raises(UserError, match=said):
        roll_out(policy, Scripted(1), kind(rule=RULE, cut=forgetful), TALL, 1, GREEDY, (0, 0))
