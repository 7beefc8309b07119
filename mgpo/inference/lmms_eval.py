"""A model for lmms-eval: `--model mgpo --model_args pretrained=runs/mgpo/version_0`."""

from collections.abc import Sequence
from typing import Any

from lmms_eval.api.instance import Instance  # pyright: ignore[reportMissingImports]
from lmms_eval.api.model import lmms  # pyright: ignore[reportMissingImports]
from tqdm import tqdm

from mgpo.data.image_marks import without_marks
from mgpo.errors import UserError
from mgpo.images.decoding import to_rgb
from mgpo.inference.base import InMemory
from mgpo.inference.lmms_prompts import said, split_prompt
from mgpo.inference.loading import load
from mgpo.types import Question


class MGPOModel(lmms):
    """Plays the model's own dialogue on every request, greedily, and gives back the final answer.

    The answer is given bare ("B"), because tasks look for the first letter of a reply. A task's limit of
    tokens is meant for a reply without a look and is not used; the model's own is.

    Args:
        pretrained: What `mgpo.load` takes: "embedded", a run, an export, a checkpoint, a server's address.
        batch_size: Questions that are played side by side.
        device: Of the weights.
        max_batch_size: Not used.
        options: Those of `mgpo.load`.
    """

    is_simple = True

    def __init__(
        self,
        pretrained: str = "embedded",
        batch_size: int | str = 16,
        device: str | None = None,
        max_batch_size: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.model = load(pretrained, device=device, **options)
        self.batch_size = int(batch_size)

    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        """One answer a request; the last reply where the model committed to none.

        Raises UserError where a server fails.
        """
        replies: list[str] = []
        with tqdm(total=len(requests), unit=" questions", disable=self.rank != 0) as progress:
            for start in range(0, len(requests), self.batch_size):
                batch = requests[start : start + self.batch_size]
                asked = [self._question(request) for request in batch]
                samples = [(question, *(picture.load() for picture in question.pictures)) for question in asked]
                replies += map(said, self.model.answers(samples))
                progress.update(len(batch))
        return replies

    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        """Raises UserError: an answer that comes out of a dialogue has no likelihood of its own."""
        raise UserError("a dialogue has no likelihood; take a task whose output_type is generate_until")

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> list[str]:
        """Raises UserError: the model's own dialogue makes the rounds."""
        raise UserError("the dialogue has rounds of its own; take a task whose output_type is generate_until")

    def _question(self, request: Instance) -> Question:
        prompt, _, to_visual, number, task, split = request.args
        pictures = to_visual(self.task_dict[task][split][number])
        if not pictures or not all(hasattr(picture, "convert") for picture in pictures):
            raise UserError(f"task {task}, question {number}: pictures are needed; nothing else is read")
        text, choices = split_prompt(without_marks(prompt, len(pictures)))
        picture, *others = (InMemory(to_rgb(picture)) for picture in pictures)
        return Question(f"{task}-{number}", picture, text, "", choices, others=tuple(others))
