"""No check raises an alarm where all is well."""

import pytest
import torch

from mgpo.cli import main
from mgpo.dialogues import BlindAnswer, FreeTurns, SingleTurn, TwoTurn
from mgpo.policy.lora import Lora
from mgpo.tools.doctor.examine import CHECKS
from mgpo.utils.configurations import shipped_config
from tests.conftest import make_policy
from tests.helpers.cases import RULE, SAMPLES, case_of, failures
from tests.rollout.test_rollout import Changing


def test_no_family_raises_an_alarm(family, family_policy):
    before = {name: p.clone() for name, p in family_policy.named_parameters()}
    case = case_of(family_policy, samples=SAMPLES)
    assert len(case.dictated[0].turns) == 2 and case.dictated[0].parsed_box.box is not None
    assert failures(case) == {}
    assert all(torch.equal(p, before[name]) for name, p in family_policy.named_parameters())
    family_policy.zero_grad()


@pytest.mark.parametrize("options", [dict(lora=Lora(rank=2)), dict(freeze_vision=True)], ids=["lora", "freeze"])
def test_no_choice_of_weights_raises_an_alarm(tokenizer, options):
    assert failures(case_of(make_policy(tokenizer, **options))) == {}


DIALOGUES = [SingleTurn(), TwoTurn(rule=RULE, turns=3), FreeTurns(3, rule=RULE), BlindAnswer(rule=RULE), Changing()]


@pytest.mark.parametrize("dialogue", DIALOGUES)
def test_no_dialogue_raises_an_alarm(fresh_policy, dialogue):
    skipped = ["boxes land"] if isinstance(dialogue, SingleTurn) else []
    assert failures(case_of(fresh_policy, dialogue), skipped) == {}


def test_rounding_raises_no_alarm(fresh_policy):
    """Under autocast checks are looser, and still see wrong positions."""
    with torch.autocast("cpu", torch.bfloat16):
        case = case_of(fresh_policy)
    found = {}
    for name, check in CHECKS.items():
        with torch.autocast("cpu", torch.bfloat16):
            found[name] = check(case)
    assert [result.text for result in found.values() if not result.passed] == []
    assert "on average" in found["sampler = trainer"].text


@pytest.mark.parametrize("name", ["mgpo", "grpo", "free", "sft"])
def test_no_shipped_configuration_raises_an_alarm(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["doctor", "--config", str(shipped_config(name)), "--data.num_workers=0"])
    said = capsys.readouterr().out
    assert said.count(" passed ") >= 10 and "FAILED" not in said
    assert list(tmp_path.iterdir()) == []
