"""What a forward or backward pass holds in memory besides weights, in bytes: one formula a function.

Symbols: e bytes of a value that a linear layer computes, w bytes of a weight and of the residual stream, D width,
A heads x head size, K the same of the key-value heads, F the MLP's inner width, H heads, V vocabulary; of a row
P prompt tokens, C continuation tokens, S = P + C. The formulas follow the stock layers of transformers under its "sdpa"
attention, whose kernels keep their inputs, their output and a number a head, never a matrix of tokens by tokens; a
mask, though, is turned into the values' type in every layer.

Where w > e (autocast), a linear layer keeps casts of its input and of its weight, one for each time that it is called,
and rotated queries and keys are in w bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mgpo.policy.passes.logprobs import CHUNK, LEAST_ROWS
from mgpo.policy.recompute import rerun
from mgpo.rollout.draws import BLOCK
from mgpo.tools.plan.shape import Block, Shape

FLOAT, DOUBLE = 4, 8


@dataclass(frozen=True)
class Types:
    """Bytes of a weight (w) and of what layers compute (e); fewer of the latter under autocast. Norms and gates that
    are `fused`, by liger-kernel, keep less."""

    weight: int
    value: int
    fused: bool = False

    @property
    def cast(self) -> int:
        """Bytes of a value in a cast weight or input, under autocast; 0 where nothing is cast."""
        return self.value if self.weight > self.value else 0


@dataclass(frozen=True)
class Trained:
    """What is trained: adapters of a rank (inputs and outputs of those of the decoder, of those of the tower) that
    compute in `itemsize` bytes, or all, or all but the tower."""

    rank: int = 0
    decoder: Sequence[tuple[int, int]] = ()
    tower: Sequence[tuple[int, int]] = ()
    freeze_vision: bool = False
    itemsize: int = FLOAT

    @property
    def weights(self) -> bool:
        """Whether the model's own weights are trained, and not adapters alone."""
        return not self.rank

    @property
    def sees(self) -> bool:
        """Whether gradients reach into the vision tower."""
        return bool(self.tower) if self.rank else not self.freeze_vision

    def copies(self, types: Types) -> bool:
        """Adapters of a wider type than the base keep copies of what they read, and nothing else keeps it."""
        return bool(self.rank) and types.weight < self.itemsize

    def beside(self, block: "Block", types: Types) -> int:
        """While an adapter's output is added to its layer's in float32, two more of that are there (2F of the MLP's),
        and where that is wider the cast of its input (D). To a narrower base it is added in place."""
        if not self.decoder or types.weight < FLOAT:
            return 0
        return self.itemsize * (2 * block.mlp + self.copies(types) * block.width)


@dataclass(frozen=True)
class Kept:
    """Activations that a forward pass keeps, and what of them one layer at a time computes again."""

    all: int
    again: int = 0


@dataclass(frozen=True)
class Micro:
    """One training micro-batch: `prefixes` prompts of P tokens, `rows` continuations of C tokens.

    `sampled` are the tokens of a row that are scored, `image_tokens` those of all its distinct images, `anew` those of
    its tokens that are in conversations which see neither the prompt nor each other.
    """

    prefixes: int
    prompt: int
    rows: int
    continuation: int
    sampled: int
    image_tokens: int
    anew: tuple[int, ...] = ()

    @property
    def pairs(self) -> float:
        """Tokens that see each other: each conversation itself, causally, and the first of a row its prompt."""
        own = self.continuation - sum(self.anew)
        row = own * self.prompt + own**2 / 2 + sum(tokens**2 for tokens in self.anew) / 2
        return self.prefixes * self.prompt**2 / 2 + self.rows * row

    @property
    def tokens(self) -> int:
        """Tokens that a pass puts through the decoder: each prompt once, and all continuations."""
        return self.prefixes * self.prompt + self.rows * self.continuation


def norms(width: int, types: Types, trained: Trained, reads: tuple[int, ...]) -> int:
    """RMSNorms keep of a token their float32 input, their output, and where their weight is trained the normalised
    input; under autocast in place of the output a cast for each layer that reads it. Fused ones keep the residual
    stream in place of the former and of the latter."""
    normalised, output = types.weight if trained.weights else 0, 0 if trained.copies(types) else types.value
    inputs = types.weight if types.fused else FLOAT + normalised
    return sum(width * (inputs + (types.cast * r or output)) for r in reads)


