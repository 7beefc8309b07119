"""The gallery page in a real browser: what it does."""

import re

import pytest

from tests.helpers.gallery_samples import HOSTILE

pytestmark = pytest.mark.browser


def shown(page) -> list[str]:
    return page.eval_on_selector_all("#grid > li:not([hidden])", "nodes => nodes.map(n => n.card.question.id)")


def rects(scope) -> list:
    script = "nodes => nodes.map(n => ['x', 'y', 'width', 'height'].map(a => Number(n.getAttribute(a))))"
    return scope.locator("g:not(.gone) > rect.line").evaluate_all(script)


def test_what_the_grid_says(open_page):
    page = open_page()
    assert shown(page) == [f"q{i}" for i in range(6)]
    tiles = page.locator("#summary > div").all_inner_texts()
    assert tiles == ["questions\n6", "right\n63 %\n+50 since step 0", "valid boxes\n63 %\n+50 since step 0"]
    card = page.locator(".card").nth(1)
    assert "2/4 right" in card.inner_text() and card.locator(".dot.right").count() == 2
    assert card.locator("g.right > .line").count() == 2 and card.locator("g.wrong.unusable > .line").count() == 2


def test_filters(open_page):
    page = open_page()
    page.select_option("[name=category]", "count")
    assert shown(page) == ["q1", "q3", "q5"] and "of 6" in page.inner_text("#summary")
    page.select_option("[name=split]", "ood")
    assert shown(page) == ["q3", "q5"]
    page.select_option("[name=category]", "")
    page.fill("[name=search]", "NUMBER 4")
    assert shown(page) == ["q4"]
    page.fill("[name=search]", "no such question")
    assert shown(page) == [] and page.is_visible("#empty") and "–" in page.inner_text("#summary")
    page.click("#reset")
    assert len(shown(page)) == 6 and page.input_value("[name=search]") == page.input_value("[name=split]") == ""
    page.select_option("[name=answers]", "none")
    assert shown(page) == []
    page.keyboard.press("Escape")
    page.locator(".bar input").fill("0")
    assert shown(page) == ["q1", "q3", "q5"]  # whose first rollouts become right at step 10 only
    page.select_option("[name=answers]", "")
    page.select_option("[name=change]", "better")
    assert shown(page) == []
    page.locator(".bar input").fill("1")
    assert len(shown(page)) == 6
    page.select_option("[name=boxes]", "some")
    assert len(shown(page)) == 6
    page.wait_for_url(re.compile("#step=10&change=better&boxes=some|#step=10&boxes=some&change=better"))
    page.reload()
    assert page.input_value("[name=boxes]") == "some" and page.inner_text(".bar output") == "step 10"


def test_slider_and_arrow_keys_move_the_boxes(open_page):
    page = open_page()
    card = page.locator(".card").first
    last = rects(card)
    page.locator(".bar input").fill("0")
    first = rects(card)
    assert len(last) == 4 and len(first) == 3 and last != first
    page.locator("h1").click()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert rects(card) == last and page.inner_text(".bar output") == "step 20"
    page.keyboard.press("ArrowLeft")
    assert page.inner_text(".bar output") == "step 10"
    unit = 640 / 112  # of the first view's pixels, as boxes are drawn in the original's
    assert rects(card)[0][0] == pytest.approx(20 * unit, abs=0.1)


def test_the_slider_has_a_tick_at_every_step(open_page):
    page = open_page()
    ticks = "[...document.querySelector('.bar input').list.options].map(option => [option.value, option.label])"
    assert page.evaluate(ticks) == [["0", "0"], ["1", "10"], ["2", "20"]]


def test_cards_say_what_changed_and_that_nothing_did(open_page):
    page = open_page()
    assert page.locator(".note").first.inner_text().endswith("▲ 2 since step 0")
    same = (
        "document.querySelector('#grid > li').card.change(document.querySelector('#grid > li').card.question.steps[0])"
    )
    assert page.evaluate(same) == "±0 since step 0"
    page.locator(".bar input").fill("0")
    assert not any("since" in note for note in page.locator(".note").all_inner_texts())


def test_playing_walks_through_the_steps_and_stops(open_page):
    page = open_page()
    page.clock.install()
    page.click(".bar .play")
    steps = [page.inner_text(".bar output")]
    for _ in range(3):
        page.clock.run_for(1000)
        steps.append(page.inner_text(".bar output"))
    assert steps == ["step 0", "step 10", "step 20", "step 20"] and "Play" in page.inner_text(".bar .play")


