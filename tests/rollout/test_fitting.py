"""Conversations that are too long for the model: left out before anything of theirs is played, counted and named."""

from dataclasses import replace
from functools import partial

import lightning as L
import pytest

from mgpo.data.module import VQAData
from mgpo.data.scenes import Scenes
from mgpo.dialogues import FreeTurns, SingleTurn, TwoTurn
from mgpo.errors import UserError
from mgpo.evaluation.counterfactuals import counterfactuals
from mgpo.inference.loading import load
from mgpo.inference.local import Model
from mgpo.inference.predict import answer
from mgpo.rewards import ExactAnswer
from mgpo.rollout.episodes import roll_out
from mgpo.rollout.fitting import in_process, opening_too_long
from mgpo.rollout.in_process import InProcessSampler, Sampling
from mgpo.tools.doctor.preflight import Preflight
from mgpo.vllm import VLLMSampler
from tests.conftest import make_policy, make_question, noise_image
from tests.rollout.test_rollout import Scripted
from tests.training.test_module import Noisy, fit, make

FEW = Sampling(max_new_tokens=8)
IMAGES = [noise_image(448, 448, 1), noise_image(640, 320, 2), noise_image(300, 500, 3)]
SAMPLES = [(make_question(image, f"q{i}"), image) for i, image in enumerate(IMAGES)]
LONG = replace(SAMPLES[1][0], id="long", text="Which letter is it? " + "word " * 6000)


class Counting(InProcessSampler):
    """Notes how many prompts and tokens it is shown at first."""

    def __init__(self):
        self.shown = []

    def open(self, policy, prompts, copies):
        self.shown.append([len(prompt.ids) for prompt in prompts])
        return super().open(policy, prompts, copies)


class Wordy(Scenes):
    """Scenes, of which some have a question of any length."""

    def __init__(self, count, long=(1,), **options):
        super().__init__(count, side=128, **options)
        self.long = long

    def __getitem__(self, index):
        question = super().__getitem__(index)
        return replace(question, id=f"long{index}", text=LONG.text) if index in self.long else question


@pytest.mark.parametrize("dialogue", [TwoTurn(), SingleTurn(), FreeTurns(3)])
def test_a_prompt_that_is_too_long_is_not_shown_and_changes_no_other(policy, dialogue):
    sampler = Counting()
    mixed = [SAMPLES[0], (LONG, IMAGES[1]), SAMPLES[2]]
    played = roll_out(policy, sampler, dialogue, mixed, 2, FEW, (0, 0))
    alone = roll_out(policy, InProcessSampler(), dialogue, SAMPLES[::2], 2, FEW, (0, 0))
    assert len(sampler.shown[0]) == 2 and max(sampler.shown[0]) < 4096
    assert [t.question.id for t in played] == ["q0", "q0", "long", "long", "q2", "q2"]
    assert all(not t.turns and "of the 4,096" not in t.failed and "4,096" in t.failed for t in played[2:4])
    said = [[turn.reply.ids for turn in t.turns] for t in (*played[:2], *played[4:])]
    assert said == [[turn.reply.ids for turn in t.turns] for t in alone]
    only = roll_out(policy, sampler, dialogue, [(LONG, IMAGES[1])], 3, FEW, (0, 0))
    assert len(only) == 3 and len(sampler.shown) == 1


