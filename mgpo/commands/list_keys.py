"""Writes known_keys.json, in which help and mistakes are looked up without Lightning:

    python -m mgpo.commands.list_keys

A test compares the file with what this would write.
"""

import importlib
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from inspect import isabstract, isfunction
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import jsonargparse
from jsonargparse._parameter_resolvers import get_signature_parameters

from mgpo.commands.command_table import COMMANDS, PARSED, resolve
from mgpo.commands.execute import run

FILE = Path(__file__).with_name("known_keys.json")
PACKAGES = (
    "mgpo.callbacks", "mgpo.data", "mgpo.data.benchmarks", "mgpo.dialogues", "mgpo.distributed", "mgpo.images",
    "mgpo.policy", "mgpo.rewards", "mgpo.rollout", "mgpo.training", "mgpo.vllm",
)  # fmt: skip
OURS = {"help", "config", "print_config"}


def known_keys() -> dict[str, Any]:
    """By command its keys with kind, type, default and help; by class path the arguments of every public class."""
    commands = {name: keys_of(parser_of(name)) for name in COMMANDS}
    return {"commands": commands, "classes": dict(sorted(classes()))}


def parser_of(command: str) -> Any:
    """The parser that the command itself would use."""
    target = resolve(command)
    if not isinstance(target, type):
        parser = jsonargparse.ArgumentParser()
        parser.add_function_arguments(target, as_group=False)
        return parser
    parsers: list[Any] = []

    class Peek(target):
        def parse_arguments(self, parser: Any, args: Any) -> None:
            parsers.append(self._subcommand_parsers[command] if command in PARSED else parser)
            raise StopIteration

    with suppress(StopIteration):
        run([command] if command in PARSED else [], Peek, **({} if command in PARSED else {"run": False}))
    return parsers[0]


def keys_of(parser: Any) -> dict[str, list[str]]:
    """By key: "value", "class" (a class path with arguments) or "group" (of the keys below it); type; default; help."""
    actions = {action.dest: action for action in parser._actions}
    return {
        dest: [_kind(dest, actions), _type(getattr(action, "_typehint", None)), _default(action.default), _help(action)]
        for dest, action in actions.items()
        if dest not in OURS and not dest.endswith(".help")
    }


def classes() -> Iterator[tuple[str, list[str]]]:
    """The public classes, and functions that make one, which a configuration may name, with their arguments."""
    for package in PACKAGES:
        module = importlib.import_module(package)
        for name in module.__all__:
            public = getattr(module, name)
            made = get_type_hints(public).get("return") if isfunction(public) else None
            if getattr(made, "__module__", "").startswith("mgpo.") or (
                isinstance(public, type) and not isabstract(public) and not getattr(public, "_is_protocol", False)
            ):
                yield f"{package}.{name}", [parameter.name for parameter in get_signature_parameters(public)]


def _kind(dest: str, actions: dict[str, Any]) -> str:
    if f"{dest}.help" in actions:
        return "class"
    return "group" if any(other.startswith(f"{dest}.") for other in actions) else "value"


def plain_name(hint: str) -> str:
    """A type as it is written, in every version of Python alike."""
    return hint.replace("typing.", "").replace("pathlib._local.", "pathlib.")


def _type(hint: Any) -> str:
    if hint is None:
        return ""
    options = get_args(hint)
    if get_origin(hint) is Literal:
        return "|".join(map(str, options))
    if get_origin(hint) in (list, tuple, dict) or (isinstance(hint, Callable) and not isinstance(hint, type)):
        return plain_name(str(hint))
    if options:
        return "|".join(dict.fromkeys(_type(option) for option in options))
    return {"NoneType": "null", "PositiveInt": "int"}.get(name := getattr(hint, "__name__", str(hint)), name)


def _default(value: Any) -> str:
    return json.dumps(value) if isinstance(value, str | int | float | bool) else ""


def _help(action: Any) -> str:
    """Our own sentences; Lightning's stay with Lightning."""
    return "" if action.dest.startswith("trainer") else " ".join((action.help or "").split())


def as_text(known: dict[str, Any]) -> str:
    """JSON with a key a line, so that a key that changes is one line in a diff."""
    commands = {
        name: _object({key: _json(told) for key, told in keys.items()}) for name, keys in known["commands"].items()
    }
    arguments = {path: _json(names) for path, names in known["classes"].items()}
    return _object({"commands": _object(commands), "classes": _object(arguments)}) + "\n"


def _object(members: dict[str, str]) -> str:
    return "{\n" + ",\n".join(f"{_json(name)}: {value}" for name, value in members.items()) + "\n}"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    FILE.write_text(as_text(known_keys()), encoding="utf-8")
