import math

from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from mgpo.images.views import Frame, View
from mgpo.policy.families.qwen_pixels import PixelBudget

sizes = st.tuples(st.integers(30, 5000), st.integers(30, 5000))
fractions = st.tuples(st.floats(0, 0.9), st.floats(0, 0.9), st.floats(0.05, 1), st.floats(0.05, 1))
resize = PixelBudget(28 * 28, 112 * 112, 28)
PUBLISHED = PixelBudget(256 * 28 * 28, 1280 * 28 * 28, 28)


def box_in(size, parts):
    x, y, w, h = parts
    return (x * size[0], y * size[1], (x + (1 - x) * w) * size[0], (y + (1 - y) * h) * size[1])


@given(sizes, fractions)
def test_there_and_back(size, parts):
    view = View.full(size, resize)
    box = box_in(view.size, parts)
    again = view.to_input(view.to_original(box))
    assert all(math.isclose(a, b, abs_tol=1e-6) for a, b in zip(box, again))


@given(sizes, fractions, st.sampled_from(Frame))
def test_frames_agree(size, parts, frame):
    view = View.full(size, resize)
    box = box_in(view.size, parts)
    units = frame.from_pixels(box, view.size)
    assert all(math.isclose(a, b, abs_tol=1e-9, rel_tol=1e-9) for a, b in zip(box, frame.to_pixels(units, view.size)))
    largest = {Frame.PIXELS: max(view.size), Frame.THOUSAND: 1000, Frame.UNIT: 1}[frame]
    assert max(units) <= largest * (1 + 1e-9)


@given(sizes, fractions, fractions)
def test_nested_crops_map_to_the_original(size, parts, inner):
    """A box on a crop, mapped through both views, is where the same box lies in the original."""
    first = View.full(size, resize)
    second = first.crop(box_in(first.size, parts), resize)
    left, top, right, bottom = second.region
    box = box_in(second.size, inner)
    x1, y1, x2, y2 = second.to_original(box)
    assert math.isclose(x1, left + box[0] / second.size[0] * (right - left), abs_tol=1e-6)
    assert math.isclose(y2, top + box[3] / second.size[1] * (bottom - top), abs_tol=1e-6)
    third = second.crop(box, resize)
    assert left <= third.region[0] < third.region[2] <= right
    assert top <= third.region[1] < third.region[3] <= bottom
    assert third.region[0] <= x1 + 1e-3 and x2 - 1e-3 <= third.region[2]


@given(sizes, fractions)
def test_a_crop_covers_its_box_and_at_most_one_pixel_more(size, parts):
    first = View.full(size, resize)
    box = box_in(first.size, parts)
    exact = first.to_original(box)
    region = first.crop(box, resize).region
    for low, real in zip(region[:2], exact[:2]):
        assert real - 1.001 <= low <= real + 1e-3
    for high, real in zip(region[2:], exact[2:]):
        assert real - 1e-3 <= high <= real + 1.001


@given(sizes)
def test_sizes_fit_the_budget(size):
    width, height = resize(size)
    assert width % 28 == height % 28 == 0
    assert width * height <= 112 * 112 or min(width, height) == 28


@given(st.integers(1, 60), st.integers(1, 200), st.booleans(), st.sampled_from([resize, PUBLISHED]))
@example(4, 200, False, PUBLISHED)
@example(40, 200, True, PUBLISHED)
def test_whatever_the_library_takes_is_seen_at_its_size(thin, ratio, upright, budget):
    """Up to the ratio of 200 itself; a thinner strip is taken as one of that ratio."""
    size = (thin, thin * ratio) if upright else (thin * ratio, thin)
    theirs = smart_resize(size[1], size[0], budget.factor, budget.min_pixels, budget.max_pixels)
    assert budget(size) == theirs[::-1]
    longer = (thin, 200 * thin + 1) if upright else (200 * thin + 1, thin)
    assert min(budget(longer)) >= budget.factor


def test_published_budget():
    width, height = PUBLISHED((8000, 6000))
    assert 0.9 * 1280 * 784 <= width * height <= 1280 * 784
    assert PUBLISHED((100, 100))[0] * PUBLISHED((100, 100))[1] >= 256 * 784


def test_a_mark_in_the_input_is_the_same_mark_in_the_crop():
    """A white square is drawn on the original; its box on the input cuts exactly it from the original."""
    original = Image.new("RGB", (1500, 900), "black")
    original.paste((255, 255, 255), (600, 300, 900, 600))
    first = View.full(original.size, resize)
    crop = first.crop(first.to_input((600, 300, 900, 600)), resize)
    assert crop.region == (600, 300, 900, 600)
    assert crop.pixels(original).getextrema() == ((255, 255),) * 3


