"""A hub and servers that are not there: what the tests of this folder share."""

from functools import partial

import pytest
from huggingface_hub import constants

from mgpo.inference import sharing
from tests.helpers.hub import StandIn


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The folder of a cache, with nothing in it and no network behind it."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


@pytest.fixture
def client(hub, monkeypatch):
    """It is online for pushes, and who pushes is known."""
    client = StandIn(hub)
    monkeypatch.setattr(sharing, "HfApi", client)
    monkeypatch.setattr(sharing, "get_token", lambda: "hf_stand_in")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return client


@pytest.fixture
def offline(monkeypatch):
    return partial(monkeypatch.setattr, constants, "HF_HUB_OFFLINE", True)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    """A server of this machine is asked without a proxy."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
