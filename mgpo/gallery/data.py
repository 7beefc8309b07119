"""What the gallery page shows: each question once, and at every step what its group of rollouts did and saw."""

import copy
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from mgpo.gallery.html_page import number, shorten, size_of
from mgpo.gallery.thumbnails import crop_uris, picture_uri
from mgpo.images.boxes import IN_WORDS
from mgpo.images.views import Box
from mgpo.metrics.record import Record, records_of
from mgpo.types import Trajectory

BUDGET = 20_000_000  # bytes of a page
TEXT = 600  # characters of a reply, an answer, a question or a choice
PICTURE = "picture"  # the whole picture's key among a question's images; of further ones "picture 2", …
Entry = dict[str, Any]  # one question, JSON-able


def snapshot(
    trajectories: Sequence[Trajectory], group_size: int, unsent: Collection[tuple[str, str]] | None = None
) -> list[Entry]:
    """One JSON-able dict a question, from judged trajectories in which a question's rollouts stand next to each other.

    A group's equal regions are encoded once. Ranks may send these to each other. Whole pictures are those of the
    questions that are `unsent`, by split and id, or of all: of the others the gallery has its own.
    """
    records = records_of(list(trajectories), group_size)
    entries = []
    for i in range(0, len(trajectories), group_size):
        question = trajectories[i].question
        wanted = unsent is None or (question.split, question.id) in unsent
        entries.append(_entry(trajectories[i : i + group_size], records[i : i + group_size], wanted))
    return entries


def _entry(group: Sequence[Trajectory], records: Sequence[Record], picture: bool) -> Entry:
    question, shown = group[0].question, [(group[0].original(whole), whole) for whole in group[0].wholes]
    last = {region_key(view.region, view.picture + 1): view for t in group for view in t.crops[-1:]}
    images: Entry = {key: crop_uris(*shown[view.picture], view) for key, view in last.items()}
    if picture:
        images |= {picture_key(number): picture_uri(image) for number, (image, _) in enumerate(shown, start=1)}
    sizes = [{"size": image.size, "seen": whole.size} for image, whole in shown]
    return {
        "id": question.id,
        "split": question.split,
        "category": question.category,
        "text": shorten(question.text, TEXT),
        "choices": [shorten(choice, TEXT) for choice in question.choices],
        "truth": shorten(question.answer, TEXT),
        **sizes[0],
        **({"others": sizes[1:]} if sizes[1:] else {}),
        "images": images,
        "rollouts": [_rollout(t, record) for t, record in zip(group, records)],
    }


def _rollout(trajectory: Trajectory, record: Record) -> Entry:
    return {
        "answer": None if record.answer is None else shorten(record.answer, TEXT),
        "right": record.right,
        "reward": number(record.reward, 3),
        "valid_box": record.valid_box,
        "reason": record.reason,
        "named": [box and _rounded(box) for box in record.named],
        "named_in": record.named_in,
        "reasons": [turn.parsed_box.reason if turn.parsed_box else None for turn in trajectory.turns],
        "regions": record.regions,
        "cut_from": record.cut_from,
        "zoom": number(record.zoom, 2),
        "replies": [shorten(reply, TEXT) for reply in record.replies],
    }


def _rounded(box: Box) -> list[float | None]:
    return [number(edge, 1) for edge in box]


def picture_key(number: int) -> str:
    """Under which a whole picture stands among a question's images; the page makes the same key."""
    return PICTURE if number == 1 else f"{PICTURE} {number}"


def region_key(region: Sequence[int], number: int = 1) -> str:
    """Under which the two images of a picture's region stand among a question's; the page makes the same key."""
    return ",".join(map(str, region)) + ("" if number == 1 else f" of {number}")


def crop_key(rollout: Entry) -> str | None:
    """The key of what a rollout was shown last; None where nothing was cut out."""
    if not rollout["regions"]:
        return None
    return region_key(rollout["regions"][-1], rollout["cut_from"][-1])


