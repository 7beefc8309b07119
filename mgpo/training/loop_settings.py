"""Settings of Lightning's loop without effect here, or with a traceback: the module makes its updates itself."""

import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping
from pydoc import locate
from typing import Any

from mgpo.errors import UserError
from mgpo.utils.own_code import blaming

CLIPPING = "gradients are clipped to model.max_grad_norm"
ACCUMULATING = "an update is over data.batch_size questions, in passes of model.micro_batch_tokens"
OVERFITTING = "name a data.train of few questions, such as one with count, and the same again in data.val"
FLAGS = {  # of the trainer: the values without effect, and what does it here
    "gradient_clip_val": ((None,), CLIPPING),
    "gradient_clip_algorithm": ((None,), CLIPPING),
    "accumulate_grad_batches": ((1,), ACCUMULATING),
    "overfit_batches": ((0, None), OVERFITTING),
}
SHARDED = "FSDP2Strategy"
MOVED = ("last_epoch", "T_cur", "T_i")  # by torch's schedules, besides what begins with an underscore
SET = ("initial_lr", "lr", "weight_decay", "eps")  # of optimisers, of which some keep counters beside them
ANEW = "begin a new run from its weights, with model.policy.init_args.start"
PATIENT = "ReduceLROnPlateau"  # torch's, and Lightning's
AVERAGES = ("EMAWeightAveraging", ".WeightAveraging")
AVERAGED = "it copies a module that is not loaded yet; take StochasticWeightAveraging"
ACCUMULATOR = "GradientAccumulationScheduler"


def check_trainer(trainer: Any, taught: bool) -> None:
    """Raises UserError for a Lightning trainer under which a policy, `taught` by its own copy or not, can't learn."""
    check_strategy(type(trainer.strategy).__name__, taught)
    check_precision(str(trainer.precision))
    if trainer.overfit_batches:
        raise UserError(f"trainer.overfit_batches is {trainer.overfit_batches}; leave it out: {OVERFITTING}")


def check_loop(config: Mapping[str, Any]) -> None:
    """Raises UserError for a configuration of `fit` that asks for what another key does, before anything is loaded."""
    trainer, model = config["trainer"], config["model"]
    for name, (idle, instead) in FLAGS.items():
        if (value := trainer.get(name)) not in idle:
            raise UserError(f"trainer.{name} is {value}; leave it out: {instead}")
    callbacks = trainer.get("callbacks") or ()
    for callback in callbacks if isinstance(callbacks, list | tuple) else [callbacks]:
        kind = str(callback.get("class_path", ""))
        if kind.endswith(ACCUMULATOR):
            raise UserError(f"trainer.callbacks has a {ACCUMULATOR}; leave it out: {ACCUMULATING}")
        if kind.endswith(AVERAGES):
            raise UserError(f"trainer.callbacks has a {kind.rpartition('.')[2]}; {AVERAGED}")
    for key, check in (("optimizer", check_optimizer), ("lr_scheduler", check_scheduler)):
        if hasattr(model.get(key), "get"):  # else it is a function, or nothing
            found = locate(path := str(model[key].get("class_path", "")))
            if inspect.isfunction(found):
                raise UserError(f"model.{key}: {path} is a function and takes no init_args; name it alone, or a class")
            check(found)


def made_optimizers(
    parameters: Iterable[Any], optimizer: Callable[[Any], Any], scheduler: Callable[[Any], Any] | None
) -> Any:
    """What `configure_optimizers` gives Lightning. Raises UserError where it can't be made or doesn't fit the loop."""
    with blaming("model.optimizer"):
        made = optimizer(parameters)
    if not isinstance(made, Mapping) and not (hasattr(made, "param_groups") and callable(getattr(made, "step", None))):
        raise UserError(
            f"model.optimizer gives a {type(made).__name__}, which is no torch.optim.Optimizer whose own __init__ was "
            "called"
        )
    check_optimizer(type(made))
    if scheduler is None:
        return made
    with blaming("model.lr_scheduler"):
        schedule = scheduler(made)
    known = isinstance(schedule, Mapping)  # one of Lightning's own forms
    if not known and not (hasattr(schedule, "optimizer") and callable(getattr(schedule, "step", None))):
        raise UserError(
            f"model.lr_scheduler gives a {type(schedule).__name__}, which is no torch.optim.lr_scheduler.LRScheduler "
            "whose own __init__ was called"
        )
    check_scheduler(type(schedule))
    return {"optimizer": made, "lr_scheduler": schedule}


