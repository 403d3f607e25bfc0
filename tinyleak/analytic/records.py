"""The records of a batch, one by one, out of the gradient of one linear layer.

The gradient of a linear layer is G = Σᵢ δᵢ (hᵢ, 1)ᵀ / N, of rank N = U S Vᵀ. Each record is a point
(h, 1) = cᵀ V of the row space, and the network above says its δ for each label. Of all points of
the row space the records are those whose δ lies in the column space:

    f(h) = ‖(I − U Uᵀ) δ(h, y)‖² / ‖δ(h, y)‖² = 0

(see `certificate`). That is N − 1 unknowns for one record, not N images at once, and needs no prior
on the data, no order and no labels: f is minimised by Gauss and Newton's method from random points
of the row space, for one label at a time. Where it comes to zero, and the record is certified, the
others are searched for without it: they lie at right angles to S⁻¹ Uᵀ δ of every known record,
which takes one dimension from the row space each time. What noise leaves open of one record alone
the others say (see `together`).

Under a ReLU f has kinks, and δ exact zeros, which lead to the records another way (see `locked`).
Features that come out of a ReLU have exact zeros themselves, which lead to them a third way, at
once and without any labels (see `extreme_rays`).

What noise moves too far to be certified, but δ says is a record, is kept apart, as a guess.

Lesson: lessons/11b_a_batch_is_a_mixture.py
"""

import numpy as np

from tinyleak.analytic.certificate import why_not
from tinyleak.analytic.deltas import Deltas
from tinyleak.analytic.known import Records, StoppedSearchError
from tinyleak.analytic.layer_gradient import LayerGradient
from tinyleak.analytic.locked import ReluSearch
from tinyleak.analytic.search import Search
from tinyleak.nn.criteria import Loss
from tinyleak.nn.losses import cross_entropy
from tinyleak.nn.split import Split


def find_records(
    layer: LayerGradient,
    cut: Split,
    *,
    bounds: tuple[float, float] | None = None,
    loss: Loss = cross_entropy,
    factor_known: bool = True,
    rng: np.random.Generator | None = None,
    seconds: float = 120.0,
) -> Records:
    """Find the records of a batch in the gradient of one linear layer.

    Args:
        layer, cut, loss, factor_known: as for `certify`.
        bounds: about between which numbers the inputs are, if that is known, as of pixels; from 0
            to infinity where they come out of a ReLU.
        rng: draws where to search.
        seconds: how long to search, at most; what was found until then is returned.

    Returns:
        The records that were found and certified, and guesses at others.

    Raises:
        ValueError: the number of records is not known, or is more than the layer can tell apart;
            or the rank of the gradient shows more of them.
        StoppedSearchError: Ctrl-C; it has what was found.
    """
    why = why_not(layer, cut, factor_known=factor_known)
    if why is not None:
        raise ValueError(f"records cannot be told from mixtures by {cut.weight!r}: {why}")
    if (shown := layer.shown) > (layer.records or 0):
        raise ValueError(
            f"the gradient of {cut.weight!r} shows {shown} records or more, but the batch was said "
            f"to have {layer.records}; give the right batch size"
        )
    deltas = Deltas(cut, loss)
    kind = ReluSearch if deltas.has_kinks else Search
    rng = rng or np.random.default_rng(0)
    search = kind(layer, deltas, bounds, rng, seconds, factor_known)
    try:
        search.run()
    except KeyboardInterrupt:
        raise StoppedSearchError(search.found()) from None
    return search.found()
