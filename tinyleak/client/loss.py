"""Which loss a client has, and how many times the mean over its batch: said, read, or assumed."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from tinyleak.analytic.premises import Premises
from tinyleak.client.facts import Fact

EXACTLY_ONE = 1e-5
"""A factor so near 1 is 1: it is computed from numbers that float32 rounds to 1e-7, some of them
small differences of others."""

REDUCTIONS = ("mean", "sum")  # how a loss may go over a batch


@dataclass(frozen=True)
class Loss:
    """A client's loss, and how it relates to the mean of that loss over its batch."""

    factor: float  # how many times as large it is, as far as that is known
    exact: bool  # whether it is; otherwise only the gradient's direction is to be matched
    fact: Fact  # the same for a person to read, and how it is known
    kind: str = "cross-entropy"  # one of `tinyleak.nn.criteria.LOSSES`

    def exactly(self, factor: float, batch: int) -> Loss:
        """Return the loss once its factor has been told by what was found with it."""
        usual = {1.0: "a mean over the batch", float(batch): "a sum over the batch"}
        value = usual.get(factor, f"{factor:.6g} times as large")
        return Loss(factor, True, Fact(value, "read off", f"features of {batch} images fit so"))

    def of_heads(self, heads: int) -> Loss:
        """Return the sum of such losses of several heads, whose labels add up to 1 over them all.

        With a share of 1 / heads for each head's label, it is so many times their cross-entropy.
        """
        if heads == 1:
            return self
        fact = replace(self.fact, value=f"{self.fact.value}, summed over {heads} heads")
        return replace(self, factor=heads * self.factor, fact=fact)


def said_loss(
    reduction: str,
    batch: int,
    detail: str = "",
    kind: str = "cross-entropy",
    classes: int = 1,
    source: str = "said",
) -> Loss:
    """Return the loss that somebody said the client has.

    Args:
        reduction: "mean" or "sum", over a batch; of "bce" and "mse" over the classes as well.
        batch: N, how many images the client had.
        detail: by whom it was said.
        kind: one of `tinyleak.nn.criteria.LOSSES`.
        classes: K.
        source: how the kind is known, which may be read off where only the reduction was said.

    Raises:
        ValueError: it is neither a mean nor a sum.
    """
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction {reduction!r} was given; choose mean or sum")
    terms = batch if kind == "cross-entropy" else batch * classes
    factor = float(terms) if reduction == "sum" else 1.0
    value = f"{_named(kind, source, 'said')}a {reduction} over the batch"
    return Loss(factor, True, Fact(value, "said", detail), kind)


def read_loss(premises: Premises, batch: int, classes: int, steps: int = 1) -> Loss:
    """Return a client's loss, as the last layer's gradient shows it.

    Args:
        premises: what was read off the gradient.
        batch: N, how many images the client had.
        classes: K.
        steps: how many local steps it took: the sum over several does not tell.
    """
    kind = premises.loss or "cross-entropy"
    factor, how = premises.factor, premises.loss_source
    named = _named(kind, how, "assumed")
    if factor is None:
        why = "several steps do not tell" if steps > 1 else "the last layer does not tell"
        return Loss(1.0, True, Fact(f"{named}a mean over the batch", "assumed", why), kind)
    if not premises.factor_exact:
        error, bound = premises.factor_error * factor, math.isinf(premises.factor_error)
        if abs(factor - 1.0) <= error and not bound:
            told = f"the last layer tells no more than {factor:.2g} ± {error:.1g} times"
            # A rough estimate stands for a mean if it is nearer to that, as a ratio, than to a sum.
            if factor**2 <= batch:
                fact = Fact(f"{named}a mean over the batch", "assumed", f"{told} that")
                return Loss(1.0, True, fact, kind)
            why = f"{told} the mean; only the direction is matched"
            return Loss(factor, False, Fact(f"{named}a mean or a sum", "assumed", why), kind)
        why = "last layer; only the direction is matched"
        named = _named(kind, how, "read off")
        about = "at least" if bound else "about"
        fact = Fact(f"{named}{about} {factor:.3g} times the mean", "read off", why)
        return Loss(factor, False, fact, kind)
    factor = 1.0 if abs(factor - 1.0) <= EXACTLY_ONE else factor
    terms = batch if kind == "cross-entropy" else batch * classes
    if factor == 1.0:
        value = "a mean over the batch" if batch > 1 else "as it is"
    elif abs(factor / terms - 1.0) <= EXACTLY_ONE:
        factor, value = float(terms), "a sum over the batch" if batch > 1 else "a sum"
    else:
        value = f"{factor:.6g} times as large"
    value = _named(kind, how, "read off") + value
    return Loss(factor, True, Fact(value, "read off", "the last layer's gradient"), kind)


def any_loss(factor: float = 1.0, heads: int = 1) -> Loss:
    """Return the loss that an unknown one of one image is replaced with.

    Its gradient with respect to the network's outputs, δ = 2 (z − y) / K, is any vector.
    """
    what = "not a usual one" if heads == 1 else f"no usual one of each of {heads} heads"
    text = f"{what}: a squared error stands for it, whose targets may be any numbers"
    return Loss(factor, True, Fact(text, "assumed", "of one image it has the same gradient"), "mse")


def _named(kind: str, how: str, source: str) -> str:
    """Return how a sentence about a loss begins: with its name, where that is not the usual one.

    How that is known is added where it is not known as the rest of the sentence is.
    """
    known = "" if how == source else f" ({how})"
    return "" if kind == "cross-entropy" else f"{kind}{known}, "
