"""What a client's gradient is of the gradient of the mean loss: told, read off, or assumed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tinyleak.analytic import LayerGradient, infer_loss_scale
from tinyleak.backend import Array
from tinyleak.nn.model import Model

EXACTLY_ONE = 1e-5
"""A factor so near 1 is 1, and the rest is float32's rounding."""


@dataclass(frozen=True)
class Loss:
    """How a client's loss relates to the mean cross-entropy over its batch.

    Attributes:
        factor: how many times as large it is, as far as that is known.
        exact: whether it is; otherwise only the gradient's direction is to be matched.
        said: the sentence that says how it is known.
    """

    factor: float
    exact: bool
    said: str


def read_loss(
    reduction: str | None,
    model: Model,
    params: Mapping[str, Array],
    shared: Mapping[str, Array],
    batch: int,
    steps: int,
) -> Loss:
    """Return what is known of a client's loss.

    Args:
        reduction: "mean" or "sum" where the client said so, else None.
        model: its network.
        params: the weights, by name.
        shared: its gradient, or the sum over its steps.
        batch: N, how many images it had.
        steps: how many it took.
    """
    if reduction is not None:
        factor = float(batch) if reduction == "sum" else 1.0
        return Loss(factor, True, f"a {reduction} over the batch, as was said")
    if steps > 1:
        return Loss(1.0, True, "a mean over the batch is assumed; several steps do not tell")
    found = infer_loss_scale(LayerGradient.last(model, params, shared, batch))
    if found is None:
        return Loss(1.0, True, "a mean over the batch is assumed; the last layer does not tell")
    factor = 1.0 if abs(found.factor - 1.0) <= EXACTLY_ONE else found.factor
    return Loss(factor, found.exact, _read_off(factor, found.exact, batch))


def _read_off(factor: float, exact: bool, batch: int) -> str:
    if not exact:
        return f"about {factor:.3g} times the mean; only the gradient's direction is matched"
    if factor == 1.0:
        return (
            "as it is, as the last layer tells"
            if batch == 1
            else "a mean over the batch, as the last layer tells"
        )
    if factor == batch:
        return "a sum over the batch, as the last layer tells"
    return f"{factor:.6g} times as large, as the last layer tells"
