"""Columns that hold places in the image are refused, whatever they are called and however they are written."""

import csv
import json

import datasets
import pytest

from mgpo.data.base import DataError
from mgpo.data.files import Files
from tests.conftest import noise_image
from tests.helpers.published import write_jsonl

ROW = {"image": "a.png", "question": "What?", "answer": "7"}
BOX = [10, 20, 110, 120]
PLACES = {
    "boxes_xyxy": [BOX], "bounding_box": BOX, "gt_box": BOX, "xyxy": BOX, "polygon": [[10, 20], [30, 40], [50, 60]],
    "segmentation": [[10.0, 20.0, 30.0, 40.0, 50.0, 60.0]], "objects": [{"name": "sign", "bbox": BOX}],
    "meta": {"bbox": BOX}, "BBox": BOX, "targetBoxes": [BOX], "bbox-2d": BOX, "keypoints": [[1, 2]], "evidence": BOX,
    "regions": [BOX, BOX], "gt": [BOX], "extra": {"where": {"at": BOX}}, "location": {"x": 1, "y": 2, "w": 3, "h": 4},
    "area": {"xmin": 0, "ymin": 0, "xmax": 4, "ymax": 5}, "seg_mask": "mask.png", "counts_rle": "PYY2",
    "written": "[10, 20, 110, 120]", "said": '{"objects": [{"bbox_2d": [10, 20, 110, 120]}]}',
    "plain": "10, 20, 110, 120", "marked": "<box>(10,20),(110,120)</box>", "norm": [0.1, 0.2, 0.3, 0.4],
    "tokens": "the sign <|box_start|>(10,20)<|box_end|>", "points_text": "(10, 20)", "bbox_note": "x from 10 to 110",
    "annotations": [{"label": "sign", "rect": [1, 2]}], "Bounding Box": "10 20 110 120",
    "objects_2": {"bbox": [BOX], "category": [3]}, "lines": [[[1, 2], [3, 4]], [[5, 6], [7, 8]]],
}  # fmt: skip
OTHER = {
    "source": "web", "width": 640, "image_size": [640, 480], "year": 2024, "tags": ["a", "b"], "box_color": "red",
    "n_boxes": 3, "scores": [0.1, 0.2, 0.7], "embedding": [0.1] * 64, "checkbox": True, "inbox": 4,
    "viewpoint": "left", "date": "2024-01-01", "rationale": "The sign at 3 o'clock, row 2, says 7.",
    "meta": {"license": "cc", "size": [640, 480]}, "objects": ["sign", "bus"], "note": None, "empty": [],
    "conversation": [{"role": "user", "content": "What?"}], "url": "http://x/1,2,3,4", "region_name": "Europe",
    "version": "1.2.3", "location": "Paris", "left": "red", "x": 3, "json": '{"a": [1, 2, 3]}', "turns": [[1, 2]],
    "points_earned": 5,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    noise_image(32, 32).save(tmp_path / "a.png")
    return tmp_path


def check_refused(path, column):
    with pytest.raises(DataError, match=r"answers alone.*drop_columns") as caught:
        Files(str(path))
    assert repr(column) in str(caught.value) and len(str(caught.value)) <= 600
    assert len(Files(str(path), drop_columns=[column])) > 0


@pytest.mark.parametrize("column", PLACES)
def test_places_are_refused_unless_dropped(folder, column):
    """Also where only the last row has one."""
    rows = [{**ROW, "question": f"{i}?"} for i in range(3)]
    check_refused(write_jsonl(folder / "q.jsonl", [*rows, {**ROW, column: PLACES[column]}]), column)


@pytest.mark.parametrize("column", PLACES)
def test_places_are_refused_in_tables(folder, column):
    made = datasets.Dataset.from_list([{**ROW, "question": f"{i}?", column: PLACES[column]} for i in range(2)])
    made.to_parquet(str(folder / "q.parquet"))
    check_refused(folder / "q.parquet", column)
    with (folder / "q.csv").open("w", newline="") as file:
        value = PLACES[column] if isinstance(PLACES[column], str) else json.dumps(PLACES[column])
        csv.writer(file).writerows([[*ROW, column], [*ROW.values(), value]])
    check_refused(folder / "q.csv", column)


@pytest.mark.parametrize(
    "names",
    ["x1 y1 x2 y2", "xmin ymin xmax ymax", "bbox_x bbox_y bbox_w bbox_h", "left top right bottom", "X Y Width Height"],
)
def test_sides_in_columns_of_their_own(folder, names):
    names = names.split()
    path = write_jsonl(folder / "q.jsonl", [{**ROW, **dict(zip(names, BOX))}])
    with pytest.raises(DataError, match="answers alone"):
        Files(str(path))
    assert len(Files(str(path), drop_columns=names)) == 1


def test_other_columns_are_not(folder):
    rows = [{**ROW, **OTHER}, {**ROW, **OTHER, "question": "Another?", "scores": [0.1, 0.2, 0.3, 0.4]}]
    assert len(Files(str(write_jsonl(folder / "q.jsonl", rows)))) == 2
    for column, value in OTHER.items():
        assert len(Files(str(write_jsonl(folder / "q.jsonl", [{**ROW, column: value}])))) == 1, column


@pytest.mark.parametrize("answer", ["10, 20, 110, 120", "[10, 20, 110, 120]", "10 20 110 120"])
def test_an_answer_of_four_numbers_is_an_answer(folder, answer):
    row = {**ROW, "answer": answer, "choices": [answer, "1, 2, 3, 4"], "id": "1 2 3 4", "category": "1 2 3 4"}
    assert Files(str(write_jsonl(folder / "q.jsonl", [row])))[0].answer == "A"
    assert Files(str(write_jsonl(folder / "q.jsonl", [{**row, "choices": None}])))[0].answer == answer


def test_an_image_of_a_mask_is_refused(folder):
    made = datasets.Dataset.from_list([ROW]).add_column("gt_mask", [{"bytes": b"x", "path": None}])
    made.cast_column("gt_mask", datasets.Image()).to_parquet(str(folder / "q.parquet"))
    check_refused(folder / "q.parquet", "gt_mask")


def test_columns_that_are_not_named_are_never_in_a_question(folder):
    row = {**ROW, **OTHER, "bbox": BOX}
    question = Files(str(write_jsonl(folder / "q.jsonl", [row])), drop_columns=["bbox"])[0]
    assert {question.text, question.answer, question.category, question.part} == {"What?", "7", ""}


@pytest.mark.parametrize("column", ["deep", "gt_box"])
@pytest.mark.parametrize("deep", [100, 960])
def test_what_is_nested_without_end_is_refused(folder, column, deep):
    row = json.dumps(ROW)[:-1] + f', "{column}": ' + '[{"a": ' * (deep // 2) + "1" + "}]" * (deep // 2) + "}"
    (folder / "q.jsonl").write_text(row)
    with pytest.raises(DataError, match=f"column {column}: lists or objects are nested more than 64 deep|nested too"):
        Files(str(folder / "q.jsonl"))
