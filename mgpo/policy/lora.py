"""Low-rank adapters (LoRA, arXiv 2106.09685); the policy without them is its own reference."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mgpo.errors import UserError

# The linear layers of decoder layers and vision blocks, as the families name them: of attention, of gated delta nets
# (not their gates, as narrow as there are heads), of feed-forward parts. Experts of a mixture are no layers.
LANGUAGE = (
    r".*language_model\.layers\..*\."
    r"(q_proj|k_proj|v_proj|o_proj|in_proj_qkv|in_proj_z|out_proj|gate_proj|up_proj|down_proj)"
)
VISION = (
    r".*(visual|vision_tower)\..*(blocks|layers)\..*\."
    r"(qkv|q_proj|k_proj|v_proj|proj|out_proj|gate_proj|up_proj|down_proj|linear_fc1|linear_fc2|fc1|fc2)"
)


@dataclass(frozen=True)
class Lora:
    """Which low-rank adapters are trained, in place of all weights. They have no dropout.

    Args:
        rank: Of each adapter.
        alpha: Adapters are scaled by alpha / rank.
        targets: Regular expression on the full names of the layers that get one; by default the linear layers of
            every decoder layer. The experts of a mixture get none.
        vision: The linear layers of the vision tower's blocks get one too.
    """

    rank: int = 16
    alpha: int = 32
    targets: str = LANGUAGE
    vision: bool = False

    @property
    def pattern(self) -> str:
        """Regular expression on the full names of all layers that get one."""
        return f"({self.targets})|({VISION})" if self.vision else self.targets


def add_lora(model: Any, lora: Lora) -> None:
    """Freeze the model and put fresh adapters into it, in float32 whatever the model's type is.

    In bfloat16 most updates of a usual learning rate would be rounded away. Raises UserError without peft, or where no
    layer fits.
    """
    try:
        from peft import LoraConfig
    except ImportError:
        raise UserError("model.policy.lora needs peft; install it with pip install 'mgpo[lora]'") from None
    targets = lora.pattern
    try:
        model.add_adapter(LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=0.0, target_modules=targets))
    except ValueError as error:
        raise UserError(f"model.policy.lora: no layer fits targets {targets!r} ({error})") from None
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


@contextmanager
def without_lora(model: Any) -> Iterator[None]:
    """Within it the model is the base, whatever the adapters had learnt before."""
    model.disable_adapters()
    try:
        yield
    finally:
        model.enable_adapters()
