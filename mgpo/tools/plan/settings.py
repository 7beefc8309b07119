"""From the keys of a `fit` configuration to a launch in numbers."""

from pathlib import Path
from typing import Any

import torch

from mgpo.dialogues import Dialogue, TwoTurn, answer_only
from mgpo.errors import UserError
from mgpo.policy import liger
from mgpo.policy.base import Policy
from mgpo.policy.hub.adapters import read_adapters
from mgpo.tools.plan.launch import Devices, Engine, Launch, Program
from mgpo.tools.plan.lengths import QUESTION, converse, counter, look
from mgpo.tools.plan.passes import FLOAT
from mgpo.tools.plan.shape import Shape
from mgpo.training.loop_settings import SHARDED, check_strategy
from mgpo.training.self_teacher import SelfTeacher
from mgpo.utils.atomic_files import parse_json
from mgpo.utils.configurations import made_from
from mgpo.vllm.sampler import is_installed

Settings = dict[str, Any]  # nested, as in the configuration
OWN_CAP = 16384  # image tokens; that of the Qwen families, where neither configuration nor checkpoint say one
HALF = 2  # bytes
ENGINE_SHARE = 0.9  # of a device's memory, where vLLM is told none
REPLY = 512  # tokens that replies are assumed to have, unless something else is said


def build(config: Settings) -> tuple[Policy, Dialogue]:
    """Policy and dialogue of a configuration, with the adapters that it goes on from; no weights are read."""
    given = {"policy": config["model"]["policy"], "dialogue": config["model"].get("dialogue")}
    parts = made_from(given, policy=Policy, dialogue=Dialogue | None)
    start = getattr(parts.policy, "start", None)
    if start is not None and Path(start).is_dir() and (adapters := read_adapters(start)) is not None:
        parts.policy.lora = adapters.lora
    return parts.policy, parts.dialogue or (answer_only() if config["model"].get("teacher") else TwoTurn())


def teacher_of(model: Settings) -> SelfTeacher | None:
    """The teacher of a configuration's model, which has no weights yet."""
    return made_from({"teacher": model.get("teacher")}, teacher=SelfTeacher | None).teacher


