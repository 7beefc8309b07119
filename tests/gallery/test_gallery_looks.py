"""The gallery page in a real browser: that everything can be seen and told apart."""

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.browser

DESKTOP, PHONE = (1280, 800), (360, 740)
OVERLAPS, CONTRASTS, NAMELESS = re.split(
    r"^// ---.*\n", (Path(__file__).parent / "gallery_checks.js").read_text(), flags=re.M
)[1:]
VIEWS = [
    ("run", ""),
    ("run", "#q=val%2Fq2&step=0&rollout=4"),
    ("run", "#q=ood%2Fq5&rollout=1"),
    ("once", ""),
    ("hostile", ""),
]


@pytest.mark.parametrize(("name", "fragment"), VIEWS)
def test_nothing_overlaps_or_leaves_the_window(open_page, name, fragment):
    page = open_page(name, fragment)
    for width, height in (DESKTOP, PHONE):
        page.set_viewport_size({"width": width, "height": height})
        page.evaluate("document.getElementById('filtering').open = true")
        assert page.evaluate(OVERLAPS) == []


@pytest.mark.parametrize(("name", "fragment"), VIEWS[:4])
def test_contrast_and_names_in_both_schemes(open_page, name, fragment):
    page = open_page(name, fragment)
    grounds = set()
    for scheme in ("light", "dark"):
        page.evaluate("scheme => { document.documentElement.style.colorScheme = scheme; }", scheme)
        grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        ratios = page.evaluate(CONTRASTS)
        assert len(ratios) > 10 and {text: ratio for text, ratio in ratios if ratio < 4.5} == {}
    assert len(grounds) == 2
    assert page.evaluate(NAMELESS) == []


@pytest.mark.parametrize("width", [375, 800, 1400])
def test_cards_fill_their_rows_and_say_their_questions_to_the_end(open_page, width):
    page = open_page(size=(width, 800))
    tops = page.eval_on_selector_all("#grid > li", "cards => cards.map(card => card.offsetTop)")
    assert len({tops.count(top) for top in tops}) == 1
    cut = "texts => texts.filter(text => text.scrollHeight > text.clientHeight + 1).map(text => text.textContent)"
    assert page.eval_on_selector_all(".card-text", cut) == []


def test_columns_follow_the_window_and_the_filters(open_page):
    page = open_page(size=(1400, 800))
    columns = "() => new Set([...document.querySelectorAll('#grid > li:not([hidden])')].map(n => n.offsetLeft)).size"
    assert page.evaluate(columns) == 3  # six cards
    page.set_viewport_size({"width": 360, "height": 740})
    wait_until(page, columns, 2)
    page.set_viewport_size({"width": 1400, "height": 800})
    page.select_option("[name=category]", "count")
    wait_until(page, columns, 3)


def wait_until(page, program, value):
    """As `wait_for_function`, which the page's own policy refuses as soon as it has to ask twice."""
    for _ in range(100):
        if (found := page.evaluate(program)) == value:
            return
        page.wait_for_timeout(50)
    assert found == value


def test_a_frame_along_the_pictures_edge_is_seen_whole(open_page):
    """Half of a line lies outside of the box that it frames."""
    page = open_page()
    room = """pictures => pictures.map(node => {
        const [outer, inner] = [node.getBoundingClientRect(), node.querySelector("svg").getBoundingClientRect()];
        const half = rect => parseFloat(getComputedStyle(rect).strokeWidth) / 2;
        const halves = [...node.querySelectorAll("rect")].map(half);
        return Math.min(inner.left - outer.left, inner.top - outer.top, outer.right - inner.right,
                        outer.bottom - inner.bottom) - Math.max(...halves);
    })"""
    assert min(page.eval_on_selector_all(".card .picture", room)) >= 0
    page.click(".card >> nth=0")
    assert min(page.eval_on_selector_all("#scene .picture", room)) >= 0
    assert page.evaluate("getComputedStyle(document.querySelector('#scene svg')).overflow") == "visible"


def test_the_legend_has_every_kind_of_line(open_page):
    """A frame's colour says how the answer was, and its dashes say that the box could not be used."""
    page = open_page()
    style = "nodes => nodes.map(n => [getComputedStyle(n).stroke, getComputedStyle(n).strokeDasharray !== 'none'])"
    (right, solid), (wrong, also_solid), (grey, dashed) = page.eval_on_selector_all("#legend .line", style)
    assert (solid, also_solid, dashed) == (False, False, True) and len({right, wrong, grey}) == 3
    assert "dashed: box could not be used" in page.inner_text("#legend")


def test_paper_shows_all_cards_and_nothing_to_press(open_page):
    page = open_page(size=(360, 400))
    drawn = "() => document.querySelectorAll('.card .picture img').length"
    assert page.evaluate(drawn) < 6
    page.pdf()
    assert page.evaluate(drawn) == 6
    page.emulate_media(media="print")
    assert not any(page.is_visible(each) for each in ("#filters", ".play", ".bar input", "#theme"))
    assert page.inner_text(".bar output") == "step 20"


def test_the_scheme_follows_the_system_until_it_is_switched(open_page):
    page = open_page(scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(ground) == "rgb(19, 20, 22)" and page.inner_text("#theme") == "Light"
    page.click("#theme")
    assert page.evaluate(ground) == "rgb(245, 244, 240)" and page.inner_text("#theme") == "Dark"
