"""What goes to an engine and what comes back, without one."""

import copy
import socket
import threading
from importlib.util import find_spec

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mgpo.errors import UserError
from mgpo.policy.features import Features
from mgpo.rollout.in_process import Sampling
from mgpo.types import Pixels, Prompt, Reply
from mgpo.vllm import ServedVLLMSampler, VLLMSampler, server
from mgpo.vllm.conversations import EngineConversations, reply_end
from mgpo.vllm.remote import ServedEngine
from mgpo.vllm.requests import Drawn, Request, Shown, place_images
from tests.conftest import noise_image
from tests.test_cli import ROOT, run

IMAGE = 9


def images_of(sizes):
    return tuple(Pixels(torch.zeros(n, 1), (1, 1, n)) for n in sizes)


def place(ids, images):
    return list(place_images(Prompt(tuple(ids), images), IMAGE, lambda p: len(p.patches), lambda p: str(id(p))))


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 5)), max_size=4))
def test_images_are_placed_at_their_placeholders(parts):
    ids = [i for text, n in parts for i in [0] * text + [IMAGE] * n] + [0]
    images = images_of([n for _, n in parts])
    placed = place(ids, images)
    assert [one.pixels for one in placed] == list(images)
    assert [ids[one.offset : one.offset + one.length] for one in placed] == [[IMAGE] * n for _, n in parts]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=3), st.integers(0, 30), st.sampled_from([0, IMAGE]))
def test_any_changed_placeholder_is_noticed(sizes, at, value):
    ids = [i for n in sizes for i in [0, *[IMAGE] * n]] + [0]
    at %= len(ids)
    changed = [*ids[:at], value, *ids[at + 1 :]]
    if changed == ids:
        assert len(place(ids, images_of(sizes))) == len(sizes)
    else:
        with pytest.raises(ValueError, match="placeholders"):
            place(changed, images_of(sizes))


BOX = '```json\n[{"bbox_2d": [0, 0, 56, 56], "label": "mark"}]\n```'


def test_a_reply_is_cut_where_the_in_process_sampler_stops(policy):
    ids = policy.chat.encode_text(BOX)
    more = policy.chat.encode_text(" and so on")
    assert reply_end(policy, [*ids, *more], "]\n```") == (len(ids), "marker")
    assert reply_end(policy, [*ids, *more], None) == (len(ids) + len(more), "length")
    assert reply_end(policy, [*more, policy.chat.end_id, *ids], "]\n```") == (len(more) + 1, "end")


class Parrot:
    """An engine that says the same to everybody."""

    def __init__(self, ids):
        self.ids = tuple(ids)
        self.asked = []

    def sample(self, requests, sampling, stop_text):
        self.asked.append(list(requests))
        yield from enumerate(Drawn(self.ids, (-0.5,) * len(self.ids), 0) for _ in requests)


def open_talk(policy, ids, copies=1, prompts=(Prompt((105, 106)),), seen=False):
    engine, banned = Parrot(ids), frozenset(policy.banned.nonzero().flatten().tolist())
    return engine, EngineConversations(engine, policy, prompts, copies, iter(range(100)), banned, seen)


def test_every_turn_sends_the_whole_history_of_the_rows_that_are_left(policy):
    said = policy.chat.encode_text("yes")
    image = policy.pixels(noise_image(56, 56))
    shown = (policy.chat.image_id,) * 4
    engine, talk = open_talk(policy, [*said, policy.chat.end_id], 2, [Prompt((105,)), Prompt((106, *shown), (image,))])
    list(talk.reply([1, 2, 3, 4], Sampling(8)))
    talk.keep([1, 3])
    talk.extend([Prompt((107,)), Prompt((108, *shown), (image,))])
    list(talk.reply([5, 6], Sampling(8)))
    first, second = engine.asked
    assert [r.ids for r in first] == [(105,)] * 2 + [(106, *shown)] * 2 and [r.seed for r in first] == [1, 2, 3, 4]
    tail = (*said, policy.chat.end_id)
    assert [r.ids for r in second] == [(105, *tail, 107), (106, *shown, *tail, 108, *shown)]
    assert [i.offset for i in second[1].images] == [1, len(second[1].ids) - 4]
    assert len({i.name for r in (*first, *second) for i in r.images}) == 1


@pytest.fixture
def frozen(policy):
    """The same weights, of whose tower nothing is trained; it counts what it looks at."""
    frozen = copy.deepcopy(policy)
    frozen.seen, frozen.looked = Features(frozen=True), []
    frozen.tower = lambda images: frozen.looked.append(len(images)) or type(policy).tower(frozen, images)
    return frozen


