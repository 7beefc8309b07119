"""What the gallery page shows: each question once, and at every step what its group of rollouts did and saw."""

import copy
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from mgpo.gallery.embed import number, shorten, size_of
from mgpo.gallery.thumbnails import crop_uris, picture_uri
from mgpo.images.boxes import IN_WORDS
from mgpo.images.views import Box
from mgpo.metrics.record import Record, records_of
from mgpo.types import Trajectory

BUDGET = 20_000_000  # bytes of a page
TEXT = 600  # characters of a reply, an answer, a question or a choice
PICTURE = "picture"  # the whole picture's key among a question's images
Entry = dict[str, Any]  # one question, JSON-able


def snapshot(trajectories: Sequence[Trajectory], group_size: int, pictures: bool = True) -> list[Entry]:
    """One JSON-able dict a question, from judged trajectories in which a question's rollouts stand next to each other.

    A group's equal regions are encoded once. Ranks may send these to each other. Without `pictures` the whole
    pictures are left out: of a question that was seen before, the gallery has its own.
    """
    records = records_of(list(trajectories), group_size)
    starts = range(0, len(trajectories), group_size)
    return [_entry(trajectories[i : i + group_size], records[i : i + group_size], pictures) for i in starts]


def _entry(group: Sequence[Trajectory], records: Sequence[Record], picture: bool) -> Entry:
    question, image, first = group[0].question, group[0].image, group[0].views[0]
    last = {region_key(t.crops[-1].region): t.crops[-1] for t in group if t.crops}
    crops = {key: crop_uris(image, first, view) for key, view in last.items()}
    return {
        "id": question.id,
        "split": question.split,
        "category": question.category,
        "text": shorten(question.text, TEXT),
        "choices": [shorten(choice, TEXT) for choice in question.choices],
        "truth": shorten(question.answer, TEXT),
        "size": image.size,
        "seen": first.size,
        "images": {PICTURE: picture_uri(image), **crops} if picture else crops,
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
        "reasons": [turn.parsed_box.reason if turn.parsed_box else None for turn in trajectory.turns],
        "regions": record.regions,
        "zoom": number(record.zoom, 2),
        "replies": [shorten(reply, TEXT) for reply in record.replies],
    }


def _rounded(box: Box) -> list[float | None]:
    return [number(edge, 1) for edge in box]


def region_key(region: Sequence[int]) -> str:
    """Under which the two images of a region stand among a question's; the page makes the same key."""
    return ",".join(map(str, region))


class Gallery:
    """Snapshots of the same questions at several steps.

    Args:
        budget: Bytes of the whole page. What would go beyond is left out: first crops, from the groups' last
            rollouts on, then pictures; replies are shortened until all texts fit into half of it.
    """

    def __init__(self, budget: int = BUDGET) -> None:
        self.budget = budget
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
            if PICTURE in images:  # one page may have had no room for it
                yield entry, PICTURE, images[PICTURE]
        groups = [(entry, images, group) for entry, images in pairs for group in entry["steps"].values()]
        for place in range(max((len(group) for _, _, group in groups), default=0)):
            for entry, images, group in groups:
                regions = group[place]["regions"] if place < len(group) else ()
                key = region_key(regions[-1]) if regions else PICTURE
                if key not in entry["images"] and key in images:
                    yield entry, key, images[key]
