"""Which of a checkpoint's chat templates shows pictures, wherever it stands; each is tried within limits."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, TemplateSyntaxError
from transformers import PreTrainedTokenizerBase

from mgpo.errors import UserError, first_line
from mgpo.policy.hub.checkpoint_files import optional_file, read
from mgpo.policy.hub.limits import bounded

FILES = ("chat_template.jinja", "chat_template.json", "processor_config.json")  # the first that says something counts
DEFAULT = "default"
SECONDS, BYTES = 5.0, 2**30
LONGEST = 20_000  # characters that a template may write around a conversation of a few words
SHOWN, ASKED, SAID = "\ue000shown\ue000", "\ue000asked\ue000", "\ue000said\ue000"
PROBE = [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": SHOWN}]},
    {"role": "assistant", "content": SAID},
    {"role": "user", "content": ASKED},
]


def choose_template(tokenizer: PreTrainedTokenizerBase, path: str, slot: str) -> None:
    """Give the tokenizer the template that shows pictures: the processor's file comes before the tokenizer's.

    Raises UserError where there is none, or several of which none is the default.
    """
    complaints: list[str] = []
    for where, templates in _found(tokenizer, path):
        fitting = []
        for name, template in templates.items():
            complaint = complain(tokenizer, template, slot)
            if complaint is None:
                fitting.append(name)
            else:
                complaints.append(f"that in {where} {complaint}")
        if DEFAULT in fitting or len(fitting) == 1:
            tokenizer.chat_template = templates[DEFAULT if DEFAULT in fitting else fitting[0]]
            return
        if fitting:
            names = ", ".join(sorted(fitting)[:4])
            raise UserError(
                f"{path}: {where} has several chat templates ({names}); give one of them the name {DEFAULT}"
            )
    if not complaints:
        raise UserError(f"the tokenizer in {path} has no chat template (chat_template.jinja)")
    raise UserError(f"no chat template in {path} can be used: {complaints[0]}; take it from the published model")


def complain(tokenizer: PreTrainedTokenizerBase, template: str, slot: str) -> str | None:
    """What is wrong with a template: it should show a picture, a question, a reply and another question, each once."""
    if _takes_powers(template):
        return "takes powers, which may never end"  # nor can a signal break them off
    try:
        with bounded(SECONDS, BYTES):
            text = str(
                tokenizer.apply_chat_template(
                    PROBE, chat_template=template, tokenize=False, add_generation_prompt=True, enable_thinking=False
                )
            )
    except Exception as error:  # a template may raise anything
        return f"fails ({first_line(error)})"
    if len(text) > LONGEST:
        return f"writes {len(text):,} characters for a few words"
    if text.count(slot) != 1:
        return f"shows {text.count(slot)} pictures where there is one"
    if any(text.count(part) != 1 for part in (SHOWN, SAID, ASKED)):
        return "leaves out or repeats what is said"
    return None


def _takes_powers(template: str) -> bool:
    try:
        return any(value == "**" for _, kind, value in Environment().lex(template) if kind == "operator")
    except TemplateSyntaxError:
        return False  # which rendering it says better


def _found(tokenizer: PreTrainedTokenizerBase, path: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Where there are templates, and which by name."""
    for name in FILES:
        file = optional_file(path, name)
        if templates := {} if file is None else _named(read(path, name, partial(_content, file))):
            yield name, templates
    if templates := _named(tokenizer.chat_template):
        yield "the tokenizer's files", templates


def _content(file: Path, _: str) -> Any:
    text = file.read_text("utf-8")
    return json.loads(text).get("chat_template") if file.suffix == ".json" else text


def _named(given: Any) -> dict[str, str]:
    """By name, whether there is one, or several as a dictionary or as a list."""
    if isinstance(given, list):
        given = {entry.get("name"): entry.get("template") for entry in given if isinstance(entry, dict)}
    templates = given if isinstance(given, dict) else {DEFAULT: given}
    return {str(name): template for name, template in templates.items() if isinstance(template, str) and template}
