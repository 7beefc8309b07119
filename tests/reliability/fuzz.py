"""Hostile model output, by the million: nothing may raise, and nothing may be slow.

    python -m tests.reliability.fuzz --strings 1000000 --seed 0
    python -m tests.reliability.fuzz --atheris -max_total_time=600     # guided by coverage, where atheris is installed

Strings grow from valid replies that are cut, spliced, repeated and nested, up to what 8,000 tokens may be.
"""

import argparse
import inspect
import random
import sys
import time
from collections.abc import Callable
from functools import partial

from PIL import Image

from mgpo.answers import extract, given, is_number, is_right, vote_of
from mgpo.dialogues import Dialogue, FreeTurns, SingleTurn, TwoTurn
from mgpo.images.boxes import BoxRule, parse_box
from mgpo.images.views import Frame, VisionResolution
from mgpo.policy.families.qwen_pixels import PixelBudget
from mgpo.types import Prompt, Question, Reply, Stop, Trajectory, Turn
from tests.conftest import MemoryPicture

LONGEST = 40_000  # characters of a reply
SLOW = 0.010  # seconds of processor time that one call may take
CHOICES = ("red", "blue", "a green car", "none of these")
MANY = tuple(f"the {number}th of (A) many; so B." for number in range(26))
IMAGE = Image.new("RGB", (3000, 40))
RESOLUTION = VisionResolution(Frame.PIXELS, PixelBudget(28 * 28, 112 * 112, 28), PixelBudget(28 * 28, 56 * 56, 28))
RULE = BoxRule(min_side=0)
DIALOGUES: tuple[tuple[Dialogue, int], ...] = ((TwoTurn(rule=RULE), 2), (FreeTurns(rule=RULE), 3), (SingleTurn(), 1))
STOPS: tuple[Stop, ...] = ("end", "marker", "length")
SEEDS = (
    '```json\n[{"bbox_2d": [10, 20, 110, 120], "label": "sign"}]\n```',
    '{"bbox_2d": [0.1, -2.5, 999999999, 1.00000000000000001], "picture": 2}',
    '{"answer": "B", "reason": "red"}', "<answer>blue</answer>", r"So \boxed{\text{A}}.", r"\boxed{1{,}200 \%}",
    "The answer is (C) because it is green.", "I choose B, not A.", "Die Antwort lautet: D", "答案是B。",
    "Neither A nor B is correct; therefore it is option (C).", "Yes, there is.", "about 1,234,567.5e10 cars", "twelve",
    "A, B or C", "It's either A or B.", "(A) red\n(B) blue\n", "I would say option B, i.e. (B).", "B (not C)",
)  # fmt: skip
ATOMS = (
    "[", "]", "(", ")", "{", "}", "<", ">", '"', "'", "`", "```", "**", "\\", "\\boxed{", "\\boxed ", "\\text{",
    "bbox_2d", '"bbox_2d":', '"picture": 999', "<answer>", "</answer>", '{"answer":"',
    "so ", "so B. ", "A is correct ", "not ",
    "it's ", "option ", "A ", "B) ", "(C", ",", ", ", ".", ":", ";", "?", "$", "%", "-", "+", "e", "1", "0", "9" * 9,
    "9" * 5000,
    "1e999", "-0.0", "NaN", "Infinity", "-inf", "null", "true", "\u0661\u0662", "\u00b2", "\u2167", "\u00bd", "\ufdfa",
    "\ufb03", "\u0130", "\u0301", "\u200b", "\u202e", "\ud800", "\udfff", "\U0001d7d8", "\U0010ffff", "\x00", "\x1b[2J",
    "\x1d", "\x85", "\u2028",
    "\r", "\n", "\t", " ", " " * 9, "是", "选", "，", "。", "é", "<|image_pad|>", "<|im_end|>",
)  # fmt: skip
Case = tuple[str, Callable[[], object]]


