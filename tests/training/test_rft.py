"""Rejection-sampling fine-tuning: right rollouts are logged, played again, and learnt as they were sampled."""

import copy
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from mgpo.callbacks import RolloutLog
from mgpo.data import DataError, OwnRollouts, Scenes
from mgpo.data.module import VQAData
from mgpo.data.own_rollouts import COLUMNS
from mgpo.dialogues import SingleTurn, TwoTurn
from mgpo.images.boxes import BoxRule
from mgpo.monitoring.rollout_table import SCHEMA
from mgpo.policy.passes.batch import collate
from mgpo.policy.passes.logprobs import score
from mgpo.rollout.in_process import Sampling
from mgpo.rollout.replay import play_again
from mgpo.training.module import MGPO
from tests.callbacks.test_rollout_log import same_folder, shards
from tests.training.test_module import equal, fit, make, watch, weights


def whatever(answer, question):
    """A random policy never answers; here half of the questions are right with any reply."""
    return float(int(question.id.rpartition("-")[2]) % 2)


def small(count=8):
    return Scenes(count, side=128)


def supervised(tokenizer, **options):
    return make(tokenizer, MGPO, **{"reward": whatever, "supervised": True, "sampling": Sampling(6), **options})


@pytest.fixture(scope="module")
def logged(tokenizer, tmp_path_factory):
    """A run's folder, in which 4 of 8 questions were answered rightly, by 4 rollouts each."""
    folder = tmp_path_factory.mktemp("run")
    module = make(tokenizer, MGPO, reward=whatever)
    fit(module, folder, enable_checkpointing=False, callbacks=[RolloutLog(2)], logger=same_folder(folder))
    return shards(folder)[0].parent.parent


def table(logged):
    return pa.concat_tables([pq.read_table(path) for path in shards(logged)])


def rewritten(table, folder):
    folder.mkdir(parents=True)
    pq.write_table(table, folder / "rank-0-steps-0-0.parquet")
    return str(folder)


def learn(module, source, tmp_path):
    """Fit on a source, and the trajectories that every pass was over."""
    parts, whole = [], VQAData(train=source, batch_size=2, num_workers=0)
    loss = module.loss
    module.loss = lambda part: parts.extend(part.trajectories) or loss(part)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.training.test_module.VQAData", lambda **_: whole)
        trainer = fit(module, tmp_path, enable_checkpointing=False)
    return trainer, parts


@torch.no_grad()
def likelihood(policy, trajectories):
    batch = collate(trajectories, policy.positions, policy.pad_id)
    logprobs_NC = score(policy, batch).logprobs_NC
    return logprobs_NC[batch.policy_NC].sum().item()


def test_the_schema_is_that_of_the_log():
    assert {name: SCHEMA.field(name).type for name in COLUMNS} == COLUMNS


def test_what_is_learnt_is_what_was_sampled_in_all_turns(tokenizer, logged, tmp_path):
    rows = [row for row in table(logged).to_pylist() if row["right"]]
    source = OwnRollouts(str(logged), small())
    assert len(source) == len(rows) == 16 and source.complaint() is None
    module = supervised(tokenizer)
    trainer, learnt = learn(module, source, tmp_path)
    assert trainer.global_step == 8
    found = []
    for trajectory in learnt:
        batch = collate([trajectory], module.policy.positions, module.policy.pad_id)
        mask, turns = batch.policy_NC[0], batch.turn_NC[0]
        found.append([batch.ids_NC[0][mask & (turns == k)].tolist() for k in range(len(trajectory.turns))])
        assert trajectory.question.imitated is None  # what is judged and asked knows nothing of it
        assert [view.region for view in trajectory.crops] == [
            tuple(region) for row in rows if row["ids"] == found[-1] for region in row["regions"]
        ]
    assert sorted(found) == sorted(row["ids"] for row in rows)
    assert {len(ids) for ids in found} == {2}


def test_it_makes_them_likelier(tokenizer, logged, tmp_path):
    source = OwnRollouts(str(logged), small(), per_question=2)
    assert len(source) == 8
    module = supervised(tokenizer, optimizer=lambda p: torch.optim.AdamW(p, lr=1e-3))
    before = copy.deepcopy(module.policy).eval()
    steps = watch(module)
    _, learnt = learn(module, source, tmp_path)
    assert likelihood(module.policy.eval(), learnt) > likelihood(before, learnt) + 1
    assert all(step["nll"] > 0 for step in steps)


def test_crops_are_cut_again(logged, policy):
    """A rollout whose first reply names a box: the policy is a random one, so it is made here."""
    box = '```json\n[{"bbox_2d": [10, 20, 80, 90], "label": "mark"}]\n```'
    ids = tuple(policy.chat.encode_text(box)), (*policy.chat.encode_text("\\boxed{K}"), policy.chat.end_id)
    question = OwnRollouts(str(logged), small())[0]
    rollout = replace(question.imitated, ids=ids, stops=("marker", "end"))
    original = question.picture.load()
    dialogue = TwoTurn(rule=BoxRule(min_side=20))
    (played,) = play_again(
        policy, dialogue, [(replace(question, imitated=rollout), original)], lambda *_: 1.0, Sampling(99)
    )
    assert played.failed is None and played.answer == "K"
    (crop,) = played.crops
    first = played.views[0]
    assert crop.region == first.crop((10, 20, 80, 90), policy.resolution.crop).region
    assert torch.equal(played.turns[1].prompt.images[0].patches, policy.pixels(crop.pixels(original)).patches)