def mlp(block: Block, types: Types, trained: Trained) -> int:
    """The MLP keeps of a token gate, activated gate, up-projection and their product, 4F, of a fused one all but the
    second; 2F without a gate."""
    return types.value * ((4 - types.fused if block.gated else 2) - trained.copies(types)) * block.mlp


def adapters(sides: Sequence[tuple[int, int]], types: Types, trained: Trained) -> int:
    """Adapters keep of a token what lies between their two layers, and copies of their inputs."""
    copy = trained.itemsize if trained.copies(types) else 0
    return sum(copy * inputs + trained.itemsize * trained.rank for inputs, _ in sides)


def decoder_token(block: Block, types: Types, trained: Trained) -> int:
    """One decoder layer keeps of a token two norms, which three and two layers read, the MLP, a float a head, and what
    its adapters keep."""
    own = norms(block.width, types, trained, (3, 2)) + mlp(block, types, trained) + FLOAT * block.heads
    return own + adapters(trained.decoder, types, trained) // block.layers


def decoder(
    block: Block, micro: Micro, types: Types, trained: Trained, checkpointing: float = 0.0, packs: bool = False
) -> Kept:
    """All decoder layers, the rotary angles and the last norm. A layer keeps of a token 2 norms, MLP, a float a head,
    q and output (2A), keys and values (2K); the last one, which is passed for the scored tokens alone, of those.

    With gradient checkpointing a share of the layers, the first ones, keep their input (D), in families that pack
    attention's output (A) and a float a head too, and one at a time the rest.
    """
    token = decoder_token(block, types, trained) + 2 * types.value * (block.attention + block.key_value)
    casts = types.cast * block.parameters
    layer = micro.tokens * token + casts
    angles = 2 * types.weight * block.attention // block.heads
    scored = micro.rows * micro.sampled
    ends = micro.tokens * angles + scored * norms(block.width, types, trained, (1,))
    again = rerun(block.layers, checkpointing)
    attended = types.value * block.attention + FLOAT * block.heads if packs else 0
    kept = again * micro.tokens * (types.weight * block.width + attended)
    if again < block.layers:
        kept += (block.layers - again - 1) * layer + scored * token + casts
    return Kept(ends + kept, layer - micro.tokens * attended if again else 0)


def tower(shape: Shape, image_tokens: int, types: Types, trained: Trained, checkpointing: float) -> Kept:
    """The vision tower keeps of a patch, in each layer: two norms, MLP, q k v as one (3D), rotated q and k (2D), the
    output by windows and in one (2D), what its adapters keep; then its pixels, and in the merger a norm and twice its
    width. Its residual stream is in e bytes, since it begins with a convolution.

    Where it is frozen nothing but the features (two copies of D of the language model an image token).
    """
    block, patches, e = shape.vision, image_tokens * shape.merge**2, types.value
    seen = features(shape, image_tokens, types)
    if not trained.sees:
        return Kept(seen)
    own = Types(e, e)
    reads = types.cast * block.width  # layers behind the first that read the same norm
    layer = norms(block.width, own, trained, (1, 1)) + reads + mlp(block, own, trained) + 7 * e * block.width
    layer += FLOAT * block.heads + adapters(trained.tower, types, trained) // block.layers
    ends = e * shape.still_values + norms(block.width, own, trained, (1,)) + 2 * e * block.width
    whole = patches * layer + types.cast * block.parameters
    again = rerun(block.layers, checkpointing)
    kept = again * patches * e * block.width + (block.layers - again) * whole
    return Kept(seen + patches * ends + kept, whole if again else 0)


def features(shape: Shape, image_tokens: int, types: Types) -> int:
    """What the tower gives of so many image tokens, two copies of it (D of the language model)."""
    return (types.weight + types.value) * image_tokens * shape.language.width


