"""Records: how an episode went, without its pixels. What reports, metrics, logs and the gallery are made of."""

from dataclasses import asdict, dataclass
from typing import Any

from mgpo.answers import vote_of
from mgpo.images.views import Box, View
from mgpo.types import Trajectory

Region = tuple[int, int, int, int]  # left, top, right, bottom in pixels of the original


@dataclass(frozen=True)
class Record:
    """How one episode went. Boxes are in pixels of the original that they are in; no right box is known to anyone."""

    id: str
    split: str
    category: str
    truth: str
    answer: str | None
    right: bool
    turns: int
    valid_box: bool | None  # of the first box looked for; None where the dialogue asks for none
    reason: str | None  # why that box could not be used
    box: Box | None  # the first box, where it is valid
    subimage_right: bool | None  # None where no usable box was named, or where it was not asked
    crops: int  # parts that were cut out and shown
    replies: tuple[str, ...]
    named: tuple[Box | None, ...] = ()  # by turn: the box that was named, usable or not
    regions: tuple[Region, ...] = ()  # the parts that were cut out and shown, in order
    zoom: float | None = None  # how much sharper than in the first view the last part was seen
    area: float | None = None  # of the last part, as a share of its original's
    fallback: bool = False  # the episode went on after a box that could not be used
    reward: float = 0.0  # what training sees: that of the answer and whatever was added to it
    logprob: float = 0.0  # of all sampled tokens together, in nats
    tokens: int = 0  # sampled; 0 where a server does not tell
    step: int = 0  # optimiser updates before it
    rollout: int = 0  # its number in the group
    lengths: tuple[int, ...] = ()  # tokens sampled, by turn
    vote: str | None = None  # what the answer stands for, the same for answers that mean the same
    unfinished: bool = False  # a limit kept the policy from answering
    cut: bool = False  # a reply ran into the token limit
    choices: tuple[str, ...] = ()
    clipped: bool | None = None  # whether the first box was cut to the picture; None where no rule does that
    part: str = ""  # of the question
    source: str = ""  # of the question
    named_in: tuple[int | None, ...] = ()  # by turn: the number of the picture that its box is in, from 1 on
    cut_from: tuple[int, ...] = ()  # the numbers of the pictures that the regions are parts of
    box_picture: int = 1  # the number of the picture that `box` is in

    @property
    def cropped(self) -> bool:
        """Whether a part was cut out and shown."""
        return self.crops > 0

    @property
    def answered(self) -> bool:
        """Whether the last reply commits to an answer."""
        return self.answer is not None

    def as_row(self) -> dict[str, Any]:
        """All fields by name, for JSON."""
        return asdict(self)


def record_of(trajectory: Trajectory, subimage_right: bool | None = None, step: int = 0, rollout: int = 0) -> Record:
    """What there is to say about a judged trajectory."""
    question, parsed_box, crops = trajectory.question, trajectory.parsed_box, trajectory.crops
    box, picture = None, 0
    if parsed_box is not None and parsed_box.box:
        seen = trajectory.views[parsed_box.picture]
        box, picture = seen.to_original(parsed_box.box), seen.picture
    return Record(
        id=question.id,
        split=question.split,
        category=question.category,
        truth=question.answer,
        answer=trajectory.answer,
        right=trajectory.right,
        turns=len(trajectory.turns),
        valid_box=None if parsed_box is None else parsed_box.box is not None,
        reason=None if parsed_box is None else parsed_box.reason,
        box=box,
        subimage_right=subimage_right,
        crops=len(crops),
        replies=tuple(turn.text for turn in trajectory.turns),
        named=tuple(turn.named for turn in trajectory.turns),
        regions=tuple(view.region for view in crops),
        zoom=zoom(trajectory.whole(crops[-1]), crops[-1]) if crops else None,
        area=_pixels(crops[-1]) / _pixels(trajectory.whole(crops[-1])) if crops else None,
        fallback=any(turn.action == "look refused" for turn in trajectory.turns[:-1]),
        reward=trajectory.reward,
        logprob=sum(sum(turn.reply.logprobs) for turn in trajectory.turns),
        tokens=sum(len(turn.reply.logprobs) for turn in trajectory.turns),
        step=step,
        rollout=rollout,
        lengths=tuple(len(turn.reply.logprobs) for turn in trajectory.turns),
        vote=vote_of(trajectory.answer, question.choices),
        unfinished=trajectory.unfinished,
        cut=trajectory.cut,
        choices=question.choices,
        clipped=None if parsed_box is None else parsed_box.clipped,
        part=question.part,
        source=question.source,
        named_in=tuple(None if turn.named is None else turn.picture for turn in trajectory.turns),
        cut_from=tuple(view.picture + 1 for view in crops),
        box_picture=picture + 1,
    )


def records_of(trajectories: list[Trajectory], group_size: int, step: int = 0) -> list[Record]:
    """Records of whole groups, a question's rollouts next to each other, of which each gets its number."""
    return [record_of(t, step=step, rollout=i % group_size) for i, t in enumerate(trajectories)]


def zoom(first: View, view: View) -> float:
    """How many times as many input pixels a stretch of the original gets in `view` as in `first`, per side.

    sqrt of the ratio of input pixels to original pixels; 1 where nothing is gained.
    """
    sharpness = [view.size[0] * view.size[1] / _pixels(view) for view in (view, first)]
    return (sharpness[0] / sharpness[1]) ** 0.5


def _pixels(view: View) -> int:
    left, top, right, bottom = view.region
    return (right - left) * (bottom - top)
