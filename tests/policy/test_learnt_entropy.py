"""Entropies that are learnt from, against float64 autograd of -sum p log p over what may be sampled."""

from types import SimpleNamespace

import pytest
import torch
from torch.distributions import Categorical

from mgpo.dialogues import TwoTurn
from mgpo.errors import UserError
from mgpo.objective import Objective, weighted_sum
from mgpo.policy.passes import logprobs
from mgpo.policy.passes.batch import collate
from mgpo.policy.passes.logprobs import score_tokens
from mgpo.rollout.episodes import roll_out
from mgpo.rollout.in_process import InProcessSampler, Sampling
from mgpo.training.loss import policy_loss
from mgpo.training.module import MGPO
from tests.conftest import make_question, noise_image
from tests.performance.memory import Setting, compare
from tests.training.test_module import fit, make, watch

BANNED = torch.arange(50) >= 43


def head(weight_VD):
    """A policy that has nothing but a head."""
    return SimpleNamespace(
        fused_head=False, banned=BANNED, logits=lambda h: (h @ weight_VD.T).masked_fill(BANNED, -torch.inf)
    )


def scored(temperature, learn_entropy=True):
    torch.manual_seed(0)
    hidden_MD, weight_VD = ((torch.randn(n, 16) / 2).requires_grad_() for n in (7, 50))
    policy: object = head(weight_VD)
    scores = score_tokens(policy, hidden_MD, torch.arange(7), temperature, learn_entropy)  # type: ignore[arg-type]
    return scores, (hidden_MD, weight_VD)


@pytest.mark.parametrize("chunk", [2**24, 100])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_values_and_gradients_are_those_of_the_definition(chunk, temperature, monkeypatch):
    monkeypatch.setattr(logprobs, "CHUNK", chunk)
    monkeypatch.setattr(logprobs, "LEAST_ROWS", 2)
    (logprobs_M, entropy_M), leaves = scored(temperature)
    hidden_MD, weight_VD = (leaf.detach().double().requires_grad_() for leaf in leaves)
    plain = Categorical(logits=(hidden_MD @ weight_VD[~BANNED].T) / temperature)
    torch.testing.assert_close(entropy_M.double(), plain.entropy(), rtol=1e-6, atol=2e-6)
    upstream = torch.linspace(-1, 2, 7, dtype=torch.float64)
    ours = torch.autograd.grad((upstream.float() * (entropy_M + logprobs_M)).sum(), leaves)
    theirs = torch.autograd.grad(
        (upstream * (plain.entropy() + plain.log_prob(torch.arange(7)))).sum(), (hidden_MD, weight_VD)
    )
    for mine, right in zip(ours, theirs, strict=True):
        assert (mine.double() - right).norm() <= 1e-5 * right.norm()


def test_log_probs_and_their_gradients_are_the_same_to_the_bit_whether_entropies_are_learnt_or_not():
    found = []
    for learn in (False, True):
        (logprobs_M, entropy_M), leaves = scored(0.7, learn)
        assert entropy_M.requires_grad is learn
        found.append((logprobs_M, entropy_M, *torch.autograd.grad(logprobs_M.sum(), leaves)))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize("far", [0.0, 50.0, 1e4, 1e30])
def test_gradients_are_finite_at_any_distance_and_zero_where_nothing_may_be_sampled(far):
    hidden_MD = (far * torch.eye(4)).requires_grad_()
    weight_VD = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    policy: object = head(weight_VD)
    _, entropy_M = score_tokens(policy, hidden_MD, torch.arange(4), 1.0, True)  # type: ignore[arg-type]
    entropy_M.sum().backward()
    assert entropy_M.isfinite().all() and hidden_MD.grad.isfinite().all() and weight_VD.grad.isfinite().all()
    assert not weight_VD.grad[BANNED].any()


def test_the_bonus_is_the_weighted_mean_of_entropies_and_pulls_towards_them(policy):
    """Of a whole model: the loss falls by the weight times the entropy of the tokens that count, as its gradient."""
    image = noise_image(300, 200)
    sampling = Sampling(max_new_tokens=6)
    rows = roll_out(policy, InProcessSampler(), TwoTurn(), [(make_question(image), image)], 2, sampling, (0, 0))
    batch = collate(rows, policy.positions, policy.pad_id)
    advantages_N, weights_N = torch.tensor([1.0, -1.0]), torch.tensor([0.05, 0.0])

    def gradient(loss):
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, policy.model.lm_head.weight)])

    def loss_of(**options):
        return policy_loss(policy, batch, advantages_N, weights_N, Objective(**options), 1.0)[0]

    entropy_NC = policy(logprobs.score, batch, 1.0, True).entropy_NC
    bonus = 0.3 * weighted_sum(entropy_NC, batch.policy_NC, weights_N)
    plain, with_bonus = loss_of(), loss_of(entropy_weight=0.3)
    assert bonus.item() > 0.01
    assert with_bonus.item() == pytest.approx(plain.item() - bonus.item(), rel=1e-5)
    torch.testing.assert_close(gradient(with_bonus), gradient(plain) - gradient(bonus), rtol=1e-4, atol=1e-7)


def test_groups_of_one_reward_are_learnt_from_where_there_is_a_bonus(tokenizer, tmp_path):
    """As under a penalty: their tokens count, and weights of which nothing is said elsewhere stay where they are."""
    norms = []
    for weight in (0.0, 0.1):
        module = make(tokenizer, MGPO, reward=lambda answer, question: 1.0, objective=Objective(entropy_weight=weight))
        steps = watch(module)
        fit(module, tmp_path, questions=2, enable_checkpointing=False)
        norms.append(steps[0]["grad_norm"])
    assert norms[0] == 0 and norms[1] > 0


def test_a_fused_head_and_a_bonus_are_refused_in_a_sentence(fresh_policy, monkeypatch):
    monkeypatch.setattr(fresh_policy, "fused_head", True)
    MGPO(fresh_policy)
    with pytest.raises(UserError, match=r"entropy_weight .*fused_head"):
        MGPO(fresh_policy, objective=Objective(entropy_weight=0.1))


def test_their_gradient_needs_no_more_memory_than_plan_says(tokenizer):
    """Where logits outweigh everything else."""
    wide = dict(vision_width=32, vision_mlp=32, vision_layers=1)
    setting = Setting(image=16, reply=8, layers=1, vocabulary=16384, width=64, mlp=64, heads=2, questions=1, **wide)
    plain, learnt = (compare(s, tokenizer)["update"] for s in (setting, Setting(**vars(setting) | {"entropy": True})))
    assert learnt.measured <= 1.01 * plain.measured and learnt.ratio == pytest.approx(1, abs=0.2)
