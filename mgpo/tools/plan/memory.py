"""What a launch needs of one device's memory: what it holds all the time, and the highest point of each phase."""

from dataclasses import dataclass, field

from mgpo.tools.plan.extra_passes import evidence_passes, looking, more_pixels, teacher_passes
from mgpo.tools.plan.launch import Engine, Launch
from mgpo.tools.plan.passes import FLOAT, Micro, Trained
from mgpo.tools.plan.peaks import (
    Shown,
    conversations,
    deal,
    looking_peak,
    micro_batch,
    patches,
    pixels,
    rollout_peak,
    score_peak,
    update_peak,
)
from mgpo.tools.plan.shape import Shape

Parts = dict[str, int]  # bytes by kind
# Bytes that vLLM takes of a device outside of its share, asleep too, with the context of its process. Measured: 1.8 GiB
# beside a 3B policy on an H100 (vLLM 0.32 with CUDA graphs, asleep at level 2).
ENGINE = 1_900_000_000
EXTRA = ("evidence", "teacher")  # phases that not every step has
PHASES = ("rollouts", *EXTRA, "update", "step")


@dataclass(frozen=True)
class Memory:
    """Bytes on each device by phase, nothing of one that is not there, and in the host's memory for each process."""

    rollouts: Parts
    update: Parts
    step: Parts
    host: Parts
    evidence: Parts = field(default_factory=dict)
    teacher: Parts = field(default_factory=dict)

    @property
    def peak(self) -> int:
        """Bytes at the highest point of a step, over its phases."""
        return max(map(self.of, PHASES))

    def of(self, phase: str) -> int:
        """Bytes of all kinds together in one of the PHASES, or of the "host"."""
        return sum(getattr(self, phase).values())


