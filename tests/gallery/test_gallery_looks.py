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


def test_the_scheme_follows_the_system_until_it_is_switched(open_page):
    page = open_page(scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(ground) == "rgb(19, 20, 22)" and page.inner_text("#theme") == "Light"
    page.click("#theme")
    assert page.evaluate(ground) == "rgb(245, 244, 240)" and page.inner_text("#theme") == "Dark"