def first_box(rollout: Entry) -> tuple[int, int] | None:
    """The turn in which a rollout named its first box, and the number of the picture that it is in."""
    turn = next((turn for turn, box in enumerate(rollout["named"]) if box), None)
    return None if turn is None else (turn, rollout["named_in"][turn])


def shown_picture(question: Entry, rollouts: Sequence[Entry]) -> tuple[int, tuple[int, int]]:
    """Of a question's pictures the one that its rollouts' first box is in: its number and its size."""
    number = next((found[1] for found in map(first_box, rollouts) if found), 1)
    return number, (question if number == 1 else question["others"][number - 2])["size"]


class Gallery:
    """Snapshots of the same questions at several steps.

    What would go beyond the budget of the page is left out: first crops, from the groups' last rollouts on, then
    pictures; replies are shortened until all texts fit into half of it.
    """

    budget = BUDGET

    def __init__(self) -> None:
        self.steps: set[int] = set()
        self.entries: dict[tuple[str, str], Entry] = {}

    def __bool__(self) -> bool:
        return bool(self.entries)

    def add(self, step: int, trajectories: Sequence[Trajectory], group_size: int) -> None:
        """Take in a step's rollouts of this process, whole groups of `group_size`."""
        self.merge(step, [snapshot(trajectories, group_size)])

    def merge(self, step: int, parts: Iterable[Sequence[Entry]]) -> list[Entry]:
        """What happened at a step: every rank's snapshot; they come back with all images that are known.

        A question that comes again replaces itself.
        """
        self.steps.add(step)
        entries = [entry for part in parts for entry in part]
        for entry in entries:
            asked = {key: value for key, value in entry.items() if key != "rollouts"}
            known = self.entries.setdefault((entry["split"], entry["id"]), {**asked, "steps": {}})
            known["images"] = {**entry["images"], **known["images"]}
            known["steps"][str(step)] = entry["rollouts"]
        return [{**entry, "images": self.entries[entry["split"], entry["id"]]["images"]} for entry in entries]

    def restore(self, document: Entry, before: int) -> None:
        """Take in what a page showed of the steps before `before`."""
        self.steps |= {step for step in document["steps"] if step < before}
        for entry in document["questions"]:
            kept = {step: group for step, group in entry["steps"].items() if int(step) < before}
            self.entries[entry["split"], entry["id"]] = {**entry, "steps": kept}

    def document(self, title: str, room: int) -> Entry:
        """Everything that the page shows, as one JSON-able dict of at most `room` bytes."""
        entries = self._texts(room // 2)
        document = {"title": title, "steps": sorted(self.steps), "reasons": IN_WORDS, "questions": entries}
        left = room - size_of(document)
        for entry, key, image in self._images(entries):
            cost = size_of({key: image})
            if cost <= left:
                left -= cost
                entry["images"][key] = image
        return document

    def _texts(self, room: int) -> list[Entry]:
        """The questions without images, their replies as long as fits."""
        entries = [{**entry, "images": {}} for entry in self.entries.values()]
        limit = TEXT
        while limit > 1 and size_of(entries) > room:
            limit //= 2
            entries = copy.deepcopy(entries)
            for rollout in (r for entry in entries for group in entry["steps"].values() for r in group):
                rollout["replies"] = [shorten(reply, limit) for reply in rollout["replies"]]
        return entries

    def _images(self, entries: list[Entry]) -> Iterator[tuple[Entry, str, Any]]:
        """(where to, key, image): all pictures, then every group's first crop, every group's second, …"""
        pairs = list(zip(entries, (entry["images"] for entry in self.entries.values())))
        for entry, images in pairs:
            for key in map(picture_key, range(1, 2 + len(entry.get("others", ())))):
                if key in images:  # one page may have had no room for it
                    yield entry, key, images[key]
        groups = [(entry, images, group) for entry, images in pairs for group in entry["steps"].values()]
        for place in range(max((len(group) for _, _, group in groups), default=0)):
            for entry, images, group in groups:
                key = crop_key(group[place]) if place < len(group) else None
                if key is not None and key not in entry["images"] and key in images:
                    yield entry, key, images[key]
