"""The parser's own complaints name everything that was tried; what a person reads names the cause."""

import jsonargparse
import pytest

from mgpo.policy.base import Policy
from mgpo.utils.complaints import plainly


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("own.Reward", "policy: there is no own.Reward: no module own is found"),
        ("mgpo.policy.Nothing", "policy: there is no Nothing in mgpo.policy"),
        ("Nothing", "policy: Nothing is no class path"),
        ({"class_path": "mgpo.policy.Qwen25VL", "init_args": {"pixels": 3}}, "Qwen25VL has no argument pixels"),
    ],
)
def test_classes(value, words):
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--policy", type=Policy)
    assert words in plainly(complaint(parser, {"policy": value}))


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        (int, "two", "x: a whole number is needed, not two"),
        (bool, "two", "x: true or false is needed, not two"),
        (float | None, "two", "two"),
        (jsonargparse.typing.PositiveInt, 0, "0"),
    ],
)
def test_values(kind, value, words):
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--x", type=kind)
    assert words in plainly(complaint(parser, {"x": value}))


def complaint(parser, given):
    with pytest.raises(jsonargparse.ArgumentError) as raised:
        parser.parse_object(given)
    return str(raised.value)


def test_others_stay_as_they_are():
    assert plainly("something\n else") == "something else"
