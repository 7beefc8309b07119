"""One sentence for a file that can't be read as a checkpoint."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch.distributed.checkpoint.api import CheckpointException

from mgpo.errors import UserError

SHOWN = 200  # characters of a library's complaint


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raises UserError for whatever a file that is no checkpoint, or is damaged, makes its reader raise."""
    try:
        yield
    except UserError:
        raise
    except (Exception, CheckpointException) as error:  # torch's is none of Python's exceptions
        why = " ".join(str(error).split())[:SHOWN] or type(error).__name__
        why = "it is none" if "weights_only" in why else why  # torch's advice would run what is in it
        raise UserError(
            f"{path} can't be read as a checkpoint of a run, such as runs/…/trained.ckpt ({why}); name another one"
        ) from None
