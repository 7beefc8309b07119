"""What a launch needs of one device's memory: what it holds all the time, and the highest point of each phase."""

from dataclasses import dataclass

from mgpo.tools.plan.fsdp import in_rollouts, in_update
from mgpo.tools.plan.launch import Engine, Launch
from mgpo.tools.plan.passes import FLOAT, Micro, Trained
from mgpo.tools.plan.peaks import Shown, micro_batch, pixels, rollout_peak, update_peak
from mgpo.tools.plan.shape import Shape

Parts = dict[str, int]  # bytes by kind
# Bytes that vLLM takes of a device outside of its share, asleep too, with the context of its process. Measured: 1.8 GiB
# beside a 3B policy on an H100 (vLLM 0.32 with CUDA graphs, asleep at level 2).
ENGINE = 1_900_000_000


@dataclass(frozen=True)
class Memory:
    """Bytes on each device by phase, and in the host's memory for each process."""

    rollouts: Parts
    update: Parts
    step: Parts
    host: Parts

    @property
    def peak(self) -> int:
        """Bytes at the highest point of a step, over its three phases."""
        return max(self.of(phase) for phase in ("rollouts", "update", "step"))

    def of(self, phase: str) -> int:
        """Bytes of all kinds together in "rollouts", "update" or "step", or of the "host"."""
        return sum(getattr(self, phase).values())


def measure(shape: Shape, launch: Launch, reply: int | None = None) -> Memory:
    """All three phases at the assumed length of replies, or at the given one.

    A first micro-batch finds no gradients yet; the others do, so that they are held in an update of several. They are
    let go with the optimiser's step.
    """
    turns = launch.turns(reply)
    micro = micro_batch(turns, launch.micro_tokens, launch.rows, launch.group)
    parts = trained_parameters(shape, launch)
    cut = launch.devices.shards
    lasting, gradients = held(shape, launch), {"gradients": launch.gradient * parts // cut}
    several = micro.rows * launch.mini_batches < launch.rows
    update = update_peak(shape, micro, launch.types, trained_layers(shape, launch), launch.checkpointing)
    asleep = {"engine": ENGINE} if launch.engine else {}
    seen = {"pixels": pixels(shape, turns, launch.questions, launch.group)}
    here, host = (seen, {}) if launch.host else ({}, seen)
    work = {"optimiser's work": launch.gradient * parts // cut}
    if cut > 1:  # before anything is cut, every process has all of it
        host = {**host, "weights as they are read": launch.weight * shape.parameters * (2 if launch.copied else 1)}
    if launch.devices.offload and not launch.host:
        host = {**host, **lasting, **gradients, **work}
        lasting, gradients, work = {}, {}, {}
    return Memory(
        rollouts={**lasting, **here, **_rolling(shape, launch, turns)},
        update={**lasting, **asleep, **(gradients if several else {}), **here, **in_update(shape, launch), **update},
        step={**lasting, **asleep, **gradients, **here, **work},
        host=host,
    )


def _rolling(shape: Shape, launch: Launch, turns: list[Shown]) -> Parts:
    """What rollouts add to what is held: gathered weights, cache and work in process, or an engine's share, and the
    largest weight that is made on its way there, gathered or summed with its adapter."""
    if launch.engine:
        width = shape.language.width
        gathered = launch.weight * shape.vocabulary * width if launch.devices.shards > 1 else 0
        summed = 2 * FLOAT * shape.language.mlp * width if launch.lora else 0
        return {"engine": _engine(shape, launch, launch.engine), "work": max(gathered, summed)}
    if launch.rescored and not launch.host:  # by an engine on other devices
        return {}
    targets = launch.lora[1] if launch.lora and launch.program.merged else None
    return {
        **in_rollouts(shape, launch),
        "base of merged weights": launch.weight * shape.adapted_parameters(targets) if targets else 0,
        **rollout_peak(
            shape, turns, launch.questions, launch.group, launch.types,
            Trained() if targets else trained_layers(shape, launch), launch.program.shared, launch.nucleus, launch.host,
        ),
    }  # fmt: skip


def _engine(shape: Shape, launch: Launch, engine: Engine) -> int:
    """Its share, at the least its weights and the keys and values of the longest conversation."""
    longest = sum(turn.shown + turn.reply for turn in launch.turns(launch.limit))
    needed = engine.weight * (shape.parameters + 2 * shape.language.layers * shape.language.key_value * longest)
    return ENGINE + int(max(engine.share * launch.memory, needed))


def held(shape: Shape, launch: Launch) -> Parts:
    """Weights, optimiser states, the reference, and what the exchange of gradients keeps: a device's shard of each."""
    parts = trained_parameters(shape, launch)
    base = launch.weight * shape.parameters
    whole = {
        "weights": base + (launch.gradient * parts if launch.lora else 0),
        "optimiser": int(launch.state * parts),
        "reference": base if launch.copied else 0,
        "gradient buckets": launch.gradient * parts if launch.devices.buckets else 0,
    }
    return {kind: size // launch.devices.shards for kind, size in whole.items()}


def trained_parameters(shape: Shape, launch: Launch) -> int:
    """Parameters that have gradients: all, those of the language model, or those of the adapters alone."""
    if launch.lora:
        return shape.adapter_parameters(*launch.lora)
    return shape.parameters - (shape.seeing if launch.freeze_vision else 0)


def trained_layers(shape: Shape, launch: Launch) -> Trained:
    """What is trained by where it lies, in the decoder or in the tower: where gradients are needed."""
    if not launch.lora:
        return Trained(freeze_vision=launch.freeze_vision)
    rank, targets = launch.lora
    spoken, seen = shape.adapted(targets, seen=False), shape.adapted(targets, seen=True)
    return Trained(rank, spoken, seen, itemsize=launch.program.adapter)


def training_passes(launch: Launch, turns: list[Shown]) -> tuple[Micro, int]:
    """The largest micro-batch, and how many of them a step takes."""
    micro = micro_batch(turns, launch.micro_tokens, launch.rows, launch.group)
    return micro, launch.epochs * -(-launch.rows // micro.rows)


def tokens(shape: Shape, launch: Launch, reply: int | None = None) -> dict[str, int]:
    """What one step of one process passes: tokens shown and decoded in rollouts, tokens trained on, patches seen.

    A prompt is shown once a question; in training once for each micro-batch that holds some of its group. With a
    reference every training token passes once more, without gradients.
    """
    turns = launch.turns(reply)
    first, *later = turns
    micro, passes = training_passes(launch, turns)
    trained = passes * (micro.prefixes * micro.prompt + micro.rows * micro.continuation)
    area = shape.merge**2
    images = launch.questions * first.image + launch.rows * sum(turn.image for turn in later)
    return {
        "rollout prefill": launch.questions * first.shown + launch.rows * sum(turn.shown for turn in later),
        "decoded": launch.rows * sum(turn.reply for turn in turns),
        "training": trained,
        "reference": trained if launch.penalised else 0,
        "patches in rollouts": area * images,
        "patches in training": area * passes * micro.image_tokens,
    }
