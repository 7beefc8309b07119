"""Audits in the course of training: their curves, their warning, several ranks; and training stays as it is."""

import json
from types import SimpleNamespace

import pytest
import torch

from mgpo.callbacks import EarlyWarning, GroundingAudit, grounding_audit
from mgpo.data import Scenes
from mgpo.errors import UserError
from mgpo.monitoring.alarms import Limits
from mgpo.policy import Qwen25VL
from mgpo.world.model import CAPS
from tests.helpers import sharded
from tests.training.test_module import MGPO, equal, fit, make, weights


class OnScenes(GroundingAudit):
    """On small scenes, whatever the data are; keeps its rows."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.kept = []

    def on_train_start(self, trainer, pl_module):
        self.fixed.choose([Scenes(3, split="val", side=128)])

    def _rows(self, trainer, pl_module):
        self.kept.append(super()._rows(trainer, pl_module))
        return self.kept[-1]


def test_auditing_changes_nothing(tokenizer, tmp_path, monkeypatch):
    """Weights and random numbers bit for bit, with an audit after every step, in evaluation mode."""
    results, modes, play = [], [], grounding_audit.audit_batch
    monkeypatch.setattr(
        grounding_audit, "audit_batch", lambda *a, **k: modes.append(module.policy.training) or play(*a, **k)
    )
    for callbacks in ([], [OnScenes(1, 2)]):
        torch.manual_seed(5)
        module = make(tokenizer)
        trainer = fit(module, tmp_path, enable_checkpointing=False, callbacks=callbacks)
        results.append((weights(module), torch.rand(1)))
    assert equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])
    assert {"audit/accuracy", "audit/crop_rate"} <= set(trainer.callback_metrics)
    assert len(callbacks[0].kept) == trainer.global_step and modes == [False] * trainer.global_step


@pytest.mark.parametrize("blind", [False, True])
def test_a_policy_that_ignores_its_crops_is_warned_of(blind, tmp_path, capsys, monkeypatch):
    """The embedded base reads its crops; with black features it is told to be blind to them."""
    policy = Qwen25VL(**CAPS).load()
    audit, warner = GroundingAudit(1, 12), EarlyWarning(Limits(margin_checks=2), every_n_steps=0)
    audit.fixed.choose([Scenes(12, split="val", side=512)])
    module = MGPO(policy)
    module.log_dict = lambda found, **_: logged.append(found)
    module.print = print
    logged, trainer = [], SimpleNamespace(
        global_step=0, global_rank=0, world_size=1, callbacks=[warner], is_global_zero=True,
        precision_plugin=SimpleNamespace(forward_context=torch.no_grad),
    )  # fmt: skip
    module._trainer = trainer
    monkeypatch.setattr("mgpo.callbacks.early_warning.run_folder", lambda _: tmp_path)
    if blind:  # to crops alone, which are fewer patches than whole pictures
        features = policy.features
        monkeypatch.setattr(policy, "features", lambda images: features(images) * whole(images))
    for step in (1, 2, 3):
        trainer.global_step = step
        for callback in (audit, warner):
            callback.on_train_batch_end(trainer, module, None, None, step)
    assert policy.training
    curves = [found for found in logged if "audit/accuracy" in found]
    assert len(curves) == 3 and curves[0]["audit/crop_rate"] > 0
    if blind:
        assert [json.loads(line)["kind"] for line in (tmp_path / "warnings.jsonl").read_text().splitlines()] == [
            "crop_blind"
        ]
        assert curves[0]["audit/crop"] == curves[0]["audit/black"]
        assert curves[0]["audit/margin"] == pytest.approx(0, abs=1e-4)
        assert "do not rest on what is cut out" in capsys.readouterr().out
    else:
        assert curves[0]["audit/margin"] > 1 and not (tmp_path / "warnings.jsonl").exists()
        assert curves[0]["audit/crop"] > curves[0]["audit/black"]


def whole(images):
    """By token of these pictures, 1 for those of whole ones."""
    return torch.cat([torch.full((len(i.patches) // 4, 1), float(len(i.patches) == 64)) for i in images])


def audit_apart(rank, folder):
    """On each of two ranks."""
    audit = OnScenes(1, 3)
    sharded.fit(sharded.make("mgpo"), folder, ranks=2, steps=2, callbacks=[audit])
    (folder / f"audited-{rank}.json").write_text(json.dumps(audit.kept))


def test_ranks_share_the_questions(two_ranks):
    first, second = (json.loads((two_ranks / f"audited-{rank}.json").read_text()) for rank in (0, 1))
    assert [[row["id"] for row in rows] for rows in first] == [["attribute-2-0-0", "attribute-2-0-2"]] * 2
    assert [[row["id"] for row in rows] for rows in second] == [["attribute-2-0-1"]] * 2


@pytest.mark.parametrize("arguments", [(0, 4), (4, 0)])
def test_nothing_to_audit_is_refused(arguments):
    with pytest.raises(UserError, match="at least 1"):
        GroundingAudit(*arguments)


def test_a_run_that_goes_on_audits_when_it_would_have(tokenizer):
    before, after = GroundingAudit(), GroundingAudit()
    before.measured = 40
    after.load_state_dict(json.loads(json.dumps(before.state_dict())))
    assert after.measured == 40
