"""A study: its commands, its resumption, and a page whose numbers follow from the reports."""

import json

import pytest

from mgpo.errors import UserError
from mgpo.tools.study.markdown import write_study
from mgpo.tools.study.parts import Audits, Counterfactuals, Curves, Differences, Table, Training, check_parts
from mgpo.tools.study.plan import Matrix, Run, _fingerprint, jobs
from mgpo.tools.study.results import Results
from mgpo.utils.configurations import shipped_config

RUNS = {
    "three": Run(of="ours", set={"model.dialogue.init_args.turns": 3}),
    "base": Run("a.yaml", untrained=True),
    "ours": Run("a.yaml", set={"model.group_size": 4}),
}


def plan(tmp_path, runs=RUNS, **options):
    given = {"seeds": [0, 1], "common": {"measure": "after"}, "by_seed": {}, **options}
    return [job for stage in jobs(Matrix(runs, seed_keys=["model.seed"], output=tmp_path, **given)) for job in stage]


def test_trainings_come_before_what_evaluates_them(tmp_path):
    made = plan(tmp_path)
    assert [job.name for job in made] == [
        "base, seed 0", "ours, seed 0", "ours, seed 1", "three, seed 0", "three, seed 1",
    ]  # fmt: skip
    base, ours, three = made[0].arguments, made[2].arguments, made[4].arguments
    assert base[0] == three[0] == "validate" and ours[0] == "fit"
    assert "--model.seed=1" in ours and not any("seed=" in part for part in (*base, *three) if "model" in part)
    assert "--measure=after" in ours and "--measure=after" not in base
    assert {"--model.group_size=4", "--model.dialogue.init_args.turns=3"} <= set(three)
    assert f"--ckpt_path={tmp_path}/ours/seed-1/checkpoints/trained.ckpt" in three


def test_keys_may_go_with_the_seeds_and_then_untrained_rows_do_too(tmp_path):
    made = {job.name: job.arguments for job in plan(tmp_path, seeds=[5, 6, 7], by_seed={"model.policy": ["A", "B"]})}
    assert "--model.policy=A" in made["ours, seed 5"] and "--model.policy=A" in made["ours, seed 7"]
    assert "--model.policy=B" in made["base, seed 6"] and "base, seed 7" not in made
    assert "--model.policy=B" in made["three, seed 6"]


def test_what_needs_another_row_is_made_in_a_later_stage(tmp_path):
    runs = {"later": Run("b.yaml", start="ours"), **RUNS, "seen": Run(of="later")}
    stages = list(jobs(Matrix(runs, [0], [], {}, {}, tmp_path)))
    assert [{job.folder.parent.name for job in stage} for stage in stages] == [
        {"base", "ours"}, {"later"}, {"three", "seen"},
    ]  # fmt: skip


def test_a_row_may_start_from_another(tmp_path):
    made = plan(tmp_path, {"later": Run("b.yaml", start="ours"), **RUNS, "seen": Run(of="later")})
    assert [job.folder.parent.name for job in made] == [
        "base",
        *["ours"] * 2,
        *["later"] * 2,
        *["three"] * 2,
        *["seen"] * 2,
    ]
    assert f"--model.policy.init_args.start={tmp_path}/ours/seed-1/checkpoints/trained.ckpt" in made[4].arguments


def test_a_row_may_learn_from_anothers_rollouts(tmp_path):
    runs = {"own": Run("b.yaml", rollouts="ours", seed_keys=["data.seed"]), **RUNS, "seen": Run(of="own")}
    made = {job.name: job for job in plan(tmp_path, runs)}
    assert [*made].index("ours, seed 1") < [*made].index("own, seed 0") < [*made].index("seen, seed 0")
    arguments = made["own, seed 1"].arguments
    assert f"--data.train.init_args.rollouts={tmp_path}/ours/seed-1" in arguments
    assert "--data.seed=1" in arguments and "--model.seed=1" not in arguments
    other = {job.name: job for job in plan(tmp_path, {**runs, "ours": Run("a.yaml")})}
    assert other["own, seed 1"].fingerprint != made["own, seed 1"].fingerprint


def test_a_row_may_audit_anothers_run_or_the_base_of_one_that_is_not_trained(tmp_path):
    runs = {"asked": Run(audits="ours", set={"limit": 8}), "bare": Run(audits="base"), **RUNS}
    made = {job.name: job for job in plan(tmp_path, runs, by_seed={"model.policy.init_args.path": ["A", "B"]})}
    job = made["asked, seed 1"]
    assert job.arguments == ["audit", f"--model={tmp_path}/ours/seed-1", f"--output={job.folder}", "--limit=8"]
    assert job.report.name == "audit.json" and made["ours, seed 1"].report.name == "report.json"
    assert [*made].index("ours, seed 1") < [*made].index("asked, seed 0")
    assert "--model=B" in made["bare, seed 1"].arguments
    other = {job.name: job for job in plan(tmp_path, {**runs, "ours": Run("b.yaml")})}
    assert other["asked, seed 1"].fingerprint not in (job.fingerprint, other["asked, seed 0"].fingerprint)
    assert "bare, seed 1" not in {job.name for job in plan(tmp_path, runs)}  # there is but one base


