"""How a client's loss relates to the mean cross-entropy: said, read off, or assumed."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tinyleak.analytic.layer_gradient import LastLayerGradient
from tinyleak.analytic.scale import infer_loss_scale
from tinyleak.client.facts import Fact

EXACTLY_ONE = 1e-5
"""A factor so near 1 is 1: it is computed from numbers that float32 rounds to 1e-7, some of them
small differences of others."""

REDUCTIONS = ("mean", "sum")
"""How a loss may go over a batch."""


@dataclass(frozen=True)
class Loss:
    """How a client's loss relates to the mean cross-entropy over its batch.

    Attributes:
        factor: how many times as large it is, as far as that is known.
        exact: whether it is; otherwise only the gradient's direction is to be matched.
        fact: the same for a person to read, and how it is known.
    """

    factor: float
    exact: bool
    fact: Fact

    def exactly(self, factor: float, batch: int) -> Loss:
        """Return the loss once its factor has been told by what was found with it."""
        value = "a mean over the batch" if factor == 1.0 else "a sum over the batch"
        return Loss(factor, True, Fact(value, "read off", f"features of {batch} images fit so"))


def said_loss(reduction: str, batch: int, detail: str = "") -> Loss:
    """Return the loss that somebody said the client has.

    Raises:
        ValueError: it is neither a mean nor a sum.
    """
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction {reduction!r} was given; choose mean or sum")
    factor = float(batch) if reduction == "sum" else 1.0
    return Loss(factor, True, Fact(f"a {reduction} over the batch", "said", detail))


def read_loss(
    layer: LastLayerGradient | None, batch: int, steps: int = 1, unit: float = 1.0
) -> Loss:
    """Infer a client's loss from the last layer's gradient.

    Args:
        layer: the client's last layer; None if it is not linear.
        batch: N, how many images the client had.
        steps: how many local steps it took: the sum over several does not tell.
        unit: what the shared gradient was divided by to give that of the layer.
    """
    mean = Loss(1.0, True, Fact("a mean over the batch", "assumed"))
    found = None if layer is None or steps > 1 else infer_loss_scale(layer, unit)
    if found is None:
        why = "several steps do not tell" if steps > 1 else "the last layer does not tell"
        return replace(mean, fact=replace(mean.fact, detail=why))
    if not found.exact:
        # A rough estimate stands for a mean if it is nearer to that, as a ratio, than to a sum.
        if abs(found.factor - 1.0) <= found.error * found.factor and found.factor**2 <= batch:
            error = found.error * found.factor
            why = f"the last layer tells no more than {found.factor:.2g} ± {error:.1g} times that"
            return replace(mean, fact=replace(mean.fact, detail=why))
        about = Fact(f"about {found.factor:.3g} times the mean", "read off", "last layer")
        return Loss(found.factor, False, replace(about, detail="only the direction is matched"))
    factor = 1.0 if abs(found.factor - 1.0) <= EXACTLY_ONE else found.factor
    if factor == 1.0:
        value = "a mean over the batch" if batch > 1 else "as it is"
    elif factor == batch:
        value = "a sum over the batch"
    else:
        value = f"{factor:.6g} times as large"
    return Loss(factor, True, Fact(value, "read off", "the last layer's gradient"))
