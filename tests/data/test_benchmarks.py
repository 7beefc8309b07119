"""Benchmarks in the columns in which they are published, in every form in which their rows and images come."""

import pickle

import datasets
import pytest
import requests

from mgpo.data.base import DataError
from mgpo.data.batches import Decoded
from mgpo.data.benchmarks import (
    FSC147,
    POPE,
    HRBench4K,
    HRBench8K,
    MMERealWorld,
    MMERealWorldLite,
    MultipleChoice,
    PixmoCount,
    VStar,
)
from mgpo.data.image_columns import CellPicture
from mgpo.data.tables import AT_ONCE
from mgpo.images.decoding import FilePicture
from tests.conftest import noise_image
from tests.helpers.published import (
    SIZE,
    fsc147_folder,
    hrbench_rows,
    mme_rows,
    pixmo_rows,
    png,
    pope_rows,
    same,
    snapshot,
    vstar_rows,
    with_images,
    write_jsonl,
    write_tsv,
)
from tests.helpers.servers import serving


@pytest.fixture(scope="module")
def vstar(tmp_path_factory):
    return snapshot(tmp_path_factory.mktemp("vstar"), with_images(vstar_rows()), "test")


def test_vstar_takes_its_choices_out_of_the_text(vstar):
    source = VStar(str(vstar))
    assert len(source) == 8
    first, second = source[0], source[1]
    assert (first.text, first.choices) == ("What is the colour of thing 0?", ("red", "light blue", "black", "white"))
    assert second.choices == ("left", "right")
    assert [source[i].answer for i in range(4)] == ["A", "A", "B", "B"]
    assert (second.id, second.category, second.split) == ("vstar-1", "relative_position", "vstar")
    assert all(same(source[i], i) for i in range(8))


def test_images_stay_in_the_table_until_they_are_loaded(vstar):
    picture = pickle.loads(pickle.dumps(VStar(str(vstar))[3].picture))  # as a worker sends it back
    assert isinstance(picture, CellPicture)
    assert picture.load().tobytes() == noise_image(*SIZE, 3).tobytes()
    assert len(pickle.dumps(picture)) < 2 * len(png(3))


def test_the_raw_repository_has_its_images_as_files(tmp_path):
    rows = vstar_rows()
    for i, row in enumerate(rows):
        row["image"] = f"{row['category']}/{i}.png"
        (tmp_path / row["category"]).mkdir(exist_ok=True)
        (tmp_path / row["image"]).write_bytes(png(i))
    source = VStar(str(write_jsonl(tmp_path / "test_questions.jsonl", rows)))
    assert isinstance(source[0].picture, FilePicture)
    assert all(same(source[i], i) for i in range(8))


@pytest.mark.parametrize("streaming", [False, True])
def test_mme_realworld_from_parquet(tmp_path, streaming):
    path = tmp_path / "train.parquet"
    datasets.Dataset.from_list(mme_rows()).to_parquet(str(path))
    source = MMERealWorld(path=str(path), streaming=streaming, cache=str(tmp_path / "cache"))
    assert len(source) == 9
    assert source[2].choices[1:4] == ("12.5 (left lane)", "forty", "A. Smith")
    assert len(source[4].choices) == 5 and source[4].answer == "E"
    assert source[1].category == "Perception/Remote Sensing" and source[1].part == "license"
    assert all(same(source[i], i) for i in range(9))
    assert len(list(tmp_path.glob("cache/*"))) == (9 if streaming else 0)


def test_mme_realworld_as_the_other_harness_keeps_it(tmp_path):
    rows = [{**row, "image": row.pop("bytes")} for row in mme_rows()]
    source = MMERealWorldLite(path=str(write_tsv(tmp_path / "lite.tsv", rows)))
    assert source.title == "MME-RW-Lite"
    assert source[3].choices == ("3", "12.5 (left lane)", "forty", "A. Smith", "The image does not feature the sign.")
    assert same(source[3], 3)


@pytest.mark.parametrize("same_index", [True, False])
def test_the_papers_training_set_is_mme_realworld_without_lite(tmp_path, same_index):
    """Lite is known by its indices or, were they others, by text, choices and image."""
    rows = mme_rows(20)
    lite = [{**row, "index": row["index"] if same_index else 7000 + i} for i, row in enumerate(rows[::4])]
    full, part = (write_jsonl(tmp_path / f"{name}.jsonl", r) for name, r in (("full", rows), ("lite", lite)))
    source = MMERealWorld(path=str(full), split="train", without=MMERealWorldLite(path=str(part)))
    assert [q.id for q in source.questions] == [f"train-{100 + i}" for i in range(20) if i % 4]
    assert len(source) == 15
    assert source.complaint() is None


def test_a_question_on_the_same_image_is_not_lites(tmp_path):
    rows = mme_rows(9)
    other = {**rows[1], "question": "Another one?", "index": 5000}
    full = write_jsonl(tmp_path / "full.jsonl", [*rows, other])
    lite = write_jsonl(tmp_path / "lite.jsonl", [rows[1], {**rows[2], "question": "A stranger?"}])
    source = MMERealWorld(path=str(full), without=MMERealWorldLite(path=str(lite)))
    assert len(source) == 9
    assert source[8].text == "Another one?"
    assert "1 of the 2 questions" in source.complaint()


@pytest.mark.parametrize("source_class", [HRBench4K, HRBench8K])
def test_hrbench_keeps_its_cycles(tmp_path, source_class):
    table = datasets.Dataset.from_list(hrbench_rows())
    folder = snapshot(tmp_path / "repository", table, source_class.HUB_SPLIT, "hrbench_version_split")
    source = source_class(str(folder))
    assert [source[i].part for i in range(8)] == list("01230123")
    assert {source[i].category for i in range(8)} == {"single", "cross"}
    assert [source[i].choices[ord(source[i].answer) - 65] for i in range(8)] == ["10"] * 8
    assert same(source[6], 1)