def hostile(rng: random.Random) -> str:
    """One reply that no model should have given; one in two hundred as long as it may be."""
    text = "".join(rng.choice(rng.choice((SEEDS, ATOMS))) for _ in range(rng.randint(1, 5)))
    for _ in range(rng.randint(0, 4)):
        text = rng.choice((_cut, _splice, _repeat, _nest, _swap))(text, rng)[:LONGEST]
    if rng.random() < 0.005:
        text = (text * (LONGEST // max(len(text), 1) + 1))[:LONGEST]
    return text


def _cut(text: str, rng: random.Random) -> str:
    a, b = sorted(rng.randint(0, len(text)) for _ in range(2))
    return text[a:b] or text


def _splice(text: str, rng: random.Random) -> str:
    place = rng.randint(0, len(text))
    return text[:place] + rng.choice(ATOMS) + text[place:]


def _repeat(text: str, rng: random.Random) -> str:
    part = _cut(text, rng)[:100]
    return text + part * rng.choice((2, 3, 17))


def _nest(text: str, rng: random.Random) -> str:
    left, right = rng.choice((("[", "]"), ("{", "}"), ("(", ")"), ("\\boxed{", "}"), ("<answer>", "</answer>")))
    depth = rng.choice((1, 2, 20))
    return left * depth + text + right * rng.randint(0, depth)


def _swap(text: str, rng: random.Random) -> str:
    letters = list(text)
    for _ in range(rng.randint(1, 4)):
        if letters:
            letters[rng.randrange(len(letters))] = rng.choice(ATOMS)
    return "".join(letters)


def cases(text: str, rng: random.Random) -> list[Case]:
    """Everything that reads a model's text, in one of the ways in which it is asked to."""
    frame, choices, stop = rng.choice(list(Frame)), rng.choice(((), CHOICES, MANY)), rng.choice(STOPS)
    dialogue, turns = rng.choice(DIALOGUES)
    turn = rng.randrange(turns)
    return [
        (f"parse_box {frame.value}", partial(parse_box, text, (400, 300), frame)),
        (f"extract with {len(choices)} choices", partial(extract, text, choices)),
        (f"given with {len(choices)} choices", partial(given, text, choices)),
        (f"vote_of with {len(choices)} choices", partial(vote_of, text, choices)),
        (f"is_right with {len(choices)} choices", partial(is_right, text, "B", choices)),
        ("is_number", partial(is_number, text, "7")),
        (f"turn {turn} of {type(dialogue).__name__}", partial(proceed, dialogue, turn, text, choices, stop)),
    ]


def proceed(dialogue: Dialogue, turn: int, text: str, choices: tuple[str, ...], stop: Stop) -> None:
    """That reply in a turn, behind usable boxes; each view must be one that can be cut and shown."""
    trajectory = Trajectory(Question("q", MemoryPicture(IMAGE), text[:100], "B", choices), IMAGE)
    dialogue.open(trajectory, RESOLUTION)
    for reply in [*["[10, 1, 60, 27]"] * turn, text]:
        trajectory.turns.append(Turn(Prompt(()), Reply((), (), stop), reply))
        dialogue.proceed(trajectory, RESOLUTION)
    for view in trajectory.views:
        left, top, right, bottom = view.region
        assert 0 <= left < right <= IMAGE.width and 0 <= top < bottom <= IMAGE.height
        assert min(view.size) >= 28 and view.size[0] * view.size[1] <= 112 * 112 * 40


def check(text: str, rng: random.Random) -> float:
    """Seconds of the slowest call. Raises what a call raises, and TimeoutError where one is too slow."""
    slowest = 0.0
    for name, call in cases(text, rng):
        took = _seconds(call)
        if took > SLOW:  # a busy machine is slow now and then, a bad pattern always
            took = min(took, *(_seconds(call) for _ in range(4)))
        if took > SLOW:
            raise TimeoutError(f"{name} takes {1000 * took:.1f} ms")
        slowest = max(slowest, took)
    return slowest


def _seconds(call: Callable[[], object]) -> float:
    began = time.thread_time()
    call()
    return time.thread_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strings", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--atheris", action="store_true", help="what follows are arguments of libFuzzer")
    arguments, more = parser.parse_known_args()
    if arguments.atheris:
        guided(more)
    rng, slowest, failures, characters = random.Random(arguments.seed), 0.0, 0, 0
    for number in range(arguments.strings):
        text = hostile(rng)
        characters += len(text)
        try:
            slowest = max(slowest, check(text, rng))
        except Exception as error:
            failures += 1
            print(
                f"string {number}: {type(error).__name__}: {error}; {len(text)} characters, {text[:300]!a}", flush=True
            )
    print(f"{arguments.strings} strings, {characters} characters, {failures} failures, slowest {1000 * slowest:.1f} ms")
    sys.exit(failures > 0)


def guided(options: list[str]) -> None:
    import atheris

    def one(data: bytes) -> None:
        check(data.decode("utf-8", "surrogateescape"), random.Random(len(data)))

    for module in [module for name, module in sys.modules.items() if name.startswith("mgpo.")]:
        for part in vars(module).values():
            for function in (part, *vars(part).values()) if inspect.isclass(part) else (part,):
                if inspect.isfunction(function) and function.__module__ == module.__name__:
                    atheris.instrument_func(function)
    atheris.Setup([sys.argv[0], *options], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
