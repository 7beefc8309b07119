"""Fused kernels against what they take the place of; Triton runs them interpreted where there is no GPU."""

import os
import subprocess
import sys
from collections import Counter
from importlib import import_module
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLMLP

from mgpo.dialogues import TwoTurn
from mgpo.errors import UserError
from mgpo.policy import liger as fused
from mgpo.policy.families.qwen2_5_vl import Qwen25VL
from mgpo.policy.hub.checkpoint_files import family_of
from mgpo.policy.passes.batch import collate
from mgpo.policy.passes.logprobs import score
from mgpo.rollout.episodes import roll_out
from mgpo.rollout.in_process import InProcessSampler, Sampling
from tests.conftest import make_question, noise_image

KERNEL = bool(find_spec("liger_kernel") and find_spec("triton"))
COMPARE = """
import torch
from mgpo.policy.liger import fused_logprobs
torch.manual_seed(0)
hidden, weight = torch.randn(7, 16).requires_grad_(), torch.randn(50, 16).requires_grad_()
targets, banned = torch.randint(0, 40, (7,)), torch.arange(50) >= 43
got = fused_logprobs(hidden, weight, targets, banned, 0.7)
logits = (hidden / 0.7) @ weight.T
plain = logits.masked_fill(banned, -torch.inf).log_softmax(-1).gather(-1, targets[:, None])[:, 0]
torch.testing.assert_close(got, plain)
upstream = torch.randn(7)
for mine, theirs in zip(*(torch.autograd.grad(x, (hidden, weight), upstream) for x in (got, plain))):
    torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
"""


@pytest.mark.skipif(not KERNEL, reason="liger-kernel or Triton is not installed")
def test_values_and_gradients_are_those_of_plain_logits():
    subprocess.run([sys.executable, "-c", COMPARE], check=True, env=os.environ | {"TRITON_INTERPRET": "1"})


@pytest.mark.skipif(KERNEL, reason="liger-kernel is installed")
def test_without_the_kernel_it_is_one_sentence():
    with pytest.raises(UserError, match="pip install"):
        Qwen25VL(fused_head=True)


@pytest.mark.parametrize(("found", "said"), [("0.8.1", "liger-kernel 0.8.1 gives every token"), ("0.10.0", None)])
def test_a_kernel_with_wrong_gradients_is_refused(monkeypatch, found, said):
    monkeypatch.setattr(fused, "version", lambda name: found)
    monkeypatch.setattr(fused, "_kernel", lambda *names: names[1])
    if said is None:
        assert fused.load_kernel() == "LigerFusedLinearCrossEntropyFunction"
        return
    with pytest.raises(UserError, match=said):
        fused.load_kernel()


def norm(x, weight, eps, offset, rounds, in_place):
    """As liger-kernel documents it: "llama" rounds before it multiplies, "gemma" after."""
    wide = x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + eps)
    if rounds == "llama":
        normed = wide.to(x.dtype) * (offset + weight)
    else:
        normed = (wide * (offset + weight.float())).to(x.dtype)
    return normed.flatten().view(x.shape)  # laid out anew


def steady(x_NT):
    """What a kernel that knows the stride of the tokens alone reads."""
    return x_NT.as_strided(x_NT.shape, (x_NT.shape[1] * x_NT.stride(1), *x_NT.stride()[1:]))


def rotate(q, k, cos, sin):
    q, k = (steady(x.transpose(1, 2)).transpose(1, 2) if x.shape[2] == 1 else x for x in (q, k))
    cos, sin = (steady(x) if len(x) > 1 else x for x in (cos, sin))

    def rotated(x):
        one, two = x.chunk(2, -1)
        return (x * cos[:, None] + torch.cat([-two, one], -1) * sin[:, None]).to(x.dtype)

    return rotated(q), rotated(k)


KERNELS = {
    "LigerRMSNormFunction": norm,
    "LigerRopeFunction": rotate,
    "LigerSiLUMulFunction": lambda gate, up: F.silu(gate) * up,
    "LigerGELUMulFunction": lambda gate, up: F.gelu(gate, approximate="tanh") * up,
}


