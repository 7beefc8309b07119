"""Speed and memory: what is counted, against what was done."""

from contextlib import suppress

import pytest
import torch

from mgpo.callbacks import ThroughputMonitor
from mgpo.data.module import VQAData
from mgpo.data.scenes import Scenes
from mgpo.monitoring.throughput import Lap, Stopwatch, evaluation_speed, gpu_use, peak_memory, training_speed
from mgpo.training import phase_timer as clock
from mgpo.training.phase_timer import PhaseTimer, Work
from mgpo.types import Prompt, Reply, Trajectory, Turn
from tests.training.test_module import MGPO, equal, fit, make, weights


@pytest.fixture
def seconds(monkeypatch):
    """A clock that is set by hand."""
    now = [0.0]
    monkeypatch.setattr(clock.time, "perf_counter", lambda: now[0])
    return now


def turn(prompt, tokens):
    return Turn(prompt, Reply((5,) * tokens, (-1.0,) * tokens, "end"), "")


def test_phases_add_up_and_end_with_an_error(seconds):
    watched = PhaseTimer()
    for took in (2.0, 3.0):
        with watched.phase("rollout"):
            seconds[0] += took
    seconds[0] += 10
    with suppress(RuntimeError), watched.phase("update"):
        seconds[0] += 1
        raise RuntimeError
    assert watched.read() == {"rollout": Work(5.0), "update": Work(1.0)}


def test_a_reading_stays_as_it_was(seconds):
    watched = PhaseTimer()
    with watched.phase("rollout"):
        seconds[0] += 1
    before = watched.read()
    with watched.phase("rollout") as work:
        work.sampled += 7
        seconds[0] += 4
    assert watched.read()["rollout"].since(before["rollout"]) == Work(4.0, sampled=7)


def test_waiting_is_for_those_who_ask(seconds):
    waited = []
    watched = PhaseTimer()
    with watched.phase("rollout"):
        pass
    watched.wait = lambda: waited.append(1)
    with watched.phase("rollout"):
        assert len(waited) == 1
    assert len(waited) == 2


def test_a_shared_prompt_is_shown_once():
    first = Prompt((1,) * 100)
    rollouts = [Trajectory(None, None, [turn(first, 3), turn(Prompt((2,) * 10), 4)]) for _ in range(8)]
    work = Work()
    work.add(rollouts)
    assert work == Work(0.0, sampled=8 * 7, shown=100 + 8 * 10, trajectories=8)


def test_rates_of_two_ranks():
    laps = [
        Lap(10.0, 5.0, {"rollout": Work(4.0, 800, 3000, 8), "update": Work(2.0, 800, 3000, 8)}),
        Lap(10.0, 5.0, {"rollout": Work(6.0, 1200, 1000, 8), "update": Work(2.0, 1200, 1000, 8)}),
    ]
    speed = training_speed(laps)
    assert speed["tokens_per_s"] == 200
    assert speed["rollout_tokens_per_s"] == 400
    assert speed["rollout_shown_tokens_per_s"] == 800
    assert speed["update_trajectories_per_s"] == 8
    assert (speed["rollout_share"], speed["update_share"]) == (0.5, 0.2)
    assert speed["outside_share"] == pytest.approx(0.3)
    assert evaluation_speed([Work(2.0, 100, trajectories=4)] * 2) == {
        "evaluation_tokens_per_s": 100, "evaluation_trajectories_per_s": 4,
    }  # fmt: skip


def test_a_step_that_does_nothing_has_no_rates():
    speed = training_speed([Lap(1.0, 0.5, {})])
    assert speed["tokens_per_s"] == 0 and speed["outside_share"] == 1
    assert not [name for name in speed if name.startswith(("rollout_t", "update_t"))]


def test_laps_begin_where_the_last_one_ended(seconds):
    watch = Stopwatch()
    seconds[0] = 3.0
    assert watch.lap({"rollout": Work(2.0, 50)}).phases == {"rollout": Work(2.0, 50)}
    seconds[0] = 4.0
    lap = watch.lap({"rollout": Work(2.5, 70), "update": Work(0.5)})
    assert lap.seconds == 1.0
    assert lap.phases == {"rollout": Work(0.5, 20), "update": Work(0.5)}


def test_memory_is_that_of_this_process():
    peaks = peak_memory(torch.device("cpu"))
    assert set(peaks) == {"resident_gb"} and 0.1 < peaks["resident_gb"] < 1000
    assert gpu_use(torch.device("cpu")) is None


def test_what_is_logged_is_what_was_done(tokenizer, tmp_path):
    module, plain = make(tokenizer), make(tokenizer)
    trainer = fit(module, tmp_path, enable_checkpointing=False, callbacks=[ThroughputMonitor()])
    logged = trainer.callback_metrics
    sampled = sum(len(turn.reply.ids) for t in module.rolled_out for turn in t.turns)
    assert logged["speed/tokens_per_s"] * logged["speed/seconds_per_step"] == pytest.approx(sampled, rel=1e-4)
    shares = [logged[f"speed/{name}_share"] for name in ("rollout", "update", "outside")]
    assert sum(shares) == pytest.approx(1, rel=1e-4) and min(shares) > 0
    assert logged["speed/rollout_tokens_per_s"] > logged["speed/tokens_per_s"]
    assert {"memory/resident_gb", "speed/cpu_utilisation", "speed/update_shown_tokens_per_s"} <= set(logged)
    fit(plain, tmp_path, enable_checkpointing=False)
    assert equal(weights(module), weights(plain))


def test_supervised_runs_have_speeds_too(tokenizer, tmp_path):
    module = make(tokenizer, MGPO, supervised=True)
    trainer = fit(module, tmp_path, questions=2, enable_checkpointing=False, callbacks=[ThroughputMonitor()])
    assert trainer.callback_metrics["speed/update_tokens_per_s"] > 0


def test_evaluations_are_counted_by_question(tokenizer, tmp_path):
    module = make(tokenizer)
    trainer = fit(module, tmp_path, questions=2, enable_checkpointing=False, callbacks=[ThroughputMonitor()])
    trainer.limit_val_batches = 1.0
    data = VQAData(val=[Scenes(3, side=128, split="val")], num_workers=0)
    (logged,) = trainer.validate(module, data, verbose=False)
    ratio = logged["speed/evaluation_tokens_per_s"] / logged["speed/evaluation_trajectories_per_s"]
    assert ratio == pytest.approx(sum(record.tokens for record in module.records) / 3, rel=1e-4)
