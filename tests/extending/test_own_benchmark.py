"""A benchmark of one's own: its columns, its score and its published figures in one file, named in data.val."""

import json
from types import SimpleNamespace

from mgpo.callbacks import BenchmarkTable
from mgpo.data.benchmarks import VStar
from mgpo.evaluation.published import as_markdown, cited
from tests.conftest import make_record, noise_image
from tests.helpers.published import write_jsonl

DIALS = """
    from mgpo.answers import find_number
    from mgpo.data.benchmarks import Benchmark
    from mgpo.metrics.score import Score, share

    class Dials(Benchmark):
        SPLIT = "dials"
        columns = ("question", "reading", "also")
        title = "Dials"
        published = {"GPT-4o": 31.5}
        published_in = "arXiv 0000.00000"

        def question(self, row, number):
            return self.make(row, number, row["question"], row["reading"], accepted=(row["also"],))

        @staticmethod
        def score(records) -> Score:
            read = [(find_number(r.answer or ""), float(r.truth)) for r in records]
            near = [number is not None and abs(number - truth) <= 5 for number, truth in read]
            return Score(len(near), share(near), {"exact": share(r.right for r in records)})
"""
PLAIN = """
    from mgpo.images import FilePicture
    from mgpo.types import Question

    class One:
        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> Question:
            return Question("one", FilePicture("0.png"), "Which?", "7", split="one")
"""


def rows(folder):
    noise_image(200, 100).save(folder / "0.png")
    row = {"image": "0.png", "question": "What does it read?"}
    return write_jsonl(folder / "d.jsonl", [{**row, "reading": f"{i}0", "also": str(i)} for i in range(1, 4)])


def table(tmp_path, sources, records):
    """What the callback makes of records."""
    trainer = SimpleNamespace(
        datamodule=SimpleNamespace(val=sources, test=[]), sanity_checking=False, is_global_zero=True, global_step=0,
        logger=SimpleNamespace(log_dir=str(tmp_path)), default_root_dir=str(tmp_path),
        state=SimpleNamespace(fn="validate"),
    )  # fmt: skip
    BenchmarkTable().on_validation_end(trainer, SimpleNamespace(records=records, step=0))
    (path,) = tmp_path.rglob("benchmarks.json")
    return json.loads(path.read_text()), path.with_suffix(".md").read_text()


def test_it_is_scored_by_its_own_score_and_stands_beside_its_own_figures(write_file, configured, tmp_path, capsys):
    write_file("my_benchmarks", DIALS)
    source = f"{{class_path: my_benchmarks.Dials, init_args: {{path: {rows(tmp_path)}}}}}"
    (dials,) = configured(f"--data.val=[{source}]").datamodule.val
    assert [(q.answer, q.accepted) for q in dials.questions] == [("10", ("1",)), ("20", ("2",)), ("30", ("3",))]
    given = [("10", "10", True), ("24", "20", False), (None, "30", False)]
    records = [
        make_record(q.id, split=q.split, answer=a, truth=t, right=r) for q, (a, t, r) in zip(dials.questions, given)
    ]
    report, written = table(tmp_path, [dials], records)
    figures = report["benchmarks"]["Dials"]
    assert (figures["score"], figures["value"], figures["parts"]) == ("Dials", 2 / 3, {"exact": 1 / 3})
    lines = written.splitlines()
    assert "| GPT-4o (published) | 73.9 | 45.2 |  |  |  | 31.5 |" in lines
    assert "| this run |  |  |  |  |  | 66.7 |" in lines
    assert lines[-1] == "Published figures: arXiv 2507.05920, arXiv 0000.00000."
    assert "Dials (3): exact 33.3%" in capsys.readouterr().out
    assert report["published"]["rows"]["GPT-4o"] == {"V*": 73.9, "MME-RW-Lite": 45.2, "Dials": 31.5}


def test_a_source_that_is_no_benchmark_has_an_accuracy(write_file, configured, tmp_path):
    write_file("my_sources", PLAIN)
    (one,) = configured("--data.val=[my_sources.One]").datamodule.val
    report, _ = table(tmp_path, [one], [make_record("one", split="one", right=True)])
    assert report["benchmarks"]["one"]["score"] == "accuracy" and report["benchmarks"]["one"]["value"] == 1


def test_a_variant_has_not_the_figures_of_the_benchmark_that_it_comes_from():
    class Mine(VStar):
        title = "V*, mine"

    run = {"mine": {"V*, mine": 50.0}}
    assert as_markdown(run, sources=[Mine]) == as_markdown(run)
    assert cited([Mine]) == cited()