def test_the_latest_distinct_ones_are_taken(logged, tmp_path):
    rows = [row | {"step": i} for i, row in enumerate(r for r in table(logged).to_pylist() if r["right"])][:4]
    again = [rows[0] | {"step": 9}]  # as a run that goes on may log it
    folder = rewritten(pa.Table.from_pylist(rows + again, schema=SCHEMA), tmp_path / "some")
    source = OwnRollouts(folder, small(), per_question=2)
    assert [source[i].imitated.ids for i in range(len(source))] == [
        tuple(map(tuple, row["ids"])) for row in (rows[0], rows[3])
    ]
    assert len(OwnRollouts(folder, small(), from_step=5)) == 1
    assert len(OwnRollouts(f"{folder}/rank-0-steps-0-0.parquet", small())) == 4
    with pytest.raises(DataError, match=r"no rollout can be used \(5 rollouts, 0 of them right from step 10 on"):
        OwnRollouts(folder, small(), from_step=10)


def test_questions_that_the_source_lacks_are_counted_and_named(logged):
    source = OwnRollouts(str(logged), small(2))
    said = source.complaint()
    assert len(source) == 4 and "12 right rollouts belong to questions that the source does not have" in said
    assert "'attribute-1-0-3'" in said and len(said) <= 600
    with pytest.raises(DataError, match="'attribute-1-0-1'") as error:
        OwnRollouts(str(logged), Scenes(8, side=128, seed=5))
    assert len(str(error.value)) <= 600


def test_another_dialogue_or_tokenizer_costs_the_rollout(logged, policy):
    question = OwnRollouts(str(logged), small())[0]
    sample = (question, question.picture.load())

    def why(dialogue=TwoTurn(), reward=whatever, limit=6, **changes):
        rollout = replace(question.imitated, **changes)
        changed = (replace(question, imitated=rollout), sample[1])
        played = play_again(policy, dialogue, [sample, changed], reward, Sampling(limit))
        return played[1].failed

    assert why() is None
    assert "first prompt is not the logged one" in why(SingleTurn())
    assert "first prompt is not the logged one" in why(prompt_hash="0" * 16)
    known, last = question.imitated.ids[0], question.imitated.ids[1]
    for ids in ((policy.chat.image_id,), (len(policy.banned),), (-1,)):
        assert "another tokenizer's" in why(ids=(known, ids))
    assert "3 in the log" in why(ids=(known, last, last), stops=("length",) * 3)
    assert "sampling.max_new_tokens allows 2" in why(limit=2)
    assert "is not right here" in why(reward=lambda answer, asked: 0.0)


def test_a_rollout_that_cannot_be_played_again_costs_itself(tokenizer, logged, tmp_path):
    source = OwnRollouts(str(logged), small(), per_question=1)
    place, rollout = source.kept[0]
    source.kept[0] = place, replace(rollout, ids=((5,), (10**6,)))
    module = supervised(tokenizer)
    said = []
    module.print = said.append
    trainer, learnt = learn(module, source, tmp_path)
    assert trainer.global_step == 2 and len(learnt) == 3
    assert any("another tokenizer's" in line for line in said)


def test_where_none_can_be_played_again_nothing_is_learnt(tokenizer, logged, tmp_path):
    module = supervised(tokenizer, dialogue=SingleTurn())
    before = weights(module)
    _, learnt = learn(module, OwnRollouts(str(logged), small()), tmp_path)
    assert not learnt and equal(before, weights(module)) and len(module.skipped) == 4


def changed(column, change):
    def of(whole):
        rows = whole.to_pylist()
        for row in rows:
            row[column] = change(row[column])
        return pa.Table.from_pylist(rows, schema=whole.schema)

    return of


HOSTILE = {
    "column 'right' is missing": lambda t: t.drop_columns(["right"]),
    "column 'stops' holds": lambda t: t.set_column(t.schema.get_field_index("stops"), "stops", t["id"]),
    "column 'ids' is missing": lambda t: t.drop_columns(["ids"]),
    "column 'ids' holds": lambda t: t.set_column(t.schema.get_field_index("ids"), "ids", t["stops"]),
    "column ids: it is empty": changed("ids", lambda cell: None),
    "column stops": changed("stops", lambda cell: ["whenever"] * len(cell)),
    "differ in length": changed("stops", lambda cell: cell[:1]),
    "column ids": changed("ids", lambda cell: [[None], []]),
    "column id": changed("id", lambda cell: None),
    "tokens": changed("ids", lambda cell: [[5] * 10**6, [5]]),
}


@pytest.mark.parametrize("said", HOSTILE)
def test_a_log_that_is_none_is_one_sentence(logged, said, tmp_path):
    with pytest.raises(DataError, match=said) as error:
        OwnRollouts(rewritten(HOSTILE[said](table(logged)), tmp_path / "bad"), small())
    assert len(str(error.value)) <= 600 and "\n" not in str(error.value)


def test_files_that_are_no_parquet(logged, tmp_path):
    whole = shards(logged)[0].read_bytes()
    foot = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    scrambled = b"PAR1" + b"\xff" * (foot - 4) + whole[foot:]
    for i, data in enumerate((b"", b"PAR1", whole[:-40], scrambled, b"id,right\n")):
        (tmp_path / f"{i}").mkdir()
        (tmp_path / f"{i}" / "a.parquet").write_bytes(data)
        with pytest.raises(DataError) as error:
            OwnRollouts(str(tmp_path / f"{i}"), small())
        assert len(str(error.value)) <= 600 and "\n" not in str(error.value)
    with pytest.raises(DataError, match="there are no rollouts here"):
        OwnRollouts(str(tmp_path), small())
    with pytest.raises(DataError, match="per_question is 0"):
        OwnRollouts(str(logged), small(), per_question=0)
