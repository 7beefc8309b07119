"""What is sampled: from a row's own seed alone, and until something ends it."""

import pytest
import torch

from mgpo.dialogues import SingleTurn, TwoTurn
from mgpo.rollout.episodes import roll_out
from mgpo.rollout.in_process import InProcessSampler, Sampling
from mgpo.types import Trajectory
from mgpo.vllm.conversations import reply_end
from tests.conftest import make_policy
from tests.rollout.test_rollout import BOX


def replies(trajectory):
    return [turn.reply.ids for turn in trajectory.turns]


def test_a_rollout_depends_on_its_own_seed_only(policy, samples):
    """The same question alone, in a batch, and in another order gives the same trajectories."""
    sampling = Sampling(max_new_tokens=10)
    together = roll_out(policy, InProcessSampler(), TwoTurn(), samples, 2, sampling, (3, 7))
    turned = roll_out(policy, InProcessSampler(), TwoTurn(), samples[::-1], 2, sampling, (3, 7))
    alone = roll_out(policy, InProcessSampler(), TwoTurn(), samples[:1], 2, sampling, (3, 7))
    other = roll_out(policy, InProcessSampler(), TwoTurn(), samples[:1], 2, sampling, (3, 8))
    ids = [replies(t) for t in together]
    assert [replies(t) for t in alone] == ids[:2]
    assert [replies(t) for t in turned] == ids[4:] + ids[2:4] + ids[:2]
    assert [replies(t) for t in other] != ids[:2]
    assert ids[0] != ids[1]


def test_greedy_is_deterministic(policy, samples):
    sampling = Sampling(max_new_tokens=10, temperature=0)
    first, second = (roll_out(policy, InProcessSampler(), TwoTurn(), samples, 1, sampling, (k,)) for k in (0, 1))
    assert [replies(t) for t in first] == [replies(t) for t in second]


def test_replies_end_where_they_should(policy, samples):
    for trajectory in roll_out(policy, InProcessSampler(), SingleTurn(), samples, 4, Sampling(40), (1,)):
        for turn in trajectory.turns:
            assert (turn.reply.stop == "end") == (turn.reply.ids[-1] == policy.chat.end_id)
            assert policy.chat.end_id not in turn.reply.ids[:-1]
            assert turn.reply.stop != "length" or len(turn.reply.ids) == 40
            assert len(turn.reply.logprobs) == len(turn.reply.ids)


LONG = "<" + "7 Q " * 12 + ">"


@pytest.mark.parametrize(
    ("said", "stop_text"), [(BOX, TwoTurn().stop_text(0)), (f"So {LONG}", LONG)], ids=["fence", "long"]
)
def test_the_stop_text_ends_a_turn(policy, samples, said, stop_text):
    """Logits that spell it: the reply ends behind it, in process and as an engine's is cut, however long it is."""
    ids = policy.chat.encode_text(said)
    assert len(policy.chat.encode_text(LONG)) > 16
    assert reply_end(policy, [*ids, *ids], stop_text) == (len(ids), "marker")
    spoken = iter([*ids, *ids])

    class Speller:
        def __getattr__(self, name):
            return getattr(policy, name)

        def logits(self, hidden):
            logits = torch.full((len(hidden), len(policy.banned)), -50.0)
            logits[:, next(spoken)] = 0
            return logits

    prompt = policy.chat.open(
        TwoTurn().open(Trajectory(*samples[0]), policy.resolution), lambda v: policy.pixels(v.pixels(samples[0][1]))
    )
    conversation = InProcessSampler().open(Speller(), [prompt], 1)
    ((_, reply),) = conversation.reply([0], Sampling(60, 0), stop_text)
    assert reply.stop == "marker"
    assert list(reply.ids) == ids


def test_stop_texts_are_looked_for_in_the_vocabulary_once(tokenizer):
    policy, read = make_policy(tokenizer), []

    class Texts(list):
        def __iter__(self):
            read.append(1)
            return super().__iter__()

    policy.token_texts = Texts(policy.token_texts)
    fences = policy.enders("```")
    assert policy.enders("```") is fences and len(read) == 1
    assert fences == {policy.chat.end_id, *(i for i, text in enumerate(list(policy.token_texts)) if "`" in text)}
    assert policy.enders(None) == {policy.chat.end_id}
