"""`python -m mgpo plan`: what a step of a configuration will cost, and whether it fits."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from mgpo.errors import UserError
from mgpo.tools.plan.advice import Suggestion, advise, filled, spared
from mgpo.tools.plan.disk import disk, format_disk
from mgpo.tools.plan.launch import GB, Launch
from mgpo.tools.plan.memory import Memory, measure, tokens
from mgpo.tools.plan.settings import build, devices_of, read
from mgpo.tools.plan.shape import Shape, measure_shape, read_config
from mgpo.tools.plan.sizes import family_of, published_for
from mgpo.tools.plan.table import format_plan
from mgpo.tools.plan.time import ENGINE, H100, HERE, LINKS, seconds
from mgpo.utils.atomic_files import write_json

SHOWN = (
    "reply",
    "limit",
    "questions",
    "group",
    "micro_tokens",
    "mini_batches",
    "epochs",
    "weight",
    "value",
    "devices",
    "pictures",
    "answer",
)
MACHINES = (1, 8, 32, 64)  # devices for which a step's time is estimated
FREE = 0.95  # of a device; what the driver, kernels and fragmentation take is assumed, not computed


def plan(
    config: dict[str, Any],
    memory: float | None = None,
    model_size: str | None = None,
    reply: int | None = None,
    output: str | None = None,
    pictures: int = 1,
) -> None:
    """Say what a step will cost, whether it fits, and what would make it fit.

    Args:
        config: A resolved configuration of `fit`.
        memory: Gigabytes (10^9 bytes) of one device; those of the one that is here, if there is one.
        model_size: Plan for a published size of the model's family (such as 7b, 30b-a3b) instead of the checkpoint.
        reply: Tokens that each reply is assumed to have; 512 unless given, and never more than the limit.
        output: Also write the plan to this file, as JSON.
        pictures: Pictures that each question is assumed to have.
    """
    policy, dialogue = build(config)
    path: str = getattr(policy, "path", "")
    family = family_of(policy)
    sizes = family.sizes if family else ()
    checkpoint = published_for(policy, model_size) if model_size else read_config(path, sizes)
    if getattr(policy, "kind", None) == "auto":  # which is known once the weights are read
        setattr(policy, "dtype", checkpoint.dtype or torch.bfloat16)  # noqa: B010  # as all published ones are
    shape = measure_shape(checkpoint)
    if memory is None and torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / GB
    if memory is not None and memory <= 0:
        raise UserError(f"memory is {memory}; give the gigabytes of one device, such as 80")
    launch = read(config, policy, dialogue, shape, reply, int((memory or 0) * GB), pictures)
    limit = None if memory is None else int(memory * FREE * GB)
    report = summarise(shape, launch, limit, memory) | {"disk": disk(config["trainer"], shape, launch)}
    if not launch.host:
        report["estimate"] = estimate(shape, launch, config["trainer"])
    if output:
        write_json(Path(output), report, "name another --output")
    tables = format_plan(report, f"{family.name} {model_size}" if family and model_size else path)
    Console(force_jupyter=False).print(*tables, format_disk(report["disk"]), sep="\n")


def summarise(shape: Shape, launch: Launch, limit: int | None, memory: float | None) -> dict[str, Any]:
    """The whole report as a dictionary: lengths in tokens, memory in bytes, by phase and kind."""
    needed, longest = measure(shape, launch), measure(shape, launch, launch.limit)
    fits = None if limit is None else needed.peak <= limit
    sizes = asdict(launch)
    return {
        "model": {"parameters": shape.parameters, "layers": shape.language.layers, "width": shape.language.width},
        "launch": {key: sizes[key] for key in SHOWN},
        "turns": [asdict(turn) for turn in launch.turns()],
        "tokens": {"assumed": tokens(shape, launch), "at_limit": tokens(shape, launch, launch.limit)},
        "memory": {"assumed": _phases(needed), "at_limit": _phases(longest)},
        "device": {"gigabytes": memory, "usable": limit, "fits": fits},
        "filled": filled(shape, launch, limit) if fits and limit else None,
        "spared": spared(shape, launch, limit) if fits and limit else None,
        "suggestions": [
            _suggestion(found) for found in (advise(shape, launch, limit) if limit is not None and not fits else ())
        ],
    }


def estimate(shape: Shape, launch: Launch, trainer: dict[str, Any]) -> dict[str, Any]:
    """The same step, with as many questions in all, on other numbers of devices: seconds by phase, bytes of a device.

    Numbers of devices over which the questions can't be dealt evenly are left out.
    """
    questions = launch.questions * launch.devices.count * launch.devices.nodes
    rows = []
    for count in MACHINES:
        if questions % count == 0:
            nodes = -(-count // H100.node)
            devices = devices_of({**trainer, "devices": count // nodes, "num_nodes": nodes})
            there = replace(launch, questions=questions // count, devices=devices, memory=int(H100.gigabytes * GB))
            phases, peak = seconds(shape, there), measure(shape, there).peak
            fits = peak <= FREE * H100.gigabytes * GB
            rows.append({"devices": count, "questions": there.questions, "seconds": phases, "peak": peak, "fits": fits})
    shares = {"here": asdict(HERE), "engine": asdict(ENGINE) if launch.drawn else None, "links": LINKS}
    return {"device": asdict(H100), "shares": shares, "questions": questions, "machines": rows}


def _phases(needed: Memory) -> dict[str, Any]:
    return {**asdict(needed), "peak": needed.peak}


def _suggestion(found: Suggestion) -> dict[str, Any]:
    return {"keys": found.keys, "peak": found.memory.peak, "memory": asdict(found.memory)}
