"""A certificate that an input with a label is a record of the batch; it needs no truth.

The gradient of a linear layer z = W h + b of a batch of N is G = Σᵢ δᵢ (hᵢ, 1)ᵀ / N, where δᵢ is
the gradient of record i's own loss with respect to its z. With G = U S Vᵀ of rank N, an input h
with a label y is a record of the batch if

- (h, 1) lies in the row space: it is V c with c = Vᵀ (h, 1);
- its own δ, which the network above the layer gives for y, lies in the column space: it is U b;
- the coefficient between them, cᵀ S⁻¹ b, is N over a whole number: how many copies of it there are.

For D of the columns bᵢ and H of the rows cᵢ, S = D H / N, so that cᵢᵀ S⁻¹ bⱼ is N for i = j and 0
otherwise; mixtures of records fail. What is certified is the layer's input: an image as far as its
pixels are, or follow from, what comes in.

Under a ReLU δ moves in K − 1 directions only while the pattern of active units stays: with more
records than classes an input may slide along a continuum of such candidates, up to 6 % away, where
all three hold. Several that were found hold each other, since cᵢᵀ S⁻¹ bⱼ is 0 between any two of
them: each of the others is one more equation (`together`).

At the last layer images of one label may have δ that differ by less than rounding. Their mean looks
like as many copies of one: there only what is in the batch once is certified.

What is accepted lies within distances that were fixed beforehand, for the precision in which the
gradient was written. What noise may have moved farther is neither accepted nor refused.
"""

from dataclasses import dataclass

import numpy as np

from tinyleak.analytic.deltas import Deltas
from tinyleak.analytic.layer_gradient import LayerGradient
from tinyleak.analytic.subspace import MARGIN
from tinyleak.analytic.twins import Twins
from tinyleak.backend import Array
from tinyleak.gradient import grad
from tinyleak.interop import as_array
from tinyleak.nn.criteria import Loss, one_hot
from tinyleak.nn.losses import cross_entropy, softmax
from tinyleak.nn.split import Split
from tinyleak.tensor import Tensor

FARTHEST = {1e-10: (1e-9, 1e-9, 1e-6), 1e-6: (3e-6, 3e-5, 3e-5)}
"""How far from the column space, the row space and a whole number of copies a record may be, all
relative, for gradients that err by less than so much. Of 7,332 wrong candidates, from mixtures of
two records on, none came as near with any activation, and of 224 records none stayed away."""

SURE, MOST = 10.0, 3e-4
"""Where noise is expected to move a record farther than that, so many times the expectation is
allowed, but no more than this: a mixture with a thousandth of another record is farther away."""

LIKELY = 1e-5
"""How far from the column space δ of a record is at most, but for what rounding leaves of it."""

APART = 1e-3
"""How large cᵢᵀ S⁻¹ bⱼ may be between two records, as a share of N, that hold each other: a mixture
with a thousandth of another record has as much."""

NEARLY = 1e-2
"""What is nearer than this in all three is not refused: it may be a record, found inexactly."""

AT_ONCE = 1024
"""How many candidates go through the network at once, so that their δ fit into memory."""


@dataclass(frozen=True, eq=False, repr=False)
class Certificates:
    """What one layer's gradient says of M candidates."""

    # For each True (it is a record), False (it is none) or None (cannot tell, as of what is a
    # record to two digits or three, but not to those that were shared).
    verdicts: tuple[bool | None, ...]
    copies: Array  # (M,) int64, how many records of the batch each is; 0 where it is not certified
    delta_distances: Array  # (M,), of δ from the column space, relative to its length, 0 to 1
    input_distances: Array  # (M,), of (h, 1) from the row space, likewise
    counts: Array  # (M,), N over the coefficient: copies, times a factor that is not known
    # (M,), of that from a whole number, relative to it; of its sign alone without the factor.
    count_errors: Array
    fits: Array  # (M,), whether δ is in the column space as far as can be told
    why: str | None = None  # why nothing can be told by this layer; None if something can

    def __repr__(self) -> str:
        found, refused = (sum(v is answer for v in self.verdicts) for answer in (True, False))
        return f"Certificates({found} of {len(self.verdicts)} certified, {refused} refused)"

    @property
    def certified(self) -> Array:
        """Which are certified: (M,) booleans."""
        return self.copies > 0


