"""Rows, columns, splits, options and hubs that can't be used: one sentence that says which, and what there is."""

import base64
import io

import datasets
import pytest

from mgpo.data.base import DataError
from mgpo.data.batches import Decoded
from mgpo.data.benchmarks import (
    FSC147,
    POPE,
    HRBench8K,
    MMERealWorld,
    VStar,
)
from mgpo.data.option_columns import lettered, split_choices
from tests.conftest import noise_image
from tests.helpers.published import (
    hrbench_rows,
    mme_rows,
    same,
    snapshot,
    vstar_rows,
    with_images,
    write_jsonl,
)


@pytest.fixture(scope="module")
def vstar(tmp_path_factory):
    return snapshot(tmp_path_factory.mktemp("vstar"), with_images(vstar_rows()), "test")


def test_rows_that_cannot_be_used_are_named(tmp_path):
    rows = vstar_rows(10)
    rows[1]["image"]["bytes"] = None
    rows[2]["text"] = "No choices here"
    rows[3]["label"] = "C"  # of two
    rows[4]["image"] = {"bytes": None, "path": "missing.png"}
    rows[5]["category"] = " "
    rows[6]["image"]["bytes"] = b"no image" * 1000
    source = VStar(str(snapshot(tmp_path / "v", datasets.Dataset.from_list(rows), "test")))
    assert len(source) == 5
    said = source.complaint()
    for words in (
        "5 rows are left out", "row 2, column image: it is empty", "row 3, no choices",
        "row 4, the answer 'C' is none of the 2 choices", "row 5, column image:", "missing.png: there is no such file",
        "row 6, column category: it is empty",
    ):  # fmt: skip
        assert words in said
    broken = [s for s in (Decoded(source)[i] for i in range(5)) if s.image is None]
    assert len(broken) == 1 and "row 7, column image: this is not an image" in broken[0].why


def test_bad_base64_costs_its_row(tmp_path):
    rows = mme_rows()
    rows[0]["bytes"] = "!" * 9000
    rows[1]["bytes"] = "data:image/png;base64," + rows[1]["bytes"]
    rows[2]["bytes"] = "ftp://127.0.0.1/0.png"
    rows[3]["multi-choice options"] = ["(A) x", "(C) y"]
    source = MMERealWorld(path=str(write_jsonl(tmp_path / "t.jsonl", rows)))
    assert "row 3, column bytes: 'ftp://127.0.0.1/0.png' is no http or https address" in source.complaint()
    assert 'row 4, column multi-choice options: a list "(A) …", "(B) …" is needed' in source.complaint()
    assert "neither base64 text nor the name of a file" in Decoded(source)[0].why
    assert same(source[1], 1)
    streamed = MMERealWorld(path=str(tmp_path / "t.jsonl"), streaming=True, cache=str(tmp_path / "cache"))
    assert "row 1, column bytes: this is neither base64" in streamed.complaint()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"hub_split": "validation"}, r'Unknown split "validation". Should be one of \[\'test\'\]'),
        ({"config": "large"}, r"'large' not found. Available: \['default'\]"),
        ({"path": "nowhere"}, "nowhere: there is no such file"),
    ],
)
def test_wrong_names_are_told_which_there_are(vstar, options, words):
    with pytest.raises(DataError, match=words):
        VStar(**{"path": str(vstar), **options})


def test_wrong_columns_are_told_which_there_are(vstar, tmp_path):
    with pytest.raises(DataError, match="column 'question' is missing; the file has image, text, label"):
        POPE(str(vstar))
    table = datasets.Dataset.from_list([{**row, "image": 3} for row in vstar_rows()])
    table.to_parquet(str(tmp_path / "t.parquet"))
    with pytest.raises(DataError, match="images are needed, not int64"):
        VStar(str(tmp_path / "t.parquet"))
    datasets.DatasetDict({"test": table}).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(DataError, match="there is no split 'train'; there are test"):
        VStar(str(tmp_path / "saved"), hub_split="train")
    with pytest.raises(DataError, match=r"name a local copy in `path`, or a repository in `hub`"):
        FSC147()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (datasets.exceptions.DatasetNotFoundError("Dataset 'x' is a gated dataset on the Hub."), "is gated: ask"),
        (datasets.exceptions.DatasetNotFoundError("Dataset 'x' doesn't exist"), "no such repository"),
        (ConnectionError("Couldn't reach"), "hub can't be reached; download the repository"),
        (ValueError("Unknown split \"test\". Should be one of ['train']."), r"one of \['train'\]"),
    ],
)
def test_the_hub_says_no(monkeypatch, error, words):
    """What `load_dataset` raises for each, without a network."""

    def load_dataset(*args, **kwargs):
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(DataError, match=words) as caught:
        VStar()
    assert "lmms-lab-encoder/vstar-bench" in str(caught.value) and "\n" not in str(caught.value)


