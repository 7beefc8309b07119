"""The page: for each question the picture with every rollout's box, the crops, answers and rewards.

One HTML file, without scripts or anything from outside.
"""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

from PIL import Image

from mgpo.boxes import REASONS
from mgpo.types import Trajectory

SIDE = 360  # pixels of a picture's longer side on the page
CROP = 72
STYLE = """
:root { color-scheme: light dark; --line: #8884; --good: #16803c; --bad: #c0262d; }
@media (prefers-color-scheme: dark) { :root { --good: #4ade80; --bad: #f87171; } }
body { font: 15px/1.45 system-ui, sans-serif; margin: 1.5rem auto; max-width: 1100px; padding: 0 1rem; }
article { border-top: 1px solid var(--line); padding: 1rem 0; }
.columns { display: flex; flex-wrap: wrap; gap: 1.5rem; }
.column { flex: 1 1 300px; min-width: 0; }
svg.scene { max-width: 100%; height: auto; display: block; }
.crops { display: flex; flex-wrap: wrap; gap: .4rem; margin-top: .5rem; }
figure { margin: 0; width: 76px; font-size: 11px; line-height: 1.25; overflow-wrap: anywhere; }
figure img, figure .none { width: 72px; height: 72px; object-fit: contain; box-sizing: border-box; }
figure img, figure .none { border: 2px solid var(--line); }
figure .none { display: grid; place-items: center; color: var(--bad); }
.right { color: var(--good); } .wrong { color: var(--bad); }
h2 { font-size: 1rem; margin: 0 0 .5rem; } h3 { font-size: .85rem; margin: 0 0 .3rem; font-weight: 600; }
"""


def write_page(path: Path, columns: Mapping[str, Sequence[Trajectory]]) -> None:
    """Write one page; `columns` maps a heading (such as "step 0") to the rollouts of the same questions."""
    groups = {name: _by_question(trajectories) for name, trajectories in columns.items()}
    identifiers = list(dict.fromkeys(key for part in groups.values() for key in part))
    body = "".join(_article([(name, part[key]) for name, part in groups.items() if key in part]) for key in identifiers)
    path.write_text(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>Where the model looks</title><style>{STYLE}</style><h1>Where the model looks</h1>"
        "<p>Each frame is one rollout's first box: green where the answer was right, red where it was wrong, dashed "
        "where the box could not be used. Below are the parts that were cut from the original, with the answers.</p>"
        f"{body}</html>"
    )


def _by_question(trajectories: Sequence[Trajectory]) -> dict[str, list[Trajectory]]:
    return {key: list(part) for key, part in groupby(trajectories, lambda t: t.question.id)}


def _article(columns: list[tuple[str, list[Trajectory]]]) -> str:
    question = columns[0][1][0].question
    text = html.escape(" ".join([question.text, *question.choices]))
    drawn = "".join(f"<div class=column><h3>{html.escape(name)}</h3>{_column(group)}</div>" for name, group in columns)
    return (
        f"<article><h2>{text} <small>answer: {html.escape(question.answer)}</small></h2>"
        f"<div class=columns>{drawn}</div></article>"
    )


def _column(group: list[Trajectory]) -> str:
    valid = sum(t.finding is not None and t.finding.box is not None for t in group)
    right = sum(t.right for t in group)
    crops = "".join(_crop(t) for t in group)
    return f"{_scene(group)}<p>{right} of {len(group)} right, {valid} valid boxes</p><div class=crops>{crops}</div>"


def _scene(group: list[Trajectory]) -> str:
    """The original, shrunk, with every box that was named."""
    original, view = group[0].image, group[0].views[0]
    scale = SIDE / max(original.size)
    width, height = (max(1, round(side * scale)) for side in original.size)
    boxes = []
    for trajectory in group:
        finding = trajectory.finding
        if finding is None or finding.candidate is None:
            continue
        x1, y1, x2, y2 = (min(max(v * scale, -999), 9999) for v in view.to_original(finding.candidate))
        x1, x2, y1, y2 = min(x1, x2), max(x1, x2), min(y1, y2), max(y1, y2)
        colour = "var(--good)" if trajectory.right else "var(--bad)"
        dash = "" if finding.box else " stroke-dasharray='4 3'"
        boxes.append(
            f"<rect x='{x1:.1f}' y='{y1:.1f}' width='{x2 - x1:.1f}' height='{y2 - y1:.1f}' fill=none "
            f"stroke='{colour}' stroke-width=2{dash}><title>{html.escape(_caption(trajectory))}</title></rect>"
        )
    source = _encode(original, (width, height))
    return (
        f"<svg class=scene viewBox='0 0 {width} {height}' width={width} height={height} role=img "
        f"aria-label='the picture with {len(boxes)} boxes'><image href='{source}' width={width} height={height} />"
        f"{''.join(boxes)}</svg>"
    )


def _crop(trajectory: Trajectory) -> str:
    mark = "right" if trajectory.right else "wrong"
    caption = html.escape(_caption(trajectory))
    if not trajectory.crops:
        return f"<figure><div class=none>no crop</div><figcaption class={mark}>{caption}</figcaption></figure>"
    cut = trajectory.image.crop(trajectory.crops[-1].region)
    scale = CROP * 2 / max(cut.size)
    source = _encode(cut, (max(1, round(cut.width * scale)), max(1, round(cut.height * scale))))
    image = f"<img src='{source}' alt='the part that was cut out'>"
    return f"<figure>{image}<figcaption class={mark}>{caption}</figcaption></figure>"


def _caption(trajectory: Trajectory) -> str:
    answer = trajectory.answer if trajectory.answer is not None else "no answer"
    reason = trajectory.finding.reason if trajectory.finding else None
    return answer[:80] + (f" ({REASONS[reason]})" if reason else "")


def _encode(image: Image.Image, size: tuple[int, int]) -> str:
    buffer = io.BytesIO()
    image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0).save(buffer, "WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