def certify(
    layer: LayerGradient,
    cut: Split,
    inputs: Array,
    labels: Array,
    *,
    loss: Loss = cross_entropy,
    factor_known: bool = True,
    spread: float = 0.0,
    together: bool = False,
) -> Certificates:
    """Tell which candidates are records of the batch that a layer's gradient was computed from.

    Args:
        layer: the gradient, of the mean loss over its `records`; its `roundoff` is that of the
            floating point which it was written in, 0 for float64.
        cut: the network, cut at that layer.
        inputs: (M, F), what comes into the layer; pixels where it is the first.
        labels: (M,) whole numbers, or (M, K) rows of probabilities, taken as they are.
        loss: the client's.
        factor_known: whether the gradient is that of the mean loss, rather than a positive multiple
            of it; if not, copies cannot be counted and are taken to be one.
        spread: how far noise may have moved the inputs within the row space, where they were found
            by this gradient, in units of theirs.
        together: whether others of the candidates must hold each one: under a ReLU enough of
            them, and by a common factor where that is not known. One alone may be a mean.

    Returns:
        A verdict for each. None for all of them, with the reason, where the layer has more records
        than it can tell apart.

    Raises:
        ValueError: inputs or labels that do not fit, or a gradient whose number of records is not
            known.
    """
    inputs, targets = _checked(layer, cut, inputs, labels)
    (U, S, V), rank = layer.decomposition, layer.rank
    U, S, V = U[:, :rank], S[:rank], V[:rank]
    deltas, doubts = _deltas(cut, inputs, targets, loss, max(layer.roundoff, np.finfo(float).eps))
    H = np.pad(inputs, [(0, 0), (0, int(layer.bias_gradient is not None))], constant_values=1)
    c, b = H @ V.T, deltas @ U
    by_input, by_delta = _relative(H - c @ V, H), _relative(deltas - b @ U.T, deltas)
    assert layer.records is not None, "checked"
    coefficient = ((c / S) * b).sum(axis=1)
    count, tiny = np.zeros(len(coefficient)), np.finfo(float).tiny
    shown = (np.abs(coefficient) > layer.records * tiny) & (np.linalg.norm(b, axis=1) > 0.0)
    np.divide(layer.records, coefficient, out=count, where=shown)
    # Of N records in a space of rank r, no one has more copies than the others leave.
    most = max(layer.records - rank + 1, 1)
    # A factor that is not known is positive all the same: of two labels δ differ in sign alone.
    whole = np.clip(np.rint(count), 1.0, most) if factor_known else np.maximum(np.abs(count), tiny)
    by_count = np.abs(count / whole - 1.0)

    distances = np.stack([by_delta, by_input, by_count])
    per_input = np.linalg.norm(b / S, axis=1) * whole / layer.records
    expected = _expected(layer, c / S, b / S, deltas, H, whole)
    fixed = next((t for error, t in FARTHEST.items() if layer.roundoff <= error), None)
    soft = bool(((targets != 0.0) & (targets != 1.0)).any())
    why = why_not(layer, cut, soft_labels=soft, factor_known=factor_known)
    if fixed is None and why is None:
        why = "the gradient was written too coarsely to tell records from mixtures"
    limits = np.clip(SURE * expected, np.reshape(fixed or (0.0,) * 3, (3, 1)), MOST)
    rounded = np.minimum(SURE * doubts, NEARLY)
    fits = by_delta <= np.minimum(limits[0], LIKELY) + rounded
    if spread:  # what was found by this gradient was moved by what moved that
        limits[0] += rounded
        limits[2] += rounded + np.minimum(SURE * spread * per_input, MOST)
    near = distances <= limits
    expected[[0, 2]] += doubts
    excused = distances <= MARGIN * expected + NEARLY
    # At a last layer what counts several times may be the mean of several, of which δ are alike.
    alone = np.full(len(inputs), not cut.is_last or rank == layer.records)
    certified = near.all(axis=0) & (alone | ((whole == 1.0) & factor_known)) & (why is None)
    suspect = certified & (whole > 1.0) & factor_known
    if together and not factor_known:
        whole, agree, single = _agreement(count, c, certified, limits[2], layer.records)
        certified &= agree
        suspect = certified & ~single
    twins = Twins(layer, Deltas(cut, loss), factor_known)
    for k in np.flatnonzero(suspect):
        certified[k] = twins.excluded(inputs[k], targets[k], whole[k])
    # Under a ReLU so many others must hold each.
    turns = min(len(layer.matrix) - rank, cut.model.classes - 2) + factor_known
    needed = rank - (layer.bias_gradient is not None) - turns
    if together and needed >= 0 and not cut.is_last and twins.deltas.has_kinks:
        across = np.abs((c / S) @ b.T) / layer.records
        certified &= _others(across, certified) > needed
    copies = np.where(certified, whole if factor_known else 1.0, 0.0).astype(np.int64)
    # Records whose share is lost in the noise lie outside what is left: then nothing is refused.
    complete = rank == layer.records or _total(c[certified], copies[certified]) == layer.records
    refused = ~(near | excused).all(axis=0) & np.full(len(inputs), complete and why is None)
    return Certificates(
        as_verdicts(certified, refused), copies, by_delta, by_input, count, by_count, fits, why
    )


