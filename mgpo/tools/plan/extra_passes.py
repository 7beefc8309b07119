"""What passes between rollouts and updates, where it does: the evidence of looks, or a teacher that looks and scores.

Neither has gradients. Every rollout is taken to look wherever its dialogue lets it, and every box to be usable.
"""

from dataclasses import replace

from mgpo.tools.plan.launch import Launch
from mgpo.tools.plan.passes import Micro
from mgpo.tools.plan.peaks import Passes, deal, patches, pixels
from mgpo.tools.plan.shape import Shape


def evidence_passes(launch: Launch, reply: int | None = None) -> Passes:
    """Passes over rollouts that end in the right answer.

    Each rollout passes with none of its crops black, and with all from the first, from the second and so on: once more
    than it has looks. Where whole groups pass together a crop, and the black one in its place, is seen once for all of
    these.
    """
    *before, last = launch.shown(launch.looked, reply)
    looks = looks_of(launch)
    turns, group = [*before, replace(last, reply=launch.answer)], launch.group * (1 + looks)
    largest, together, count = deal(turns, launch.micro_tokens, launch.questions * group, group)
    seen = sum(turn.image for turn in turns[1:])
    again = seen * (looks - 1) / (looks + 1) if largest.rows >= group else 0.0  # of a row's crops

    def scored(micro: Micro) -> Micro:
        return replace(micro, sampled=launch.answer, image_tokens=micro.image_tokens - int(again * micro.rows))

    return Passes(scored(largest), scored(together), count)


def teacher_passes(launch: Launch, reply: int | None = None) -> Passes:
    """Passes over the policy's replies behind the crops of its teacher.

    A question's replies stand behind the same crop.
    """
    turns = launch.shown(launch.teacher, reply)
    largest, together, count = deal(turns, launch.micro_tokens, launch.rows, launch.group)
    seen = sum(turn.image for turn in turns)

    def scored(micro: Micro) -> Micro:
        return replace(micro, sampled=turns[-1].reply, image_tokens=micro.prefixes * seen)

    return Passes(scored(largest), scored(together), count)


def looks_of(launch: Launch) -> int:
    """How often a rollout looks."""
    return sum(turn.crops > 0 for turn in launch.looked)


def looking(launch: Launch) -> Launch:
    """The teacher's own rollouts: one a question, in process."""
    return replace(launch, said=launch.teacher, group=1, drawn=False, engine=None, looked=(), teacher=())


def more_pixels(shape: Shape, launch: Launch) -> int:
    """Bytes of the pictures that are made for these passes: black ones, and what the teacher sees."""
    if launch.looked:
        first, *later = [turn.image for turn in launch.shown(launch.looked)]
        return patches(shape, launch.questions * first + launch.rows * sum(later))
    return pixels(shape, launch.shown(launch.teacher), launch.questions, 1) if launch.teacher else 0
