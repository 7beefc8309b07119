"""Are the crops used? Episodes with a crop, answered again in ways that keep the box and change what is shown."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from mgpo.dialogues import Dialogue, answer_only
from mgpo.evaluation.counterfactuals import answered_again
from mgpo.evaluation.evidence import look_margins
from mgpo.evaluation.greedy import LeaveOut, asked_alone, warn_left_out
from mgpo.evaluation.part_dialogues import LastTurn, UpToFirstLook
from mgpo.evaluation.swaps import (
    BlackFirst,
    black,
    enlarged,
    noise,
    original,
    part,
    random_region,
    same_region_of,
    unblacked,
)
from mgpo.images.views import View, VisionResolution
from mgpo.metrics import NO_TOOLS
from mgpo.metrics.values import overlap
from mgpo.policy.base import Policy
from mgpo.rewards import Reward
from mgpo.rollout.crops import Swap
from mgpo.rollout.episodes import Play, judge
from mgpo.rollout.in_process import Sampling
from mgpo.types import Asked, Trajectory

IN_PLACE: dict[str, Swap] = {
    "black": black,
    "noise": noise,
    "random region": random_region,
    "enlarged": enlarged,
    "original": original,
}
ANOTHER, DISTRACTOR = "another picture", "distractor"
PICTURE_BLACK, LAST_TURN, ALONE, NOT_ASKED = "picture black", "last turn alone", "crop alone", "not asked"
KINDS = {  # in the order of the report: what is changed
    "black": "black in place of the crop",
    "noise": "noise in its place",
    "random region": "a random part of the same size",
    ANOTHER: "the same part of another picture",
    DISTRACTOR: "a part with another answer",
    "enlarged": "that part without new detail",
    "original": "box asked, whole picture again",
    NOT_ASKED: "crop beside it, no box asked",
    NO_TOOLS: "no box, no crop",
    PICTURE_BLACK: "crop, the whole picture black",
    LAST_TURN: "crop, without picture and box",
    ALONE: "the crop alone, asked anew",
}
OVERLAP = 0.05  # intersection over union with the true crop up to which a part is another one


@dataclass
class Audited:
    """A question's episode, and what became of it where its crops were changed."""

    trajectory: Trajectory
    again: dict[str, Trajectory] = field(default_factory=dict)  # by kind, judged
    left_out: dict[str, str] = field(default_factory=dict)  # by kind: why it could not be played
    swaps: dict[str, Swap] = field(default_factory=dict)  # by kind: what was shown in place of the crop
    distractor: str | None = None  # what the part that is one answers alone
    margin: float | None = None  # in nats, where the log-probs of answers can be known
    margins: list[float] = field(default_factory=list)  # of each of several looks


def audit_batch(
    play: Play,
    resolution: VisionResolution,
    dialogue: Dialogue,
    samples: Sequence[Asked],
    sampling: Sampling,
    reward: Reward,
    seed: int,
    kinds: Iterable[str] = tuple(KINDS),
    rollouts: int = 4,
    leave_out: LeaveOut = warn_left_out,
) -> list[Audited]:
    """Play one episode a question; those with a crop again in every kind, from the first crop on.

    Args:
        play: In process or a server.
        resolution: How the policy sees.
        dialogue: What is said in each turn.
        samples: Questions with their pictures.
        sampling: Greedy, unless chance is wanted.
        reward: Judges the answers.
        seed: Of all draws.
        kinds: Some of `KINDS`.
        rollouts: Drawn at temperature 1 for each question, to find a part that answers otherwise.
        leave_out: Is told of a question that could not be played.
    """

    def once(dialogue: Dialogue, samples: Sequence[Asked]) -> list[Trajectory]:
        return play(dialogue, samples, 1, sampling, (seed, 0))

    def again(trajectories: Sequence[Trajectory], swaps: Sequence[Swap]) -> list[Trajectory]:
        return answered_again(play, dialogue, trajectories, swaps, sampling, (seed, 0))

    played = once(dialogue, samples)
    judge(played, reward)
    audited = [Audited(trajectory) for trajectory in played if trajectory.failed is None]
    for trajectory in (t for t in played if t.failed is not None):
        leave_out(trajectory.question, trajectory.failed or "")
    looked = [one for one in audited if one.trajectory.crops]
    if not looked:
        return audited
    trajectories, wanted = [one.trajectory for one in looked], set(kinds)
    asked = [trajectory.asked for trajectory in trajectories]
    for one in looked:
        one.swaps |= {kind: swap for kind, swap in IN_PLACE.items() if kind in wanted}
    if ANOTHER in wanted:
        _find_another(looked)
    if DISTRACTOR in wanted:
        _find_distractors(looked, play, resolution, dialogue, sampling, reward, seed, rollouts)
    for kind in (kind for kind in (*IN_PLACE, ANOTHER, DISTRACTOR) if kind in wanted):
        having = [one for one in looked if kind in one.swaps]
        _keep(kind, having, again([one.trajectory for one in having], [one.swaps[kind] for one in having]))
    ways: dict[str, Callable[[], list[Trajectory]]] = {
        PICTURE_BLACK: lambda: again([*map(_without_wholes, trajectories)], [unblacked] * len(trajectories)),
        LAST_TURN: lambda: once(LastTurn(dialogue, trajectories, False), asked),
        NOT_ASKED: lambda: once(LastTurn(dialogue, trajectories, True), asked),
        NO_TOOLS: lambda: once(answer_only(), asked),
    }
    for kind, way in ways.items():
        if kind in wanted:
            _keep(kind, looked, way())
    if ALONE in wanted:
        for one, alone in zip(looked, asked_alone(play, resolution, trajectories, sampling, reward, seed)):
            _keep(ALONE, [one], [] if alone is None else [alone])
    for kind in wanted - {ALONE}:
        judge([one.again[kind] for one in looked if kind in one.again], reward)
    return audited


