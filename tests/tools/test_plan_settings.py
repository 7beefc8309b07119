"""What `plan` reads of a configuration: types, optimiser states, devices; others' sharding is refused as in `fit`."""

import lightning as L
import pytest
import torch
from lightning.pytorch.strategies import ModelParallelStrategy

from mgpo.cli import main
from mgpo.errors import UserError
from mgpo.policy.families.qwen2_5_vl import Qwen25VL
from mgpo.tools.plan.launch import Devices
from mgpo.tools.plan.settings import devices_of, state_bytes, types_of
from mgpo.training.module import MGPO
from mgpo.utils.configurations import shipped_config


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
