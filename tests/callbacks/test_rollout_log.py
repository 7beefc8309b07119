"""Every training rollout is in the shards once, whatever becomes of the run."""

import json
import signal
from collections import Counter

import datasets
import pyarrow.parquet as pq
import pytest
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger

from mgpo.callbacks import EarlyWarning, RolloutLog
from mgpo.images.boxes import ParsedBox
from mgpo.images.views import View
from mgpo.monitoring.rollout_table import SCHEMA, rows_of, table_of
from mgpo.training.module import MGPO
from mgpo.types import Prompt, Question, Reply, Trajectory, Turn
from tests.training.test_module import Noisy, fit, make


def shards(folder):
    return sorted(folder.rglob("rollouts/*.parquet"))


def same_folder(folder):
    """A logger under which every run has the same folder."""
    return TensorBoardLogger(folder, "", "run")


def rows(folder):
    return [row for path in shards(folder) for row in pq.read_table(path).to_pylist()]


def count(module):
    """The trajectories that training rolls out, as they come."""
    rolled, roll_out = [], module.roll_out

    def counted(*args, **options):
        part = roll_out(*args, **options)
        rolled.extend(part)
        return part

    module.roll_out = counted
    return rolled


def trajectory(reply="K", parsed_box=None, region=None):
    whole = View((0, 0, 1000, 500), (100, 50))
    turn = Turn(Prompt((1, 2, 3)), Reply((7, 8), (-0.5, -1.5), "end"), reply, parsed_box, seen=whole)
    views = [whole, View(region, (28, 28))] if region else [whole]
    return Trajectory(Question("q", None, "?", "K"), None, [turn], views)


def test_every_rollout_is_one_row(tokenizer, tmp_path):
    module = make(tokenizer)
    rolled = count(module)
    fit(module, tmp_path, enable_checkpointing=False, callbacks=[RolloutLog(every_n_steps=3)])
    assert [path.name for path in shards(tmp_path)] == [
        "rank-0-steps-000000-000002.parquet", "rank-0-steps-000003-000003.parquet",
    ]  # fmt: skip
    kept = rows(tmp_path)
    assert len(kept) == len(rolled) == 4 * 2 * 4
    for row, t in zip(kept, rolled, strict=True):
        assert (row["id"], row["reward"], row["replies"]) == (t.question.id, t.reward, [turn.text for turn in t.turns])
        assert row["tokens"] == [len(turn.reply.ids) for turn in t.turns]
        assert row["ids"] == [list(turn.reply.ids) for turn in t.turns]
        assert row["logprob_min"] == min(p for turn in t.turns for p in turn.reply.logprobs)
    assert [row["rollout"] for row in kept] == list(range(4)) * 8
    assert Counter(row["step"] for row in kept) == {0: 8, 1: 8, 2: 8, 3: 8}
    assert len({(row["id"], row["prompt_hash"]) for row in kept}) == len({row["id"] for row in kept}) == 8


def test_datasets_opens_all_shards_under_one_schema(tokenizer, tmp_path):
    """One shard without boxes and reasons, one with."""
    folder = tmp_path / "rollouts"
    folder.mkdir()
    refused = ParsedBox(None, "inverted", (30.0, 10.0, 20.0, 40.0))
    found = ParsedBox((10.0, 10.0, 60.0, 40.0), None, (10.0, 10.0, 60.0, 40.0))
    boxed = [trajectory(parsed_box=refused), trajectory(parsed_box=found, region=(100, 100, 600, 400))]
    for name, part in (("a", [trajectory()]), ("b", boxed)):
        pq.write_table(table_of(rows_of(part, len(part), 5, "now")), folder / f"{name}.parquet")
    files = [str(path) for path in shards(tmp_path)]
    opened = datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "cache"))["train"]
    assert opened.features.arrow_schema.equals(SCHEMA)
    assert opened["reasons"][:] == [[None], ["inverted"], [None]]
    assert opened["named"][:] == [[None], [[300, 100, 200, 400]], [[100, 100, 600, 400]]]
    assert opened["regions"][:] == [[], [], [[100, 100, 600, 400]]]
    assert opened["logprob_sum"][0] == [-2.0] and opened["logprob_mean"][0] == [-1.0]


def test_a_prompt_is_known_by_its_ids():
    assert Prompt((1, 2)).hash == Prompt([1, 2]).hash != Prompt((2, 1)).hash
    assert len(Prompt(()).hash) == 16


def test_halves_of_characters_can_be_written():
    broken = json.loads('"\\ud800 K"')
    table = table_of(rows_of([trajectory(broken)], 1, 0, "now"))
    assert table["replies"][0].as_py() == ["? K"]