def measure(shape: Shape, launch: Launch, reply: int | None = None) -> Memory:
    """All phases at the assumed length of replies, or at the given one.

    A first micro-batch finds no gradients yet; the others do, so that they are held in an update of several. They are
    let go with the optimiser's step.
    """
    turns = launch.turns(reply)
    micro = micro_batch(turns, launch.micro_tokens, launch.rows, launch.group)
    parts = trained_parameters(shape, launch)
    cut = launch.devices.shards
    lasting, gradients = held(shape, launch), {"gradients": launch.gradient * parts // cut}
    several = micro.rows * launch.mini_batches < launch.rows
    update = update_peak(
        shape, micro, launch.types, trained_layers(shape, launch), launch.checkpointing, launch.program.shared
    )
    asleep = {"engine": ENGINE} if launch.engine else {}
    size = pixels(shape, turns, launch.questions, launch.group)
    seen, all_seen = (
        {"pictures": with_features(shape, launch, shown)} for shown in (size, size + more_pixels(shape, launch))
    )
    here, all_here, host = (seen, all_seen, {}) if launch.host else ({}, {}, all_seen)
    work = {"optimiser's work": launch.gradient * parts // cut}
    if cut > 1:  # before anything is cut, every process has all of it
        host = {**host, "weights as they are read": launch.weight * shape.parameters * (2 if launch.copied else 1)}
    if launch.devices.offload and not launch.host:
        host = {**host, **lasting, **gradients, **work}
        lasting, gradients, work = {}, {}, {}
    between = {**lasting, **asleep, **all_here}
    return Memory(
        rollouts={**lasting, **here, **_rolling(shape, launch, turns)},
        evidence={**between, **_evidence(shape, launch, reply)} if launch.looked else {},
        teacher={**between, **_teacher(shape, launch, reply)} if launch.teacher else {},
        update={**lasting, **asleep, **(gradients if several else {}), **here, **in_update(shape, launch), **update},
        step={**lasting, **asleep, **gradients, **here, **work},
        host=host,
    )


def _rolling(shape: Shape, launch: Launch, turns: list[Shown]) -> Parts:
    """What rollouts add to what is held: gathered weights, cache and work in process, or an engine's share, and the
    largest of the weights that are made on their way there, gathered or summed with their adapters, and of what is seen
    for it."""
    sizes = (shape, turns, launch.questions, launch.group, launch.types)
    seen = looking_peak(*sizes) if sees_for_engine(shape, launch) else 0
    if launch.engine:
        width = shape.language.width
        gathered = launch.weight * shape.vocabulary * width if launch.devices.shards > 1 else 0
        summed = 2 * FLOAT * shape.language.mlp * width if launch.lora else 0
        return {"engine": _engine(shape, launch, launch.engine), "work": max(gathered, summed, seen)}
    if launch.drawn and not launch.host:  # by an engine on other devices
        return {"work": seen} if seen else {}
    return {
        **at_rest(shape, launch),
        **rollout_peak(*sizes, resting_layers(shape, launch), launch.program.shared, launch.nucleus),
    }


def sees_for_engine(shape: Shape, launch: Launch) -> bool:
    """Whether an engine is given what the trainer's own tower sees, as `VLLMSampler.sees` says."""
    whole = launch.devices.shards == 1
    return launch.drawn and not launch.ahead and whole and not trained_layers(shape, launch).sees


def _evidence(shape: Shape, launch: Launch, reply: int | None) -> Parts:
    largest = evidence_passes(launch, reply).largest
    return {**at_rest(shape, launch), **_scoring(shape, launch, largest, resting_layers(shape, launch))}


def _teacher(shape: Shape, launch: Launch, reply: int | None) -> Parts:
    """While it looks, or while it scores."""
    alone, largest = looking(launch), teacher_passes(launch, reply).largest
    looks = _rolling(shape, alone, alone.turns(reply))
    scores = _scoring(shape, launch, largest, trained_layers(shape, launch))
    return max(looks, scores, key=lambda moment: sum(moment.values()))


def _scoring(shape: Shape, launch: Launch, micro: Micro, trained: Trained) -> Parts:
    largest = max(launch.whole, launch.crop)
    return score_peak(shape, micro, launch.types, trained, launch.program.shared, largest)


def in_rollouts(shape: Shape, launch: Launch) -> Parts:
    """Bytes of the weights that are gathered from the first turn to the last; none where weights are not cut.

    Layers are gathered one by one, everything else, the root, for a whole pass.
    """
    return {"gathered weights": launch.gathered * shape.parameters} if launch.devices.shards > 1 else {}


def in_update(shape: Shape, launch: Launch) -> Parts:
    """The root, a layer and the next one; gradients of the root until a pass ends, of a layer until they are added up
    over devices, in float32."""
    if launch.devices.shards == 1:
        return {}
    root, layer = root_parameters(shape), max(shape.language.parameters, shape.vision.parameters)
    exchanged = 0 if launch.lora else launch.gathered * root + (launch.gathered + FLOAT) * layer
    return {"gathered weights": launch.gathered * (root + 2 * layer), "gradients to exchange": exchanged}


def root_parameters(shape: Shape) -> int:
    """Embeddings, head, norms, and what projects image features."""
    return shape.parameters - sum(block.layers * block.parameters for block in (shape.language, shape.vision))


def at_rest(shape: Shape, launch: Launch) -> Parts:
    """Weights that are there while nothing learns: gathered ones, and the base's own where adapters are merged."""
    targets = launch.lora[1] if launch.lora and launch.program.merged else None
    base = launch.weight * shape.adapted_parameters(targets) if targets else 0
    return {**in_rollouts(shape, launch), "base of merged weights": base}


def resting_layers(shape: Shape, launch: Launch) -> Trained:
    """What computes beside the weights while nothing learns: adapters, unless they are merged."""
    return Trained() if launch.lora and launch.program.merged else trained_layers(shape, launch)


def _engine(shape: Shape, launch: Launch, engine: Engine) -> int:
    """Its share, at the least its weights and the keys and values of the longest conversation."""
    longest = max(conversations(launch.turns(launch.limit)))
    needed = engine.weight * (shape.parameters + 2 * shape.language.layers * shape.language.key_value * longest)
    return ENGINE + int(max(engine.share * launch.memory, needed))


def with_features(shape: Shape, launch: Launch, size: int) -> int:
    """Bytes of pictures with so many bytes of patches, and of what a tower that is not trained saw in them, which is
    kept as long as they are."""
    kept = 0 if trained_layers(shape, launch).sees else launch.value * shape.language.width
    return size + size // patches(shape, 1) * kept


def held(shape: Shape, launch: Launch) -> Parts:
    """Weights, optimiser states, the reference, the teacher, and what the exchange of gradients keeps: a device's shard
    of each."""
    parts = trained_parameters(shape, launch)
    base = launch.weight * shape.parameters
    weights = base + (launch.gradient * parts if launch.lora else 0)
    whole = {
        "weights": weights,
        "optimiser": int(launch.state * parts),
        "reference": base if launch.copied else 0,
        "teacher": weights if launch.teacher else 0,
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


def tokens(shape: Shape, launch: Launch, reply: int | None = None) -> dict[str, int]:
    """What one step of one process passes: tokens shown and decoded in rollouts, tokens trained on, patches seen.

    A prompt is shown once a question; in training once for each micro-batch that holds some of its group. With a
    reference every training token passes once more, without gradients. Evidence and a teacher's looks and scores count
    where they are made.
    """
    turns = launch.turns(reply)
    first, *later = turns
    together, area = deal(turns, launch.micro_tokens, launch.rows, launch.group).together, shape.merge**2
    trained = launch.epochs * together.tokens
    images = launch.questions * first.image + launch.rows * sum(turn.image for turn in later)
    return {
        "rollout prefill": launch.questions * first.shown + launch.rows * sum(turn.shown for turn in later),
        "decoded": launch.rows * sum(turn.reply for turn in turns),
        "training": trained,
        "reference": trained if launch.penalised else 0,
        "patches in rollouts": area * images,
        "patches in training": area * launch.epochs * together.image_tokens,
        **(_extra_tokens("evidence", area, evidence_passes(launch, reply).together) if launch.looked else {}),
        **(_teacher_tokens(shape, launch, reply) if launch.teacher else {}),
    }


def _teacher_tokens(shape: Shape, launch: Launch, reply: int | None) -> dict[str, int]:
    names = {
        "rollout prefill": "teacher prefill",
        "decoded": "teacher decoded",
        "patches in rollouts": "patches in looks",
    }
    looks = tokens(shape, looking(launch), reply)
    scored = _extra_tokens("teacher scoring", shape.merge**2, teacher_passes(launch, reply).together)
    return {**{name: looks[kind] for kind, name in names.items()}, **scored}


def _extra_tokens(name: str, area: int, passed: Micro) -> dict[str, int]:
    return {name: passed.tokens, f"patches in {name}": area * passed.image_tokens}
