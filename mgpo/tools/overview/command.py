"""`python -m mgpo data`: what training will see, before any weight is read."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from mgpo.data.base import DataError, Source
from mgpo.errors import UserError
from mgpo.gallery.html_page import shorten
from mgpo.policy.pretrained import Pretrained
from mgpo.tools.overview.facts import Fact, Summary, look, summarise
from mgpo.tools.overview.sheet import some, write_sheet
from mgpo.tools.overview.told import conversation
from mgpo.tools.plan.settings import build
from mgpo.utils.atomic_files import write_json, write_text
from mgpo.utils.configurations import NAMES, made_from, options_of, shipped_config
from mgpo.utils.terminal_tables import printable

STAGES = ("train", "val", "test")
CONVERSATIONS = 8  # in the file
LINES = 12  # of a table
UNITS = {"a_question": "pictures", "width": "width in pixels", "height": "height in pixels", "megapixels": "megapixels",
         "shrunk": "times smaller when first seen, a side"}  # fmt: skip


def arguments(args: Sequence[str]) -> list[str]:
    """The arguments as `fit` takes them: `--data FILE` is that file alone, and without --config the default one.

    Raises:
        UserError: Where no file is named.
    """
    made: list[str] = []
    parts = iter(part for arg in args for part in (arg.split("=", 1) if arg.startswith("--data=") else [arg]))
    for part in parts:
        if part == "--data" and not (value := next(parts, "")).endswith((".yaml", ".yml")):
            if not value:
                raise UserError("--data: name a file of questions, such as --data my/questions.jsonl")
            made += [
                "--data.train",
                "mgpo.data.Files",
                "--data.train.path",
                value,
                "--data.val",
                "[]",
                "--data.test",
                "[]",
            ]
        else:
            made += [part, value] if part == "--data" else [part]
    if not any(name in (*NAMES, "-h", "--help") for name, _ in options_of(made)):
        made = ["--config", str(shipped_config("mgpo")), *made]
    return made


def overview(config: dict[str, Any], limit: int = 1000, output: str = "runs/data") -> None:
    """Show what training will see: counts, sizes, lengths, what is left out and why; reads no weights.

    Args:
        config: A resolved configuration of `fit`.
        limit: At most so many questions of each source are looked at, chosen at random, always the same.
        output: The folder of overview.json, questions.html (pictures with their questions) and prompts.txt (what the
            model is told).
    """
    if limit < 1:
        raise UserError(f"limit is {limit}; look at 1 question at least")
    policy, dialogue = build(config)
    if not isinstance(policy, Pretrained):
        raise UserError("model.policy is of no family here; prompts can't be counted without its weights")
    sources = sources_of(config["data"])
    policy.load(weights=False)
    report: dict[str, list[Summary]] = {}
    first: list[Fact] = []
    for stage, source in sources:
        reply = config["model"]["sampling" if stage == "train" else "eval_sampling"]["max_new_tokens"]
        facts = look(policy, dialogue, source, limit, reply)
        report.setdefault(stage, []).append(summarise(policy, source, facts))
        first = first or facts
        Console().print(*format_summary(stage, report[stage][-1]), sep="\n")
    folder = Path(output)
    told = [conversation(policy, dialogue, fact) for fact in some(first, CONVERSATIONS) if fact.size is not None]
    write_json(folder / "overview.json", report)
    write_text(folder / "prompts.txt", f"\n{'=' * 80}\n".join(told))
    write_sheet(folder / "questions.html", first, f"Questions of data.{sources[0][0]}")
    if told:
        print(f"\nthe first question's conversation:\n\n{told[0]}")
    print(f"pictures with their questions: {folder / 'questions.html'}; more conversations: {folder / 'prompts.txt'}")


def sources_of(data: dict[str, Any]) -> list[tuple[str, Source]]:
    """The sources of a configuration, each with the stage that it is for. Raises DataError where there are none."""
    given = {"train": data.get("train"), **{stage: data.get(stage) or [] for stage in STAGES[1:]}}
    parts = made_from(given, train=Source | None, val=list[Source], test=list[Source])
    found = [("train", parts.train)] if parts.train is not None else []
    found += [(stage, source) for stage in STAGES[1:] for source in parts[stage]]
    if not found:
        raise DataError("data.train: name a source of training questions")
    return found


def format_summary(stage: str, summary: Summary) -> list[Table | str]:
    """Lines and tables on one source, as the terminal shows them from top to bottom."""
    lengths, looked = summary["prompt_tokens"], summary["looked_at"]
    share = "" if looked == summary["questions"] else f", of which {looked:,} were looked at"
    head = f"\ndata.{stage}: {summary['questions']:,} questions{share}"
    rows = Table("", *(_right(name) for name in ("least", "median", "most")))
    several = (summary["pictures"]["a_question"] or {}).get("max", 1) > 1
    spreads = [(UNITS[key], summary["pictures"][key]) for key in UNITS if several or key != "a_question"]
    spreads += [("choices", summary["choices"]), ("prompt tokens", lengths if "min" in lengths else None)]
    for name, found in spreads:
        if found is not None:
            rows.add_row(name, *(f"{found[key]:,g}" for key in ("min", "median", "max")))
    notes = [_plain(note) for note in summary["notes"]]
    return [head, _counts(summary), rows, _limits(lengths), *notes, *_left_out(summary)]


def _counts(summary: Summary) -> Table:
    table = Table("questions by", _long(""), _right("n"))
    fields = {"split": "by_split", "source": "by_source", "category": "by_category", "answer": "answers"}
    for title, key in fields.items():
        counts = {name: n for name, n in summary[key].items() if name}
        for i, (name, n) in enumerate(list(counts.items())[:LINES]):
            table.add_row("" if i else title, _plain(name), f"{n:,}")
        if len(counts) > LINES:
            table.add_row("", f"and {len(counts) - LINES:,} more", f"{sum(list(counts.values())[LINES:]):,}")
    return table


def _limits(lengths: Summary) -> str:
    limit, positions = lengths["max_prompt_tokens"], lengths["positions"]
    said = []
    if limit:
        said.append(f"{lengths['above_max_prompt_tokens']:,} are above policy.max_prompt_tokens ({limit:,})")
    if positions:
        said.append(f"{lengths['beyond_positions']:,} leave no room for a reply in the model's {positions:,} positions")
    return f"prompts: {'; '.join(said)}" if said else ""


def _left_out(summary: Summary) -> list[Table | str]:
    """What is left out and why, with the first row of each reason; and what else the source says."""
    if not summary["left_out"]:
        return ["nothing is left out"]
    table = Table(_long("left out, because"), _right("n"), _long("such as"))
    kinds = list(summary["left_out"].items())
    for kind, found in kinds[:LINES]:
        table.add_row(_plain(kind), f"{found['count']:,}", _plain(found["examples"][0]))
    return [table, f"and for {len(kinds) - LINES} other reasons, in overview.json"] if kinds[LINES:] else [table]


def _plain(text: str) -> str:
    return escape(shorten(printable(text).replace("\n", " "), 160))


def _long(name: str) -> Column:
    """Of texts that may be longer than a line, and have no blanks: paths, ids."""
    return Column(name, overflow="fold")


def _right(name: str) -> Column:
    return Column(name, justify="right", no_wrap=True)
