"""What BERT and GPT-2 have in common: their sizes, their activations and their tables.

Vaswani, Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser and Polosukhin, "Attention Is All You
Need" (2017).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from tinyleak.backend import Array
from tinyleak.nn.activations import gelu, gelu_tanh
from tinyleak.nn.normalisation import layer_norm
from tinyleak.ops import relu, take
from tinyleak.tensor import Tensor

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": gelu,
    "gelu_new": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "relu": relu,
}
"""The activations that checkpoints use, by the names in their `config.json`."""


@dataclass(frozen=True)
class Transformer:
    """A transformer of any size. Dropout is left out: the gradient is to be repeatable.

    A count below 1, a width that is not a multiple of the heads, or an unknown activation is a
    ValueError.
    """

    vocabulary: int  # V, how many tokens there are
    layers: int = 2
    width: int = 64  # d, the length of every token's vector
    heads: int = 4  # of attention in each layer; they share the width equally
    intermediate: int = 256  # width of the hidden layer in each feed-forward block
    positions: int = 64  # the longest sentence, in tokens
    activation: str = "gelu"  # one of `ACTIVATIONS`
    epsilon: float = 1e-12  # what layer normalisation adds to the variance

    word_table: ClassVar[str]
    position_table: ClassVar[str]
    causal: ClassVar[bool]
    """Whether a token sees only those before it, and the loss is about the token that follows."""

    def __post_init__(self) -> None:
        counts = (self.vocabulary, self.layers, self.width, self.heads, self.intermediate)
        if min(*counts, self.positions) < 1 or self.width % self.heads:
            raise ValueError(
                f"{self} was asked for; every count must be at least 1, and the width a multiple "
                "of the heads"
            )
        if self.activation not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise ValueError(f"activation {self.activation!r} is unknown; choose from {known}")

    def embed(self, params: Mapping[str, Tensor], tokens: Array) -> Tensor:
        """Return the word embeddings (…, N, T, d) of tokens (N, T); in [0, V), or ValueError."""
        return take(params[self.word_table], tokens, axis=-2)

    def require_positions(self, length: int) -> None:
        """Refuse, with ValueError, more tokens than the model has positions."""
        if length > self.positions:
            raise ValueError(
                f"a sentence of {length} tokens was given to a model with {self.positions} "
                "positions; shorten it, or use a model with more"
            )

    def activate(self, x: Tensor) -> Tensor:
        """Apply the activation to each entry."""
        return ACTIVATIONS[self.activation](x)

    def normalise(self, params: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
        """Apply the layer normalisation of that name."""
        return layer_norm(x, params[f"{name}.weight"], params[f"{name}.bias"], self.epsilon)