def as_verdicts(certified: Array, refused: Array) -> tuple[bool | None, ...]:
    """Return True, False or None for each of M."""
    pairs = zip(certified.tolist(), refused.tolist(), strict=True)
    return tuple([True if yes else False if no else None for yes, no in pairs])


def _checked(layer: LayerGradient, cut: Split, inputs: Array, labels: Array) -> tuple[Array, Array]:
    """Return inputs and targets, (M, F) and (M, K), in float64."""
    inputs, labels = as_array(inputs).astype(float), as_array(labels)
    classes, width = cut.model.classes, layer.weight_gradient.shape[1]
    if layer.records is None:
        raise ValueError(f"{layer} was given; to certify records it must be known how many it has")
    targets = one_hot(labels, classes) if labels.ndim == 1 else labels.astype(float)
    if inputs.ndim != 2 or inputs.shape[1] != width or targets.shape != (len(inputs), classes):
        raise ValueError(
            f"inputs of shape {inputs.shape} and labels of shape {labels.shape} were given; a "
            f"layer of {width} inputs and {classes} classes needs (M, {width}), and (M,) or "
            f"(M, {classes})"
        )
    return inputs, targets


def _deltas(
    cut: Split, inputs: Array, targets: Array, loss: Loss, roundoff: float = 0.0
) -> tuple[Array, Array]:
    """Return δ of each candidate, (M, O), and how far rounding may move it, relative: (M,).

    A client that rounds its logits errs by that much of p (1 − p), and rounds p; p − y may be far
    smaller than p, and far larger than p (1 − p).
    """
    outputs = cut.outputs(Tensor(inputs)).data
    deltas, doubts = np.empty_like(outputs), np.empty(len(outputs))
    for start in range(0, len(outputs), AT_ONCE):
        here = slice(start, start + AT_ONCE)
        z, y = Tensor(outputs[here]), Tensor(targets[here])
        logits = cut.above(z)
        deltas[here] = grad(loss(logits, y) * float(z.shape[0]), z).data
        p = softmax(logits).data
        by_logits = np.abs(logits.data).max(axis=1) * np.linalg.norm(p * (1.0 - p), axis=1)
        size = 1.0 + (by_logits + 1.0) / _lengths(p - y.data)
        doubts[here] = roundoff * size
    return deltas, doubts


