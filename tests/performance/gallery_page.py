"""How large the gallery page is and how fast it opens: `python -m tests.performance.gallery_page`.

200 questions on pictures of 2048 x 2048 pixels, 9 steps, 8 rollouts each, with much grain, so that the crops are large.
Opening is timed in headless Chromium from the start of the navigation until the first screenful of cards is drawn and
the page answers a key.
"""

import shutil
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from mgpo.gallery.page import write_page
from mgpo.world.questions import KINDS, sample_question
from tests.conftest import BROWSER_ARGUMENTS, noise_image
from tests.helpers.gallery_samples import wandering_gallery

QUESTIONS, STEPS, ROLLOUTS, REPEATS = 200, range(0, 180, 20), 8, 5
PICTURES = 20  # questions share them: 200 would need 2.5 GB
READY = """() => {
  const cards = [...document.querySelectorAll('.card')].filter((c) => c.getBoundingClientRect().top < innerHeight);
  return cards.length > 0 && cards.every((card) => card.querySelector('img')?.complete && card.querySelector('g'));
}"""
# The second frame after the first screenful is drawn: it is on the screen then, and the page answers.
PAINTED = (
    "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now()))))"
)


def build(path: Path) -> None:
    """Draw, roll out by hand, and write."""
    start = time.perf_counter()
    grain = noise_image(2048, 2048)
    asked = []
    for i in range(PICTURES):
        question, marks = sample_question(KINDS[i % len(KINDS)], (3, 0, i), 2048, "val")
        asked.append((question, Image.blend(question.picture.load(), grain, 0.4), (marks[0].x, marks[0].y)))
    asked = [(replace(asked[i % PICTURES][0], id=f"{i}"), *asked[i % PICTURES][1:]) for i in range(QUESTIONS)]
    drawn = time.perf_counter()
    gallery = wandering_gallery(asked, STEPS, ROLLOUTS)
    collected = time.perf_counter()
    write_page(path, gallery, "Benchmark")
    written = time.perf_counter()
    kept = sum(len(entry["images"]) - 1 for entry in gallery.document("", gallery.budget)["questions"])
    made = sum(len(entry["images"]) - 1 for entry in gallery.entries.values())
    print(f"drawing {drawn - start:.1f} s, collecting {collected - drawn:.1f} s, writing {written - collected:.1f} s")
    print(f"{path.stat().st_size / 1e6:.2f} MB, {kept:,} of {made:,} crops")


def opening(browser: Browser, address: str) -> float:
    """Seconds from the start of the navigation."""
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(address, wait_until="commit")
    while not page.evaluate(READY):
        time.sleep(0.01)
    seconds = page.evaluate(PAINTED) / 1000
    page.keyboard.press("ArrowLeft")
    assert page.inner_text(".bar output") == f"step {STEPS[-2]}"
    page.close()
    return seconds


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = Path(folder) / "gallery.html"
        build(path)
        executable = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=executable, args=BROWSER_ARGUMENTS)
        seconds = [opening(browser, path.as_uri()) for _ in range(REPEATS)]
        browser.close()
    print(
        f"opens in {statistics.median(seconds):.2f} s (median of {REPEATS}; {min(seconds):.2f} to {max(seconds):.2f})"
    )


if __name__ == "__main__":
    main()
