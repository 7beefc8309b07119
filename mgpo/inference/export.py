"""`python -m mgpo export`: a run's model as a plain transformers checkpoint."""

from pathlib import Path

from mgpo.errors import UserError
from mgpo.inference.loading import load
from mgpo.inference.local import Model
from mgpo.inference.saving import Dtype, check_folder
from mgpo.inference.sharing import check_push
from mgpo.inference.sharing import push as upload


def export(
    run: str,
    output: str,
    dtype: Dtype | None = None,
    merge: bool = True,
    push: str | None = None,
    private: bool = True,
) -> None:
    """Save a trained model as a checkpoint that transformers, vLLM and SGLang load.

    Args:
        run: A run's folder such as runs/mgpo/version_0, a checkpoint, "embedded", or a repository on the hub.
        output: A new folder.
        dtype: Type of the saved weights; by default that of training.
        merge: Add low-rank adapters to the weights; `false` saves them alone, for peft.
        push: Upload it to the hub too, as this owner/name.
        private: Whether a repository that is new there is for its owner alone; one that exists stays as it is.
    """
    if push is not None:
        check_push(push)
    check_folder(Path(output))
    model = load(run, device="cpu")
    if not isinstance(model, Model):
        raise UserError(f"{run} is a server; an export needs the weights")
    model.save(output, dtype, merge, push)
    print(f"export: {output}")
    if push is not None:
        print(f"pushed: {upload(Path(output), push, private)}")
