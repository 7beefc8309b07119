"""How many questions a score is over stands where the score stands; and images that are another row's."""

import json
from types import SimpleNamespace

import datasets
import pytest

from mgpo.callbacks.benchmarks import BenchmarkTable
from mgpo.data import Scenes
from mgpo.data.base import DataError
from mgpo.data.benchmarks import HRBench4K, MMERealWorld, MMERealWorldLite, VStar
from mgpo.data.files import Files
from mgpo.images.decoding import BadImage
from tests.evaluation.test_scoring import record
from tests.helpers.published import (
    base64_png,
    hrbench_rows,
    mme_rows,
    same,
    snapshot,
    vstar_rows,
    write_jsonl,
    write_tsv,
)


def shared(rows, column="image"):
    """The first of each four rows has the image, the others name it by its index; one of them comes before it."""
    names = [str(row["index"]) for row in rows]
    rows = [row if i % 4 == 0 else {**row, column: names[i // 4 * 4]} for i, row in enumerate(rows)]
    return [rows[1], rows[0], *rows[2:]]


def write(folder, form, rows):
    if form == "parquet":
        datasets.Dataset.from_list(rows).to_parquet(str(folder / "t.parquet"))
        return str(folder / "t.parquet")
    return str(write_tsv(folder / "t.tsv", rows) if form == "tsv" else write_jsonl(folder / "t.jsonl", rows))


@pytest.mark.parametrize("form", ["tsv", "jsonl", "parquet"])
def test_images_of_another_row_are_followed(tmp_path, form):
    source = HRBench4K(write(tmp_path, form, shared(hrbench_rows())))
    assert len(source) == 8 and source.complaint() is None
    assert [same(q, i // 4) for i, q in enumerate(source.questions)] == [True] * 8


@pytest.mark.parametrize("form", ["tsv", "jsonl"])
def test_a_streamed_table_knows_the_images_that_have_passed(tmp_path, form):
    rows = shared(hrbench_rows())
    source = HRBench4K(write(tmp_path, form, rows), streaming=True, cache=str(tmp_path / "cache"))
    assert len(source) == 7 and all(same(q, (i + 1) // 4) for i, q in enumerate(source.questions))
    assert "row 1, column image: '0' is neither an image, nor the name of one, nor another row's index" in source.bad


def test_numbers_and_names_of_rows(tmp_path):
    rows = [{"image": base64_png(3), "question": "A?", "answer": "7", "id": "first"}]
    rows += [{"image": "first", "question": "B?", "answer": "7"}, {"image": 12, "question": "C?", "answer": "7"}]
    source = Files(str(write_jsonl(tmp_path / "q.jsonl", rows)), columns={"id": "id"})
    assert len(source) == 2 and same(source[1], 3) and "'12'" in source.bad[0]
    rows = [{**row, "index": i} for i, row in enumerate(rows)]
    rows[1]["image"], rows[2]["image"] = 2, 0
    source = Files(str(write_jsonl(tmp_path / "q.jsonl", rows)))
    assert len(source) == 2 and same(source[1], 3) and "'2', which has no picture of its own" in source.bad[0]


def test_an_index_does_not_lead_out_of_the_folder(tmp_path):
    rows = [{"image": "../../x", "question": "A?", "answer": "7", "index": 1}]
    with pytest.raises(DataError, match="leads out of"):
        Files(str(write_jsonl(tmp_path / "q.jsonl", rows)))


def table_of(tmp_path, sources, records):
    callback = BenchmarkTable()
    trainer = SimpleNamespace(
        datamodule=SimpleNamespace(val=sources, test=[]), sanity_checking=False, is_global_zero=True, global_step=0,
        logger=SimpleNamespace(log_dir=str(tmp_path)), default_root_dir=str(tmp_path),
        state=SimpleNamespace(fn="validate"),
    )  # fmt: skip
    callback.on_validation_end(trainer, SimpleNamespace(records=records, step=0))
    (path,) = tmp_path.rglob("benchmarks.json")
    return json.loads(path.read_text()), path.with_suffix(".md").read_text()


def test_a_score_says_over_how_many_questions_it_is(tmp_path, capsys):
    """Rows that are lost when a copy is read, and such as break later, whose records are not there."""
    rows = vstar_rows(10)
    rows[2]["text"] = "No choices here"
    folder = snapshot(tmp_path / "v", datasets.Dataset.from_list(rows), "test")
    rows = write_jsonl(tmp_path / "t.jsonl", mme_rows())
    whole, part = VStar(str(folder)), MMERealWorld(path=str(rows), hub_split="mine")
    records = [record(name=q.id, choices=q.choices, reply="A") for q in whole.questions[:8]]
    records = [*(r.__class__(**{**vars(r), "split": "vstar"}) for r in records)]
    records += [r.__class__(**{**vars(r), "split": "mme_realworld"}) for r in [record(reply="A")] * 9]
    report, written = table_of(tmp_path, [whole, part], records)
    assert (report["benchmarks"]["V*"]["n"], report["benchmarks"]["V*"]["of"]) == (8, 191)
    ours = [line for line in written.splitlines() if line.startswith("| this run")]
    assert len(ours) == 3 and all("| 100.0 (8 of 191) |" in line and "| 100.0 |" in line for line in ours)
    said = capsys.readouterr().out
    assert "(8 of 191)" in said and "V* (8 of 191):" in said and "MME-RW (9):" in said
    assert report["counts"]["this run"] == {"V*": "8 of 191"}


def test_sources_of_one_split_without_titles_are_counted_together(tmp_path):
    sources = [Scenes(3, split="val"), Scenes(5, split="val", seed=1)]
    records = [record(reply="A").__class__(**{**vars(record(reply="A")), "split": "val"})] * 7
    report, written = table_of(tmp_path, sources, records)
    assert (report["benchmarks"]["val"]["n"], report["benchmarks"]["val"]["of"]) == (7, 8)
    assert "(7 of 8)" in written


def test_a_whole_is_what_is_published_or_what_is_asked_for(tmp_path):
    rows = mme_rows(20)
    full, part = (write_jsonl(tmp_path / f"{name}.jsonl", r) for name, r in (("full", rows), ("lite", rows[::4])))
    lite = MMERealWorldLite(path=str(part))
    assert (lite.total, MMERealWorld(path=str(full)).total) == (1919, 23_609)
    assert MMERealWorld(path=str(full), without=lite).total == 23_609 - 5
    assert HRBench4K(write(tmp_path, "tsv", hrbench_rows()), hub_split="mine").total == 8
    own = [{"image": base64_png(0), "question": "?", "answer": answer} for answer in ("7", " ")]
    assert Files(str(write_jsonl(tmp_path / "own.jsonl", own))).total == 2


def test_a_short_text_that_is_no_image_is_found_before_it_is_asked_for(tmp_path):
    rows = mme_rows()
    rows[2]["bytes"] = "4711"
    source = MMERealWorld(path=str(write_jsonl(tmp_path / "t.jsonl", rows)))
    assert len(source) == 8 and "row 3, column bytes: '4711' is neither an image" in source.complaint()
    with pytest.raises(BadImage):
        source[0].picture.__class__(str(tmp_path / "none"), 0, 5, "bytes", "it").load()
