"""Originals that are decoded no further than needed: what is seen is the same, and bounded in decodes and bytes."""

import gc
import io
import os
import pickle
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from PIL import Image

from mgpo.data.batches import Decoded
from mgpo.data.module import VQAData
from mgpo.dialogues import SingleTurn, TwoTurn
from mgpo.evaluation.greedy import assess
from mgpo.images import lazy as originals
from mgpo.images.decoding import FilePicture, decode_image
from mgpo.images.lazy import LazyImage, Room, hand_over, open_lazily
from mgpo.images.shared_memory import SharedImage
from mgpo.images.views import View
from mgpo.rewards import ExactAnswer
from mgpo.rollout.episodes import roll_out
from mgpo.rollout.in_process import Sampling
from mgpo.training.groups import Groups
from mgpo.types import Question
from tests.conftest import MemoryPicture, noise_image
from tests.images.test_first_views import jpeg, small, smooth
from tests.rollout.test_rollout import Scripted


@dataclass
class Encoded:
    """A picture of stored bytes, that counts how often it is decoded in full."""

    data: bytes
    decodes: list[int] = field(default_factory=list)

    def read(self):
        return self.data

    def load(self):
        self.decodes.append(1)
        return decode_image(self.data, "it")


def saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def stored():
    colour = smooth(330, 210)
    turned = Image.Exif()
    turned[0x0112] = 6
    grey16 = Image.fromarray(np.linspace(0, 65535, 330 * 210).reshape(210, 330).astype(np.uint16))
    palette = colour.quantize(16)
    palette.info["transparency"] = 0
    clear = colour.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    return {
        "jpeg": jpeg(colour), "turned": jpeg(colour, 8), "grey": jpeg(colour.convert("L")),
        "cmyk": saved(colour.convert("CMYK"), "JPEG"), "png": saved(colour, "PNG"),
        "turned png": saved(colour, "PNG", exif=turned), "palette": saved(palette, "PNG"),
        "alpha": saved(clear, "WEBP", lossless=True), "webp": saved(colour, "WEBP"), "16 bits": saved(grey16, "PNG"),
        "tiff": saved(colour, "TIFF"), "one colour is clear": saved(colour, "PNG", transparency=(9, 9, 9)),
    }  # fmt: skip


@pytest.mark.parametrize(("kind", "data"), stored().items(), ids=stored())
@pytest.mark.parametrize("handed", [False, True])
def test_crops_are_the_pixels_of_the_whole_in_every_mode(kind, data, handed):
    image = decode_image(data, "it")
    assert type(image.copy()) is Image.Image and image.mode == "RGB"
    original = open_lazily(Encoded(data), small)
    if handed:
        hand_over([original])
        assert isinstance(original.first, SharedImage)
        original = pickle.loads(pickle.dumps(original)) if original.handed is None else original
    assert original.size == image.size
    first = View.full(image.size, small)
    assert first.pixels(original).mode == "RGB"
    if kind not in ("jpeg", "turned", "grey"):
        assert first.pixels(original).tobytes() == first.pixels(image).tobytes()
    for region in (
        (0, 0, 1, 1),
        (17, 33, 140, 190),
        (0, 0, *image.size),
        (image.width - 9, image.height - 5, *image.size),
    ):
        assert original.crop(region).tobytes() == image.crop(region).tobytes()
        view = View(region, (30, 20))
        assert view.pixels(original).tobytes() == view.pixels(image).tobytes()
    thumbnail = [
        picture.resize((50, 40), Image.Resampling.BICUBIC, (1, 2, 90, 80), 1.5) for picture in (original, image)
    ]
    assert thumbnail[0].tobytes() == thumbnail[1].tobytes()


def test_a_large_jpeg_is_decoded_where_it_is_cut_and_once(policy):
    """A whole group, both of its turns, in threads; where no crop is asked for, not at all."""
    picture = Encoded(jpeg(smooth(1200, 900)))
    question = Question("q", picture, "Which letter?", "K")
    for dialogue, decodes in ((SingleTurn(), 0), (TwoTurn(), 1)):
        original = open_lazily(picture, policy.resolution.full)
        played = roll_out(policy, Scripted(1), dialogue, [(question, original)], 4, Sampling(8), (0, 0))
        assert all(len(trajectory.crops) == decodes for trajectory in played)
        assert len(picture.decodes) == decodes


class Counted(MemoryPicture):
    def __init__(self, image):
        super().__init__(image)
        self.loads = 0

    def load(self):
        self.loads += 1
        return super().load()


def test_decoded_originals_keep_within_their_bytes(monkeypatch):
    monkeypatch.setattr(originals, "ROOM", Room(4 * 100 * 100 * 3))
    pictures = [Counted(noise_image(100, 100, seed)) for seed in range(5)]
    opened = [LazyImage(picture, (100, 100), picture.image.resize((10, 10))) for picture in pictures]

    def decoded():
        return [original.decoded is not None for original in opened]

    for original in opened[:3]:
        original.crop((0, 0, 5, 5))
    opened[0].crop((0, 0, 5, 5))
    opened[3].crop((0, 0, 5, 5))  # the one that was used longest ago goes
    assert decoded() == [True, False, True, True, False]
    assert opened[1].crop((3, 4, 50, 60)).tobytes() == pictures[1].image.crop((3, 4, 50, 60)).tobytes()
    assert [picture.loads for picture in pictures] == [1, 2, 1, 1, 0]
    assert sum(decoded()) == 3
    del opened[3], original
    gc.collect()
    opened[2].crop((0, 0, 5, 5))
    opened[3].crop((0, 0, 5, 5))
    assert [picture.loads for picture in pictures] == [1, 2, 2, 1, 1]  # one that is no longer held leaves its room