def add_margins(policy: Policy, audited: Sequence[Audited], answer_form: str, micro_batch_tokens: int = 16384) -> None:
    """Measure how much the right answer rests on the crops, and on each of several; in place.

    The arguments are those of `look_margins`.
    """
    looked = [one for one in audited if one.trajectory.crops]
    found = look_margins(policy, [one.trajectory for one in looked], answer_form, micro_batch_tokens)
    for one, margins in zip(looked, found, strict=True):
        one.margin = sum(margins)
        of_looks = [margin for turn, margin in zip(one.trajectory.turns, margins) if turn.action == "look"]
        one.margins = of_looks if len(of_looks) > 1 else []


def _keep(kind: str, looked: Sequence[Audited], again: Sequence[Trajectory]) -> None:
    """Sort in what was played; nothing stands for a part that could not be cut out any more."""
    for i, one in enumerate(looked):
        failed = again[i].failed if i < len(again) else "its part can't be cut out any more"
        if failed is None:
            one.again[kind] = again[i]
        else:
            one.left_out[kind] = failed


def _find_another(looked: Sequence[Audited]) -> None:
    """For each question the next one's picture that is none of its own."""
    for i, one in enumerate(looked):
        later = [*looked[i + 1 :], *looked[:i]]
        others = (o.trajectory for o in later if o.trajectory.question.picture not in one.trajectory.question.pictures)
        if (other := next(others, None)) is not None:
            one.swaps[ANOTHER] = same_region_of(other.image)
        else:
            one.left_out[ANOTHER] = "there is no other picture beside it"


def _find_distractors(
    looked: Sequence[Audited],
    play: Play,
    resolution: VisionResolution,
    dialogue: Dialogue,
    sampling: Sampling,
    reward: Reward,
    seed: int,
    rollouts: int,
) -> None:
    """For each question a part that other rollouts look at, apart from the true crops, and that answers otherwise."""
    samples = [one.trajectory.asked for one in looked]
    drawn = play(UpToFirstLook(dialogue), samples, rollouts, replace(sampling, temperature=1.0), (seed, 2))
    found: list[tuple[Audited, Trajectory]] = []
    for i, one in enumerate(looked):
        group = drawn[i * rollouts : (i + 1) * rollouts]
        elsewhere = [t for t in group if t.crops and _apart(t.crops[-1], one.trajectory.crops)]
        if elsewhere:
            found.append((one, elsewhere[0]))
        else:
            one.left_out[DISTRACTOR] = "no other rollout looks elsewhere"
    alone = asked_alone(play, resolution, [trajectory for _, trajectory in found], sampling, reward, seed)
    for (one, trajectory), said in zip(found, alone):
        if said is not None and said.failed is not None:
            one.left_out[DISTRACTOR] = said.failed
        elif said is None or said.answer is None:
            one.left_out[DISTRACTOR] = "the other part answers nothing"
        elif said.right:
            one.left_out[DISTRACTOR] = "the other part gives the right answer"
        else:
            named = trajectory.crops[-1]
            one.swaps[DISTRACTOR], one.distractor = part(named, trajectory.original(named)), said.answer


def _without_wholes(trajectory: Trajectory) -> Trajectory:
    first, *others = map(BlackFirst, trajectory.originals)
    return replace(trajectory, image=first, others=tuple(others))


def _apart(view: View, crops: Sequence[View]) -> bool:
    return all(view.picture != crop.picture or overlap(view.region, crop.region) <= OVERLAP for crop in crops)
