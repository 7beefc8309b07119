"""`python -m mgpo export`: a run's model as a plain transformers checkpoint."""

from mgpo.errors import UserError
from mgpo.inference.loading import load
from mgpo.inference.local import Model
from mgpo.inference.saving import Dtype


def export(run: str, output: str, dtype: Dtype | None = None, merge: bool = True) -> None:
    """Save a trained model as a checkpoint that transformers, vLLM and SGLang load.

    Args:
        run: A run's folder such as runs/mgpo/version_0, a checkpoint, or "embedded".
        output: A new folder.
        dtype: Type of the saved weights; by default that of training.
        merge: Add low-rank adapters to the weights; `false` saves them alone, for peft.
    """
    model = load(run, device="cpu")
    if not isinstance(model, Model):
        raise UserError(f"{run} is a server; an export needs the weights")
    model.save(output, dtype, merge)
    print(f"export: {output}")
