"""What `plan` reads of a configuration: types, optimiser states, devices; others' sharding is refused as in `fit`."""

import json

import lightning as L
import pytest
import torch
from lightning.pytorch.strategies import ModelParallelStrategy

from mgpo.cli import main
from mgpo.dialogues import TwoTurn
from mgpo.errors import UserError
from mgpo.inference.local import Model
from mgpo.policy.families.qwen2_5_vl import Qwen25VL
from mgpo.policy.lora import Lora
from mgpo.tools.plan.launch import Devices
from mgpo.tools.plan.settings import devices_of, state_bytes, types_of
from mgpo.training.module import MGPO
from mgpo.utils.configurations import shipped_config
from mgpo.world.model import CAPS


@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("torch.optim.AdamW", {}),
        ("torch.optim.AdamW", {"amsgrad": True}),
        ("torch.optim.SGD", {}),
        ("torch.optim.SGD", {"momentum": 0.9}),
        ("torch.optim.RMSprop", {}),
        ("torch.optim.RMSprop", {"momentum": 0.9}),
        ("torch.optim.Adagrad", {}),
        ("torch.optim.Adafactor", {}),
    ],
)
def test_optimiser_states_are_as_large_as_torch_makes_them(path, options):
    weight = torch.zeros(256, 256, requires_grad=True)
    optimizer = getattr(torch.optim, path.rsplit(".", 1)[1])([weight], lr=0.1, **options)
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    held = sum(value.nbytes for value in optimizer.state[weight].values() if isinstance(value, torch.Tensor))
    predicted = state_bytes({"class_path": path, "init_args": options}, weight.itemsize) * weight.numel()
    assert predicted == pytest.approx(held, abs=0.02 * weight.nbytes)


@pytest.mark.parametrize(
    ("precision", "dtype", "adapters", "types"),
    [
        ("32-true", 4, False, (4, 4, 4)),
        ("32-true", 2, False, (2, 2, 2)),
        ("32-true", 2, True, (2, 2, 4)),
        ("bf16-mixed", 4, False, (4, 2, 4)),
        ("bf16-true", 4, True, (2, 2, 2)),
    ],
)
def test_types_follow_the_precision(precision, dtype, adapters, types):
    assert types_of(precision, dtype, adapters) == types


@pytest.mark.parametrize(
    ("name", "options", "buckets"),
    [("ddp", None, True), ("x.DDPStrategy", {"gradient_as_bucket_view": True}, False), ("auto", None, True)],
)
def test_strategies_keep_what_they_say(name, options, buckets):
    strategy = name if options is None else {"class_path": name, "init_args": options}
    assert devices_of({"devices": 8, "num_nodes": 2, "strategy": strategy}) == Devices(8, 2, buckets)


@pytest.mark.parametrize(("devices", "count"), [("0,", 1), ("0,1", 2), ("2", 2), ([0, 3], 2)])
def test_devices_are_counted_as_lightning_does(devices, count):
    assert devices_of({"devices": devices, "num_nodes": 1, "strategy": "auto"}).count == count


def test_weights_are_as_large_as_the_checkpoint_has_them(tmp_path):
    """Under dtype auto, which is known once it is read, and adapters to go on from are adapters."""
    base = Qwen25VL(**CAPS).load()
    Model(base, TwoTurn()).save(tmp_path / "half", dtype="bfloat16")
    Model(Qwen25VL(**CAPS, lora=Lora(2)).load(), TwoTurn()).save(tmp_path / "adapters", merge=False)

    def planned(**options):
        keys = [f"--model.policy.init_args.{name}={value}" for name, value in options.items()]
        main(["plan", "--config", "mgpo", f"--output={tmp_path / 'plan.json'}", *keys])
        report = json.loads((tmp_path / "plan.json").read_text())
        return report["launch"]["weight"], report["memory"]["assumed"]["peak"]

    half = str(tmp_path / "half")
    auto, same, twice = (planned(path=half, dtype=dtype) for dtype in ("auto", "bfloat16", "float32"))
    assert auto == same and (auto[0], twice[0]) == (2, 4)
    plain, going_on = (planned(**options) for options in ({}, {"start": str(tmp_path / "adapters")}))
    assert going_on[1] < plain[1]


def test_shards_are_as_many_as_a_replica_has_devices():
    strategy = {"class_path": "mgpo.distributed.FSDP2Strategy", "init_args": {"replicas": 2, "cpu_offload": True}}
    found = devices_of({"devices": 8, "num_nodes": 2, "strategy": strategy})
    assert found == Devices(8, 2, buckets=False, shards=8, offload=True)


@pytest.mark.parametrize("command", ["plan", "fit"])
@pytest.mark.parametrize("strategy", ["fsdp_cpu_offload", "lightning.pytorch.strategies.ModelParallelStrategy"])
def test_sharding_that_knows_no_policies_is_refused(command, strategy):
    with pytest.raises(SystemExit, match="sharded training here is --config configs/fsdp") as stop:
        main([command, "--config", str(shipped_config("mgpo")), f"--trainer.strategy={strategy}"])
    assert "\n" not in str(stop.value)


def test_so_it_is_from_python():
    module = MGPO(Qwen25VL())
    module.trainer = L.Trainer(accelerator="cpu", devices=1, strategy=ModelParallelStrategy(), logger=False)
    with pytest.raises(UserError, match="ModelParallelStrategy; sharded training here"):
        module.setup("fit")
