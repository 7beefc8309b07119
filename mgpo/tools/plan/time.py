"""How long a step takes on other machines: counted operations and bytes over measured shares of published rates.

An estimate. The shares were measured on one H200 (`HERE`), those of links alone are assumed (`LINKS`); a time that
follows from them is that of the version which was measured, and other models, adapters and devices reach other shares.
Left out are pictures on the CPU, drawing tokens, the optimiser's step, attention inside the vision tower, checkpoints,
evaluations and audits. Exchange is added, though FSDP2 hides part of it behind the passes; all replies are equally
long.
"""

from dataclasses import dataclass

from mgpo.tools.plan.extra_passes import evidence_passes, looking, teacher_passes
from mgpo.tools.plan.launch import Launch
from mgpo.tools.plan.memory import root_parameters, sees_for_engine, tokens, trained_layers, trained_parameters
from mgpo.tools.plan.passes import FLOAT, Micro, cache
from mgpo.tools.plan.peaks import Passes, Shown, deal
from mgpo.tools.plan.shape import Block, Shape

LINKS = 0.7  # of the rate of links; assumed


@dataclass(frozen=True)
class Shares:
    """What is reached of a device's rates.

    Args:
        products: Of the peak, by the decoder's passes.
        vision: Of the peak, by the vision tower.
        bandwidth: Of the memory's rate, while tokens are drawn.
        layer: Seconds in which the kernels of one layer and drawn token are launched, where that takes longer.
        adapter: The same of each of its adapters.
    """

    products: float
    vision: float
    bandwidth: float
    layer: float = 0.0
    adapter: float = 0.0


# Measured on one H200 (torch 2.11, transformers 5.23, liger-kernel 0.8.5) with Qwen2.5-VL in bfloat16, adapters of rank
# 16 in float32, gradient checkpointing, pictures of 1,247 tokens. Updates: 20,600 tokens/s of 3B (11,600 of 7B, a share
# of 0.49). Tower: 8 pictures in 161 ms. A token drawn in 64 rows of 1,353 cached ones: 7.12 ms of 3B, taken to be
# bound by launching, and 9.57 ms of 7B, by reading.
HERE = Shares(products=0.39, vision=0.32, bandwidth=0.42, layer=1.0e-4, adapter=1.4e-5)
# vLLM 0.32 on an H100, of 3B: 64 rollouts of two replies of 128 tokens in 3.4 s. How these are made up was not
# measured; shares of 0.4 in products and 0.5 in reading give that sum.
ENGINE = Shares(products=0.4, vision=0.4, bandwidth=0.5)


@dataclass(frozen=True)
class Device:
    """A device as published: products a second in bfloat16 and float32 (FLOP/s, dense), bytes a second from its memory,
    from the other devices of its node, and through its own adapter from other nodes."""

    name: str
    gigabytes: int
    half: float
    single: float
    memory: float
    inside: float
    between: float
    node: int

    def peak(self, value: int) -> float:
        """Products and sums a second, in FLOP/s, on values of so many bytes: bfloat16's rate for 2, float32's for 4."""
        return self.half if value < FLOAT else self.single

    def link(self, devices: int) -> float:
        """Bytes a second that each of so many devices gets while all gather the same: a node's adapters share."""
        return self.inside if devices <= self.node else min(self.inside, self.node * self.between)


# NVIDIA's data sheet of the H100 SXM5: NVLink 4 has 900 GB/s in both directions together; 400 Gb/s InfiniBand a device.
H100 = Device("H100 SXM", 80, 989e12, 67e12, 3.35e12, 450e9, 50e9, 8)


def seconds(
    shape: Shape, launch: Launch, device: Device = H100, here: Shares = HERE, engine: Shares = ENGINE
) -> dict[str, float]:
    """One step of one process by phase, with evidence and a teacher where it has them; their sum is the step."""
    turns, rate = launch.turns(), device.peak(launch.value)
    _, together, count = deal(turns, launch.micro_tokens, launch.rows, launch.group)
    spoken, seen = (launch.epochs * operations for operations in _operations(shape, together))
    again, looks = gradients(shape, launch)
    only = launch.penalised + launch.rescored  # passes over the same tokens without gradients
    shown = only if trained_layers(shape, launch).sees else 0
    drawing = engine if launch.drawn else here
    return {
        "prefill": prefill(shape, launch, turns, rate, drawing, here if sees_for_engine(shape, launch) else drawing),
        "decode": decode(shape, launch, turns, device, drawing),
        "scoring": (only * spoken / here.products + shown * seen / here.vision) / rate,
        **({"evidence": scored(shape, evidence_passes(launch), rate, here)} if launch.looked else {}),
        **({"teacher": teacher(shape, launch, device, here)} if launch.teacher else {}),
        "training": (again * spoken / here.products + looks * seen / here.vision) / rate,
        "exchange": exchange(shape, launch, launch.epochs * count, only, device),
    }