BAD = [
    {"a": Run(audits="b", config="c"), "b": Run("c")}, {"a": Run(audits="b"), "b": Run(of="d"), "d": Run("c")},
    {"a": Run(audits="d")}, {"a": Run(of="b"), "b": Run(audits="d"), "d": Run("c")},
    {"a": Run("c", rollouts="b"), "b": Run("c", untrained=True)},
    {"a": Run("c", rollouts="b", start="b"), "b": Run("c")},
    {"a": Run("c", rollouts="b"), "b": Run("c", rollouts="d"), "d": Run("c")},
    {"a": Run(of="b")}, {"a": Run()}, {"a": Run("c", untrained=True), "b": Run(of="a")},
    {"a": Run("c", start="b"), "b": Run("c", start="d"), "d": Run("c")},
    {"a": Run(of="b", untrained=True), "b": Run("c")},
]  # fmt: skip


@pytest.mark.parametrize("runs", BAD)
def test_rows_that_cannot_be_made_are_named(tmp_path, runs):
    with pytest.raises(UserError, match=r"runs\.[ab]"):
        plan(tmp_path, runs)


def question(i, right, valid=True, category="attribute"):
    return {
        "id": str(i), "split": "val", "category": category, "truth": "K", "answer": "K", "right": right, "turns": 2,
        "valid_box": valid, "reason": None, "box": [0, 0, 1, 1], "subimage_right": right if valid else None,
        "crops": int(valid), "replies": [],
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """Two rows of two seeds over four questions: ours is right on 3 and 4 of them, theirs on 1 and 1."""
    for row, rights in {"ours": ([1, 1, 1, 0], [1, 1, 1, 1]), "theirs": ([1, 0, 0, 0], [1, 0, 0, 0])}.items():
        for seed, right in enumerate(rights):
            place = tmp_path / "runs" / row / f"seed-{seed}"
            place.mkdir(parents=True)
            made = [question(i, bool(r), valid=i < 3, category=("small", "large")[i % 2]) for i, r in enumerate(right)]
            (place / "report.json").write_text(json.dumps({"by_split": {"val": {}}, "questions": made}))
            lines = ["step,train/accuracy,train/constant_reward,speed/seconds_per_step,other"]
            lines += [*(f"{s},{s / 10 + seed / 10},0.5,{2 + s}," for s in range(5)), "9,,,,1", "10,,,,4"]
            (place / "metrics.csv").write_text("\n".join(lines))
            rate = {"n": sum(right), "count": seed, "share": seed / sum(right)}
            audit = {"n": 4, "accuracy": 0.5, "margin": {"mean": 3.0 + seed}, "rates": {"mark_outside": rate}}
            (place / "audit.json").write_text(json.dumps({"by_split": {"test": audit}}))
            rows = [{"id": str(i), "split": "val", "crop": bool(r), "black": False} for i, r in enumerate(right)]
            numbers = {"accuracy": 0.5, "drop": 0.5, "gain": 2, "harm": 0}
            swapped = {"by_split": {"val": {"crop": numbers, "black": numbers}}, "questions": rows}
            (place / "counterfactuals.json").write_text(json.dumps(swapped))
    return tmp_path


def test_numbers_follow_from_the_reports(folder):
    results = Results(folder / "runs", [0, 1])
    assert results.share("ours", "val", "accuracy") == {"mean": 0.875, "low": 0.75, "high": 1, "seeds": 2}
    assert results.share("ours", "val", "accuracy", "large")["mean"] == 0.75
    assert results.share("ours", "val", "accuracy", "!large")["mean"] == 1
    assert results.share("ours", "val", "subimage_accuracy")["mean"] == 1
    assert results.share("ours", "val", "subimage_share")["mean"] == 0.75
    difference = results.difference("ours", "theirs", "val")
    assert difference["difference"] == 0.625
    assert difference["interval"][0] < 0.625 < difference["interval"][1]
    assert results.difference("ours", "theirs", "val", "large")["n"] == 2
    steps, series = results.curve("ours", "train/accuracy", window=2)
    assert steps == [0, 1, 2, 3, 4]
    assert series[1] == pytest.approx([0.1, 0.15, 0.25, 0.35, 0.45])
    assert results.steps_to("ours", "train/accuracy", 0.4, window=2) == [None, 4]
    assert results.middle("ours", "other", sum) == {"mean": 5, "low": 5, "high": 5, "seeds": 2}
    black = results.counterfactuals("ours", "val")["black"]
    assert black["interval"][0] <= 0.875 <= black["interval"][1]


def test_only_the_seeds_of_the_study_count(folder):
    assert Results(folder / "runs", [1]).share("ours", "val", "accuracy") == {
        "mean": 1, "low": 1, "high": 1, "seeds": 1,
    }  # fmt: skip


def test_other_questions_under_the_same_ids_are_not_paired(folder):
    for path in folder.glob("runs/theirs/*/report.json"):
        path.write_text(path.read_text().replace('"truth": "K"', '"truth": "L"'))
    with pytest.raises(ValueError, match="not evaluated on the same questions"):
        Results(folder / "runs", [0, 1]).difference("ours", "theirs", "val")


def test_a_seed_that_skipped_an_update_keeps_what_it_had(folder):
    """And so does one that waited for groups with a signal: their steps are not those of the others."""
    path = folder / "runs/ours/seed-1/metrics.csv"
    path.write_text("step,train/accuracy\n1,0.1\n1,0.2\n3,0.3\n9,0.4\n")
    assert Results(folder / "runs", [0, 1]).curve("ours", "train/accuracy", 1) == (
        [1, 2, 3, 4], [[0.1, 0.2, 0.3, 0.4], [0.2, 0.2, 0.3, 0.3]],
    )  # fmt: skip


def test_what_a_row_never_logs_is_no_figure_of_it(folder):
    """Groups without a signal, of rows that are supervised."""
    assert Results(folder / "runs", [0, 1]).middle("ours", "train/never", max) is None


def test_a_metric_that_was_never_logged_is_named(folder):
    with pytest.raises(ValueError, match="has logged train/wrong"):
        Results(folder / "runs", [0, 1]).curve("ours", "train/wrong", 2)


@pytest.mark.parametrize(
    ("part", "said"),
    [(Table("T", ["our"], ["accuracy"]), "no run 'our'"), (Table("T", ["ours"], ["acuracy"]), "no share 'acuracy'"),
     (Differences("T", [("ours", "their")]), "no run 'their'"), (Curves("T", "m", ["ours"] * 7), "7 curves"),
     (Counterfactuals("T", ["x"]), "no run 'x'"), (Audits("T", ["x"], []), "no run 'x'"),
     (Audits("T", ["ours"], ["wrong"]), "no rate 'wrong'")],
)  # fmt: skip
def test_misspelt_parts_are_named_before_anything_runs(part, said):
    with pytest.raises(ValueError, match=said):
        check_parts([part], RUNS)


def test_a_job_is_done_only_as_it_is_now(tmp_path):
    """Another key, another configuration file, or another source makes it anew."""
    config = tmp_path / "a.yaml"

    def made(text="a: 1", **options):
        config.write_text(text)
        runs = {"ours": Run(str(config), **options), "three": Run(of="ours")}
        return plan(tmp_path, runs, seeds=[0])

    for job in made():
        job.folder.mkdir(parents=True)
        (job.folder / "report.json").write_text("{}")
        assert not job.done  # a report alone may come from a run that was cut short
        (job.folder / "done.json").write_text(json.dumps({"fingerprint": job.fingerprint}))
    assert [job.done for job in made()] == [True, True]
    assert [job.done for job in made("a: 2")] == [False, False]
    assert [job.done for job in made(set={"model.seed": 3})] == [False, False]


def test_the_page_is_markdown_json_and_pictures_and_the_same_every_time(folder):
    parts = [
        Table("Main", ["ours", "theirs"], ["accuracy", "crop_rate"], ("", "large")),
        Differences("Against", [("ours", "theirs")]),
        Curves("Accuracy over steps", "train/accuracy", ["ours", "theirs"]),
        Counterfactuals("Is it the crop?", ["ours"]),
        Training("How soon", ["ours"], level=0.4),
        Audits("Why", ["ours"], ["mark_outside"]),
    ]
    pages = []
    for name in ("page", "again"):
        write_study(folder / name, Results(folder / "runs", [0, 1]), parts, {"ours": "Ours"}, ["Made by hand."])
        pages.append({path.name: path.read_bytes() for path in (folder / name).iterdir()})
    assert pages[0] == pages[1]
    text = pages[0]["README.md"].decode()
    assert "| Ours | val | 0.875 (0.750–1.000) |" in text
    assert "| Ours − theirs | val | +62.5 (" in text
    assert "| Ours | –, never in 2 of 2 | 0.500 (0.500–0.500) | 4.000 (4.000–4.000) |" in text
    assert "| Ours | test | 0.500 (0.500–0.500) | 3.500 (3.000–4.000) | 0.125 (0.000–0.250), 1 of 7 |" in text
    assert "![Accuracy over steps](accuracy-over-steps.svg)" in text
    assert pages[0]["accuracy-over-steps.svg"].startswith(b"<?xml")
    assert json.loads(pages[0]["study.json"])["Main"][0]["accuracy"]["high"] == 1


def test_a_configuration_that_is_named_as_it_ships_is_looked_into():
    """Else what it made before an upgrade would count as done."""
    named, found, none = (_fingerprint(["fit"], config, "") for config in ("mgpo", str(shipped_config("mgpo")), ""))
    assert named == found != none
