"""Test images among training images: the same file, the same pixels, scaled or compressed; and nothing else."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from mgpo.data.files import Files
from mgpo.errors import UserError
from mgpo.tools.leaks.command import leaks
from mgpo.tools.leaks.fingerprint import Fingerprint, difference_hash, fingerprint, thumbnail
from mgpo.tools.leaks.index import Index
from tests.conftest import MemoryPicture
from tests.test_cli import run


def scene(seed, size=(400, 300)):
    """Smooth shapes, as photographs have."""
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)


def page(seed):
    """White, with lines of text-like marks."""
    image = Image.new("RGB", (400, 300), "white")
    draw, rng = ImageDraw.Draw(image), np.random.default_rng(seed)
    for y in range(20, 280, 16):
        for x in range(20, 380, 12):
            if rng.random() < 0.6:
                draw.rectangle((x, y, x + int(rng.integers(2, 9)), y + 7), fill="black")
    return image


def marks(*images, index=None):
    index = index or Index(4, 0.2)
    for i, image in enumerate(images):
        index.add(("test", str(i)), fingerprint(MemoryPicture(image)))
    return index


def source(folder, name, images):
    rows = []
    for i, (image, ending, options) in enumerate(images):
        image.save(folder / f"{name}{i}.{ending}", **options)
        rows.append({"image": f"{name}{i}.{ending}", "question": "What?", "answer": "7", "id": f"{name}{i}"})
    path = folder / f"{name}.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return Files(str(path), split=name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("leaks")
    test = [(scene(i), "png", {}) for i in range(8)]
    train = [
        (scene(0), "png", {}),  # the same file
        (scene(1), "bmp", {}),  # the same pixels
        (scene(2), "jpg", {"quality": 60}),
        (scene(3).resize((200, 150)), "png", {}),
        *((scene(i), "png", {}) for i in range(100, 110)),
    ]
    source(folder, "test", test)
    source(folder, "train", train)
    source(folder, "clean", train[4:])
    return folder


def test_leaks_are_found_by_kind_and_end_with_code_1(folder, capsys):
    train, test = Files(str(folder / "clean.jsonl")), Files(str(folder / "test.jsonl"), split="test")
    (folder / "clean9.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")  # after its header was looked at
    with pytest.raises(SystemExit) as ended:
        leaks(Files(str(folder / "train.jsonl")), [test], workers=2, output=str(folder / "out" / "leaks.json"))
    assert ended.value.code == 1
    report = json.loads((folder / "out" / "leaks.json").read_text())
    assert report["by_kind"] == {"same file": 1, "same pixels": 1, "near": 2}
    assert (report["leaking"], report["by_split"]) == (4, {"test": 4})
    assert [(leak["test"], leak["train"]) for leak in report["leaks"]] == [(f"test{i}", f"train{i}") for i in range(4)]
    assert "4 of 8 test questions" in capsys.readouterr().out
    leaks(train, [test], output=str(folder / "none.json"))
    report = json.loads((folder / "none.json").read_text())
    assert report["leaks"] == [] and len(report["left_out"]) == 1
    assert "clean9" in report["left_out"][0]


@pytest.mark.slow
def test_the_command(folder):
    (folder / "leaks.yaml").write_text(
        "train: {class_path: mgpo.data.Files, init_args: {path: train.jsonl}}\n"
        "test: [{class_path: mgpo.data.Files, init_args: {path: test.jsonl, split: test}}]\n"
    )
    done = run("leaks", "--config", "leaks.yaml", "--output", "found.json", cwd=folder, check=False)
    assert done.returncode == 1
    assert "same pixels" in done.stdout and "Traceback" not in done.stderr
    assert json.loads((folder / "found.json").read_text())["leaking"] == 4


@given(st.integers(0, 2**64 - 1), st.lists(st.integers(0, 63), max_size=10), st.integers(0, 10))
def test_no_pair_within_the_distance_is_missed(looks, flipped, distance):
    """Also at the largest distance, whatever the bits that differ."""
    other = looks
    for bit in set(flipped):
        other ^= 1 << bit
    plain = np.zeros((32, 32, 3), dtype=np.uint8)
    index = Index(distance, 0.2)
    index.add(("test", "a"), Fingerprint(None, "a", looks, plain))
    found = list(index.find(Fingerprint(None, "b", other, plain)))
    assert bool(found) == (len(set(flipped)) <= distance)


def test_a_look_up_goes_through_a_small_part_of_the_images():
    rng = np.random.default_rng(0)
    index, plain = Index(4, 0.2), np.zeros((32, 32, 3), dtype=np.uint8)
    for i, looks in enumerate(rng.integers(0, 2**63, 5000)):
        index.add(("test", str(i)), Fingerprint(None, str(i), int(looks), plain))
    shared = [len(index.bands.get(key, ())) for key in index._keys(int(rng.integers(0, 2**63)))]
    assert sum(shared) < 50


def test_plain_and_repetitive_pictures_are_told_apart():
    pages = [page(i) for i in range(6)]
    plain = [Image.new("RGB", (400, 300), colour) for colour in ("white", "black", "red", "#808080")]
    index = marks(*pages[:3], *plain[:3])
    for image in (*pages[3:], plain[3]):
        assert list(index.find(fingerprint(MemoryPicture(image)))) == []
    assert [name for name, _, _ in index.find(fingerprint(MemoryPicture(pages[1].resize((200, 150)))))] == [
        ("test", "1")
    ]


def test_hundreds_of_unrelated_pictures_raise_no_alarm():
    index = marks(*(scene(i, (96, 72)) for i in range(150)))
    alarms = [hit for i in range(1000, 1150) for hit in index.find(fingerprint(MemoryPicture(scene(i, (96, 72)))))]
    assert alarms == []


@pytest.mark.parametrize("size", [(200, 150), (800, 600), (413, 309)])
def test_scaling_hardly_changes_the_looks(size):
    for seed in range(20):
        first, again = scene(seed), scene(seed).resize(size, Image.Resampling.LANCZOS)
        assert (difference_hash(first) ^ difference_hash(again)).bit_count() <= 4
        assert np.abs(thumbnail(first).astype(int) - thumbnail(again)).mean() < 4


def test_the_hash_reads_from_left_to_right():
    ramp = Image.fromarray(np.tile(np.arange(0, 252, 7, dtype=np.uint8), (32, 1))).convert("RGB")
    assert difference_hash(ramp) == 2**64 - 1
    assert difference_hash(ramp.transpose(Image.Transpose.FLIP_LEFT_RIGHT)) == 0


def test_identical_images_of_several_questions_are_all_named(folder):
    index = marks(scene(5), scene(5), scene(6))
    assert [name[1] for name, kind, _ in index.find(fingerprint(MemoryPicture(scene(5))))] == ["0", "1"]
    assert len(index.images) == 2


def test_a_distance_that_says_nothing_is_refused(folder):
    files = Files(str(folder / "test.jsonl"))
    with pytest.raises(UserError, match="distance is 40"):
        leaks(files, [files], distance=40)


@pytest.mark.parametrize(
    ("output", "why"), [("a_folder", "it is a folder"), ("a_file/leaks.json", "a part of the path is a file")]
)
def test_where_it_can_not_write_it_says_so_before_it_looks(tmp_path, output, why):
    (tmp_path / "a_folder").mkdir()
    (tmp_path / "a_file").touch()
    with pytest.raises(UserError, match=f"{output} can't be written: {why}; name another --output"):
        leaks(None, None, output=str(tmp_path / output))  # pyright: ignore[reportArgumentType]  # never looked at


def test_two_sources_that_could_not_be_told_apart_are_not_counted_as_one(folder, tmp_path):
    files = Files(str(folder / "test.jsonl"))
    with pytest.raises(UserError, match="two sources report under the split"):
        leaks(files, [files, files], output=str(tmp_path / "leaks.json"))