def teacher(shape: Shape, launch: Launch, device: Device, shares: Shares) -> float:
    """Seconds in which the teacher looks at every question, in process, and scores the replies behind its crops."""
    alone, rate = looking(launch), device.peak(launch.value)
    turns = alone.turns()
    looked = prefill(shape, alone, turns, rate, shares, shares) + decode(shape, alone, turns, device, shares)
    return looked + scored(shape, teacher_passes(launch), rate, shares)


def scored(shape: Shape, passes: Passes, rate: float, shares: Shares) -> float:
    """Seconds of passes without gradients."""
    spoken, seen = _operations(shape, passes.together)
    return (spoken / shares.products + seen / shares.vision) / rate


def _operations(shape: Shape, micro: Micro) -> tuple[float, float]:
    return language(shape, micro), tower(shape, micro.image_tokens * shape.merge**2)


def layers(block: Block, count: int, pairs: float) -> float:
    """Operations of all layers on `count` tokens: two a weight that they pass, and four a value of attention for a pair
    of tokens."""
    return block.layers * (2 * block.active * count + 4 * block.attention * pairs)


def tower(shape: Shape, patches: int) -> float:
    """Operations of a forward pass of the vision tower over so many patches, without its attention."""
    return layers(shape.vision, patches, 0)


def language(shape: Shape, micro: Micro) -> float:
    """Operations of a forward pass of micro-batches, and of the head where tokens are scored."""
    head = 2 * shape.vocabulary * shape.language.width * micro.rows * micro.sampled
    return layers(shape.language, micro.tokens, micro.pairs) + head


def gradients(shape: Shape, launch: Launch) -> tuple[float, float]:
    """As how many passes without gradients one with them counts, of the decoder and of the tower: forward, again under
    checkpointing, backward for inputs and for weights.

    What a tower that is not trained saw in rollouts is kept; what an engine's tower saw it sees itself, once a step.
    """
    times = 2 + launch.checkpointing + (not launch.lora)
    again = launch.drawn and not sees_for_engine(shape, launch)
    return times, times if trained_layers(shape, launch).sees else again / launch.epochs


def prefill(shape: Shape, launch: Launch, turns: list[Shown], rate: float, shares: Shares, looks: Shares) -> float:
    """Seconds of showing: the first turn once a question, later ones to every rollout. `looks`: the tower's shares."""
    before, total = 0, 0.0
    for k, turn in enumerate(turns):
        rows, before = launch.rows if k else launch.questions, 0 if turn.fresh else before
        total += layers(shape.language, rows * turn.shown, rows * turn.shown * (before + turn.shown / 2))
        before += turn.shown + turn.reply
    seen = tower(shape, tokens(shape, launch)["patches in rollouts"])
    return (total / shares.products + seen / looks.vision) / rate


def decode(shape: Shape, launch: Launch, turns: list[Shown], device: Device, shares: Shares) -> float:
    """Seconds of drawing: for each token of a reply all weights and the caches of all rows are read, which takes longer
    than the products as long as rows are few; and launching the kernels may take longer than either."""
    block, rows = shape.language, launch.rows
    head = shape.vocabulary * block.width
    weights, active = block.layers * block.parameters + head, block.layers * block.active + head
    launched = block.layers * shares.layer + len(trained_layers(shape, launch).decoder) * shares.adapter
    before, total = 0, 0.0
    for turn in turns:
        before = 0 if turn.fresh else before
        seen = rows * turn.reply * (before + turn.shown + turn.reply / 2)
        read = launch.gathered * weights * turn.reply + cache(block, 1, launch.types) * seen
        products = 2 * active * rows * turn.reply + layers(block, 0, seen)
        kernels = max(
            read / (shares.bandwidth * device.memory), products / (shares.products * device.peak(launch.value))
        )
        total += max(kernels, launched * turn.reply)
        before += turn.shown + turn.reply
    return total


def exchange(shape: Shape, launch: Launch, passes: int, only: int, device: Device) -> float:
    """Seconds on the links: shards are gathered once for rollouts and for evidence, once a pass without gradients, and
    with them once more for all but the root; gradients are added up in every pass."""
    devices = launch.devices
    count, cut = devices.count * devices.nodes, devices.shards
    replicas, parts = count // cut, trained_parameters(shape, launch)
    whole = launch.gathered * shape.parameters
    again = whole - launch.gathered * root_parameters(shape)
    gathered = (2 if launch.looked else 1) * whole + passes * (only * whole + whole + again + FLOAT * parts)
    inside = _ring(gathered, cut, device.link(cut)) if cut > 1 else 0.0
    # Copies: twice around, on to the sum and on with it; a device of each node holds the same shard.
    link = device.between if cut > 1 and devices.nodes > 1 else device.link(count)
    gradients = (FLOAT if cut > 1 else launch.gradient) * parts / cut
    return inside + 2 * passes * _ring(gradients, replicas, link)


def _ring(size: float, devices: int, link: float) -> float:
    """Seconds until each device has all of `size` bytes, of which it has its share."""
    return size * (devices - 1) / devices / (LINKS * link)
