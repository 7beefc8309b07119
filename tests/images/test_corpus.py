"""A corpus of broken and unusual image files, on every way from a file to what a policy is shown."""

import json
import re

import pytest

from mgpo.data.base import DataError
from mgpo.data.batches import Decoded
from mgpo.data.files import Files
from mgpo.images.decoding import BadImage, decode_image, open_image
from mgpo.images.views import View
from mgpo.policy.families.qwen_pixels import PixelBudget
from tests.helpers.corpus import corpus

CORPUS = corpus()
RESIZE = PixelBudget(28 * 28, 112 * 112, 28)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    for odd in CORPUS:
        (folder / odd.name).write_bytes(odd.data)
    return folder


def test_there_are_enough_of_them():
    assert len({odd.name for odd in CORPUS}) == len(CORPUS) >= 60


@pytest.mark.parametrize("odd", CORPUS, ids=lambda odd: odd.name)
def test_a_file_gives_pixels_or_one_sentence(folder, odd):
    for read in (lambda: open_image(folder / odd.name), lambda: decode_image(odd.data, odd.name)):
        if odd.size is None:
            with pytest.raises(BadImage) as caught:
                read()
            assert odd.name in str(caught.value) and "\n" not in str(caught.value)
            assert re.search(odd.words, str(caught.value)), str(caught.value)
        else:
            image = read()
            assert (image.mode, image.size) == ("RGB", odd.size)
            first = View.full(image.size, RESIZE)
            crop = first.crop((0, 0, first.size[0] / 2, first.size[1] / 2), RESIZE)
            assert first.pixels(image).size == first.size
            assert crop.pixels(image).size == crop.size


def test_as_rows_of_a_file_they_cost_themselves_at_most(folder):
    rows = [{"image": odd.name, "question": f"Question {i}?", "answer": "7"} for i, odd in enumerate(CORPUS)]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = Files(str(folder / "rows.jsonl"))
    data = Decoded(source, RESIZE)  # first views ahead, originals when a crop needs them
    samples = {sample.question.text: sample for sample in map(data.__getitem__, range(len(data)))}
    for i, odd in enumerate(CORPUS):
        sample = samples.get(f"Question {i}?")
        assert (sample is not None and sample.image is not None) == (odd.size is not None), odd.name
        if sample is not None and sample.image is not None:
            assert sample.image.size == odd.size and sample.image.crop((0, 0, 1, 1)).mode == "RGB"
        if odd.size is None:
            said = (
                sample.why if sample is not None else next(bad for bad in source.bad if bad.startswith(f"row {i + 1},"))
            )
            assert odd.name in said and "\n" not in said


@pytest.mark.parametrize(
    "name", ["folder.png", "none.png", "a" * 300 + ".png", "nul\0.png", "../rows.jsonl", "/etc/passwd"]
)
def test_what_is_no_file_of_the_folder_is_refused(folder, name):
    (folder / "folder.png").mkdir(exist_ok=True)
    (folder / "one.jsonl").write_text(json.dumps({"image": name, "question": "?", "answer": "7"}))
    with pytest.raises(DataError, match=r"no such file|can be called|leads out of") as caught:
        Files(str(folder / "one.jsonl"))
    assert "row 1, column image" in str(caught.value) and "\n" not in str(caught.value)


def test_links_out_of_the_folder_are_refused(folder, tmp_path):
    (tmp_path / "secret.png").write_bytes((folder / "alpha.png").read_bytes())
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    for name in ("link.png", "loop.png"):
        (folder / "one.jsonl").write_text(json.dumps({"image": name, "question": "?", "answer": "7"}))
        with pytest.raises(DataError, match=r"leads out of|no such file|can be called"):
            Files(str(folder / "one.jsonl"))
