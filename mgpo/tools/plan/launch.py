"""A launch in numbers: what of a configuration decides how much a step costs."""

from collections.abc import Sequence
from dataclasses import dataclass

from mgpo.tools.plan.lengths import Said
from mgpo.tools.plan.passes import FLOAT, Types
from mgpo.tools.plan.peaks import Shown

GB = 10**9  # bytes; everywhere, also in what a device is said to have


@dataclass(frozen=True)
class Program:
    """How this program computes, where that decides how much memory it takes; the formulas follow it.

    Args:
        adapter: Bytes of what adapters compute; of float32, their weights' type, as long as nothing casts them.
        merged: While rolling out adapters are added to the base's weights, whose own values are kept beside.
        shared: The rollouts of a group share the keys and values of their prompt, and have no copies of them.
        fused: Norms and gates are computed by liger-kernel.
    """

    adapter: int = FLOAT
    merged: bool = False
    shared: bool = False
    fused: bool = False


@dataclass(frozen=True)
class Engine:
    """The vLLM engine on the trainer's device; it sleeps in updates.

    Args:
        share: Of that device's memory, while it is awake.
        weight: Bytes there of each of the policy's weights.
    """

    share: float
    weight: float


@dataclass(frozen=True)
class Devices:
    """Devices of a node, and nodes; `buckets` says that DDP keeps copies of the gradients to exchange.

    `shards` is over how many devices weights are cut, `offload` whether shards lie in the host's memory.
    """

    count: int = 1
    nodes: int = 1
    buckets: bool = False
    shards: int = 1
    offload: bool = False


@dataclass(frozen=True)
class Launch:
    """Sizes of one process's step.

    Args:
        said: What is shown before each reply.
        whole: Image tokens of a whole picture at its pixel cap.
        crop: The same of a part that was cut out.
        side: Pixels of an image token's side; 0 where all images have one size.
        least: Image tokens at the pixel floor.
        reply: Tokens that a reply is assumed to have.
        limit: Tokens that it has at most.
        micro_tokens: Tokens in one training pass.
        weight: Bytes of a weight; under adapters, of one of the base.
        value: Bytes of what layers compute and keep.
        gradient: Bytes of a trained weight's gradient, and of that weight.
        state: Bytes of the optimiser's state for a trained weight.
        penalised: The objective needs a reference: a copy of the policy, or with adapters its base.
        drawn: An engine samples.
        engine: That one, where it is on the same device.
        ahead: It does so while the policy learns.
        memory: Bytes of a device; 0 where that is not known.
        lora: Rank and targets of adapters, where they alone are trained.
        freeze_vision: Neither the tower nor what projects its features is trained.
        nucleus: Sampling cuts by top-p.
        checkpointing: Share of layers whose activations are computed anew in the backward pass.
        host: Trained on the CPU: the pictures' pixels lie in the same memory.
        pictures: Those of a question, each at the cap of whole ones.
        looked: What is shown in a rollout all of whose boxes are usable, where looks have credit of their own.
        answer: Tokens of the right answer, which is then scored behind each look.
        teacher: What a copy of the policy shows itself before it scores the replies, where it teaches.
    """

    said: tuple[Said, ...]
    whole: int
    crop: int
    side: int
    least: int
    reply: int
    limit: int
    questions: int
    group: int
    micro_tokens: int
    mini_batches: int
    epochs: int
    weight: int
    value: int
    gradient: int
    state: float
    penalised: bool
    lora: tuple[int, str] | None
    devices: Devices
    freeze_vision: bool = False
    nucleus: bool = False
    checkpointing: float = 0.0
    host: bool = False
    drawn: bool = False
    engine: Engine | None = None
    ahead: bool = False
    memory: int = 0
    program: Program = Program()
    pictures: int = 1
    looked: tuple[Said, ...] = ()
    answer: int = 0
    teacher: tuple[Said, ...] = ()

    @property
    def copied(self) -> bool:
        """Whether the reference is a copy of the policy, and not its base without adapters."""
        return self.penalised and not self.lora

    @property
    def rescored(self) -> bool:
        """Whether the trainer scores what an engine sampled in a pass of its own: a step's only update does it."""
        return self.drawn and (self.epochs * self.mini_batches > 1 or bool(self.teacher))

    @property
    def types(self) -> Types:
        """Bytes of a weight where it is computed with, and of what layers compute."""
        return Types(self.gathered, self.value, self.program.fused)

    @property
    def gathered(self) -> int:
        """Bytes of a weight where it is computed with: of a shard's copy, that is what is computed in."""
        return min(self.weight, self.value) if self.devices.shards > 1 else self.weight

    @property
    def rows(self) -> int:
        """Trajectories of a step and process."""
        return self.questions * self.group

    def turns(self, reply: int | None = None) -> list[Shown]:
        """Tokens of each turn, with replies of the assumed length or the given one."""
        return self.shown(self.said, reply)

    def shown(self, said: Sequence[Said], reply: int | None = None) -> list[Shown]:
        """The same of other turns than those of the policy's own rollouts."""
        tokens = self.reply if reply is None else reply
        images = [turn.wholes * self.whole + turn.crops * self.crop for turn in said]
        return [Shown(turn.text + image, image, tokens, turn.fresh) for turn, image in zip(said, images)]