def test_a_conversation_that_gets_too_long_ends(fresh_policy):
    """Row by row: those whose second turn still fits go on."""
    whole = roll_out(fresh_policy, Scripted(), TwoTurn(), SAMPLES, 4, FEW, (0, 0))
    taken = []
    for trajectory in whole:
        at = fresh_policy.positions(trajectory.turns[0].prompt, 0)[1] + len(trajectory.turns[0].reply.ids)
        taken.append(fresh_policy.positions(trajectory.turns[1].prompt, at)[1] + FEW.max_new_tokens)
    fresh_policy.max_positions = sorted(taken)[len(taken) // 2]
    played = roll_out(fresh_policy, Scripted(), TwoTurn(), SAMPLES, 4, FEW, (0, 0))
    ended = [end > fresh_policy.max_positions for end in taken]
    assert {True, False} == set(ended)
    assert [len(t.turns) for t in played] == [1 if early else 2 for early in ended]
    assert all(("reply 2" in t.failed) if early else t.failed is None for t, early in zip(played, ended))
    for trajectory, before, early in zip(played, whole, ended):
        assert early or [turn.reply.ids for turn in trajectory.turns] == [turn.reply.ids for turn in before.turns]


def test_what_is_counted_is_what_is_shown(family, family_policy, monkeypatch):
    """Tokens for the configured limit, positions for the model's; a picture takes fewer positions than tokens."""
    question, image = SAMPLES[0]
    shown = roll_out(family_policy, InProcessSampler(), TwoTurn(), [(question, image)], 1, FEW, (0, 0))[0].turns[0]
    tokens, end = len(shown.prompt.ids), family_policy.positions(shown.prompt, 0)[1]
    assert (end == tokens) is family.gemma

    def fits():
        return opening_too_long(family_policy, TwoTurn(), question, image, 8) is None

    for limit, allowed in ((end + 8, True), (end + 7, False), (None, True)):
        monkeypatch.setattr(family_policy, "max_positions", limit)
        assert fits() is allowed
    for limit, allowed in ((tokens, True), (tokens - 1, False)):
        monkeypatch.setattr(family_policy, "max_prompt_tokens", limit)
        assert fits() is allowed


class Short(Scripted):
    """An engine that takes conversations of few tokens."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.max_model_len = most


def test_an_engines_limit_costs_the_question_and_not_the_run(policy):
    """It is of tokens, replies among them; one that is not known before ends in the middle of the run."""
    whole = roll_out(policy, Scripted(), TwoTurn(), SAMPLES, 1, FEW, (0, 0))
    first, all_ = (
        [sum(len(turn.prompt.ids) for turn in t.turns[:n]) + len(t.turns[0].reply.ids) * (n - 1) for t in whole]
        for n in (1, 2)
    )
    most = max(first) + FEW.max_new_tokens
    assert most < min(all_) + FEW.max_new_tokens
    for limit, turns in ((most, 1), (max(all_) + FEW.max_new_tokens, 2)):
        played = roll_out(policy, Short(limit), TwoTurn(), SAMPLES, 1, FEW, (0, 0))
        assert [len(t.turns) for t in played] == [turns] * len(SAMPLES)
        assert all((t.failed is None) == (turns == 2) for t in played)
    assert f"beyond the {most:,} of model.sampler.max_model_len" in str(
        roll_out(policy, Short(most), TwoTurn(), SAMPLES, 1, FEW, (0, 0))[0].failed
    )
    question, image = SAMPLES[0]
    fits = [opening_too_long(policy, TwoTurn(), question, image, 8, most=most) is None for most in (first[0] + 8, 9)]
    assert fits == [True, False]


def test_a_limit_of_ones_own(tokenizer):
    policy = make_policy(tokenizer, max_prompt_tokens=20)
    played = roll_out(policy, InProcessSampler(), TwoTurn(), SAMPLES, 1, FEW, (0, 0))
    assert all(t.failed and "policy.max_prompt_tokens allows 20" in t.failed for t in played)
    with pytest.raises(UserError, match="max_prompt_tokens is 0"):
        make_policy(tokenizer, max_prompt_tokens=0)
    with pytest.raises(UserError, match="max_prompt_tokens allows 20"):
        load(max_prompt_tokens=20).ask(IMAGES[0], "Which letter is it?")


@pytest.mark.parametrize("options", [{}, {"supervised": True}, {"constant_reward_groups": "drop"}], ids=str)
def test_a_fit_leaves_long_questions_out(tokenizer, tmp_path, monkeypatch, capsys, options):
    monkeypatch.setattr("tests.training.test_module.Scenes", lambda count, side: Wordy(count, (1, 4)))
    sampler = Counting()
    module = make(tokenizer, Noisy, sampler=sampler, **options)
    trainer = fit(module, tmp_path, callbacks=[Preflight()], enable_checkpointing=False)
    assert trainer.global_step == 4
    assert sum(map(len, sampler.shown[1:])) == 6 and max(map(max, sampler.shown)) < 4096
    assert module.skipped == {("train", "long1"), ("train", "long4")}
    said = capsys.readouterr().out
    assert said.count("left out: question long1, ") == said.count("left out: question long4, ") == 1
    assert "left out in this run: 2 questions" in said and "checks passed" in said


def test_where_nothing_fits_the_preflight_says_so(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr("tests.training.test_module.Scenes", lambda count, side: Wordy(count, range(count)))
    with pytest.raises(UserError, match=r"of its first 4 questions none can be played.*stand before reply 1") as error:
        fit(make(tokenizer), tmp_path, questions=4, callbacks=[Preflight()], enable_checkpointing=False)
    assert len(str(error.value)) <= 600


def test_a_rollout_that_runs_out_of_memory_names_its_questions(tokenizer, tmp_path, monkeypatch):
    module = make(tokenizer)

    class Full(InProcessSampler):
        def open(self, policy, prompts, copies):
            raise RuntimeError("you tried to allocate 37 GB")

    module.sampler = Full()
    with pytest.raises(UserError, match=r"of questions \S+ \(\d+ characters\), .*: you tried to allocate 37 GB"):
        fit(module, tmp_path, questions=4, callbacks=[Preflight()], enable_checkpointing=False)


@pytest.mark.parametrize("late", [False, True], ids=["at once", "in turn 2"])
def test_a_validation_says_what_it_did_not_score(tokenizer, tmp_path, capsys, late):
    module = make(tokenizer, eval_sampling=Sampling(6, 0))
    if late:  # all first prompts fit, no second one does
        prompts = [opening(module, question) for question in Scenes(3, side=128, split="val")]
        module.policy.max_prompt_tokens = max(prompts) + 6
    data = VQAData(val=[Wordy(3, () if late else (1,), split="val")], num_workers=0)
    trainer = L.Trainer(
        accelerator="cpu", default_root_dir=tmp_path, logger=False, enable_progress_bar=False,
        enable_checkpointing=False, enable_model_summary=False,
    )  # fmt: skip
    for _ in range(2):
        trainer.validate(module, data, verbose=False)
        left = module.summary["left_out"]
        assert (module.summary["n"], len(left)) == ((0, 3) if late else (2, 1))
        assert all(row["split"] == "val" and "stand before reply" in row["why"] for row in left)
    assert f"not scored: {len(left)} of 3 questions; the first, {left[0]['id']}, because " in capsys.readouterr().out


def opening(module, question):
    image = question.picture.load()
    return len(
        roll_out(module.policy, InProcessSampler(), TwoTurn(), [(question, image)], 1, FEW, (0, 0))[0]
        .turns[0]
        .prompt.ids
    )


def test_a_prediction_says_so_in_its_row(policy):
    model = Model(policy, TwoTurn(), 8)
    rows = answer(model, [(LONG, (IMAGES[1],), ""), (SAMPLES[0][0], SAMPLES[0][1:], "")])
    assert "4,096" in rows[0]["error"] and "error" not in rows[1]
    with pytest.raises(UserError, match="4,096"):
        model.ask(IMAGES[1], LONG.text)


def test_no_variant_counts_a_question_that_could_not_be_played(policy):
    samples = [(LONG, IMAGES[1]), SAMPLES[0]]
    play = partial(roll_out, policy, InProcessSampler())
    rows = counterfactuals(play, TwoTurn(), samples, Sampling(8, 0), ExactAnswer(), 0)
    assert [row["id"] for row in rows] == ["q0"]


def test_a_sampler_of_ones_own_on_the_policys_weights_needs_them_whole():
    """Whether its log-probs are the trainer's is another matter."""

    class Cool(InProcessSampler):
        exact = False

    assert in_process(Cool()) and in_process(InProcessSampler()) and not in_process(VLLMSampler())
