"""What pruning made zero in a layer's gradient, filled in by its rank.

The gradient G of a linear layer has the rank N of its inputs (see `layer_gradient`), and far fewer
unknowns, N (O + F + 1 − N), than entries. So those that a client made zero follow from the others:
of all A B, with A of (O, N) and B of (N, F + 1), it is the one that leaves least of G, by weighted
squares; A and B are solved for by turns (Srebro and Jaakkola 2003, "Weighted low-rank
approximations"). What became zero was small, so it counts as zero at first, and half as
much each time; and the columns that lost least come first. Else the smallest directions, which tell
records apart, are spent on a few entries.

Whether a zero is a zero of its own, as where no unit is active that sees a pixel, need not be
known: it counts as missing, and comes out as zero. Of a whole row or column of zeros, and of one
with too few entries, nothing follows: it is zero in what is returned, as of a dead pixel. A record
that has something there has another δ than without it, where the weights are as large as usual
(`NOTICED`), and so no certificate. But what is filled in may certify alone: it must not be asked to
refuse, since such a record is one all the same.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tinyleak.analytic.layer_gradient import ROUNDING, LayerGradient
from tinyleak.backend import Array

SPARE = 3
"""How many entries more than its unknowns a row or column must have, to be told by them."""

MOST = 64
"""Records for which it is tried: time and memory grow with their square."""

LEAST = 1e-2
"""How long the shortest direction must be that the entries of a row or column leave of N unit
vectors: rounding moves what is filled in there by a hundred times as much."""

ROUNDS, FADING, NEAR = 150, 0.5, 1e-5
"""How often A and B are solved for, at most; how much less a zero counts each time; and what A B
leaves, as a share of G, once zeros need not count any more. Local minima left 10⁻⁴ and more."""

GROWTH = 4, 2, 1
"""Of the columns first the quarter that lost least is explained, then half of them, then all."""

STALLED = 0.9
"""Over five rounds at least so much less is left, until rounding is all that is: 10⁻¹⁴ of G."""

RIDGE = 1e-14
"""What is added to the square of a length: so unknowns of which nothing is told have a value."""

EXPLAINED = 1e-12
"""What may be left as a share of G, or `ROUNDING` roundings of what was written if that is more."""

NOTICED = 0.1
"""Where nothing is told of a pixel its weights must be no smaller than this share of the usual
ones: else no δ says whether it was black."""


def completed(layer: LayerGradient, weight: Array) -> LayerGradient:
    """Return a pruned layer's gradient with its zeros filled in; as it is, where they cannot be.

    They are if N different records explain all other entries to rounding, and if what is filled in
    is no larger than the smallest entry that was kept. Rows and columns that do not say enough are
    zero in what is returned.

    Args:
        layer: the gradient, of a known number of records.
        weight: (O, F), the layer's own.
    """
    records, width, scale = layer.records, weight.shape[1], float(np.abs(layer.matrix).max())
    if records is None or records > MOST or not scale:
        return layer
    G = layer.matrix / scale  # it may be too small to be squared
    known = G != 0.0
    if known.all():
        return layer
    told = _told(known, records + SPARE)
    if min(map(sum, told)) <= records + SPARE:
        return layer
    filled, left = _filled(G, known, np.ix_(*told), records)
    sizes = np.where(known, np.abs(G), np.inf)
    cuts = np.full(G.shape[1], sizes[:, :width].min())
    cuts[width:] = sizes[:, width:].min(initial=np.inf)  # each tensor may be pruned by itself
    error = ROUNDING * left / LEAST * float(np.sqrt(np.mean(np.square(G))))
    lengths, seen = np.linalg.norm(weight, axis=0), np.linalg.norm(filled, axis=0) > 0.0
    if not (
        left <= max(EXPLAINED, ROUNDING * layer.roundoff)
        and (known | (np.abs(filled) <= cuts + error)).all()
        and (seen[:width] | (lengths > NOTICED * np.median(lengths))).all()
        and seen[width:].all()
    ):
        return layer
    filled *= scale
    bias = None if layer.bias_gradient is None else filled[:, width]
    answer = replace(layer, weight_gradient=filled[:, :width], bias_gradient=bias)
    return answer if answer.rank == records >= answer.shown else layer


def _filled(G: Array, known: Array, some: tuple[Array, ...], rank: int) -> tuple[Array, float]:
    """Return G with what its rank tells of some rows and columns, zero elsewhere.

    Beside it, what that leaves of G, as a share.
    """
    block, there, filled = G[some], known[some], np.zeros_like(G)
    A, B = _factors(block, there, rank)
    left = float(np.linalg.norm(np.where(there, block - A @ B, 0.0)) / np.linalg.norm(G))
    whole = np.where(there, block, A @ B)
    whole[_shortest(there, B) < LEAST] = 0.0
    whole[:, _shortest(there.T, A.T) < LEAST] = 0.0
    filled[some] = whole
    return filled, left


def _told(known: Array, least: int) -> tuple[Array, Array]:
    """Return which rows, (O,), and columns, (F + 1,), know so many entries of each other."""
    rows, columns, before = np.ones(len(known), bool), np.ones(known.shape[1], bool), 0
    while (now := int(rows.sum() + columns.sum())) != before:
        rows &= known[:, columns].sum(axis=1) >= least
        columns &= known[rows].sum(axis=0) >= least
        before = now
    return rows, columns


def _factors(G: Array, known: Array, rank: int) -> tuple[Array, Array]:
    """Return A, (O, r), orthonormal, and B, (r, F), whose product is G where it is known."""
    order = np.argsort(-known.sum(axis=0), kind="stable")
    some = order[: max(len(order) // GROWTH[0], 2 * rank)]
    A = np.linalg.svd(G[:, some], full_matrices=False)[0][:, :rank]
    B, weight = np.zeros((rank, len(order))), 1.0
    for part in GROWTH:
        some = order[: max(len(order) // part, 2 * rank)]
        A, B[:, some] = _by_turns(G[:, some], known[:, some], A, weight)
        weight = 0.0
    return A, B


def _by_turns(G: Array, known: Array, A: Array, weight: float) -> tuple[Array, Array]:
    """Return A and B as `_factors`, from a first A and the weight of a zero on."""
    size, left = float(np.linalg.norm(G)), [np.inf]
    while True:
        weight = 0.0 if left[-1] < NEAR else FADING * weight
        weights = np.where(known, 1.0, weight)
        B = _solved(G.T, weights.T, A.T).T
        left.append(float(np.linalg.norm(np.where(known, G - A @ B, 0.0))) / size)
        stalled = weight < RIDGE and left[-1] > STALLED * left[-6:][0]
        if stalled or len(left) > ROUNDS:
            return A, B
        A = np.linalg.qr(_solved(G, weights, np.linalg.qr(B.T)[0].T))[0]


def _solved(G: Array, weights: Array, basis: Array) -> Array:
    """Return the combinations of a basis, (r, F), nearest to the rows of G by weights: (O, r)."""
    grams = _grams(weights, basis) + RIDGE * np.eye(len(basis))
    return np.asarray(np.linalg.solve(grams, ((weights * G) @ basis.T)[..., None])[..., 0])


def _grams(weights: Array, basis: Array) -> Array:
    """Return Σⱼ wⱼ bⱼ bⱼᵀ over a basis's columns for each row of weights: (O, r, r)."""
    products = basis.T[:, :, None] * basis.T[:, None]
    return np.asarray(np.tensordot(weights, products, axes=1))


def _shortest(known: Array, basis: Array) -> Array:
    """Return how long the shortest vector is of what a basis spans, of length 1, in each row: (O,).

    Only the entries count that the row knows.
    """
    basis = np.linalg.qr(basis.T)[0].T
    squares = np.linalg.eigvalsh(_grams(known.astype(float), basis))[:, 0]
    return np.sqrt(np.maximum(squares, 0.0))
