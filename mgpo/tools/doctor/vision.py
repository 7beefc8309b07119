"""The policy sees what it is shown, and is shown what it names."""

from dataclasses import replace

import torch
from PIL import Image

from mgpo.dialogues.cuts import PLAIN, PlainCut
from mgpo.images.views import Box
from mgpo.policy.passes.logprobs import score
from mgpo.tools.doctor.case import Case, Result
from mgpo.tools.doctor.marker import CANVAS, find, frame_of, predict, region
from mgpo.types import Pixels, Trajectory, conversations

FELT = 1e-3  # nats; the same pass over the same picture gives the same numbers
ROWS = 2  # trajectories a turn
NEAR = 0.25  # pixels of an input; what resizing does to the mark is a tenth of that


def pictures_matter(case: Case) -> Result:
    """Other pictures in a turn move the log-probs of the replies behind it."""
    name = "pictures matter"
    moved: list[float] = []
    for k in range(max(len(t.turns) for t in case.scored)):
        rows = [t for t in reversed(case.scored) if _sees(t, k)][:ROWS]
        if not rows:
            continue
        moved.append(max(_moved(case, trajectory, k) for trajectory in rows))
        if not moved[-1] > FELT:
            what = f"other pictures in turn {k + 1} move no reply by more than {moved[-1]:.1g} nats"
            return Result(name, False, f"the policy is blind: {what}")
    if not moved:
        return Result(name, None, "no picture was shown")
    said = ", ".join(f"{gap:.2g}" for gap in moved)
    return Result(name, True, f"other pictures move replies by up to {said} nats, turn by turn")


def boxes_land(case: Case) -> Result:
    """A mark at a known place, named in the family's units, is where it should be in the view and in the crop.

    The whole way: text, parsed_box, view, pixels (section 3.3). A cut of one's own is asked which region it shows;
    the mark must be where that puts it.
    """
    name, trajectory, shown = "boxes land", case.dictated[0], case.watched.shown
    frame = frame_of(case.policy)
    if wrong := _misses((0, 0, *CANVAS), shown[0]):
        return Result(name, False, f"in the first view the mark is {wrong}")
    if trajectory.failed is not None:
        return Result(name, None, f"the second turn could not be played: {trajectory.failed}")
    if len(trajectory.turns) == 1:
        return Result(name, None, "this dialogue cuts nothing out")
    parsed_box = trajectory.turns[0].parsed_box
    if parsed_box is None or parsed_box.box is None:
        reason = parsed_box.reason if parsed_box is not None and parsed_box.reason else "no_box"
        text = case.policy.chat.decode(trajectory.turns[0].reply.ids)
        return Result(name, False, f"a good box in the family's units ({frame.value}) is refused as {reason}: {text}")
    if len(shown) == 1:
        return Result(name, False, "a good box is named, but no part of the picture is shown")
    part, view = region(shown[0].size, frame), trajectory.views[1]
    plain = isinstance(getattr(case.dialogue, "cut", None) or PLAIN, PlainCut)
    if wrong := _misses(part, shown[1]) if plain else _misses(view.region, shown[1], view.turn):
        return Result(name, False, f"in the crop the mark is {wrong}")
    if plain and view.region != part:  # a crop may be too coarse to show it
        return Result(name, False, f"the box stands for {part} of the picture, but {view.region} is cut out")
    where = "the family's units put it" if plain else "the dialogue's cut puts it"
    return Result(name, True, f"a mark named in {frame.value} is found in the crop where {where}")


def _sees(trajectory: Trajectory, k: int) -> bool:
    """Whether turn k shows a picture to a reply that was sampled, then or later in the same conversation."""
    behind = conversations(trajectory.turns[k:])
    return bool(behind) and bool(behind[0][0].prompt.images) and any(turn.learnt for turn in behind[0])


@torch.no_grad()
def _moved(case: Case, trajectory: Trajectory, k: int) -> float:
    """The largest change of a log-prob in turn k and behind it, with the pictures of turn k inverted."""
    shown = trajectory.turns[k]
    images = tuple(Pixels(1 - image.patches, image.grid) for image in shown.prompt.images)
    turns = [*trajectory.turns]
    turns[k] = replace(shown, prompt=replace(shown.prompt, images=images))
    batches = [case.lay_out([t]) for t in (trajectory, replace(trajectory, turns=turns))]
    before, after = (score(case.policy, batch).logprobs_NC for batch in batches)
    behind = batches[0].policy_NC & (batches[0].turn_NC >= k)
    return (before - after)[behind].abs().max().item()


def _misses(region: Box, image: Image.Image, turn: int = 0) -> str | None:
    """What is wrong with the mark's place in an image that should show this region of the canvas, turned so."""
    expected, found = predict(region, image.size, turn), find(image)
    if expected is None:
        return None if found is None else f"at ({found[0]:.1f}, {found[1]:.1f}), but this part should not show it"
    x, y = expected
    if found is None:
        return f"not to be found, instead of at ({x:.0f}, {y:.0f})"
    if max(abs(found[0] - x), abs(found[1] - y)) > NEAR:
        return f"at ({found[0]:.1f}, {found[1]:.1f}) instead of at ({x:.1f}, {y:.1f})"
    return None
