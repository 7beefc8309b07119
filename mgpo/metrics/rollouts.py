"""What a training step shows of its rollouts."""

from collections.abc import Sequence

from mgpo.metrics import values
from mgpo.records import Record

EPISODE = {
    "reward": values.reward,
    "right": values.right,
    "crop_rate": values.crop,
    "unfinished": values.unfinished,
    "answered": values.answered,
    "cut": values.cut,
    "valid_box": values.valid_box,
    "clipped_box": values.clipped_box,
    "zoom": values.zoom,
    "area": values.area,
    "fallback": values.fallback,
    "turns": values.turns,
}


def rollout_metrics(records: Sequence[Record], group_size: int) -> dict[str, list[float]]:
    """By name the values of the episodes or groups to which they apply; their means are what is shown.

    Of episodes: reward, shares in [0, 1], zoom, and reply lengths in tokens by turn. Of groups, `group_size`
    records next to each other: how far boxes agree, the spread of rewards, whether any rollout is right (`pass`),
    and whether the commonest answer is (`majority`).
    """
    metrics = {name: values.applicable(of, records) for name, of in EPISODE.items()}
    for k in range(max(record.turns for record in records)):
        metrics[f"length_turn{k + 1}"] = [float(r.lengths[k]) for r in records if r.turns > k]
    groups = [records[i : i + group_size] for i in range(0, len(records), group_size)]
    of_groups = {
        "agreement": [values.agreement(group) for group in groups],
        "reward_spread": [values.reward_spread(group) for group in groups],
        "pass": [values.pass_at_k(group, group_size) for group in groups],
        "majority": [values.majority_at_k(group, group_size) for group in groups],
    }
    return metrics | {name: [v for v in found if v is not None] for name, found in of_groups.items()}
