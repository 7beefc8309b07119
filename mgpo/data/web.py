"""Pictures behind an address: fetched once, kept on disk, bounded in time and size."""

import hashlib
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import requests
from PIL import Image

from mgpo.images import LARGEST_FILE, BadImage, decode_image

SCHEMES = ("http://", "https://")
PATIENCE = 20.0  # seconds without a byte
DEADLINE = 120.0  # seconds for a whole picture
CHUNK = 1 << 16


@dataclass(frozen=True)
class WebPicture:
    """The image behind an http or https address; `sha256` of its file, where known, must fit."""

    url: str
    cache: str
    sha256: str | None = None

    def load(self) -> Image.Image:
        return decode_image(self.read(), self.url)

    def read(self) -> bytes:
        """The file as it is stored. Raises BadImage."""
        data = fetch(self.url, Path(self.cache)).read_bytes()
        if self.sha256 and hashlib.sha256(data).hexdigest() != self.sha256:
            raise BadImage(f"{self.url}: the picture there is no longer the one that was annotated")
        return data


def fetch(url: str, cache: Path) -> Path:
    """The file in `cache` that holds what is behind the address; fetched where it is not there. Raises BadImage."""
    if not url.lower().startswith(SCHEMES):
        raise BadImage(f"{url[:100]}: pictures are fetched from http and https addresses only")
    path = cache / hashlib.sha256(url.encode()).hexdigest()
    if not path.is_file():
        try:
            keep(_download(url), path)
        except requests.RequestException as error:
            raise BadImage(f"{url}: it can't be fetched ({type(error).__name__})") from None
    return path


def keep(data: bytes, path: Path) -> None:
    """Write a file in one piece: another process finds it whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, unfinished = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    os.replace(unfinished, path)


def _download(url: str) -> bytes:
    began, data = time.monotonic(), bytearray()
    with requests.get(url, stream=True, timeout=PATIENCE) as answer:
        if answer.status_code != requests.codes.ok:
            raise BadImage(f"{url}: the server answers {answer.status_code}")
        for piece in answer.iter_content(CHUNK):
            data += piece
            if len(data) > LARGEST_FILE:
                raise BadImage(f"{url}: the file has more than the {LARGEST_FILE:,} bytes that are read")
            if time.monotonic() - began > DEADLINE:
                raise BadImage(f"{url}: the picture was not there within {DEADLINE:.0f} seconds")
    return bytes(data)
