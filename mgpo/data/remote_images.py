"""Pictures behind an address: fetched once, kept on disk, bounded in time and size."""

import hashlib
import ipaddress
import os
import socket
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from PIL import Image
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError
from urllib3.util import parse_url

from mgpo.images.decoding import LARGEST_FILE, BadImage, check_data, decode_image
from mgpo.utils.atomic_files import writing

SCHEMES = ("http://", "https://")
PATIENCE = 20.0  # seconds without a byte
DEADLINE = 120.0  # seconds for a whole picture
CHUNK = 1 << 16


@dataclass(frozen=True)
class WebPicture:
    """The image behind an http or https address; `sha256` of its file, where known, must fit.

    Rows come from strangers: an address in one's own network is asked for only where it is `private`.
    """

    url: str
    cache: str
    sha256: str | None = None
    private: bool = False

    def load(self) -> Image.Image:
        """The image behind the address, from the cache where it is there, decoded. Raises BadImage."""
        return decode_image(self.read(), self.url)

    def read(self) -> bytes:
        """The file as it is stored. Raises BadImage."""
        return fetch(self.url, Path(self.cache), self.sha256, self.private)


class PublicOnly(HTTPAdapter):
    """Sends nothing to hosts whose name leads to this machine or its network; every redirect passes here too."""

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a request as requests does. Raises BadImage where the host's name leads into a private network."""
        host = (parse_url(str(request.url)).host or "").strip("[]")
        if any(not address.is_global for address in _addresses(host)):
            raise BadImage(f"{request.url}: the host is in a private network; allow it with private: true")
        return super().send(request, *args, **kwargs)


def fetch(url: str, cache: Path, sha256: str | None = None, private: bool = False) -> bytes:
    """The file behind the address, from `cache` where it is there; only what is an image, and fits, is kept.

    Raises:
        BadImage: If it can't be had in time, is too large, is no image, or is not the one of `sha256`.
        UserError: If the cache can't be written.
    """
    if not url.lower().startswith(SCHEMES):
        raise BadImage(f"{url[:100]}: pictures are fetched from http and https addresses only")
    path = cache / hashlib.sha256(url.encode(errors="replace")).hexdigest()
    known = path.is_file()
    try:
        data = path.read_bytes() if known else _download(url, private)
    except BadImage:
        raise
    except (requests.RequestException, HTTPError, ValueError) as error:
        raise BadImage(f"{url[:1000]}: it can't be fetched ({type(error).__name__})") from None
    if sha256 and hashlib.sha256(data).hexdigest() != sha256:
        raise BadImage(f"{url}: the picture there is no longer the one that was annotated")
    if not known:
        check_data(data, url)
        keep(data, path)
    return data


def keep(data: bytes, path: Path) -> None:
    """Write a file in one piece: another process finds it whole or not at all. Raises UserError where it can't be."""
    with writing(path, "make room there, or keep the pictures as files and name these in the rows"):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, unfinished = tempfile.mkstemp(dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            os.replace(unfinished, path)
        except OSError:
            os.unlink(unfinished)
            raise


def _addresses(host: str) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """What a name resolves to; nothing where it is unknown, which sending then finds out."""
    try:
        found = [ipaddress.ip_address(place[0]) for *_, place in socket.getaddrinfo(host, None)]
    except socket.gaierror:
        return []
    return [getattr(address, "ipv4_mapped", None) or address for address in found]


def _download(url: str, private: bool) -> bytes:
    began, data, session = time.monotonic(), bytearray(), requests.Session()
    if not private:
        for scheme in SCHEMES:
            session.mount(scheme, PublicOnly())
    with session, session.get(url, stream=True, timeout=PATIENCE) as answer:
        if answer.status_code != requests.codes.ok:
            raise BadImage(f"{url}: the server answers {answer.status_code}")
        for piece in answer.iter_content(CHUNK):
            data += piece
            if len(data) > LARGEST_FILE:
                raise BadImage(f"{url}: the file has more than the {LARGEST_FILE:,} bytes that are read")
            if time.monotonic() - began > DEADLINE:
                raise BadImage(f"{url}: the picture was not there within {DEADLINE:.0f} seconds")
    return bytes(data)
