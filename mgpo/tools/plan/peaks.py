"""The highest points of rollouts and updates, besides what a device holds all the time; in bytes, by kind."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from mgpo.policy.features import BESIDE
from mgpo.tools.plan import passes
from mgpo.tools.plan.passes import FLOAT, Micro, Trained, Types
from mgpo.tools.plan.shape import Shape


@dataclass(frozen=True)
class Shown:
    """One turn of a row: tokens shown before the reply, those among them that are of images, and the reply's; a
    `fresh` one begins a conversation of its own."""

    shown: int
    image: int
    reply: int
    fresh: bool = False


def conversations(turns: Sequence[Shown]) -> list[int]:
    """Tokens of each conversation of a row, of which none sees another."""
    found = [0]
    for turn in turns:
        if turn.fresh:
            found.append(0)
        found[-1] += turn.shown + turn.reply
    return found


class Passes(NamedTuple):
    """A step's passes over trajectories: the largest, all of them as if they were one, and how many they are."""

    largest: Micro
    together: Micro
    count: int


def deal(turns: Sequence[Shown], tokens: int, rows: int, group: int) -> Passes:
    """Passes of at most `tokens` tokens over `rows` trajectories; a prompt passes once for each part of its group."""
    first, *later = turns
    largest = micro_batch(turns, tokens, rows, group)
    prefixes = rows // group * -(-group // min(group, largest.rows))
    images = prefixes * first.image + rows * sum(turn.image for turn in later)
    together = replace(largest, prefixes=prefixes, rows=rows, image_tokens=images)
    return Passes(largest, together, -(-rows // largest.rows))


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
    anew = tuple(conversations(turns)[1:])
    return Micro(groups, prompt, size, own, sum(turn.reply for turn in turns), images, anew)


def update_peak(
    shape: Shape, micro: Micro, types: Types, trained: Trained, checkpointing: float = 0.0, packs: bool = False
) -> dict[str, int]:
    """What an update needs at its highest point besides what is held, by kind.

    That is either when the backward pass begins: all activations and the larger of a chunk of logits and a layer's
    gradients. Or at its end, in the tower.
    """
    decoder = passes.decoder(shape.language, micro, types, trained, checkpointing, packs)
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
) -> dict[str, int]:
    """What rollouts need at their highest point besides what is held, by kind.

    The prompts pass once a question; from then on all questions' groups are in the cache together, each row with its
    prompt unless that is `shared`, and every later turn is shown to all of them in one pass. A conversation that begins
    anew shares no prompt, and the cache of the one before is let go once it has been shown.
    """
    block, rows = shape.language, questions * group
    moments: list[dict[str, int]] = []
    prompt = turns[0].shown if shared else 0

    def cache(row: int) -> int:
        """Of all rows, each of which has so many tokens."""
        return passes.cache(block, questions * prompt + rows * (row - prompt), types)

    cached = 0
    for k, turn in enumerate(turns):
        shown_to, old = rows if k else questions, 0
        if turn.fresh:
            old, prompt, cached = cache(cached), 0, 0
        before, cached = cached, cached + turn.shown
        features = passes.features(shape, shown_to * turn.image, types)
        moments += [
            {
                "cache": old + cache(before) if k else 0,
                "work": _looking(shape, shown_to * turn.image, turn.image, types),
            },
            {
                "cache": old + cache(cached) if k else passes.cache(block, questions * turn.shown, types),
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


def looking_peak(shape: Shape, turns: Sequence[Shown], questions: int, group: int, types: Types) -> int:
    """What the vision tower needs in bytes where it alone looks at what is shown, and the host keeps what it saw."""
    rows = (questions, *[questions * group] * (len(turns) - 1))
    calls = (shape.together(count * turn.image, turn.image, BESIDE) for count, turn in zip(rows, turns))
    return max(passes.tower_work(shape, tokens, types) for tokens in calls)


def score_peak(shape: Shape, micro: Micro, types: Types, trained: Trained, packs: bool, image: int) -> dict[str, int]:
    """What a pass without gradients needs at its highest point besides what is held, by kind: in the tower, in a layer
    of the decoder, or where logits are made. Families that do not pack keep the keys and values of every row. `image`:
    tokens of the largest image."""
    block, scored = shape.language, micro.rows * micro.sampled
    features = passes.features(shape, micro.image_tokens, types)
    kept = 0 if packs else passes.cache(block, micro.rows * (micro.prompt + micro.continuation), types)
    moments = [
        {"work": _looking(shape, micro.image_tokens, image, types)},
        {"cache": kept, "work": features + passes.prefill_work(block, 1, micro.tokens, 0, types, trained)},
        {"cache": kept, "work": passes.scoring_work(shape, scored, types)},
    ]
    return max(moments, key=lambda moment: sum(moment.values()))


def _looking(shape: Shape, image_tokens: int, image: int, types: Types) -> int:
    """The vision tower without gradients, before its last call: the features from those before, and its work."""
    last = shape.together(image_tokens, image)
    return passes.features(shape, image_tokens - last, types) + passes.tower_work(shape, last, types)


def pixels(shape: Shape, turns: Sequence[Shown], questions: int, group: int) -> int:
    """The patches of all pictures of a step, in float32, which lie in the host's memory until the updates are over."""
    first, *later = turns
    return patches(shape, questions * first.image + questions * group * sum(turn.image for turn in later))


def patches(shape: Shape, image_tokens: int) -> int:
    """Bytes of pictures that become so many tokens, as the tower takes them."""
    return FLOAT * image_tokens * shape.merge**2 * shape.patch_values
