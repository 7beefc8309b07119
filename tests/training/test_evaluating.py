"""What validation logs: the same as the report, of this epoch alone."""

from dataclasses import replace

import lightning as L
import pytest
from lightning.pytorch.callbacks import ModelCheckpoint

from mgpo.callbacks import BenchmarkTable, ReportWriter
from mgpo.data.base import DataError
from mgpo.data.module import VQAData
from mgpo.data.scenes import Scenes
from mgpo.errors import UserError
from mgpo.evaluation.report import format_report, summarise
from mgpo.metrics.record import Record
from mgpo.rollout.in_process import Sampling
from mgpo.training.module import MGPO
from tests.conftest import make_policy, make_record


@pytest.fixture
def module(tokenizer):
    return MGPO(make_policy(tokenizer), eval_sampling=Sampling(6, 0))


@pytest.fixture
def trainer(tmp_path):
    return L.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=tmp_path, enable_checkpointing=False, use_distributed_sampler=False,
    )  # fmt: skip


def play(monkeypatch, **fields):
    """Every question is played like this."""
    monkeypatch.setattr(
        "mgpo.training.evaluating.assess",
        lambda play, resolution, dialogue, samples, *rest: [
            make_record(q.id, split=q.split, right=i > 0, **fields) for i, (q, _) in enumerate(samples)
        ],
    )


def validate(module, trainer):
    data = VQAData(val=[Scenes(3, side=128, split="val"), Scenes(2, side=128, split="ood")], num_workers=0)
    trainer.validate(module, data, verbose=False)
    return dict(trainer.callback_metrics)


def test_each_split_is_logged_as_the_report_has_it(module, trainer, monkeypatch):
    play(monkeypatch)
    logged = validate(module, trainer)
    assert logged["val/accuracy"] == pytest.approx(2 / 3)
    assert logged["ood/accuracy"] == 0.5
    for split, numbers in module.summary["by_split"].items():
        for name in module.metrics:
            assert logged[f"{split}/{name}"] == pytest.approx(numbers[name]), name


def test_the_next_epoch_begins_anew(module, trainer, monkeypatch):
    play(monkeypatch, fallback=True)
    assert validate(module, trainer)["val/fallback_rate"] == 1
    play(monkeypatch, valid_box=None, box=None, crops=0, zoom=None, area=None, subimage_right=None)
    logged = validate(module, trainer)
    assert logged["val/fallback_rate"] == 0
    assert not {"val/zoom_factor", "val/valid_box_ratio", "val/subimage_share"} & logged.keys()  # not a number


def test_what_one_epoch_left_out_the_next_has_not(module, trainer, monkeypatch):
    play(monkeypatch)
    data, seen = VQAData(val=[Scenes(2, side=128, split="val")], num_workers=0), []
    for reasons in (iter(["too long", None]), iter([None, None])):
        monkeypatch.setattr("mgpo.training.evaluating.opening_too_long", lambda *_, why=reasons: next(why))
        trainer.validate(module, data, verbose=False)
        seen.append((module.summary["n"], [question["why"] for question in module.summary["left_out"]]))
    assert seen == [(1, ["too long"]), (2, [])]


def test_a_random_policy_is_measured(module, trainer):
    logged = validate(module, trainer)
    assert (logged["val/turns"], logged["val/valid_box_ratio"], logged["val/fallback_rate"]) == (2, 0, 1)


def test_metrics_are_no_weights(module, trainer, monkeypatch):
    play(monkeypatch)
    validate(module, trainer)
    assert not [name for name in module.state_dict() if name.startswith("metrics")]
    assert not [name for name, _ in module.named_parameters() if name.startswith("metrics")]


def test_a_category_may_look_like_markup():
    record = Record("q", "[/b] s", "OCR [red] a", "K", "K", True, 1, None, None, None, None, 0, ())
    table = format_report(summarise([record, replace(record, id="r", category="[/x]")]))
    assert "OCR [red] a" in table and "[/x]" in table and "[/b] s" in table


def test_a_validation_of_training_is_a_line_for_each_split(tokenizer, tmp_path, monkeypatch, capsys):
    """And what it logs is there to save or stop by."""
    play(monkeypatch)
    monkeypatch.chdir(tmp_path)
    module = MGPO(make_policy(tokenizer).train(), sampling=Sampling(6), eval_sampling=Sampling(6, 0), group_size=2)
    best = ModelCheckpoint(monitor="val/accuracy", mode="max")
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=1, val_check_interval=1, num_sanity_val_steps=0, enable_progress_bar=False,
        enable_model_summary=False, logger=False, use_distributed_sampler=False,
        callbacks=[ReportWriter(), BenchmarkTable(), best],
    )  # fmt: skip
    val = [Scenes(3, side=128, split="val"), Scenes(2, side=128, split="ood")]
    trainer.fit(module, VQAData(Scenes(4, side=128), val, batch_size=2, num_workers=0))
    said = capsys.readouterr().out
    assert [line for line in said.splitlines() if "accuracy" in line or "┃" in line or "report" in line] == [
        f"step {step}: {split} accuracy {share}, valid boxes 1.00"
        for step in (1, 2)
        for split, share in (("ood", "0.50"), ("val", "0.67"))
    ]
    assert best.best_model_score == pytest.approx(2 / 3)
    assert [path.name for path in tmp_path.rglob("report.json")] == ["report.json"]


class Alike(Scenes):
    def __getitem__(self, index):
        return replace(super().__getitem__(index), id="the same" if index else "another")


def test_questions_of_one_name_are_not_counted_as_one(module, trainer, monkeypatch):
    play(monkeypatch)
    trainer.validate(module, VQAData(val=[Alike(2, split="val")], num_workers=0), verbose=False)
    with pytest.raises(DataError, match="two questions of the split 'val' have the id 'the same'"):
        trainer.validate(module, VQAData(val=[Alike(3, split="val")], num_workers=0), verbose=False)


class Rows(Scenes):
    def __getitem__(self, index):
        return {"question": "What?"} if self.count == 2 else 1 / 0


@pytest.mark.parametrize("workers", [0, 1])
def test_a_source_that_gives_no_question_or_fails_is_named(module, trainer, workers):
    for count, said in ((2, "the source Rows gives a dict as question 0, not a Question"),
                        (3, "the source Rows, asked for question 0, fails: ZeroDivisionError")):  # fmt: skip
        with pytest.raises(UserError) as raised:
            trainer.validate(module, VQAData(val=[Rows(count, split="val")], num_workers=workers), verbose=False)
        assert said in str(raised.value)


@pytest.mark.parametrize("split", ["train", "speed"])
def test_a_split_is_not_called_as_other_curves_are(split):
    source = Alike(2, split="val")
    source.split = split
    with pytest.raises(DataError, match=rf"data\.val: a split can't be called '{split}'"):
        VQAData(val=[source]).setup("fit")
    VQAData(val=[source]).setup("validate")  # which logs no others
