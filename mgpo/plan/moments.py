"""The highest points of rollouts and updates, besides what a device holds all the time; in bytes, by kind."""

from collections.abc import Sequence
from dataclasses import dataclass

from mgpo.plan import passes
from mgpo.plan.passes import FLOAT, Micro, Trained, Types
from mgpo.plan.shape import Shape


@dataclass(frozen=True)
class Shown:
    """One turn of a row: tokens shown before the reply, those among them that are of an image, and the reply's."""

    shown: int
    image: int
    reply: int


def micro_batch(turns: Sequence[Shown], rows: int, group: int) -> Micro:
    """The micro-batch of `rows` trajectories with these turns; as few prompts as hold them, or one more where groups
    are split."""
    prefixes = -(-rows // group) + (0 if group % rows == 0 or rows % group == 0 else 1)
    first, *later = turns
    shown = 1 + sum(turn.shown for turn in later)
    sampled = sum(turn.reply for turn in turns)
    images = prefixes * first.image + rows * sum(turn.image for turn in later)
    return Micro(prefixes, first.shown - 1, rows, shown + sampled, sampled, images)


def update_peak(
    shape: Shape, micro: Micro, types: Types, trained: Trained, checkpointing: bool = False, sharded: bool = False
) -> dict[str, int]:
    """What an update needs at its highest point besides what is held, by kind.

    That is either when the backward pass begins: all activations and the larger of a chunk of logits, a layer's
    gradients, and the cache, which is let go when the forward pass ends. Or when it reaches the prefixes: then the
    continuations' activations are gone, but every decoder weight has a second gradient waiting for the prefixes' own;
    not where weights are sharded, whose gradients are exchanged layer by layer. Or at its end, in the tower.
    """
    block = shape.language
    after, before = passes.decoder(block, micro, types, trained, checkpointing)
    seen = passes.tower(shape, micro.image_tokens, types, trained, checkpointing)
    layer = passes.layer_work(block, micro, types, trained.weights)
    logits = passes.logits_work(shape, micro.rows * micro.sampled, types, trained.weights)
    begins = {
        "decoder activations": after.all + before.all,
        "vision activations": seen.all,
        "logits and work": max(logits, layer + after.again, passes.cache(block, micro.seen, types)),
    }
    waiting = types.weight * block.layers * block.parameters if trained.weights and not sharded else 0
    reaches = {
        "decoder activations": before.all + before.again,
        "vision activations": seen.all,
        "second gradients": waiting,
    }
    ends = {"vision activations": seen.all + seen.again}
    return max(begins, reaches, ends, key=lambda moment: sum(moment.values()))


def rollout_peak(
    shape: Shape,
    turns: Sequence[Shown],
    questions: int,
    group: int,
    types: Types,
    nucleus: bool = False,
    host: bool = False,
) -> dict[str, int]:
    """What rollouts need at their highest point besides what is held, by kind.

    The prompts pass once a question; from then on all questions' groups are in the cache together, and every later
    turn is shown to all of them in one pass.
    """
    block, rows = shape.language, questions * group
    moments: list[dict[str, int]] = []
    cached = 0
    for k, turn in enumerate(turns):
        shown_to = rows if k else questions
        before, cached = cached, cached + turn.shown
        features = (types.weight + types.value) * shown_to * turn.image * block.width
        moments += [
            {
                "cache": passes.cache(block, shown_to * before, types),
                "work": passes.tower_work(shape, shown_to * turn.image, types, host),
            },
            {
                "cache": passes.cache(block, shown_to * cached, types),
                "work": features + passes.prefill_work(block, shown_to, turn.shown, cached, types),
            },
        ]
        cached += turn.reply
        grown = passes.cache(block, rows * cached, types)
        drawn, casts = (
            passes.sampling_work(shape, rows, nucleus, types),
            passes.attention_casts(block, rows * cached, types),
        )
        moments.append({"cache": grown, "work": grown // block.layers // 2 + max(drawn, casts)})
    return max(moments, key=lambda moment: sum(moment.values()))


def pixels(shape: Shape, turns: Sequence[Shown], questions: int, group: int) -> int:
    """The patches of all pictures of a step, in float32, which lie in the host's memory until the updates are over."""
    first, *later = turns
    images = questions * first.image + questions * group * sum(turn.image for turn in later)
    return FLOAT * images * shape.merge**2 * shape.patch_values
