"""On a GPU as on the CPU: every family, every kernel that a shape may need, and the commands."""

import warnings

import pytest
import torch
from lightning.pytorch.accelerators import cuda

from mgpo.objective import Objective
from mgpo.policy.lora import Lora
from mgpo.policy.passes.batch import collate
from mgpo.rollout.in_process import InProcessSampler
from mgpo.training.loss import policy_loss
from mgpo.vllm.sampler import keep_workspaces
from tests.conftest import make_pictures, make_policy
from tests.gpu import checks
from tests.helpers.cases import SAMPLES, case_of, failures
from tests.helpers.families import ALL
from tests.policy.test_partial import batch_of, learn, load, stir
from tests.policy.test_prompt_cache import dense
from tests.training.test_rescore import play

GPU = "cuda"
EXACT, TRAINER, GRADIENT = 1e-4, 1e-3, 1e-2  # in float32: nats, nats, and the share of a gradient's norm
ROUGH, ROUGH_GRADIENT = 0.1, 0.5  # under autocast: nats on average, and the share; other experts may be chosen
(QWEN,) = [family for family in ALL if family.name == "qwen2_5_vl"]
HEADS = [(8, 2), (12, 4), (16, 2), (40, 4), (128, 2), (256, 2)]


def close(gaps, half=False):
    if half:
        assert gaps.trainer_mean < ROUGH and gaps.gradient < ROUGH_GRADIENT, gaps
    else:
        assert gaps.trainer <= TRAINER and gaps.sampler <= EXACT and gaps.gradient <= GRADIENT, gaps


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bf16"])
def test_every_family_is_as_on_the_cpu(family, family_folder, half):
    """Log-probs of the packed pass, gradients against float64, and the sampler's log-probs against the trainer's."""
    close(checks.family_gaps(family, family_folder, GPU, half=half), half)


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bf16"])
@pytest.mark.parametrize(("width", "tower_heads"), HEADS)
def test_heads_of_every_width_have_a_kernel(width, tower_heads, half, tmp_path):
    close(checks.head_gaps(QWEN, width, tower_heads, tmp_path, GPU, half), half)


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bf16"])
def test_few_queries_have_a_kernel(family, family_folder, half):
    close(checks.short_gaps(family, family_folder, GPU, half), half)


@pytest.mark.parametrize("kind", ["float32", "autocast", "adapters"])
def test_layers_that_are_run_again_give_the_same_gradients(family, family_folder, kind):
    """Sums of gradients are made in any order, so they differ in their last digits. Weights stay as they are."""
    options = dict(dtype="bfloat16", lora=Lora(rank=4)) if kind == "adapters" else {}
    batch, results = batch_of(load(family, family_folder, **options)), []
    for again in (False, 0.5, True):
        policy = load(family, family_folder, gradient_checkpointing=again, **options)
        stir(policy)
        before = {name: value.clone() for name, value in policy.state_dict().items()}
        with torch.autocast(GPU, torch.bfloat16, enabled=kind == "autocast"):
            logprobs, grads, _ = learn(policy.to(GPU).train(), batch.to(torch.device(GPU)))
        results.append((logprobs, torch.cat([grads[name].flatten().float() for name in sorted(grads)])))
        assert all(torch.equal(before[name], value.cpu()) for name, value in policy.state_dict().items())
    (plain, gradient), *reruns = results
    for rerun, again in reruns:
        assert (plain - rerun).abs().max() <= (1e-5 if kind == "float32" else 0.01)
        assert (gradient - again).norm() <= (1e-4 if kind == "float32" else 0.02) * gradient.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    ("rows", "heads", "shared", "width", "prompt", "own"),
    [(5, 6, 2, 8, 300, 70), (3, 8, 4, 40, 20, 513), (64, 16, 2, 128, 1353, 320), (2, 28, 4, 256, 600, 1700)],
)
def test_sampled_tokens_see_their_prompt_and_themselves(rows, heads, shared, width, prompt, own, dtype):
    """Prompts of several lengths, tokens with holes before them, and columns that are not in use."""
    from mgpo.policy.decoding.step_kernel import step_attention

    torch.manual_seed(0)
    q = torch.randn(rows, heads, width, device=GPU).to(dtype)
    keys, values = torch.randn(2, 3, shared, prompt + 13, width, device=GPU).to(dtype)[:, :, :, :prompt]
    own_keys, own_values = torch.randn(2, rows + 2, shared, own, width, device=GPU).to(dtype)[:, :rows]
    lengths_B, owner_N = torch.randint(1, prompt + 1, (3, 1), device=GPU), torch.randint(3, (rows,), device=GPU)
    valid_BP = torch.arange(prompt, device=GPU) < lengths_B
    valid_NS = (torch.rand(rows, own, device=GPU) < 0.6) & (torch.arange(own, device=GPU) < own - 20)
    column = torch.tensor([own - 20], device=GPU)
    valid_NS[:, column] = True
    whole = [torch.cat([kept[owner_N], new], 2) for kept, new in ((keys, own_keys), (values, own_values))]
    mask = torch.cat([valid_BP[owner_N], valid_NS], 1)[:, None, None]
    expected, _ = dense(q[:, :, None], *whole, mask, 0.1)
    prompts = keys, values, valid_BP, owner_N.int()
    found = step_attention(q, prompts, (own_keys, own_values, valid_NS, column), 0.1)
    assert (found.double() - expected[:, :, 0]).abs().max() < (1e-5 if dtype == torch.float32 else 0.02)


