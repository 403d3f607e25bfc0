"""Brief training of a language model, so that an attack can be tried on weights that know words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tinyleak.backend import Array
from tinyleak.data.text import Special
from tinyleak.gradient import grad
from tinyleak.nn.models.bert import Bert, masked_loss
from tinyleak.tensor import Tensor
from tinyleak.text.client import attention
from tinyleak.text.simulated import lay_out, masked_targets

BATCH, RATE = 16, 1e-3
"""Sentences in a step, and Adam's step length."""

KEPT, KEPT_SQUARES, TINY = 0.9, 0.999, 1e-8
"""Adam's usual constants: how much of its two means is kept, and what a root is kept above."""


def train(
    model: Bert,
    params: Mapping[str, Array],
    sentences: Sequence[Array],
    special: Special,
    *,
    steps: int = 200,
    seed: int = 0,
) -> tuple[dict[str, Array], list[float]]:
    """Train for some steps of Adam (Kingma and Ba 2015, algorithm 1), as the client's loss says.

    Args:
        model: the network.
        params: its weights, by name.
        sentences: each (T,) tokens with start and end; those too long for the model are left out.
        special: the tokens that are no words.
        steps: how many, of 16 sentences each.
        seed: decides which sentences, and which of their tokens are hidden.

    Returns:
        The weights, in the dtype given, and the loss at each step.
    """
    rng = np.random.default_rng(seed)
    usable = [sentence for sentence in sentences if len(sentence) <= model.positions]
    weights = {name: np.array(params[name]) for name in model.shapes}
    mean = {name: np.zeros_like(weight) for name, weight in weights.items()}
    square = {name: np.zeros_like(weight) for name, weight in weights.items()}
    losses = []
    for step in range(1, steps + 1):
        batch = [usable[i] for i in rng.choice(len(usable), min(BATCH, len(usable)), replace=False)]
        loss, gradients = _loss_and_gradients(model, weights, batch, special, rng)
        losses.append(loss)
        for name, gradient in gradients.items():
            mean[name] = KEPT * mean[name] + (1 - KEPT) * gradient
            square[name] = KEPT_SQUARES * square[name] + (1 - KEPT_SQUARES) * gradient**2
            direction = mean[name] / (1 - KEPT**step)
            size = np.sqrt(square[name] / (1 - KEPT_SQUARES**step))
            weights[name] = weights[name] - RATE * direction / (size + TINY)
    return weights, losses


def _loss_and_gradients(
    model: Bert,
    weights: Mapping[str, Array],
    batch: Sequence[Array],
    special: Special,
    rng: np.random.Generator,
) -> tuple[float, dict[str, Array]]:
    """Return the loss at one batch, and its gradient by each weight."""
    tokens, hidden = lay_out(batch, special, rng)
    dtype = str(next(iter(weights.values())).dtype)
    targets = masked_targets(tokens, hidden, model.vocabulary, dtype)
    params = {name: Tensor(weight) for name, weight in weights.items()}
    words = model.embed(params, np.where(hidden, special.mask, tokens))
    logits = model(params, words, attention([len(sentence) for sentence in batch]))
    loss = masked_loss(logits, Tensor(targets), int(hidden.sum()))
    gradients = grad(loss, list(params.values()))
    by_name = {name: g.data for name, g in zip(params, gradients, strict=True)}
    return float(loss.data), by_name
