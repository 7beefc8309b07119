"""The wire to a server that speaks the OpenAI protocol: one request, its retries, and errors as sentences."""

import json
import os
import re
import time
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request

from mgpo.errors import UserError
from mgpo.inference.bounded_http import bounded_opener
from mgpo.utils.atomic_files import parse_json

LARGEST_ANSWER = 50_000_000  # bytes
LONGEST_WAIT = 60.0  # seconds between two tries
LONGEST_TIMEOUT = 1e9  # seconds
SHOWN = 200  # characters of what a server says
PASSING = (408, 409, 425, 429)  # and from 500 up all but these: worth another try
NEVER = (501, 505)
# Said of the model; a prompt with "multimodal tokens" that is too long, or an "unsupported image", is one question's.
_NO_IMAGES = re.compile(
    r"\bnot a multimodal model|\b(does not|doesn't) support (any )?(image|vision|multimodal)"
    r"|\b(image|vision|multimodal)( input)?s? (is|are) not supported|\bat most 0 image",
    re.IGNORECASE,
)
_SPENT = re.compile(
    r"\binsufficient[ _](quota|balance|credits?|funds)\b|\bexceeded your current quota\b", re.IGNORECASE
)


class ServerError(UserError):
    """No question can be asked of this server as it stands; ends the run."""


class Unreachable(ServerError):
    """Nobody listens there, however often it was tried; in a while somebody may."""


class NoReply(Exception):
    """This question got no reply, for the reason given; others may."""


