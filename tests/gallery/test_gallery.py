"""The gallery callback and the loggers, in process, on random weights and small scenes."""

import csv
import io
import json
from types import SimpleNamespace

import lightning as L
import numpy as np
import pytest
import wandb
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from PIL import Image

from mgpo.callbacks import Counterfactuals, GroundingGallery
from mgpo.callbacks.fixed_questions import choose
from mgpo.callbacks.panels import LABELS, _boxes
from mgpo.data.module import VQAData
from mgpo.data.scenes import Scenes
from mgpo.gallery.charts import in_words
from mgpo.gallery.data import Gallery
from mgpo.gallery.drawing import BAD, GAP, GOOD, GREY, SIDE, steps
from mgpo.gallery.page import read_page, write_page
from mgpo.images.decoding import BadImage
from mgpo.policy.families.qwen2_5_vl import Qwen25VL
from mgpo.rollout.in_process import InProcessSampler
from mgpo.world.model import CAPS
from tests.helpers.readme_film import film
from tests.training.test_module import Noisy, adam, equal, make, weights

VAL = [Scenes(6, kinds=("attribute", "counting"), split="val", side=128), Scenes(4, split="ood", side=128)]


def follow(module, folder, logger=False, questions=3, val=VAL):
    """A fit of four steps with a look at every other one."""
    gallery = GroundingGallery(every_n_steps=2, questions=questions, rollouts=2)
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=1, logger=logger, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=folder, use_distributed_sampler=False, limit_val_batches=0, log_every_n_steps=1,
        enable_checkpointing=False, callbacks=[gallery],
    )  # fmt: skip
    trainer.fit(module, VQAData(train=Scenes(8, side=128), val=val, batch_size=2, num_workers=0))
    return trainer


def page_of(folder):
    """Of the latest run without a logger."""
    return read_page(max(folder.glob("runs/unlogged/version_*/gallery.html")))


def test_the_same_questions_are_followed_through_a_run(tokenizer, tmp_path):
    follow(make(tokenizer), tmp_path)
    page = page_of(tmp_path)
    assert page["steps"] == [0, 2, 4]
    assert [q["id"] for q in page["questions"]] == [q.id for q in choose(VAL, 3)]
    for question in page["questions"]:
        assert [len(question["steps"][step]) for step in ("0", "2", "4")] == [2, 2, 2]
    assert any(q["steps"]["0"] != q["steps"]["4"] for q in page["questions"])  # the weights have moved
    assert steps(page, side=100).width == 3 * 100 + 2 * GAP
    film(page, tmp_path / "film.gif", [0, 2], side=100)
    with Image.open(tmp_path / "film.gif") as moving:
        assert (moving.n_frames, moving.width) == (3, 2 * 100 + GAP)


def test_looking_changes_nothing(tokenizer, tmp_path):
    with_gallery, without = make(tokenizer), make(tokenizer)
    follow(with_gallery, tmp_path)
    follow(without, tmp_path, questions=0)
    assert equal(weights(with_gallery), weights(without))


def test_questions_are_spread_over_all_sources():
    chosen = choose(VAL, 4)
    assert [(q.split, q.id) for q in chosen] == [(q.split, q.id) for q in (VAL[0][0], VAL[0][3], VAL[1][0], VAL[1][3])]
    assert len(choose(VAL, 99)) == 10
    assert choose([], 4) == choose(VAL, 0) == []


def test_a_picture_that_breaks_costs_its_question(tokenizer, tmp_path):
    class Broken(Scenes):
        def __getitem__(self, index):
            question = super().__getitem__(index)
            return question if index else type(question)(**{**vars(question), "picture": Missing()})

    class Missing:
        def load(self) -> Image.Image:
            raise BadImage("gone.png: there is no such file")

    follow(make(tokenizer), tmp_path, val=[Broken(3, side=128, split="val")])
    assert len(page_of(tmp_path)["questions"]) == 2


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """One run of the embedded model that is logged by all three loggers at once, W&B offline."""
    module = Noisy(Qwen25VL(**CAPS).load().train(), group_size=4, optimizer=adam)
    folder = tmp_path_factory.mktemp("logged")
    loggers = [
        CSVLogger(folder, "csv"), TensorBoardLogger(folder, "tb"), WandbLogger(save_dir=folder, offline=True, name="w"),
    ]  # fmt: skip
    follow(module, folder, loggers)
    wandb.finish()
    return folder


