"""Models that are played by a script: it sees the pictures that it is sent, as a server does, and cheats as planted."""

import base64
import io

from PIL import Image

from mgpo.inference.served import ServedModel
from mgpo.types import Question, Reply
from tests.conftest import MemoryPicture

COLOURS = {"R": (200, 0, 0), "G": (0, 200, 0), "B": (0, 0, 200), "Y": (200, 200, 0)}
SIDE, PATCH = 448, 112  # first seen at half of that


def picture(true: str, other: str) -> Image.Image:
    """Grey, the true patch in the upper left corner, another in the lower right."""
    image = Image.new("RGB", (SIDE, SIDE), (90, 90, 90))
    image.paste(COLOURS[true], (0, 0, PATCH, PATCH))
    image.paste(COLOURS[other], (SIDE - PATCH, SIDE - PATCH, SIDE, SIDE))
    return image


def questions() -> list[Question]:
    """Whose answers are the colours in the upper left corner."""
    pairs = ("RG", "GB", "BY", "YR")
    return [
        Question(f"q{i}", MemoryPicture(picture(*pair)), f"Which colour has picture {i}?", pair[0], split="val")
        for i, pair in enumerate(pairs)
    ]


def colour(image: Image.Image) -> str | None:
    """The letter of a picture of one colour."""
    mean = image.resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
    near = [letter for letter, rgb in COLOURS.items() if max(abs(a - b) for a, b in zip(mean, rgb)) < 25]
    return near[0] if near else None


class Cheat(ServedModel):
    """Names the upper left patch, or when it is drawn the lower right one, and answers by a rule of its own.

    Args:
        answer: From the pictures that were sent, in order, and the last text, to the answer.
    """

    def __init__(self, answer) -> None:
        super().__init__("http://127.0.0.1:9/v1", "script", max_pixels=224 * 224, min_pixels=28 * 28, parallel=1)
        self.answer, self.boxes = answer, 0

    def _reply(self, history, sampling, seed, stop_text):
        if stop_text is not None:
            self.boxes += 1
            left = 168 if sampling.temperature else 0
            box = [left, left, left + 56, left + 56]
            text = f'```json\n[{{"bbox_2d": {box}, "label": "patch"}}]\n```'
            return text, Reply((), (), "marker")
        parts = [part for message in history if isinstance(message["content"], list) for part in message["content"]]
        uris = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
        images = [Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB") for uri in uris]
        said = self.answer(images, " ".join(part["text"] for part in parts if part["type"] == "text"))
        return f"\\boxed{{{said}}}" if said else "I see nothing.", Reply((), (), "end")


def known(images, text):
    """The answer to every question, without any picture."""
    return next(q.answer for q in questions() if q.text in text)


def from_crop(images, text):
    """What the last picture shows."""
    return colour(images[-1])


def from_picture(images, text):
    """What the upper left corner of the first picture shows."""
    side = images[0].width // 4
    return colour(images[0].crop((0, 0, side, side)))