def test_the_engine_is_given_what_a_tower_that_is_not_trained_saw_once(policy, frozen):
    said = policy.chat.encode_text("yes")
    image, crop = policy.pixels(noise_image(56, 56)), policy.pixels(noise_image(28, 56))
    whole, part = (policy.chat.image_id,) * 4, (policy.chat.image_id,) * 2
    prompt = Prompt((105, *whole), (image,))
    engine, talk = open_talk(frozen, [*said, policy.chat.end_id], 2, [prompt], seen=True)
    list(talk.reply([1, 2], Sampling(8)))
    talk.extend([Prompt((106, *part), (crop,))] * 2)
    list(talk.reply([3, 4], Sampling(8)))
    for request in engine.asked[1]:
        assert [i.pixels for i in request.images] == [image, crop]
        for shown in request.images:
            assert torch.allclose(shown.features, policy.features([shown.pixels]), atol=1e-6)
            assert shown.sent is shown.features
    frozen.features([image, crop])  # as the update does
    assert frozen.looked == [1, 1]
    _, talk = open_talk(frozen, [*said, policy.chat.end_id], 1, [prompt])
    list(talk.reply([1], Sampling(8)))
    assert all(i.features is None and i.sent is i.pixels.patches for i in talk.engine.asked[0][0].images)


def test_only_towers_that_stay_see_for_an_engine(policy, frozen):
    assert not VLLMSampler().sees(policy) and VLLMSampler().sees(frozen)
    assert ServedVLLMSampler().sees(frozen) and not ServedVLLMSampler(ahead=True).sees(frozen)


@pytest.mark.parametrize("seen", [False, True])
def test_pictures_arrive_in_the_engines_process_as_what_they_are(frozen, seen, monkeypatch):
    """Asked through a pair of sockets, whose other end has the Parrot's place."""
    image = frozen.pixels(noise_image(56, 56))
    features = frozen.features([image]) if seen else None
    request = Request((105, 9, 9, 9, 9), (Shown("7", image, 1, 4, features),), 3)
    ours, theirs = socket.socketpair()
    engine, parrot = ServedEngine.__new__(ServedEngine), Parrot([1])
    engine.pipe = ours
    monkeypatch.setattr(server, "LocalEngine", lambda settings: parrot)
    monkeypatch.setattr(server, "Settings", dict)
    thread = threading.Thread(target=server.serve, args=(theirs,))
    thread.start()
    engine._ask({"do": "start", "settings": {}})
    assert list(engine.sample([request], Sampling(8), None)) == [(0, Drawn((1,), (-0.5,), 0))]
    ours.close()
    thread.join()
    theirs.close()
    ((arrived,),) = parrot.asked
    (shown,) = arrived.images
    assert (arrived.ids, arrived.seed, shown.pixels.grid) == (request.ids, 3, image.grid)
    assert (shown.name, shown.offset, shown.length, shown.features is not None) == ("7", 1, 4, seen)
    assert torch.equal(shown.sent, features if seen else image.patches)


def test_what_begins_anew_is_sent_alone(policy):
    said = policy.chat.encode_text("yes")
    engine, talk = open_talk(policy, [*said, policy.chat.end_id], 3)
    list(talk.reply([1, 2, 3], Sampling(8)))
    anew = talk.begin([Prompt((107,)), Prompt((108,))], [2, 0])
    talk.keep([1])
    talk.extend([Prompt((109,))])
    list(anew.reply([4, 5], Sampling(8)))
    list(talk.reply([6], Sampling(8)))
    assert [[r.ids for r in asked] for asked in engine.asked[1:]] == [
        [(107,), (108,)], [(105, 106, *said, policy.chat.end_id, 109)]
    ]  # fmt: skip


def test_replies_that_are_taken_stand_in_the_history_and_are_not_asked_for(policy):
    said = policy.chat.encode_text("yes")
    engine, talk = open_talk(policy, [*said, policy.chat.end_id], 1, [Prompt((105,)), Prompt((106,))])
    talk.take([Reply((1, 2), (), "marker"), Reply((3,), (), "end")])
    talk.extend([Prompt((107,)), Prompt((108,))])
    list(talk.reply([5, 6], Sampling(8)))
    assert [[r.ids for r in asked] for asked in engine.asked] == [[(105, 1, 2, 107), (106, 3, 108)]]


def test_what_an_engine_may_not_say(policy):
    _, talk = open_talk(policy, [policy.chat.ids["<|im_start|>"]])
    with pytest.raises(RuntimeError, match="banned"):
        list(talk.reply([0], Sampling(1)))
    _, talk = open_talk(policy, policy.chat.encode_text("yes"))
    with pytest.raises(RuntimeError, match="no reason"):
        list(talk.reply([0], Sampling(8)))


def test_other_families_are_refused():
    with pytest.raises(UserError, match="serves the Qwen families"):
        VLLMSampler().open(torch.nn.Identity(), [Prompt((1,))], 1)


@pytest.mark.slow
def test_without_vllm_the_overlay_says_so_in_one_sentence(tmp_path):
    if find_spec("vllm"):
        pytest.skip("vLLM is installed")
    done = run(
        "fit", f"--config={ROOT}/configs/mgpo.yaml", f"--config={ROOT}/configs/vllm.yaml",
        "--data.train.init_args.count=8", "--measure=never", cwd=tmp_path, check=False,
    )  # fmt: skip
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("mgpo: model.sampler needs vLLM") and "Traceback" not in done.stderr


def test_rollouts_of_a_fit_that_has_ended_are_forgotten():
    sampler = ServedVLLMSampler(ahead=True)
    sampler.playing = sampler.threads.submit(lambda: ["old"])
    sampler.forget()
    assert sampler.playing is None