def tensorboard_tags(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder / "tb/version_0")).Reload()
    return accumulator.Tags()


def test_wandb_gets_pictures_with_its_own_boxes_and_a_table(logged):
    """In files, as W&B stores them without a network."""
    assert len(list(logged.rglob("gallery/pictures_*.png"))) == 3 * 3
    assert len(list(logged.rglob("gallery/table_*.table.json"))) == 3
    boxes = [json.loads(path.read_text()) for path in logged.rglob("*.boxes2D.json")]
    assert any(file["box_data"] for file in boxes)
    for box in (box for file in boxes for box in file["box_data"]):
        assert all(0 <= edge <= 1 for edge in box["position"].values())


def test_boxes_in_wandbs_form():
    right = {"right": True, "answer": "K", "reward": 1.0, "named_in": [1, 1]}
    wrong = {**right, "right": False, "answer": "L", "reward": 0.0}
    rollouts = [
        {**right, "named": [(100, 50, 300, 150), None], "reasons": [None, None]},
        {**wrong, "named": [(500, 150, -100, 50), None], "reasons": ["inverted", None]},
        {**wrong, "named": [None], "reasons": ["no_box"]},
        {**wrong, "named": [None, (0, 0, 40, 40)], "reasons": ["no_box", None]},
    ]
    right, unusable, later = _boxes({"size": (400, 200), "rollouts": rollouts})
    assert LABELS[later["class_id"]] == "wrong"  # its second turn's box can be used
    assert right["position"] == {"minX": 0.25, "minY": 0.25, "maxX": 0.75, "maxY": 0.75}
    assert LABELS[right["class_id"]] == "right"
    assert unusable["position"] == {"minX": 0.0, "minY": 0.25, "maxX": 1.0, "maxY": 0.75}
    assert LABELS[unusable["class_id"]] == "not usable"


def test_tensorboards_pictures_say_below_what_their_lines_mean(logged):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(logged / "tb/version_0")).Reload()
    shown = accumulator.Images("gallery/000")[-1]
    below = np.asarray(Image.open(io.BytesIO(shown.encoded_image_string)).convert("RGB"))[SIDE:]
    for colour in (GOOD, BAD, GREY):
        assert (below == colour).all(-1).any()


def test_curves_are_named_alike_for_all_loggers(logged):
    names = set((logged / "csv/version_0/metrics.csv").read_text().splitlines()[0].split(",")) - {"step"}
    tags = tensorboard_tags(logged)
    assert "train/reward" in names
    assert names == set(tags["scalars"])
    assert {f"gallery/{i:03d}" for i in range(3)} == set(tags["images"])
    assert len({in_words(name) for name in names}) == len(names)
    assert not [name for name in names if set("/_") & set(in_words(name))]


def test_disabled_wandb_breaks_nothing(tokenizer, tmp_path, monkeypatch):
    wandb.finish()
    monkeypatch.setenv("WANDB_MODE", "disabled")
    trainer = follow(make(tokenizer), tmp_path, WandbLogger(save_dir=tmp_path))
    assert trainer.global_step == 4
    assert len(list(tmp_path.rglob("gallery.html"))) == 1


def test_what_the_crop_gains_is_a_curve_too(tokenizer, tmp_path):
    """The shares in the log are the counts in the file over its questions."""
    trainer = L.Trainer(
        accelerator="cpu", logger=CSVLogger(tmp_path, "csv"), enable_progress_bar=False, enable_model_summary=False,
        use_distributed_sampler=False, callbacks=[Counterfactuals(enabled=True)],
    )  # fmt: skip
    trainer.validate(make(tokenizer), VQAData(val=[VAL[1]], num_workers=0), verbose=False)
    folder = tmp_path / "csv/version_0"
    (row,) = [row for row in csv.DictReader((folder / "metrics.csv").read_text().splitlines()) if row["ood/crop_gain"]]
    table = json.loads((folder / "counterfactuals.json").read_text())["by_split"]["ood"]["no tools"]
    assert float(row["ood/crop_gain"]) == table["gain"] / 4
    assert float(row["ood/crop_harm"]) == table["harm"] / 4


