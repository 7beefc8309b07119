"""How long a step would take on machines that are not here: counted operations and bytes over published rates.

An estimate. Nothing of it was measured on such a machine: the rates are the maker's, the shares of them that a run
reaches are assumed. What is measured here is no help: on a CPU a training pass runs at 0.75 of the rate of bare
products (`tests.benchmarks.matmul_rate`), which says nothing of a GPU. Left out are pictures on the CPU, launching
kernels, drawing tokens, the optimiser's step, attention inside the vision tower, checkpoints and evaluations. Exchange
is added, though FSDP2 hides part of it behind the passes; all replies are equally long.
"""

from dataclasses import dataclass

from mgpo.plan.launch import Launch
from mgpo.plan.memory import tokens, trained_layers, trained_parameters, training_passes
from mgpo.plan.moments import Shown
from mgpo.plan.passes import FLOAT, Micro, cache
from mgpo.plan.shape import Block, Shape
from mgpo.plan.sharded import root_parameters

UTILISATION = 0.4  # of the peak in products; trainings on H100s report 0.38 to 0.43 (arXiv 2407.21783, table 4)
BANDWIDTH = 0.6  # of the memory's rate while tokens are decoded; assumed
LINKS = 0.7  # of the rate of links; assumed


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
        return self.half if value < FLOAT else self.single

    def link(self, devices: int) -> float:
        """Bytes a second that each of so many devices gets while all gather the same: a node's adapters share."""
        return self.inside if devices <= self.node else min(self.inside, self.node * self.between)


# NVIDIA's data sheet of the H100 SXM5: NVLink 4 has 900 GB/s in both directions together; 400 Gb/s InfiniBand a device.
H100 = Device("H100 SXM", 80, 989e12, 67e12, 3.35e12, 450e9, 50e9, 8)


def seconds(shape: Shape, launch: Launch, device: Device = H100) -> dict[str, float]:
    """One step of one process by phase; their sum is the step."""
    turns = launch.turns()
    micro, passes = training_passes(launch, turns)
    forward = passes * (language(shape, micro) + tower(shape, micro.image_tokens * shape.merge**2))
    only = launch.penalised + launch.rescored  # passes over the same tokens without gradients
    work = UTILISATION * device.peak(launch.value)
    return {
        "prefill": prefill(shape, launch, turns) / work,
        "decode": decode(shape, launch, turns, device),
        "scoring": only * forward / work,
        "training": passes * training(shape, launch, micro) / work,
        "exchange": exchange(shape, launch, passes, only, device),
    }


def layers(block: Block, count: int, pairs: float) -> float:
    """Operations of all layers on `count` tokens: two a weight, and four a value of attention for a pair of tokens."""
    return block.layers * (2 * block.parameters * count + 4 * block.attention * pairs)


def tower(shape: Shape, patches: int) -> float:
    return layers(shape.vision, patches, 0)


def language(shape: Shape, micro: Micro) -> float:
    """Operations of a forward pass of a micro-batch, and of the head where tokens are scored."""
    own, prompt = micro.continuation, micro.prompt
    pairs = micro.prefixes * prompt**2 / 2 + micro.rows * (own * prompt + own**2 / 2)
    head = 2 * shape.vocabulary * shape.language.width * micro.rows * micro.sampled
    return layers(shape.language, micro.tokens, pairs) + head


def training(shape: Shape, launch: Launch, micro: Micro) -> float:
    """Operations of a pass with gradients: forward, again under checkpointing, backward for inputs and for weights."""
    times = 2 + launch.checkpointing + (not launch.lora)
    seen = times if trained_layers(shape, launch).sees else 1
    return times * language(shape, micro) + seen * tower(shape, micro.image_tokens * shape.merge**2)


def prefill(shape: Shape, launch: Launch, turns: list[Shown]) -> float:
    """Operations of showing: the first turn once a question, later ones to every rollout."""
    before, total = 0, tower(shape, tokens(shape, launch)["patches in rollouts"])
    for k, turn in enumerate(turns):
        rows = launch.rows if k else launch.questions
        total += layers(shape.language, rows * turn.shown, rows * turn.shown * (before + turn.shown / 2))
        before += turn.shown + turn.reply
    return total


def decode(shape: Shape, launch: Launch, turns: list[Shown], device: Device) -> float:
    """Seconds of drawing: for each token of a reply all weights and the caches of all rows are read, which takes longer
    than the products as long as rows are few."""
    block, rows = shape.language, launch.rows
    weights = block.layers * block.parameters + shape.vocabulary * block.width
    before, total = 0, 0.0
    for turn in turns:
        seen = rows * turn.reply * (before + turn.shown + turn.reply / 2)
        read = launch.gathered * weights * turn.reply + cache(block, 1, launch.types) * seen
        products = 2 * weights * rows * turn.reply + layers(block, 0, seen)
        total += max(read / (BANDWIDTH * device.memory), products / (UTILISATION * device.peak(launch.value)))
        before += turn.shown + turn.reply
    return total


def exchange(shape: Shape, launch: Launch, passes: int, only: int, device: Device) -> float:
    """Seconds on the links: shards are gathered once for rollouts, once a pass without gradients, and with them once
    more for all but the root; gradients are added up in every pass."""
    devices = launch.devices
    count, cut = devices.count * devices.nodes, devices.shards
    replicas, parts = count // cut, trained_parameters(shape, launch)
    whole = launch.gathered * shape.parameters
    again = whole - launch.gathered * root_parameters(shape)
    gathered = whole + passes * (only * whole + whole + again + FLOAT * parts)
    inside = _ring(gathered, cut, device.link(cut)) if cut > 1 else 0.0
    # Copies: twice around, on to the sum and on with it; a device of each node holds the same shard.
    link = device.between if cut > 1 and devices.nodes > 1 else device.link(count)
    gradients = (FLOAT if cut > 1 else launch.gradient) * parts / cut
    return inside + 2 * passes * _ring(gradients, replicas, link)


def _ring(size: float, devices: int, link: float) -> float:
    """Seconds until each device has all of `size` bytes, of which it has its share."""
    return size * (devices - 1) / devices / (LINKS * link)
