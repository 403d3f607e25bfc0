"""δ of a record under a ReLU, by the signs of the layer's answers.

Where the layer's answer z is below 0, a ReLU's δ is 0, and elsewhere it is what comes down from the
next layer: with the slopes m of the ReLUs, 0 or 1 (or a leaky one's), and the next weight W,

    δ = m ∘ Wᵀ e    for a few numbers e, one for each of its outputs.

Of all vectors U v of the column space that is true for a record's own m alone. So if most signs of
z are right, v and e solve U v = m ∘ Wᵀ e in most rows exactly. They are found as those with the
least sum of the rows' errors, rather than of their squares, so that rows with a wrong sign do no
harm (iteratively reweighted least squares). A solution is told from an accident by how many more
rows hold than there are unknowns; it is looked for until no more rows come to hold.

Records whose slopes differ in a few rows only, as of plain parts of one photograph, all solve what
they have in common, and so do their mixtures. They are told apart by the rows that are left.
"""

import math

import numpy as np

from tinyleak.backend import Array

GAP = 30.0  # how many times what noise leaves the smallest singular value, the next must be

MOST_ALIKE, CHOICES, ALL_BUT = 12, 4000, 0.95
"""How many records of almost the same slopes are told apart, how many choices of rows are tried for
that, and how many of the rows in which they differ must hold for one."""

ROUNDS = 14  # reweightings, at most; each halves what counts as no error, from a tenth on
LOOSE = 1e-3  # rows that err by less, relative to δ's root mean square, are solved for alone

SURPLUS, MOSTLY = 0.02, 0.5
"""How many rows must hold: more than there are unknowns, by this share of all, and this share of
all those that were asked."""

NEW = 1e-3  # how far a δ must be from the span of all known ones, relative to its length


def lock(
    U: Array,
    slopes: Array,
    above: Array | None,
    trust: Array,
    noise: Array,
    *,
    zero_sum: bool = True,
) -> tuple[list[tuple[Array, Array | None]], Array]:
    """Find v with U v = δ of one record, or of several whose slopes hardly differ.

    Args:
        U: (O, r), orthonormal columns that span all δ.
        slopes: (O,), m at a point near the record.
        above: (O, K), Wᵀ; None if more than one layer is above: then only zeros are used.
        trust: (O,), from 0 to 1, how sure each slope is.
        noise: (r,), how far each column of U may be off, as a share of its length.
        zero_sum: whether e adds up to zero, as with cross-entropy logits may all rise together.

    Returns:
        For each, v, (r,), of length 1, and e, (K,), up to a factor; None if only zeros were used.
        And what all of several records span whose slopes hardly differ, (k, r), orthonormal rows,
        also where they are too many to be told apart.
    """
    if above is None:
        Q = np.zeros((len(U), 0))
        M, trust = U[slopes == 0.0], trust[slopes == 0.0]
    else:
        Q = above[:, 1:] - above[:, :1] if zero_sum else above  # e₀ is what the others lack
        Q = Q / np.linalg.norm(Q)
        M = np.hstack([U, -slopes[:, None] * Q])
    rank, unknowns = U.shape[1], M.shape[1]
    if len(M) < unknowns:
        return [], np.zeros((0, rank))
    enough = max(unknowns + SURPLUS * len(U), MOSTLY * len(M))

    def errors(x: Array) -> Array:
        size = np.linalg.norm(U @ x[:rank]) / np.sqrt(len(U))
        return np.asarray(np.abs(M @ x) / (size + 1e-300))

    weights, x, holds = trust, np.ones(unknowns), np.zeros(len(M), dtype=bool)
    for step in range(ROUNDS):
        x = _smallest((M * weights[:, None]).T @ M, x)
        off = errors(x)
        if (off < LOOSE).sum() >= enough:
            settled = _smallest(M[off < LOOSE].T @ M[off < LOOSE], x)
            limit = np.clip(10.0 * blur(settled[:rank], noise), 1e-7, LOOSE)
            now = errors(settled) < limit
            if holds.any() and now.sum() <= holds.sum():
                break
            if now.sum() >= enough:  # of records that are alike more rows may hold for one
                holds, best = now, settled
        weights = trust / np.maximum(off, max(blur(x[:rank], noise), 0.1 * 0.5**step))
        weights /= weights.max()
    if not holds.any():
        return [], np.zeros((0, rank))
    x = best

    def unheld(sizes: Array, axes: Array) -> Array:
        limits = [GAP * max(blur(x[:rank], noise), 1e-13) for x in axes]
        return np.asarray(sizes < sizes[0] * np.array(limits))

    columns, sizes, axes = _svd(M[holds])
    free = unheld(sizes, axes)
    # A row that alone holds a direction does so by accident: the least sum of errors has some.
    alone = np.square(columns[:, ~free]).sum(axis=1) > 1.0 - 1e-6
    if alone.any():
        sizes, axes = _svd(M[holds][~alone])[1:]
        free = unheld(sizes, axes)
    found = axes[free]
    span = np.linalg.qr(found[:, :rank].T)[0].T if len(found) > 1 else np.zeros((0, rank))
    if len(found) > MOST_ALIKE:
        return [], span
    if len(found) > 1:
        others = np.flatnonzero(np.abs(M @ found.T).max(axis=1) > 1e3 * sizes[-1])
        with_e = np.zeros((len(others), 0)) if above is None else -Q[others]
        off, on = (np.hstack([U[others], m * with_e]) @ found.T for m in (0.0, 1.0))
        found = apart(off, on, found[:, :rank], noise, math.sqrt(len(U))) @ found
    answers: list[tuple[Array, Array | None]] = []
    for x in found:
        v, e, size = x[:rank], x[rank:], np.linalg.norm(x[:rank])
        e = np.append(-e.sum(), e) if zero_sum else e
        answers.append((v / size, None if above is None else e / size))
    return answers, span


