"""Low-rank adapters (LoRA, arXiv 2106.09685) on the language model; the policy without them is its own reference."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mgpo.errors import UserError


@dataclass(frozen=True)
class Lora:
    """Which low-rank adapters are trained, in place of all weights.

    Args:
        rank: Of each adapter.
        alpha: Adapters are scaled by alpha / rank.
        targets: Regular expression on the full names of the layers that get one.
    """

    rank: int = 16
    alpha: int = 32
    targets: str = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"


def add_lora(model: Any, lora: Lora) -> None:
    """Freeze the model and put fresh adapters into it. Raises UserError without peft, or where no layer fits."""
    try:
        from peft import LoraConfig
    except ImportError:
        raise UserError("model.policy.lora needs peft; install it with pip install 'mgpo[lora]'") from None
    try:
        model.add_adapter(LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=lora.targets))
    except ValueError as error:
        raise UserError(f"model.policy.lora: no layer fits targets {lora.targets!r} ({error})") from None


@contextmanager
def without_lora(model: Any) -> Iterator[None]:
    """Within it the model is the base, whatever the adapters had learnt before."""
    model.disable_adapters()
    try:
        yield
    finally:
        model.enable_adapters()
