import base64
import io
import json
import os
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mgpo.errors import UserError
from mgpo.gallery.data import TEXT, Gallery, snapshot
from mgpo.gallery.html_page import shorten, size_of, to_json
from mgpo.gallery.page import read_page, write_page
from mgpo.gallery.thumbnails import crop_uris
from mgpo.images.views import View
from tests.conftest import make_question, noise_image
from tests.helpers.gallery_samples import CROP, WHOLE, make_trajectory, plain_trajectory, wandering_gallery

BOX = (30, 30, 60, 60)


def smooth_image(width=1200, height=900) -> Image.Image:
    """A picture without fine noise, which WebP would blur."""
    x, y = np.meshgrid(np.linspace(0, 6, width), np.linspace(0, 5, height))
    bands = [127 + 100 * np.sin(x + 2 * band) * np.cos(y - band) for band in range(3)]
    return Image.fromarray(np.stack(bands, -1).astype(np.uint8))


def decode(uri: str) -> Image.Image:
    kind, data = uri.split(",", 1)
    assert kind == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")


def group_of(image, boxes, question=None):
    question = question or make_question(image)
    return [make_trajectory(question, image, box, "K") for box in boxes]


def distance(a: Image.Image, b: Image.Image) -> float:
    return float(np.abs(np.asarray(a, float) - np.asarray(b, float)).mean())


def test_the_crop_is_the_originals_pixels_and_the_other_is_the_first_views():
    image = smooth_image()
    (trajectory,) = group_of(image, [BOX])
    first, crop = trajectory.views
    sharp, blurred = map(decode, crop_uris(image, first, crop))
    assert sharp.size == crop.size and distance(sharp, crop.pixels(image)) < 3
    assert blurred.size == (30, 30) and distance(blurred, first.pixels(image).crop(BOX)) < 3


def test_a_crop_that_is_shrunk_for_the_page_keeps_its_lead_over_the_first_view():
    image = noise_image(1000, 1000)
    first, crop = View((0, 0, 1000, 1000), (500, 500)), View((100, 100, 548, 324), (448, 224))
    sharp, blurred = map(decode, crop_uris(image, first, crop))
    assert sharp.size == (112, 56) and blurred.size == (56, 28)


def test_a_crop_is_never_larger_than_the_original_has_pixels():
    image = noise_image(300, 300)
    first, crop = View((0, 0, 300, 300), (300, 300)), View((10, 10, 60, 60), (448, 448))
    sharp, blurred = map(decode, crop_uris(image, first, crop))
    assert sharp.size == blurred.size == (50, 50)


@settings(max_examples=50)
@given(st.integers(20, 1500), st.integers(20, 1500), st.tuples(*[st.floats(0, 1)] * 4))
def test_any_region_gives_two_images(width, height, edges):
    image = Image.new("RGB", (width, height))
    first = View.full(image.size, WHOLE)
    (left, right), (top, bottom) = sorted(edges[::2]), sorted(edges[1::2])
    box = (left * first.size[0], top * first.size[1], right * first.size[0], bottom * first.size[1])
    sharp, blurred = map(decode, crop_uris(image, first, first.crop(box, CROP)))
    assert max(*sharp.size, *blurred.size) <= 112 and min(*sharp.size, *blurred.size) >= 1


def test_equal_regions_of_a_question_are_kept_once():
    image = noise_image(600, 400)
    question = make_question(image)
    gallery = Gallery()
    gallery.add(0, group_of(image, [BOX, BOX, (10, 10, 40, 40), None], question), 4)
    gallery.add(5, group_of(image, [BOX] * 4, question), 4)
    (entry,) = gallery.document("", 10**6)["questions"]
    assert sorted(entry["images"]) == sorted(
        {"picture", *(",".join(map(str, r["regions"][-1])) for r in entry["steps"]["0"][:3])}
    )
    assert len(entry["images"]) == 3
    assert max(decode(entry["images"]["picture"]).size) == 360


def test_a_snapshot_says_what_the_records_say():
    image = noise_image(1120, 1120)
    question = make_question(image, answer="K")
    good, bad = make_trajectory(question, image, BOX, "K"), make_trajectory(question, image, (90, 90, 130, 110), None)
    (entry,) = json.loads(json.dumps(snapshot([good, bad], 2)))
    assert (entry["id"], entry["truth"], entry["size"], entry["seen"]) == ("q", "K", [1120, 1120], [112, 112])
    first, second = entry["rollouts"]
    assert first["named"] == [[300, 300, 600, 600], None] and first["regions"] == [[300, 300, 600, 600]]
    assert (first["right"], first["reward"], first["valid_box"], first["reason"]) == (True, 1.0, True, None)
    assert second["named"][0] == [900, 900, 1300, 1100] and second["regions"] == [] and second["zoom"] is None
    assert (second["answer"], second["valid_box"], second["reason"]) == (None, False, "outside")
    assert second["reasons"] == ["outside", None]


