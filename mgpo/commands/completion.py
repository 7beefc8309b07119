"""Completion of commands, keys, configurations and files in a shell: of what trains nothing is imported for it."""

import argparse
from typing import Any

import shtab

from mgpo.commands.command_table import COMMANDS, SHELLS
from mgpo.commands.keys import keys_of
from mgpo.errors import UserError
from mgpo.utils.configurations import config_names

FILES = {"data", "output", "model", "run", "page", "start", "ckpt_path"}  # keys whose values may be files or folders


ANY = {"int", "float", "str", "bool", "null"}  # types of which a key takes other values than their names


def script(shell: str) -> str:
    """What the shell is to read, as by `eval "$(mgpo completion bash)"`. Raises UserError for another shell."""
    if shell not in SHELLS:
        raise UserError(f"there is no completion for {shell}; there is for {', '.join(SHELLS)}")
    parser = argparse.ArgumentParser("mgpo", add_help=False)
    commands = parser.add_subparsers()
    for name, (about, _) in COMMANDS.items():
        command = commands.add_parser(name, help=about)
        _completed(command.add_argument("--config"), _configurations())
        for key, (kind, type_, *_) in keys_of(name).items():
            if kind != "group":
                parts = type_.split("|") if kind == "value" and "|" in type_ and type_.islower() else []
                choices = None if not parts or set(parts) & ANY else parts
                argument = command.add_argument(f"--{key}", choices=choices)
                if key in FILES:
                    _completed(argument, shtab.FILE)
    return shtab.complete(parser, shell)


def _completed(argument: Any, how: dict[str, Any]) -> None:
    argument.complete = how


def _configurations() -> dict[str, Any]:
    """Names of configurations and files, in each shell's own way; tcsh knows either, so files alone."""
    names, files = " ".join(config_names()), shtab.FILE
    bash = f'_mgpo_configs() {{ compgen -W "{names}" -- "$1"; {files["bash"]} "$1"; }}'
    zsh = f"_mgpo_configs() {{ compadd {names}; {files['zsh']} }}"
    return {
        "bash": "_mgpo_configs", "zsh": "_mgpo_configs", "tcsh": files["tcsh"],
        "fish": f"(string split ' ' '{names}'; __fish_complete_path (commandline -ct))",
        "preamble": {"bash": bash, "zsh": zsh},
    }  # fmt: skip
