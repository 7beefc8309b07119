"""Whatever a configuration names may lack its package, or fail when it is made: one sentence says so."""

from pydoc import locate

import lightning.fabric.loggers.tensorboard as fabric_tensorboard
import lightning.pytorch.loggers.wandb as pytorch_wandb
import pytest
from lightning_utilities.core.imports import RequirementCache

from mgpo.commands.execute import execute
from mgpo.dialogues import Dialogue
from mgpo.errors import UserError
from mgpo.utils.configurations import made_from
from mgpo.utils.own_code import unmade
from tests.test_cli import ROOT, SMALL

ABSENT = {
    "TensorBoardLogger": (fabric_tensorboard, ("_TENSORBOARD_AVAILABLE", "_TENSORBOARDX_AVAILABLE"), "tensorboard"),
    "WandbLogger": (pytorch_wandb, ("_WANDB_AVAILABLE",), "wandb"),
    "MLFlowLogger": (None, (), "mlflow"),
    "CometLogger": (None, (), "comet-ml"),
}


def made_of(*arguments):
    """What the command line says of these arguments, once all classes are known and are to be made."""
    quiet = ["--trainer.callbacks=null", "--trainer.accelerator=cpu", "--preflight=off", "--measure=never"]
    with pytest.raises(UserError) as raised:
        execute("fit", ["--config", str(ROOT / "configs/mgpo.yaml"), *SMALL, *quiet, *arguments])
    return str(raised.value)


@pytest.mark.parametrize("logger", ABSENT)
def test_a_logger_without_its_package_says_what_to_install(tmp_path, monkeypatch, logger):
    monkeypatch.chdir(tmp_path)
    module, flags, package = ABSENT[logger]
    for flag in flags:
        name = flag.split("_")[1].lower().replace("boardx", "boardX")
        monkeypatch.setattr(module, flag, RequirementCache(f"{name}>=999"))
    path = f"lightning.pytorch.loggers.{logger}"
    assert made_of("--trainer.logger", path) == f"{path} needs {package}, which is not installed: pip install {package}"


@pytest.mark.parametrize(
    "text",
    [
        "`DeviceStatsMonitor` cannot log CPU stats as `psutil` is not installed.",
        "No module named 'psutil'",
        "Requirement 'psutil>=5' not met. HINT: Try running `pip install -U 'psutil>=5'`",
    ],
)
def test_so_does_what_notices_only_when_training_begins(text):
    assert "needs psutil, which is not installed: pip install psutil" in str(unmade(ModuleNotFoundError(text)))


def test_a_class_that_fails_when_it_is_made_is_named_with_its_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_logger.py").write_text(
        "from lightning.pytorch.loggers import CSVLogger\n\n\nclass Own(CSVLogger):\n"
        "    def __init__(self, save_dir: str = 'runs') -> None:\n        raise AttributeError('no quota left')\n"
    )
    said = made_of("--trainer.logger", "own_logger.Own")
    assert said.startswith("own_logger.Own can't be made: AttributeError: no quota left (")
    assert said.endswith("own_logger.py, line 6)")


@pytest.mark.parametrize(("given", "lacking"), [({}, "who"), ({"who": 3}, None), ({"who": 3, "what": None}, None)])
@pytest.mark.parametrize("kind", ["Needs", "Under"])
def test_an_argument_without_annotation_or_default_has_to_be_given(tmp_path, monkeypatch, kind, given, lacking):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_needs.py").write_text(
        "from mgpo.dialogues import TwoTurn\n\n\nclass Needs(TwoTurn):\n"
        "    def __init__(self, who, what=None, **rest):\n        super().__init__(**rest)\n"
        "        self.who = who\n\n\n"
        "from typing import Generic, TypeVar\nT = TypeVar('T')\n\n\n"
        "class Boxed(Generic[T]):\n    def __init__(self, what: T | None = None):\n        self.what = what\n\n\n"
        "class Under(Needs):\n    def __init__(self, **rest):\n        super().__init__(**rest)\n"
    )
    settings = {"dialogue": {"class_path": f"own_needs.{kind}", "init_args": given}}
    generic = {"x": {"class_path": "own_needs.Boxed", "init_args": {"what": None}}}
    assert made_from(generic, x=locate("own_needs.Boxed")[int]).x.what is None
    if lacking is None:
        assert made_from(settings, dialogue=Dialogue).dialogue.who == 3
    else:
        with pytest.raises(UserError, match=f"own_needs.{kind} needs {lacking}, which has no default"):
            made_from(settings, dialogue=Dialogue)


def test_a_fault_of_the_package_keeps_its_traceback(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mgpo.training.module.check_kernel", None)
    with pytest.raises(TypeError):
        execute("fit", ["--config", str(ROOT / "configs/mgpo.yaml"), *SMALL, "--trainer.accelerator=cpu"])


def test_other_errors_are_not_explained():
    for error in (ValueError("too many values"), KeyError("x"), ModuleNotFoundError("nothing to name")):
        assert unmade(error) is None
