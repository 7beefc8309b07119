"""LightningCLI over one module and one data module."""

from pathlib import Path
from typing import Any, Literal, cast

import torch
import yaml
from jsonargparse.typing import PositiveInt
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback

from mgpo.callbacks import Counterfactuals, ReportWriter
from mgpo.callbacks.folder import OwnFolder, root_for_loggers, run_folder, stays, unlogged_root
from mgpo.callbacks.hyperparameters import log_configuration
from mgpo.callbacks.metrics_file import KeepRows, keep_metrics
from mgpo.callbacks.requeue import Requeue, under_srun
from mgpo.callbacks.stop import StopOnSignal
from mgpo.callbacks.watch import RankWatch
from mgpo.checkpoints.resume import (
    MORE,
    finished,
    go_into,
    last_checkpoint,
    last_trained,
    nearest_run,
    refuse_finished,
)
from mgpo.checkpoints.whole import FOLDER, load_state, newest, trained
from mgpo.commands.command_table import PARSED
from mgpo.commands.quiet import hush_loggers
from mgpo.errors import UserError
from mgpo.policy.hub.checkpoint_files import MODELS
from mgpo.tools.doctor.preflight import Preflight
from mgpo.training.loop_settings import SHARDED, check_accelerator, check_loop, check_strategy
from mgpo.training.saved_run import CONFIG
from mgpo.utils.atomic_files import replaced

EVALUATIONS = ("validate", "test")
SHOWN = 500  # characters of what Lightning complains of


