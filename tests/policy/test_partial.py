"""Training a part of the model: what moves, what is kept in memory, and what a checkpoint holds."""

import jsonargparse
import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import OptimizerCallable
from transformers.modeling_layers import GradientCheckpointingLayer

from mgpo.data.module import VQAData
from mgpo.data.scenes import Scenes
from mgpo.dialogues import TwoTurn
from mgpo.errors import UserError
from mgpo.images.boxes import BoxRule
from mgpo.objective import Objective
from mgpo.policy.families.qwen2_5_vl import Qwen25VL
from mgpo.policy.hub.checkpoint_files import family_of
from mgpo.policy.hub.run_weights import policy_weights
from mgpo.policy.lora import Lora
from mgpo.policy.passes import attention
from mgpo.policy.passes.batch import collate
from mgpo.policy.passes.logprobs import score
from mgpo.policy.trainable import split
from mgpo.rollout.episodes import roll_out
from mgpo.rollout.in_process import InProcessSampler, Sampling
from tests.conftest import make_policy, make_question, noise_image
from tests.training.test_module import Noisy, adam, fit, weights

FEW = Sampling(max_new_tokens=6)
LORA = Lora(rank=2, alpha=4)
SIZES = [(448, 448), (300, 500)]


def load(family, folder, **options):
    return family_of(str(folder))(str(folder), **family.caps, **options).load()


def make(policy, **options):
    return Noisy(policy.train(), group_size=4, sampling=FEW, eval_sampling=FEW, **{"optimizer": adam, **options})


def blocks_of(policy):
    return [m for m in policy.modules() if isinstance(m, GradientCheckpointingLayer)]