def logits_work(shape: Shape, scored: int, types: Types, trained: bool) -> int:
    """A chunk of logits in the backward pass, of the sum of their exponentials what that is made from (2), and two
    gradients, in float32; and the new gradient of the head (V · D), under autocast the head's cast and that one's
    gradient too. The gradient of entropies is made where those of the exponentials are not yet there, and fits."""
    head = shape.vocabulary * shape.language.width
    new = (types.weight if trained else 0) + types.cast * (2 if trained else 1)
    return _chunk(shape, scored) * 5 * FLOAT + head * new


def scoring_work(shape: Shape, scored: int, types: Types) -> int:
    """A chunk of logits without gradients and what entropies are made from (2), in float32; under autocast the head's
    cast."""
    head = types.cast * shape.vocabulary * shape.language.width
    return _chunk(shape, scored) * 2 * FLOAT + head


def _chunk(shape: Shape, scored: int) -> int:
    """Logits that are in memory at a time."""
    return min(scored * shape.vocabulary, max(CHUNK, shape.vocabulary * min(shape.language.width, LEAST_ROWS)))


def layer_work(block: Block, micro: Micro, types: Types, trained: bool) -> int:
    """The backward pass through a decoder layer: gradients of the MLP's inner values (2F), of the residual (2D), and
    of its largest weight (F · D) and that one's cast."""
    largest = block.mlp * block.width
    values = micro.tokens * (2 * types.value * block.mlp + 2 * types.weight * block.width)
    return values + ((types.weight + types.cast) * largest if trained else 0)


def cache(block: Block, tokens: int, types: Types) -> int:
    """Keys and values of all layers: 2 · layers · K for each cached token; rotated keys are in w bytes."""
    return (types.weight + types.value) * block.layers * block.key_value * tokens


def prefill_work(block: Block, rows: int, new: int, seen: int, types: Types, trained: Trained) -> int:
    """Showing `new` tokens to each row, without gradients: the residual and its norm (3D), the mask, and the largest of
    the MLP's inner values (3F, and its weight's cast; 2F and what an adapter adds up), the rotation (4A), and attention
    itself (q and output 2A; keys and values repeated for all heads, 2A for each token that is seen; the mask in the
    values' type)."""
    tokens, pairs, e, w = rows * new, rows * new * seen, types.value, types.weight
    repeated = 2 * block.repeated * rows * seen if block.repeated > block.key_value else 0
    again = types.cast * block.repeated * rows * seen + w * block.repeated * rows * seen if types.cast else 0
    attention = e * (2 * block.attention * tokens + repeated + pairs) + again
    inner = tokens * max(3 * e * block.mlp, 2 * e * block.mlp + trained.beside(block, types))
    inner += types.cast * block.mlp * block.width
    return pairs + w * tokens * 3 * block.width + max(inner, w * tokens * 4 * block.attention, attention)


def tower_work(shape: Shape, image_tokens: int, types: Types) -> int:
    """The vision tower without gradients: of a patch its pixels and the larger of MLP (3F, 2D) and attention (14D; in
    half precision 5D and six of the rotation's values in float32)."""
    block, e = shape.vision, types.value
    rotated = 6 * FLOAT if e < FLOAT else 9 * e
    inner = max(e * (3 * block.mlp + 2 * block.width), (5 * e + rotated) * block.width)
    seen = types.weight * shape.still_values + max(inner, types.cast * shape.still_values)
    return image_tokens * shape.merge**2 * seen


def attention_casts(block: Block, seen: int, types: Types) -> int:
    """Decoding under autocast casts, in a layer, the keys of all `seen` tokens, repeated for all heads as the values
    are."""
    return (types.weight + 2 * types.value) * block.repeated * seen if types.cast else 0


def sampling_work(shape: Shape, rows: int, nucleus: bool, types: Types) -> int:
    """Drawing a token in every row: logits and log-probs in float32, probabilities and their sums in float64, of all
    V ids; of many ids nothing in float64. Where top-p cuts, they are sorted too. Under autocast the head's cast is
    there before that."""
    head = types.cast * shape.vocabulary * shape.language.width + rows * shape.vocabulary * types.value
    many = 3 * FLOAT if shape.vocabulary > BLOCK**2 else 2 * FLOAT + 2 * DOUBLE
    drawn = rows * shape.vocabulary * (2 * FLOAT + 7 * DOUBLE if nucleus else many)
    return max(head if types.cast else 0, drawn)
