"""What a launch needs of one device's memory: what it holds all the time, and the highest point of each phase."""

from dataclasses import dataclass

from mgpo.plan.launch import Launch
from mgpo.plan.moments import micro_batch, pixels, rollout_peak, update_peak
from mgpo.plan.shape import Shape

Parts = dict[str, int]  # bytes by kind


@dataclass(frozen=True)
class Memory:
    """Bytes on each device by phase, and in the host's memory for each process."""

    rollouts: Parts
    update: Parts
    step: Parts
    host: Parts

    @property
    def peak(self) -> int:
        return max(self.of(phase) for phase in ("rollouts", "update", "step"))

    def of(self, phase: str) -> int:
        return sum(getattr(self, phase).values())


def measure(shape: Shape, launch: Launch, reply: int | None = None) -> Memory:
    """All three phases at the assumed length of replies, or at the given one.

    A first micro-batch finds no gradients yet; the others do, so that they are held in an update of several. They are
    let go when the next update begins, not before the rollouts in between.
    """
    turns = launch.turns(reply)
    micro = micro_batch(turns, min(launch.micro_batch, launch.rows), launch.group)
    trained = trained_parameters(shape, launch)
    lasting, temporary = held(shape, launch)
    gradients = {"gradients": lasting.pop("gradients")}
    several = launch.micro_batch * launch.mini_batches < launch.rows
    update = update_peak(shape, micro, launch.value, launch.lora is not None, launch.checkpointing)
    rollouts = rollout_peak(
        shape, turns, launch.questions, launch.group, launch.value, launch.nucleus, launch.host
    )  # fmt: skip
    seen = {"pixels": pixels(shape, turns, launch.questions, launch.group)}
    here, host = (seen, {}) if launch.host else ({}, seen)
    if launch.sharding.offload:
        host = {**host, **lasting, **gradients}
        lasting, gradients = {}, {}
    return Memory(
        rollouts={**lasting, **gradients, **temporary, **here, **rollouts},
        update={**lasting, **(gradients if several else {}), **temporary, **here, **update},
        step={**lasting, **gradients, **here, "optimiser's work": launch.value * trained // launch.sharding.shards},
        host=host,
    )


def held(shape: Shape, launch: Launch) -> tuple[Parts, Parts]:
    """Weights, gradients, optimiser states, the reference; and what sharding gathers of them for a while.

    Gathered are two layers (the next is fetched while one is at work) and all that is in no layer.
    """
    sharding, e = launch.sharding, launch.value
    trained = trained_parameters(shape, launch)
    total = shape.parameters + (trained if launch.lora else 0)
    cut = 1 if sharding.whole_weights else sharding.shards
    parts = {
        "weights": e * total // cut,
        "gradients": e * trained // sharding.shards,
        "optimiser": int(launch.state * trained) // sharding.shards,
        "reference": e * shape.parameters // cut if launch.penalised and not launch.lora else 0,
        "gradient buckets": e * trained if sharding.buckets else 0,
    }
    layers = sum(block.layers * block.parameters for block in (shape.language, shape.vision))
    gathered = e * (shape.parameters - layers + 2 * shape.language.parameters)
    return parts, {"gathered": gathered} if cut > 1 or sharding.offload else {}


def trained_parameters(shape: Shape, launch: Launch) -> int:
    """Parameters that have gradients: all, or those of the adapters alone."""
    return shape.adapter_parameters(*launch.lora) if launch.lora else shape.parameters


def tokens(shape: Shape, launch: Launch, reply: int | None = None) -> dict[str, int]:
    """What one step of one process passes: tokens shown and decoded in rollouts, tokens trained on, patches seen.

    A prompt is shown once a question; in training once for each micro-batch that holds some of its group. With a
    reference every training token passes once more, without gradients.
    """
    turns = launch.turns(reply)
    first, *later = turns
    micro = micro_batch(turns, min(launch.micro_batch, launch.rows), launch.group)
    passes = launch.epochs * -(-launch.rows // micro.rows)
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
