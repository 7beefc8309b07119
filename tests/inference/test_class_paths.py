"""From a dialogue to settings that make the same one again, or a sentence that says why not."""

import json
from functools import partial

import pytest

from mgpo.dialogues import BlindAnswer, Dialogue, FreeTurns, SingleTurn, TwoTurn, WithMargin, answer_only
from mgpo.errors import UserError
from mgpo.images.boxes import BoxRule
from mgpo.inference.class_paths import check_settings, settings_of
from mgpo.utils.configurations import made_from


class Hinting(TwoTurn):
    """Hands most of its arguments on, and has one without an annotation."""

    def __init__(self, hint, turns=2, **others):
        super().__init__(turns=turns, **others)
        self.hint = hint


class Thrice(TwoTurn):
    """Says itself what it might have handed on."""

    def __init__(self, style: str = "short", **others):
        super().__init__("Look.", turns=3, **others)
        self.style = style


class Forgetful(TwoTurn):
    def __init__(self, hint: str = "", **others):
        super().__init__(**others)
        self.extra = hint


def whole_view(view, box, resolution):
    return view


@pytest.mark.parametrize(
    "dialogue",
    [
        TwoTurn(), SingleTurn(judge_box=True), BlindAnswer(), FreeTurns(turns=4), answer_only(),
        TwoTurn(turns=3, rule=BoxRule(min_side=20), cut=WithMargin(0.3)), TwoTurn(cut=whole_view),
        Hinting("left", turns=4, rule=BoxRule(min_side=33), system="Look."), Thrice("long", rule=BoxRule(min_side=33)),
    ],
)  # fmt: skip
def test_what_is_saved_makes_the_same_dialogue(dialogue):
    check_settings("the dialogue", dialogue, Dialogue)
    saved = json.loads(json.dumps(settings_of(dialogue)))
    made = made_from({"dialogue": saved}, dialogue=Dialogue).dialogue
    assert type(made) is type(dialogue)
    assert vars(made).keys() == vars(dialogue).keys() and settings_of(made) == saved


def test_what_is_handed_on_is_kept():
    saved = settings_of(Hinting("left", turns=4, rule=BoxRule(min_side=33), system="Look."))["init_args"]
    assert (saved["hint"], saved["turns"], saved["rule"]["min_side"], saved["system"]) == ("left", 4, 33, "Look.")


def in_a_function():
    class Local(TwoTurn):
        pass

    return Local()


@pytest.mark.parametrize(
    ("dialogue", "said"),
    [
        (Forgetful("left"), "Forgetful does not keep its argument hint; set self.hint in its __init__"),
        (TwoTurn(cut=lambda view, box, resolution: view), "<lambda> is in no module"),
        (in_a_function(), "Local is in no module"),
        (TwoTurn(cut=partial(whole_view)), "partial"),
        (TwoTurn(system=b"bytes"), "an argument of TwoTurn is no JSON"),  # pyright: ignore[reportArgumentType]
    ],
)
def test_what_would_come_back_as_another_is_not_saved(dialogue, said):
    with pytest.raises(UserError, match=f"the dialogue can't be saved: .*{said}"):
        check_settings("the dialogue", dialogue, Dialogue)
