"""What jsonargparse complains of, in plain words."""

import difflib
import re
from inspect import signature

from mgpo.utils.interface import found_at, not_implementing, unfinished

CLASS = "; name one by its class path, and its arguments under init_args"
SCHEDULE = "torch.optim.lr_scheduler.OneCycleLR, which warms up and then falls"
LIST, MAPPING = "a list in [ ]", "keys and values in { }"
NEEDED = {
    "int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text", "list": LIST, "tuple": LIST,
    "collections.abc.Sequence": LIST, "dict": MAPPING, "collections.abc.Mapping": MAPPING,
}  # fmt: skip
KEY = re.compile(r'Parser key "([^"]+)": (.*)', re.DOTALL)
REQUIRED = re.compile(r"the following arguments are required: ([\w., -]+?)(?= - |$)")
# What is tried first and says nothing: a file of that name, and that there are several possibilities.
TRIED = re.compile(r"^- Expected a path but .*? either not accessible or invalid - |^Does not validate .*? Errors: - ")
NESTED = re.compile(r"NestedArg\(key='([^']*)', val='([^']*)'\)")  # of an option below a list's key
# Of a class whose arguments are at fault, before the first of these.
INSIDE = re.compile(
    r"""^(?:Problem with given class_path '[^']+'|Type .*? expects a function or a callable class): """
    r"""Parser key "([^"]+)": (.*)""",
    re.DOTALL,
)


def plainly(complaint: str) -> str:
    """The one cause among all that was tried, with its key; the complaint itself where none is recognised."""
    text = NESTED.sub(r"\1=\2", " ".join(complaint.split()))
    if not (named := KEY.search(text)):
        return _lacking("", text) or _stray(text) or text
    key, whole = named[1], named[2]
    while inside := INSIDE.search(rest := _first(whole)):
        key, whole = f"{key}.{inside[1]}", inside[2]
    return _of_class(key, rest, whole) or _of_value(key, rest, whole) or _shortened(key, rest)


def _first(rest: str) -> str:
    """A complaint from the first thing on that it says of the value."""
    while (shorter := TRIED.sub("", rest)) != rest:
        rest = shorter
    return rest


def _lacking(key: str, rest: str) -> str | None:
    """What has to be given and is not."""
    if not (lacks := REQUIRED.search(rest)):
        return None
    names = lacks[1].split(", ")
    options = ", ".join(f"--{key}.{name}" if key else f"--{name}" for name in names)
    whose = re.search(r"class_path[ =]'([^']+)'", rest)
    if whose and key.endswith("lr_scheduler") and "optimizer" in names:  # of a class it is no argument to be given
        return f"{key}: {whose[1]} is a function; name a class of schedules, such as {SCHEDULE}"
    subject = f"{key}: {whose[1]} needs {', '.join(names)}; add" if whose else "not all that is needed is there: add"
    return f"{subject} {options}"


def _stray(text: str) -> str | None:
    stray = re.search(r"unrecognized arguments: (.*)", text)
    return f"{stray[1]} belongs to no key" if stray else None


def _of_class(key: str, rest: str, whole: str) -> str | None:
    """A class that is not there, is not meant, or is not made by what was given."""
    if module := re.search(r"No module named '([^']+)'", rest):
        wanted = re.search(r"given class_path '([^']+)'", rest)
        what = f"there is no {wanted[1]}: " if wanted else ""
        return f"{key}: {what}no module {module[1]} is found, neither in this folder nor among what is installed"
    if lacks := re.search(r"module '([^']+)' has no attribute '([^']+)'", rest):
        return f"{key}: there is no {lacks[2]} in {lacks[1]}"
    if several := re.search(r"Multiple subclasses with name (\w+)\. .*? ambiguity: ([\w., ]+\w)", rest):
        return f"{key}: {several[1]} may be {several[2].replace(', ', ' or ')}; give the whole path"
    if untold := re.search(r"Expected '([^']+)' to be a function that returns \W*(?:Union|class)\W*(\w+)", rest):
        return f"{key}: the function {untold[1]} has to say what it gives: -> {untold[2]}, behind its parameters"
    if refused := re.search(r"given class_path '([^']+)': (?:Option|Key) '([^']+)' is not (?:accepted|expected)", rest):
        return f"{key}: {refused[1]} has no argument {refused[2]}{_meant(refused[1], refused[2])}"
    if stray := re.search(
        r"Dict must include a class_path and optionally init_args, but got (.+?)(?=\. Got value|;| - |$)", rest
    ):
        return f"{key}: {stray[1]} belongs to no class; name one by its class path (a function takes no arguments here)"
    if lacking := _lacking(key, rest):
        return lacking
    if wanted := re.match(r"(?:Does not implement protocol|Not a valid subclass of) (\w+)", rest):
        return f"{key}: {_given(rest)} is no {wanted[1]}{CLASS}"
    if abstract := re.match(r"Expected an instantiatable class, but (\S*) ?is abstract", rest):
        subtype = re.search(r"Subtypes: \[<class '[\w.]+\.(\w+)'>", whole)
        what = abstract[1] or str(_given(rest))
        return f"{key}: {(subtype and not_implementing(what, subtype[1])) or unfinished(what)}"
    if wanted := re.match(r"Import path (\S* ?)(does not (?:correspond to|implement) .*? \w+)(?= - |\. |$)", rest):
        what = wanted[1].strip() or str(_given(rest))
        return f"{key}: {not_implementing(what, wanted[2].split()[-1]) or f'{what} {wanted[2]}'}"
    return None


def _meant(path: str, argument: str) -> str:
    """Which argument of the class at a dotted path was probably meant, or which it has, as the end of a sentence."""
    try:
        takes = [*signature(found_at(path)).parameters]
    except (ValueError, TypeError):  # nothing is there, or it is not written in Python
        return ""
    near = difflib.get_close_matches(argument[:80], takes, 1, 0.6)
    return f"; did you mean {near[0]}?" if near else f"; it has {', '.join(takes[:12]) or 'none'}"


def _of_value(key: str, rest: str, whole: str) -> str | None:
    """A value of another kind than is taken there."""
    given, kinds = _given(rest), re.findall(r"Expected a <class '([\w.]+)'>", rest)
    numbers = [kind for kind in kinds if kind in ("int", "float")]
    path = re.search(r"Expected a dot import path string: (\S+)", rest)
    if path and not numbers:
        if path[1].isdigit() and (
            part := re.search(r"Subtypes: \[<class '[\w.]+\.(\w+)'>, <class 'NoneType'>\]", whole)
        ):
            return f"{key}: {path[1]} is no {part[1]}{CLASS}"
        return f"{key}: {path[1]} is no class path, such as package.module.Name"
    if given and (needed := numbers or [kind for kind in kinds if kind in NEEDED]):
        return f"{key}: {NEEDED[needed[0]]} is needed, not {given}"
    if given and (literals := re.findall(r"Literal\[([^\]]+)\]", rest)):
        choices = dict.fromkeys(choice.strip(" '\"") for group in literals for choice in group.split(","))
        return f"{key}: {given} is none of {', '.join(choices)}"
    return None


def _shortened(key: str, rest: str) -> str:
    """The first of several complaints, and the value."""
    first = re.split(r" - |\.? Given value|\. Got value| Subclass types expect", rest.removeprefix("- "))[0]
    given = _given(rest)
    return f"{key}: {first}" + (f"; given was {given}" if given and given not in first else "")


def _given(rest: str) -> str | None:
    found = re.search(r"(?:Given value|Got value): (.*?)(?= - |\. Got value| Subclass types expect| \(|$)", rest)
    return found[1] if found else None
