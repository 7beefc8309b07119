"""A model whose weights are in this process."""

import hashlib
from functools import partial
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from mgpo.data.base import Source
from mgpo.dialogues import Dialogue
from mgpo.evaluation.counterfactuals import Row, counterfactuals
from mgpo.inference.base import AskedModel, in_batches
from mgpo.inference.saving import save_model
from mgpo.policy.base import Policy
from mgpo.rewards import ExactAnswer, Reward
from mgpo.rollout.episodes import ANSWER_FORM, roll_out
from mgpo.rollout.in_process import InProcessSampler, Sampling

LOOKED_AT = 64  # values of a tensor that enter its digest


class Model(AskedModel):
    """A policy with the dialogue in which it answers.

    Args:
        policy: Loaded, in evaluation mode.
        dialogue: What is said in each turn.
        max_new_tokens: A reply is cut here.
        run: The folder of the run that trained it, whose figures go into the card of an export.
        answer_form: The reply whose likelihood is the evidence of an audit, as in training; slot {answer}.
    """

    def __init__(
        self,
        policy: Policy,
        dialogue: Dialogue,
        max_new_tokens: int = 1024,
        run: Path | None = None,
        answer_form: str = ANSWER_FORM,
    ) -> None:
        play = partial(roll_out, policy, InProcessSampler())
        super().__init__(play, policy.resolution, dialogue, max_new_tokens)
        self.policy, self.run, self.answer_form = policy, run, answer_form
        self.step: int | None = None  # of that run, after which it was saved

    def identity(self) -> dict[str, Any]:
        """The sizes at which it sees, and a digest of the weights."""
        return {"resolution": repr(self.resolution), "weights": digest(self.policy.state_dict())}

    def counterfactuals(
        self, source: Source, limit: int | None = None, batch_size: int = 16, reward: Reward = ExactAnswer()
    ) -> list[Row]:
        """Answer a source's questions with each thing in place of the crop, and give a row for each question.

        `mgpo.evaluation.counterfactuals` says what these are.
        """
        sampling = Sampling(self.max_new_tokens, 0.0)
        batches = in_batches(source, limit, batch_size, self.resolution.full)
        return [
            row for batch in batches for row in counterfactuals(self.play, self.dialogue, batch, sampling, reward, 0)
        ]

    def save(
        self,
        folder: str | Path,
        dtype: Literal["float32", "bfloat16"] | None = None,
        merge: bool = True,
        name: str | None = None,
    ) -> None:
        """Save as a plain transformers checkpoint; see `mgpo.inference.saving.save_model`."""
        more = (dtype, merge, name, self.run, self.step, self.answer_form)
        save_model(self.policy, self.dialogue, self.max_new_tokens, Path(folder), *more)


def digest(weights: dict[str, Tensor]) -> str:
    """A short hash of weights: of every tensor's name, shape and type, and of some values spread over it.

    Training changes some of these values.
    """
    seen = hashlib.sha256()
    for name, tensor in weights.items():
        seen.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        step = max(1, tensor.numel() // LOOKED_AT)
        seen.update(tensor.detach().flatten()[::step].float().cpu().numpy().tobytes())
    return seen.hexdigest()[:16]
