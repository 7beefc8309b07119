"""What is shown in place of a crop, pixel for pixel."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from PIL import Image

from mgpo.evaluation.swaps import enlarged, noise, part, same_region_of
from mgpo.images.views import View
from mgpo.rollout.crops import CropCache
from mgpo.types import Message, Trajectory
from tests.conftest import make_question, noise_image


def test_what_the_first_view_has_of_a_part_is_enlarged_and_no_more():
    image, first = noise_image(448, 448, 1), View((0, 0, 448, 448), (112, 112))
    view = View((100, 200, 300, 300), (112, 56))
    seen = enlarged(image, view, first)
    assert seen.size == view.size
    expected = first.pixels(image).resize(view.size, 3, box=(25, 50, 75, 75))
    assert seen.tobytes() == expected.tobytes() != view.pixels(image).tobytes()
    assert View((100, 200, 300, 300), (56, 112), 1).seen_in(first, image).size == (56, 112)


def test_noise_is_the_same_every_time_and_another_picture_is_cut_where_this_one_was():
    image, other = noise_image(448, 448, 1), noise_image(224, 896, 2)
    first, view = View((0, 0, 448, 448), (112, 112)), View((112, 0, 224, 224), (56, 112))
    assert noise(image, view, first).tobytes() == noise(image, view, first).tobytes()
    assert noise(image, view, first).size == view.size
    shown = same_region_of(other)(image, view, first)
    assert shown.tobytes() == View((56, 0, 112, 448), (56, 112)).pixels(other).tobytes()


def test_another_part_is_cut_from_the_picture_that_it_was_named_in():
    image, other = noise_image(448, 448, 1), noise_image(448, 448, 2)
    first, view = View((0, 0, 448, 448), (112, 112)), View((112, 0, 224, 224), (56, 112))
    named = View((0, 0, 56, 56), (56, 56), picture=1)
    assert part(named, other)(image, view, first).tobytes() == named.pixels(other).tobytes()


def test_a_crop_of_all_there_is_is_swapped_and_the_first_view_is_not(policy):
    image, first = noise_image(448, 448, 1), View((0, 0, 448, 448), (112, 112))
    crop, trajectory = replace(first), Trajectory(make_question(image), image, views=[first])
    assert crop == first
    with ThreadPoolExecutor(1) as threads:
        shown = CropCache(policy, trajectory, lambda image, view, first: Image.new("RGB", view.size), threads)
        shown.begin([Message("user", (first, crop))])
        whole, swapped = shown(first).patches, shown(crop).patches
    assert whole.equal(policy.pixels(first.pixels(image)).patches) and not whole.equal(swapped)
    assert swapped.equal(policy.pixels(Image.new("RGB", (112, 112))).patches)
