"""What a forward or backward pass holds in memory besides weights, in bytes: one formula a function.

Symbols: e bytes of a value, D width, A heads x head size, K the same of the key-value heads, F the MLP's inner
width, H heads, V vocabulary; of a row P prompt tokens, C continuation tokens, S = P + C. The formulas follow the
stock layers of transformers under its "sdpa" attention, whose kernels keep their inputs, their output and a number
a head, never a matrix of tokens by tokens; a mask, though, is turned into the values' type in every layer.
"""

from dataclasses import dataclass

from mgpo.plan.shape import Block, Shape

CHUNK = 1024  # rows of logits at a time, as in mgpo.policy.logprobs
FLOAT, DOUBLE = 4, 8


@dataclass(frozen=True)
class Micro:
    """One training micro-batch: `prefixes` prompts of P tokens, `rows` continuations of C tokens.

    `sampled` are the tokens of a row that are scored, `image_tokens` those of all its distinct images.
    """

    prefixes: int
    prompt: int
    rows: int
    continuation: int
    sampled: int
    image_tokens: int

    @property
    def seen(self) -> int:
        """Tokens that the rows look at, rows · S."""
        return self.rows * (self.prompt + self.continuation)


def norm(width: int, e: int, trained: bool) -> int:
    """RMSNorm keeps of a token its float32 input, its output, and where its weight is trained the normalised input."""
    return width * (FLOAT + e * (2 if trained else 1))


def mlp(block: Block, e: int) -> int:
    """The MLP keeps of a token gate, activated gate, up-projection and their product, 4F; 2F without a gate."""
    return e * (4 if block.gated else 2) * block.mlp


def decoder_layer(block: Block, micro: Micro, e: int, trained: bool) -> int:
    """One decoder layer keeps of the continuations, over its N rows:

    N · C · (2 norms + MLP + q and output 2A + a float a head) + keys and values, repeated for all heads because
    a mask rules out grouped attention, N · S · 2A + the mask N · C · S.
    """
    tokens = micro.rows * micro.continuation
    token = 2 * norm(block.width, e, trained) + mlp(block, e) + 2 * e * block.attention + FLOAT * block.heads
    return tokens * token + e * (2 * micro.seen * block.repeated + micro.continuation * micro.seen)


def decoder_prefix(block: Block, micro: Micro, e: int, trained: bool) -> int:
    """One decoder layer keeps the same of the prefixes, but with grouped keys and values (2K) and without a mask."""
    token = 2 * norm(block.width, e, trained) + mlp(block, e) + FLOAT * block.heads
    return micro.prefixes * micro.prompt * (token + 2 * e * (block.attention + block.key_value))


def decoder(block: Block, micro: Micro, e: int, trained: bool, checkpointing: bool = False) -> tuple[int, int]:
    """All decoder layers, the rotary angles and the last norm: of the continuations, and of the prefixes, of whose
    last layer nothing comes.

    With gradient checkpointing each layer keeps its input (D), its keys and values, and one at a time the rest.
    """
    tokens, prefix = micro.rows * micro.continuation, micro.prefixes * micro.prompt
    angles = 2 * e * block.attention // block.heads
    layer, before = decoder_layer(block, micro, e, trained), decoder_prefix(block, micro, e, trained)
    ends = tokens * (norm(block.width, e, trained) + angles)
    if not checkpointing:
        return ends + block.layers * layer, prefix * angles + (block.layers - 1) * before
    kept, kept_before = tokens * block.width + 2 * micro.seen * block.key_value, block.width + 2 * block.key_value
    return ends + layer + block.layers * e * kept, prefix * angles + before + block.layers * e * prefix * kept_before


def tower(shape: Shape, image_tokens: int, e: int, trained: bool, checkpointing: bool) -> int:
    """The vision tower keeps of a patch, in each layer: two norms, MLP, q k v as one (3D), rotated q and k (2D), the
    output by windows and in one (2D); then its pixels, and in the merger a norm and twice its width.

    Where it is frozen nothing but the features (two copies of D of the language model an image token).
    """
    block, patches = shape.vision, image_tokens * shape.merge**2
    features = 2 * e * image_tokens * shape.language.width
    if not trained:
        return features
    layer = 2 * norm(block.width, e, True) + mlp(block, e) + 7 * e * block.width + FLOAT * block.heads
    ends = e * shape.patch_values + norm(block.width, e, True) + 2 * e * block.width
    if checkpointing:
        return features + patches * (ends + layer + block.layers * e * block.width)
    return features + patches * (ends + block.layers * layer)


def logits_work(shape: Shape, scored: int, e: int, trained: bool) -> int:
    """A chunk of logits computed anew in the backward pass: log-probs, probabilities, and twice their products, in
    float32, and the new gradient of the head (V · D)."""
    head = e * shape.vocabulary * shape.language.width if trained else 0
    return min(scored, CHUNK) * shape.vocabulary * 4 * FLOAT + head


def layer_work(block: Block, micro: Micro, e: int, trained: bool) -> int:
    """The backward pass through a decoder layer: gradients of the MLP's inner values (2F), of the residual (2D), and
    of its largest weight (F · D)."""
    tokens = micro.rows * micro.continuation
    return e * (tokens * (2 * block.mlp + 2 * block.width) + (block.mlp * block.width if trained else 0))


def cache(block: Block, tokens: int, e: int) -> int:
    """Keys and values of all layers: 2 · layers · K for each cached token."""
    return 2 * block.layers * block.key_value * e * tokens


def prefill_work(block: Block, rows: int, new: int, seen: int, e: int) -> int:
    """Showing `new` tokens to each row, without gradients: the residual and its norm (3D), the mask, and the largest of
    the MLP's inner values (3F), the rotation (4A), and attention itself (q and output 2A; keys and values repeated
    for all heads, 2A for each token that is seen; the mask in the values' type)."""
    tokens, pairs = rows * new, rows * new * seen
    repeated = 2 * block.repeated * rows * seen if block.repeated > block.key_value else 0
    attention = 2 * block.attention * tokens + repeated + pairs
    return pairs + e * (tokens * 3 * block.width + max(tokens * 3 * block.mlp, tokens * 4 * block.attention, attention))


def tower_work(shape: Shape, image_tokens: int, e: int, host: bool = False) -> int:
    """The vision tower without gradients: of a patch its pixels and the larger of MLP (3F, 2D) and attention (10D; in
    half precision 5D and six of the rotation's values in float32). On a host, the float32 pixels before that."""
    block = shape.vision
    rotated = 6 * FLOAT if e < FLOAT else 5 * e
    inner = max(e * (3 * block.mlp + 2 * block.width), (5 * e + rotated) * block.width)
    cast = (FLOAT + e) * shape.patch_values if host and e < FLOAT else 0
    return image_tokens * shape.merge**2 * max(cast, e * shape.patch_values + inner)


def sampling_work(shape: Shape, rows: int, nucleus: bool) -> int:
    """Drawing a token in every row: logits and log-probs in float32, probabilities and their sums in float64, of all
    V ids; where top-p cuts, they are sorted too."""
    return rows * shape.vocabulary * (2 * FLOAT + (7 if nucleus else 2) * DOUBLE)
