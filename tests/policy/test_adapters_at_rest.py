"""Low-rank adapters: computed in the base's type, and merged or cast once while nothing learns."""

import copy

import pytest
import torch
from peft.tuners.lora import Linear

from mgpo.dialogues import TwoTurn
from mgpo.policy.lora import SAME_INPUT, Lora, add_lora, at_rest
from mgpo.policy.passes.batch import collate
from mgpo.policy.passes.logprobs import score
from mgpo.rollout.episodes import roll_out
from mgpo.rollout.in_process import InProcessSampler, Sampling
from tests.conftest import make_policy, make_question, noise_image
from tests.rollout.test_rollout import Scripted


class Net(torch.nn.Module):
    """What transformers offers to peft, around two layers."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = torch.nn.Linear(48, 64, dtype=dtype)
        self.second = torch.nn.Linear(64, 32, bias=False, dtype=dtype)

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))

    def add_adapter(self, config):
        from peft import inject_adapter_in_model

        inject_adapter_in_model(config, self, "default")


def adapted(dtype: torch.dtype) -> Net:
    net = Net(dtype)
    add_lora(net, Lora(rank=4, alpha=12, targets="first|second"))
    for name, parameter in net.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(1))
    return net


def theirs(net: Net) -> Net:
    """The same with peft's own passes."""
    plain = copy.deepcopy(net)
    for layer in plain.modules():
        if isinstance(layer, Linear):
            del layer.forward
    return plain


