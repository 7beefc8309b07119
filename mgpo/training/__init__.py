"""Training: the LightningModule, its groups, micro-batches, loss and updates."""

from typing import TYPE_CHECKING

from mgpo.utils.on_demand import lazy

if TYPE_CHECKING:
    from mgpo.training.module import MGPO as MGPO
    from mgpo.training.self_teacher import SelfTeacher as SelfTeacher

__all__ = ["MGPO", "SelfTeacher"]
__getattr__, __dir__ = lazy(
    __name__,
    {
        "module": ("MGPO",),
        "self_teacher": ("SelfTeacher",),
    },
)