def test_a_tsv_has_texts_only(tmp_path):
    source = HRBench4K(str(write_tsv(tmp_path / "hr_bench_4k.tsv", hrbench_rows())))
    assert source[0].choices == ("10", "None", "1e5", "007")
    assert len(source) == 8 and same(source[5], 1)


@pytest.mark.parametrize("kind", ["saved", "saved with splits", "streamed"])
def test_pope(tmp_path, kind):
    table = with_images(pope_rows())
    folder = tmp_path / "pope"
    if kind == "streamed":
        snapshot(folder, table, "test")
    else:
        (table if kind == "saved" else datasets.DatasetDict({"test": table})).save_to_disk(str(folder))
    source = POPE(str(folder), streaming=kind == "streamed", cache=str(tmp_path / "cache"))
    assert [source[i].answer for i in range(3)] == ["no", "yes", "no"]
    assert source[3].id == "pope-random-2" and source[3].category == "random"
    assert len({source[i].id for i in range(9)}) == 9
    assert all(same(source[i], i) for i in range(9))


@pytest.fixture(scope="module")
def server():
    """Pictures by number; 404 for 7.png, and for 6.png another picture than was annotated."""

    def answer(name, port):
        body = png(99 if name == "6.png" else int(name.split(".")[0]))
        return (404 if name == "7.png" else 200), {}, body

    with serving(answer) as served:
        yield served


@pytest.mark.parametrize("streaming", [False, True])
def test_pixmo_count_fetches_and_checks_its_pictures(tmp_path, server, streaming):
    address, asked = server
    path = str(write_jsonl(tmp_path / "test.jsonl", pixmo_rows(address)))
    cache = str(tmp_path / "cache")
    source = PixmoCount(path, cache=cache, streaming=streaming, private=True)
    asked.clear()
    samples = [Decoded(source)[i] for i in range(8)]
    assert (samples[3].question.text, samples[3].question.answer) == (
        "How many cars are there in the picture? Answer with a number.", "3",
    )  # fmt: skip
    assert [sample.image is not None for sample in samples] == [True] * 6 + [False] * 2
    assert "no longer the one that was annotated" in samples[6].why
    assert "the server answers 404" in samples[7].why
    before = len(asked)
    assert same(PixmoCount(path, cache=cache, private=True)[2], 2)
    assert len(asked) == before  # it was kept


def test_fsc147_from_the_published_folder_and_from_a_table(tmp_path):
    folder = fsc147_folder(tmp_path / "FSC147_384_V2")
    source = FSC147(str(folder))
    assert [source[i].answer for i in range(8)] == [str(i + 2) for i in range(8)]
    assert "sea shells" in source[0].text
    rows = [{"image": f"images_384_VarV2/{i}.jpg", "count": i, "label": "birds"} for i in range(8)]
    table = FSC147(str(write_jsonl(folder / "rows.jsonl", rows)))
    assert len(table) == 8 and table[0].picture.load().size == SIZE
    with pytest.raises(DataError, match="no split 'dev'; there are train, val, test"):
        FSC147(str(folder), hub_split="dev")
    (folder / "Train_Test_Val_FSC_147.json").write_text('{"test": ["none.jpg"]}')
    with pytest.raises(DataError, match="do not fit together"):
        FSC147(str(folder))


@pytest.mark.parametrize(
    ("columns", "cells"),
    [
        ({"choice_columns": ["options"]}, {"options": ["red", "blue"]}),
        ({"choice_columns": ["options"]}, {"options": ["(A) red", "(B) blue"]}),
        ({"choice_columns": ["options"]}, {"options": "['(A) red', '(B) blue']"}),
        ({"choice_columns": ["A", "B", "C"]}, {"A": "red", "B": "blue", "C": None}),
        ({"choice_columns": []}, {"problem": "Which colour? (A) red (B) blue"}),
    ],
)
def test_any_multiple_choice(tmp_path, columns, cells):
    rows = [
        {"picture": f"{i}.png", "problem": "Which colour?", "truth": ["B", "blue"][i % 2], "kind": "colour", **cells}
        for i in range(8)
    ]
    for i in range(8):
        (tmp_path / f"{i}.png").write_bytes(png(i))
    source = MultipleChoice(
        "problem", "truth", image_column="picture", category_column="kind",
        path=str(write_jsonl(tmp_path / "rows.jsonl", rows)), split="mine", limit=7, **columns,
    )  # fmt: skip
    assert len(source) == 7
    for i in range(7):
        assert (source[i].text, source[i].choices, source[i].answer) == ("Which colour?", ("red", "blue"), "B")
    assert source[0].category == "colour" and source[0].split == "mine"


def test_a_table_may_be_larger_than_memory(tmp_path):
    """Rows that come one at a time are not held back until there are a thousand; questions hold no images."""
    rows = [{**row, "bytes": row["bytes"] + " " * 200_000} for row in mme_rows(20)]
    path = tmp_path / "t.parquet"
    datasets.Dataset.from_list(rows).to_parquet(str(path), batch_size=1)
    source = MMERealWorld(path=str(path))
    assert max(batch.num_rows for batch in source.cells.data.to_batches()) <= AT_ONCE
    assert len(pickle.dumps(source.questions)) < path.stat().st_size
    assert same(source[11], 11)


def test_requests_follows_no_other_scheme():
    """`web` relies on it: an address that leads to another scheme is not followed."""
    assert set(requests.Session().adapters) == {"https://", "http://"}
