"""Commands that take what `fit` takes and train nothing."""

import sys
from dataclasses import replace
from inspect import signature
from typing import Any, cast

from lightning.pytorch.cli import LightningArgumentParser

from mgpo.commands.trainer_cli import CLI
from mgpo.errors import UserError
from mgpo.tools.doctor.preflight import Preflight
from mgpo.tools.overview.command import arguments, overview
from mgpo.tools.plan.command import plan
from mgpo.training.module import MGPO
from mgpo.utils.configurations import without_leftovers


class DryCLI(CLI):
    """Takes whatever configuration `fit` takes, also one that a run has saved."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds what Lightning gives to `fit` alone."""
        super().add_arguments_to_parser(parser)
        parser.add_argument("--ckpt_path", type=str | None, help="Of a run's configuration; nothing is read from it.")
        parser.add_argument("--weights_only", type=bool | None, help="Of a run's configuration; has no effect here.")


class PlanCLI(DryCLI):
    """Takes what `fit` takes, and says what a step of it would cost; builds no trainer and reads no data."""

    command: Any = staticmethod(plan)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the arguments of the command to those of `fit`."""
        super().add_arguments_to_parser(parser)
        parser.add_function_arguments(self.command, as_group=False, skip={"config"})

    def before_instantiate_classes(self) -> None:
        """Runs the command on this configuration."""
        config = self.config.as_dict()
        _, *keys = signature(self.command).parameters
        self.command(config, **{key: config[key] for key in keys})

    def instantiate_classes(self) -> None:
        """Builds nothing: such a command needs no trainer."""

    def _set_seed(self) -> None:
        pass


class DataCLI(PlanCLI):
    """Takes what `fit` takes, or a file alone, and says what training will see; reads no weights."""

    command = staticmethod(overview)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Reads the command line, in which `--data FILE` stands for that file alone."""
        sys.argv[1:] = without_leftovers(arguments(sys.argv[1:]))
        super().parse_arguments(parser, args)


class DoctorCLI(DryCLI):
    """Takes what `fit` takes, makes its checks on one device, and trains nothing; leaves no files."""

    def before_instantiate_classes(self) -> None:
        """Looks at the settings as `fit` does. Raises UserError for a checkpoint: what is examined are the policy's."""
        if self.config["ckpt_path"]:
            raise UserError(
                "doctor examines the weights of model.policy; those of a checkpoint are named by model.policy.start"
            )
        super().before_instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        """Builds a trainer of one device that leaves no files and has the checks as its only callback."""
        self.save_config_callback = None
        quiet = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
        trainer: Any = super().instantiate_trainer(
            **{**kwargs, **quiet, "callbacks": None, "devices": 1, "num_nodes": 1, "strategy": "auto"}
        )
        trainer.callbacks = [Preflight("only", self.config.as_dict())]
        return trainer

    def instantiate_classes(self) -> None:
        """Builds everything but the reference, which no check asks, and makes the checks, then ends."""
        super().instantiate_classes()
        module = cast(MGPO, self.model)
        module.objective = replace(module.objective, kl_weight=0.0)
        self.trainer.fit(self.model, self.datamodule)
