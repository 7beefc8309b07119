"""The commands there are; each is imported when it is asked for."""

from importlib import import_module
from typing import Any

COMMANDS = {  # what each does, and where it is
    "fit": ("train, between two evaluations", "mgpo.commands.trainer_cli:CLI"),
    "validate": ("evaluate on the validation sets", "mgpo.commands.trainer_cli:CLI"),
    "test": ("evaluate on the test sets", "mgpo.commands.trainer_cli:CLI"),
    "predict": ("answer questions about pictures", "mgpo.inference.predict:predict"),
    "export": ("save a run's model for others", "mgpo.inference.export:export"),
    "data": ("show what training will see, before a weight is read", "mgpo.commands.dry_runs:DataCLI"),
    "plan": ("say what a step will cost, and whether it fits", "mgpo.commands.dry_runs:PlanCLI"),
    "doctor": ("check a configuration on some of its questions", "mgpo.commands.dry_runs:DoctorCLI"),
    "study": ("make a matrix of runs, and a page about them", "mgpo.tools.study.command:study"),
    "audit": ("say whether answers rest on the crops", "mgpo.tools.audit.command:audit"),
    "leaks": ("look for test images among training images", "mgpo.tools.leaks.command:leaks"),
    "pretrain": ("make the embedded base model again", "mgpo.tools.pretrain.command:pretrain"),
}
PARSED = ("fit", "validate", "test")  # commands that are LightningCLI's own
SHELLS = ("bash", "zsh", "tcsh", "fish")


def resolve(command: str) -> Any:
    """What does a command: a function, or a class of Lightning's command line."""
    module, _, name = COMMANDS[command][1].partition(":")
    return getattr(import_module(module), name)