def apart(off: Array, on: Array, vs: Array, noise: Array, scale: float) -> Array:
    """Tell records apart whose slopes differ in a few rows only.

    Each of these rows is off or on for a record. A choice for all but one as many rows as there are
    records leaves one solution, and that is a record's if it answers to all other rows as well.

    Args:
        off: (R, k), what a row says of k solutions if it is off; on: (R, k), if it is on.
        vs: (k, r), the solutions.
        noise: (r,), as for `lock`.
        scale: √O, for entries relative to their root mean square.

    Returns:
        (M, k), combinations of the solutions.
    """
    (rows, k), rng = off.shape, np.random.default_rng(0)
    if rows < k + 3:
        return np.zeros((0, k))
    chosen = np.argsort(rng.random((CHOICES, rows)), axis=1)[:, : k - 1]
    both = np.stack([off, on])
    x = np.linalg.svd(both[rng.integers(2, size=chosen.shape), chosen])[2][:, -1]
    v = x @ vs
    size = np.linalg.norm(v, axis=1)
    tight = np.clip(10.0 * np.linalg.norm(noise * v, axis=1) / size, 1e-7, LOOSE)
    errors = np.abs(x @ both.transpose(0, 2, 1)).min(axis=0) * scale / size[:, None]
    good = (errors < tight[:, None]).mean(axis=1) > ALL_BUT
    found: list[Array] = []
    for one in x[good] / size[good, None]:
        if all(abs(one @ vs @ (other @ vs)) < 1.0 - NEW**2 for other in found):
            found.append(one)
    return np.reshape(found, (-1, k))


def blur(v: Array, noise: Array) -> float:
    """Return how far the entries of U v may be off, relative to their root mean square.

    NaN for v = 0, which is no record's.
    """
    with np.errstate(invalid="ignore"):
        return float(np.linalg.norm(noise * v) / np.linalg.norm(v))


def _svd(M: Array) -> tuple[Array, Array, Array]:
    """Decompose a matrix, also where LAPACK's usual way, divide and conquer, does not end."""
    from scipy.linalg import svd

    try:
        u, sizes, v = np.linalg.svd(M, full_matrices=False)
    except np.linalg.LinAlgError:
        u, sizes, v = svd(M, full_matrices=False, lapack_driver="gesvd")
    return u, sizes, v


def _smallest(gram: Array, guess: Array) -> Array:
    """Return about the eigenvector of the smallest eigenvalue, by inverse iteration."""
    from scipy.linalg import cho_factor, cho_solve

    if not gram.any():  # of units that are off in all records: any vector is
        return guess
    ridge = 1e-15 * np.trace(gram)
    factor = cho_factor(gram + ridge * np.eye(len(gram)), check_finite=False)
    x = guess
    for _ in range(3):
        x = cho_solve(factor, x, check_finite=False)
        x /= np.linalg.norm(x)
    return np.asarray(x)
