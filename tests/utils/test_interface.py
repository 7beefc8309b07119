"""What a configuration names implements an interface by its methods: their names, and how they can be called."""

import sys

import jsonargparse
import pytest

from mgpo.data import Mixture, Part, VQAData
from mgpo.data.base import Source
from mgpo.dialogues import SingleTurn, TwoTurn
from mgpo.dialogues.cuts import Cut
from mgpo.errors import UserError
from mgpo.training import MGPO
from mgpo.utils.complaints import plainly

OWN = """
from functools import lru_cache

from mgpo.data import Scenes
from mgpo.dialogues import SingleTurn
from mgpo.dialogues.base import Dialogue as Interface
from mgpo.rewards import Shaping as Shape


class Dialogue(SingleTurn):
    def proceed(self, so_far, sees):
        return super().proceed(so_far, sees)


class Source(Scenes):
    @lru_cache
    def __getitem__(self, i):
        return super().__getitem__(i)


class Shaping:
    def __init__(self, weight: float = 1.0):
        self.weight = weight

    def __call__(self, trajectory):
        return self.weight


def shaping(trajectory):
    return 0.5


def halved(k: float = 0.5) -> Shape:
    return lambda trajectory: k


def cut(seen, box, how):
    return seen.crop(box, how.crop)


class Abstract(Interface):
    def open(self, trajectory, resolution): ...
    def proceed(self, trajectory, resolution): ...


class NoProceed:
    def open(self, trajectory, resolution): ...
    def stop_text(self, turn): ...
"""


@pytest.fixture
def parser(tmp_path, monkeypatch):
    (tmp_path / "own_kinds.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_kinds", raising=False)
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(MGPO, "model", skip={"policy"}, instantiate=False)
    parser.add_class_arguments(VQAData, "data", instantiate=False)
    return parser


def test_none_of_them_needs_annotations(parser):
    args = ["--model.dialogue=own_kinds.Dialogue", "--data.train=own_kinds.Source", "--data.train.count=3"]
    args += [
        "--model.shaping=[own_kinds.shaping, own_kinds.Shaping, {class_path: own_kinds.halved, init_args: {k: 3}}]"
    ]
    made = parser.instantiate(parser.parse_args(args))
    assert type(made.model.dialogue).__name__ == "Dialogue" and len(made.data.train) == 3
    assert [shaping(None) for shaping in made.model.shaping] == [0.5, 1.0, 3.0]
    args = ["--model.dialogue=mgpo.TwoTurn", "--model.dialogue.cut=own_kinds.cut"]
    config = parser.parse_args(args)
    assert parser.instantiate(config).model.dialogue.cut.__name__ == "cut"
    assert "cut: own_kinds.cut" in parser.dump(config)  # and can be read again


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--model.dialogue=own_kinds.NoProceed"],
         "model.dialogue: own_kinds.NoProceed is no Dialogue: it has no proceed"),
        (["--model.dialogue=own_kinds.Abstract"],
         "model.dialogue: own_kinds.Abstract is no Dialogue: it has no stop_text"),
        (["--data.train=own_kinds.Shaping"], "data.train: own_kinds.Shaping is no Source: it has no __getitem__"),
        (["--model.reward=own_kinds.Shaping", "--model.reward.weight=half"],
         "model.reward.weight: a number is needed, not half"),
        (['--model.shaping=[{"class_path": "own_kinds.Shaping", "init_args": {"weight": "half"}}]'],
         "model.shaping.weight: a number is needed, not half"),
        (["--model.shaping=[own_kinds.Dialogue]"],
         "model.shaping: own_kinds.Dialogue is no Shaping: it has no __call__"),
    ],
)  # fmt: skip
def test_what_keeps_a_class_from_it_is_said(parser, args, said):
    with pytest.raises(jsonargparse.ArgumentError) as raised:
        parser.parse_args(args)
    assert plainly(str(raised.value)) == said


class Short(SingleTurn):
    def proceed(self, trajectory):
        return None


class Longer:
    def __len__(self):
        return 1

    def __getitem__(self, index, epoch):
        raise AssertionError


def halves(trajectory, weight):
    return weight


def whole(view, box):
    return view


def test_so_is_a_method_that_can_not_be_called_as_it_will_be(policy):
    def refused(make):
        with pytest.raises(UserError) as raised:
            make()
        return str(raised.value)

    assert refused(lambda: MGPO(policy, Short())) == (
        "model.dialogue: Short.proceed is defined with (trajectory), but as a Dialogue it takes trajectory and "
        "resolution"
    )
    assert refused(lambda: MGPO(policy, shaping=[halves])) == (
        "model.shaping: halves is defined with (trajectory, weight), but as a Shaping it takes trajectory"
    )
    assert refused(lambda: TwoTurn(cut=whole)) == (
        "dialogue.cut: whole is defined with (view, box), but as a Cut it takes view, box and resolution"
    )
    for made in (lambda: VQAData(Longer()), lambda: VQAData(val=[Longer()]), lambda: Mixture([Part(Longer())])):
        assert "Longer.__getitem__ is defined with (index, epoch), but as a Source it takes index" in refused(made)
    assert "model.sampler: NoneTooMany is no Sampler: it has no open" in refused(
        lambda: MGPO(policy, sampler=type("NoneTooMany", (), {"exact": True})())
    )


def test_functions_implement_what_is_called_and_nothing_else():
    assert isinstance(whole, Cut) and not isinstance(whole, Source) and not isinstance(Short, Cut)
