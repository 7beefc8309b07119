"""Models to ask: on weights in this process, or behind a server, which may also judge answers."""

from typing import TYPE_CHECKING

from mgpo.utils.on_demand import lazy

if TYPE_CHECKING:
    from mgpo.inference.base import Answer as Answer
    from mgpo.inference.judge import JudgeReward as JudgeReward
    from mgpo.inference.loading import load as load
    from mgpo.inference.local import Model as Model
    from mgpo.inference.served import ServedModel as ServedModel

__all__ = ["Answer", "JudgeReward", "Model", "ServedModel", "load"]
__getattr__, __dir__ = lazy(
    __name__,
    {
        "base": ("Answer",),
        "judge": ("JudgeReward",),
        "loading": ("load",),
        "local": ("Model",),
        "served": ("ServedModel",),
    },
)