def test_the_hub_is_asked_for_the_published_names(monkeypatch, tmp_path):
    asked = []

    def load_dataset(name, config, split, streaming, **how):
        asked.append((name, config, split, streaming))
        rows = with_images(vstar_rows()) if "vstar" in name else datasets.Dataset.from_list(hrbench_rows())
        return rows.to_iterable_dataset() if streaming else rows

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert len(VStar(streaming=True, cache=str(tmp_path), limit=4)) == 4
    assert len(list(tmp_path.iterdir())) == 4
    assert same(HRBench8K()[7], 1)
    assert asked == [
        ("lmms-lab-encoder/vstar-bench", None, "test", True),
        ("DreamMr/HR-Bench", "hrbench_version_split", "hrbench_8k", False),
    ]


@pytest.mark.parametrize(
    ("text", "question", "choices"),
    [
        ("Which? (A) one (B) two", "Which?", ("one", "two")),
        ("Is (A) or (B) larger?\n(A) the first (left)\n(B) the second\nAnswer.", "Is (A) or (B) larger?",
         ("the first (left)", "the second")),
        ("这是什么？（A） 红 （B） 蓝", "这是什么？", ("红", "蓝")),
    ],
)  # fmt: skip
def test_choices_behind_a_question(text, question, choices):
    assert split_choices(text) == (question, choices)


@pytest.mark.parametrize("value", [None, [], "[1, 2]", "(A) x", "[" * 5000, ["(A) x", "(A) y"], ["(B) x", "(C) y"]])
def test_lists_that_are_no_choices(value):
    with pytest.raises(DataError):
        lettered("options", value)


def tiny_png(length):
    """Base64 of an image file, as long as that and without a full stop: it might be a name."""
    buffer = io.BytesIO()
    noise_image(4, 4).save(buffer, "PNG")
    data = buffer.getvalue()
    return base64.b64encode(data + bytes(length * 3 // 4 - len(data))).decode()


@pytest.mark.parametrize("streaming", [False, True])
def test_short_base64_and_names_that_no_file_has_cost_at_most_their_row(tmp_path, streaming):
    cells = [tiny_png(256), tiny_png(400), tiny_png(4096), "a\0b.png", "a" * 300 + ".png", "b" * 3000, "\0"]
    rows = [row | {"bytes": cell} for row, cell in zip(mme_rows(), [*cells, *[tiny_png(256)] * 2])]
    path = write_jsonl(tmp_path / "t.jsonl", rows)
    source = MMERealWorld(path=str(path), streaming=streaming, cache=str(tmp_path / "cache"))
    shown = [sample.image for sample in (Decoded(source)[i] for i in range(len(source)))]
    assert [image.size for image in shown if image is not None] == [(4, 4)] * 5
    assert "row 4, column bytes:" in source.complaint() and "row 5, column bytes:" in source.complaint()


@pytest.mark.parametrize("kind", ["large_string", "large_binary"])
def test_large_columns_hold_images_too(tmp_path, kind):
    cells = [tiny_png(8000) if kind == "large_string" else base64.b64decode(tiny_png(8000))] * 9
    table = datasets.Dataset.from_list([{k: v for k, v in row.items() if k != "bytes"} for row in mme_rows()])
    table = table.add_column("bytes", cells, feature=datasets.Value(kind))
    table.to_parquet(str(tmp_path / "t.parquet"))
    source = MMERealWorld(path=str(tmp_path / "t.parquet"))
    assert [source[i].picture.load().size for i in range(9)] == [(4, 4)] * 9
