"""Qwen2.5-VL as a policy, over the stock transformers classes and without torchvision."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoTokenizer,
    Cache,
    DynamicCache,
    PreTrainedTokenizerBase,
    Qwen2_5_VLForConditionalGeneration,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from mgpo.errors import UserError
from mgpo.policy.base import Policy
from mgpo.policy.chat import Chat
from mgpo.policy.checkpoint import policy_weights
from mgpo.policy.lora import Lora, add_lora, without_lora
from mgpo.policy.pixels import Patcher, PixelBudget
from mgpo.policy.positions import mrope
from mgpo.types import Pixels, Prompt
from mgpo.views import Frame, Sight

EMBEDDED = "embedded"


class Qwen25VL(Policy):
    """Qwen2.5-VL: absolute pixels of the resized input, mRoPE positions, windowed vision attention.

    The constructor is cheap and reads no weights; `load` does.

    Args:
        path: A checkpoint folder or hub name; "embedded" is the small model that ships with the package.
        max_pixels: Cap on the pixels of every image that is shown (paper: 1280 · 28 · 28).
        min_pixels: Floor on the pixels of every image that is shown (paper: 256 · 28 · 28).
        crop_max_pixels: Cap for sub-images where it differs from `max_pixels`.
        dtype: Weights' type, such as float32 or bfloat16.
        attention: Attention implementation, by its name in transformers.
        lora: Train these adapters alone.
        start: A checkpoint of an earlier run (.ckpt), whose weights take the place of those in `path`.
    """

    def __init__(
        self,
        path: str = EMBEDDED,
        max_pixels: int = 1280 * 28 * 28,
        min_pixels: int = 256 * 28 * 28,
        crop_max_pixels: int | None = None,
        dtype: str = "float32",
        attention: str = "sdpa",
        lora: Lora | None = None,
        start: str | None = None,
    ) -> None:
        super().__init__()
        self.lora, self.start = lora, start
        self.path = str(Path(__file__).parent.parent / "world" / "weights") if path == EMBEDDED else path
        self.dtype, self.attention = getattr(torch, dtype), attention
        self.pixel_caps = (min_pixels, max_pixels, crop_max_pixels or max_pixels)

    def load(self) -> "Qwen25VL":
        """Read tokenizer, image processor and weights. Raises UserError for a checkpoint of another architecture."""
        config = AutoConfig.from_pretrained(self.path)
        if config.model_type != "qwen2_5_vl":
            raise UserError(f"{self.path} holds a {config.model_type} model; this policy needs qwen2_5_vl")
        self.attach(
            Qwen2_5_VLForConditionalGeneration.from_pretrained(
                self.path, dtype=self.dtype, attn_implementation=self.attention
            ),
            AutoTokenizer.from_pretrained(self.path),
            Qwen2VLImageProcessorPil.from_pretrained(self.path),
        )
        if self.start is not None:
            try:
                self.load_state_dict(policy_weights(self.start))
            except RuntimeError as error:
                reason = str(error).splitlines()[-1].strip()
                raise UserError(f"the weights in {self.start} do not fit the model in {self.path} ({reason})") from None
        return self

    def attach(self, model: Any, tokenizer: PreTrainedTokenizerBase, processor: Qwen2VLImageProcessorPil) -> None:
        """Take a model that is already in memory."""
        if self.lora is not None:
            add_lora(model, self.lora)
        self.model = model
        self.patcher = Patcher(processor)
        self.tokenizer, self.processor = tokenizer, processor
        self.token_texts = tokenizer.batch_decode([[i] for i in range(len(tokenizer))])
        self.chat = Chat(tokenizer, self.patcher.merge)
        factor = self.patcher.patch * self.patcher.merge
        low, high, crop_high = self.pixel_caps
        self.sight = Sight(
            Frame.PIXELS,
            whole=PixelBudget(low, high, factor),
            crop=PixelBudget(min(low, crop_high), crop_high, factor),
        )
        pad = tokenizer.pad_token_id
        self.pad_id = pad if isinstance(pad, int) else self.chat.end_id
        banned = torch.zeros(model.config.text_config.vocab_size, dtype=torch.bool)
        banned[[i for i in tokenizer.added_tokens_decoder if i != self.chat.end_id]] = True
        banned[len(tokenizer) :] = True  # rows that pad the embedding to a round size
        self.register_buffer("banned", banned, persistent=False)

    def pixels(self, shown: Image.Image) -> Pixels:
        """The patches of an image that has the size at which the model is to see it."""
        return self.patcher(shown)

    def positions(self, prompt: Prompt, start: int) -> tuple[Tensor, int]:
        """Rotary positions (3, tokens) of a piece that begins at `start`, and the position behind it."""
        return mrope(prompt, start, self.chat.image_id, self.patcher.merge)

    def features(self, images: Sequence[Pixels]) -> Tensor:
        """(merged tokens of all images in order, width): every distinct image goes through the tower once."""
        distinct = list({id(image): image for image in images}.values())
        grid = torch.tensor([image.grid for image in distinct], device=self.device)
        patches = torch.cat([image.patches for image in distinct]).to(self.device, self.model.dtype)
        merged = self.model.model.visual(patches, grid_thw=grid).pooler_output
        sizes = [len(image.patches) // self.patcher.merge**2 for image in distinct]
        of = {id(image): rows for image, rows in zip(distinct, merged.split(sizes))}
        return torch.cat([of[id(image)] for image in images])

    def embed(self, ids: Tensor, features: Tensor | None) -> Tensor:
        """(rows, tokens, width) of embeddings, image features in the places of the placeholders, row by row.

        Raises:
            ValueError: If placeholders and features differ in number; nothing is trained on a shifted image.
        """
        embeddings = self.model.model.language_model.embed_tokens(ids)
        holes = ids == self.chat.image_id
        count = 0 if features is None else len(features)
        if int(holes.sum()) != count:
            raise ValueError(f"{int(holes.sum())} image placeholders, but {count} image features")
        if features is None:
            return embeddings
        return embeddings.masked_scatter(holes.unsqueeze(-1), features.to(embeddings.dtype))

    def new_cache(self) -> DynamicCache:
        """An empty key-value cache."""
        return DynamicCache(config=self.model.config.text_config)

    def decode(self, embeddings: Tensor, positions: Tensor, mask: Tensor | None, cache: Cache) -> Tensor:
        """Final hidden states (rows, tokens, width); `cache` grows by these tokens.

        `mask` is (rows, 1, tokens, cached + tokens), true where a token may look; None for plain causal.
        """
        return self.model.model.language_model(
            inputs_embeds=embeddings,
            position_ids=positions,
            attention_mask={"full_attention": mask},
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state

    def reference(self) -> AbstractContextManager | None:
        """Within it adapters are off; None where there are none."""
        return without_lora(self.model) if self.lora is not None else None

    def logits(self, hidden: Tensor) -> Tensor:
        """(…, vocabulary) in float32; tokens that may not be sampled are at minus infinity."""
        return self.model.lm_head(hidden).float().masked_fill(self.banned, -torch.inf)