def check_gone_on(checkpoint: Mapping[str, Any], made: Any) -> None:
    """Raises UserError where a checkpoint's optimiser or schedule is of another kind than the one `made` here.

    Warns of settings in which they differ: PyTorch goes on with the checkpoint's and says nothing.
    """
    optimizer, schedule = (made["optimizer"], made["lr_scheduler"]) if isinstance(made, dict) else (made, None)
    try:
        group, states = dict(checkpoint["optimizer_states"][0]["param_groups"][0]), list(checkpoint["lr_schedulers"])
        state = dict(states[0]) if states else {}
    except (LookupError, TypeError, ValueError):
        raise UserError(f"the checkpoint does not say how its optimiser was set; {ANEW}") from None
    pairs = [("model.optimizer", group, optimizer.param_groups[0])]
    if schedule is None or type(schedule).__module__.startswith("torch."):  # nobody knows what moves in others
        pairs.insert(0, ("model.lr_scheduler", state, schedule.state_dict() if schedule else {}))
    for what, there, here in pairs:
        moved = (*MOVED, "lr") if "initial_lr" in here else MOVED
        same = [key for key in here if key in there and key not in moved and not key.startswith("_")]
        same = [key for key in same if key in SET] if what == "model.optimizer" else same
        plain = [key for key in same if isinstance(here[key], int | float) and isinstance(there[key], int | float)]
        if bool(here) != bool(there) or (here.keys() - there.keys() and there.keys() - here.keys()):
            raise UserError(f"the checkpoint's {what} is of another kind; leave it as it was, or {ANEW}")
        if others := [key for key in plain if here[key] != there[key]]:
            name, old, new = others[0].removeprefix("initial_"), there[others[0]], here[others[0]]
            warnings.warn(
                f"{what} goes on with the checkpoint's {name} {old}, not {new}; for that, {ANEW}", stacklevel=2
            )


def check_optimizer(kind: Any) -> None:
    """Raises UserError for a class of optimisers whose step computes the loss anew: here passes sum it before."""
    step = getattr(kind, "step", None)
    closure = inspect.signature(step).parameters.get("closure") if step is not None else None
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise UserError(
            f"model.optimizer is {kind.__name__}, which computes the loss several times in a step, but here it is "
            "computed once; take another, such as torch.optim.AdamW"
        )


def check_scheduler(kind: Any) -> None:
    """Raises UserError for a class, or its path, of schedules that wait for a metric: these here go by updates."""
    names = [base.__name__ for base in kind.__mro__] if isinstance(kind, type) else [str(kind).rpartition(".")[2]]
    if PATIENT in names:
        raise UserError(
            f"model.lr_scheduler is {names[0]}, which waits for a metric, but a schedule here goes by optimiser "
            "updates; take another, such as torch.optim.lr_scheduler.CosineAnnealingLR"
        )


def check_strategy(name: str, taught: bool = False) -> None:
    """Raises UserError for the name of a strategy that cuts weights over devices and knows nothing of policies, or for
    any that does where the policy is `taught` by a copy of itself."""
    other = any(kind in name.lower().replace("_", "") for kind in ("fsdp", "modelparallel", "deepspeed"))
    if other and name.rsplit(".", 1)[-1] != SHARDED:
        raise UserError(f"trainer.strategy is {name}; sharded training here is --config configs/fsdp.yaml")
    if taught and other:
        raise UserError("model.teacher keeps a whole copy of the policy on every device; take trainer.strategy ddp")


def check_accelerator(kind: Any) -> None:
    """Raises UserError for a trainer.accelerator that asks for a GPU where torch sees none."""
    import torch  # the only check that needs it; others are made before it is there

    if kind in ("gpu", "cuda") and not torch.cuda.is_available() and not torch.backends.mps.is_available():
        raise UserError(
            f"trainer.accelerator is {kind}, but torch {torch.__version__} sees no GPU on this machine; take cpu, or "
            "install a build of torch for its driver (nvidia-smi tells which)"
        )


def check_precision(name: str) -> None:
    """Raises UserError for a trainer.precision under which a policy would hardly learn, or not at all."""
    if name.startswith("bf16-true"):
        raise UserError(
            "trainer.precision bf16-true rounds most updates away; take bf16-mixed, or 32-true with "
            "model.policy.init_args.dtype bfloat16 and adapters (policy.lora), or to evaluate only that dtype"
        )
    if name.startswith("64"):
        raise UserError(f"trainer.precision is {name}; what is sampled here is float32, so take 32-true, or bf16-mixed")
    if name.startswith(("16", "transformer-engine")):
        raise UserError(f"trainer.precision is {name}; float16 overflows here, so take bf16-mixed, or 32-true")
