"""Lightning's strategy for FSDP2: the mesh, and checkpoints that are saved and read in shards or whole."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from mgpo.checkpoints import sharded as shards
from mgpo.checkpoints.whole import load, load_state
from mgpo.distributed.saver import Saver
from mgpo.distributed.units import shard
from mgpo.errors import UserError
from mgpo.policy.base import Policy

State = dict[str, Any]


class FSDP2Strategy(ModelParallelStrategy):
    """Cut weights, gradients and optimiser states over all devices (FSDP2; ZeRO stage 3, arXiv 1910.02054).

    Needs `trainer.inference_mode: false`, as configs/fsdp.yaml has it: weights are gathered anew after an evaluation.

    Args:
        replicas: Copies of the weights, each cut over an equal share of the devices; as many as there are nodes cuts
            inside each node, and exchanges only gradients between them.
        cpu_offload: Shards, gradients and optimiser states lie in the host's memory; slower.
        save_distributed_checkpoint: Every rank saves its shards, into a folder; else rank 0 gathers everything into
            one file.
        save_in_background: Training goes on as soon as shards are copied to the host's memory.
    """

    def __init__(
        self,
        replicas: int = 1,
        cpu_offload: bool = False,
        save_distributed_checkpoint: bool = True,
        save_in_background: bool = False,
    ) -> None:
        backend = "cpu:gloo,cuda:nccl" if cpu_offload and torch.cuda.is_available() else None
        super().__init__(
            tensor_parallel_size=1,
            save_distributed_checkpoint=save_distributed_checkpoint,
            process_group_backend=backend,
        )
        self.replicas, self.cpu_offload = replicas, cpu_offload
        self.distributed, self.background = save_distributed_checkpoint, save_in_background
        self.saver: Saver | None = None

    def setup_environment(self) -> None:
        """Starts the processes' group and lays out the devices.

        Raises:
            UserError: If the replicas don't divide the devices, or torch is too old.
        """
        if not hasattr(FSDPModule, "reset_iter_state"):
            raise UserError(f"sharded training takes torch 2.13, and this is {torch.__version__}: pip install -U torch")
        devices = self.num_nodes * self.num_processes
        if self.replicas < 1 or devices % self.replicas:
            raise UserError(f"trainer.strategy.replicas is {self.replicas}, which does not divide {devices} devices")
        self._data_parallel_size = devices
        super().setup_environment()

    def setup(self, trainer: Trainer) -> None:
        """Sets up as Lightning does.

        Raises:
            UserError: With `trainer.inference_mode`: weights are gathered anew after an evaluation.
        """
        if trainer.validate_loop.inference_mode:
            raise UserError("sharded training needs trainer.inference_mode: false, as configs/fsdp.yaml has it")
        super().setup(trainer)

    @property
    def weight_mesh(self) -> DeviceMesh:
        """The devices in a row, or where there are replicas in a table, a replica a row."""
        if self.replicas == 1:
            return self.device_mesh["data_parallel"]
        shape = (self.replicas, self.world_size // self.replicas)
        return init_device_mesh(self.root_device.type, shape, mesh_dim_names=("replicate", "shard"))

    def shard(self, policies: list[Policy]) -> None:
        """Cut loaded policies, once: a module is set up anew for every evaluation."""
        mesh = self.weight_mesh
        for policy in policies:
            if not isinstance(policy, FSDPModule):
                shard(policy, mesh, self.precision_plugin.precision, self.cpu_offload)

    def lightning_module_state_dict(self) -> State:
        """A checkpoint's weights: this rank's shards, or all of them in the host's memory; all ranks must call."""
        assert self.lightning_module is not None
        state = self.lightning_module.state_dict()
        return state if self.distributed else _assembled(state)

    def optimizer_state(self, optimizer: Optimizer) -> State:
        """A checkpoint's state of an optimiser: as shards, or whole in the host's memory; all ranks must call."""
        state = optimizer.state_dict()
        return state if self.distributed else {**state, "state": _assembled(state["state"])}

    def save_checkpoint(self, checkpoint: State, filepath: str | Path, storage_options: Any = None) -> None:
        """Writes shards into the folder `filepath`, in the background if so configured; or all of it into one file."""
        if not self.distributed:
            return super().save_checkpoint(checkpoint, filepath, storage_options)
        self.saver = self.saver or Saver(self.background)
        self.saver.save(Path(self.broadcast(filepath)), checkpoint)

    def remove_checkpoint(self, filepath: str | Path) -> None:
        """Removes a checkpoint; one in shards only once that which is being written is complete."""
        if self.saver is None:
            super().remove_checkpoint(filepath)
        elif self.is_global_zero:
            self.saver.remove(Path(filepath))

    def finish_saving(self) -> None:
        """Wait for what is written in the background; all ranks must call."""
        if self.saver is not None:
            self.saver.wait()

    def teardown(self) -> None:
        """Waits for what is being written, and then tears down as Lightning does."""
        self.finish_saving()
        super().teardown()

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> State:
        """Weights and optimiser states are taken at once; the rest is returned. Nothing of the files is run."""
        path = Path(self.broadcast(checkpoint_path))
        if self.saver is not None:
            self.saver.wait()
        assert self.lightning_module is not None
        known = self.lightning_module.state_dict()
        parameters = [p for optimizer in self.optimizers for group in optimizer.param_groups for p in group["params"]]
        if path.is_file():
            checkpoint = load(path, mmap=True)
            checkpoint["state_dict"] = {k: _cut(v, known.get(k)) for k, v in checkpoint["state_dict"].items()}
            for state in checkpoint.get("optimizer_states", []):
                state["state"] = {
                    i: {k: _cut(v, parameters[i] if i < len(parameters) else None) for k, v in s.items()}
                    for i, s in state["state"].items()  # nothing is trained in an evaluation
                }
        else:
            load_state(path)  # which complains before anything is taken
            checkpoint = shards.load(path, known, parameters)
        self.lightning_module.load_state_dict(checkpoint.pop("state_dict"), strict=self.lightning_module.strict_loading)
        for optimizer, state in zip(self.optimizers, checkpoint.get("optimizer_states", [])):
            optimizer.load_state_dict(state)
        return checkpoint


def _assembled(state: Mapping[Any, Any]) -> State:
    """The same without shards, in the host's memory; all ranks must call."""
    whole: State = {}
    for name, value in state.items():
        if isinstance(value, Mapping):
            whole[name] = _assembled(value)
        else:
            whole[name] = value.full_tensor().cpu() if isinstance(value, DTensor) else value
    return whole


def _cut(value: Any, like: Tensor | None) -> Any:
    """This rank's shard of a whole tensor, where what it belongs to is in shards."""
    if not isinstance(like, DTensor) or not isinstance(value, Tensor) or value.shape != like.shape:
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
