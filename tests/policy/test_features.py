"""What a vision tower is shown, and how much of it in one call."""

import pytest
import torch

from mgpo.policy import features
from mgpo.policy.features import Features, portions
from mgpo.types import Pixels
from mgpo.utils.allocator import joined

CPU = torch.device("cpu")


def image(number, values=4):
    return Pixels(torch.full((values, 1), float(number)), (1, values, 1))


@pytest.mark.parametrize(
    ("sizes", "calls"),
    [
        ([], []),
        ([9], [[9]]),
        ([3, 3, 3], [[3, 3], [3]]),
        ([9, 1, 6, 1], [[9], [1, 6], [1]]),
        ([2, 5, 1], [[2, 5], [1]]),
    ],
    ids=str,
)
def test_pictures_go_through_it_in_order_as_many_as_fit(sizes, calls):
    images = [image(number, size) for number, size in enumerate(sizes)]
    found = list(portions(images, 7))
    assert [[len(i.patches) for i in part] for part in found] == calls
    assert [i for part in found for i in part] == images


@pytest.mark.parametrize("frozen", [True, False])
def test_each_picture_is_seen_once_and_found_in_its_place(frozen, monkeypatch):
    monkeypatch.setattr(features, "TOGETHER", 8)
    seen, kept = [], Features(frozen)

    def tower(images):
        seen.append([int(i.patches[0]) for i in images])
        return [i.patches.repeat(1, 2) for i in images]

    a, b, c = (image(number) for number in range(3))
    for calls in ([[0, 1], [2]], [] if frozen else [[0, 1], [2]]):
        found = kept.of([a, b, a, c], tower, CPU)
        assert found[:, 0].tolist() == [0.0] * 4 + [1.0] * 4 + [0.0] * 4 + [2.0] * 4
        assert seen == calls
        seen.clear()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_parts_are_joined_in_their_order_with_their_gradients(dtype):
    parts = [torch.randn(n, 3, 2)[:, :, :1].requires_grad_() for n in (2, 1, 4)]
    whole = joined(parts, CPU, dtype)
    assert whole.dtype == dtype and torch.equal(whole, torch.cat(parts).to(dtype))
    whole.sum().backward()
    assert all(torch.equal(part.grad, torch.ones_like(part)) for part in parts)
