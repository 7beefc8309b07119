"""What an update starts from: the weights of now, and no gradients of before."""

import copy
import traceback

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mgpo.objective import Objective
from mgpo.policy.lora import Lora
from mgpo.policy.passes.batch import Batch, collate
from mgpo.rollout.in_process import InProcessSampler, Sampling
from mgpo.training.loss import answer_loss, policy_loss
from tests.conftest import make_policy
from tests.training.test_module import Noisy, adam, equal, fit, make, weights
from tests.training.test_rescore import play

WAITED_FOR = ("_local_scalar_dense", "masked_select", "nonzero", "repeat_interleave", "_unique2")
HOSTS = {collate.__code__, Batch.to.__code__}  # where everything is still on the host
INDEXING = ("index", "index_put", "index_put_", "_index_put_impl_")


class Waits(TorchDispatchMode):
    """Notes each operation whose result a host waits for where a GPU computes it, by our function that asks."""

    def __init__(self):
        super().__init__()
        self.by = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        places = args[1] if name in INDEXING else ()
        if name in WAITED_FOR or any(place is not None and place.dtype == torch.bool for place in places):
            asking = [frame.f_code for frame, _ in traceback.walk_stack(None)]
            if HOSTS.isdisjoint(asking):
                self.by.append(next((code.co_name for code in asking if "/mgpo/" in code.co_filename), "backward"))
        return func(*args, **(kwargs or {}))


class Watching(Noisy):
    """Looks at weights and gradients before each micro-batch."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.fresh, self.learning, self.held = [], [], []

    def roll_out(self, *args, **options):
        self.held.append(any(p.grad is not None for p in self.policy.parameters()))
        return super().roll_out(*args, **options)

    def loss(self, *args):
        weight = self.policy.model.lm_head.weight
        self.fresh.append(torch.equal(torch.eye(weight.shape[1]) @ weight.T, weight.T.bfloat16()))
        loss, metrics = super().loss(*args)
        learnt = [p for p in self.policy.model.model.language_model.layers.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(loss, learnt, retain_graph=True, allow_unused=True)
        self.learning.append(all(gradient is not None for gradient in gradients))
        return loss, metrics


def test_mixed_precision_computes_with_the_weights_of_now(tokenizer, tmp_path):
    """An autocast that keeps casts of weights, which Lightning's does not, would go on with those from before an
    update, and with those from rollouts, which have no gradients."""
    module = make(tokenizer, Watching, mini_batches=2, epochs=2)
    fit(module, tmp_path, precision="bf16-mixed", enable_checkpointing=False)
    assert len(module.fresh) > 4 and all(module.fresh) and all(module.learning)


def test_gradients_are_neither_held_in_rollouts_nor_left_from_before(tokenizer, tmp_path):
    module, other = make(tokenizer, Watching), make(tokenizer)
    for parameter in module.policy.parameters():
        parameter.grad = torch.ones_like(parameter)
    for each in (module, other):
        fit(each, tmp_path, enable_checkpointing=False)
    assert len(module.held) == 4 and not any(module.held)
    assert equal(weights(module), weights(other))


def test_what_weighs_nothing_is_neither_learnt_nor_shown(policy):
    """Trajectories of weight 0, as a question that was drawn only to fill a rank's batch."""
    frozen = copy.deepcopy(policy)
    with torch.no_grad():
        for parameter in frozen.parameters():
            parameter.mul_(1.1)
    shown = []
    for count in (6, 4):
        batch = collate(play(policy, InProcessSampler())[:count], policy.positions, policy.pad_id)
        advantages, weights_N = torch.tensor([1.0, -1.0, 0.5, 0.5, 2.0, 3.0])[:count], torch.full((count,), 0.01)
        weights_N[4:] = 0
        loss, metrics = policy_loss(policy, batch, advantages, weights_N, Objective(kl_weight=0.1), 1.0, frozen)
        nll, more = answer_loss(policy, batch, weights_N)
        shown.append({"loss": loss.item(), "nll_loss": nll.item(), **metrics.read()[0], **more.read()[0]})
    assert shown[0].keys() == shown[1].keys() and {"kl", "kl_clamped", "clip_fraction", "nll"} <= shown[0].keys()
    for name, value in shown[1].items():
        assert shown[0][name] == pytest.approx(value, rel=1e-4, abs=1e-5), name


@pytest.mark.parametrize("kind", ["weights", "adapters"])
def test_a_host_need_not_wait_for_a_pass(tokenizer, tmp_path, kind):
    """It lays out the next micro-batch meanwhile. A tower that is trained is the library's, which does wait."""
    policy = make_policy(tokenizer, lora=Lora(rank=2, alpha=4) if kind == "adapters" else None, freeze_vision=True)
    module = Noisy(
        policy.train(), group_size=4, sampling=Sampling(max_new_tokens=6), objective=Objective(kl_weight=0.1),
        optimizer=adam, micro_batch_tokens=256,
    )  # fmt: skip
    passes = []
    learn = module.loss

    def watched(part):
        with Waits() as waits:
            found = learn(part)
            found[0].backward(retain_graph=True)
        passes.append(waits.by)
        return found

    module.loss = watched
    fit(module, tmp_path, questions=2, enable_checkpointing=False)
    assert len(passes) > 1 and not any(passes)


def test_what_no_token_has_is_not_shown(policy):
    """As where no rollout of a micro-batch has an advantage."""
    batch = collate(play(policy, InProcessSampler()), policy.positions, policy.pad_id)
    none_N = torch.zeros(len(batch.ids_NC))
    _, metrics = policy_loss(policy, batch, none_N, none_N + 1, Objective(), 1.0)
    assert metrics.read() == ({}, {})
