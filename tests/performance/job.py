"""What two trainers are both given: weights, questions, pictures, texts and lengths, as a folder."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from mgpo.data.scenes import Scenes
from mgpo.dialogues import Dialogue, SingleTurn, TwoTurn
from mgpo.images.views import View, VisionResolution
from mgpo.policy.families.qwen2_5_vl import Qwen25VL
from mgpo.types import Message, Prompt, Question, Reply, Trajectory, Turn
from mgpo.world.model import CAPS
from mgpo.world.questions import KINDS

QUESTIONS, GROUP, RATE = 8, 8, 1e-6
SIDE = 448  # pixels of an original's side: so small that decoding, cutting and resizing hardly count for either side
BOX = "[28, 28, 84, 84]"  # what every first reply is taken to say, so that all crops are seen at 84 x 84


class Looking(TwoTurn):
    """Every first reply runs to its limit and names the same box: all episodes are equally long."""

    def stop_text(self, turn: int) -> str | None:
        return None

    def proceed(self, trajectory: Trajectory, resolution: VisionResolution) -> list[Message] | None:
        if len(trajectory.turns) == 1:
            trajectory.turns[0].text = BOX
        return super().proceed(trajectory, resolution)


def dialogue_of(turns: int) -> Dialogue:
    return SingleTurn() if turns == 1 else Looking()


SMALL, LEAST = 16, 256  # tokens of a picture: of the embedded world's, and of the smallest that the paper shows


def load_policy(picture: int) -> Qwen25VL:
    """The embedded model, which can't end a reply: every reply has as many tokens as are allowed.

    Pictures have `picture` tokens; parts of them have fewer where pictures are small, else as many.
    """
    caps = CAPS if picture == SMALL else {"min_pixels": picture * 28 * 28, "max_pixels": picture * 28 * 28}
    policy = Qwen25VL(**caps).load()
    policy.banned[policy.chat.end_id] = True
    return policy


@dataclass(frozen=True)
class Held:
    """A picture that is in memory."""

    image: Image.Image

    def load(self) -> Image.Image:
        return self.image


def draw_questions(resolution: VisionResolution, turns: int) -> list[Question]:
    """Questions with their pictures, which are as small as they are seen where nothing is cut from them."""
    questions = []
    scenes = Scenes(QUESTIONS, KINDS, side=SIDE)
    for question in (scenes[i] for i in range(QUESTIONS)):
        original = question.picture.load()
        view = View.full(original.size, resolution.full)
        questions.append(replace(question, picture=Held(view.pixels(original) if turns == 1 else original)))
    return questions


def write_job(folder: Path, turns: int, new_tokens: int, picture: int, micro_batch: int) -> None:
    """Lay the job out for a trainer that knows nothing of this package."""
    policy = load_policy(picture)
    job = {
        "model": policy.path, "min_pixels": policy.min_pixels, "max_pixels": policy.max_pixels, "turns": turns,
        "group": GROUP, "rows": QUESTIONS * GROUP, "micro_batch": micro_batch, "rate": RATE,
        "new_tokens": new_tokens, "budget": 1024, "banned": policy.banned.nonzero().flatten().tolist(),
        "questions": [
            _lay_out(i, question, policy.resolution, turns, folder)
            for i, question in enumerate(draw_questions(policy.resolution, turns))
        ],
    }  # fmt: skip
    (folder / "job.json").write_text(json.dumps(job))


def _lay_out(number: int, question: Question, resolution: VisionResolution, turns: int, folder: Path) -> dict[str, Any]:
    dialogue, image = dialogue_of(turns), question.picture.load()
    trajectory = Trajectory(question, image)
    system, user = dialogue.open(trajectory, resolution)
    laid = {"system": system.parts[0], "ask": user.parts[1], "picture": f"{number}.png"}
    _save(trajectory.views[0].pixels(image), folder / laid["picture"])
    if turns == 1:
        return laid
    trajectory.turns.append(Turn(Prompt(()), Reply((), (), "length"), ""))
    (follow,) = dialogue.proceed(trajectory, resolution) or ()
    before, crop, after = follow.parts
    assert isinstance(crop, View)
    _save(image, folder / f"{number}-original.png")
    return laid | {
        "original": f"{number}-original.png", "region": crop.region, "crop_size": crop.size, "follow": (before, after)
    }  # fmt: skip


def _save(image: Image.Image, path: Path) -> None:
    image.save(path, compress_level=1)


def lengths(trajectories: Sequence[Trajectory]) -> list[int]:
    """The distinct numbers of tokens behind the first prompt."""
    return sorted({sum(len(turn.reply.ids) for turn in t.turns) + sum(len(turn.prompt.ids) for turn in t.turns[1:])
                   for t in trajectories})  # fmt: skip
