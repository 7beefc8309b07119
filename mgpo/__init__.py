"""MGPO (arXiv 2507.05920): vision-language models that learn where to look, from the correctness of their answers.

`mgpo.load("runs/mgpo/version_0").ask("street.jpg", "What does the sign say?")` is the shortest use,
`mgpo.fit()` trains the embedded model, and `pl.Trainer().fit(mgpo.MGPO(…), mgpo.VQAData(…))` is all there is to it.
Names are imported when they are asked for.
"""

from typing import TYPE_CHECKING

from mgpo.utils.on_demand import lazy

if TYPE_CHECKING:
    from mgpo.api import Answer as Answer
    from mgpo.api import Model as Model
    from mgpo.api import ServedModel as ServedModel
    from mgpo.api import fit as fit
    from mgpo.api import load as load
    from mgpo.data import Files as Files
    from mgpo.data import Scenes as Scenes
    from mgpo.data import VQAData as VQAData
    from mgpo.dialogues import FreeTurns as FreeTurns
    from mgpo.dialogues import SingleTurn as SingleTurn
    from mgpo.dialogues import TwoTurn as TwoTurn
    from mgpo.objective import Objective as Objective
    from mgpo.rewards import ExactAnswer as ExactAnswer
    from mgpo.rewards import NumericAnswer as NumericAnswer
    from mgpo.rollout import Sampling as Sampling
    from mgpo.training import MGPO as MGPO
    from mgpo.types import Question as Question
    from mgpo.types import Trajectory as Trajectory

__version__ = "0.1.0"
__all__ = [
    "MGPO", "Answer", "ExactAnswer", "Files", "FreeTurns", "Model", "NumericAnswer", "Objective", "Question",
    "Sampling", "Scenes", "ServedModel", "SingleTurn", "Trajectory", "TwoTurn", "VQAData", "__version__", "fit", "load",
]  # fmt: skip
__getattr__, __dir__ = lazy(
    __name__,
    {
        "api": ("Answer", "Model", "ServedModel", "fit", "load"),
        "data": ("Files", "Scenes", "VQAData"),
        "dialogues": ("FreeTurns", "SingleTurn", "TwoTurn"),
        "objective": ("Objective",),
        "rewards": ("ExactAnswer", "NumericAnswer"),
        "rollout": ("Sampling",),
        "training": ("MGPO",),
        "types": ("Question", "Trajectory"),
    },
)
