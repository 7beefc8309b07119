"""Where a run leaves its files."""

from pathlib import Path

import lightning as L


def run_folder(trainer: L.Trainer) -> Path:
    """The run's own folder, whatever the logger: two runs never share one. It is made if need be.

    Loggers without a folder of their own (W&B) get save_dir/name/version, as for checkpoints.
    """
    logger = trainer.logger
    if logger is None:
        folder = Path(trainer.default_root_dir)
    elif getattr(logger, "log_dir", None):
        folder = Path(str(logger.log_dir))
    else:
        _ = logger.experiment  # pyright: ignore[reportAttributeAccessIssue]  # W&B names a run when it starts
        folder = Path(logger.save_dir or trainer.default_root_dir) / str(logger.name) / str(logger.version)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
