"""Configurations that may be anything: read in bounded time and memory, or refused in one sentence.

What a configuration asks for is done: its class paths are imported and built, so it is to be trusted as code is.
"""

import difflib
import os
from argparse import ArgumentError
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonargparse
import yaml

from mgpo.errors import UserError
from mgpo.utils.complaints import plainly
from mgpo.utils.own_code import made_whole

LARGEST = 1_000_000  # bytes of a file, characters of a text
DEEPEST = 50  # levels
MOST = 10_000  # values, once every alias is written out
SHOWN = 1_000  # characters of a complaint
NAMES = ("-c", "--config")
ALONE = ("data.train", "model.lr_scheduler")  # single classes, of whose arguments another one takes over none
LISTS = ("data.val", "data.test", "model.shaping", "trainer.callbacks", "trainer.logger")  # of classes
LIBRARY = jsonargparse.get_loader("yaml")
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
jsonargparse.add_instantiator(made_whole, object)


class Unreadable(yaml.YAMLError):
    """A text that is no configuration; where a text is wanted, the parser takes it as one."""


@contextmanager
def reading(args: Sequence[str]) -> Iterator[None]:
    """Inside, parsers read YAML by `load`, and what they complain of is a UserError. Looks at the named files first."""
    for name, value in options_of(args):
        if name in NAMES:
            check_file(value)
    jsonargparse.set_loader("yaml", load, (yaml.YAMLError,))
    try:
        yield
    except ArgumentError as error:
        complaint = plainly(str(error))
        cut = "" if len(complaint) <= SHOWN else " …"
        raise UserError(complaint[:SHOWN] + cut + " (--help explains every key)") from None


