"""What runs every command, and makes a sentence of what goes wrong."""

import sys
from collections.abc import Sequence
from typing import Any

import jsonargparse
from lightning.fabric.utilities.exceptions import MisconfigurationException

from mgpo.callbacks.stop import handlers_kept
from mgpo.callbacks.watch import end_of_a_rank
from mgpo.commands.command_table import PARSED, resolve
from mgpo.commands.quiet import hush, warn_plainly
from mgpo.commands.trainer_cli import CLI, EVALUATIONS, SHOWN, SaveConfig
from mgpo.data.module import VQAData
from mgpo.errors import UserError, find_user_error
from mgpo.training.module import MGPO
from mgpo.utils.allocator import keep_freed_memory
from mgpo.utils.atomic_files import refused
from mgpo.utils.configurations import NAMES, options_of, reading, shipped_config, without_leftovers
from mgpo.utils.memory_short import memory_short
from mgpo.utils.own_code import unmade


@handlers_kept()
def run(args: list[str], cli: type[CLI] = CLI, **options: Any) -> CLI:
    """Run one of Lightning's commands as `python -m mgpo` does; the trainer is in what it returns."""
    if args[:1] and args[0] in EVALUATIONS and not any(name in NAMES for name, _ in options_of(args)):
        args = [args[0], "--config", str(shipped_config("mgpo")), *args[1:]]
    keep_freed_memory()
    before, sys.argv = sys.argv, [sys.argv[0], *args]  # processes that a strategy starts take their arguments from here
    try:
        with reading(args):
            sys.argv = [sys.argv[0], *without_leftovers(args)]
            return cli(
                MGPO,
                VQAData,
                save_config_callback=SaveConfig,
                save_config_kwargs={"save_to_log_dir": False},  # that folder is shared under some loggers
                trainer_defaults={"num_sanity_val_steps": 0, "enable_model_summary": False},
                auto_configure_optimizers=False,  # they are the model's
                parser_kwargs={"prog": "mgpo"},
                **options,
            )
    finally:
        sys.argv = before


def execute(command: str, args: Sequence[str]) -> None:
    """Run any command; errors that people can mend are UserErrors, whoever raised them.

    Raises:
        UserError: For such an error.
    """
    hush()
    warn_plainly()
    target, args = resolve(command), list(args)
    try:
        if command in PARSED:
            run([command, *args])
        elif isinstance(target, type):
            run(args, target, run=False)
        else:
            how: dict[str, Any] = dict(
                args=args, prog=f"mgpo {command}", as_positional=False, exit_on_error=False, fail_untyped=False
            )
            with reading(args):
                jsonargparse.auto_cli(target, **how)
    except MisconfigurationException as error:  # options of the trainer that contradict each other
        raise UserError(" ".join(str(error).split())[:SHOWN]) from None
    except Exception as error:
        end_of_a_rank(error)
        if type(error).__module__.partition(".")[0] == "wandb":
            why = " ".join(str(error).split())[:SHOWN].rstrip(".")
            raise UserError(f"W&B: {why}; WANDB_MODE=offline keeps the run on disk, for `wandb sync`") from None
        if (mistake := find_user_error(error) or memory_short(error) or refused(error) or unmade(error)) is None:
            raise
        raise UserError(str(mistake)) from None
