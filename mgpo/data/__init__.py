"""Questions: whose, from where, and in which batches."""

from typing import TYPE_CHECKING

from mgpo.utils.on_demand import lazy

if TYPE_CHECKING:
    from mgpo.data.base import DataError as DataError
    from mgpo.data.base import Source as Source
    from mgpo.data.files import Files as Files
    from mgpo.data.mixture import Mixture as Mixture
    from mgpo.data.mixture import Part as Part
    from mgpo.data.module import VQAData as VQAData
    from mgpo.data.own_rollouts import OwnRollouts as OwnRollouts
    from mgpo.data.scenes import Scenes as Scenes

__all__ = ["DataError", "Files", "Mixture", "OwnRollouts", "Part", "Scenes", "Source", "VQAData"]
__getattr__, __dir__ = lazy(
    __name__,
    {
        "base": ("DataError", "Source"),
        "files": ("Files",),
        "mixture": ("Mixture", "Part"),
        "module": ("VQAData",),
        "own_rollouts": ("OwnRollouts",),
        "scenes": ("Scenes",),
    },
)
