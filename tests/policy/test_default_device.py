"""A policy may be loaded while another device is torch's default, as Lightning loads it on GPUs.

The default is the meta device here, on which a tensor has no values: whatever is made there by mistake is noticed.
"""

from collections.abc import Iterator
from functools import wraps
from importlib.metadata import requires
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from packaging.requirements import Requirement
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText

from mgpo.policy.hub.checkpoint_files import family_of
from mgpo.policy.trainable import fingerprint
from mgpo.types import Prompt
from tests.conftest import noise_image


def tensors_of(thing: Any, path: str, seen: set[int]) -> Iterator[tuple[str, Tensor]]:
    """All tensors that can be reached, each once."""
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, Tensor):
        yield path, thing
    elif isinstance(thing, dict):
        for key, value in list(thing.items()):
            yield from tensors_of(value, f"{path}.{key}", seen)
    elif isinstance(thing, list | tuple | set):
        for number, value in enumerate(thing):
            yield from tensors_of(value, f"{path}[{number}]", seen)
    elif hasattr(thing, "__dict__") and not isinstance(thing, type):
        yield from tensors_of(vars(thing), path, seen)


def others(policy: nn.Module) -> dict[str, Tensor]:
    """What is neither a parameter nor a buffer, and so is not moved with the model."""
    seen = {id(tensor) for tensor in (*policy.parameters(), *policy.buffers())}
    return dict(tensors_of(policy, "policy", seen))


@pytest.fixture
def weights_on_cpu(monkeypatch):
    """The library's model reads its weights to the CPU: they have to have values."""
    read = AutoModelForImageTextToText.from_pretrained

    @wraps(read)
    def from_pretrained(*args, **options):
        with torch.device("cpu"):
            return read(*args, **options)

    monkeypatch.setattr(AutoModelForImageTextToText, "from_pretrained", from_pretrained)


def test_a_policy_loaded_under_another_default_device_sees_alike(
    family, family_folder, family_policy, weights_on_cpu, monkeypatch
):
    with torch.device("meta"):
        policy = family_of(str(family_folder))(str(family_folder), **family.caps).load()
        assert policy.banned.device.type == "meta"  # that device was the default
    assert [name for name, tensor in others(policy).items() if tensor.device.type != "cpu"] == []
    image = noise_image(2 * family.factor, family.factor)
    prompt = Prompt((5, *2 * [policy.chat.image_id], 6), (family_policy.pixels(image),))
    for default in ("cpu", "meta"):
        with torch.device(default):
            patches, positions = policy.pixels(image).patches, policy.positions(prompt, 3)[0]
        assert torch.equal(patches, family_policy.pixels(image).patches)
        assert torch.equal(positions, family_policy.positions(prompt, 3)[0])


def test_the_walk_notices_a_tensor_that_is_left_behind(family_policy):
    before = others(family_policy)
    family_policy.chat.left = [{"behind": torch.zeros(1, device="meta")}]
    (name,) = others(family_policy).keys() - before.keys()
    assert name.endswith("left[0].behind")
    del family_policy.chat.left


def test_a_base_without_frozen_weights_is_known_again():
    with torch.device("meta"):
        assert torch.equal(fingerprint({}), torch.empty(0, dtype=torch.bfloat16, device="cpu"))


def test_what_reads_weights_onto_a_gpu_comes_with_the_package():
    """With a GPU as the default device transformers asks for accelerate, which the extras for tests and adapters bring
    along too."""
    needed, wanted = set(), ["mgpo"]
    while wanted:
        needed.add(name := wanted.pop())
        for requirement in map(Requirement, requires(name) or ()):
            here = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if here and requirement.name not in needed and find_spec(requirement.name.replace("-", "_")):
                wanted.append(requirement.name)
    assert "accelerate" in needed and "peft" not in needed
