"""What the families share: a published checkpoint in its stock transformers class, without torchvision."""

import copy
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from transformers import Cache, DynamicCache, PreTrainedTokenizerBase
from transformers.image_processing_backends import PilBackend
from transformers.modeling_layers import GradientCheckpointingLayer

from mgpo.answers.thoughts import is_tag
from mgpo.errors import UserError
from mgpo.images.views import VisionResolution
from mgpo.policy.base import Policy
from mgpo.policy.chat import Chat, control_tokens
from mgpo.policy.decoding import cuda_graphs as graphs
from mgpo.policy.decoding.prompt_cache import DEVICES, SharedCache
from mgpo.policy.decoding.row_cache import RowCache
from mgpo.policy.features import Features
from mgpo.policy.hub.adapters import Adapters, read_adapters
from mgpo.policy.hub.checkpoint_files import base_of, read_config, read_processor, read_tokenizer, shipped_families
from mgpo.policy.hub.run_weights import policy_weights
from mgpo.policy.hub.templates import choose_template
from mgpo.policy.hub.weight_files import hollow, read_weights
from mgpo.policy.liger import fuse_layers, load_kernel
from mgpo.policy.lora import Lora, add_lora, at_rest, without_lora
from mgpo.policy.packed_layers import use_packing
from mgpo.policy.passes.head import widen
from mgpo.policy.recompute import recompute
from mgpo.policy.trainable import save_trained_only
from mgpo.types import Pixels

TYPES = ("float32", "bfloat16", "float16", "float64", "auto")


