"""Making a base: every stage runs, its probes look at the tokens that their labels are of, and it ends as a base."""

import pytest
import torch
from torch.nn.functional import cosine_similarity

from mgpo.errors import UserError
from mgpo.policy import Qwen25VL
from mgpo.policy.passes.logprobs import score
from mgpo.tools.pretrain import command
from mgpo.tools.pretrain.bounds import BOUNDS, mended
from mgpo.world.language import Probes
from mgpo.world.model import CAPS
from mgpo.world.teacher import Habits
from mgpo.world.transcripts import Transcripts

SHORT = dict(tower_steps=2, language_steps=1, polish_steps=1, habit_steps=1, pictures=2, scenes=2, side=256)
WITHIN = {name: sum(bounds) / 2 for name, bounds in BOUNDS.items()}


def test_it_goes_through_all_stages_until_what_it_makes_is_a_base(tmp_path, monkeypatch, capsys):
    seen = iter([{**WITHIN, "two turns, greedy": 0.9}, WITHIN, None])
    monkeypatch.setattr(command, "measure", lambda policy, handwritten: next(seen))
    command.pretrain(str(tmp_path / "base"), **SHORT)
    assert next(seen) is None  # looked at twice, and then it was one
    assert "a base within its bounds" in capsys.readouterr().out
    assert Qwen25VL(path=str(tmp_path / "base"), **CAPS).load().model is not None


def test_what_was_seen_mends_the_habits_of_the_next_round():
    habits = Habits(tight=0.4, wild=0.2)
    assert mended(habits, WITHIN) == habits
    greedy = mended(habits, {**WITHIN, "two turns, greedy": 0.7})
    assert greedy.tight > habits.tight and greedy.wild == habits.wild
    few = mended(habits, {**WITHIN, "valid boxes, sampled": 0.2})
    good = [1 - sum(vars(each).values()) for each in (habits, few)]
    assert few.wild > habits.wild and few.tight < habits.tight and good[1] < good[0]


def test_what_does_not_become_a_base_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "measure", lambda policy, handwritten: {**WITHIN, "the right crop read": 0.5})
    with pytest.raises(UserError, match=r"no base yet: the right crop read 0.50 \(wanted 0.90 to 1.00\)"):
        command.pretrain(str(tmp_path / "base"), **SHORT, habit_rounds=1)


def test_probes_look_at_the_tokens_that_their_labels_are_of(fresh_policy):
    policy = fresh_policy
    transcripts = Transcripts(policy, 1, 2, 256, Habits(), 0)
    batch, labels = next(iter(transcripts))
    probes = Probes(policy, len(transcripts.contents))
    with torch.no_grad():
        score(policy, batch)
        hidden_TD = probes.hidden[0][-int(batch.fed_NC.sum()) :]
        embedded_TD = policy.model.model.language_model.embed_tokens(batch.ids_NC[batch.fed_NC])
    probes.remove()
    colours = (labels[..., 0] >= 0)[batch.fed_NC]
    assert colours.any()
    # one layer behind the embedding a token is still like itself, and like its neighbours is not
    own, next_ = (cosine_similarity(hidden_TD, embedded_TD.roll(by, 0))[colours].mean() for by in (0, 1))
    assert own > next_ + 0.1


def test_a_model_is_not_overwritten(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="holds a model; name another --output, or go on from it with --start"):
        command.pretrain(str(tmp_path), **SHORT)