def options_of(args: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Of each argument its name, and the value behind "=" or else in the argument that follows."""
    for arg, following in zip(args, [*args[1:], ""]):
        name, equals, value = arg.partition("=")
        yield name, value if equals else following


def shipped_config(name: str) -> Path:
    """The file of that name among configs/, installed or in the checkout. Raises UserError where there is none."""
    names = {path.relative_to(folder).with_suffix("").as_posix(): path for folder, path in _shipped()}
    wanted = name.removeprefix("configs/").removesuffix(".yaml")
    if wanted in names:
        return names[wanted]
    if len(alike := [path for known, path in names.items() if known.rpartition("/")[2] == wanted]) == 1:
        return alike[0]
    near = difflib.get_close_matches(wanted, names, 1)
    meant = f"; did you mean {near[0]}?" if near else f": {', '.join(sorted(names))}"
    raise UserError(f"there is no file {name}, and no configuration of that name comes with the package{meant}")


def config_names() -> list[str]:
    """The names of all configurations that come with the package, such as mgpo or loggers/wandb."""
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for folder, path in _shipped())


def find_config(value: str) -> str:
    """A file as it is, and a name as the file that comes with the package under it. Raises UserError for neither."""
    there = os.path.exists(value) and not os.path.isdir(value)
    return value if there or not value else str(shipped_config(value))


def _shipped() -> Iterator[tuple[Path, Path]]:
    package = Path(__file__).parent.parent
    for folder in (package / "configs", package.parent / "configs"):
        yield from ((folder, path) for path in folder.rglob("*.yaml"))


def load_file(path: str) -> Any:
    """What a configuration holds. Raises UserError for a file that holds no keys and values, whatever they are."""
    try:
        loaded = load(read_text(path))
    except yaml.YAMLError as error:
        raise UserError(f"{path}{_what(error)}") from None
    if not isinstance(loaded, dict):
        raise UserError(f"{path} holds no keys, as a configuration does")
    return loaded


def without_leftovers(args: Sequence[str]) -> list[str]:
    """The arguments of a command, with lists of classes and some single ones emptied in front of what gives them anew.

    The parser would have each entry take over the arguments of the one that stood at its place before, whatever it
    was. Entries without a class_path mean just that, and keep them; so does a single class that is named again.
    """
    whole: list[str] = []
    named: dict[str, str] = {}  # the class that stands at a key of `ALONE`
    for arg, (name, value) in zip(args, options_of(args)):
        option = name.removeprefix("--")
        if name in NAMES and os.path.isfile(value):
            given = load_file(value)
        elif option in ALONE or (option in LISTS and value.startswith("[")):
            section, _, key = option.partition(".")
            given = {section: {key: _loaded(value)}}
        else:
            given = {}
        for key in (*LISTS, *ALONE):
            section, _, last = key.partition(".")
            entry = given[section].get(last) if isinstance(given.get(section), dict) else None
            if key in LISTS and isinstance(entry, list) and all(map(_names_class, entry)):
                whole.append(f"--{key}=[]")
            if key in ALONE and _names_class(entry):
                kind = _class_name(entry)
                whole += [f"--{key}=null"] if named.get(key, kind) != kind else []
                named[key] = kind
        whole.append(arg)
    return whole


def _class_name(entry: Any) -> str:
    """The last part of a class path, which may be all that is given."""
    return str(entry["class_path"] if isinstance(entry, dict) else entry).rpartition(".")[2]


def _names_class(entry: Any) -> bool:
    return isinstance(entry, str) or (isinstance(entry, dict) and "class_path" in entry)


def _loaded(text: str) -> Any:
    try:
        return load(text)
    except yaml.YAMLError:
        return None  # which the parser refuses


def check_file(path: str) -> None:
    """Raises UserError for a file that `load_file` refuses; one that is not there the parser refuses."""
    if os.path.isfile(path):
        load_file(path)


def read_text(path: str | Path) -> str:
    """A file of at most `LARGEST` bytes. Raises UserError for others, and for what is no text."""
    if os.path.getsize(path) > LARGEST:
        raise UserError(f"{path} has more than {LARGEST:,} bytes; a configuration is smaller")
    try:
        return Path(path).read_text(encoding="utf-8")
    except ValueError:
        raise UserError(f"{path} is no text in UTF-8, as a configuration is") from None


def made_from(settings: Mapping[str, Any], **kinds: Any) -> Any:
    """Things of these kinds by name, made of their settings as the command line makes them; parameters of classes of
    one's own need no annotations. Raises UserError for names and values that don't fit."""
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    for name, kind in kinds.items():
        parser.add_argument(f"--{name}", type=kind).sub_add_kwargs = {"fail_untyped": False}  # type: ignore[union-attr]
    return _instances(parser, settings)


def arguments_from(kind: type, key: str, settings: Mapping[str, Any], given: Collection[str] = ()) -> dict[str, Any]:
    """What `kind` takes, besides what is `given`, made of settings as by `made_from`; messages begin with the key."""
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, key, skip=set[str | int](given), instantiate=False, fail_untyped=False)
    return _instances(parser, {key: dict(settings)})[key].as_dict()


def _instances(parser: jsonargparse.ArgumentParser, settings: Mapping[str, Any]) -> Any:
    try:
        parsed = parser.parse_object(dict(settings))
    except ArgumentError as error:
        raise UserError(plainly(str(error))) from None
    return parser.instantiate(parsed)


def load(text: str) -> Any:
    """Read YAML as jsonargparse does, after `check_yaml`.

    Raises:
        yaml.YAMLError: And nothing else, whatever the text is.
    """
    check_yaml(text)
    try:
        return LIBRARY(text)
    except (ValueError, TypeError, OverflowError) as error:  # such as an integer of 10,000 digits
        raise Unreadable(str(error)) from None


@dataclass
class _Open:
    """A list or mapping that is being read."""

    anchor: str | None
    before: int  # values in front of it
    keys: set[str] | None  # of a mapping
    nodes: int = 0  # in it: of a mapping, keys and values


def check_yaml(text: str) -> None:
    """Raises yaml.YAMLError for a text that is too long, nested too deep, too large once its aliases are written out,
    that holds itself, or that says a key twice, of which the first would be lost. Builds nothing.
    """
    if len(text) > LARGEST:
        raise Unreadable(f"more than {LARGEST:,} characters")
    sizes: dict[str, int] = {}  # of what an anchor names
    open_: list[_Open] = []
    values = 0
    for event in yaml.parse(text, Loader):
        if isinstance(event, yaml.NodeEvent) and open_:
            _check_key(open_[-1], event)
        if isinstance(event, yaml.AliasEvent):
            if any(event.anchor == each.anchor for each in open_):
                raise Unreadable(f"*{event.anchor} holds itself{_place(event)}")
            values += sizes.get(event.anchor, 1)
        elif isinstance(event, yaml.ScalarEvent):
            values += 1
            sizes |= {event.anchor: 1} if event.anchor else {}
        elif isinstance(event, yaml.CollectionStartEvent):
            open_.append(_Open(event.anchor, values, set() if isinstance(event, yaml.MappingStartEvent) else None))
            values += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            ended = open_.pop()
            sizes |= {ended.anchor: values - ended.before} if ended.anchor else {}
        if len(open_) > DEEPEST:
            raise Unreadable(f"lists or mappings are nested more than {DEEPEST} deep{_place(event)}")
        if values > MOST:
            raise Unreadable(f"more than {MOST:,} values, counting what aliases repeat{_place(event)}")


def _check_key(within: _Open, event: yaml.NodeEvent) -> None:
    """Raises yaml.YAMLError for a key of a mapping that it has already."""
    is_key = within.keys is not None and within.nodes % 2 == 0
    within.nodes += 1
    if is_key and within.keys is not None and isinstance(event, yaml.ScalarEvent) and event.value != "<<":
        if event.value in within.keys:
            raise Unreadable(f"{event.value[:SHOWN]} stands there twice{_place(event)}; write its parts together")
        within.keys.add(event.value)


def _what(error: yaml.YAMLError) -> str:
    """Where, and what is wrong there, without the text around it."""
    if isinstance(error, yaml.MarkedYAMLError) and (mark := error.problem_mark or error.context_mark):
        return f", line {mark.line + 1}, column {mark.column + 1}: {error.problem or error.context}, which is no YAML"
    return f": {' '.join(str(error).split())[:SHOWN]}"


def _place(event: yaml.Event) -> str:
    return f", line {event.start_mark.line + 1}"
