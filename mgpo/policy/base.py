"""The interface of a model family: what rollouts and training need of a policy, and nothing else."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from PIL import Image
from torch import Tensor, nn

from mgpo.images.views import Frame, Size, VisionResolution
from mgpo.policy.passes.packing import Packing
from mgpo.types import Pixels, Prompt

if TYPE_CHECKING:
    from mgpo.policy.chat import Chat
    from mgpo.policy.decoding.row_cache import RowCache

T = TypeVar("T")


class Policy(nn.Module, ABC):
    """A vision-language model in the pieces that rollouts and training put together.

    Both call the same `features`, `decode` and `logits`, so that they can differ only in how rows are
    laid out. A new family is a subclass in a file of its own, mostly of `Pretrained` or `QwenVL`.

    Example:
        Qwen2-VL, whose boxes go from 0 to 1000. In my_family.py::

            from mgpo.images import Frame
            from mgpo.policy import QwenVL


            class Qwen2VL(QwenVL):
                model_types = ("qwen2_vl",)
                frame = published_frame = Frame.THOUSAND
                video_processor = "Qwen2VLVideoProcessor"

                def decode(self, ids, features, positions, mask, cache):
                    return self.run(self.embed(ids, features), positions, {"full_attention": mask}, cache)

        and on the command line ``--model.policy my_family.Qwen2VL --model.policy.path Qwen/Qwen2-VL-2B-Instruct``.
        `mgpo doctor` compares it with the library's own model.
    """

    chat: "Chat"
    resolution: VisionResolution
    pad_id: int  # fills holes: the ends of padded rows, and rows that have ended; never shown, never sampled
    banned: Tensor  # (vocabulary,): ids that may not be sampled
    token_texts: list[str]  # the text of each id, for stop texts
    is_gathered = False  # whole on every rank, for rollouts, where weights are sharded
    fused_head = False  # whether log-probs in training come from a fused kernel, which wants `head_weight`
    max_positions: int | None = None  # that the model knows
    max_prompt_tokens: int | None = None  # that may stand before a reply
    packs = False  # whether `decode` takes a packing: tokens know of each other by plain causal attention alone
    fixed = False  # whether the operations of a pass depend on its shape alone, so that it could be replayed
    published_frame: Frame | None = None  # in which its publisher has it write boxes: `mgpo doctor` names one in this

    def __init__(self) -> None:
        super().__init__()
        self.model: Any = None  # the family's own network, once it is loaded
        self.enders_of: dict[str | None, frozenset[int]] = {}

    def forward(self, work: Callable[..., T], *inputs: Any) -> T:
        """`work(policy, *inputs)`: a pass whose beginning and end a sharded policy has to know.

        Passes with gradients go this way, and so do others unless they are within `mgpo.distributed.gathered`.
        """
        return work(self, *inputs)

    @abstractmethod
    def load(self) -> "Policy":
        """Read tokenizer, image processor and weights, and give the policy back."""
        ...

    @abstractmethod
    def pixels(self, shown: Image.Image) -> Pixels:
        """An image that has the size at which the model is to see it, as the vision tower takes it."""
        ...

    @abstractmethod
    def blank(self, size: Size) -> Pixels:
        """What stands for an image that is seen at this size where only its tokens are counted: its grid alone."""
        ...

    @abstractmethod
    def positions(self, prompt: Prompt, start: int) -> tuple[Tensor, int]:
        """Rotary positions (3, tokens) of a piece that begins at `start`, and the position behind it.

        The axes are time, height and width; of a text token all three are the same.
        """
        ...

    @abstractmethod
    def features(self, images: Sequence[Pixels]) -> Tensor:
        """What `decode` puts in the placeholders' places: (image tokens of all images in order, width)."""
        ...

    @abstractmethod
    def new_cache(self) -> Any:
        """What `decode` remembers of the tokens before, in training: gradients go through it."""
        ...

    @abstractmethod
    def new_row_cache(self) -> "RowCache":
        """What `decode` remembers in rollouts, without gradients: rows that are repeated, set aside and taken up."""
        ...

    @abstractmethod
    def decode(
        self,
        ids: Tensor,
        features: Tensor | None,
        positions: Tensor,
        mask: Tensor | None,
        cache: Any,
        packing: Packing | None = None,
    ) -> Tensor:
        """Final hidden states (rows, tokens, width) of `ids` (rows, tokens); `cache` grows by these tokens.

        Image features take the places of the placeholders, row by row. `mask` is (rows, 1, tokens,
        cached + tokens), true where order and holes let a token look; None for rows that begin here.
        The tokens of a row stand before its holes. `packing` says what a single row without a cache is made of
        and for which of its tokens states are returned.

        Raises:
            ValueError: If placeholders and features differ in number; nothing is trained on a shifted image.
        """
        ...

    def stock_inputs(self, images: Sequence[Pixels], places: Tensor) -> dict[str, Tensor] | None:
        """What `model` itself takes beside token ids (1, tokens), for `mgpo doctor` to compare with; `places` is true
        at the images' placeholders, of which there may be none. None where that is not known."""
        return None

    @abstractmethod
    def logits(self, hidden: Tensor) -> Tensor:
        """The logits (…, vocabulary) of states (…, width), in float32; minus infinity where nothing may be sampled."""
        ...

    def enders(self, stop_text: str | None) -> frozenset[int]:
        """Ids after which a reply may have ended: at its end of turn, or at the last character of the stop text."""
        if stop_text not in self.enders_of:
            last = stop_text[-1] if stop_text else None
            ids = [i for i, text in enumerate(self.token_texts) if last and last in text]
            self.enders_of[stop_text] = frozenset([self.chat.end_id, *ids])
        return self.enders_of[stop_text]

    def at_rest(self) -> AbstractContextManager[None]:
        """Within it weights stay as they are, and what can be done once for all passes is done; none has gradients."""
        return nullcontext()

    @property
    @abstractmethod
    def head_weight(self) -> Tensor:
        """The matrix (vocabulary, width) of a language head that is one matrix without a bias."""
        ...

    def reference(self) -> AbstractContextManager | None:
        """Within it the policy is its base, with adapters off; None where it has none."""
        return None

    @property
    def device(self) -> torch.device:
        """The device on which ids, positions and masks have to lie."""
        return self.banned.device


@contextmanager
def evaluating(policy: nn.Module, switch: bool = True) -> Iterator[None]:
    """Within it the policy is in evaluation mode, and then as it was before; nothing is done without `switch`."""
    training = policy.training
    if switch:
        policy.eval()
    try:
        yield
    finally:
        if switch:
            policy.train(training)
