"""Small tables in the columns of the published benchmarks."""

import base64
import hashlib
import io
import json
from pathlib import Path

import datasets

from tests.conftest import noise_image

SIZE = (80, 60)  # large enough that its PNG is longer than a path


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    noise_image(*SIZE, seed).save(buffer, "PNG")
    return buffer.getvalue()


def base64_png(seed: int) -> str:
    return base64.b64encode(png(seed)).decode()


def vstar_rows(n: int = 8) -> list[dict]:
    return [
        {
            "image": {"bytes": png(i), "path": None},
            "text": f"What is the colour of thing {i}?\n(A) red\n(B) light blue\n(C) black\n(D) white\n"
            "Answer with the option's letter from the given choices directly."
            if i % 2 == 0
            else f"Is thing {i} on the left or right side of the lamp?\n(A) left\n(B) right\n"
            "Answer with the option's letter from the given choices directly.",
            "label": "ABCD"[i // 2 % 4] if i % 2 == 0 else "AB"[i // 2 % 2],
            "category": "relative_position" if i % 2 else "direct_attributes",
            "question_id": str(i),
        }
        for i in range(n)
    ]


KINDS = (
    "Perception/OCR with Complex Context", "Perception/Remote Sensing", "Perception/Diagram and Table",
    "Perception/Monitoring", "Perception/Autonomous_Driving", "Reasoning/OCR with Complex Context",
    "Reasoning/Diagram and Table", "Reasoning/Monitoring", "Reasoning/Autonomous_Driving",
)  # fmt: skip


def mme_rows(n: int = 9) -> list[dict]:
    return [
        {
            "index": 100 + i,
            "bytes": base64_png(i),
            "path": f"{i}.jpg",
            "question": "What is the number on the sign?" if i % 3 else f"What does sign {i} say?",
            "multi-choice options": [
                f"(A) {i}",
                "(B) 12.5 (left lane)",
                "(C)forty",
                "(D) A. Smith",
                "(E) The image does not feature the sign.",
            ],
            "answer": "ABCDE"[i % 5],
            "category": KINDS[i % len(KINDS)],
            "l2-category": "license",
        }
        for i in range(n)
    ]  # fmt: skip


def hrbench_rows(n: int = 8) -> list[dict]:
    options = ["10", "None", "1e5", "007"]
    return [
        {
            "index": i,
            "question": f"What is the number on vehicle {i // 4}?",
            "answer": "ABCD"[i % 4],
            "category": "cross" if i // 4 % 2 else "single",
            **dict(zip("ABCD", options[-(i % 4) :] + options[: -(i % 4)] if i % 4 else options)),
            "cycle_category": str(i % 4),
            "image": base64_png(i // 4),
        }
        for i in range(n)
    ]


def pope_rows(n: int = 9) -> list[dict]:
    return [
        {
            "id": str(i),
            "question_id": str(i // 3 + 1),
            "question": f"Is there a thing {i} in the image?",
            "answer": "yes" if i % 2 else "no",
            "image_source": f"COCO_val2014_{i:012d}",
            "image": {"bytes": png(i), "path": None},
            "category": ("random", "popular", "adversarial")[i % 3],
        }
        for i in range(n)
    ]


def pixmo_rows(address: str, n: int = 8) -> list[dict]:
    return [
        {
            "image_url": f"{address}/{i}.png",
            "image_sha256": hashlib.sha256(png(i)).hexdigest(),
            "count": i,
            "label": "cars",
            "points": {"x": [1.0] * i, "y": [2.0] * i},
        }
        for i in range(n)
    ]


def fsc147_folder(folder: Path, n: int = 8) -> Path:
    (folder / "images_384_VarV2").mkdir(parents=True)
    names = [f"{i}.jpg" for i in range(n)]
    for i, name in enumerate(names):
        noise_image(*SIZE, i).save(folder / "images_384_VarV2" / name)
    boxes = [[[0, 0], [0, 5], [5, 5], [5, 0]]]
    points = {n: {"points": [[1.0, 2.0]] * (i + 2), "box_examples_coordinates": boxes} for i, n in enumerate(names)}
    (folder / "annotation_FSC147_384.json").write_text(json.dumps(points))
    splits = {"train": [], "val": [], "test": names}
    (folder / "Train_Test_Val_FSC_147.json").write_text(json.dumps(splits))
    (folder / "ImageClasses_FSC147.txt").write_text("".join(f"{name}\tsea shells\n" for name in names))
    return folder


def with_images(rows: list[dict], column: str = "image") -> datasets.Dataset:
    return datasets.Dataset.from_list(rows).cast_column(column, datasets.Image())


def snapshot(folder: Path, table: datasets.Dataset, split: str, config: str = "default") -> Path:
    """A downloaded repository: a card that names configuration and split, and the rows as Parquet."""
    (folder / "data").mkdir(parents=True)
    table.to_parquet(str(folder / "data" / f"{split}-00000-of-00001.parquet"))
    card = f"configs:\n- config_name: {config}\n  data_files:\n  - split: {split}\n    path: data/{split}-*\n"
    (folder / "README.md").write_text(f"---\n{card}---\n")
    return folder


def write_jsonl(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_tsv(path: Path, rows: list[dict]) -> Path:
    lines = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    path.write_text("".join("\t".join(line) + "\n" for line in lines))
    return path


def same(question, seed):
    """Whether a question's picture is that of the seed, pixel by pixel."""
    return question.picture.load().tobytes() == noise_image(*SIZE, seed).tobytes()