def read(
    config: Settings,
    policy: Any,
    dialogue: Dialogue,
    shape: Shape,
    reply: int | None,
    memory: int = 0,
    pictures: int = 1,
) -> Launch:
    """The launch that a configuration describes, with replies of at most `reply` tokens to questions with so many
    pictures, on devices of `memory` bytes."""
    model, trainer = config["model"], config["trainer"]
    limit = model["sampling"]["max_new_tokens"]
    if reply is not None and reply < 1:
        raise UserError(f"reply is {reply}; a reply has at least 1 token")
    if pictures < 1:
        raise UserError(f"pictures is {pictures}; a question has at least 1")
    options = model["policy"].get("init_args") or {}
    side = shape.patch * shape.merge
    area = side**2
    whole = options.get("max_pixels") or own_cap(policy.path) or OWN_CAP * area
    crop = options.get("crop_max_pixels") or whole
    supervised = model["supervised"]
    host = trainer["accelerator"] == "cpu"
    sampler = None if supervised else model.get("sampler")
    drawn, engine = engine_of(sampler, policy, host)
    weight, value, gradient = types_of(trainer["precision"], policy.dtype.itemsize, policy.lora is not None)
    count, teacher = counter(policy.path), teacher_of(model)
    looked = look(dialogue, count, pictures) if model.get("credit") == "turn" and not supervised else ()
    return Launch(
        said=converse(dialogue, count, pictures),
        whole=shape.image_tokens or whole // area,
        crop=shape.image_tokens or crop // area,
        side=0 if shape.image_tokens else side,
        least=max(1, (options.get("min_pixels") or 0) // area),
        reply=min(limit, reply or REPLY),
        limit=limit,
        questions=config["data"]["batch_size"],
        group=1 if supervised else model["group_size"],
        micro_tokens=model["micro_batch_tokens"],
        mini_batches=model["mini_batches"],
        epochs=model["epochs"],
        weight=weight,
        value=value,
        gradient=gradient,
        state=state_bytes(model["optimizer"], gradient),
        penalised=bool(model["objective"]["kl_weight"]) and not supervised,
        lora=(policy.lora.rank, policy.lora.pattern) if policy.lora else None,
        devices=devices_of(trainer, taught=teacher is not None),
        freeze_vision=policy.freeze_vision,
        nucleus=model["sampling"]["top_p"] < 1,
        checkpointing=float(policy.gradient_checkpointing),
        host=host,
        drawn=drawn,
        engine=engine,
        ahead=bool(options_of(sampler).get("ahead")),
        memory=memory,
        program=program_of(policy, weight, value, fused=not host and liger.is_installed()),
        pictures=pictures,
        looked=looked if any(turn.crops for turn in looked) else (),
        answer=count(model["answer_form"].replace("{answer}", QUESTION.answer)) + 1 if looked else 0,
        teacher=look(teacher.dialogue, count, pictures) if teacher else (),
    )


def engine_of(sampler: Any, policy: Any, host: bool) -> tuple[bool, Engine | None]:
    """Whether vLLM draws rollouts, and what it takes of the trainer's device; on a host nothing is set aside for it."""
    path = sampler if isinstance(sampler, str) else (sampler or {}).get("class_path", "")
    made = options_of(sampler)
    name = path.rsplit(".", 1)[-1]
    if name not in ("VLLMSampler", "ServedVLLMSampler") and not (name == "where_installed" and is_installed()):
        return False, None
    if host or name == "ServedVLLMSampler":
        return True, None
    options = made.get("options") or {}
    kind = getattr(torch, made["dtype"]) if made.get("dtype") else policy.dtype
    weight = kind.itemsize / options.get("tensor_parallel_size", 1)
    return True, Engine(float(options.get("gpu_memory_utilization", ENGINE_SHARE)), weight)


def options_of(named: Any) -> Settings:
    """The arguments of a class that a configuration names, with or without any."""
    return {} if isinstance(named, str) else (named or {}).get("init_args") or {}


def program_of(policy: Any, weight: int, value: int, fused: bool = False) -> Program:
    """How adapters and prompts are computed: `mgpo.policy.lora` merges into float32 alone;
    prompts are shared by the families whose tokens know of each other by plain causal attention."""
    merged = policy.lora is not None and weight == value == FLOAT
    return Program(adapter=weight, merged=merged, shared=type(policy).packs, fused=fused)


def own_cap(path: str) -> int | None:
    """The pixel cap that a local checkpoint's image processor brings, if it says one."""
    file = Path(path) / "preprocessor_config.json"
    try:
        own = parse_json(file.read_bytes()) if file.is_file() else {}
        return own.get("max_pixels") or (own.get("size") or {}).get("longest_edge")
    except (ValueError, AttributeError):
        raise UserError(
            f"{file} can't be read as the settings of an image processor; fetch the checkpoint anew"
        ) from None


def state_bytes(optimizer: Any, value: int) -> float:
    """Bytes of state for a trained weight, by the optimiser's class path; as of Adam where it is unknown."""
    path = optimizer if isinstance(optimizer, str) else (optimizer or {}).get("class_path", "")
    options = options_of(optimizer)
    name = path.rsplit(".", 1)[-1].lower()
    if "paged" in name:
        return 0  # it lies in the host's memory
    if name.startswith("sgd") or name.startswith("rmsprop"):
        values = bool(options.get("momentum")) + name.startswith("rmsprop")
    elif name.startswith("adafactor"):
        values = 0  # rows and columns only
    elif name.startswith(("lion", "adagrad", "muon")):
        values = 1
    else:
        values = 3 if options.get("amsgrad") else 2
    return values * (1 if "8bit" in name else value)


def devices_of(trainer: Settings, taught: bool = False) -> Devices:
    """A trainer's devices and what its strategy keeps. Raises UserError for a strategy that this knows nothing of, and
    for one that can't have a teacher where there is one."""
    count, nodes = _count(trainer["devices"]), int(trainer["num_nodes"])
    strategy = trainer["strategy"]
    name = strategy if isinstance(strategy, str) else strategy["class_path"].rsplit(".", 1)[-1]
    options = options_of(strategy)
    check_strategy(name, taught)
    if name == SHARDED:
        shards = count * nodes // int(options.get("replicas") or 1)
        return Devices(count, nodes, shards=max(1, shards), offload=bool(options.get("cpu_offload")))
    if not name.lower().startswith(("ddp", "auto", "singledevice", "single_device")):
        raise UserError(f"trainer.strategy is {name}; plan knows ddp, configs/fsdp.yaml and a single device")
    return Devices(count, nodes, buckets=count * nodes > 1 and not options.get("gradient_as_bucket_view"))


def types_of(precision: Any, dtype: int, adapters: bool) -> tuple[int, int, int]:
    """Bytes of a weight, of what layers compute, and of a gradient, by trainer.precision and the weights' type.

    "bf16-mixed" casts what goes into a layer, "bf16-true" all weights; otherwise adapters are float32 on any base.
    """
    half, whole = "16" in str(precision), "true" in str(precision)
    weight = HALF if half and whole else dtype
    return weight, HALF if half else weight, FLOAT if adapters and not (half and whole) else weight


def _count(devices: Any) -> int:
    """Devices of a node: a number, a list, or as many as there are here."""
    if isinstance(devices, list):
        return len(devices)
    if str(devices) in ("auto", "-1"):
        return max(1, torch.cuda.device_count())
    return len([part for part in str(devices).split(",") if part.strip()]) if "," in str(devices) else int(devices)