class SaveConfig(SaveConfigCallback):
    """Saves the resolved configuration into the run directory; that of a run which goes on is the same again."""

    def save_config(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Writes config.yaml whole or not at all, with every key, into the run's folder.

        That of a training run stays what it was trained with, whatever is evaluated in its folder.
        """
        if stage != "fit" and any((run_folder(trainer) / "checkpoints").glob("*.ckpt")):
            return
        with replaced(run_folder(trainer) / CONFIG) as unfinished:
            self.parser.save(self.config, unfinished, skip_unset=False, overwrite=True, multifile=False)
        log_configuration(trainer, run_folder(trainer) / CONFIG)


class CLI(LightningCLI):
    """`fit` is framed by two evaluations, so that it ends with what was gained."""

    last: tuple[Path, int] | None = None  # the checkpoint that `--ckpt_path last` means, and its updates
    asked: Any = None  # the configuration without it
    nearest: str = ""  # where there is none, the run that is nearest

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Lightning's subcommands by name, without those that this package has its own of."""
        return {name: skip for name, skip in LightningCLI.subcommands().items() if name in PARSED}

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """The parser, which raises what is wrong instead of printing its usage and exiting."""
        return super().init_parser(**{"exit_on_error": False, **kwargs})  # a hundred lines of usage hide the sentence

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds what this command line takes besides Lightning's: reports, --measure, --preflight and --threads."""
        parser.add_lightning_class_args(ReportWriter, "report")
        parser.add_lightning_class_args(Counterfactuals, "counterfactuals")
        parser.add_argument(
            "--measure",
            type=Literal["both", "after", "never"],
            default="both",
            help="When `fit` evaluates: before and after, side by side; after only; or never.",
        )
        parser.add_argument(
            "--preflight",
            type=Literal["stop", "warn", "off"],
            default="stop",
            help="What a failed check does before the first step of `fit`: stop it, warn only; or make no checks.",
        )
        parser.add_argument(
            "--threads",
            type=PositiveInt,
            default=1,
            help="Torch threads on the CPU; for the embedded model one is best.",
        )

    def _parse_ckpt_path(self) -> None:
        """Nothing of a checkpoint becomes configuration; and no file that is none is loaded for that."""

    def _set_seed(self) -> None:
        """Draws and the order of questions follow the seed of all, but for one that is chosen at random: every process
        would have its own."""
        config = self.config if self.subcommand is None else self.config[self.subcommand]
        if isinstance(seed := config["seed_everything"], int) and not isinstance(seed, bool):
            for part in (config["model"], config["data"]):
                if part["seed"] is None:
                    part["seed"] = seed
        super()._set_seed()

    def before_instantiate_classes(self) -> None:
        """Looks at strategy, loop and checkpoint before anything is built, and finds the run to go on with.

        Raises:
            UserError: For settings that do not go together, or a checkpoint that can't be read.
        """
        config = self.config if self.subcommand is None else self.config[self.subcommand]
        strategy = config["trainer"]["strategy"]
        name = strategy if isinstance(strategy, str) else strategy["class_path"]
        check_strategy(name)
        if self.subcommand not in EVALUATIONS:
            check_loop(config)
        check_accelerator(config["trainer"]["accelerator"])
        root_for_loggers(config["trainer"])
        path = self._of_a_run(config.get("ckpt_path"))
        if path == "last" and self.subcommand in EVALUATIONS:
            path = str(last_trained(config["trainer"], self._as_saved(config)))
        if "ckpt_path" in config:
            config["ckpt_path"] = path
        if path and any((Path(path) / model).is_file() for model in MODELS):
            raise UserError(f"{path} is a model, and no checkpoint of a run; name it with model.policy.path")
        if path and Path(path).is_dir() and not name.endswith(SHARDED):
            raise UserError(f"{path} is in shards; add --config configs/fsdp.yaml, which works on one device too")
        if path and path != "last":
            load_state(Path(path))
        torch.set_num_threads(config["threads"])
        if self.subcommand == "fit" and path == "last":
            self._find_last(config)

    def _of_a_run(self, path: str | None) -> str | None:
        """The checkpoint that a run's folder stands for: to evaluate what it learnt, to train on its newest."""
        if not path or not (Path(path) / CONFIG).is_file():
            return path
        latest = newest(Path(path) / FOLDER) if self.subcommand == "fit" else None
        return str(latest[0] if latest else trained(Path(path)))

    def _find_last(self, config: Any) -> None:
        """Of the run whose saved configuration is this one; so neither may name a checkpoint or a run's folder."""
        config["ckpt_path"] = None
        self.asked, saved = self.config.clone(), self._as_saved(config)
        self.last = last_checkpoint(config["trainer"], saved)
        if self.last is not None:
            go_into(self.last[0], config["trainer"])
        else:
            self.nearest = nearest_run(config["trainer"], saved)

    def _as_saved(self, config: Any) -> dict[str, Any]:
        """A configuration as a run's folder holds it."""
        return yaml.safe_load(self._parser(self.subcommand).dump(config, skip_unset=False))

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        """Builds the trainer as configured, with a watch over its ranks in front of the callbacks."""
        if self.asked is not None:
            self.config = self.asked  # which SaveConfig takes
        config = self.config if self.subcommand is None else self.config[self.subcommand]
        try:
            trainer: Any = super().instantiate_trainer(**{**unlogged_root(config["trainer"]), **kwargs})
        except UserError:
            raise
        except (ValueError, TypeError, RuntimeError) as error:  # of settings that the trainer can't work with
            raise UserError(f"trainer: {' '.join(str(error).split())[:SHOWN]}") from None
        hush_loggers(trainer.loggers)
        keep_metrics(trainer)
        trainer.callbacks.insert(0, RankWatch())
        return trainer

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand in ("validate", "test"):
            parser.set_defaults({"verbose": False})  # the report's own table says more
        return parser

    def before_fit(self) -> None:
        """Makes the trainer ready to be stopped, requeued and gone on with, and evaluates where that comes first."""
        config, trainer = self.config["fit"], cast(Any, self.trainer)
        if config["preflight"] != "off":
            trainer.callbacks.insert(0, Preflight(config["preflight"], config.as_dict()))
        if under_srun():
            trainer.callbacks.append(Requeue())
        if path := config.get("ckpt_path"):
            refuse_finished(Path(path), trainer)
        stop = StopOnSignal()
        stop.listen()
        afresh = not config.get("ckpt_path") and self.last is None
        trainer.callbacks.insert(0, KeepRows(afresh))
        trainer.callbacks.append(stop)  # after those that save
        self._own_folder(afresh)
        if self.last is not None:
            self.config_init["fit"]["ckpt_path"] = str(self.last[0])
            self._say(f"going on from {self.last[0]}, after {self.last[1]} updates")
            if finished(self.last[0], trainer):
                self._say(f"this run has ended: nothing is left to train; {MORE}")
        elif self.asked is not None:
            self._say(f"no run of this configuration has a checkpoint{self.nearest}; starting at the beginning")
        if stays(trainer) and config["trainer"]["enable_checkpointing"] is None and not _saves(config["trainer"]):
            self._say(
                "none of trainer.callbacks saves the weights; trainer.callbacks+ mgpo.callbacks.LastCheckpoint would"
            )
        cast(Any, self.model).check_validations(trainer, self.datamodule)
        if self._measures("both") and not self.config_init["fit"].get("ckpt_path"):
            self.trainer.validate(self.model, self.datamodule, verbose=False)

    def _own_folder(self, afresh: bool = False) -> None:
        trainer = cast(Any, self.trainer)
        if not trainer.fast_dev_run:
            trainer.callbacks.insert(0, OwnFolder(afresh))

    before_validate = before_test = _own_folder

    def after_fit(self) -> None:
        """Evaluates what was trained, unless that is not wanted or training was interrupted."""
        trainer = cast(Any, self.trainer)
        if 0 < (trainer.max_epochs or 0) <= trainer.current_epoch and trainer.global_step < trainer.max_steps:
            self._say(
                f"ended after {trainer.global_step} of {trainer.max_steps} updates: trainer.max_epochs "
                f"{trainer.max_epochs} leaves no more; raise it, or take -1"
            )
        if trainer.global_step == 0 and not trainer.interrupted:
            self._say(
                "ended without an update; see trainer.max_steps, max_epochs, limit_train_batches, and what was left out"
            )
        if self._measures("both", "after") and not trainer.interrupted:
            self.trainer.validate(self.model, self.datamodule, verbose=False)

    def _say(self, text: str) -> None:
        if self.trainer.is_global_zero:
            print(text, flush=True)

    def _measures(self, *when: str) -> bool:
        config = self.config["fit"]
        return bool(config["measure"] in when and self.datamodule.val and not config["trainer"]["fast_dev_run"])


def _saves(trainer: Any) -> bool:
    """Whether a configured callback saves weights, or the one that Lightning adds, which does at validations."""
    callbacks = trainer["callbacks"] or []
    named = [callback["class_path"] for callback in (callbacks if isinstance(callbacks, list) else [callbacks])]
    validates = (trainer["check_val_every_n_epoch"] or 1) <= (trainer["max_epochs"] or 1)
    return validates or any(path.endswith("Checkpoint") for path in named)
