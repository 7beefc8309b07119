"""How much the right answer rests on what was cut out: the evidence margin, and what each look adds to it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from PIL import Image

from mgpo.policy.base import Policy, evaluating
from mgpo.policy.passes.logprobs import score_replies
from mgpo.policy.passes.micro_batches import micro_batches
from mgpo.rollout.episodes import force_answers
from mgpo.types import Pixels, Prompt, Trajectory

Looks = list[list[Pixels]]  # for every reply but the last the crops that were shown behind it for the first time


def look_margins(
    policy: Policy,
    trajectories: Sequence[Trajectory],
    answer_form: str,
    micro_batch_tokens: int = 16384,
    crops_alone: bool = False,
) -> list[list[float]]:
    """By how many nats each look makes the right answer likelier: a number for every reply but the last.

    margin_nk = log π(y | h_nk) - log π(y | h_n,k-1), where y is the question's `answer` in `answer_form`, whatever else
    may be right as well, and h_nk all that was shown and sampled before the last reply, but with the crops of all looks
    behind the k-th black. They add up to the evidence margin: by how much the crops make the right answer likelier than
    black pictures in their place would. A look that shows what was seen before adds nothing. It is exactly 0 where no
    crop followed, and near 0 for a policy that ignores its crops. Only trajectories with a crop pass; their sides go
    through the policy together, behind one and the same first prompt, at temperature 1.

    Args:
        policy: Scores under its current weights, in evaluation mode; whole where weights are sharded.
        trajectories: Rollouts that have turns, a question's next to each other.
        answer_form: The reply in whose place the answer stands; slot {answer}.
        micro_batch_tokens: Tokens in one pass, a shared prompt counted once.
        crops_alone: All sides have black in the place of the first prompt's pictures, too. A crop is then worth what it
            shows even where the first picture could be read without it.
    """
    if crops_alone:
        trajectories = _without_pictures(policy, trajectories)
    looks = [_looks(trajectory) for trajectory in trajectories]
    sides = [side for t, own in zip(trajectories, looks) if any(own) for side in _sides(policy, t, own)]
    force_answers(policy, sides, answer_form)
    with evaluating(policy):
        scores = iter(score_replies(policy, sides, micro_batches(sides, micro_batch_tokens)))
    margins: list[list[float]] = []
    for own in looks:
        last = next(scores).sum().item() if any(own) else 0.0
        margins.append([])
        for look in own:
            before, last = last, next(scores).sum().item() if look else last
            margins[-1].append(last - before)
    return margins


def _without_pictures(policy: Policy, trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """Copies with black wherever a picture of the first prompt is shown; rollouts that shared a prompt still do."""
    prompts: dict[int, tuple[Prompt, dict[int, Pixels]]] = {}
    copies = []
    for trajectory in trajectories:
        first = trajectory.turns[0].prompt
        if id(first) not in prompts:
            black = _black(policy, trajectory, first.images)
            prompts[id(first)] = replace(first, images=tuple(black[id(image)] for image in first.images)), black
        prompt, black = prompts[id(first)]
        copies.append(_shown_instead(trajectory, black))
        copies[-1].turns[0].prompt = prompt
    return copies


def _looks(trajectory: Trajectory) -> Looks:
    """Whatever the dialogue notes: crops are the pictures that the first prompt does not show."""
    first, *rest = trajectory.turns
    known, looks = set(map(id, first.prompt.images)), Looks()
    for turn in rest:
        looks.append(list({id(image): image for image in turn.prompt.images if id(image) not in known}.values()))
        known |= set(map(id, turn.prompt.images))
    return looks


def _sides(policy: Policy, trajectory: Trajectory, looks: Looks) -> list[Trajectory]:
    """Copies with all crops black, then with those of each look in turn as they are, up to the last."""
    black = _black(policy, trajectory, [crop for look in looks for crop in look])
    sides = [_shown_instead(trajectory, black)]
    for look in filter(None, looks):
        black = {crop: pixels for crop, pixels in black.items() if crop not in map(id, look)}
        sides.append(_shown_instead(trajectory, black))
    return sides


def _black(policy: Policy, trajectory: Trajectory, pictures: Sequence[Pixels]) -> dict[int, Pixels]:
    """By the id of each of these pictures of a trajectory, a black one of its size."""
    sizes = {policy.blank(view.size).grid: view.size for view in trajectory.views}
    return {id(picture): policy.pixels(Image.new("RGB", sizes[picture.grid])) for picture in pictures}


def _shown_instead(trajectory: Trajectory, others: Mapping[int, Pixels]) -> Trajectory:
    """A copy in which other pixels stand wherever these are shown behind the first prompt, which stays as it is."""
    turns = [replace(turn) for turn in trajectory.turns]
    for turn in turns[1:]:
        images = tuple(others.get(id(image), image) for image in turn.prompt.images)
        turn.prompt = replace(turn.prompt, images=images)
    return replace(trajectory, turns=turns)
