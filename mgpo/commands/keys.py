"""Which keys there are, looked up without importing what they belong to: so a mistake is told at once."""

import difflib
import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence, Set
from functools import cache
from importlib import import_module
from importlib.resources import files
from typing import Any

from mgpo.commands.key_values import plain
from mgpo.errors import UserError
from mgpo.utils.configurations import options_of
from mgpo.utils.least_values import check_class_arguments
from mgpo.utils.own_code import is_function

ALWAYS = ("help", "config", "print_config", "c", "h")  # of every command
CALLBACKS = "trainer.callbacks"
NESTED = ("class_path", "init_args", "dict_kwargs", "help")  # of a class
CALLED = {"reward", "shaping", "cut"}  # which functions may be, whose arguments the parser would pass over in silence
Keys = Mapping[str, Sequence[str]]  # by key: kind, type, default, help


@cache
def known() -> dict[str, Any]:
    """What `mgpo.commands.list_keys` wrote."""
    return json.loads(files("mgpo.commands").joinpath("known_keys.json").read_text(encoding="utf-8"))


def keys_of(command: str) -> Keys:
    """The keys of a command."""
    return known()["commands"][command]


def check_arguments(command: str, args: Sequence[str], configured: Mapping[str, Any] | None = None) -> list[str]:
    """Remarks on the options of a command line: which of several list entries one changes.

    Args:
        command: Whose options they are.
        args: As they were typed.
        configured: By key what configurations in front of them hold.

    Raises:
        UserError: For an option, a class or an argument of a class that does not exist.
    """
    keys, held, remarks = keys_of(command), dict(configured or {}), list[str]()
    for name, value in options_of(args):
        adds, key = name.endswith("+"), name[2:].rstrip("+")
        if not name.startswith("--") or not key or key in ALWAYS:
            continue
        _check(command, keys, key, "--")
        if key in keys and keys[key][0] == "class":
            named = plain(value)
            named = named if isinstance(named, Mapping | list | None) else {"class_path": named}
            _check_classes(f"--{key}", named)
            remarks += [] if adds else replaced(held, {key: named}, f"--{key}")
            held = laid_over(held, {f"{key}+": named} if adds else {key: named})
            continue
        parent = next((k for k in keys if keys[k][0] == "class" and key.startswith(f"{k}.")), None)
        if parent is not None:
            entries = held.get(parent)
            if isinstance(entries, list) and len(entries) > 1 and not key.removeprefix(f"{parent}.")[:1].isdigit():
                remarks.append(f"--{key} changes the last of the {len(entries)} in {parent}")
            last = entries[-1] if isinstance(entries, list) and entries else entries
            first, *inner = key.removeprefix(f"{parent}.").removeprefix("init_args.").split(".")
            if isinstance(last, Mapping) and first not in NESTED and not first.isdigit():
                said: Any = plain(value)
                for part in reversed(inner):
                    said = {part: said}
                _check_classes(f"--{key}", {"class_path": last.get("class_path"), "init_args": {first: said}})
    return remarks


def check_configuration(command: str, file: str, loaded: Any) -> dict[str, Any]:
    """By key what a configuration holds.

    Raises UserError for a key that the command does not have, or a class or an argument of one that does not exist.
    """
    keys = keys_of(command)
    held = dict(_flat(keys, loaded))
    for key, value in held.items():
        _check(command, keys, key.removesuffix("+"), f"{file}: ")
        if key.endswith("+") and key[:-1] in held:
            raise UserError(f"{file}: {key[:-1]} and {key} stand beside each other; write one list")
        _check_classes(f"{file}: {key}", value)
    return held


