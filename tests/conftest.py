import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Qwen2VLImageProcessorPil

from mgpo.policy.qwen2_5_vl import Qwen25VL
from mgpo.records import Record
from mgpo.types import Question
from mgpo.world.model import CAPS, build_tiny, tiny_config
from mgpo.world.tokenizer import SPECIAL, train_tokenizer

torch.set_num_threads(1)


class MemoryPicture:
    """A picture that is already there."""

    def __init__(self, image: Image.Image) -> None:
        self.image = image

    def load(self) -> Image.Image:
        return self.image


def noise_image(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def make_question(image: Image.Image, name: str = "q", answer: str = "K", choices: tuple[str, ...] = ()) -> Question:
    return Question(name, MemoryPicture(image), "Which letter stands on the red mark?", answer, choices)


def make_record(name: str = "q", **fields) -> Record:
    """An episode of two turns with a usable box and a crop, that was answered wrongly."""
    usual = dict(
        split="val", category="letter", truth="K", answer="L", right=False, turns=2, valid_box=True, reason=None,
        box=(0.0, 0.0, 10.0, 10.0), subimage_right=False, crops=1, replies=("a", "b"), zoom=4.0, area=0.01, vote="l",
        lengths=(5, 3),
    )  # fmt: skip
    return Record(id=name, **{**usual, **fields})


@pytest.fixture(scope="session")
def tokenizer():
    return train_tokenizer()


@pytest.fixture(scope="session")
def policy(tokenizer):
    """A random policy of the embedded shape; tests that change weights take `fresh_policy`."""
    return make_policy(tokenizer)


@pytest.fixture
def fresh_policy(tokenizer):
    return make_policy(tokenizer)


def make_policy(tokenizer, seed: int = 0, **options) -> Qwen25VL:
    special = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL}
    policy = Qwen25VL(**CAPS, **options)
    policy.attach(build_tiny(tiny_config(len(tokenizer), special), seed), tokenizer, Qwen2VLImageProcessorPil())
    return policy.eval()
