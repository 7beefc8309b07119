"""A few lines of Python for a trained model: load it, ask it, see where it looked."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import jsonargparse
import yaml
from PIL import Image

from mgpo.counterfactuals import Row, counterfactuals
from mgpo.data.sources import Source
from mgpo.dialogues import Dialogue, TwoTurn
from mgpo.errors import UserError
from mgpo.evaluation import evaluate
from mgpo.images import open_image, to_rgb
from mgpo.policy.base import Policy
from mgpo.policy.checkpoint import policy_weights
from mgpo.policy.published import family_of
from mgpo.policy.qwen2_5_vl import EMBEDDED
from mgpo.records import Record
from mgpo.rewards import ExactAnswer, Reward
from mgpo.rollout import roll_out
from mgpo.sampler import InProcessSampler, Sampling
from mgpo.shipped import shipped_config
from mgpo.show import look
from mgpo.types import Question, Trajectory
from mgpo.views import Box

EMBEDDED_CONFIG = "mgpo"
CHECKPOINTS = ("trained.ckpt", "last.ckpt")  # of a run, the better one first


@dataclass(frozen=True)
class InMemory:
    """A picture that was handed over."""

    image: Image.Image

    def load(self) -> Image.Image:
        return self.image


@dataclass(frozen=True)
class Answer:
    """What came of a question. In a notebook it shows itself: the picture, what was seen first, what was cut out."""

    trajectory: Trajectory

    @property
    def answer(self) -> str | None:
        """The final answer, an option's letter where there were choices; None where the model committed to nothing."""
        return self.trajectory.answer

    @property
    def boxes(self) -> list[Box]:
        """The boxes that were named, usable or not, in pixels of the original."""
        return [turn.named for turn in self.trajectory.turns if turn.named is not None]

    @property
    def crops(self) -> list[Image.Image]:
        """The parts that were cut from the original, as large as they are there."""
        return [self.trajectory.image.crop(view.region) for view in self.trajectory.crops]

    @property
    def turns(self) -> list[str]:
        """The model's replies."""
        return [turn.text for turn in self.trajectory.turns]

    def __repr__(self) -> str:
        boxes = [tuple(round(side) for side in box) for box in self.boxes]
        return f"Answer({self.answer!r}, boxes={boxes})"

    def _repr_png_(self) -> bytes | None:
        return look(self.trajectory)._repr_png_()


class Model:
    """A policy with the dialogue in which it answers.

    Args:
        policy: Loaded, in evaluation mode.
        dialogue: What is said in each turn.
        max_new_tokens: A reply is cut here.
    """

    def __init__(self, policy: Policy, dialogue: Dialogue, max_new_tokens: int = 1024) -> None:
        self.policy, self.dialogue, self.max_new_tokens = policy, dialogue, max_new_tokens

    def ask(
        self,
        image: Image.Image | str | Path,
        question: str,
        choices: Sequence[str] = (),
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Answer:
        """Ask about a picture or a file; greedy at temperature 0. Raises UserError where it can't be opened."""
        picture = to_rgb(image) if isinstance(image, Image.Image) else open_image(Path(image))
        asked = Question("asked", InMemory(picture), question, "", tuple(choices))
        return self.group(asked, 1, temperature, seed)[0]

    def group(self, question: Question, rollouts: int = 8, temperature: float = 1.0, seed: int = 0) -> list[Answer]:
        """Several answers to one question, sampled as in training."""
        sampling = Sampling(self.max_new_tokens, temperature)
        samples = [(question, question.picture.load())]
        played = roll_out(self.policy, InProcessSampler(), self.dialogue, samples, rollouts, sampling, (seed, 0))
        return [Answer(trajectory) for trajectory in played]

    def evaluate(
        self, source: Source, limit: int | None = None, batch_size: int = 16, reward: Reward = ExactAnswer()
    ) -> list[Record]:
        """Greedy episodes on the first `limit` questions of a source, and of each sub-image alone."""
        sampling = Sampling(self.max_new_tokens, 0.0)
        batches = _batches(source, limit, batch_size)
        arguments = (sampling, reward, 0)
        return [r for b in batches for r in evaluate(self.policy, InProcessSampler(), self.dialogue, b, *arguments)]

    def counterfactuals(
        self, source: Source, limit: int | None = None, batch_size: int = 16, reward: Reward = ExactAnswer()
    ) -> list[Row]:
        """The same questions with something else in place of the crop; see `mgpo.counterfactuals.compare`."""
        sampling = Sampling(self.max_new_tokens, 0.0)
        batches = _batches(source, limit, batch_size)
        arguments = (sampling, reward, 0)
        return [
            r for b in batches for r in counterfactuals(self.policy, InProcessSampler(), self.dialogue, b, *arguments)
        ]


def load(path: str | Path = EMBEDDED, dialogue: Dialogue | None = None, **options: Any) -> Model:
    """A model to ask: "embedded", a run's folder, or a checkpoint of transformers (folder or hub name).

    A run's folder brings its own configuration and weights. `dialogue` overrides the run's; `options` are
    those of the policy's class, such as `max_pixels` or `dtype`. Raises UserError where nothing can be loaded.
    """
    folder = Path(path)
    if str(path) == EMBEDDED:
        return _from_config(yaml.safe_load(shipped_config(EMBEDDED_CONFIG).read_text()), dialogue, options)
    if (folder / "config.yaml").is_file():
        config = yaml.safe_load((folder / "config.yaml").read_text())
        model = _from_config(config, dialogue, options)
        model.policy.load_state_dict(policy_weights(str(_checkpoint(folder))))
        return model
    policy = family_of(str(path))(str(path), **options).load().eval()
    return Model(policy, dialogue or TwoTurn())


def fit(config: str | Path = "mgpo", settings: Mapping[str, Any] | None = None) -> Path:
    """Train as `python -m mgpo fit` does and return the run's folder.

    `config` is a file, or the name of one that comes with the package; `settings` are keys of the command line.
    """
    from mgpo.callbacks.folder import run_folder
    from mgpo.cli import hush, run  # Lightning comes along with these; asking does without

    hush()
    path = Path(config) if Path(config).suffix else shipped_config(str(config))
    arguments = [f"--{key}={value}" for key, value in (settings or {}).items()]
    return run_folder(run(["fit", "--config", str(path), *arguments]).trainer)


def _from_config(config: dict[str, Any], dialogue: Dialogue | None, options: dict[str, Any]) -> Model:
    """The policy and the dialogue of a configuration, built as the command line builds them."""
    chosen = config["model"]
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--policy", type=Policy)
    parser.add_argument("--dialogue", type=Dialogue | None)
    policy = chosen["policy"]
    policy["init_args"] = {**policy["init_args"], **options}
    parsed = parser.parse_object({"policy": policy, "dialogue": chosen.get("dialogue")})
    made = parser.instantiate(parsed)
    made.policy.load().eval()
    return Model(made.policy, dialogue or made.dialogue or TwoTurn(), chosen["eval_sampling"]["max_new_tokens"])


def _checkpoint(run: Path) -> Path:
    for name in CHECKPOINTS:
        if (path := run / "checkpoints" / name).is_file():
            return path
    raise UserError(f"{run}/checkpoints holds neither {' nor '.join(CHECKPOINTS)}; this run has saved no weights yet")


def _batches(source: Source, limit: int | None, size: int) -> Iterator[list[tuple[Question, Image.Image]]]:
    questions = iter([source[i] for i in range(len(source))][:limit])
    while batch := [(question, question.picture.load()) for question in islice(questions, size)]:
        yield batch