class _Passing(Exception):
    """May go better at the next try."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class _Silent(_Passing):
    """Nobody listens there at the moment."""


class ChatClient:
    """Posts requests to one server.

    Args:
        base_url: Where the protocol begins, such as http://localhost:8000/v1.
        api_key_env: The environment variable that holds the key; without one no key is sent.
        timeout: Seconds in which a whole reply has to be there.
        retries: Further tries after a time-out, a broken connection, malformed JSON, and the codes 408, 409, 425,
            429 and 5xx.
        backoff: Seconds before the first of them, twice as many before each next, unless the server says when; a
            minute at most.

    Raises:
        UserError: For what is no address of a server, numbers that make no sense, or an environment variable that
            holds no key.
    """

    def __init__(
        self,
        base_url: str,
        api_key_env: str | None = None,
        timeout: float = 120.0,
        retries: int = 3,
        backoff: float = 1.0,
    ) -> None:
        if not _is_address(base_url):
            raise UserError(
                f"{base_url} is no address of a server; it begins with http:// or https://, and holds no spaces, "
                "accents or names of users"
            )
        if not (0 < timeout <= LONGEST_TIMEOUT and retries >= 0 and backoff >= 0):
            raise UserError(
                "a server is asked with timeout > 0, retries >= 0 and backoff >= 0, "
                f"not {timeout}, {retries} and {backoff}"
            )
        self.base_url, self.timeout, self.retries, self.backoff = base_url.rstrip("/"), timeout, retries, backoff
        self.headers = {"Content-Type": "application/json"}
        self.key = _key(api_key_env) if api_key_env is not None else None
        if self.key is not None:
            self.headers["Authorization"] = f"Bearer {self.key}"
        self.opener = bounded_opener()

    def models(self) -> list[str]:
        """The names of the models that are served."""
        try:
            return [str(model["id"]) for model in self.request("/models")["data"]]
        except (NoReply, LookupError, TypeError) as error:
            raise ServerError(f"{self.base_url} does not say which models it serves ({error}); name one") from None

    def request(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Post a body as JSON, or get where there is none; the object that comes back.

        Raises:
            ServerError: Where every question would meet the same: no server, a refused key, an unknown model,
                a model without images.
            NoReply: Where this request failed, after the retries if they may help.
        """
        wait = self.backoff
        for left in range(self.retries, -1, -1):
            try:
                return self._send(path, body)
            except _Passing as passing:
                if not left and isinstance(passing, _Silent):
                    raise Unreachable(f"{self.base_url} can't be reached ({passing}); is the server up?") from None
                if not left:
                    raise NoReply(f"{passing}, {self.retries + 1} times") from None
                if passing.wait is not None and passing.wait > LONGEST_WAIT:
                    warnings.warn(f"{self.base_url}: {passing}; trying again in {LONGEST_WAIT:g} s", stacklevel=2)
                time.sleep(min(LONGEST_WAIT, wait if passing.wait is None else passing.wait))
                wait *= 2
        raise AssertionError("unreachable")

    def _send(self, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        try:
            with self.opener.open(Request(self.base_url + path, data, self.headers), timeout=self.timeout) as response:
                kind = str(response.headers.get("Content-Type"))
                raw = response.read(LARGEST_ANSWER + 1)
        except HTTPError as error:
            with error:
                raise self._refusal(error) from None
        except TimeoutError:
            raise _Passing(f"no reply within {self.timeout:g} s") from None
        except URLError as error:
            if isinstance(error.reason, TimeoutError):
                raise _Passing(f"no connection within {self.timeout:g} s") from None
            raise _Silent(str(error.reason)) from None
        except (OSError, HTTPException) as error:
            raise _Passing(f"the connection broke ({type(error).__name__})") from None
        if len(raw) > LARGEST_ANSWER:
            raise NoReply(f"the reply has more than {LARGEST_ANSWER:,} bytes")
        if "event-stream" in kind:
            raise ServerError(f"{self.base_url} streams its replies; take stream out of extra, they are wanted whole")
        return _object(raw)

    def _refusal(self, error: HTTPError) -> Exception:
        """What to raise for a status that is no success."""
        code, said = error.code, _message(error, self.key)
        if 300 <= code < 400:
            there = shown(error.headers.get("Location", "another address"), self.key)
            return ServerError(f"{self.base_url} refuses the request ({code}) and points to {there}; ask there instead")
        if code in (401, 403):
            return ServerError(
                f"{self.base_url} refuses access ({code}{said}); api_key_env names the environment variable of the key"
            )
        if code == 402 or (code in (400, 429) and _SPENT.search(said)):
            return ServerError(f"{self.base_url} wants to be paid first ({code}{said}); see to the account of the key")
        if code in (404, 405, 410, *NEVER):
            return ServerError(f"{self.base_url} does not know that model, or is no such server ({code}{said})")
        if code in (400, 415, 422) and _NO_IMAGES.search(said):
            return ServerError(f"the model at {self.base_url} takes no pictures ({code}{said})")
        if code == 413:
            return NoReply(f"the request is too large for the server (413{said}); lower max_pixels")
        if code in PASSING or code >= 500:
            after = _seconds(error.headers.get("Retry-After", ""))
            asks = f", and asks for {after:,.0f} s of rest" if after is not None and after > LONGEST_WAIT else ""
            return _Passing(f"the server answers {code}{said}{asks}", after)
        return NoReply(f"the server refuses the request ({code}{said})")


def shown(said: Any, key: str | None = None) -> str:
    """What a server says as one short line, without control characters and without the key, which some repeat."""
    said = str(said).replace(key, "…") if key else str(said)
    return "".join(sign if sign.isprintable() else " " for sign in said)[:SHOWN].strip()


def _is_address(base_url: str) -> bool:
    try:
        parts = urlsplit(base_url)
        _ = parts.port  # raises where it is none
    except ValueError:
        return False
    plain = base_url.isascii() and base_url.isprintable() and " " not in base_url and "@" not in parts.netloc
    return plain and parts.scheme in ("http", "https") and bool(parts.hostname)


def _object(raw: bytes) -> dict[str, Any]:
    """The JSON object that a reply is."""
    try:
        answer = parse_json(raw)
    except ValueError:
        page = "a web page (is the address that of the protocol, such as …/v1?) and " if _is_page(raw) else ""
        raise _Passing(f"the reply is {page}no JSON") from None
    if not isinstance(answer, dict):
        raise _Passing("the reply is no JSON object")
    return answer


def _is_page(raw: bytes) -> bool:
    return raw[:200].lstrip().lower().startswith((b"<!doctype html", b"<html"))


def _seconds(after: str) -> float | None:
    """Those of a Retry-After, which is a number or a date; None where it is neither."""
    try:
        if after.strip().isdecimal():
            return min(float(after), 1e9)
        when = parsedate_to_datetime(after)
        return max(0.0, (when - datetime.now(when.tzinfo or UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None


def _key(variable: str) -> str:
    """The key in an environment variable, without the space or line's end that came along; no message shows it."""
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UserError(f"the environment variable {variable}, which is to hold the key, is empty")
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"the environment variable {variable} holds what is no key: signs that can't be sent")
    return key


def _message(error: HTTPError, key: str | None) -> str:
    """What a server says about an error, behind a colon; nothing where it says nothing that can be read."""
    try:
        said = parse_json(error.read(10_000))
        said = said.get("error", said.get("detail", said.get("message", "")))
        said = said.get("message", "") if isinstance(said, dict) else said
    except (ValueError, AttributeError, OSError, HTTPException):
        return ""
    line = shown(said, key)
    return f": {line}" if line else ""
