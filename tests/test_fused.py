"""The fused head against plain logits; Triton runs it interpreted where there is no GPU."""

import subprocess
import sys
from importlib.util import find_spec

import pytest

from mgpo.errors import UserError
from mgpo.policy.qwen2_5_vl import Qwen25VL

KERNEL = bool(find_spec("liger_kernel") and find_spec("triton"))
COMPARE = """
import torch
from mgpo.policy.fused import fused_logprobs
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
    subprocess.run([sys.executable, "-c", COMPARE], check=True, env={"TRITON_INTERPRET": "1", "PATH": ""})


@pytest.mark.skipif(KERNEL, reason="liger-kernel is installed")
def test_without_the_kernel_it_is_one_sentence():
    with pytest.raises(UserError, match="pip install"):
        Qwen25VL(fused_head=True)