@pytest.mark.parametrize(("error", "raised"), [(RuntimeError("lost"), RuntimeError), (KeyboardInterrupt(), SystemExit)])
def test_an_interrupted_run_keeps_what_it_rolled_out(tokenizer, tmp_path, error, raised):
    """The third step fails in its update, after its rollouts."""

    class Failing(Noisy):
        def mini_batch(self, *args):
            if self.global_step == 2:
                raise error
            return super().mini_batch(*args)

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(raised):
        fit(make(tokenizer, Failing), tmp_path, enable_checkpointing=False, callbacks=[RolloutLog(every_n_steps=100)])
    signal.signal(signal.SIGINT, handler)  # Lightning switches it off on its way out
    assert Counter(row["step"] for row in rows(tmp_path)) == {0: 8, 1: 8, 2: 8}
    assert not list(tmp_path.rglob("*.unfinished"))


def test_a_second_run_into_the_same_folder_replaces_nothing(tokenizer, tmp_path):
    for _ in range(2):
        fit(
            make(tokenizer),
            tmp_path,
            questions=2,
            enable_checkpointing=False,
            callbacks=[RolloutLog()],
            logger=same_folder(tmp_path),
        )
    assert len(shards(tmp_path)) == 2
    assert sorted(Counter(row["run"] for row in rows(tmp_path)).values()) == [8, 8]


def test_a_resumed_run_writes_the_same_rows_again(tokenizer, tmp_path):
    """Into the same folder: from step 2 on every rollout is there twice, told apart by `run`."""
    saver = ModelCheckpoint(tmp_path / "saved", filename="{step}", every_n_train_steps=2, save_top_k=-1)
    fit(
        make(tokenizer),
        tmp_path,
        callbacks=[saver, RolloutLog(2), EarlyWarning(every_n_steps=1)],
        logger=same_folder(tmp_path),
    )
    warner = EarlyWarning(every_n_steps=1)
    checkpoint = str(tmp_path / "saved/step=2.ckpt")
    fit(
        make(tokenizer),
        tmp_path,
        ckpt_path=checkpoint,
        enable_checkpointing=False,
        callbacks=[RolloutLog(2), warner],
        logger=same_folder(tmp_path),
    )
    assert len(shards(tmp_path)) == 3
    runs = sorted({row["run"] for row in rows(tmp_path)})
    first, again = ([row | {"run": ""} for row in rows(tmp_path) if row["run"] == run] for run in runs)
    assert again == first[16:]
    assert warner.alarms.curves["image_reliance"].steps == [1, 2, 3, 4]


def test_refilling_neither_loses_nor_doubles(tokenizer, tmp_path):
    """Two batches to an update, all of them at the same step."""
    module = make(tokenizer, MGPO, constant_reward_groups="resample", resample_batches=2)
    fit(module, tmp_path, enable_checkpointing=False, callbacks=[RolloutLog(every_n_steps=1)])
    assert Counter(row["step"] for row in rows(tmp_path)) == {0: 16, 1: 16}
    assert len({(row["id"], row["rollout"]) for row in rows(tmp_path)}) == 32


def test_a_batch_without_usable_questions_adds_nothing(tokenizer, tmp_path):
    module = make(tokenizer)
    usable, calls = module.usable, []
    module.usable = lambda batch: calls.append(batch) or (usable(batch) if len(calls) != 2 else [])
    fit(module, tmp_path, questions=6, enable_checkpointing=False, callbacks=[RolloutLog()])
    assert Counter(row["step"] for row in rows(tmp_path)) == {0: 8, 1: 8}


def test_supervised_runs_write_nothing(tokenizer, tmp_path):
    module = make(tokenizer, MGPO, supervised=True)
    fit(module, tmp_path, questions=2, enable_checkpointing=False, callbacks=[RolloutLog()])
    assert not list(tmp_path.rglob("rollouts"))


def test_the_oldest_go_where_room_is_short(tokenizer, tmp_path):
    module = make(tokenizer)
    said = []
    module.print = said.append
    fit(module, tmp_path / "all", enable_checkpointing=False, callbacks=[RolloutLog(1)])
    sizes = [path.stat().st_size for path in shards(tmp_path / "all")]
    assert len(sizes) == 4 and not said
    module = make(tokenizer)
    module.print = said.append
    keep_gb = (sum(sizes[2:]) + 100) / 1e9
    fit(module, tmp_path / "some", enable_checkpointing=False, callbacks=[RolloutLog(1, keep_gb)])
    assert {row["step"] for row in rows(tmp_path / "some")} == {2, 3}
    assert said == [f"rollouts: the oldest are removed from now on (keep_gb: {keep_gb:g})"]
    fit(make(tokenizer), tmp_path / "last", enable_checkpointing=False, callbacks=[RolloutLog(1, keep_gb=0)])
    assert {row["step"] for row in rows(tmp_path / "last")} == {3}