def test_runs_without_a_logger_have_folders_of_their_own(tokenizer, tmp_path):
    (tmp_path / "config.yaml").write_text("mine: true")
    for _ in range(2):
        follow(make(tokenizer), tmp_path)
    assert len(list(tmp_path.glob("runs/unlogged/version_*/gallery.html"))) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml", "runs"]
    assert (tmp_path / "config.yaml").read_text() == "mine: true"


def test_a_run_that_goes_on_in_its_folder_keeps_its_page(tokenizer, tmp_path):
    follow(make(tokenizer), tmp_path, TensorBoardLogger(tmp_path, "tb", version=0))
    page = tmp_path / "tb/version_0/gallery.html"
    before = read_page(page)
    gallery = Gallery()
    gallery.restore(before, 4)
    write_page(page, gallery, "cut")
    assert read_page(page)["steps"] == [0, 2]
    module = make(tokenizer)
    module.loaded_step = 3
    trainer = L.Trainer(
        accelerator="cpu", logger=TensorBoardLogger(tmp_path, "tb", version=0), enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False,
        callbacks=[GroundingGallery(questions=3, rollouts=2)],
    )  # fmt: skip
    trainer.validate(module, VQAData(val=VAL, num_workers=0), verbose=False)
    after = read_page(page)
    assert after["steps"] == [0, 2, 3]
    for old, new in zip(before["questions"], after["questions"]):
        assert new["steps"]["2"] == old["steps"]["2"] and new["images"]["picture"] == old["images"]["picture"]


def test_a_test_run_follows_the_test_questions(tokenizer, tmp_path):
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        use_distributed_sampler=False, default_root_dir=tmp_path, callbacks=[GroundingGallery(questions=2, rollouts=2)],
    )  # fmt: skip
    trainer.test(make(tokenizer), VQAData(val=[VAL[0]], test=[VAL[1]], num_workers=0), verbose=False)
    assert {question["split"] for question in page_of(tmp_path)["questions"]} == {"ood"}


def test_the_axis_is_optimiser_updates(tokenizer, tmp_path):
    follow(make(tokenizer, mini_batches=2), tmp_path, CSVLogger(tmp_path, "csv"))
    rows = csv.DictReader((tmp_path / "csv/version_0/metrics.csv").read_text().splitlines())
    assert [int(row["step"]) for row in rows if row["train/reward"]] == [2, 4, 6, 8]


def test_a_question_that_fails_once_has_its_picture_afterwards_and_keeps_its_place(tokenizer, tmp_path):
    """In the first look the second of three can't be played to its end."""

    class Failing(Noisy):
        def roll_out(self, samples, step, copies=None):
            played = super().roll_out(samples, step, copies)
            if copies == 2 and self.global_step == 0:  # of the gallery
                played[2].failed = "its crop is gone"
            return played

    follow(make(tokenizer, Failing), tmp_path, TensorBoardLogger(tmp_path, "tb"))
    page = read_page(tmp_path / "tb/version_0/gallery.html")
    assert [sorted(map(int, q["steps"])) for q in page["questions"]] == [[0, 2, 4], [0, 2, 4], [2, 4]]
    assert all("picture" in question["images"] for question in page["questions"])
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shown = EventAccumulator(str(tmp_path / "tb/version_0"), {"images": 0}).Reload()
    assert [[e.step for e in shown.Images(f"gallery/{i:03d}")] for i in range(3)] == [[0, 2, 4], [2, 4], [0, 2, 4]]


class Engine(InProcessSampler):
    """Has weights of its own, and writes down what is asked of it."""

    exact = in_process = False

    def __init__(self):
        self.asked = []

    def prepare(self, policy):
        self.asked.append("prepare")

    def release(self):
        self.asked.append("release")


def test_an_engine_sleeps_while_callbacks_pass_and_is_pushed_to_by_all_ranks(tokenizer, tmp_path):
    engine = Engine()
    module = make(tokenizer, sampler=engine)
    module.trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, max_epochs=1)
    with module.under_precision():
        assert engine.asked == ["release"]
    gallery = GroundingGallery(questions=3)
    gallery.fixed.chosen, gallery.looked = [VAL[0][0]], 1
    gallery.fixed.mine = lambda trainer, whole: []  # those of another rank
    trainer = SimpleNamespace(world_size=1, is_global_zero=False, global_rank=1)
    gallery.look(trainer, module)
    assert engine.asked == ["release", "prepare"]
