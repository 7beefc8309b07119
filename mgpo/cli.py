"""The command line: a list of commands, of which each is imported when it is asked for."""

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mgpo
from mgpo.commands.command_table import COMMANDS
from mgpo.errors import UserError

EXAMPLES = """\
  mgpo fit --config mgpo                     train the embedded model, in minutes on a CPU
  mgpo predict --model embedded --data street.jpg --question "What does the sign say?"
  mgpo COMMAND --help                        all keys of a command
  mgpo completion bash|zsh|tcsh|fish         completion of commands and keys, for your shell"""
NEED_POLICY = ("fit", "plan", "doctor")
DEFAULTED = ("validate", "test", "data")  # which without a configuration take mgpo's
INTERRUPTED = 130  # as shells count a process that Ctrl-C has ended
USAGE = f"""\
usage: mgpo COMMAND [--config NAME|FILE ...] [--key value ...]

Teach a vision-language model where to look, from answers alone.

commands:
{{commands}}

{EXAMPLES}"""


def main(args: Sequence[str] | None = None) -> None:
    """Run a command; errors that people can mend end in one sentence instead of a traceback."""
    args = list(sys.argv[1:] if args is None else args)
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # a reward of one's own lies beside one's data
    try:
        if not answered_at_once(args):
            command, args = args[0], with_named_configs(args[1:])
            look_at(command, args)
            from mgpo.commands.execute import execute  # Lightning comes along

            execute(command, args)
    except UserError as error:
        raise SystemExit(f"mgpo: {error}") from None
    except (KeyboardInterrupt, SystemExit) as end:
        if not isinstance(end.__context__ if isinstance(end, SystemExit) else end, KeyboardInterrupt):
            raise
        print("mgpo: interrupted", file=sys.stderr)  # of an evaluation Lightning makes a SystemExit
        raise SystemExit(INTERRUPTED) from None


def answered_at_once(args: Sequence[str]) -> bool:
    """Help, version and completion, which need nothing of what trains. Raises UserError where no command is named."""
    from mgpo.commands.keys import explain, nearest

    command = args[0] if args else "--help"
    if command == "help":
        command, args = (args[1], [*args[1:], "--help"]) if len(args) > 1 else ("--help", args)
    if command in ("-h", "--help"):
        print(USAGE.format(commands="\n".join(f"  {name:10}{about}" for name, (about, _) in COMMANDS.items())))
    elif command == "--version":
        print(f"mgpo {mgpo.__version__}")
    elif command == "completion" and {"-h", "--help"} & set(args[1:]):
        print('usage: mgpo completion bash|zsh|tcsh|fish\n\nFor your shell to read: eval "$(mgpo completion bash)"')
    elif command == "completion":
        from mgpo.commands.completion import script

        print(script(args[1] if len(args) > 1 else "bash"))
    elif command not in COMMANDS:
        raise UserError(f"there is no command {command!r}{nearest(command, COMMANDS)} (mgpo --help lists them)")
    elif {"-h", "--help"} & set(args[1:]):
        print(explain(command, COMMANDS[command][0], min(100, shutil.get_terminal_size().columns)))
    else:
        return False
    return True


def with_named_configs(args: Sequence[str]) -> list[str]:
    """The same, with a path for each configuration that is named as it comes with the package: `--config mgpo`."""
    from mgpo.utils.configurations import NAMES, find_config

    found = list(args)
    for i, arg in enumerate(found):
        name, equals, value = arg.partition("=")
        if name in NAMES:
            if equals:
                found[i] = f"{name}={find_config(value)}"
            elif i + 1 < len(found):
                found[i + 1] = find_config(found[i + 1])
    return found


def check_policy(command: str, configs: Sequence[str], args: Sequence[str], held: Mapping[str, Any]) -> None:
    """Raises UserError where a command that needs a policy is told of none: configurations may be overlays alone.

    So may those that have arguments for a class, and name none.
    """
    asks = any(arg.startswith("--print_config") or arg.partition("=")[0].endswith(".help") for arg in args)
    if asks or command not in NEED_POLICY + (DEFAULTED if configs else ()):
        return
    lacks = [] if "model.policy" in held else ["model.policy"]
    lacks += [key for key, value in held.items() if isinstance(value, dict) and {*value} == {"init_args"}]
    lacks = [key for key in lacks if not any(arg.startswith(f"--{key}") for arg in args)]
    if lacks and not configs:
        raise UserError(f"{command} needs a configuration, such as --config mgpo, the embedded model")
    if lacks:
        overlay = Path(configs[0])
        whole = "qwen2_5_vl_7b" if overlay.parent.name == "models" else "mgpo"
        raise UserError(
            f"{configs[0]} names no {lacks[0]}: it goes behind a configuration that does, such as --config {whole} "
            f"--config {overlay.stem}"
        )


def look_at(command: str, args: Sequence[str]) -> None:
    """Refuse what can be seen to be wrong before anything is imported, then say that it begins.

    Raises UserError.
    """
    from mgpo.commands.key_values import check_rows, check_values, check_words, given
    from mgpo.commands.keys import check_arguments, check_configuration, laid_over, replaced
    from mgpo.utils.collectives import local_rank
    from mgpo.utils.configurations import NAMES, load_file, options_of

    configs = [value for name, value in options_of(args) if name in NAMES]
    held: dict[str, Any] = {}
    remarks: list[str] = []
    for config in configs:
        if Path(config).is_file():
            over = check_configuration(command, config, load_file(config))
            remarks += replaced(held, over, config)
            held = laid_over(held, over)
    check_words(command, args)
    remarks += check_arguments(command, args, held)
    check_values(command, held | given(args))
    if command == "study":
        check_rows(given(args), held.get("runs"))
    check_policy(command, configs, args, held)
    if local_rank() == 0 and not any(arg.startswith("--print_config") for arg in args):
        print(" ".join([f"mgpo {command}", *configs, "…"]), *remarks, sep="\n  ", file=sys.stderr, flush=True)
