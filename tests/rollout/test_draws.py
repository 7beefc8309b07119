"""Draws from logits: the distribution they follow, and how exactly."""

import pytest
import torch

from mgpo.rollout import draws
from mgpo.rollout.draws import Sampling, choose


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (1.0, 0.6)])
def test_draws_follow_the_distribution(temperature, top_p):
    logits = torch.tensor([2.0, 1.0, 0.0, -torch.inf]).repeat(20_000, 1)
    uniform = torch.rand(20_000, generator=torch.Generator().manual_seed(0))
    ids, logprobs = choose(logits, uniform, Sampling(1, temperature, top_p))
    expected = torch.softmax(logits[0] / temperature, -1)
    assert torch.allclose(logprobs.exp(), expected[ids])
    if top_p < 1:
        expected = torch.tensor([1.0, 0, 0, 0])
    counts = torch.bincount(ids, minlength=4) / 20_000
    assert (counts - expected).abs().max() < 0.015


@pytest.mark.parametrize("temperature", [1.0, 0.7, 0.0])
def test_the_tail_of_a_published_vocabulary_is_not_lost(temperature):
    """One id so likely that the others' probabilities vanish one by one beside it, and together do not."""
    logits = torch.randn(8, 151_936, generator=torch.Generator().manual_seed(0))
    logits[:, 7] = 18 * (temperature or 1.0)
    ids, logprobs = choose(logits, torch.linspace(0, 1 - 1e-7, 8), Sampling(1, temperature))
    exact = (logits.double() / (temperature or 1.0)).log_softmax(-1).gather(-1, ids[:, None])[:, 0]
    assert (logprobs - exact).abs().max() < 1e-5


@pytest.mark.parametrize("top_p", [1.0, 0.6])
@pytest.mark.parametrize("shift", [-1000.0, 60.0, 1000.0])
def test_what_all_logits_have_in_common_changes_nothing(shift, top_p):
    """However large it is: nothing overflows, or vanishes."""
    logits = torch.randint(-4, 5, (512, 9), generator=torch.Generator().manual_seed(0)).float()
    uniform = torch.rand(512, generator=torch.Generator().manual_seed(1))
    (ids, logprobs), (again, shifted) = (
        choose(each, uniform, Sampling(1, top_p=top_p)) for each in (logits, logits + shift)
    )
    assert torch.equal(ids, again)
    torch.testing.assert_close(shifted, logprobs, rtol=0, atol=1e-3)


@pytest.mark.parametrize("width", [2**14 + 1, 130 * 128, 151_936])
def test_wide_distributions_are_inverted_block_by_block_as_whole(width, monkeypatch):
    """Also where most ids have no share, and at the very ends."""
    logits = 3 * torch.randn(16, width, generator=torch.Generator().manual_seed(0))
    logits[:8, torch.randperm(width, generator=torch.Generator().manual_seed(1))[: width - 5]] = -torch.inf
    uniform = torch.linspace(0, 1 - 2**-24, 8).repeat(2)
    ids, logprobs = choose(logits, uniform, Sampling(1))
    monkeypatch.setattr(draws, "BLOCK", width)
    assert torch.equal(ids, choose(logits, uniform, Sampling(1))[0])
    assert logprobs.isfinite().all()


@pytest.mark.parametrize("bad", [dict(temperature=-1), dict(top_p=0), dict(max_new_tokens=0)])
def test_bad_sampling_is_refused(bad):
    with pytest.raises(ValueError, match=r"sampling\.(temperature|top_p|max_new_tokens) is (-1|0)"):
        Sampling(**bad)
