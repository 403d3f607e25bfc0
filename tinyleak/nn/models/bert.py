"""BERT for masked-language modelling: hide some words of a sentence and predict them.

Devlin, Chang, Lee and Toutanova, "BERT: Pre-training of Deep Bidirectional Transformers for
Language Understanding" (2019), section 3. Parameters have the names and layouts of Hugging Face's
`BertForMaskedLM`; the output layer is the embedding table once more, so it has no name of its own.

Tokens enter as the rows of the embedding table that they stand for, since that is what an attacker
can vary: `model(params, model.embed(params, tokens))`.

Lesson: lessons/13_text.py
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tinyleak.backend import Array, array_module
from tinyleak.nn.layers import linear
from tinyleak.nn.losses import log_softmax
from tinyleak.nn.models.transformer import Transformer
from tinyleak.nn.products import attention
from tinyleak.ops import inner, reshape, transpose
from tinyleak.tensor import Tensor

WORDS = "bert.embeddings.word_embeddings.weight"
POSITIONS = "bert.embeddings.position_embeddings.weight"
SEGMENTS = "bert.embeddings.token_type_embeddings.weight"
OUTPUT_BIAS = "cls.predictions.bias"
OUTPUT_LAYER = "cls.predictions.transform.dense"


@dataclass(frozen=True)
class Bert(Transformer):
    """A BERT of any size: a `Transformer`."""

    segments: int = 2  # how many kinds of sentence are told apart

    word_table: ClassVar[str] = WORDS
    position_table: ClassVar[str] = POSITIONS
    causal: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.segments < 1:
            raise ValueError(f"{self} was asked for; every count must be at least 1")

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each parameter, by name."""
        width, hidden = self.width, self.intermediate
        shapes: dict[str, tuple[int, ...]] = {
            WORDS: (self.vocabulary, width),
            POSITIONS: (self.positions, width),
            SEGMENTS: (self.segments, width),
            **_norm("bert.embeddings.LayerNorm", width),
        }
        for layer in range(self.layers):
            at = f"bert.encoder.layer.{layer}"
            for part in ("query", "key", "value"):
                shapes |= _dense(f"{at}.attention.self.{part}", width, width)
            shapes |= _dense(f"{at}.attention.output.dense", width, width)
            shapes |= _norm(f"{at}.attention.output.LayerNorm", width)
            shapes |= _dense(f"{at}.intermediate.dense", hidden, width)
            shapes |= _dense(f"{at}.output.dense", width, hidden)
            shapes |= _norm(f"{at}.output.LayerNorm", width)
        return {
            **shapes,
            OUTPUT_BIAS: (self.vocabulary,),
            **_dense(OUTPUT_LAYER, width, width),
            **_norm("cls.predictions.transform.LayerNorm", width),
        }

    def init(
        self, rng: np.random.Generator, std: float = 0.02, dtype: str = "float64"
    ) -> dict[str, Array]:
        """Draw parameters as BERT does: weights N(0, std²), biases 0, normalisation weights 1."""
        params = {}
        for name, shape in self.shapes.items():
            if len(shape) > 1:
                params[name] = (std * rng.standard_normal(shape)).astype(dtype)
            else:
                params[name] = np.full(shape, name.endswith("LayerNorm.weight"), dtype=dtype)
        return params

    def first_layer(self, by_name: Mapping[str, Array]) -> list[Array]:
        """Return, of weights or their gradients, those of the layers that see `first_input`.

        They are the first layer's query, key and value: (d, d) each.
        """
        at = "bert.encoder.layer.0.attention.self"
        return [by_name[f"{at}.{part}.weight"] for part in ("query", "key", "value")]

    def first_input(self, params: Mapping[str, Tensor], words: Tensor) -> Tensor:
        """Return what the first layer sees of word embeddings, both (…, N, T, d).

        That is their normalised sum with the embeddings of the positions and of the first segment;
        more tokens than the model has positions are a ValueError.
        """
        *leading, batch, length, width = words.shape
        self.require_positions(length)
        tables = (params[POSITIONS], length), (params[SEGMENTS], 1)
        positions, kind = (table[..., None, :rows, :] for table, rows in tables)
        x = reshape(words + positions + kind, (*leading, batch * length, width))
        x = self.normalise(params, "bert.embeddings.LayerNorm", x)
        return reshape(x, words.shape)

    def __call__(
        self, params: Mapping[str, Tensor], words: Tensor, mask: Array | None = None
    ) -> Tensor:
        """Return the logits (…, N, T, V) of the token at each position.

        Args:
            params: the parameters, by name; with leading axes (…), as many networks.
            words: (…, N, T, d) word embeddings, all of the first segment.
            mask: (N, T) true where there is a token, false where there is only padding.

        Raises:
            ValueError: more tokens than the model has positions.
        """
        return self.head(params, self.encode(params, words, mask))

    def encode(
        self, params: Mapping[str, Tensor], words: Tensor, mask: Array | None = None
    ) -> Tensor:
        """Return the last layer's output for each token, (…, N, T, d); arguments as for a call."""
        *leading, batch, length, width = words.shape
        x = self.first_input(params, words)
        # Sentences lie end to end but in attention, so that weights may have leading axes too.
        x = reshape(x, (*leading, batch * length, width))
        for layer in range(self.layers):
            at = f"bert.encoder.layer.{layer}"
            found = self._attend(params, f"{at}.attention.self", x, (batch, length), mask)
            found = _apply(params, f"{at}.attention.output.dense", found)
            x = self.normalise(params, f"{at}.attention.output.LayerNorm", x + found)
            hidden = self.activate(_apply(params, f"{at}.intermediate.dense", x))
            found = _apply(params, f"{at}.output.dense", hidden)
            x = self.normalise(params, f"{at}.output.LayerNorm", x + found)
        return reshape(x, (*x.shape[:-2], batch, length, width))

    def head(self, params: Mapping[str, Tensor], encoded: Tensor) -> Tensor:
        """Return the logits (…, N, T, V) of encoded tokens (…, N, T, d), each by itself."""
        *leading, batch, length, width = encoded.shape
        x = _apply(params, OUTPUT_LAYER, reshape(encoded, (*leading, batch * length, width)))
        x = self.finish(params, x)
        logits = linear(x, params[WORDS], params[OUTPUT_BIAS])
        return reshape(logits, (*logits.shape[:-2], batch, length, self.vocabulary))

    def finish(self, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Return what is multiplied with the embedding table, from the first output layer's x.

        Both have the shape (…, N, d).
        """
        return self.normalise(params, "cls.predictions.transform.LayerNorm", self.activate(x))

    def _attend(
        self,
        params: Mapping[str, Tensor],
        name: str,
        x: Tensor,
        size: tuple[int, int],
        mask: Array | None,
    ) -> Tensor:
        """Let every token gather from the others: (…, N·T, d) → (…, N·T, d)."""
        query, key, value = (
            self._by_head(_apply(params, f"{name}.{part}", x), size)
            for part in ("query", "key", "value")
        )
        closed = None
        if mask is not None:
            xp, lowest = array_module(x._array), np.finfo(x.dtype).min
            added = xp.where(xp.asarray(mask), 0.0, lowest).astype(x.dtype)
            closed = Tensor(added[:, None, None, :])
        gathered = transpose(attention(query, key, value, mask=closed), (0, 2, 1, 3))
        return reshape(gathered, (*gathered.shape[:-4], *x.shape[-2:]))

    def _by_head(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """(…, N·T, d) → (…, N, heads, T, d / heads)."""
        parts = (*size, self.heads, self.width // self.heads)
        return transpose(reshape(x, (*x.shape[:-2], *parts)), (0, 2, 1, 3))


def masked_loss(logits: Tensor, targets: Tensor, masked: int) -> Tensor:
    """Return the cross-entropy at the masked positions, the mean over all `masked` of them: (…).

    Logits and targets are (…, N, T, V), or else ValueError; the targets' rows are probabilities at
    the masked positions, and zeros elsewhere.
    """
    return inner(targets, log_softmax(logits), axes=3) * (-1.0 / masked)


def _apply(params: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    return linear(x, params[f"{name}.weight"], params[f"{name}.bias"])


def _dense(name: str, out: int, into: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}