def pass_back(net: Net, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    out = net(x)
    out.double().square().sum().backward()
    return out.detach(), {name: p.grad for name, p in net.named_parameters() if p.requires_grad}


@pytest.fixture
def x():
    return torch.randn(3, 5, 48, generator=torch.Generator().manual_seed(2))


def error(found, exact):
    return ((found.double() - exact).norm() / exact.norm()).item()


def test_a_narrow_base_rounds_adapters_as_it_rounds_everything(x):
    net = adapted(torch.bfloat16)
    (ours, grads), (peft, peft_grads) = pass_back(net, x.bfloat16()), pass_back(theirs(net), x.bfloat16())
    exact, exact_grads = pass_back(theirs(net).double(), x.bfloat16().double())
    assert ours.dtype == torch.bfloat16
    assert error(ours, exact) < max(1.2 * error(peft, exact), 4e-3)
    assert grads.keys() == exact_grads.keys() and len(grads) == 4
    for name, grad in grads.items():
        assert grad.dtype == torch.float32
        assert error(grad, exact_grads[name]) < 2 * error(peft_grads[name], exact_grads[name]) < 0.05


def test_no_input_of_a_narrow_base_is_widened(x, monkeypatch):
    net, seen = adapted(torch.bfloat16), []
    linear = torch.nn.functional.linear
    monkeypatch.setattr(torch.nn.functional, "linear", lambda *args: (seen.append(args[0].dtype), linear(*args))[1])
    net(x.bfloat16())
    assert seen and set(seen) == {torch.bfloat16}


class Attention(Net):
    """Three layers that read the same, and one that reads something else."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)
        torch.manual_seed(0)
        for name in ("q_proj", "k_proj", "v_proj"):
            setattr(self, name, torch.nn.Linear(48, 32, dtype=torch.bfloat16))
        self.o_proj = torch.nn.Linear(32, 48, dtype=torch.bfloat16)

    def forward(self, x):
        return self.o_proj(self.q_proj(x) * torch.tanh(self.k_proj(x)) + self.v_proj(x))


def test_layers_that_read_the_same_share_the_reading(x, monkeypatch):
    net = Attention()
    add_lora(net, Lora(rank=4, alpha=12, targets="._proj"))
    for name, parameter in net.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    exact, exact_grads = pass_back(theirs(net).double(), x.bfloat16().double())
    peft, peft_grads = pass_back(theirs(net), x.bfloat16())
    net.zero_grad()
    products, linear = [], torch.nn.functional.linear
    monkeypatch.setattr(torch.nn.functional, "linear", lambda x, w, *b: products.append(len(w)) or linear(x, w, *b))
    ours, grads = pass_back(net, x.bfloat16())
    assert sorted(products) == [4, 12, 32, 32, 32, 48]
    assert error(ours, exact) < 1.2 * error(peft, exact)
    assert len(grads) == 8
    assert all(
        error(g, exact_grads[name]) < 2 * error(peft_grads[name], exact_grads[name]) for name, g in grads.items()
    )
    assert all(layer.readers.x is None for layer in net.modules() if isinstance(layer, Linear))  # nothing is kept
    products.clear()
    copied = copy.deepcopy(net)  # a teacher or a reference shares too, with nobody of the original
    assert torch.equal(copied(x.bfloat16()), ours)
    assert sorted(products) == [4, 12, 32, 32, 32, 48]
    assert {layer for name in SAME_INPUT[0] for layer in getattr(copied, name).readers.layers} <= set(copied.modules())
    products.clear()
    with torch.no_grad():
        net.q_proj(x.bfloat16())
        again = net(x.bfloat16())  # one of them was called alone before
    assert torch.equal(again, ours)


@pytest.mark.parametrize(("base", "half"), [("float16", "bfloat16"), ("bfloat16", "float16")])
def test_a_narrow_base_may_be_under_autocast_of_the_other_type(x, base, half):
    net = Attention().to(getattr(torch, base))
    add_lora(net, Lora(rank=4, alpha=12, targets="._proj"))
    with torch.autocast("cpu", getattr(torch, half)):
        assert net(x).isfinite().all()


def test_a_pass_that_is_broken_off_is_not_copied(x):
    net = Attention()
    add_lora(net, Lora(rank=4, alpha=12, targets="._proj"))
    net.q_proj(x.bfloat16().requires_grad_())
    assert net.q_proj.readers.x is not None
    twin = copy.deepcopy(net)
    assert twin.q_proj.readers.x is None and twin.q_proj.readers.layers == [twin.q_proj, twin.k_proj, twin.v_proj]


def test_without_an_active_adapter_it_is_the_base(x):
    net = Attention()
    add_lora(net, Lora(rank=4, alpha=12, targets="._proj"))
    for layer in (layer for layer in net.modules() if isinstance(layer, Linear)):
        layer.set_adapter([])
    assert torch.equal(net.q_proj(x.bfloat16()), net.q_proj.get_base_layer()(x.bfloat16()))


def test_a_float32_base_is_peft_to_the_bit(x):
    net = adapted(torch.float32)
    (ours, grads), (peft, peft_grads) = pass_back(net, x), pass_back(theirs(net), x)
    assert torch.equal(ours, peft)
    assert all(torch.equal(grad, peft_grads[name]) for name, grad in grads.items())


def weights(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def unchanged(module, before):
    return all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_float32_weights_take_adapters_up_and_give_them_back_to_the_bit(x, mode):
    net = adapted(torch.float32)
    before, expected = weights(net), net(x).detach()
    with mode(), at_rest(net):
        assert not unchanged(net, before)
        assert torch.allclose(net(x), expected, atol=1e-6)
        with at_rest(net):  # as where one rollout asks for another
            assert torch.allclose(net(x), expected, atol=1e-6)
        assert torch.allclose(net(x), expected, atol=1e-6)
    assert unchanged(net, before)
    assert torch.equal(net(x), expected)


def test_weights_are_given_back_after_an_error(x):
    net = adapted(torch.float32)
    before, expected = weights(net), net(x).detach()
    with pytest.raises(OSError, match="gone"), at_rest(net):
        raise OSError("gone")
    assert unchanged(net, before)
    assert torch.equal(net(x), expected)


def test_bfloat16_weights_are_left_alone(x):
    net = adapted(torch.bfloat16)
    before, expected = weights(net), net(x.bfloat16())
    with torch.no_grad(), at_rest(net):
        assert unchanged(net, before)
        assert torch.equal(net(x.bfloat16()), expected)


@pytest.mark.parametrize("why", ["autocast", "tf32"])
def test_nothing_is_merged_where_products_are_rounded(x, why):
    net = adapted(torch.float32)
    before = weights(net)
    precision = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high" if why == "tf32" else precision)
        with torch.autocast("cpu", torch.bfloat16, enabled=why == "autocast"), at_rest(net):
            assert unchanged(net, before)
    finally:
        torch.set_float32_matmul_precision(precision)


def test_a_weight_with_two_uses_is_left_alone(x):
    net = adapted(torch.float32)
    net.head = torch.nn.Linear(64, 32, bias=False)
    net.head.weight = net.second.get_base_layer().weight
    before, expected = net.head.weight.clone(), net(x).detach()
    with torch.no_grad(), at_rest(net):
        assert torch.equal(net.head.weight, before)
        assert torch.allclose(net(x), expected, atol=1e-6)


@pytest.fixture(scope="module")
def policy(tokenizer):
    policy = make_policy(tokenizer, lora=Lora(rank=4, alpha=8))
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2, generator=torch.Generator().manual_seed(3))
    return policy


@pytest.fixture(scope="module")
def samples():
    images = [noise_image(448, 448, 1), noise_image(300, 500, 3)]
    return [(make_question(image, f"q{i}"), image) for i, image in enumerate(images)]


def test_rollouts_of_merged_adapters_are_the_trainers(policy, samples, monkeypatch):
    before, seen, decode = weights(policy), [], policy.decode
    monkeypatch.setattr(policy, "decode", lambda *args: (seen.append(unchanged(policy, before)), decode(*args))[1])
    rows = roll_out(policy, Scripted(), TwoTurn(), samples, 3, Sampling(12), (0, 0))
    monkeypatch.undo()
    assert seen and not any(seen)
    assert unchanged(policy, before)
    batch = collate(rows, policy.positions, policy.pad_id)
    with torch.no_grad():
        trained = score(policy, batch).logprobs_NC
    for row, trajectory in enumerate(rows):
        for k, turn in enumerate(trajectory.turns):
            if turn.reply.stop != "marker":
                own = trained[row][batch.policy_NC[row] & (batch.turn_NC[row] == k)]
                assert torch.allclose(own, torch.tensor(turn.reply.logprobs), atol=1e-4)


def test_rollouts_that_fail_leave_no_trace(policy, samples, monkeypatch):
    before = weights(policy)

    def fail(*args):
        assert not unchanged(policy, before)
        raise OSError("out of order")

    monkeypatch.setattr(policy, "decode", fail)
    with pytest.raises(OSError, match="order"):
        roll_out(policy, InProcessSampler(), TwoTurn(), samples, 2, Sampling(4), (0, 0))
    assert unchanged(policy, before)
    with policy.reference():
        pass
