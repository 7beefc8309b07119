"""The parser's own complaints name everything that was tried; what a person reads names the cause."""

from collections.abc import Callable, Sequence

import jsonargparse
import pytest
import torch

from mgpo.data.base import Source
from mgpo.dialogues import Dialogue
from mgpo.policy.base import Policy
from mgpo.utils.complaints import plainly


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("own.Reward", "policy: there is no own.Reward: no module own is found"),
        ("mgpo.policy.Nothing", "policy: there is no Nothing in mgpo.policy"),
        ("Nothing", "policy: Nothing is no class path"),
        (
            "mgpo.policy.Pretrained",
            "policy.Pretrained is abstract: it does not define blank, decode, expand, pixels, positions, r",
        ),
        ({"class_path": "mgpo.policy.Qwen25VL", "init_args": {"pixels": 3}}, "Qwen25VL has no argument pixels"),
        ({"class_path": "mgpo.policy.Qwen25VL", "init_args": {"max_pixel": 3}}, "did you mean max_pixels?"),
        ({"class_path": "mgpo.policy.Qwen25VL", "init_args": {"zzz": 3}}, "no argument zzz; it has path, "),
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
        (float | None, "two", "x: a number is needed, not two"),
        (int | None, "many", "x: a whole number is needed, not many"),
        (Sequence[int], 3, "x: a list in [ ] is needed, not 3"),
        (float | torch.Tensor, "abc", "x: a number is needed, not abc"),
        (jsonargparse.typing.PositiveInt, 0, "0"),
    ],
)
def test_values(kind, value, words):
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--x", type=kind)
    assert words in plainly(complaint(parser, {"x": value}))


SCENES = "mgpo.data.Scenes"
QWEN = "mgpo.policy.Qwen25VL"
SCHEDULE = Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler]


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        (Source | None, [SCENES], "x: ['mgpo.data.Scenes'] is no Source; name one by its class path, and its "
         "arguments under init_args"),
        (Source | None, "collections.OrderedDict", "x: collections.OrderedDict is no Source"),
        (Source | None, "mgpo.data.Files", "x: mgpo.data.Files needs path; add --x.path"),
        (Source | None, {"class_path": SCENES, "init_args": {"count": "two"}},
         "x.count: a whole number is needed, not two"),
        (Sequence[Source], [{"class_path": SCENES, "init_args": {"count": 2.5}}],
         "x.count: a whole number is needed, not 2.5"),
        (Dialogue | None, {"class_path": "mgpo.dialogues.TwoTurn", "init_args": {"cut": SCENES}},
         f"x.cut: {SCENES} is no Cut: it has no __call__"),
        (Policy, "torch.nn.Linear", "x: torch.nn.Linear does not correspond to a subclass of Policy"),
        (Policy, {"class_path": QWEN, "init_args": {"lora": 8}},
         "x.lora: 8 is no Lora; name one by its class path, and its arguments under init_args"),
        (SCHEDULE | None, "torch.optim.lr_scheduler.CosineAnnealingLR",
         "x: torch.optim.lr_scheduler.CosineAnnealingLR needs T_max; add --x.T_max"),
        (Callable[[list], torch.optim.Optimizer], {"class_path": "torch.optim.AdamW", "init_args": {"lr": "abc"}},
         "x.lr: a number is needed, not abc"),
    ],
)  # fmt: skip
def test_what_lies_within_classes(kind, value, said):
    """The innermost key, and nothing of what else was tried."""
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--x", type=kind)
    assert plainly(complaint(parser, {"x": value})) == said


def test_what_is_needed_is_named_by_its_option():
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--data", type=str, required=True)
    with pytest.raises(jsonargparse.ArgumentError) as raised:
        parser.parse_args([])
    assert "--data" in plainly(str(raised.value))


def test_an_option_below_a_list_is_shown_as_it_was_given():
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--test", type=list[Source])
    with pytest.raises(jsonargparse.ArgumentError) as raised:
        parser.parse_args(["--test.mine.class_path", SCENES])
    assert plainly(str(raised.value)).startswith(f"test: mine.class_path={SCENES} is no Source")


def complaint(parser, given):
    with pytest.raises(jsonargparse.ArgumentError) as raised:
        parser.parse_object(given)
    return str(raised.value)


def test_others_stay_as_they_are():
    assert plainly("something\n else") == "something else"