def test_the_question_view_by_keys_alone(open_page):
    page = open_page()
    page.keyboard.press("n")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    assert page.is_visible("#view") and page.inner_text("#view-text") == "What is written on sign number 1?"
    assert page.inner_text("#pair").splitlines() == [
        "as first seen, 20 × 20 pixels",
        "as cut from the original, 4.2 × sharper",
    ]
    images = "imgs => Promise.all(imgs.map(i => i.decode().then(() => i.naturalWidth)))"
    assert page.eval_on_selector_all("#pair img", images) == [20, 84]
    assert page.locator(".rollout").count() == 4 and page.locator("#scene g.selected").count() == 1
    page.keyboard.press("Enter")  # presses nothing by chance
    assert page.inner_text("#view-text") == "What is written on sign number 1?"
    before = rects(page.locator("#scene"))
    for key in ("ArrowDown", "j"):
        page.keyboard.press(key)
    assert page.get_attribute(".rollout >> nth=2", "aria-current") == "true"
    assert "too short" in page.inner_text("#pair") and "Replies of rollout 3" in page.inner_text("#replies")
    assert "✗ wrong" in page.inner_text(".rollout >> nth=2") and "X" in page.inner_text("#replies pre >> nth=1")
    page.keyboard.press("k")
    page.keyboard.press("ArrowLeft")
    assert page.inner_text("#view output") == "step 10" and rects(page.locator("#scene")) != before
    page.keyboard.press("n")
    assert page.inner_text("#view-text") == "What is written on sign number 2?"
    page.keyboard.press("p")
    page.keyboard.press("?")
    assert page.is_visible("#keys")
    page.keyboard.press("Escape")
    assert page.is_hidden("#keys") and page.is_visible("#view")
    page.keyboard.press("Escape")
    assert page.is_hidden("#view")
    assert page.evaluate("document.activeElement.closest('li').card.question.id") == "q1"


def test_letters_that_are_typed_into_the_search_do_nothing_else(open_page):
    page = open_page()
    page.locator("[name=search]").press_sequentially("n?p")
    assert page.input_value("[name=search]") == "n?p" and page.is_hidden("#keys")


def test_a_link_restores_the_view(open_page):
    page = open_page(fragment="#q=ood%2Fq4&step=10&rollout=2")
    assert page.inner_text("#view-text") == "What is written on sign number 4?"
    assert page.inner_text("#view output") == "step 10"
    assert page.get_attribute(".rollout >> nth=1", "aria-current") == "true"
    page.click(".rollout >> nth=3")
    page.wait_for_url(re.compile("#.*rollout=4"))
    page.click("#close")
    page.wait_for_url(re.compile("html#(?!.*q=)"))
    page.click(".card >> nth=0")
    page.go_back()
    page.wait_for_selector("#view", state="hidden")
    page.goto(page.url.split("#")[0] + "#q=nobody&step=7&rollout=x")
    assert page.is_hidden("#view") and page.inner_text(".bar output") == "step 20"


def test_a_page_of_one_step_without_boxes(open_page):
    page = open_page("once")
    assert page.is_hidden(".bar") and page.is_hidden("#run-chart") and page.is_hidden("#legend")
    assert page.locator("select").count() == 1  # answers
    assert page.locator("#summary > div").all_inner_texts() == ["questions\n3", "right\n67 %"]
    page.click(".card >> nth=1")
    assert page.inner_text("#pair") == "Nothing was cut out." and page.locator("#scene rect").count() == 0
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowDown")
    assert "✗ wrong" in page.inner_text(".rollout")


def test_hostile_texts_are_only_texts(open_page):
    page = open_page("hostile")
    assert page.inner_text("h1") == HOSTILE
    page.select_option("[name=category]", HOSTILE)
    page.fill("[name=search]", HOSTILE)
    page.click(".card:visible")
    assert page.inner_text("#view-text") == HOSTILE == page.inner_text("#replies pre >> nth=1")
    assert page.locator(".truth b").inner_text() == HOSTILE
    page.wait_for_url(re.compile("#.*q="))
    page.reload()
    assert page.inner_text("#view-text") == HOSTILE
    assert page.evaluate("window.broken") is None
    assert page.evaluate("[...document.querySelectorAll('script')].length") == 2
    assert all(
        src.startswith("data:image/webp") for src in page.eval_on_selector_all("img", "imgs => imgs.map(i => i.src)")
    )


def test_the_policy_forbids_what_a_text_could_smuggle_in(browser, pages):
    page = browser.new_page()
    page.goto(pages["run"])
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=data:, onerror=\"window.broken=1\">')")
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.broken=1'}))"
    )
    page.wait_for_timeout(50)
    assert page.evaluate("window.broken") is None
    page.close()
