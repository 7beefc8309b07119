"""What would make a launch fit: the least change of one setting, or of as few as it takes."""

import sys
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from mgpo.policy.lora import Lora
from mgpo.tools.plan.launch import Launch
from mgpo.tools.plan.memory import EXTRA, PHASES, Memory, measure
from mgpo.tools.plan.peaks import micro_batch
from mgpo.tools.plan.shape import Shape

STEP = 512  # between sizes of a pass that are looked at
LEAST_TOKENS = 512  # of a pass; one trajectory is passed however long it is
Keys = dict[str, Any]  # of the configuration, with their new values
PASSING = (*EXTRA, "update")  # phases that pass so many tokens at once
STRATEGY = "mgpo.distributed.FSDP2Strategy"


@dataclass(frozen=True)
class Suggestion:
    """Settings that make a launch fit, the launch with them, and what that needs."""

    keys: Keys
    launch: Launch
    memory: Memory


def micro_batches(launch: Launch) -> Iterator[tuple[Launch, Keys]]:
    """Launches with fewer and fewer tokens in a pass: slower, the same update."""
    tokens = launch.micro_tokens
    while tokens > LEAST_TOKENS:
        tokens //= 2
        yield replace(launch, micro_tokens=tokens), {"model.micro_batch_tokens": tokens}


def batches(launch: Launch) -> Iterator[tuple[Launch, Keys]]:
    """Launches with fewer and fewer questions rolled out at once, which are also fewer a step."""
    size = launch.questions
    while size > 1:
        size //= 2
        yield replace(launch, questions=size), {"data.batch_size": size}


def shards(launch: Launch) -> Iterator[tuple[Launch, Keys]]:
    """The launch with its weights cut over all devices instead of copied to each; a teacher is never cut."""
    devices = launch.devices
    if not launch.teacher and devices.shards == 1 and devices.count * devices.nodes > 1:
        cut = replace(devices, buckets=False, shards=devices.count * devices.nodes)
        yield replace(launch, devices=cut), {"trainer.strategy": STRATEGY, "trainer.inference_mode": "false"}


def adapters(launch: Launch) -> Iterator[tuple[Launch, Keys]]:
    """The launch with adapters trained alone, and the base without them as reference."""
    if launch.lora is None:
        lora = Lora()
        keys: Keys = {"model.policy.init_args.lora.rank": lora.rank, "model.policy.init_args.lora.alpha": lora.alpha}
        yield replace(launch, lora=(lora.rank, lora.targets)), keys


def caps(launch: Launch) -> Iterator[tuple[Launch, Keys]]:
    """Launches with smaller and smaller pictures, down to the floor; crops still come from the original."""
    whole, crop = launch.whole, launch.crop
    while launch.side and whole // 2 >= launch.least:
        whole //= 2
        keys: Keys = {"model.policy.init_args.max_pixels": whole * launch.side**2}
        if crop > whole:
            crop = whole
            if launch.crop != launch.whole:
                keys["model.policy.init_args.crop_max_pixels"] = crop * launch.side**2
        yield replace(launch, whole=whole, crop=crop), keys


Knob = Callable[[Launch], Iterator[tuple[Launch, Keys]]]
KNOBS: tuple[Knob, ...] = (micro_batches, batches, shards, adapters, caps)


def advise(shape: Shape, launch: Launch, limit: int) -> list[Suggestion]:
    """Settings under which no phase needs more than `limit` bytes; none where nothing helps.

    Every knob that suffices alone, turned as little as it takes. Where none does, the least of several: of all, and of
    all but adapters.
    """
    if alone := [found for knob in KNOBS if (found := _least(shape, launch, [knob], limit))]:
        return alone
    sets = [[knob for knob in KNOBS if knob is not spared] for spared in (None, adapters)]
    several = [found for knobs in sets if (found := _least(shape, launch, knobs, limit))]
    return list({str(found.keys): found for found in several}.values())


def filled(shape: Shape, launch: Launch, limit: int) -> int | None:
    """The most tokens of a pass with which an update, and what passes as much before it, needs no more than `limit`
    bytes, whatever its replies' lengths; those of a whole mini-batch at most. None where not even the fewest fit."""
    whole = micro_batch(launch.turns(launch.limit), sys.maxsize, launch.rows, launch.group).tokens
    sizes = range(LEAST_TOKENS, max(LEAST_TOKENS, whole // launch.mini_batches) + STEP, STEP)

    def passing(tokens: int) -> int:
        return max(map(measure(shape, replace(launch, micro_tokens=tokens), launch.limit).of, PASSING))

    place = bisect_right(sizes, limit, key=passing)
    return sizes[place - 1] if place else None


def spared(shape: Shape, launch: Launch, limit: int) -> float | None:
    """The least share of layers, in tenths, that has to be run again for an update to fit into `limit` bytes, with
    replies of the assumed length and with the longest: of these fewer may go into a pass. None where it is no less than
    it is."""
    for share in (tenth / 10 for tenth in range(10)):
        if share >= launch.checkpointing:
            return None
        fewer = replace(launch, checkpointing=share)
        if max(measure(shape, fewer, reply).of("update") for reply in (None, launch.limit)) <= limit:
            return share
    return None


def _least(shape: Shape, launch: Launch, knobs: Sequence[Knob], limit: int) -> Suggestion | None:
    """Turn knobs in order until it fits, each to where it helps most; then each back as far as it still fits."""
    places = [0] * len(knobs)

    def at(knob: int, place: int) -> Suggestion:
        return _turned(shape, launch, knobs, [*places[:knob], place, *places[knob + 1 :]])

    for k, knob in enumerate(knobs):
        lacking = [_excess(at(k, place).memory, limit) for place in range(1 + len(list(knob(launch))))]
        places[k] = lacking.index(min(lacking))
        if min(lacking) == 0:
            break
    else:
        return None
    for k in range(len(knobs)):
        places[k] = next(place for place in range(places[k] + 1) if not _excess(at(k, place).memory, limit))
    return _turned(shape, launch, knobs, places)


def _turned(shape: Shape, launch: Launch, knobs: Sequence[Knob], places: Sequence[int]) -> Suggestion:
    """Each knob at its place; 0 leaves it alone."""
    keys: Keys = {}
    for knob, place in zip(knobs, places):
        for changed, new in islice(knob(launch), place - 1, place) if place else ():
            launch, keys = changed, {**keys, **new}
    return Suggestion(keys, launch, measure(shape, launch))


def _excess(needed: Memory, limit: int) -> int:
    """Bytes by which the phases exceed the limit, all together, so that a change counts in whichever phase it helps."""
    return sum(max(0, needed.of(phase) - limit) for phase in PHASES)