def test_the_crop_comes_from_the_original_pixels():
    """One-pixel stripes vanish in the first view and stand in the crop."""
    original = Image.new("L", (1120, 1120))
    original.putdata([255 * (i % 2) for i in range(1120 * 1120)])
    original = original.convert("RGB")
    first = View.full(original.size, resize)
    seen = first.pixels(original).getextrema()[0]
    cut = first.crop((0, 0, 11.2, 11.2), lambda size: size).pixels(original).getextrema()[0]
    assert seen[1] - seen[0] < 30
    assert cut == (0, 255)


turns = st.integers(0, 3)


def lying(size, turn):
    """A view of a whole picture that is turned."""
    return View.full(size, resize).crop((0, 0, 1e9, 1e9), resize, turn)


@given(sizes, fractions, turns)
def test_there_and_back_when_turned(size, parts, turn):
    view = lying(size, turn)
    assert view.extent == (size if turn % 2 == 0 else size[::-1]) and view.size == resize(view.extent)
    box = box_in(view.size, parts)
    there = view.to_original(box)
    assert 0 - 1e-6 <= there[0] < there[2] <= size[0] + 1e-6 and 0 - 1e-6 <= there[1] < there[3] <= size[1] + 1e-6
    assert all(math.isclose(a, b, abs_tol=1e-6) for a, b in zip(box, view.to_input(there)))
    inverted = view.to_original((*box[2:], *box[:2]))
    assert inverted[0] > inverted[2] and inverted[1] > inverted[3]


@given(sizes, fractions, fractions, turns, turns)
def test_nested_turned_crops_map_to_the_original(size, parts, inner, turn, more):
    """A crop in a turned crop covers its box in the original, by less than two pixels more, and lies as both say."""
    first = lying(size, turn)
    second = first.crop(box_in(first.size, parts), resize, more)
    assert second.turn == (turn + more) % 4
    box = box_in(second.size, inner)
    exact = second.to_original(box)
    third = second.crop(box, resize)
    assert third.turn == second.turn
    assert all(-1e-3 <= real - low <= 1.001 for low, real in zip(third.region[:2], exact[:2]))
    assert all(-1e-3 <= high - real <= 1.001 for high, real in zip(third.region[2:], exact[2:]))
    left, top, right, bottom = second.region
    assert left <= third.region[0] < third.region[2] <= right and top <= third.region[1] < third.region[3] <= bottom


@given(turns, turns, st.tuples(st.integers(0, 11), st.integers(0, 7)))
def test_a_pixel_is_where_a_turned_view_says(turn, more, place):
    """Seen at its own size nothing is resampled: the marked pixel lies where `to_input` puts it, in a crop of a crop
    too, and as Pillow turns it."""
    original = Image.new("RGB", (12, 8))
    original.putpixel(place, (255, 255, 255))
    x, y = place
    plain = View.full(original.size, lambda size: size)
    view = plain.crop((0, 0, 12, 8), lambda size: size, turn).crop((0, 0, 99, 99), lambda size: size, more)
    shown = view.pixels(original)
    assert shown.tobytes() == original.rotate(-90 * (turn + more), expand=True).tobytes()
    (at,) = [(i % shown.width, i // shown.width) for i, value in enumerate(shown.convert("L").tobytes()) if value]
    assert view.to_input((x, y, x + 1, y + 1)) == (*at, at[0] + 1, at[1] + 1)
    assert view.to_original((*at, at[0] + 1, at[1] + 1)) == (x, y, x + 1, y + 1)
    assert view.crop((*at, at[0] + 1, at[1] + 1), lambda size: size).region == (x, y, x + 1, y + 1)


@given(sizes, st.tuples(*[st.integers(0, 5000)] * 4))
def test_a_box_of_whole_pixels_is_cut_as_it_is(size, ends):
    """Through the map to what was seen and back, whose rounding adds no pixel."""
    x1, x2 = sorted(end % (size[0] + 1) for end in ends[:2])
    y1, y2 = sorted(end % (size[1] + 1) for end in ends[2:])
    box = (x1, y1, max(x2, x1 + 1), max(y2, y1 + 1))
    if box[2] <= size[0] and box[3] <= size[1]:
        view = View.full(size, resize)
        assert view.crop(view.to_input(box), resize).region == box


@given(sizes, st.tuples(*[st.floats(-2, 3)] * 4))
def test_what_is_cut_lies_in_the_picture_and_has_a_pixel(size, ends):
    view = View.full(size, resize)
    x1, x2 = sorted(end * view.size[0] for end in ends[:2])
    y1, y2 = sorted(end * view.size[1] for end in ends[2:])
    left, top, right, bottom = view.crop((x1, y1, x2, y2), resize).region
    assert 0 <= left < right <= size[0] and 0 <= top < bottom <= size[1]
