"""What a device would need at least, counted: operations over its peak, bytes over its memory's rate.

The counts are those by which trainers are usually compared: 2 operations a weight and token forward, 2 more for the
inputs' gradients, 2 for running layers again under checkpointing, 2 for the weights' own gradients where all are
trained. Attention between tokens, the optimiser and rotary angles are left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mgpo.tools.plan.shape import Shape
from mgpo.tools.plan.time import H100
from mgpo.types import Trajectory

PEAK, RATE = H100.half, H100.memory  # FLOP/s in bfloat16, bytes/s


@dataclass(frozen=True)
class Counted:
    """A model's counts. `tied`: head and embeddings are one; `value`: bytes of a weight."""

    shape: Shape
    tied: bool
    lora: bool
    checkpointing: float  # share of the layers that are run again
    value: int = 2

    @property
    def language(self) -> int:
        """Weights that every token passes: an embedding that is no head is looked up only, a head only where tokens
        are scored."""
        edges = self.shape.vocabulary * self.shape.language.width * (0 if self.tied else 2)
        return self.shape.parameters - self.shape.seeing - edges

    def update(self, tokens: int) -> float:
        """Seconds of forward and backward pass over so many tokens."""
        return (2 + self.checkpointing + (not self.lora)) * self.forward(tokens)

    def forward(self, tokens: int) -> float:
        return 2 * self.language * tokens / PEAK

    def tower(self, image_tokens: int) -> float:
        """Seconds of the vision tower's forward pass."""
        block = self.shape.vision
        return 2 * block.layers * block.parameters * image_tokens * self.shape.merge**2 / PEAK

    def decode(self, rows: int, cached: int) -> float:
        """Seconds in which all weights, and the keys and values of all rows, are read once."""
        block = self.shape.language
        head = self.shape.vocabulary * block.width
        weights = block.layers * block.parameters + head
        states = 2 * block.layers * block.key_value * rows * cached
        return self.value * (weights + states) / RATE

    def step(self, shown: int, image_tokens: int, rows: int, replies: list[tuple[int, int]], passed: int, kl: bool):
        """Seconds of a training step: prompts, replies of (tokens, cached before them), then the tokens that an update
        passes, once more under a penalty."""
        drawn = sum(length * self.decode(rows, before + length // 2) for length, before in replies)
        return self.forward(shown) + self.tower(image_tokens) + drawn + self.update(passed) + kl * self.forward(passed)

    def step_of(self, rows: Sequence[Trajectory], group: int, kl: bool) -> float:
        """The same of what was rolled out: every group's prompt once, all that was shown and said behind it."""
        shown = sum(len(t.turns[0].prompt.ids) for t in rows[::group])
        behind = sum(len(turn.prompt.ids) for t in rows for turn in t.turns[1:])
        said = sum(len(turn.reply.ids) for t in rows for turn in t.turns)
        images = {image: None for t in rows for turn in t.turns for image in turn.prompt.images}
        seen = sum(len(image.patches) for image in images) // self.shape.merge**2
        replies, before = [], 0
        for turn in rows[0].turns:
            before += len(turn.prompt.ids)
            replies.append((len(turn.reply.ids), before))
            before += len(turn.reply.ids)
        return self.step(shown + behind, seen, len(rows), replies, shown + behind + said, kl)
