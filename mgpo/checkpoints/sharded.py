"""Checkpoints in shards: a folder into which every rank wrote what it held, to be read by any number of ranks.

Tensors are `state_dict.<name>` and `optimizer.<number>.<parameter>.<name>` in PyTorch's distributed format; what else
a checkpoint of Lightning's holds is in a file of its own. `mgpo.distributed.saver` writes them.
"""

import pickle
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load as load_tensors

from mgpo.checkpoints.damaged import reading
from mgpo.errors import UserError

REST = "meta.pt"
INDEX = ".metadata"
WEIGHTS = "state_dict."
FORMAT = "torch.distributed.checkpoint."
# Index files are pickled. This is what they consist of, besides types of tensors.
PARTS = {
    *((f"{FORMAT}metadata", name) for name in ("Metadata", "MetadataIndex", "StorageMeta", "TensorProperties")),
    *((f"{FORMAT}metadata", f"{kind}StorageMetadata") for kind in ("Chunk", "Tensor", "Bytes")),
    (f"{FORMAT}metadata", "_MEM_FORMAT_ENCODING"),
    (f"{FORMAT}filesystem", "_StorageInfo"),
    ("torch.serialization", "_get_layout"),
    ("torch", "Size"),
    ("pathlib", "PosixPath"),
}
State = dict[str, Any]


def load(path: Path, known: Mapping[str, Tensor], parameters: Sequence[Tensor]) -> State:
    """A checkpoint as it was saved, cut anew as `known` weights and the optimisers' parameters are.

    Raises:
        UserError: Where the folder is no complete checkpoint.
    """
    path = complete(path)
    with reading(path):
        return _load(path, known, parameters)


def _load(path: Path, known: Mapping[str, Tensor], parameters: Sequence[Tensor]) -> State:
    reader = _Reader(path)
    tensors: dict[str, Tensor] = {}
    for name, (size, dtype) in reader.sizes().items():
        if name.startswith(WEIGHTS):
            like = known.get(name.removeprefix(WEIGHTS))
        elif (number := int(name.split(".")[2])) < len(parameters):
            like = parameters[number]
        else:  # nothing is trained here, or other weights, which then complain for themselves
            continue
        if like is not None and like.shape == size:
            tensors[name] = torch.empty_like(like, dtype=dtype)
        else:
            tensors[name] = torch.empty(size, dtype=dtype, device="cpu")
    _fill(tensors, reader, alone=not distributed.is_initialized())
    checkpoint = torch.load(path / REST, map_location="cpu", weights_only=True)
    checkpoint["state_dict"] = {k.removeprefix(WEIGHTS): v for k, v in tensors.items() if k.startswith(WEIGHTS)}
    for name, value in tensors.items():
        if not name.startswith(WEIGHTS):
            _, number, parameter, key = name.split(".", 3)
            checkpoint["optimizer_states"][int(number)]["state"].setdefault(int(parameter), {})[key] = value
    return checkpoint


def weights(path: Path) -> dict[str, Tensor]:
    """Whole weights out of a folder, in one process. Raises UserError where it is no complete checkpoint."""
    with reading(path):
        reader = _Reader(complete(path))
        stored = {name: kind for name, kind in reader.sizes().items() if name.startswith(WEIGHTS)}
        tensors = {name: torch.empty(size, dtype=dtype, device="cpu") for name, (size, dtype) in stored.items()}
        _fill(tensors, reader, alone=True)
    return {name.removeprefix(WEIGHTS): value for name, value in tensors.items()}


def _fill(tensors: dict[str, Tensor], reader: "_Reader", alone: bool) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # which is what is wanted
        load_tensors(tensors, storage_reader=reader, no_dist=alone)


class _Index(pickle.Unpickler):
    """Reads an index, and refuses one that holds anything else: a pickle can run whatever it names."""

    def find_class(self, module: str, name: str) -> Any:
        module = "pathlib" if module == "pathlib._local" else module  # as Python 3.13 writes it, and no other knows it
        if (module, name) in PARTS or (module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name}")


class _Reader(FileSystemReader):
    """Of a folder whose index was looked through."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            with (path / INDEX).open("rb") as file:
                self.stored = _Index(file).load().state_dict_metadata.items()
        except Exception as error:  # whatever a pickle that was tampered with makes its reader raise
            raise UserError(f"{path / INDEX} is not the index of a checkpoint ({error})") from None

    def sizes(self) -> dict[str, tuple[torch.Size, torch.dtype]]:
        """Of each tensor."""
        tensors = [(name, kind) for name, kind in self.stored if isinstance(kind, TensorStorageMetadata)]
        return {name: (kind.size, kind.properties.dtype) for name, kind in tensors}


def complete(path: Path) -> Path:
    """The folder, or its predecessor where a save was killed between taking its name and giving it to the new one."""
    for folder in (path, path.with_name(path.name + ".old")):
        if (folder / INDEX).is_file() and (folder / REST).is_file():
            return folder
    raise UserError(f"{path} is not a checkpoint of a run, such as runs/…/trained.ckpt")
