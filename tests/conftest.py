import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image
from transformers import Qwen2VLImageProcessorPil

from mgpo.data.scenes import Scenes
from mgpo.metrics.record import Record
from mgpo.policy.families.qwen2_5_vl import Qwen25VL
from mgpo.policy.hub.checkpoint_files import family_of
from mgpo.types import Question
from mgpo.world.model import CAPS, build_tiny, tiny_config
from mgpo.world.tokenizer import SPECIAL, train_tokenizer
from tests.helpers.families import ALL, Family, save_checkpoint
from tests.helpers.published_model import publish
from tests.helpers.vocabulary import ranks_file

torch.set_num_threads(1)

BROWSER_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class MemoryPicture:
    """A picture that is already there."""

    def __init__(self, image: Image.Image) -> None:
        self.image = image

    def load(self) -> Image.Image:
        return self.image


def make_pictures(folder: Path, count: int) -> Path:
    """Scenes as files."""
    source = Scenes(count, split="val", side=224)
    for i in range(count):
        source[i].picture.load().save(folder / f"{i:04d}.png")
    return folder


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


@pytest.fixture(scope="session", params=ALL, ids=lambda family: family.name)
def family(request) -> Family:
    return request.param


@pytest.fixture(scope="session")
def family_folder(family, tmp_path_factory):
    """A tiny random checkpoint of the family."""
    return save_checkpoint(family, tmp_path_factory.mktemp(family.name))


@pytest.fixture(scope="session")
def family_policy(family, family_folder):
    """That checkpoint, loaded; tests leave its weights alone."""
    return family_of(str(family_folder))(str(family_folder), **family.caps).load().eval()


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that is made once, whichever processes the tests run in."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            folder.mkdir()
            make(folder)
    return folder


@pytest.fixture(scope="session")
def two_ranks(tmp_path_factory):
    """What two ranks left behind."""
    from tests.helpers.sharded import launch, quick  # which import from here

    return made_once(tmp_path_factory, "two_ranks", partial(launch, quick))


@pytest.fixture(scope="session")
def published_folder(tmp_path_factory):
    """A tiny random Qwen2.5-VL in the published files, with the whole vocabulary."""
    try:
        ranks_file()
    except LookupError as missing:
        pytest.skip(str(missing))
    return made_once(tmp_path_factory, "published", publish)


@pytest.fixture(scope="module")
def browser() -> Iterator:
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if executable is None:
        pytest.skip("neither chromium nor google-chrome is installed")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=BROWSER_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, str]:
    from tests.helpers.gallery_samples import write_samples  # which imports from here

    return write_samples(tmp_path_factory.mktemp("gallery"))


@pytest.fixture
def open_page(browser, pages) -> Iterator:
    """Opens a page; at the end nothing may have been complained about or fetched."""
    contexts, troubles = [], []

    def open_it(name: str = "run", fragment: str = "", size=(1280, 800), scheme: str = "light"):
        width, height = size
        options = dict(color_scheme=scheme, reduced_motion="reduce", viewport={"width": width, "height": height})
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.set_default_timeout(5000)
        page.on("console", lambda message: troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda request: request.url.startswith(("file:", "data:")) or troubles.append(request.url))
        page.goto(pages[name] + fragment)
        page.wait_for_selector(".card .picture img")
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert troubles == []
