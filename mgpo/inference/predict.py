"""`python -m mgpo predict`: ask a model about many pictures, and go on where it was broken off."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch

from mgpo.data.unlabelled import unlabelled_questions
from mgpo.dialogues import Dialogue
from mgpo.errors import UserError
from mgpo.images.decoding import BadImage, is_file
from mgpo.images.lazy import open_all
from mgpo.images.views import Original, Resize
from mgpo.inference.base import AskedModel, picked, refusal
from mgpo.inference.class_paths import settings_of
from mgpo.inference.loading import load_with
from mgpo.inference.prediction_file import LOCK, Predictions
from mgpo.monitoring.terminal import Board
from mgpo.rewards import ExactAnswer, verdict_of
from mgpo.types import Question, Trajectory
from mgpo.utils.atomic_files import locked
from mgpo.utils.terminal_tables import printable

Opened = tuple[Question, tuple[Original, ...], str]  # with the reason where a picture can't be had, and so none
Row = dict[str, Any]
SHOWN = 400  # characters of an error
TOLD = 5  # questions whose answers are shown, and not counted only


def predict(
    data: str,
    output: str = "predictions.jsonl",
    question: str | None = None,
    model: str = "embedded",
    options: dict[str, Any] | None = None,
    dialogue: Dialogue | None = None,
    batch_size: int = 16,
    threads: int = 1,
    columns: dict[str, str] | None = None,
    images: str | None = None,
    index_base: Literal[0, 1] | None = None,
) -> None:
    """Answer questions about pictures, one row of JSON a question, in their order.

    Started again after a kill, it goes on where it was. A picture that can't be opened, and a question that a
    server fails on, has a row with `error`, and is asked again when this is started again.

    Args:
        data: A picture, a folder of pictures, or whatever `mgpo.data.Files` reads, such as a .jsonl file with the
            columns image, question and, where wanted, choices, answer, id; images are paths relative to it.
        output: The file of rows; beside it lies one that says what they came from.
        question: What to ask of each picture in a folder, or of rows without a question.
        model: "embedded", a run's folder, an export, a checkpoint of transformers, or the address of a server.
        options: Of the model, such as dtype or max_pixels; of a server: model, frame, parallel, api_key_env, …
        dialogue: What is said in each turn; by default the model's own.
        batch_size: Questions that are answered side by side, and rows that are written at a time.
        threads: Torch threads on the CPU; for the embedded model one is best.
        columns: What columns are called in the data, such as {question: problem}.
        images: The folder of the images; by default where the data are.
        index_base: 0 or 1, the first choice's number, where answers are numbers that count choices.
    """
    if min(batch_size, threads) < 1:
        raise UserError("--batch_size and --threads are at least 1")
    torch.set_num_threads(threads)
    questions = unlabelled_questions(data, question, columns, images, index_base)
    loaded = load_with(model, dialogue, options)
    with locked(Path(output + LOCK), output, "name another --output"):
        predictions = Predictions(Path(output), _origin(questions, loaded))
        done = predictions.done
        todo = [q for q in questions if q.id not in done]
        batches = [todo[start : start + batch_size] for start in range(0, len(todo), batch_size)]
        with _progress(len(questions), len(done), batches) as answered:
            for batch in opened_ahead(batches, loaded.resolution.full):
                predictions.append(answer(loaded, batch))
                answered(len(batch))
        predictions.put_in_order([q.id for q in questions])
    if len(questions) <= TOLD:
        print(*(_told(row) for row in predictions.rows), sep="\n")
    print(_closing(predictions))
    if all("error" in row for row in predictions.rows):
        raise UserError(
            f"none of the {len(questions)} questions was answered, the first because: "
            f"{predictions.rows[0]['error'][:SHOWN]}; mend that and start again, which asks them again"
        )


def answer(model: AskedModel, batch: Sequence[Opened]) -> list[Row]:
    """Play the questions of a batch whose pictures could be opened, and give a row for each question, in order."""
    samples = [(question, *images) for question, images, _ in batch if images]
    played = iter(model.answers(samples) if samples else [])
    return [row_of(question, next(played) if images else None, why) for question, images, why in batch]


def row_of(question: Question, trajectory: Trajectory | None, why: str = "") -> Row:
    """What is written about a question: how it was answered, or why it was not."""
    paths = [getattr(picture, "path", None) for picture in question.pictures]
    row: Row = {"id": question.id, "image": paths[0], "question": question.text}
    row |= {"images": paths} if question.others else {}
    row |= {"choices": question.choices} if question.choices else {}
    failed = why if trajectory is None else trajectory.failed or _lost_in_thought(trajectory)
    if trajectory is None or failed is not None:
        return row | {"error": failed}
    logprobs = [logprob for turn in trajectory.turns for logprob in turn.reply.logprobs]
    row |= {
        "answer": picked(trajectory.answer, question.choices),
        "boxes": [turn.named for turn in trajectory.turns],  # by turn, in pixels of the original
        "refused": [refusal(turn) for turn in trajectory.turns],  # why the box could not be used
        "regions": [view.region for view in trajectory.crops],
        **(_in_which(trajectory) if question.others else {}),
        "replies": [turn.text for turn in trajectory.turns],
        "turns": len(trajectory.turns),
        "logprob": math.fsum(logprobs) if logprobs else None,
    }
    if question.answer:
        row |= {"truth": question.answer, "right": verdict_of(ExactAnswer(), trajectory.answer, question).right}
    return row


def _in_which(trajectory: Trajectory) -> Row:
    """The numbers of the pictures that boxes, by turn, and regions are in."""
    return {
        "box_pictures": [None if turn.named is None else turn.picture for turn in trajectory.turns],
        "region_pictures": [view.picture + 1 for view in trajectory.crops],
    }


def _lost_in_thought(trajectory: Trajectory) -> str | None:
    """Why there is no answer, where the limit fell into a thought."""
    if trajectory.answer is not None:
        return None
    last = trajectory.turns[-1]
    if last.reply.stop != "length" or last.said.strip() or not last.text.strip():
        return None
    return (
        f"the reply was cut at {len(last.reply.ids)} tokens, in the middle of the model's thoughts; "
        "raise max_new_tokens with --options"
    )


def opened_ahead(batches: Sequence[Sequence[Question]], whole: Resize) -> Iterator[list[Opened]]:
    """Batches with their pictures, the next one's first views made while the model is at work on one."""
    with ThreadPoolExecutor(1) as pool:
        coming: Future[list[Opened]] | None = None
        for batch in [*batches, None]:
            ready, coming = (
                coming,
                None if batch is None else pool.submit(lambda b: [_open(q, whole) for q in b], batch),
            )
            if ready is not None:
                yield ready.result()


