"""The whole published vocabulary, on a tiny random Qwen2.5-VL in every form in which such files are published."""

import sys
from pathlib import Path

import pytest
import torch

import mgpo
from mgpo.dialogues import SingleTurn
from mgpo.images.views import View
from mgpo.policy.hub.checkpoint_files import family_of
from mgpo.policy.passes.logprobs import score_tokens
from mgpo.rollout.episodes import roll_out
from mgpo.rollout.in_process import InProcessSampler, Sampling, choose
from mgpo.tools.doctor.preflight import Preflight
from mgpo.types import Message
from tests.helpers.cases import SAMPLES, case_of, failures
from tests.helpers.published_model import CAPS, FORMS, LIKELY, PROCESSOR, ROWS, in_form
from tests.helpers.vocabulary import CONTROL, PLAIN, SIZE
from tests.training.test_module import Noisy, adam, fit

PACKAGE = str(Path(mgpo.__file__).parent)


def load(folder):
    return family_of(str(folder))(str(folder), **CAPS).load().eval()


@pytest.fixture(scope="module")
def policy(published_folder):
    return load(published_folder)


def test_texts_have_the_published_ids(policy):
    assert policy.chat.encode_text("Hello, world!") == [9707, 11, 1879, 0]
    assert policy.chat.encode_text("a  b\n\n12") == [64, 220, 293, 271, 16, 17]
    assert [policy.tokenizer.convert_tokens_to_ids(token) for token in (CONTROL[0], CONTROL[-1], PLAIN[-1])] == [
        SIZE, 151656, 151664,
    ]  # fmt: skip
    assert (policy.chat.end_id, policy.chat.image_id, policy.pad_id) == (151645, 151655, SIZE)


def test_rows_without_a_token_are_never_sampled(policy):
    assert len(policy.tokenizer) == SIZE + len(CONTROL) + len(PLAIN)
    assert policy.banned[len(policy.tokenizer) :].all() and len(policy.banned) == ROWS
    assert not policy.banned[:SIZE].any()


def test_every_token_has_its_text(policy):
    for i in (0, 9707, 1879, SIZE - 1, 151645, 151657):
        assert policy.token_texts[i] == policy.tokenizer.decode([i], clean_up_tokenization_spaces=False)
    assert len(policy.token_texts) == len(policy.tokenizer)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_files_is_the_same_model(published_folder, policy, form, tmp_path):
    """Ids, pictures and log-probs; of weights none is left as it was drawn."""
    other = load(in_form(published_folder, form, tmp_path / "checkpoint"))
    assert (other.processor.size["shortest_edge"], other.processor.size["longest_edge"]) == (
        PROCESSOR["min_pixels"], PROCESSOR["max_pixels"],
    )  # fmt: skip
    image = SAMPLES[1][1]
    view = View.full(image.size, policy.resolution.full)
    messages = [Message("system", ("Be brief.",)), Message("user", (view, "Which 3 letters, 日本語?"))]
    shown, expected = (p.chat.open(messages, lambda view, p=p: p.pixels(view.pixels(image))) for p in (other, policy))
    assert shown.ids == expected.ids
    assert torch.equal(shown.images[0].patches, expected.images[0].patches)
    assert other.token_texts == policy.token_texts and torch.equal(other.banned, policy.banned)
    weights = dict(policy.named_parameters())
    assert all(torch.equal(p, weights[name]) for name, p in other.named_parameters())


def test_sampler_and_trainer_are_exact_where_many_small_shares_add_up(policy):
    """One token is sure, and all others are so unlikely that each alone would be lost beside it."""
    torch.manual_seed(0)
    hidden_ND = torch.randn(8, 32)
    hidden_ND[:, 0] = 4.7
    logits_NV = policy.logits(hidden_ND)
    exact_NV = logits_NV.double().log_softmax(-1)
    sure = policy.chat.encode_text(LIKELY)
    assert -0.05 < exact_NV[:, sure].mean() < -1e-4
    id_N, drawn_N = choose(logits_NV, torch.full((8,), 0.3), Sampling(8))
    trained_N, _ = score_tokens(policy, hidden_ND, id_N, 1.0)
    exact_N = exact_NV.gather(-1, id_N[:, None])[:, 0]
    assert (drawn_N - exact_N).abs().max() < 1e-5 and (trained_N - exact_N).abs().max() < 1e-5


def test_the_doctor_raises_no_alarm(policy):
    case = case_of(policy, samples=SAMPLES)
    sure = policy.chat.encode_text(LIKELY)[0]
    assert sum(turn.reply.ids.count(sure) for t in case.sampled for turn in t.turns) > 40
    assert failures(case) == {}


def test_a_fit_passes_its_preflight(published_folder, tmp_path, capsys):
    module = Noisy(load(published_folder).train(), group_size=4, sampling=Sampling(6), optimizer=adam)
    trainer = fit(module, tmp_path, questions=2, callbacks=[Preflight()], enable_checkpointing=False)
    assert "checks passed" in capsys.readouterr().out
    assert trainer.global_step == 1 and trainer.callback_metrics["train/sampler_gap"] < 1e-4


def lines_of(work):
    """How many lines of the package's own Python `work` runs."""
    count = 0

    def see(frame, event, argument):
        nonlocal count
        count += event == "line"
        return see

    before = sys.gettrace()
    sys.settrace(lambda frame, event, argument: see if frame.f_code.co_filename.startswith(PACKAGE) else None)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def test_what_is_done_once_a_vocabulary_is_not_done_once_a_rollout(policy):
    """No Python loop over all tokens, other than while loading."""

    def play():
        roll_out(policy, InProcessSampler(), SingleTurn(), SAMPLES, 2, Sampling(8), (0, 0))

    play()
    assert lines_of(play) < SIZE / 4
    assert lines_of(lambda: failures(case_of(policy, SingleTurn(), samples=SAMPLES), ["boxes land"])) < SIZE / 2
