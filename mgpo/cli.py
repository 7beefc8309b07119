"""The command line: LightningCLI over one module and one data module; besides it commands of their own."""

import logging
import sys
import warnings
from pathlib import Path
from typing import Any, Literal, cast

import jsonargparse
import torch
import transformers
import yaml
from jsonargparse.typing import PositiveInt
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback

from mgpo.callbacks import Counterfactuals, ReportWriter
from mgpo.callbacks.folder import OwnFolder, run_folder, unlogged_root
from mgpo.callbacks.hyperparameters import log_configuration
from mgpo.callbacks.metrics_file import KeepRows, keep_metrics
from mgpo.callbacks.requeue import Requeue, under_srun
from mgpo.callbacks.stop import StopOnSignal, handlers_kept
from mgpo.callbacks.watch import RankWatch, end_of_a_rank
from mgpo.checkpoints.resume import MORE, finished, go_into, last_checkpoint, refuse_finished
from mgpo.checkpoints.whole import load_state
from mgpo.data.module import VQAData
from mgpo.errors import UserError, find_user_error
from mgpo.inference.export import export
from mgpo.inference.predict import predict
from mgpo.tools.doctor.preflight import Preflight
from mgpo.tools.leaks.command import leaks
from mgpo.tools.plan.command import plan
from mgpo.tools.study.command import study
from mgpo.training.loop_settings import SHARDED, check_loop, check_strategy
from mgpo.training.module import MGPO
from mgpo.utils.allocator import keep_freed_memory
from mgpo.utils.atomic_files import refused, replaced
from mgpo.utils.configurations import reading, shipped_config
from mgpo.world.pretrain import pretrain

# Remarks of libraries that nobody who runs this can act on.
NOISE = (
    "Using ModelCheckpoint with manual optimization",
    "Checkpoint directory .* exists and is not empty",
    "`isinstance\\(treespec, LeafSpec\\)` is deprecated",
    "The 'val_dataloader' does not have many workers",
    "The 'train_dataloader' does not have many workers",
)
EVALUATIONS = ("validate", "test")
SHOWN = 500  # characters of what Lightning complains of
# Besides those of LightningCLI, or in place of one.
COMMANDS = {"predict": predict, "export": export, "leaks": leaks, "study": study, "pretrain": pretrain}


class SaveConfig(SaveConfigCallback):
    """Saves the resolved configuration into the run directory; that of a run which goes on is the same again."""

    def save_config(self, trainer: Any, pl_module: Any, stage: str) -> None:
        with replaced(run_folder(trainer) / "config.yaml") as unfinished:
            self.parser.save(self.config, unfinished, skip_unset=False, overwrite=True, multifile=False)
        log_configuration(trainer, run_folder(trainer) / "config.yaml")


class CLI(LightningCLI):
    """`fit` is framed by two evaluations, so that it ends with what was gained."""

    last: tuple[Path, int] | None = None  # the checkpoint that `--ckpt_path last` means, and its updates
    asked: Any = None  # the configuration without it

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        return {name: skip for name, skip in LightningCLI.subcommands().items() if name not in COMMANDS}

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        return super().init_parser(**{"exit_on_error": False, **kwargs})  # a hundred lines of usage hide the sentence

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
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

    def before_instantiate_classes(self) -> None:
        config = self.config if self.subcommand is None else self.config[self.subcommand]
        strategy = config["trainer"]["strategy"]
        name = strategy if isinstance(strategy, str) else strategy["class_path"]
        check_strategy(name)
        if self.subcommand not in EVALUATIONS:
            check_loop(config)
        path = config.get("ckpt_path")
        if path and Path(path).is_dir() and not name.endswith(SHARDED):
            raise UserError(f"{path} is in shards; add --config configs/fsdp.yaml, which works on one device too")
        if path and path != "last":
            load_state(Path(path))
        torch.set_num_threads(config["threads"])
        if self.subcommand == "fit" and path == "last":
            self._find_last(config)

    def _find_last(self, config: Any) -> None:
        """Of the run whose saved configuration is this one; so neither may name a checkpoint or a run's folder."""
        config["ckpt_path"] = None
        self.asked = self.config.clone()
        saved = self._parser("fit").dump(config, skip_unset=False)
        self.last = last_checkpoint(config["trainer"], yaml.safe_load(saved))
        if self.last is not None:
            go_into(self.last[0], config["trainer"])

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        if self.asked is not None:
            self.config = self.asked  # which SaveConfig takes
        config = self.config if self.subcommand is None else self.config[self.subcommand]
        trainer: Any = super().instantiate_trainer(**{**unlogged_root(config["trainer"]), **kwargs})
        keep_metrics(trainer)
        trainer.callbacks.insert(0, RankWatch())
        return trainer

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand in ("validate", "test"):
            parser.set_defaults({"verbose": False})  # the report's own table says more
        return parser

    def before_fit(self) -> None:
        config, trainer = self.config["fit"], cast(Any, self.trainer)
        if config["preflight"] != "off":
            trainer.callbacks.insert(0, Preflight(config["preflight"], config.as_dict()))
        if under_srun():
            trainer.callbacks.append(Requeue())
        if path := config.get("ckpt_path"):
            refuse_finished(Path(path), trainer)
        stop = StopOnSignal()
        stop.listen()
        trainer.callbacks.insert(0, KeepRows(afresh=not config.get("ckpt_path") and self.last is None))
        trainer.callbacks.append(stop)  # after those that save
        self._own_folder()
        if self.last is not None:
            self.config_init["fit"]["ckpt_path"] = str(self.last[0])
            self._say(f"going on from {self.last[0]}, after {self.last[1]} updates")
            if finished(self.last[0], trainer):
                self._say(f"this run has ended: nothing is left to train; {MORE}")
        elif self.asked is not None:
            self._say("no run of this configuration has a checkpoint; starting at the beginning")
        if self._measures("both") and not self.config_init["fit"].get("ckpt_path"):
            self.trainer.validate(self.model, self.datamodule, verbose=False)

    def _own_folder(self) -> None:
        trainer = cast(Any, self.trainer)
        if not trainer.fast_dev_run:
            trainer.callbacks.insert(0, OwnFolder())

    before_validate = before_test = _own_folder

    def after_fit(self) -> None:
        if self._measures("both", "after") and not self.trainer.interrupted:
            self.trainer.validate(self.model, self.datamodule, verbose=False)

    def _say(self, text: str) -> None:
        if self.trainer.is_global_zero:
            print(text, flush=True)

    def _measures(self, *when: str) -> bool:
        config = self.config["fit"]
        return bool(config["measure"] in when and self.datamodule.val and not config["trainer"]["fast_dev_run"])


