"""What jsonargparse complains of, in plain words."""

import re

NEEDED = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text"}
KEY = re.compile(r'Parser key "([^"]+)": (.*)', re.DOTALL)


def plainly(complaint: str) -> str:
    """The one cause among all that was tried, with its key; the complaint itself where none is recognised."""
    text = " ".join(complaint.split())
    if not (named := KEY.search(text)):
        return text
    key, rest = named[1], named[2]
    if module := re.search(r"No module named '([^']+)'", rest):
        wanted = re.search(r"given class_path '([^']+)'", rest)
        what = f"there is no {wanted[1]}: " if wanted else ""
        return f"{key}: {what}no module {module[1]} is found, neither in this folder nor among what is installed"
    if lacks := re.search(r"module '([^']+)' has no attribute '([^']+)'", rest):
        return f"{key}: there is no {lacks[2]} in {lacks[1]}"
    if path := re.search(r"Expected a dot import path string: (\S+)", rest):
        return f"{key}: {path[1]} is no class path, such as package.module.Name"
    if refused := re.search(r"given class_path '([^']+)': (?:Option|Key) '([^']+)' is not (?:accepted|expected)", rest):
        return f"{key}: {refused[1]} has no argument {refused[2]}"
    given = re.search(r"(?:Given value|Got value): (.*?)(?: \(|$)", rest)
    if given and (kind := re.match(r"Expected a <class '(\w+)'>", rest)):
        return f"{key}: {NEEDED.get(kind[1], kind[1])} is needed, not {given[1]}"
    if given and (literals := re.findall(r"Literal\[([^\]]+)\]", rest)):
        choices = dict.fromkeys(choice.strip(" '\"") for group in literals for choice in group.split(","))
        return f"{key}: {given[1]} is none of {', '.join(choices)}"
    return f"{key}: {rest}"
