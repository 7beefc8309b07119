"""Why answers were wrong, as far as can be told without knowing the right place."""

from collections.abc import Sequence

from mgpo.metrics.record import Record

NO_BOX = "no usable box"
ELSEWHERE = "the part alone does not answer the question"
MISREAD = "the part alone answers it, the dialogue did not"
NO_LOOK = "answered without a look"


def failures(records: Sequence[Record]) -> dict[str, list[Record]]:
    """The wrong answers by kind, in the order in which an episode can go wrong."""
    kinds: dict[str, list[Record]] = {NO_BOX: [], ELSEWHERE: [], MISREAD: [], NO_LOOK: []}
    for record in records:
        if not record.right:
            kinds[_kind(record)].append(record)
    return kinds


def _kind(record: Record) -> str:
    if record.valid_box is None:
        return NO_LOOK
    if not record.valid_box:
        return NO_BOX
    return MISREAD if record.subimage_right else ELSEWHERE
