"""One-token passes that are replayed. A tape stands in for a graph: it knows tensors and operations, and no Python."""

from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mgpo.dialogues import TwoTurn
from mgpo.policy.decoding import cuda_graphs as graphs
from mgpo.policy.decoding import prompt_cache as sharing
from mgpo.policy.decoding.cuda_graphs import Steps, halves
from mgpo.rollout.episodes import roll_out
from mgpo.rollout.in_process import InProcessSampler, Sampling
from mgpo.types import Prompt
from tests.conftest import make_question, noise_image
from tests.helpers.families import ALL, save_checkpoint
from tests.rollout.test_rollout import Scripted

WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "unique", "_unique2"}  # they ask for values on the host


class Tape(TorchDispatchMode):
    """Writes operations down; played, each is done again on the very tensors of the first time."""

    def __init__(self) -> None:
        super().__init__()
        self.lines = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func._schema.name.removeprefix("aten::") in WAITING:
            raise RuntimeError(f"{func} can't be captured")
        result = func(*args, **(kwargs or {}))
        self.lines.append((func, args, kwargs or {}, result))
        return result

    def play(self) -> None:
        for func, args, kwargs, result in self.lines:
            for old, new in zip(tree_leaves(result), tree_leaves(func(*args, **kwargs))):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


captured = []
REAL_CAPTURE = graphs.capture


def capture(run: Callable, pool: None, device: torch.device) -> tuple[Callable, None]:
    with Tape() as tape:
        result = run()
    captured.append(tape)

    def replay():
        tape.play()
        return result

    return replay, None


@pytest.fixture
def taped(monkeypatch):
    """Passes are replayed here as they are on a GPU."""
    captured.clear()
    monkeypatch.setattr(graphs, "usable", lambda policy: policy.fixed)
    monkeypatch.setattr(graphs, "capture", capture)
    monkeypatch.setattr(sharing, "STATIC_ROOM", 16)  # so that buffers grow in the middle of a reply


@pytest.fixture(scope="module")
def samples():
    images = [noise_image(448, 448, 1), noise_image(640, 320, 2), noise_image(300, 500, 3)]
    return [(make_question(image, f"q{i}"), image) for i, image in enumerate(images)]


def play(policy, samples, copies=4, new=90, sampler=None):
    return roll_out(policy, sampler or Scripted(), TwoTurn(), samples, copies, Sampling(new), (0, 1))


def check_alike(found, expected):
    for ours, plain in zip(found, expected, strict=True):
        assert [turn.reply.ids for turn in ours.turns] == [turn.reply.ids for turn in plain.turns]
        for turn, other in zip(ours.turns, plain.turns):
            assert turn.reply.logprobs == pytest.approx(other.reply.logprobs, abs=1e-5)


@pytest.fixture(scope="module")
def plain(policy, samples):
    return play(policy, samples)


def test_replayed_passes_are_the_plain_ones(policy, samples, plain, taped):
    found = play(policy, samples)
    assert len({len(turn.reply.ids) for t in found for turn in t.turns}) > 4
    assert len(captured) > 4  # of several numbers of rows, and again for wider buffers
    check_alike(found, plain)


def test_rows_without_a_shared_prompt_too(policy, samples, monkeypatch):
    expected = play(policy, samples, 1)
    taped.__wrapped__(monkeypatch)
    check_alike(play(policy, samples, 1), expected)
    assert captured


@pytest.mark.parametrize("family", [f for f in ALL if f.name.startswith(("qwen2", "qwen3_vl"))], ids=lambda f: f.name)
def test_families(family, samples, tmp_path, monkeypatch):
    """Where experts are called, what is called depends on the tokens: nothing is captured."""
    from mgpo.policy.hub.checkpoint_files import family_of

    folder = str(save_checkpoint(family, tmp_path))
    policy = family_of(folder)(folder, **family.caps).load().eval()
    expected = play(policy, samples, 2, 20, InProcessSampler())
    taped.__wrapped__(monkeypatch)
    check_alike(play(policy, samples, 2, 20, InProcessSampler()), expected)
    assert bool(captured) != ("moe" in family.name)


