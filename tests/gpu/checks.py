"""What has to hold on a device, as functions of the device: `test_gpu_checks` runs them on the CPU too."""

import copy
import csv
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from mgpo.cli import main
from mgpo.dialogues import SingleTurn, TwoTurn
from mgpo.inference.predict import predict
from mgpo.policy.base import Policy
from mgpo.policy.hub.checkpoint_files import family_of
from mgpo.policy.passes.batch import collate
from mgpo.policy.passes.logprobs import score
from mgpo.rollout.in_process import Sampling
from mgpo.tools.doctor.case import Case
from mgpo.types import Trajectory
from mgpo.utils.configurations import shipped_config
from tests.helpers.cases import RULE, SAMPLES, case_of
from tests.helpers.families import Family, save_checkpoint
from tests.training.test_module import equal, fit, make, weights

DIALOGUE = TwoTurn(rule=RULE, turns=3)
HALF = torch.bfloat16


@dataclass(frozen=True)
class Gaps:
    """In nats: of tokens the largest gap or the mean one; of gradients the norm of the error over their own."""

    trainer: float  # to the CPU's log-probs
    trainer_mean: float
    sampler: float  # to the trainer's log-probs on the same device
    gradient: float  # to those in float64 on the CPU


def load(family: Family, folder: Path) -> Policy:
    return family_of(str(folder))(str(folder), **family.caps).load().eval()


def with_heads(family: Family, width: int, tower_heads: int = 2) -> Family:
    """The same family with two heads of another width, and so another width of its states."""
    rope = dict(family.text["rope_parameters"])
    half = width // 2
    rope["mrope_section"] = [half - half // 4 - half // 4, half // 4, half // 4]
    heads = dict(hidden_size=2 * width, head_dim=width, num_attention_heads=2, num_key_value_heads=1)
    vision = family.vision | dict(num_heads=tower_heads, out_hidden_size=2 * width)
    return replace(family, text=family.text | heads | dict(rope_parameters=rope), vision=vision)


def gaps_of(policy: Policy, device: str, new_tokens: int = 24, dialogue=DIALOGUE, half: bool = False) -> Gaps:
    """A policy on the CPU against its copy on a device, on what that one said there, in float32 or under autocast."""
    there = copy.deepcopy(policy).to(device)
    with _precision(device, half):
        case = case_of(there, dialogue, samples=SAMPLES, sampling=Sampling(new_tokens))
        rows = case.scored
        found, gradients = learn(there, rows)
    expected, _ = learn(policy, rows)
    _, exact = learn(in_double(policy), rows)
    gap_M = (found - expected).abs()
    return Gaps(gap_M.max().item(), gap_M.mean().item(), sampler_gap(case, found), distance(gradients, exact))


def in_double(policy: Policy) -> Policy:
    """A copy; the library's grouped products of experts take no float64, so these are called one by one."""
    exact = copy.deepcopy(policy).double()
    exact.model.set_experts_implementation("eager")
    return exact


def _precision(device: str, half: bool):
    return torch.autocast(torch.device(device).type, HALF) if half else nullcontext()


def learn(policy: Policy, rows: Sequence[Trajectory]) -> tuple[Tensor, dict[str, Tensor]]:
    """(M,) log-probs of all learnt tokens, row by row, and the gradients of a sum of these with fixed weights."""
    batch = collate(rows, policy.positions, policy.pad_id).to(policy.device)
    logprobs_M = score(policy, batch).logprobs_NC[batch.policy_NC]
    weights_M = torch.randn(len(logprobs_M), generator=torch.Generator().manual_seed(0))
    policy.zero_grad()
    (logprobs_M * weights_M.to(logprobs_M)).sum().backward()
    gradients = {name: p.grad.cpu().double() for name, p in policy.named_parameters() if p.grad is not None}
    policy.zero_grad()
    return logprobs_M.detach().cpu().double(), gradients


def sampler_gap(case: Case, trained_M: Tensor) -> float:
    """The largest gap of a token between the log-prob under which it was drawn and the trainer's."""
    drawn = [value for t in case.scored for turn in t.turns if turn.learnt for value in turn.reply.logprobs]
    return (trained_M - torch.tensor(drawn, dtype=torch.double)).abs().max().item()


def distance(found: dict[str, Tensor], exact: dict[str, Tensor]) -> float:
    assert found.keys() == exact.keys()
    error = sum((found[name] - exact[name]).square().sum() for name in exact)
    return (error / sum(g.square().sum() for g in exact.values())).sqrt().item()


def family_gaps(family: Family, folder: Path, device: str, **options) -> Gaps:
    return gaps_of(load(family, folder), device, **options)


def head_gaps(family: Family, width: int, tower_heads: int, folder: Path, device: str, half: bool = False) -> Gaps:
    other = with_heads(family, width, tower_heads)
    return family_gaps(other, save_checkpoint(other, folder), device, new_tokens=8, half=half)


def short_gaps(family: Family, folder: Path, device: str, half: bool = False) -> Gaps:
    """Replies of a single token: the last layer has a query a row."""
    return family_gaps(family, folder, device, new_tokens=1, dialogue=SingleTurn(), half=half)


def resumes(tokenizer, folder: Path, accelerator: str) -> bool:
    """Whether a run that goes on from its middle ends with the weights of one that was left alone, bit for bit."""
    whole, again = make(tokenizer), make(tokenizer)
    saver = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    fit(whole, folder, questions=4, callbacks=[saver], accelerator=accelerator)
    begun = str(folder / "step=1.ckpt")
    fit(again, folder, questions=4, ckpt_path=begun, enable_checkpointing=False, accelerator=accelerator)
    return equal(weights(whole), weights(again))


def fit_default(folder: Path, accelerator: str, *options: str) -> list[dict[str, float]]:
    """The rows of `metrics.csv` after a `fit` of the embedded default, preflight included."""
    main([
        "fit", "--config", str(shipped_config("mgpo")), f"--trainer.accelerator={accelerator}", "--measure=never",
        f"--trainer.logger.init_args.save_dir={folder}", "--trainer.log_every_n_steps=1", *options,
    ])  # fmt: skip
    with (folder / "mgpo/version_0/metrics.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    return [{name: float(value) for name, value in row.items() if value} for row in rows]


def validate_default(folder: Path, accelerator: str, *options: str) -> None:
    """`validate` of a run's end; its report lies in a run's folder of its own."""
    trained = folder / "mgpo/version_0/checkpoints/trained.ckpt"
    main([
        "validate", "--config", str(shipped_config("mgpo")), f"--trainer.accelerator={accelerator}",
        f"--trainer.logger.init_args.save_dir={folder}", f"--ckpt_path={trained}", *options,
    ])  # fmt: skip


def predict_default(pictures: Path, output: Path) -> int:
    """Rows that `predict` writes about a folder of pictures, on the first GPU where there is one."""
    predict(str(pictures), str(output), "Which letter stands on the red mark?")
    return len(output.read_text().splitlines())
