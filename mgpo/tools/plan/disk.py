"""What a run may come to on disk: checkpoints, rollouts, the page."""

from typing import Any

from mgpo.callbacks.rollout_log import KEEP_GB
from mgpo.gallery.data import BUDGET
from mgpo.tools.plan.launch import GB, Launch
from mgpo.tools.plan.memory import trained_parameters
from mgpo.tools.plan.shape import Shape

SAVERS = ("ModelCheckpoint", "LastCheckpoint")


def disk(trainer: dict[str, Any], shape: Shape, launch: Launch) -> dict[str, Any]:
    """Bytes of a checkpoint, how many are kept (None: all), and the most that rollouts and page may take."""
    callbacks = {}
    given = trainer["callbacks"] or ()
    for callback in given if isinstance(given, list | tuple) else [given]:
        callbacks.setdefault(callback["class_path"].rsplit(".", 1)[-1], []).append(callback.get("init_args") or {})
    savers = [saver for name in SAVERS for saver in callbacks.get(name, ())]
    savers = savers or ([{}] if trainer["enable_checkpointing"] is not False else [])
    kept = [saver.get("save_top_k", 1) for saver in savers]
    value = launch.gradient if launch.lora else launch.weight
    copies = 2 if launch.teacher else 1  # of what is trained
    logs = [options.get("keep_gb", KEEP_GB) for options in callbacks.get("RolloutLog", ())]
    return {
        "checkpoint": int((copies * value + launch.state) * trained_parameters(shape, launch)),
        "kept": None if -1 in kept else sum(kept) + sum(bool(saver.get("save_last")) for saver in savers),
        "rollouts": int(GB * sum(logs)),
        "page": BUDGET * len(callbacks.get("GroundingGallery", ())),
    }


def format_disk(needed: dict[str, Any]) -> str:
    """One sentence on the disk's room that a run may take: checkpoints, rollouts and the gallery's page."""
    size = f"{needed['checkpoint'] / GB:.3g} GB"
    many = (
        f"every checkpoint is kept, {size} each"
        if needed["kept"] is None
        else f"{needed['kept']} checkpoints of {size}"
    )
    parts = {"rollouts": "rollouts of at most {:g} GB", "page": "a gallery page of at most {:g} GB"}
    more = [text.format(needed[name] / GB) for name, text in parts.items() if needed[name]]
    return f"Disk: {', '.join([many, *more])}; one more checkpoint while one is written."