def why_not(
    layer: LayerGradient, cut: Split, *, soft_labels: bool = False, factor_known: bool = True
) -> str | None:
    """Return why a layer cannot tell records from others, by counting; None if it can.

    A candidate in the row space has as many unknowns as that has dimensions, less one for the 1 of
    the bias, and K − 1 more for a soft label. Its δ must lie in the column space, and has as many
    equations as it could have dimensions outside of it, and the coefficient is one more. Only with
    more equations than unknowns is a solution a record rather than one of a continuum.
    """
    (rows, columns), rank, classes = layer.matrix.shape, layer.rank, cut.model.classes
    if rank == 0:
        return "its gradient is zero, or lost in noise"
    if rank >= columns:
        return f"{layer.records} records span all {columns} dimensions of its inputs"
    soft = classes - 1 if soft_labels else 0
    unknowns = rank - (layer.bias_gradient is not None) + soft
    # The last layer's δ = p − y adds up to zero.
    equations = rows - cut.is_last - rank + factor_known
    if equations > unknowns:
        return None
    most = (rows - cut.is_last + factor_known + (layer.bias_gradient is not None) - soft - 1) // 2
    return f"its {rows} outputs tell {max(most, 0)} records apart at most, and it shows {rank}"


def _expected(
    layer: LayerGradient, by_c: Array, by_b: Array, deltas: Array, H: Array, whole: Array
) -> Array:
    """Return what noise E adds to each distance, to first order: (3, M).

    It does so from (h, 1) = cᵀ S⁻¹ Uᵀ (G − E) on.
    """
    (rows, columns), rank = layer.matrix.shape, layer.rank
    of_c, of_b = np.linalg.norm(by_c, axis=1), np.linalg.norm(by_b, axis=1)
    of_delta = np.sqrt(rows - rank) * of_b / _lengths(deltas)
    of_input = np.sqrt(columns - rank) * of_c / _lengths(H)
    of_count = np.sqrt(rank) * of_c * of_b * whole / (layer.records or 1)
    return np.sqrt(layer.variance) * np.stack([of_delta, of_input, of_count])


def _agreement(
    counts: Array, c: Array, certified: Array, limits: Array, records: int
) -> tuple[Array, Array, Array]:
    """Return copies times the factor that most certified agree on; which agree; which are single.

    They may all be means of two records unless they are more than half of the batch.
    """
    factor = float(np.median(np.abs(counts[certified]))) if certified.any() else 1.0
    whole = np.maximum(np.rint(np.abs(counts) / factor), 1.0)
    agree = certified & (np.abs(counts / factor / whole - 1.0) <= limits)
    single = agree & (whole == 1.0)
    return whole * factor, agree, single & (2 * _total(c[single], whole[single]) > records)


def _total(c: Array, copies: Array) -> int:
    """Return how many records were certified, one that was given twice counted once."""
    if not len(c):
        return 0
    _, first = np.unique(np.round(c / np.abs(c).max(), 4), axis=0, return_index=True)
    return int(copies[first].sum())


def _others(across: Array, certified: Array) -> Array:
    """Return how many certified records hold each candidate, (M,), from |cᵢᵀ S⁻¹ bⱼ| / N, (M, M).

    Copies of a record, and what slid away from one, are not apart: of them one counts.
    """
    apart = np.maximum(across, across.T) <= APART
    counts = np.zeros(len(apart), dtype=int)
    for index, row in enumerate(apart):
        taken: list[int] = []
        for other in np.flatnonzero(row & certified):
            if apart[other, taken].all():
                taken.append(int(other))
        counts[index] = len(taken)
    return counts


def _lengths(rows: Array) -> Array:
    return np.maximum(np.linalg.norm(rows, axis=1), np.finfo(float).tiny)


def _relative(outside: Array, rows: Array) -> Array:
    return np.asarray(np.linalg.norm(outside, axis=1) / _lengths(rows))
