"""Pruning whose zeros do not show by their number, by what they break.

The gradient of a linear layer has the rank of its inputs, and of the cross-entropy's last layer
each column adds up to zero (see `layer_gradient`), once weight decay is taken off. An entry that
was made zero breaks that for its own column, and columns without zeros obey as before. Zeros that
a gradient has by itself, such as those of a ReLU's closed units, break nothing.
"""

import numpy as np

from tinyleak.analytic.cause import Cause
from tinyleak.analytic.number_format import COMPUTED
from tinyleak.analytic.shared import Layer, Shared
from tinyleak.analytic.spectrum import Spectrum
from tinyleak.analytic.weight_decay import Decay, decayed, read_weight_decay, refined
from tinyleak.backend import Array


def few_pruned(shared: Shared) -> tuple[float, Cause | None]:
    """Return the share of a layer's entries that are zeros which break a law, and the cause.

    Of several such layers it is the largest; 0 and None where there is none.
    """
    holes = [_holes(layer.matrix) for layer in shared.layers]
    last, share = shared.last, 0.0
    if last is None or shared.written not in COMPUTED or not any(some.any() for some in holes):
        return 0.0, None
    pairs = zip(shared.layers, holes, strict=True)
    whole = shared.with_layers([layer.of_columns(_kept(some)) for layer, some in pairs])
    assert whole.last is not None, "it has the same layers"
    decay = read_weight_decay(whole, whole.last)
    decay = refined(whole, decay) if decay.rate else decay
    spectra = [_spectrum(shared, less, decay) for less in whole.layers]
    # More inputs than were said, each with zeros of its own, add to the rank as well.
    more = any(one.clean and shared.batch < one.rank < one.room for one in spectra)
    for layer, without, some in zip(shared.layers, spectra, holes, strict=True):
        summed = layer is last and _lacks_in_sum(shared, layer, some, decay)
        if some.any() and (summed or (not more and _adds_rank(shared, layer, without, decay))):
            share = max(share, float(some.mean()))
    if not share:
        return 0.0, None
    text = "some entries are zeros that the others of their layer say are not zero"
    return share, Cause("pruning", text, f"--defense prune:{share:.2g} --aware", sure=True)


def _holes(matrix: Array) -> Array:
    """Return which entries are zeros scattered among others: (O, F + 1)."""
    there = matrix != 0.0
    return np.asarray(~there & there.any(axis=1, keepdims=True) & there.any(axis=0))


def _kept(holes: Array) -> Array:
    """Return the columns without zeros, (F + 1,); all, if most have some."""
    without = ~holes.any(axis=0)
    return np.asarray(without | (np.mean(without) <= 0.5))


def _lacks_in_sum(shared: Shared, layer: Layer, holes: Array, decay: Decay) -> bool:
    """Return whether columns do not add up to zero by as little as their zeros may have been.

    That is no more than the smallest entry of their tensor.
    """
    matrix, width = layer.matrix, layer.gradient.shape[1]
    sizes = np.where(matrix == 0.0, np.inf, np.abs(matrix))
    least = np.full(matrix.shape[1], sizes[:, :width].min())
    least[width:] = sizes[:, width:].min(initial=np.inf)
    total = np.abs((matrix - decay.rate * decayed(layer, decay.biases)).sum(axis=0))
    lacking = np.where(holes.any(axis=0), holes.sum(axis=0) * least, 0.0)
    allowed = shared.zero_sum_error(matrix, layer.deviations)
    left = np.maximum(total - lacking, 0.0)
    return bool(np.linalg.norm(left) <= allowed < np.linalg.norm(total))


def _adds_rank(shared: Shared, layer: Layer, without: Spectrum, decay: Decay) -> bool:
    """Return whether columns add more inputs than there are to what their layer shows without."""
    full = _spectrum(shared, layer, decay)
    return full.rank > shared.batch and without.clean and without.rank < full.rank


def _spectrum(shared: Shared, layer: Layer, decay: Decay) -> Spectrum:
    """Return what a layer's gradient is made of, without weight decay."""
    matrix = layer.matrix - decay.rate * decayed(layer, decay.biases)
    return shared.spectrum(matrix, layer.deviations)
