"""The highest points of rollouts and updates, besides what a device holds all the time; in bytes, by kind."""

from collections.abc import Sequence
from dataclasses import dataclass

from mgpo.tools.plan import passes
from mgpo.tools.plan.passes import FLOAT, Micro, Trained, Types
from mgpo.tools.plan.shape import Shape


@dataclass(frozen=True)
class Shown:
    """One turn of a row: tokens shown before the reply, those among them that are of an image, and the reply's."""

    shown: int
    image: int
    reply: int


def micro_batch(turns: Sequence[Shown], tokens: int, rows: int, group: int) -> Micro:
    """The largest micro-batch of at most `tokens` tokens, or of one trajectory; of `rows` trajectories in whole groups,
    or of parts of one group, which are equally long."""
    first, *later = turns
    prompt = first.shown - 1
    own = 1 + sum(turn.shown for turn in later) + sum(turn.reply for turn in turns)
    groups = max(1, min(rows // group, tokens // (prompt + group * own)))
    parts = next(n for n in range(1, group + 1) if n == group or prompt + -(-group // n) * own <= tokens)
    size = groups * -(-group // parts)
    images = groups * first.image + size * sum(turn.image for turn in later)
    return Micro(groups, prompt, size, own, sum(turn.reply for turn in turns), images)


def update_peak(
    shape: Shape, micro: Micro, types: Types, trained: Trained, checkpointing: bool = False
) -> dict[str, int]:
    """What an update needs at its highest point besides what is held, by kind.

    That is either when the backward pass begins: all activations and the larger of a chunk of logits and a layer's
    gradients. Or at its end, in the tower.
    """
    decoder = passes.decoder(shape.language, micro, types, trained, checkpointing)
    seen = passes.tower(shape, micro.image_tokens, types, trained, checkpointing)
    layer = passes.layer_work(shape.language, micro, types, trained.weights)
    logits = passes.logits_work(shape, micro.rows * micro.sampled, types, trained.weights)
    begins = {
        "decoder activations": decoder.all,
        "vision activations": seen.all,
        "logits and work": max(logits, layer + decoder.again),
    }
    ends = {"vision activations": seen.all + seen.again}
    return max(begins, ends, key=lambda moment: sum(moment.values()))


def rollout_peak(
    shape: Shape,
    turns: Sequence[Shown],
    questions: int,
    group: int,
    types: Types,
    trained: Trained,
    shared: bool = False,
    nucleus: bool = False,
    host: bool = False,
) -> dict[str, int]:
    """What rollouts need at their highest point besides what is held, by kind.

    The prompts pass once a question; from then on all questions' groups are in the cache together, each row with its
    prompt unless that is `shared`, and every later turn is shown to all of them in one pass.
    """
    block, rows = shape.language, questions * group
    moments: list[dict[str, int]] = []
    prompt = turns[0].shown

    def cache(row: int) -> int:
        """Of all rows, each of which has so many tokens."""
        return passes.cache(block, questions * prompt + rows * (row - prompt) if shared else rows * row, types)

    cached = 0
    for k, turn in enumerate(turns):
        shown_to = rows if k else questions
        before, cached = cached, cached + turn.shown
        features = (types.weight + types.value) * shown_to * turn.image * block.width
        moments += [
            {
                "cache": cache(before) if k else 0,
                "work": passes.tower_work(shape, shown_to * turn.image, types, host),
            },
            {
                "cache": cache(cached) if k else passes.cache(block, questions * prompt, types),
                "work": features + passes.prefill_work(block, shown_to, turn.shown, cached, types, trained),
            },
        ]
        cached += turn.reply
        grown = cache(cached)
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
