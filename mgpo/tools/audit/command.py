"""`python -m mgpo audit`: whether a model's answers rest on its crops."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
from tqdm import tqdm

from mgpo.data.base import Source, question_of
from mgpo.data.unlabelled import unlabelled_questions
from mgpo.dialogues import Dialogue
from mgpo.errors import UserError
from mgpo.evaluation.audit import Audited, add_margins, audit_batch
from mgpo.evaluation.audit_summary import Row, row_of, summarise
from mgpo.inference.base import AskedModel
from mgpo.inference.loading import ADDRESSES, EMBEDDED_CONFIG, load_with
from mgpo.inference.local import Model
from mgpo.inference.predict import Opened, opened_ahead
from mgpo.policy.families.qwen2_5_vl import EMBEDDED
from mgpo.policy.hub.checkpoint_files import check_place
from mgpo.rewards import ExactAnswer, Reward, as_reward
from mgpo.rollout.in_process import Sampling
from mgpo.tools.audit.audit_cards import Cards
from mgpo.tools.audit.audit_table import format_audit
from mgpo.tools.audit.marks import covered
from mgpo.tools.overview.command import sources_of
from mgpo.types import Question
from mgpo.utils.atomic_files import check_output, write_json
from mgpo.utils.configurations import load_file, shipped_config

Left = dict[str, str]  # split, id, why


def audit(
    model: str = EMBEDDED,
    data: str | None = None,
    source: Source | None = None,
    limit: int | None = None,
    output: str = "runs/audit",
    options: dict[str, Any] | None = None,
    dialogue: Dialogue | None = None,
    reward: Reward | str | None = None,
    columns: dict[str, str] | None = None,
    images: str | None = None,
    index_base: Literal[0, 1] | None = None,
    rollouts: int = 4,
    batch_size: int = 16,
    threads: int = 1,
    seed: int = 0,
) -> None:
    """Ask every question greedily, then again with its crop changed in a dozen ways, and say what that costs.

    Args:
        model: "embedded", a run's folder, an export, a checkpoint of transformers, or the address of a server.
        data: A file of questions with their answers, as `predict` takes it.
        source: Questions by class path, in place of `data`; without both, a run's own validation questions.
        limit: At most so many questions of each source, the first.
        output: The folder of audit.json (everything by question) and audit.html (tables, and pictures of each kind).
        options: Of the model, such as dtype or max_pixels; of a server: model, frame, parallel, api_key_env, …
        dialogue: What is said in each turn; by default the model's own.
        reward: Judges the answers; by default whether they are exactly right.
        columns: What columns are called in the data, such as {question: problem}.
        images: The folder of the images; by default where the data are.
        index_base: 0 or 1, the first choice's number, where answers are numbers that count choices.
        rollouts: Drawn for each question, to find a part that answers otherwise.
        batch_size: Questions that are answered side by side.
        threads: Torch threads on the CPU; for the embedded model one is best.
        seed: Of the rollouts that are drawn.
    """
    if min(batch_size, threads, rollouts) < 1 or (limit is not None and limit < 1):
        raise UserError("--batch_size, --threads, --rollouts and --limit are at least 1")
    if data is not None and source is not None:
        raise UserError("--data names a file of questions and --source a class of them; give one of the two")
    check_output(Path(output) / "audit.json")
    torch.set_num_threads(threads)
    judges = as_reward(reward or ExactAnswer())
    read = None if data is None else unlabelled_questions(data, None, columns, images, index_base)
    asked, left_out = questions(model, read, source, limit)
    unknown = len(left_out)
    loaded = load_with(model, dialogue, options)
    rows, cards = list[Row](), Cards()
    batches = [asked[start : start + batch_size] for start in range(0, len(asked), batch_size)]
    done = 0
    try:
        with tqdm(total=len(asked), unit=" questions", smoothing=0.1) as progress:
            for batch in opened_ahead(batches, loaded.resolution.full):
                for one in played(loaded, batch, judges, rollouts, seed, left_out):
                    row = row_of(one)
                    row["covered"] = covered(one.trajectory.question, row["regions"])
                    cards.offer(one, row)
                    rows.append(row)
                progress.update(len(batch))
                done += len(batch)
    finally:  # hours, with a large model
        if rows:
            write(Path(output), loaded, rows, left_out, cards, len(asked))
        if done < len(asked):
            print(f"broken off: {done} of {len(asked)} questions were asked")
    if not rows:
        why = left_out[unknown]["why"]
        raise UserError(f"none of the {len(asked)} questions could be played, the first because {why}")


def questions(
    model: str, read: Sequence[Question] | None, source: Source | None, limit: int | None
) -> tuple[list[Question], list[Left]]:
    """What is asked, and which questions are left out because their answer is not known.

    Raises:
        UserError: Where no question with an answer is named.
    """
    given: Any = read if read is not None else source
    sources: Sequence[Any] = [given] if given is not None else validation_sources(model)
    found = [question_of(one, i) for one in sources for i in range(len(one) if limit is None else min(limit, len(one)))]
    known = [question for question in found if question.answer]
    if not known:
        raise UserError("none of the questions has an answer, so nothing can be right or wrong; add a column answer")
    unknown = [{"split": q.split, "id": q.id, "why": "its answer is not known"} for q in found if not q.answer]
    return known, unknown


def validation_sources(model: str) -> list[Source]:
    """Those of the configuration of a run, or of the embedded model. Raises UserError where there are none."""
    if model != EMBEDDED and not model.startswith(ADDRESSES):
        check_place(model)
    config = shipped_config(EMBEDDED_CONFIG) if model == EMBEDDED else Path(model) / "config.yaml"
    loaded = load_file(str(config)) if config.is_file() else {}
    named = (loaded.get("data") or {}).get("val")
    if not named:
        why = "" if Path(model).exists() else ", for there is no such folder here"
        raise UserError(f"{model} brings no validation questions{why}; name some with --data FILE or --source CLASS")
    return [source for _, source in sources_of({"val": named})]


def played(
    model: AskedModel, batch: Sequence[Opened], reward: Reward, rollouts: int, seed: int, left_out: list[Left]
) -> list[Audited]:
    """A batch in every kind; what can't be played goes into `left_out`."""

    def leave_out(question: Question, why: str) -> None:
        left_out.append({"split": question.split, "id": question.id, "why": why})

    for question, images, why in batch:
        if not images:
            leave_out(question, why)
    samples = [(question, *images) for question, images, _ in batch if images]
    if not samples:
        return []
    sampling = Sampling(model.max_new_tokens, 0.0)
    audited = audit_batch(
        model.play, model.resolution, model.dialogue, samples, sampling, reward, seed,
        rollouts=rollouts, leave_out=leave_out,
    )  # fmt: skip
    if isinstance(model, Model):
        add_margins(model.policy, audited, model.answer_form)
    return audited


def write(folder: Path, model: AskedModel, rows: list[Row], left_out: list[Left], cards: Cards, asked: int) -> None:
    """Write audit.json and audit.html, and print the tables; `asked` is how many questions there were to be asked."""
    summary = summarise(rows)
    tables = format_audit(summary)
    whole = {"model": model.identity(), "asked": asked, **summary, "not_played": left_out, "questions": rows}
    write_json(folder / "audit.json", whole)
    cards.write(folder / "audit.html", f"{len(rows)} questions", format_audit(summary, 120))
    print(f"\n{tables}")
    for left in islice(left_out, 1):
        print(f"not played: {len(left_out)} questions; the first, {left['id']}, because {left['why']}")
    print(f"audit: {folder / 'audit.json'}; pictures: {folder / 'audit.html'}")
