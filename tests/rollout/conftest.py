"""Questions that rollouts are played on."""

import pytest

from tests.conftest import make_question, noise_image


@pytest.fixture(scope="module")
def samples():
    images = [noise_image(448, 448, 1), noise_image(640, 320, 2), noise_image(300, 500, 3)]
    return [(make_question(image, f"q{i}"), image) for i, image in enumerate(images)]