@pytest.fixture
def stand_ins(monkeypatch):
    """Kernels that run anywhere, and the names of those that were called."""
    called = Counter()

    def stand_in(module, name):
        def apply(*inputs):
            called[name] += 1
            return KERNELS[name](*inputs)

        return SimpleNamespace(apply=apply)

    monkeypatch.setattr(fused, "find_spec", lambda name: name)
    monkeypatch.setattr(fused, "_kernel", stand_in)
    for family in ("qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe", "gemma3"):
        module = import_module(f"transformers.models.{family}.modeling_{family}")
        for name in (fused.ROTATION, fused.TOWER_ROTATION):
            monkeypatch.setattr(module, name, getattr(module, name, None), raising=False)
    return called


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_fused_layers_compute_what_the_library_s_do(family, family_folder, stand_ins, monkeypatch, dtype):
    policy = family_of(str(family_folder))(str(family_folder), dtype=dtype, **family.caps).load().eval()
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "norm" in name:
                parameter.normal_(std=0.5)  # as they are made, an offset would not be seen
    image = noise_image(448, 448)
    rows = roll_out(policy, InProcessSampler(), TwoTurn(), [(make_question(image), image)], 2, Sampling(4), (0, 0))
    batch = collate(rows, policy.positions, policy.pad_id)
    with torch.no_grad():
        plain = score(policy, batch).logprobs_NC
        assert not stand_ins
        monkeypatch.setattr(fused, "fuses", lambda x: True)
        again = score(policy, batch).logprobs_NC
    fast = roll_out(policy, InProcessSampler(), TwoTurn(), [(make_question(image), image)], 2, Sampling(4), (0, 0))
    if dtype == "float32":
        for row, other in zip(rows, fast, strict=True):
            for turn, fused_turn in zip(row.turns, other.turns, strict=True):
                assert fused_turn.reply.logprobs == pytest.approx(turn.reply.logprobs, abs=1e-4)
    assert torch.allclose(again, plain, atol=1e-4 if dtype == "float32" else 0.05)
    wanted = {"LigerRMSNormFunction"} | ({"LigerRopeFunction"} if not family.name.startswith("qwen3_5") else set())
    assert wanted <= stand_ins.keys()
    if family.name != "gemma3":  # whose tower has no rotation
        before = stand_ins["LigerRopeFunction"]
        with torch.no_grad():
            policy.tower([policy.pixels(image)])
        assert stand_ins["LigerRopeFunction"] - before == len(policy.model.model.visual.blocks)
    if family.name not in ("qwen3_vl_moe", "gemma3"):  # a mixture's experts are no layers with gates
        assert "LigerSiLUMulFunction" in stand_ins
    assert ("LigerGELUMulFunction" in stand_ins) == (family.name == "gemma3")


@pytest.mark.parametrize("bias", [False, True])
def test_gates_of_odd_widths_are_computed_with_zeros_behind(stand_ins, monkeypatch, bias):
    """Of products whose rows are no multiple of 16 bytes GPUs make several times as much work."""
    torch.manual_seed(0)
    mlp = Qwen2_5_VLMLP(SimpleNamespace(hidden_size=16, intermediate_size=19, hidden_act="silu"), bias)
    fused.fuse_layers(mlp)
    x = torch.randn(5, 16, requires_grad=True)
    upstream = torch.randn(5, 16)
    plain = mlp(x)
    expected = torch.autograd.grad(plain, [x, *mlp.parameters()], upstream)
    monkeypatch.setattr(fused, "fuses", lambda x: True)
    widths = []
    product = F.linear
    monkeypatch.setattr(
        F, "linear", lambda x, weight, bias=None: widths.append(weight.shape) or product(x, weight, bias)
    )
    again = mlp(x)
    assert widths == [(24, 16), (24, 16), (16, 24)]
    torch.testing.assert_close(again, plain)
    for ours, theirs in zip(torch.autograd.grad(again, [x, *mlp.parameters()], upstream), expected):
        torch.testing.assert_close(ours, theirs)
