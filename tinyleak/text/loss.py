"""The gradient that a client with a BERT shares, as a function of what the model reads."""

from __future__ import annotations

from collections.abc import Mapping

from tinyleak.backend import Array
from tinyleak.gradient import grad
from tinyleak.nn.models.bert import Bert, masked_loss
from tinyleak.ops import sum
from tinyleak.tensor import Tensor


def masked_gradients(
    model: Bert,
    params: Mapping[str, Tensor],
    words: Tensor,
    targets: Tensor,
    masked: int,
    attention: Array | None = None,
) -> dict[str, Tensor]:
    """Return the gradient of the loss with respect to each parameter: what a client shares.

    Where `words` is computed from the embedding table, the table's gradient includes that use of
    it; where it is free, as an attacker's is, only the table's use as the output layer.

    Args:
        model: the network.
        params: its parameters, by name; with leading axes (R, …), R networks.
        words: (…, N, T, d), the embeddings of what the model reads.
        targets: (…, N, T, V), rows of probabilities at the hidden positions, zeros elsewhere.
        masked: M, how many positions are hidden.
        attention: (N, T), true where there is a token.
    """
    losses = masked_loss(model(params, words, attention), targets, masked)
    # The sum over leading axes has, for each separate copy of the weights, that copy's gradient.
    gradients = grad(sum(losses), list(params.values()))
    return dict(zip(params, gradients, strict=True))