def test_a_trainer_that_ends_leaves_the_workspaces_of_products(monkeypatch):
    """An engine's graphs go on writing into them."""
    with monkeypatch.context() as patches:
        patches.setattr(cuda, "_clear_cuda_memory", cuda._clear_cuda_memory)  # back again afterwards
        keep_workspaces()
        matrix = torch.ones(512, 512, device=GPU, dtype=torch.bfloat16)
        torch.mm(matrix, matrix)
        held = torch.cuda.memory_allocated()
        cuda.CUDAAccelerator().teardown()
        assert torch.cuda.memory_allocated() == held
    cuda.CUDAAccelerator().teardown()
    assert torch.cuda.memory_allocated() < held


def test_a_host_need_not_wait_for_a_pass(tokenizer):
    """By torch's own account, which knows most of what waits."""
    policy = make_policy(tokenizer, lora=Lora(rank=2, alpha=4)).to(GPU).train()
    batch = collate(play(policy, InProcessSampler()), policy.positions, policy.pad_id).to(policy.device)
    ones_N, waits = torch.ones(len(batch.ids_NC), device=GPU), []
    for mode in ("default", "warn"):  # kernels are loaded in a first pass
        torch.cuda.set_sync_debug_mode(mode)
        try:
            with warnings.catch_warnings(record=True) as waits:
                warnings.simplefilter("always")
                policy_loss(policy, batch, ones_N, ones_N, Objective(kl_weight=0.1), 1.0)[0].backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert not [wait for wait in waits if "synchronizing" in str(wait.message)]


def test_a_resumed_run_equals_an_uninterrupted_one(tokenizer, tmp_path):
    assert checks.resumes(tokenizer, tmp_path, "gpu")


def test_no_family_raises_an_alarm_of_the_doctor(family, family_folder):
    assert failures(case_of(checks.load(family, family_folder).to(GPU), samples=SAMPLES)) == {}


def test_the_doctor_passes_on_the_embedded_model(tokenizer):
    assert failures(case_of(make_policy(tokenizer).to(GPU), samples=SAMPLES)) == {}


@pytest.mark.filterwarnings("ignore:The dirpath has changed")  # `validate` has a folder of its own
def test_the_default_learns_validates_and_answers(tmp_path):
    """A quarter of the default run: many more boxes are valid at its end than at its beginning."""
    torch.cuda.reset_peak_memory_stats()
    val = "--data.val=[{class_path: mgpo.data.Scenes, init_args: {count: 8, side: 512, split: val}}]"
    rows = checks.fit_default(tmp_path, "gpu", "--data.train.init_args.count=320", val)
    valid = [row["train/valid_box_ratio"] for row in rows if "train/valid_box_ratio" in row]
    gap = max(row["train/sampler_gap"] for row in rows if "train/sampler_gap" in row)
    assert len(valid) == 40 and gap <= EXACT
    assert sum(valid[-8:]) / 8 > sum(valid[:8]) / 8 + 0.1, valid
    assert torch.cuda.max_memory_allocated() > 10 * 2**20  # it ran there
    checks.validate_default(tmp_path, "gpu", val)
    (pictures := tmp_path / "pictures").mkdir()
    assert checks.predict_default(make_pictures(pictures, 4), tmp_path / "rows.jsonl") == 4
