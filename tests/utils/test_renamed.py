"""Configurations of earlier runs: their names are those of today once they are read."""

import importlib

import pytest

from mgpo.utils.configurations import load
from mgpo.utils.renamed import MODULES, present_curve

RUN = """
model:
  policy: {class_path: mgpo.policy.qwen2_5_vl.Qwen25VL, init_args: {path: embedded}}
  silent_groups: refill
  refill_batches: 3
  extras: [{class_path: mgpo.extras.TurnCost}]
trainer:
  callbacks: [{class_path: mgpo.callbacks.EarlyWarning, init_args: {limits: {silent_window: 30}}}]
data:
  silent_groups: not a key of the model
"""


def test_names_of_earlier_runs_are_understood():
    config = load(RUN)
    assert config["model"]["policy"]["class_path"] == "mgpo.policy.Qwen25VL"
    assert config["model"]["policy"]["init_args"] == {"path": "embedded"}
    assert config["model"]["constant_reward_groups"] == "resample"
    assert config["model"]["resample_batches"] == 3
    assert config["model"]["shaping"] == [{"class_path": "mgpo.rewards.TurnCost"}]
    (callback,) = config["trainer"]["callbacks"]
    assert callback["init_args"] == {"limits": {"constant_window": 30}}
    assert config["data"] == {"silent_groups": "not a key of the model"}


def test_a_saver_of_ones_own_stays_what_it_is():
    saver = "class_path: lightning.pytorch.callbacks.ModelCheckpoint, init_args: {filename: last"
    plain, best = (load(f"[{{{saver}{more}}}}}]")[0]["class_path"] for more in ("", ", monitor: val/accuracy"))
    assert plain == "mgpo.callbacks.LastCheckpoint" and best == "lightning.pytorch.callbacks.ModelCheckpoint"


@pytest.mark.parametrize("home", sorted(set(MODULES.values())))
def test_there_are_such_packages(home):
    importlib.import_module(home.rstrip("."))


def test_curves_of_training_get_their_names_of_today_and_no_others_do():
    assert [present_curve(f"train/{name}", 8) for name in ("zoom", "right", "pass", "majority", "kl")] == [
        "train/zoom_factor", "train/accuracy", "train/pass@8", "train/majority@8", "train/kl",
    ]  # fmt: skip
    assert present_curve("valid_box") == "valid_box_ratio" and present_curve("train/pass") == "train/pass"
    for name in ("step", "val/right", "speed/zoom", "train/zoom_factor", "train/pass@4"):
        assert present_curve(name, 8) == name