class Pretrained(Policy):
    """A family says how it sees (`resolution_of`, `pixels`, `tower`), places tokens (`positions`) and decodes.

    The constructor is cheap and reads no weights; `load` does.

    Args:
        path: A checkpoint folder or hub name, or that of adapters (peft's LoRA), which name their base.
        dtype: Weights' type, such as float32 or bfloat16, or auto, the checkpoint's own; log-probs are float32 anyway.
            Weights trained in bfloat16 lose updates smaller than about 1/256 of themselves, most of AdamW's at a rate
            of 1e-6: take float32 under trainer.precision bf16-mixed, or adapters on a base in bfloat16.
        lora: Train these adapters alone, in float32.
        freeze_vision: Train the language model alone; the tower and what projects its features stay as they are.
        gradient_checkpointing: In training keep the inputs of layers alone and run them again in the backward pass:
            less memory, about a third more time, the same gradients. Or of a share of the layers, such as 0.5.
        fused_head: Log-probs in training by liger-kernel's fused kernel, on GPUs; entropies are then not known.
        start: A checkpoint of an earlier run (.ckpt), whose weights take the place of those in `path`; or a folder
            of adapters to go on from, as `export --merge false` and peft save them.
        max_prompt_tokens: Tokens that may stand before a reply: texts, pictures, earlier replies. A question that has
            more is left out, and a conversation that gets more ends. By default as many as the model has positions
            for, or an engine its `max_model_len`, less a reply.
    """

    model_types: ClassVar[tuple[str, ...]]  # as in config.json
    processor_class: ClassVar[type[PilBackend]]
    slot: ClassVar[str]  # what the chat template writes for an image
    image_token: ClassVar[str]  # whose embedding an image feature replaces
    marks: ClassVar[tuple[str, ...]]  # what else a tokenizer of this family must know
    video_processor: ClassVar[str | None] = None  # for which loaders ask even where nobody shows a video

    def __init__(
        self,
        path: str,
        dtype: str = "float32",
        lora: Lora | None = None,
        freeze_vision: bool = False,
        gradient_checkpointing: bool | float = False,
        fused_head: bool = False,
        start: str | None = None,
        max_prompt_tokens: int | None = None,
    ) -> None:
        super().__init__()
        if max_prompt_tokens is not None and max_prompt_tokens < 1:
            raise UserError(f"policy.max_prompt_tokens is {max_prompt_tokens}; a prompt has at least 1 token")
        self.max_prompt_tokens = max_prompt_tokens
        if freeze_vision and lora is not None and lora.vision:
            raise UserError("policy.freeze_vision and policy.lora.vision contradict each other; drop one of them")
        if dtype not in TYPES:
            raise UserError(f"policy.dtype is {dtype}; it is one of {', '.join(TYPES)}")
        if not 0 <= gradient_checkpointing <= 1:
            raise UserError(
                f"policy.gradient_checkpointing is {gradient_checkpointing}; it is true, false, or the share of layers "
                "that are run again, such as 0.5"
            )
        if fused_head:
            load_kernel()
        self.path, self.lora, self.start, self.fused_head = path, lora, start, fused_head
        self.freeze_vision, self.gradient_checkpointing = freeze_vision, gradient_checkpointing
        self.kind = dtype
        self.dtype = torch.float32 if dtype == "auto" else getattr(torch, dtype)
        self.adapters: Adapters | None = None

    def load(self, weights: bool = True) -> Self:
        """Read tokenizer, image processor and weights.

        Args:
            weights: Without them prompts can be made and their tokens counted, and nothing else.

        Raises:
            UserError: For a checkpoint of another family, with missing files, or that can't be fetched.
        """
        self.adapters = read_adapters(self.path)
        if self.adapters is not None:
            self.path = base_of(self.path)
        elif self.start is not None and Path(self.start).is_dir() and (adapters := read_adapters(self.start)):
            self.adapters, self.start = adapters, None
        config = read_config(self.path)
        if config.model_type not in self.model_types:
            right = shipped_families().get(config.model_type)
            better = f"take class_path {right.__module__}.{right.__name__}" if right else "no family here takes that"
            raise UserError(
                f"{self.path} holds a {config.model_type} model; this policy needs {self.model_types[0]}; {better}"
            )
        tokenizer = read_tokenizer(self.path)
        choose_template(tokenizer, self.path, self.slot)
        processor = read_processor(self.path, self.processor_class, config.vision_config)
        if not weights:
            self.adapters = self.lora = None  # which change no prompt
            self.attach(hollow(config), tokenizer, processor)
            return self
        # Prompts are shared and rows have holes, so a mask says of every pair of tokens whether one sees the other.
        model = read_weights(self.path, dtype=self.kind, attn_implementation="sdpa")
        self.dtype = model.dtype
        self.attach(model, tokenizer, processor)
        if self.start is not None:
            try:
                self.load_state_dict(policy_weights(self.start))
            except UserError as error:
                raise UserError(f"policy.start, {self.start}: {error}") from None
        return self

    def attach(self, model: Any, tokenizer: PreTrainedTokenizerBase, processor: Any) -> None:
        """Take a model that is in memory, with what belongs to it. Raises UserError for another family's tokenizer."""
        needed = tuple(dict.fromkeys((self.slot, self.image_token, *self.marks)))
        rows = len(model.get_input_embeddings().weight)
        control, known = control_tokens(tokenizer, needed, rows)
        if missing := [token for token in needed if token not in control]:
            raise UserError(
                f"the tokenizer in {tokenizer.name_or_path or self.path} lacks {', '.join(missing)}: "
                f"this is not a {self.model_types[0]} checkpoint"
            )
        if self.packs:
            use_packing(model.model.language_model)
        fuse_layers(model)
        widen(model.lm_head)
        self.choose_trained(model)
        eyes = [p for name, p in model.model.named_parameters() if not name.startswith("language_model.")]
        self.seen = Features(frozen=not any(p.requires_grad for p in eyes))
        if self.gradient_checkpointing:
            decoder = list(model.model.language_model.layers)
            blocks = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer) and m not in decoder]
            recompute(decoder, blocks, float(self.gradient_checkpointing))
        self.model, self.tokenizer, self.processor = model, tokenizer, processor
        self.max_positions = getattr(model.config.text_config, "max_position_embeddings", None)
        self.resolution = self.resolution_of(processor)
        backend: Any = tokenizer.backend_tokenizer  # asked once for all: there may be a quarter of a million of them
        self.token_texts = backend.decode_batch([[i] for i in range(known)], skip_special_tokens=False)
        self.chat = Chat(tokenizer, control, self.slot, self.image_token, self.expand)
        pad = tokenizer.pad_token_id
        self.pad_id = pad if isinstance(pad, int) and pad < rows else self.chat.end_id
        banned = torch.zeros(rows, dtype=torch.bool)
        banned[[i for token, i in control.items() if i != self.chat.end_id and not is_tag(token)]] = True
        banned[known:] = True  # rows that pad the embedding to a round size
        self.register_buffer("banned", banned, persistent=False)

    def choose_trained(self, model: Any) -> None:
        """Freeze what is not trained. Autograd keeps nothing of a tower whose inputs and weights have no gradient."""
        if self.adapters is not None:
            self.lora = self.adapters.put_into(model, self.lora)
        elif self.lora is not None:
            add_lora(model, self.lora)
        if self.lora is not None:
            self._check_adapters(model)
        elif self.freeze_vision:
            model.model.requires_grad_(False)
            model.model.language_model.requires_grad_(True)
        save_trained_only(self)

    def _check_adapters(self, model: Any) -> None:
        if self.fused_head and hasattr(model.lm_head, "base_layer"):
            raise UserError("policy.fused_head takes the head's own weight, not its adapter; drop one of them")
        language = {id(weight) for weight in (*model.model.language_model.parameters(), *model.lm_head.parameters())}
        if self.freeze_vision and any(p.requires_grad and id(p) not in language for p in model.parameters()):
            raise UserError("policy.freeze_vision contradicts the adapters on the vision tower; drop one of them")

    @abstractmethod
    def resolution_of(self, processor: Any) -> VisionResolution:
        """The coordinate frame, and the sizes at which images are seen, by a checkpoint's image processor."""
        ...

    @abstractmethod
    def expand(self, image: Pixels) -> str:
        """Give what takes the slot's place in the chat: a placeholder for each token of the image, and their frame."""
        ...

    @abstractmethod
    def tower(self, images: Sequence[Pixels]) -> Sequence[Tensor]:
        """Give the features (image tokens, width) of each image, before anything is cached."""
        ...

    def saved_options(self) -> dict[str, Any]:
        """Arguments besides `path` and `dtype` with which an export sees as this policy does."""
        return {}

    def saved_processor(self) -> Any:
        """The image processor of an export, with which a server shows pictures at the size of training."""
        return copy.deepcopy(self.processor)

    def features(self, images: Sequence[Pixels]) -> Tensor:
        """The features of all images in order, (image tokens, width): each distinct one goes through the tower once."""
        return self.seen.of(images, self.tower, self.device, isinstance(self, FSDPModule) and not self.is_gathered)

    def embed(self, ids: Tensor, features: Tensor | None, counted: bool = False) -> Tensor:
        """Embeddings (rows, tokens, width) of ids, with image features in the placeholders' places, row by row.

        Raises:
            ValueError: If placeholders and features differ in number; not where they were `counted` on the host, so
                that nothing waits for the device.
        """
        embeddings = self.model.model.language_model.embed_tokens(ids)
        if features is None and ids.shape[1] == 1:
            return embeddings  # a sampled token, which is no placeholder; counting would wait for the device
        places = ids == self.chat.image_id
        count = 0 if features is None else len(features)
        if not counted and int(places.sum()) != count:
            raise ValueError(f"{int(places.sum())} image placeholders, but {count} image features")
        if features is None:
            return embeddings
        return embeddings.masked_scatter(places.unsqueeze(-1), features.to(embeddings.dtype))

    def new_cache(self) -> Cache:
        """An empty key-value cache, through which gradients go."""
        return DynamicCache(config=self.model.config.text_config)

    def new_row_cache(self) -> RowCache:
        """An empty cache for rollouts; where attention alone joins tokens, one that holds shared prompts once."""
        config = self.model.config.text_config
        if self.packs and self.device.type in DEVICES:
            return SharedCache(config, graphs.usable(self))
        return RowCache(config)

    def run(self, embeddings: Tensor, positions: Tensor, mask: Any, cache: Cache | None, **options: Any) -> Tensor:
        """The stock decoder's final hidden states. `mask` may be a dictionary by kind of layer."""
        if isinstance(cache, SharedCache) and cache.prompts:
            options["rows"] = cache
        return self.model.model.language_model(
            inputs_embeds=embeddings,
            position_ids=positions,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=cache is not None,
            **options,
        ).last_hidden_state

    def logits(self, hidden: Tensor) -> Tensor:
        """The logits (…, vocabulary) of states (…, width), in float32; minus infinity where nothing may be sampled."""
        return self.model.lm_head(hidden).masked_fill_(self.banned, -torch.inf)

    @property
    def head_weight(self) -> Tensor:
        """The matrix (vocabulary, width) of the language head."""
        return self.model.lm_head.weight

    def reference(self) -> AbstractContextManager | None:
        """Within it adapters are off; None where there are none."""
        return without_lora(self.model) if self.lora is not None else None

    def at_rest(self) -> AbstractContextManager[None]:
        """Within it weights stay as they are, and adapters are merged or cast once; no pass has gradients."""
        return at_rest(self.model) if self.lora is not None else nullcontext()
