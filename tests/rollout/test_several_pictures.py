"""Rollouts and training on questions with two pictures, a box of which names the second."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from mgpo.data.batches import Batches, Decoded
from mgpo.data.files import Files
from mgpo.data.module import VQAData
from mgpo.data.scenes import Scenes
from mgpo.dialogues import FreeTurns, TwoTurn
from mgpo.evaluation.counterfactuals import SWAPS
from mgpo.evaluation.evidence import look_margins
from mgpo.evaluation.greedy import assess, named_part
from mgpo.images.lazy import LazyImage
from mgpo.policy.passes.batch import collate
from mgpo.policy.passes.logprobs import score
from mgpo.rewards import ExactAnswer
from mgpo.rollout.episodes import ANSWER_FORM, roll_out
from mgpo.rollout.fitting import opening_too_long
from mgpo.rollout.in_process import InProcessSampler, Sampling
from tests.conftest import MemoryPicture, make_policy, make_question, noise_image
from tests.rollout.test_rollout import Scripted, full_ids, plain_scores
from tests.training.test_module import equal, fit, make, weights

SECOND = '```json\n[{"bbox_2d": [0, 28, 56, 84], "label": "red mark", "picture": 2}]\n```'


class Pairs:
    """Questions about two scenes each."""

    def __init__(self, count, side=128):
        self.scenes = Scenes(2 * count, side=side)

    def __len__(self):
        return len(self.scenes) // 2

    def __getitem__(self, index):
        first, second = self.scenes[2 * index], self.scenes[2 * index + 1]
        return replace(first, others=(second.picture,))


@pytest.fixture(scope="module")
def samples():
    made = []
    for i in range(2):
        images = noise_image(448, 448, 2 * i), noise_image(300, 500, 2 * i + 1)
        made.append((replace(make_question(images[0], f"q{i}"), others=(MemoryPicture(images[1]),)), *images))
    return made


@pytest.fixture(scope="module", params=[TwoTurn(), FreeTurns(3)], ids=["two", "free"])
def trajectories(request, policy, samples):
    return roll_out(policy, Scripted(text=SECOND), request.param, samples, 4, Sampling(max_new_tokens=12), (0, 0))


def test_the_crop_is_cut_from_the_second_original(policy, samples, trajectories):
    looked = [t for t in trajectories if t.turns[0].text == SECOND]
    assert len(looked) == 4
    for trajectory in looked:
        first, second, view = trajectory.views[:3]
        images = next(images for question, *images in samples if question is trajectory.question)
        expected = [first.pixels(images[0]), second.pixels(images[1]), view.pixels(images[1])]
        shown = [*trajectory.turns[0].prompt.images, *trajectory.turns[1].prompt.images]
        assert len(shown) == 3
        for pixels, image in zip(shown, expected):
            assert torch.equal(pixels.patches, policy.pixels(image).patches)
        assert named_part(trajectory, policy.resolution) == trajectory.crops[-1]


def test_sampler_and_trainer_agree(policy, trajectories):
    batch = collate(trajectories, policy.positions, policy.pad_id)
    with torch.no_grad():
        scored = score(policy, batch).logprobs_NC
    for row, trajectory in enumerate(trajectories):
        trained = scored[row][batch.policy_NC[row]]
        assert full_ids(trajectory)[: len(trajectory.turns[0].prompt.ids)] == list(trajectory.turns[0].prompt.ids)
        torch.testing.assert_close(trained, plain_scores(policy, trajectory), atol=1e-4, rtol=0)
        drawn = torch.tensor([p for turn in trajectory.turns if any(turn.reply.logprobs) for p in turn.reply.logprobs])
        torch.testing.assert_close(trained[-len(drawn) :], drawn, atol=1e-4, rtol=0)


def test_gradients_are_those_of_plain_rows(tokenizer, trajectories):
    policy = make_policy(tokenizer)
    gradients = []
    for shared in (True, False):
        policy.zero_grad()
        if shared:
            score(policy, collate(trajectories, policy.positions, policy.pad_id)).logprobs_NC.sum().backward()
        else:
            for trajectory in trajectories:
                plain_scores(policy, trajectory).sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None]))
    torch.testing.assert_close(gradients[0], gradients[1], atol=2e-3, rtol=1e-3)


def test_what_takes_a_crops_place_is_of_the_same_picture(policy, samples):
    played = {}
    for name, swap in SWAPS.items():
        sampler, sampling = Scripted(every=1, text=SECOND), Sampling(max_new_tokens=4)
        played[name] = roll_out(policy, sampler, TwoTurn(), samples, 1, sampling, (0, 0), swap=swap)
    for (_, _, image), trajectory in zip(samples, played["original"]):
        (shown,) = trajectory.turns[1].prompt.images
        assert torch.equal(shown.patches, policy.pixels(trajectory.views[1].pixels(image)).patches)
    for (_, _, image), trajectory in zip(samples, played["random region"]):
        (shown,) = trajectory.turns[1].prompt.images
        view = trajectory.crops[0]
        expected = SWAPS["random region"](image, view, trajectory.views[1])
        assert torch.equal(shown.patches, policy.pixels(expected).patches)


def test_the_evidence_is_that_of_the_crop_alone(policy, trajectories):
    margins = look_margins(policy, trajectories, ANSWER_FORM)
    assert [any(of) for of in margins] == [bool(t.crops) for t in trajectories]


def test_the_sub_image_alone_is_asked_about(policy, samples):
    play = partial(roll_out, policy, Scripted(1, SECOND))
    records = assess(play, policy.resolution, TwoTurn(), samples, Sampling(4, 0), ExactAnswer(), 0)
    assert [record.cut_from for record in records] == [(2,), (2,)]
    assert all(record.subimage_right is not None for record in records)


def test_every_picture_counts_against_the_limit(policy, samples, monkeypatch):
    question, first, second = samples[0]
    alone = roll_out(policy, InProcessSampler(), TwoTurn(), [(question, first)], 1, Sampling(2), (0, 0))[0]
    both = roll_out(policy, InProcessSampler(), TwoTurn(), samples[:1], 1, Sampling(2), (0, 0))[0]
    tokens = [len(trajectory.turns[0].prompt.ids) for trajectory in (alone, both)]
    monkeypatch.setattr(policy, "max_prompt_tokens", tokens[1] - 1)
    assert tokens[0] < tokens[1]
    assert opening_too_long(policy, TwoTurn(), question, first, 2) is None
    assert f"{tokens[1]:,} tokens stand before reply 1" in str(
        opening_too_long(policy, TwoTurn(), question, first, 2, [second])
    )


def test_a_training_step_moves_the_weights(tokenizer, tmp_path, monkeypatch):
    module = make(tokenizer, sampler=Trained(text=SECOND))
    before = weights(module)
    data = VQAData(train=Pairs(4), batch_size=2, num_workers=0)
    monkeypatch.setattr("tests.training.test_module.VQAData", lambda **_: data)
    fit(module, tmp_path, enable_checkpointing=False)
    assert not equal(before, weights(module))
    assert {view.picture for t in module.rolled_out for view in t.crops} == {1}
    assert all(len(t.turns[0].prompt.images) == 2 for t in module.rolled_out)


class Trained(Scripted):
    """Scripted, as a module wants its sampler."""

    def prepare(self, policy):
        pass

    def run(self, policy, job):
        return job()

    def release(self):
        pass


def test_workers_hand_over_all_pictures(policy, tmp_path):
    images = [noise_image(1200, 900, seed) for seed in range(2)]
    for i, image in enumerate(images):
        image.save(tmp_path / f"{i}.jpg")
    (tmp_path / "q.jsonl").write_text('{"images": ["0.jpg", "1.jpg"], "question": "?", "answer": "1"}\n')
    source = Decoded(Files(str(tmp_path / "q.jsonl")), policy.resolution.full)
    (sample,) = next(iter(Batches(source, 1, 0, 1, False, 0, 1)))
    for i, original in enumerate((sample.image, *sample.others)):
        assert isinstance(original, LazyImage)
        whole = source.source[0].pictures[i].load()
        assert original.crop((100, 200, 300, 400)).tobytes() == whole.crop((100, 200, 300, 400)).tobytes()
    (tmp_path / "1.jpg").write_bytes((tmp_path / "1.jpg").read_bytes()[:5000])
    assert source[0].image is None and "1.jpg" in source[0].why
