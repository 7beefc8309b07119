"""The wire to a server that speaks the OpenAI protocol: one request, its retries, and errors as sentences."""

import json
import os
import re
import time
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from mgpo.errors import UserError

LARGEST_ANSWER = 50_000_000  # bytes
LONGEST_WAIT = 60.0  # seconds between two tries
PASSING = (408, 409, 425, 429)  # and everything from 500 up: worth another try
# Said of the model; a prompt with "multimodal tokens" that is too long, or an "unsupported image", is one question's.
_NO_IMAGES = re.compile(
    r"\bnot a multimodal model|\b(does not|doesn't) support (any )?(image|vision|multimodal)"
    r"|\b(image|vision|multimodal)( input)?s? (is|are) not supported|\bat most 0 image",
    re.IGNORECASE,
)


class ServerError(UserError):
    """No question can be asked of this server as it stands; ends the run."""


class NoReply(Exception):
    """This question got no reply, for the reason given; others may."""


class _Passing(Exception):
    """May go better at the next try."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class _Unreachable(_Passing):
    """Nobody listens there."""


class _NoRedirects(HTTPRedirectHandler):
    """A redirect would carry the key elsewhere."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


class ChatClient:
    """Posts requests to one server.

    Args:
        base_url: Where the protocol begins, such as http://localhost:8000/v1.
        api_key_env: The environment variable that holds the key; without one no key is sent.
        timeout: Seconds to wait for a reply.
        retries: Further tries after a time-out, a broken connection, malformed JSON, and the codes 408, 409, 425,
            429 and 5xx.
        backoff: Seconds before the first of them, twice as many before each next, unless the server says when.

    Raises:
        UserError: For another scheme than http and https, or an environment variable that holds no key.
    """

    def __init__(
        self,
        base_url: str,
        api_key_env: str | None = None,
        timeout: float = 120.0,
        retries: int = 3,
        backoff: float = 1.0,
    ) -> None:
        if urlsplit(base_url).scheme not in ("http", "https") or not urlsplit(base_url).hostname:
            raise UserError(f"{base_url} is no address of a server; it begins with http:// or https://")
        self.base_url, self.timeout, self.retries, self.backoff = base_url.rstrip("/"), timeout, retries, backoff
        self.headers = {"Content-Type": "application/json"}
        self.key = _key(api_key_env) if api_key_env is not None else None
        if self.key is not None:
            self.headers["Authorization"] = f"Bearer {self.key}"
        self.opener = build_opener(_NoRedirects)

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
                if not left and isinstance(passing, _Unreachable):
                    raise ServerError(f"{self.base_url} can't be reached ({passing}); is the server up?") from None
                if not left:
                    raise NoReply(f"{passing}, {self.retries + 1} times") from None
                time.sleep(min(LONGEST_WAIT, wait if passing.wait is None else passing.wait))
                wait *= 2
        raise AssertionError("unreachable")

    def _send(self, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        try:
            with self.opener.open(Request(self.base_url + path, data, self.headers), timeout=self.timeout) as response:
                raw = response.read(LARGEST_ANSWER)
        except HTTPError as error:
            raise self._refusal(error) from None
        except TimeoutError:
            raise _Passing(f"no reply within {self.timeout:g} s") from None
        except URLError as error:
            if isinstance(error.reason, TimeoutError):
                raise _Passing(f"no connection within {self.timeout:g} s") from None
            raise _Unreachable(str(error.reason)) from None
        except (OSError, HTTPException) as error:
            raise _Passing(f"the connection broke ({type(error).__name__})") from None
        try:
            answer = json.loads(raw)
        except ValueError:
            raise _Passing("the reply is no JSON") from None
        if not isinstance(answer, dict):
            raise _Passing("the reply is no JSON object")
        return answer

    def _refusal(self, error: HTTPError) -> Exception:
        """What to raise for a status that is no success."""
        code, said = error.code, _message(error, self.key)
        if code in (401, 403):
            return ServerError(
                f"{self.base_url} refuses access ({code}{said}); api_key_env names the environment variable of the key"
            )
        if code == 404:
            return ServerError(f"{self.base_url} does not know that model, or is no such server (404{said})")
        if code in (400, 415, 422) and _NO_IMAGES.search(said):
            return ServerError(f"the model at {self.base_url} takes no pictures ({code}{said})")
        if code in PASSING or code >= 500:
            after = error.headers.get("Retry-After", "")
            return _Passing(f"the server answers {code}{said}", float(after) if after.isdecimal() else None)
        return NoReply(f"the server refuses the request ({code}{said})")


def _key(variable: str) -> str:
    """The key in an environment variable, without the space or line's end that came along; no message shows it."""
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UserError(f"the environment variable {variable}, which is to hold the key, is empty")
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"the environment variable {variable} holds what is no key: signs that can't be sent")
    return key


def _message(error: HTTPError, key: str | None) -> str:
    """What a server says about an error, one short line of it; it is shown, so control characters and the key, which
    some servers repeat, are left out."""
    try:
        raw = error.read(10_000)
        said = json.loads(raw)
        said = said.get("error", said.get("detail", said.get("message", "")))
        said = said.get("message", "") if isinstance(said, dict) else said
    except (ValueError, AttributeError, OSError, HTTPException):
        return ""
    said = str(said).replace(key, "…") if key else str(said)
    line = "".join(sign if sign.isprintable() else " " for sign in said)[:200].strip()
    return f": {line}" if line else ""