def test_it_is_captured_and_replayed_on_the_policys_device(monkeypatch):
    """Not on the process's current one: there the graph would be empty, and its result stay as it was."""
    done: list[Any] = []

    @contextmanager
    def entered(device):
        done.append(("device", device))
        yield
        done.append("left")

    stream = SimpleNamespace(wait_stream=lambda other: None)
    graph = SimpleNamespace(
        capture_begin=lambda pool, capture_error_mode: done.append(pool), capture_end=lambda: done.append("end"),
        replay=lambda: done.append("replay"),
    )  # fmt: skip
    for name, stand_in in {
        "device": entered, "CUDAGraph": lambda: graph, "Stream": lambda device, priority: done.append(device) or stream,
        "stream": nullcontext, "current_stream": lambda: stream, "graph_pool_handle": lambda: "pool",
        "current_device": lambda: 1,
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, stand_in)
    second = torch.device("cuda", 1)
    replay, pool = REAL_CAPTURE(lambda: done.append("run"), None, second)
    assert (done, pool) == ([("device", second), second, "pool", "run", "end", "left"], "pool")
    replay()
    assert done[6:] == [("device", second), "replay", "left"]

    def invalid():
        raise RuntimeError("capture invalidated")

    graph.capture_end = invalid
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", lambda *of: done.append(of), raising=False)
    with pytest.raises(RuntimeError, match="invalidated"):
        REAL_CAPTURE(lambda: done.append("run"), "earlier", second)
    assert done[9:] == [("device", second), "earlier", "run", (1, "earlier")]


def test_what_cannot_be_captured_is_passed_plainly(policy, samples, plain, taped, monkeypatch):
    tried = []

    def fail(run, pool, device):
        tried.append(run)
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(graphs, "capture", fail)
    with pytest.warns(UserWarning, match="without CUDA graphs, which is slower: operation not permitted"):
        check_alike(play(policy, samples), plain)
    assert len(tried) == 2  # once in each reply


def test_a_pass_over_single_tokens_waits_for_nothing(policy, samples, monkeypatch):
    """But for the one transfer of what was drawn: the device is never asked in between."""
    prompt = policy.chat.open(
        TwoTurn().open(type(play(policy, samples[:1], 1, 1)[0])(*samples[0]), policy.resolution),
        lambda view: policy.pixels(view.pixels(samples[0][1])),
    )
    conversation = InProcessSampler().open(policy, [prompt], 4)
    with Tape() as tape:
        list(conversation.reply(range(4), Sampling(9), "```"))
    assert len(tape.lines) > 100


def test_halves():
    assert halves(64) == [64, 32, 16, 8, 4]
    assert halves(13) == [13, 7, 4]
    assert halves(1) == [1]


def test_a_graph_is_made_in_the_second_pass_and_lasts_as_long_as_the_buffers(taped):
    calls = []

    def run(id_N, position_N):
        calls.append(len(id_N))
        return (id_N + 10 * position_N)[:, None]

    steps = Steps(run, 8, torch.device("cpu"))
    for rows, width, passed, graphed in [
        (8, 64, 8, 0), (8, 64, 8, 1), (7, 64, None, 1), (3, 64, 4, 1), (4, 64, 4, 2), (4, 80, 4, 2), (4, 80, 4, 3),
    ]:  # fmt: skip
        calls.clear()
        ids, positions = torch.randint(0, 10, (2, rows))
        assert steps(ids, positions, width)[:, 0].tolist() == (ids + 10 * positions).tolist()
        assert calls == [passed] * (passed is not None)
        assert len(captured) == graphed


def test_graphs_of_a_reply_that_was_broken_off_go_before_anothers_are_made(taped):
    first, second = (Steps(lambda ids, at, n=n: (ids + n * at)[:, None], 4, torch.device("cpu")) for n in (10, 20))
    ids, at = torch.arange(4), torch.arange(4) + 5
    for _ in range(2):
        first(ids, at, 64)
    assert first.replays[4] is not None
    for steps, factor in ((second, 20), (second, 20), (first, 10), (first, 10), (second, 20)):
        assert steps(ids, at, 64)[:, 0].tolist() == (ids + factor * at).tolist()
        made = [bool(each.replays.get(4)) for each in (first, second)]
        assert made.count(True) <= 1
    assert len(captured) == 3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_on_a_gpu(fresh_policy, samples):
    """The real ones, against plain passes on the same device."""
    policy = fresh_policy.cuda()
    assert graphs.usable(policy)
    found = play(policy, samples)
    policy.fixed = False
    check_alike(found, play(policy, samples))


def test_prompts_of_one_token_can_follow(policy, samples, taped):
    """A shown piece that is as short as a step is none."""
    prompt = policy.chat.open(
        TwoTurn().open(type(play(policy, samples[:1], 1, 1)[0])(*samples[0]), policy.resolution),
        lambda view: policy.pixels(view.pixels(samples[0][1])),
    )
    conversation = InProcessSampler().open(policy, [prompt], 2)
    first = dict(conversation.reply((1, 2), Sampling(3)))
    conversation.pending = [(), ()]
    conversation.extend([Prompt((40,)), Prompt((41,))])
    assert all(len(reply.ids) for reply in first.values())
    assert conversation.cache.layers[0].length == conversation.cache.columns
