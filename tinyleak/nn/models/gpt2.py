"""GPT-2: predict each token of a sentence from those before it.

Radford, Wu, Child, Luan, Amodei and Sutskever, "Language Models are Unsupervised Multitask
Learners" (2019), section 2.3. Parameters have the names and layouts of Hugging Face's
`GPT2LMHeadModel`, whose linear layers keep their weights as (in, out). The output layer is the
embedding table once more, so it has no name of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from tinyleak.backend import Array
from tinyleak.nn.layers import linear
from tinyleak.nn.models.transformer import Transformer
from tinyleak.nn.products import attention
from tinyleak.ops import reshape, swap_last_axes, transpose
from tinyleak.tensor import Tensor


@dataclass(frozen=True)
class Gpt2(Transformer):
    """A GPT-2 of any size. Its attributes are those of every `Transformer`."""

    activation: str = "gelu_new"
    epsilon: float = 1e-5

    word_table: ClassVar[str] = "transformer.wte.weight"
    position_table: ClassVar[str] = "transformer.wpe.weight"
    causal: ClassVar[bool] = True

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each parameter, by name."""
        width, hidden = self.width, self.intermediate
        shapes: dict[str, tuple[int, ...]] = {
            self.word_table: (self.vocabulary, width),
            self.position_table: (self.positions, width),
        }
        sizes = {"attn.c_attn": (width, 3 * width), "attn.c_proj": (width, width)}
        sizes |= {"mlp.c_fc": (width, hidden), "mlp.c_proj": (hidden, width)}
        norms = ["ln_f"]
        for layer in range(self.layers):
            norms += [f"h.{layer}.ln_1", f"h.{layer}.ln_2"]
            for name, size in sizes.items():
                shapes[f"transformer.h.{layer}.{name}.weight"] = size
                shapes[f"transformer.h.{layer}.{name}.bias"] = size[1:]
        for name in norms:
            shapes |= dict.fromkeys(
                (f"transformer.{name}.weight", f"transformer.{name}.bias"), (width,)
            )
        return shapes

    def first_layer(self, by_name: Mapping[str, Array]) -> list[Array]:
        """Return, of weights or their gradients, that of the layer that sees `first_input`.

        It computes the first layer's queries, keys and values: (3 d, d).
        """
        return [by_name["transformer.h.0.attn.c_attn.weight"].T]

    def first_input(self, params: Mapping[str, Tensor], words: Tensor) -> Tensor:
        """Return what the first layer sees of word embeddings, both (N, T, d); as `encode`."""
        return self.normalise(params, "transformer.h.0.ln_1", self._with_positions(params, words))

    def encode(
        self, params: Mapping[str, Tensor], words: Tensor, mask: Array | None = None
    ) -> Tensor:
        """Return the last layer's output for each token, normalised: (N, T, d) → (N, T, d).

        No token sees those after it, so padding at a sentence's end needs no `mask`. More tokens
        than the model has positions are a ValueError.
        """
        x = self._with_positions(params, words)
        for layer in range(self.layers):
            at = f"transformer.h.{layer}"
            x = x + self._attend(params, f"{at}.attn", self.normalise(params, f"{at}.ln_1", x))
            hidden = _apply(params, f"{at}.mlp.c_fc", self.normalise(params, f"{at}.ln_2", x))
            x = x + _apply(params, f"{at}.mlp.c_proj", self.activate(hidden))
        return self.normalise(params, "transformer.ln_f", x)

    def __call__(
        self, params: Mapping[str, Tensor], words: Tensor, mask: Array | None = None
    ) -> Tensor:
        """Return the logits of the token after each: (N, T, d) → (N, T, V)."""
        return self.encode(params, words) @ swap_last_axes(params[self.word_table])

    def _with_positions(self, params: Mapping[str, Tensor], words: Tensor) -> Tensor:
        length = words.shape[-2]
        self.require_positions(length)
        return words + params[self.position_table][:length]

    def _attend(self, params: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
        """Let every token gather from itself and those before it: (N, T, d) → (N, T, d)."""
        batch, length, width = x.shape
        parts = reshape(
            _apply(params, f"{name}.c_attn", x),
            (batch, length, 3, self.heads, width // self.heads),
        )
        query, key, value = (
            transpose(parts[:, :, part], (0, 2, 1, 3)) for part in range(3)
        )  # (N, heads, T, d / heads) each
        gathered = transpose(attention(query, key, value, causal=True), (0, 2, 1, 3))
        return _apply(params, f"{name}.c_proj", reshape(gathered, x.shape))


def _apply(params: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    return linear(x, swap_last_axes(params[f"{name}.weight"]), params[f"{name}.bias"])