def laid_over(held: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """What two configurations hold, the second in front; one that gives arguments alone keeps the first one's class.

    A key with a "+" adds to a list.
    """
    laid = {**held, **over}
    for key, value in over.items():
        before = held.get(key)
        if key.endswith("+"):
            laid[key[:-1]] = [*_as_list(held.get(key[:-1])), *_as_list(laid.pop(key))]
        elif isinstance(value, Mapping) and "class_path" not in value and isinstance(before, Mapping):
            laid[key] = {**before, "init_args": {**(before.get("init_args") or {}), **(value.get("init_args") or {})}}
    return laid


def replaced(held: Mapping[str, Any], over: Mapping[str, Any], what: str) -> list[str]:
    """A remark where callbacks, some of which save, go because others are put in their place."""
    before, others = (_as_list(each.get(CALLBACKS)) for each in (held, over))
    names = {*map(_class_of, others)}
    if not others or None in names or {*map(_class_of, before)} <= names:  # arguments alone change those that are there
        return []
    return [
        f"{what} puts {len(others)} in place of the {len(before)} {CALLBACKS} before; {CALLBACKS}+ would add to them"
    ]


def _class_of(entry: Any) -> str | None:
    """The name of the class, whose path may be left out."""
    path = entry.get("class_path") if isinstance(entry, Mapping) else entry
    return None if path is None else str(path).rpartition(".")[2]


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def explain(command: str, about: str, width: int) -> str:
    """The help of a command: its keys, with types, defaults and what they do; Lightning's own by name."""
    lines = [*textwrap.wrap(f"mgpo {command}: {about}", width), ""]
    keys = keys_of(command)
    if any(key.startswith("trainer.") for key in keys):
        lines += textwrap.wrap("--config NAME|FILE, any number of times: later ones are laid over earlier ones.", width)
        lines.append("")
    for key, (kind, type_, default, help_) in _in_order(command, keys):
        if kind == "group" or key.startswith("trainer."):
            continue
        value = "CLASS" if kind == "class" else type_.upper() if type_ in ("int", "float", "str", "bool") else type_
        lines.append(f"  --{key} {value}" + (f"  (default {default})" if default else ""))
        lines += textwrap.wrap(help_, width, initial_indent="      ", subsequent_indent="      ")
    trainer = ", ".join(key.removeprefix("trainer.") for key in keys if key.startswith("trainer."))
    if trainer:
        lines += ["", "  --trainer.KEY, as of lightning.pytorch.Trainer; KEY is one of"]
        lines += textwrap.wrap(trainer, width, initial_indent="      ", subsequent_indent="      ")
        lines += [
            "",
            *textwrap.wrap(f"Arguments of a class: mgpo {command} --model.policy.help mgpo.policy.Qwen25VL", width),
        ]
    return "\n".join(lines)


def nearest(name: str, names: Iterable[str]) -> str:
    """What was probably meant, as the end of a sentence; empty where nothing is near."""
    near = difflib.get_close_matches(name[:80], list(names), 1, 0.6)  # whatever a stranger calls a key
    return f"; did you mean {near[0]}?" if near else ""


def _in_order(command: str, keys: Keys) -> list[tuple[str, Sequence[str]]]:
    """Those that are the command's own first."""
    shared = keys_of("fit") if command != "fit" else {}
    return sorted(keys.items(), key=lambda item: item[0] in shared)


def _check(command: str, keys: Keys, key: str, before: str) -> None:
    if key in keys:
        return
    parts = key.split(".")
    for end in range(len(parts) - 1, 0, -1):
        parent = ".".join(parts[:end])
        if parent in keys:
            if keys[parent][0] != "group":
                return  # an argument of a class, or a part of a value: the command itself knows
            break
    siblings = [other for other in keys if other.rpartition(".")[0] == key.rpartition(".")[0]]
    siblings += [] if "." in key else ALWAYS[:3]
    mended = (nearest(key, siblings) or nearest(key, keys)).replace("mean ", "mean --" if before == "--" else "mean ")
    raise UserError(f"{before}{key} is no key of {command}{mended or f' (mgpo {command} --help lists them)'}")


def _flat(keys: Keys, loaded: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    """The keys of a configuration with dots, as far down as groups go."""
    if not isinstance(loaded, Mapping):
        return
    for name, value in loaded.items():
        key = f"{prefix}{name}"
        if keys.get(key, ("",))[0] == "group" and isinstance(value, Mapping):
            yield from _flat(keys, value, f"{key}.")
        elif key not in ALWAYS:
            yield key, value


def _check_classes(where: str, value: Any, names: Set[str] = frozenset()) -> None:
    """`names` are those of the keys that lead to the value; by default the last part of `where`."""
    if isinstance(value, list):
        for each in value:
            _check_classes(where, each, names)
    if not isinstance(value, Mapping):
        return
    for name in value:
        if name not in NESTED and (near := difflib.get_close_matches(str(name)[:80], NESTED, 1, 0.85)):
            raise UserError(f"{where}: a class has no key {name}; did you mean {near[0]}?")
    path, classes = str(value.get("class_path", "")), known()["classes"]
    if path.startswith("mgpo.") and path not in classes:
        home, _, name = path.rpartition(".")
        siblings = [known.rpartition(".")[2] for known in classes if known.rpartition(".")[0] == home]
        if siblings and (meant := nearest(name, siblings)) and not hasattr(import_module(home), name):
            raise UserError(f"{where}: there is no {path}{meant.replace('mean ', f'mean {home}.')}")
    arguments = value.get("init_args")
    names = names or {*where.split()[-1].lstrip("-").split(".")}
    if arguments and names & CALLED and is_function(path):
        raise UserError(
            f"{where}: {path} is a function, which takes no {' or '.join(arguments)} from a configuration; make it a "
            "class that does, or give it a default"
        )
    if path in classes and isinstance(arguments, Mapping):
        check_class_arguments(f"{where}: {path}", arguments)
        for name in arguments:
            if name not in classes[path]:
                raise UserError(
                    f"{where}: {path} has no argument {name}"
                    f"{nearest(str(name), classes[path]) or '; it has ' + ', '.join(classes[path])}"
                )
    for name, inner in value.items():
        _check_classes(where, inner, names | {str(name)})