def test_parts_of_several_ranks_are_one_gallery():
    image = noise_image(300, 300)
    a, b, c = (group_of(image, [BOX, None], make_question(image, name)) for name in "abc")
    whole, parts = Gallery(), Gallery()
    for step in (0, 7):
        whole.add(step, [*a, *b, *c], 2)
        sent = [json.loads(json.dumps(snapshot(part, 2))) for part in ([*a, *b], c)]
        parts.merge(step, sent)
    assert json.loads(to_json(whole.document("", 10**6))) == json.loads(to_json(parts.document("", 10**6)))
    parts.merge(7, [snapshot(a, 2)])  # a sampler that pads gives a question to two ranks
    assert [len(entry["steps"]["7"]) for entry in parts.document("", 10**6)["questions"]] == [2, 2, 2]


def test_the_budget_holds_and_every_group_keeps_its_first_crop_longest(tmp_path):
    asked = [(make_question(image, f"q{i}"), image, (0.5, 0.5)) for i, image in enumerate([noise_image(500, 500)] * 5)]
    gallery = wandering_gallery(asked, (0, 1, 2), 4)
    path = tmp_path / "page.html"
    write_page(path, gallery, "t")
    full = path.stat().st_size
    assert full < gallery.budget
    gallery.budget = full - 60_000
    write_page(path, gallery, "t")
    assert gallery.budget - 10_000 < path.stat().st_size <= gallery.budget
    kept = [q["images"].keys() for q in read_page(path)["questions"]]
    assert all("picture" in keys for keys in kept)
    places = dict.fromkeys(range(4), 0)
    for entry, keys in zip(read_page(path)["questions"], kept):
        for place, rollout in ((p, r) for group in entry["steps"].values() for p, r in enumerate(group)):
            places[place] += bool(rollout["regions"]) and ",".join(map(str, rollout["regions"][-1])) not in keys
    assert places[0] == 0 < places[3]
    gallery.budget = 1000  # less than the page without any data
    write_page(path, gallery, "t")
    assert all(entry["images"] == {} for entry in read_page(path)["questions"])


def test_texts_are_bounded_and_shrink_before_they_break_the_budget():
    image = noise_image(60, 60)
    question = replace(make_question(image), text="Q" * 5000, choices=("c" * 5000,))
    gallery = Gallery()
    gallery.add(0, [make_trajectory(question, image, None, "a" * 5000, "wörd " * 2000 + "end") for _ in range(8)], 8)
    (entry,) = gallery.document("", 10**6)["questions"]
    texts = [entry["text"], *entry["choices"], *(t for r in entry["steps"]["0"] for t in (r["answer"], *r["replies"]))]
    assert max(map(len, texts)) == TEXT
    assert entry["steps"]["0"][0]["replies"][1].endswith("end")
    assert size_of(gallery.document("", 30_000)) <= 30_000
    assert len(entry["steps"]["0"][0]["replies"][1]) == TEXT  # what was collected is still whole


@given(st.text(), st.integers(1, 50))
def test_shortened_texts_keep_both_ends(text, limit):
    short = shorten(text, limit)
    assert len(short) <= limit and (short == text or "…" in short)
    if len(text) > limit > 3:
        assert short[0] == text[0] and short[-1] == text[-1]


@given(st.text(st.characters() | st.sampled_from("<>&/\u2028\u2029")))
def test_json_that_cannot_leave_its_element(text):
    embedded = to_json({"text": text})
    assert not re.search("[<>&\u2028\u2029]", embedded)
    assert json.loads(embedded)["text"] == text.encode("utf-8", "replace").decode()


def test_what_was_written_is_read_back(tmp_path):
    image = noise_image(200, 200)
    hostile = "</script><script>alert(1)</script> ${title} $data \ud800"
    question = replace(make_question(image, hostile), text=hostile, category=hostile, answer=hostile)
    gallery = Gallery()
    gallery.add(3, [plain_trajectory(question, image, hostile)], 1)
    write_page(tmp_path / "page.html", gallery, hostile)
    read = read_page(tmp_path / "page.html")
    (entry,) = read["questions"]
    assert read["title"] == entry["id"] == entry["text"] == hostile.replace("\ud800", "?")
    assert read["steps"] == [3] and entry["steps"]["3"][0]["right"]
    text = (tmp_path / "page.html").read_text("utf-8")
    assert text.count("<script") == 2 and "alert(1)</script>" not in text


def test_numbers_that_json_has_no_word_for(tmp_path):
    image = noise_image(200, 200)
    trajectory = plain_trajectory(make_question(image), image, "K")
    trajectory.reward = float("nan")
    gallery = Gallery()
    gallery.add(0, [trajectory], 1)
    write_page(tmp_path / "page.html", gallery, "t")
    assert read_page(tmp_path / "page.html")["questions"][0]["steps"]["0"][0]["reward"] is None


def test_a_page_is_whole_or_the_one_before(tmp_path, monkeypatch):
    path, gallery = tmp_path / "page.html", Gallery()
    write_page(path, gallery, "first")

    def no_room(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", no_room)
    with pytest.raises(OSError, match="No space"):
        write_page(path, gallery, "second")
    assert read_page(path)["title"] == "first" and [p.name for p in tmp_path.iterdir()] == ["page.html"]


@pytest.mark.parametrize("text", ["", "<html></html>", None])
def test_what_is_no_page_is_named(tmp_path, text):
    path = tmp_path / "other.html"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=r"other\.html: this is not a gallery page"):
        read_page(path)