def stir(policy):
    """Fresh adapters are drawn at random, change nothing, and half of their gradients are zero."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in policy.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(std=0.3, generator=generator)


@pytest.fixture(scope="module")
def batch(family_policy):
    return batch_of(family_policy)


def batch_of(policy):
    """Two turns of two questions, with replies of different lengths."""
    samples = [(make_question(noise_image(*size), f"q{i}"), noise_image(*size)) for i, size in enumerate(SIZES)]
    dialogue = TwoTurn(rule=BoxRule(min_side=8))
    rows = roll_out(policy, InProcessSampler(), dialogue, samples, 2, Sampling(max_new_tokens=10), (0, 0))
    return collate(rows, policy.positions, policy.pad_id)


def learn(policy, batch):
    """Log-probs, gradients, and how many values the forward pass keeps for the backward pass."""
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        logprobs = score(policy, batch).logprobs_NC
    draws = torch.randn(logprobs.shape, generator=torch.Generator().manual_seed(0))
    policy.zero_grad()
    (logprobs * draws.to(logprobs.device)).sum().backward()
    grads = {name: p.grad for name, p in policy.named_parameters() if p.grad is not None}
    return logprobs.detach(), grads, sum(kept)


@pytest.mark.parametrize(
    "options", [{}, {"lora": Lora(rank=2, vision=True)}, {"freeze_vision": True}], ids=["whole", "adapters", "frozen"]
)
def test_layers_that_are_run_again_give_the_same_gradients(family, family_folder, batch, options):
    """With prefixes shared through the cache, and memory for less; of half of the layers, for half of that."""
    results = []
    for again in (False, 0.5, True):
        policy = load(family, family_folder, gradient_checkpointing=again, **options).train()
        stir(policy)
        results.append(learn(policy, batch))
    (plain, plain_grads, much), *reruns = results
    for rerun, rerun_grads, _ in reruns:
        assert torch.equal(plain, rerun)
        assert plain_grads and plain_grads.keys() == rerun_grads.keys()
        for name, grad in plain_grads.items():
            assert (grad - rerun_grads[name]).abs().max() <= 1e-5 * grad.abs().max(), name
    half, little = (kept for *_, kept in reruns)
    assert little < much / 2 and little + (much - little) / 4 < half < much - (much - little) / 4


def test_attention_of_layers_that_are_run_again_is_computed_once(tokenizer, monkeypatch):
    policy = make_policy(tokenizer, gradient_checkpointing=True)
    batch, calls, compute = batch_of(policy), [], attention._look
    monkeypatch.setattr(attention, "_look", lambda *args: calls.append(1) or compute(*args))
    policy.train()
    for _ in range(2):
        learn(policy, batch)
    assert len(calls) == 2 * len(policy.model.model.language_model.layers)


@pytest.mark.parametrize("share", [-0.1, 2, float("nan")])
def test_no_other_share_of_layers_is_run_again(share):
    with pytest.raises(UserError, match=f"gradient_checkpointing is {share}; it is true, false, or the share"):
        Qwen25VL("embedded", gradient_checkpointing=share)


def test_adapters_are_in_attention_and_feed_forward_of_every_layer(family, family_folder):
    policy = load(family, family_folder, dtype="bfloat16", lora=Lora(rank=2, vision=True))
    trained, frozen = split(policy)
    assert {value.dtype for value in trained.values()} == {torch.float32}
    assert {value.dtype for value in frozen.values() if value.is_floating_point()} == {torch.bfloat16}
    experts = "moe" in family.name
    for block in blocks_of(policy):
        names = {name for name, p in block.named_parameters() if p.requires_grad}
        seeing = block not in list(policy.model.model.language_model.layers)
        assert any("attn." in name for name in names)
        assert (experts and not seeing) or any("mlp." in name for name in names)
    assert all("lora_" in name for name in trained)
    blind, _ = split(load(family, family_folder, lora=LORA))
    assert blind and all("language_model.layers" in name for name in blind)


def test_adapters_on_a_base_in_bfloat16_take_small_steps(tokenizer):
    """A step of 1e-6 is lost in bfloat16, and not in them; log-probs are float32."""
    policy = make_policy(tokenizer, lora=LORA)
    for parameter in split(policy)[1].values():
        parameter.data = parameter.data.bfloat16()
    image = noise_image(448, 448)
    rows = roll_out(policy, InProcessSampler(), TwoTurn(), [(make_question(image), image)], 2, FEW, (0, 0))
    logprobs, grads, _ = learn(policy, collate(rows, policy.positions, policy.pad_id))
    assert logprobs.dtype == torch.float32
    before = weights(make(policy))
    adam_at = torch.optim.AdamW([p for p in policy.parameters() if p.requires_grad], lr=1e-6, weight_decay=0.0)
    adam_at.step()
    moved = [name for name, value in policy.named_parameters() if (value != before[name]).any()]
    assert moved == [name for name, grad in grads.items() if grad.any()] and moved


def test_a_frozen_tower_stays_and_costs_nothing(tokenizer, tmp_path):
    policy = make_policy(tokenizer, freeze_vision=True, gradient_checkpointing=True)
    module = make(policy)
    before = weights(module)
    trainer = fit(module, tmp_path, questions=4, enable_checkpointing=False)
    moved = {name for name, value in weights(module).items() if not torch.equal(value, before[name])}
    assert moved and all("visual" not in name for name in moved)
    assert any("embed_tokens" in name for name in moved)
    in_optimizer = {id(p) for group in trainer.optimizers[0].param_groups for p in group["params"]}
    assert not in_optimizer & {id(p) for p in policy.model.model.visual.parameters()}
    image = policy.pixels(noise_image(56, 56))
    assert not policy.features([image]).requires_grad


@pytest.mark.parametrize("options", [{"lora": LORA}, {"freeze_vision": True}], ids=["adapters", "frozen"])
def test_a_frozen_tower_sees_every_picture_once_a_step(tokenizer, tmp_path, options):
    """Not again for the update, its second epoch, or the reference, which is the base or a frozen copy."""
    seen = []
    policy = make_policy(tokenizer, **options)

    def watched(images):
        seen.extend(images)
        return Qwen25VL.tower(policy, images)

    policy.tower = watched
    fit(make(policy, objective=Objective(kl_weight=0.1), epochs=2), tmp_path, questions=4, enable_checkpointing=False)
    assert len(set(seen)) == len(seen) >= 4  # each of the four questions has a picture


@pytest.fixture(scope="module")
def adapted(tokenizer, tmp_path_factory):
    """A run of two steps with adapters and a penalty, and its folder with a checkpoint of every step."""
    folder = tmp_path_factory.mktemp("adapted")
    module = make(make_policy(tokenizer, lora=LORA), objective=Objective(kl_weight=0.1))
    saver = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    fit(module, folder, questions=4, callbacks=[saver])
    return module, folder


def test_a_checkpoint_holds_what_was_trained(adapted):
    module, folder = adapted
    saved = policy_weights(str(folder / "step=2.ckpt"))
    trained, frozen = split(module.policy)
    assert saved.keys() - {"base"} == trained.keys() and frozen
    assert all(torch.equal(saved[name], value) for name, value in trained.items())
    assert (folder / "step=2.ckpt").stat().st_size < 20 * sum(p.numel() for p in trained.values()) + 200_000


def test_a_run_with_adapters_resumes_and_validates_bit_for_bit(adapted, tokenizer, tmp_path):
    whole, folder = adapted
    again = make(make_policy(tokenizer, lora=LORA), objective=Objective(kl_weight=0.1))
    fit(again, tmp_path, questions=4, ckpt_path=str(folder / "step=1.ckpt"), enable_checkpointing=False)
    shown = make(make_policy(tokenizer, lora=LORA))
    data = VQAData(train=Scenes(2, side=128), val=[Scenes(1, side=128, split="val")], num_workers=0)
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    trainer.validate(shown, data, ckpt_path=str(folder / "step=2.ckpt"), weights_only=True, verbose=False)
    expected = weights(whole)
    for module in (again, shown):
        assert all(torch.equal(value, expected[name]) for name, value in weights(module).items())


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"lora": Lora(rank=3)}, r"is \(2, \d+\) in the checkpoint and \(3, \d+\) in this policy"),
        ({"lora": Lora(rank=2, vision=True)}, "lacks .*visual.*, which this policy trains"),
        ({}, "holds .*lora_.*, which this policy has not"),
        ({"lora": LORA, "seed": 1}, "another base"),
    ],
    ids=["rank", "targets", "no adapters", "base"],
)
def test_a_checkpoint_of_another_policy_is_refused_in_a_sentence(adapted, tokenizer, tmp_path, options, reason):
    _, folder = adapted
    module = make(make_policy(tokenizer, **options))
    with pytest.raises(UserError, match=reason) as caught:
        fit(module, tmp_path, ckpt_path=str(folder / "step=1.ckpt"), enable_checkpointing=False)
    assert "\n" not in str(caught.value)


def test_a_whole_checkpoint_starts_a_run_that_trains_a_part(tokenizer):
    whole = make_policy(tokenizer, seed=1)
    partial = make_policy(tokenizer, freeze_vision=True)
    partial.load_state_dict(whole.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), partial.parameters()))
    assert all("visual" not in name for name in partial.state_dict())


def test_a_tower_is_not_both_frozen_and_adapted():
    with pytest.raises(UserError, match="freeze_vision"):
        Qwen25VL(freeze_vision=True, lora=Lora(vision=True))


class Recorded(torch.optim.SGD):
    """An optimiser of some other package, such as one with 8-bit states."""


def optimizer_of(class_path):
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--optimizer", type=OptimizerCallable)
    chosen = {"class_path": class_path, "init_args": {"lr": 0.5}}
    return parser.instantiate(parser.parse_object({"optimizer": chosen})).optimizer


def test_any_optimiser_by_class_path_gets_the_trained_parameters(tokenizer):
    policy = make_policy(tokenizer, lora=LORA)
    optimizer = make(policy, optimizer=optimizer_of("tests.policy.test_partial.Recorded")).configure_optimizers()
    (group,) = optimizer.param_groups
    assert type(optimizer).__name__ == "Recorded" and group["lr"] == 0.5
    assert {id(p) for p in group["params"]} == {id(p) for p in policy.parameters() if p.requires_grad}


def test_an_optimiser_that_is_not_installed_is_named():
    with pytest.raises(jsonargparse.ArgumentError, match="bitsandbytes_missing"):
        optimizer_of("bitsandbytes_missing.optim.AdamW8bit")