def _open(question: Question, whole: Resize) -> Opened:
    try:
        return question, open_all(question.pictures, whole), ""
    except BadImage as error:
        return question, (), str(error)


def _origin(questions: Sequence[Question], model: AskedModel) -> dict[str, Any]:
    rows = [(q.id, q.text, q.choices, q.answer, *_files(q)) for q in questions]
    told = {"dialogue": settings_of(model.dialogue), "limit of tokens": model.max_new_tokens}
    return {"input": rows, "model": model.identity(), **told}


def _files(question: Question) -> Iterator[str | int | None]:
    """The path and the size of each picture's file."""
    for picture in question.pictures:
        file = Path(getattr(picture, "path", ""))
        yield from (str(file), file.stat().st_size if is_file(file) else None)


@contextmanager
def _progress(questions: int, done: int, batches: Sequence[Any]) -> Iterator[Callable[[int], None]]:
    """Takes how many more are answered; where all are asked at once there is nothing to show."""
    board = Board(max(1, questions // 20))
    board.begin("questions", questions, done)
    if len(batches) > 1:
        board.show()

    def answered(count: int) -> None:
        nonlocal done
        done += count
        if len(batches) > 1 and board.due("questions", done):
            board.advance("questions", done)

    try:
        yield answered
    finally:
        board.hide()


def _told(row: Mapping[str, Any]) -> str:
    """A question's answer, and where the model looked for it, as a person reads it."""
    head = f"{row['image'] or row['id']}: {row['question']}"
    if "error" in row:
        return printable(f"{head}\n  no answer: {row['error'][:SHOWN]}")
    lines = [f"  answer: {row['answer'] or 'none'}"]
    for box, why in zip(row["boxes"], row["refused"]):
        if box is not None:
            lines.append(f"  box: {', '.join(f'{side:.0f}' for side in box)}" + (f" (refused: {why})" if why else ""))
    return printable("\n".join([head, *lines]))


def _closing(predictions: Predictions) -> str:
    rows = predictions.rows
    judged = [bool(row["right"]) for row in rows if "right" in row]
    errors = sum("error" in row for row in rows)
    line = (
        f"predictions: {predictions.path} ({len(rows)} question{'' if len(rows) == 1 else 's'}, {errors} with an error"
    )
    line += f", accuracy {sum(judged) / len(judged):.3f} of {len(judged)})" if judged else ")"
    return line + ("; started again, it asks those once more" if errors else "")
