"""Names that configurations and curves of earlier runs have, and those of today."""

from typing import Any

MODULES = {  # in front of a class
    "mgpo.policy.qwen2_5_vl.": "mgpo.policy.",
    "mgpo.policy.qwen3_vl.": "mgpo.policy.",
    "mgpo.policy.qwen3_5.": "mgpo.policy.",
    "mgpo.policy.gemma3.": "mgpo.policy.",
    "mgpo.policy.lora.": "mgpo.policy.",
    "mgpo.data.scenes.": "mgpo.data.",
    "mgpo.data.files.": "mgpo.data.",
    "mgpo.extras.": "mgpo.rewards.",
    "mgpo.sampler.": "mgpo.rollout.",
    "mgpo.metrics_file.": "mgpo.callbacks.",
    "mgpo.sharding.": "mgpo.distributed.",
    "mgpo.boxes.": "mgpo.images.",
    "mgpo.callbacks.gallery.": "mgpo.callbacks.",
    "mgpo.callbacks.counterfactuals.": "mgpo.callbacks.",
    "mgpo.callbacks.report.": "mgpo.callbacks.",
}
SAVER = "lightning.pytorch.callbacks.ModelCheckpoint"  # which saved last.ckpt
KEYS = {  # by the part of a configuration that holds them
    "model": {
        "extras": "shaping",
        "silent_groups": "constant_reward_groups",
        "refill_batches": "resample_batches",
    },
    "limits": {"silent_window": "constant_window", "silent_share": "constant_share"},
}
CURVES = {  # of training
    "right": "accuracy",
    "valid_box": "valid_box_ratio",
    "clipped_box": "clipped_box_ratio",
    "zoom": "zoom_factor",
    "area": "crop_area_share",
    "fallback": "fallback_rate",
}
OF_GROUPS = ("pass", "majority")  # curves of training whose names have the group's size behind them
VALUES = {("silent_groups", "refill"): "resample"}


def under_present_names(loaded: Any) -> Any:
    """A loaded configuration with the names of today, in class paths and in the parts that `KEYS` names."""
    if isinstance(loaded, list):
        return [under_present_names(value) for value in loaded]
    if not isinstance(loaded, dict):
        return loaded
    present = {key: under_present_names(value) for key, value in loaded.items()}
    if isinstance(path := present.get("class_path"), str):
        moved = (new + path.removeprefix(old) for old, new in MODULES.items() if path.startswith(old))
        present["class_path"] = next(moved, path)
        made = present.get("init_args") or {}
        if path == SAVER and made.get("filename") == "last" and not made.get("monitor"):
            present["class_path"] = "mgpo.callbacks.LastCheckpoint"
    for part, names in KEYS.items():
        if isinstance(held := present.get(part), dict):
            present[part] = {names.get(key, key): _value(key, value) for key, value in held.items()}
    return present


def present_curve(name: str, group_size: int | None = None) -> str:
    """A curve's name of today, for one of an earlier run, such as train/zoom_factor for train/zoom.

    Without the size of that run's groups train/pass and train/majority keep theirs.
    """
    part, _, curve = name.rpartition("/")
    if part not in ("", "train"):
        return name
    if curve in OF_GROUPS and group_size is not None:
        curve = f"{curve}@{group_size}"
    return f"{part}/{CURVES.get(curve, curve)}".lstrip("/")


def _value(key: Any, value: Any) -> Any:
    return VALUES.get((key, value), value) if isinstance(value, str) else value