def test_an_original_larger_than_the_room_is_kept_alone(monkeypatch):
    monkeypatch.setattr(originals, "ROOM", Room(1000))
    pictures = [Counted(noise_image(100, 100, seed)) for seed in range(2)]
    opened = [open_lazily(picture, small) for picture in pictures]
    assert [original.decoded is None for original in opened] == [True, False]
    for _ in range(3):
        assert opened[0].crop((0, 0, 9, 9)).tobytes() == pictures[0].image.crop((0, 0, 9, 9)).tobytes()
    assert [picture.loads for picture in pictures] == [2, 1]
    assert opened[1].decoded is None


class Listed:
    """A source of pictures that lie in a folder or in memory."""

    def __init__(self, pictures):
        self.pictures = pictures

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, index):
        return Question(str(index), self.pictures[index], "What?", "7")


def loader(source, batch_size, workers=1):
    data = VQAData(val=[source], eval_batch_size=batch_size, num_workers=workers)
    data.see_at(small)
    return data.val_dataloader()[0]


@pytest.fixture
def files(tmp_path):
    for i in range(2):
        (tmp_path / f"{i}.jpg").write_bytes(jpeg(smooth(400, 300 + i)))
    noise_image(300, 200).save(tmp_path / "2.png")
    (tmp_path / "3.jpg").write_bytes(jpeg(smooth(400, 300))[:6000])
    return [FilePicture(str(tmp_path / name)) for name in ("0.jpg", "1.jpg", "2.png", "3.jpg")]


@pytest.mark.parametrize("room", [originals.HANDED, 0], ids=["handed over", "no room"])
@pytest.mark.parametrize("memory", [True, False], ids=["memory", "no memory"])
def test_samples_leave_a_worker_whole(files, room, memory, monkeypatch):
    monkeypatch.setattr(originals, "HANDED", room)
    if not memory:
        monkeypatch.setattr(os, "memfd_create", lambda name: os.open("/dev/full", os.O_RDWR), raising=False)
    source = Listed([*files, MemoryPicture(noise_image(200, 100))])
    samples = [sample for batch in loader(source, 3) for sample in batch]
    here = [sample for batch in loader(source, 5, workers=0) for sample in batch]
    assert [sample.question.id for sample in samples] == list("01234")
    assert [sample.image is None for sample in samples] == [False, False, False, True, False]
    assert samples[3].why == here[3].why and "3.jpg: the image is damaged" in samples[3].why
    expected = [False, False, bool(room) and memory, bool(room) and memory]  # of the JPEGs all is not decoded there
    assert [sample.image.handed is not None for sample in samples if sample.image] == expected
    region = (9, 8, 100, 90)
    for sample, other in zip(samples, here):
        if sample.image is not None:
            view = View.full(sample.image.size, small)
            assert view.pixels(sample.image).tobytes() == view.pixels(other.image).tobytes()
            assert sample.image.crop(region).tobytes() == other.question.picture.load().crop(region).tobytes()


def test_without_a_policy_everything_is_decoded(files):
    samples = [Decoded(Listed(files))[i] for i in range(4)]
    assert [type(sample.image).__name__ for sample in samples[:3]] == ["JpegImageFile"] * 2 + ["PngImageFile"]
    assert samples[3].image is None


@pytest.fixture
def vanished(policy, tmp_path):
    """A picture whose file is gone once its first view has been made."""
    path = tmp_path / "gone.jpg"
    path.write_bytes(jpeg(smooth(1200, 900)))
    picture = FilePicture(str(path))
    original = open_lazily(picture, policy.resolution.full)
    path.unlink()
    return Question("q", picture, "Which letter?", "K"), original


def test_a_file_that_is_gone_ends_its_rollouts_not_the_run(policy, vanished):
    whole = (Question("other", vanished[0].picture, "Which letter?", "K"), noise_image(448, 448))
    played = roll_out(policy, Scripted(), TwoTurn(), [vanished, whole], 4, Sampling(8), (0, 0))
    failed = [trajectory.failed is not None for trajectory in played]
    assert failed[:4] == [bool(t.crops) for t in played[:4]] and any(failed) and not any(failed[4:])
    assert all("gone.jpg: there is no such file" in t.failed and len(t.turns) == 1 for t in played if t.failed)
    assert all(len(t.turns) == 2 for t in played if not t.failed)
    assert torch.equal(Groups.of(played, 4).counted_BG.flatten(), ~torch.tensor(failed))


def test_evaluation_leaves_out_what_is_gone(policy, vanished):
    def play(dialogue, samples, copies, sampling, key, resolution=None):
        return roll_out(policy, Scripted(1), dialogue, samples, copies, sampling, key, resolution)

    with pytest.warns(UserWarning, match="left out: question q, .*gone.jpg"):
        records = assess(play, policy.resolution, TwoTurn(), [vanished], Sampling(8), ExactAnswer(), 0)
    assert records == []


def test_an_original_that_does_not_fit_keeps_no_other_back(monkeypatch):
    small_ones = [open_lazily(MemoryPicture(noise_image(60, 40, i)), small) for i in range(2)]
    large = open_lazily(MemoryPicture(noise_image(600, 400)), small)
    monkeypatch.setattr(originals, "HANDED", 20_000)
    hand_over([large, *small_ones])
    assert large.handed is None and all(one.handed is not None for one in small_ones)
