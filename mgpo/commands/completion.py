"""Completion of commands and keys in a shell, from the keys that are known: nothing is imported for it."""

import argparse

import shtab

from mgpo.commands.command_table import COMMANDS, SHELLS
from mgpo.commands.keys import keys_of
from mgpo.errors import UserError


def script(shell: str) -> str:
    """What the shell is to read, as by `eval "$(mgpo completion bash)"`. Raises UserError for another shell."""
    if shell not in SHELLS:
        raise UserError(f"there is no completion for {shell}; there is for {', '.join(SHELLS)}")
    parser = argparse.ArgumentParser("mgpo", add_help=False)
    commands = parser.add_subparsers()
    for name, (about, _) in COMMANDS.items():
        command = commands.add_parser(name, help=about)
        command.add_argument("--config")
        for key, (kind, type_, *_) in keys_of(name).items():
            if kind != "group":
                choices = type_.split("|") if kind == "value" and "|" in type_ and type_.islower() else None
                command.add_argument(f"--{key}", choices=choices)
    return shtab.complete(parser, shell)
