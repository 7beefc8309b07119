"""Several sources as one: how they are dealt, named, judged and complained of."""

import json
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mgpo.cli import main
from mgpo.commands.execute import run
from mgpo.data import DataError, Files, Mixture, Part, Scenes, VQAData
from mgpo.data.batches import Batches, Decoded
from mgpo.errors import UserError
from mgpo.evaluation.report import format_report, summarise
from mgpo.metrics.record import record_of
from mgpo.rewards import BySource, NumericAnswer
from mgpo.training.step_metrics import rollout_metrics
from mgpo.types import Question, Trajectory
from tests.conftest import MemoryPicture, make_record, noise_image
from tests.test_cli import ROOT


class Numbered:
    """Questions that are nothing but their number."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Question:
        return Question(str(index), MemoryPicture(None), "?", "1")


def test_weights_may_be_numbers_of_numpy():
    mixture = Mixture([Part(Numbered(4), np.float64(0.5), "one"), Part(Numbered(4), np.float32(0.5), "two")])
    assert len(mixture) == 8


weights = st.none() | st.decimals("0.01", "100", places=2).map(float)
parts = st.lists(st.tuples(st.integers(1, 40), weights), min_size=1, max_size=5)


def mixture(given):
    return Mixture([Part(Numbered(n), weight, f"part {i}") for i, (n, weight) in enumerate(given)])


@settings(max_examples=100, deadline=None)
@given(parts)
def test_an_epoch_holds_every_question_in_its_proportion(given):
    mixed = mixture(given)
    asked = [mixed[i] for i in range(len(mixed))]
    assert len({question.id for question in asked}) == len(asked)
    by_part = Counter(question.source for question in asked)
    weighted = [(f"part {i}", Fraction(str(w))) for i, (_, w) in enumerate(given) if w is not None]
    together, total = sum(by_part[name] for name, _ in weighted), sum(w for _, w in weighted)
    for name, weight in weighted:
        assert abs(by_part[name] - together * weight / total) < 1
    fewest = []
    for i, (count, weight) in enumerate(given):
        times = Counter(question.id.split("/")[1] for question in asked if question.source == f"part {i}").values()
        assert len(times) == count and max(times) - min(times) <= 1
        assert weight is not None or set(times) == {1}
        fewest += [min(times)] if weight is not None else []
    assert min(fewest, default=1) == 1  # no epoch is longer than it takes to ask them all


@settings(max_examples=50, deadline=None)
@given(parts)
def test_an_index_always_gives_the_same_question_and_parts_are_spread_evenly(given):
    mixed, again = mixture(given), mixture(given)
    asked = [mixed[i] for i in range(len(mixed))]
    assert [again[i].id for i in reversed(range(len(again)))] == [question.id for question in reversed(asked)]
    whole, seen = Counter(question.source for question in asked), Counter()
    for done, question in enumerate(asked, 1):
        seen[question.source] += 1
        assert all(abs(seen[name] - done * whole[name] / len(asked)) <= 1 + len(given) / 2 for name in whole)


def test_indices_beyond_the_end_are_refused():
    mixed = mixture([(3, None)])
    for index in (-1, 3):
        with pytest.raises(IndexError):
            mixed[index]


def test_weights_that_no_float_is_make_no_epoch_longer():
    counts = Counter(mixture([(10, 0.1), (30, 0.3)])[i].source for i in range(40))
    assert counts == {"part 0": 10, "part 1": 30} and len(mixture([(10, 0.1), (30, 0.3)])) == 40


def test_ids_stay_apart_whatever_they_are():
    """Rollouts are drawn from ids, so a question that is asked again has another one."""

    class Named(Numbered):
        def __getitem__(self, index):
            return Question(("7", "a/7", "#2/7")[index], MemoryPicture(None), "?", "1")

    mixed = Mixture([Part(Named(3), 1, "a"), Part(Named(3), 4, "b"), Part(Numbered(12), 4, "a b")])
    ids = [mixed[i].id for i in range(len(mixed))]
    assert len(set(ids)) == len(ids) > 18
    assert {"a/7", "a/a/7", "b#2/7", "b#4/#2/7"} <= set(ids)


@pytest.fixture
def folder(tmp_path):
    noise_image(32, 32).save(tmp_path / "a.png")
    row = {"image": "a.png", "question": "What?", "answer": "7"}
    for name, rows in {
        "signs": [row, {**row, "image": "none.png"}],
        "counts": [{**row, "answer": "100"}, {**row, "answer": ""}],
    }.items():
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def test_what_every_part_has_left_out_is_said(folder):
    mixed = Mixture([Part(Files(str(folder / f"{name}.jsonl"))) for name in ("signs", "counts")])
    assert [name for name, _ in mixed.named] == ["signs", "counts"]
    with pytest.warns(UserWarning, match="are left out") as said:
        VQAData(train=mixed).setup("fit")
    (said,) = [str(warning.message) for warning in said]
    assert "signs.jsonl: 1 rows are left out" in said and "none.png" in said
    assert "counts.jsonl: 1 rows are left out" in said and "it is empty" in said
    assert [reason.split(", ")[:2] for reason in mixed.bad] == [["signs", "row 2"], ["counts", "row 2"]]
    assert Mixture([Part(Numbered(1))]).complaint() is None


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([], "no parts"),
        ([Part(Numbered(0), name="a")], "part 'a' of the mixture is empty"),
        ([Part(Numbered(1), 0)], "part 'numbered' of the mixture has weight 0"),
        ([Part(Numbered(1), -1.5)], "weight -1.5"),
        ([Part(Numbered(1), float("nan"))], "weight nan"),
        ([Part(Numbered(1), float("inf"))], "weight inf"),
        ([Part(Numbered(1)), Part(Numbered(2))], "two parts of the mixture are called 'numbered'"),
        ([Part(Numbered(1), name="a/b")], "can't be the name"),
        ([Part(Numbered(1), name="a#b")], "can't be the name"),
        ([Part(Numbered(1), name="\x1b[31m")], "can't be the name"),
        ([Part(Numbered(1), name="n" * 1000)], "can't be the name"),
        ([Part(Numbered(9), 1e-12, "a"), Part(Numbered(9), 1, "b")], "would have"),
    ],
)
def test_mixtures_that_make_no_sense(parts, words):
    with pytest.raises(DataError, match=words) as said:
        Mixture(parts)
    assert len(str(said.value)) <= 600 and "\n" not in str(said.value) and "\x1b" not in str(said.value)


def test_a_run_goes_on_in_a_mixture_where_it_was():
    def deal(state=None):
        mixed = Mixture([Part(Scenes(6, side=64), 2, "a"), Part(Scenes(10, side=64, seed=1), 1, "b")])
        loader = Batches(Decoded(mixed), 1, 0, 4, True, 0, 0)
        if state:
            loader.load_state_dict(state)
        return loader, ([sample.question.id for sample in batch] for batch in loader)

    loader, batches = deal()
    first = [next(batches), next(batches)]
    assert first + list(deal(loader.state_dict())[1]) == list(deal()[1])
    assert len(list(deal()[1])) == 7


def test_each_source_has_its_own_reward():
    reward = BySource({"counts": NumericAnswer(relative=0.1)})
    mixed = Mixture([Part(Numbered(1), name="signs"), Part(Numbered(1), name="counts")])
    assert {mixed[i].source: reward("1.05", mixed[i]) for i in range(2)} == {"signs": 0.0, "counts": 1.0}
    assert reward("1.05", Numbered(1)[0]) == 0.0
    lenient = BySource({}, otherwise=NumericAnswer(relative=0.1))
    assert lenient("1.05", mixed[0]) == 1.0


def test_a_reward_for_a_source_that_is_not_there_is_refused():
    data = VQAData(train=Mixture([Part(Numbered(1), name="signs")]), val=[Mixture([Part(Numbered(1), name="counts")])])
    assert data.names() == {"signs", "counts"}
    BySource({"counts": NumericAnswer()}).check(data.names())
    with pytest.raises(UserError, match=r"no source is called 'cuonts'; the names in data are: counts, signs"):
        BySource({"cuonts": NumericAnswer()}).check(data.names())
    with pytest.raises(UserError, match=r"mgpo\.data\.Mixture"):
        BySource({"counts": NumericAnswer()}).check(VQAData(train=Numbered(1)).names())


def test_results_are_told_by_source():
    records = [make_record(f"{name}/{i}", source=name, right=i > 0) for name in ("signs", "counts") for i in range(4)]
    records.append(make_record("other", right=True))
    numbers = summarise(records)["by_split"]["val"]["by_source"]
    assert {name: (part["n"], part["accuracy"]) for name, part in numbers.items()} == {
        "signs": (4, 0.75), "counts": (4, 0.75),
    }  # fmt: skip
    assert "from signs" in format_report(summarise(records))
    assert rollout_metrics([[record] for record in records], 1)["accuracy/signs"] == [0, 1, 1, 1]
    assert not any(name.startswith("right/") for name in rollout_metrics([records[-1:]], 1))
    assert "from signs" in format_report(summarise(records), summarise([make_record("q")]))


def test_a_record_knows_its_source():
    question = Mixture([Part(Numbered(1), name="signs")])[0]
    image = noise_image(32, 32)
    assert record_of(Trajectory(question, image)).source == "signs"


def config(folder, parts, rewards=None):
    mixed = {"class_path": "mgpo.data.Mixture", "init_args": {"parts": parts}}
    made = {"data": {"train": mixed, "val": [mixed], "batch_size": 2}}
    made["trainer"] = {"fast_dev_run": True, "logger": False, "callbacks": []}
    if rewards is not None:
        made["model"] = {"reward": {"class_path": "mgpo.rewards.BySource", "init_args": {"rewards": rewards}}}
    (folder / "mix.yaml").write_text(yaml.safe_dump(made))
    return ["--config", f"{ROOT}/configs/mgpo.yaml", "--config", str(folder / "mix.yaml")]


def files(folder, name, **more):
    path = str(folder / f"{name}.jsonl")
    return {"source": {"class_path": "mgpo.data.Files", "init_args": {"path": path}}, **more}


@pytest.mark.parametrize(
    ("change", "rewards", "words"),
    [
        ({"weight": 0}, None, "weight 0"),
        ({"weight": "much"}, None, "weight"),
        ({"wieght": 2}, None, "wieght"),
        ({"name": "counts"}, None, "two parts"),
        ({"source": {"class_path": "mgpo.data.Scenes", "init_args": {"count": 0}}}, None, "part 'scenes'.*is empty"),
        ({"source": {"class_path": "mgpo.data.Nothing"}}, None, "there is no Nothing in mgpo.data"),
        ({}, {"cuonts": {"class_path": "mgpo.rewards.NumericAnswer"}}, "no source is called 'cuonts'"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*rows are left out", "ignore:.*does not have many workers")
def test_mistakes_in_a_configuration_are_one_sentence(folder, change, rewards, words, monkeypatch):
    monkeypatch.chdir(folder)
    parts = [{**files(folder, "signs"), **change}, files(folder, "counts")]
    with pytest.raises(SystemExit, match=f"mgpo: .*{words}"):
        main(["fit", *config(folder, parts, rewards)])


@pytest.mark.filterwarnings("ignore:.*rows are left out", "ignore:.*does not have many workers")
def test_a_mixture_of_a_configuration_trains(folder, monkeypatch):
    monkeypatch.chdir(folder)
    parts = [files(folder, "signs", weight=3), files(folder, "counts", weight=1)]
    number = {"class_path": "mgpo.rewards.NumericAnswer", "init_args": {"relative": 0.1}}
    made = config(folder, parts, {"counts": number})
    module = run(["fit", *made, "--data.batch_size", "4", "--preflight", "off"]).model
    assert {t.question.id for t in module.rolled_out} == {"signs/signs-1", "signs#2/signs-1", "signs#3/signs-1",
                                                          "counts/counts-1"}  # fmt: skip
    assert {"accuracy/signs", "accuracy/counts"} <= set(module.published)
    assert set(module.summary["by_split"]["files"]["by_source"]) == {"signs", "counts"}