class PlanCLI(CLI):
    """Takes what `fit` takes, and says what a step of it would cost; builds no trainer and reads no data."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_arguments_to_parser(parser)
        parser.add_function_arguments(plan, as_group=False, skip={"config"})

    def before_instantiate_classes(self) -> None:
        config = self.config.as_dict()
        plan(config, **{key: config[key] for key in ("memory", "model_size", "reply", "output")})

    def instantiate_classes(self) -> None:
        pass

    def _set_seed(self) -> None:
        pass


class DoctorCLI(CLI):
    """Takes what `fit` takes, makes its checks on one device, and trains nothing; leaves no files."""

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        self.save_config_callback = None
        quiet = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
        trainer: Any = super().instantiate_trainer(
            **{**kwargs, **quiet, "callbacks": None, "devices": 1, "num_nodes": 1, "strategy": "auto"}
        )
        trainer.callbacks = [Preflight("only", self.config.as_dict())]
        return trainer

    def instantiate_classes(self) -> None:
        super().instantiate_classes()
        self.trainer.fit(self.model, self.datamodule)


def hush() -> None:
    """Leave the terminal to what the run has to say."""
    for message in NOISE:
        warnings.filterwarnings("ignore", message)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: "Tip:" not in record.getMessage()
    )
    logging.getLogger("lightning.fabric.strategies.launchers.subprocess_script").addFilter(
        lambda record: "Forcefully terminating" not in record.getMessage()  # behind what the rank itself has said
    )
    transformers.utils.logging.disable_progress_bar()


@handlers_kept()
def run(args: list[str], cli: type[CLI] = CLI, **options: Any) -> CLI:
    """Run one of Lightning's commands as `python -m mgpo` does; the trainer is in what it returns."""
    if args[:1] and args[0] in EVALUATIONS and not any(a.split("=")[0] in ("-c", "--config") for a in args):
        args = [args[0], "--config", str(shipped_config("mgpo")), *args[1:]]
    keep_freed_memory()
    before, sys.argv = sys.argv, [sys.argv[0], *args]  # processes that a strategy starts take their arguments from here
    try:
        with reading(args):
            return cli(
                MGPO,
                VQAData,
                save_config_callback=SaveConfig,
                save_config_kwargs={"save_to_log_dir": False},  # that folder is shared under some loggers
                trainer_defaults={"num_sanity_val_steps": 0},
                parser_kwargs={
                    "prog": "mgpo",
                    "description": "Teach a vision-language model where to look, from answers alone. More commands: "
                    "`mgpo plan` says what a step will cost, `mgpo doctor` whether all is well before one, "
                    "`mgpo predict` answers questions about pictures, "
                    "`mgpo export` saves a checkpoint for others, `mgpo leaks` looks for test images among the "
                    "training images, `mgpo study` runs a matrix of runs, `mgpo pretrain` makes the embedded model "
                    "anew.",
                },
                **options,
            )
    finally:
        sys.argv = before


def main(args: list[str] | None = None) -> None:
    """Run a command; errors that people can mend end in one sentence instead of a traceback."""
    args = sys.argv[1:] if args is None else args
    hush()
    jsonargparse.set_parsing_settings(add_print_completion_argument=True)
    try:
        if args[:1] and args[0] in COMMANDS:
            how: dict[str, Any] = dict(args=args[1:], prog=f"mgpo {args[0]}", as_positional=False, exit_on_error=False)
            with reading(args):
                jsonargparse.auto_cli(COMMANDS[args[0]], **how)
        elif args[:1] == ["plan"]:
            run(args[1:], PlanCLI, run=False)
        elif args[:1] == ["doctor"]:
            run(args[1:], DoctorCLI, run=False)
        else:
            run(args)
    except MisconfigurationException as error:  # options of the trainer that contradict each other
        raise SystemExit(f"mgpo: {' '.join(str(error).split())[:SHOWN]}") from None
    except Exception as error:
        end_of_a_rank(error)
        if (mistake := find_user_error(error) or refused(error)) is None:
            raise
        raise SystemExit(f"mgpo: {mistake}") from None
