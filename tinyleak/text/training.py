"""Brief training of a language model, so that an attack can be tried on weights that know words."""

from collections.abc import Mapping, Sequence

import numpy as np

from tinyleak.backend import Array
from tinyleak.data.text import Special
from tinyleak.nn import Trained, descend
from tinyleak.nn.models.bert import Bert, masked_loss
from tinyleak.tensor import Tensor
from tinyleak.text.client import attention
from tinyleak.text.simulated import lay_out, masked_targets

BATCH, RATE = 16, 1e-3  # sentences in a step, and Adam's step length


def train(
    model: Bert,
    params: Mapping[str, Array],
    sentences: Sequence[Array],
    special: Special,
    *,
    steps: int = 200,
    seed: int = 0,
) -> Trained:
    """Train for some steps of Adam, of 16 sentences each, on the loss that a client has.

    Args:
        model: the network.
        params: its weights, by name.
        sentences: each (T,) tokens with start and end; those too long for the model are left out.
        special: the tokens that are not words.
        steps: how many.
        seed: decides which sentences, and which of their tokens are hidden.

    Raises:
        ValueError: no sentence is short enough; fewer than 1 step.
    """
    usable = [sentence for sentence in sentences if len(sentence) <= model.positions]
    if not usable:
        raise ValueError(f"no sentence of the {len(sentences)} fits {model.positions} positions")
    rng = np.random.default_rng(seed)
    size = min(BATCH, len(usable))
    dtype = str(params[next(iter(model.shapes))].dtype)

    def draw() -> tuple[Array, Array, list[int]]:
        batch = [usable[index] for index in rng.choice(len(usable), size, replace=False)]
        tokens, hidden = lay_out(batch, special, rng)
        return tokens, hidden, [len(sentence) for sentence in batch]

    def loss(weights: Mapping[str, Tensor], batch: tuple[Array, Array, list[int]]) -> Tensor:
        tokens, hidden, lengths = batch
        words = model.embed(weights, np.where(hidden, special.mask, tokens))
        targets = Tensor(masked_targets(tokens, hidden, model.vocabulary, dtype))
        return masked_loss(model(weights, words, attention(lengths)), targets, int(hidden.sum()))

    # Nearly every batch has another longest sentence, so a program would rarely be used again.
    return descend(
        loss,
        {name: params[name] for name in model.shapes},
        draw,
        steps=steps,
        learning_rate=RATE,
        optimiser="adam",
        compiled=False,
    )
