"""δ of a record under a ReLU, locked onto the signs of its answers.

Where the layer's answer z is below 0, a ReLU's δ is 0, and elsewhere it is what comes down from the
next layer: with the slopes m of the ReLUs, 0 or 1 (or a leaky one's), and the next weight W,

    δ = m ∘ Wᵀ e    for a few numbers e, one for each of its outputs.

Of all vectors U v of the column space that is true for a record's own m alone. So if most signs of
z are right, v and e solve U v = m ∘ Wᵀ e in most rows exactly. They are found as those with the
least sum of the rows' errors, rather than of their squares, so that rows with a wrong sign do no
harm (iteratively reweighted least squares). A solution is told from an accident by how many more
rows hold than there are unknowns.
"""

from __future__ import annotations

import math

import numpy as np

from tinyleak.analytic.points import Points
from tinyleak.analytic.search import CLEAR, OUTSIDE, PATIENCE, Search
from tinyleak.backend import Array

SOFTNESS, SOFT_STEPS = (0.5, 0.2, 0.08), 12
"""How soft the slopes are one after the other, in units of the spread of a layer's answers, and the
steps with each; from the second on it is tried to lock."""

LEAST_NOISE, NEW = 1e-11, 1e-3
"""Of δ, relative to its length: what float64 leaves in a product of many factors, and how far one
must be from the span of all known ones."""

ROUNDS_OF_ALL = 3
"""How often all are solved for: what is not certified then is locked anew."""

GAP = 30.0
"""How many times what noise leaves the smallest singular value, the next must be."""

MOST_ALIKE, CHOICES, ALL_BUT = 8, 2000, 0.95
"""How many records of almost the same slopes are told apart, how many choices of rows are tried for
that, and how many of the rows in which they differ must hold for one."""

ROUNDS = 14
"""Reweightings, at most; each halves what counts as no error, from a tenth on."""

LOOSE = 1e-3
"""Rows that err by less, relative to δ's root mean square, are solved for alone."""

SURPLUS, MOSTLY = 0.02, 0.5
"""How many rows must hold: more than there are unknowns, by this share of all, and this share of
all those that were asked."""


def lock(
    U: Array, slopes: Array, above: Array | None, trust: Array, noise: Array
) -> list[tuple[Array, Array | None]]:
    """Find v with U v = δ of one record, or of several whose slopes hardly differ.

    Args:
        U: (O, r), orthonormal columns that span all δ.
        slopes: (O,), m at a point near the record.
        above: (O, K), Wᵀ; None if more than one layer is above: then only zeros are used.
        trust: (O,), from 0 to 1, how sure each slope is.
        noise: (r,), how far each column of U may be off, as a share of its length.

    Returns:
        For each, v, (r,), of length 1, and e, (K,), up to a factor, or None if only zeros were used.
    """
    if above is None:
        Q = np.zeros((len(U), 0))
        M, trust = U[slopes == 0.0], trust[slopes == 0.0]
    else:
        # Logits may all rise together, so e adds up to zero: e₀ is what the others lack.
        Q = above[:, 1:] - above[:, :1]
        Q = Q / np.linalg.norm(Q)
        M = np.hstack([U, -slopes[:, None] * Q])
    rank, unknowns = U.shape[1], M.shape[1]
    if len(M) < unknowns:
        return []
    enough = max(unknowns + SURPLUS * len(U), MOSTLY * len(M))

    def errors(x: Array) -> Array:
        size = np.linalg.norm(U @ x[:rank]) / np.sqrt(len(U))
        return np.asarray(np.abs(M @ x) / (size + 1e-300))

    weights, x = trust, np.ones(unknowns)
    for step in range(ROUNDS):
        x = _smallest((M * weights[:, None]).T @ M, x)
        off = errors(x)
        if (off < LOOSE).sum() >= enough:
            x = _smallest(M[off < LOOSE].T @ M[off < LOOSE], x)
            holds = errors(x) < np.clip(10.0 * blur(x[:rank], noise), 1e-7, LOOSE)
            if holds.sum() >= enough:
                break
        weights = trust / np.maximum(off, max(blur(x[:rank], noise), 0.1 * 0.5**step))
        weights /= weights.max()
    else:
        return []
    columns, sizes, axes = np.linalg.svd(M[holds], full_matrices=False)
    free = sizes < [GAP * max(blur(x[:rank], noise), 1e-13) * sizes[0] for x in axes]
    # A row that alone holds a direction does so by accident: the least sum of errors has some.
    alone = np.square(columns[:, ~free]).sum(axis=1) > 1.0 - 1e-6
    if alone.any():
        sizes, axes = np.linalg.svd(M[holds][~alone], full_matrices=False)[1:]
        free = sizes < [GAP * max(blur(x[:rank], noise), 1e-13) * sizes[0] for x in axes]
    if not 0 < free.sum() <= MOST_ALIKE:
        return []
    found = axes[free]
    if len(found) > 1:
        others = np.flatnonzero(np.abs(M @ found.T).max(axis=1) > 1e3 * sizes[-1])
        with_e = np.zeros((len(others), 0)) if above is None else -Q[others]
        off, on = (np.hstack([U[others], m * with_e]) @ found.T for m in (0.0, 1.0))
        found = apart(off, off if above is None else on, found[:, :rank], noise, math.sqrt(len(U))) @ found
    answers: list[tuple[Array, Array | None]] = []
    for x in found:
        v, e, size = x[:rank], x[rank:], np.linalg.norm(x[:rank])
        answers.append((v / size, None if above is None else np.append(-e.sum(), e) / size))
    return answers


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
    """Return how far the entries of U v may be off, relative to their root mean square."""
    return float(np.linalg.norm(noise * v) / np.linalg.norm(v))


def _smallest(gram: Array, guess: Array) -> Array:
    """Return about the eigenvector of the smallest eigenvalue, by inverse iteration."""
    from scipy.linalg import cho_factor, cho_solve

    ridge = 1e-15 * np.trace(gram)
    factor = cho_factor(gram + ridge * np.eye(len(gram)), check_finite=False)
    x = guess
    for _ in range(3):
        x = cho_solve(factor, x, check_finite=False)
        x /= np.linalg.norm(x)
    return np.asarray(x)


class ReluSearch(Search):
    """The search where a ReLU is above the layer: all δ first, then the records that go with them.

    δ of a record does not determine it under a ReLU, but all δ together do: with the rows of A in
    the place of vᵢ, G = Σᵢ δᵢ (hᵢ, 1)ᵀ / N gives all (hᵢ, 1) up to their length.
    """

    def run(self) -> None:
        """Take what extreme rays show; lock δ after δ, then solve for the records."""
        self.take_rays()
        space = self.space
        self.deviation = math.sqrt(max(self.layer.noise or 0.0, self.layer.rounding))
        self.noise = np.maximum(
            3.0 * self.deviation * math.sqrt(len(space.U)) / space.S, LEAST_NOISE
        )
        self.steepest = self.deltas.jacobian(np.ones(len(space.U)))
        again = self.deltas.jacobian(self.rng.uniform(1.0, 2.0, len(space.U)))
        self.is_last_but_one = bool(np.allclose(self.steepest, again))
        self._forget_uncertified()
        told_by_rays = len(self.inputs) > 0 and np.sqrt(np.mean(self.noise**2)) > LOOSE
        for _ in range(0 if told_by_rays else ROUNDS_OF_ALL):
            if self._complete or not self._time_left:
                break
            self._lock_all()
            self._solve()

    def _lock_all(self) -> None:
        """Lock δ after δ, until there are as many as the space has dimensions."""
        known, misses = np.linalg.qr(self._vs.T)[0].T, 0
        while len(self.locked) < len(self.space.S) and misses < PATIENCE and self._time_left:
            label = self._draw_label()
            found = False
            for answer in self._attempt(label, self.space.U @ known.T):
                rest = answer[0] - known.T @ (known @ answer[0])
                if np.linalg.norm(rest) > max(NEW, GAP * blur(answer[0], self.noise)):
                    found = True
                    self.locked.append(answer)
                    known = np.vstack([known, rest / np.linalg.norm(rest)])
                    if len(self.basis) > 1:
                        self.exclude(answer[0])
            misses = 0 if found else misses + 1
            self._note(label, found)

    @property
    def _vs(self) -> Array:
        """All v that are locked: (M, r)."""
        return np.reshape([v for v, _, _ in self.locked], (-1, len(self.space.S)))

    def _attempt(self, label: int, known: Array) -> list[tuple[Array, Array, int | None]]:
        """Search from a random point with ever sharper slopes, and lock where that ends."""
        points = self.space.points(self.basis)
        t = points.random(self.rng)
        outside = 0.0 if self.bounds is None else OUTSIDE
        for softness in SOFTNESS:
            how = outside, softness, None, known
            t = self.descend(points, label, t, 1e-10, SOFT_STEPS, *how)
            c, _, z = points.at(t)
            if softness < SOFTNESS[0]:
                slopes = self._slopes(z)
                trust = 1.0 - np.exp(-np.abs(z) / (softness * z.std()))
                above = self.steepest.T if self.is_last_but_one else None
                answers = lock(self.space.U, slopes, above, trust, self.noise)
                if answers:
                    # Of p − y the label's entry is what all others add up to.
                    return [
                        (v, c, None if e is None else int(np.argmax(np.abs(e)))) for v, e in answers
                    ]
        return []

    def _slopes(self, z: Array) -> Array:
        """Return the slopes of the ReLUs that the answers come to, (O,); of others than 0, 1."""
        now = self.deltas.jacobian(z)
        if not self.is_last_but_one:
            return (now != 0.0).any(axis=0).astype(float)
        most = np.argmax(np.abs(self.steepest), axis=0), np.arange(len(z))
        return np.asarray(now[most] / self.steepest[most])

    def _solve(self) -> None:
        """Find each record by what all δ say: it is at right angles to the others' duals."""
        vs, S, certified = self._vs, self.space.S, len(self.inputs)
        shares = np.linalg.pinv(vs).T
        missing = np.linalg.svd(vs)[2][len(vs) :]
        rest, unknown = np.linalg.qr((missing * S).T)[0].T, float(np.linalg.norm(missing * S))
        left: list[tuple[Array, int | None]] = []
        for share, (v, c, told) in list(zip(shares, self.locked, strict=True))[certified:]:
            if self._take_share(share, unknown, told):
                continue
            row = share * S - (share * S) @ rest.T @ rest
            points = self.space.points(np.vstack([rest, row / np.linalg.norm(row)]))
            if not self._settle(points, c, told, self.space.U @ v[:, None]):
                left.append((c, told))
        self._forget_uncertified()
        # A wrong δ, or a blurred one, as those of near twins are, spoils others: f itself decides.
        for c, told in left if len(self.basis) < len(self.targets) else []:
            if len(self.basis) and self._settle(self.space.points(self.basis), c, told):
                self._forget_uncertified()

    def _take_share(self, share: Array, unknown: float, told: int | None) -> bool:
        """Take the record that is a share of the gradient, as far as the gradient is explained.

        So δ may be missing of records that the gradient hardly shows.

        Args:
            share: (r,), what a record's δ has of each column of U and no other δ that is known.
            unknown: the length of the part of the gradient that no known δ explains.
            told: its label.
        """
        c = share * self.space.S
        row = c @ self.space.V
        if self.space.bias is None or not row[-1]:
            return False
        noise = self.deviation * math.sqrt(len(c)) + unknown
        spread = float(np.linalg.norm(share)) * noise / abs(row[-1])
        far = spread > CLEAR * float(np.linalg.norm(row / row[-1]))
        return not far and self.take(row[:-1] / row[-1], told or 0, spread)

    def _settle(self, points: Points, c: Array, told: int | None, U: Array | None = None) -> bool:
        """Take a record near c, with the label told, or else another."""
        others = [label for label in range(len(self.targets)) if label != told]
        first = [] if told is None else [told]
        for label in first + (others if told is None or len(points.c) == 0 else []):
            t = self.descend(points, label, points.nearest(c), U=U)
            at, h, _ = points.at(t)
            # With all δ known, h is a combination of the gradient's rows: so long is that.
            spread = self.deviation * math.sqrt(len(at)) * float(np.linalg.norm(at / self.space.S))
            if self.take(h, label, spread):
                return True
        return False

    def _forget_uncertified(self) -> None:
        """Keep of all δ only those of certified records, as these make them."""
        self.locked: list[tuple[Array, Array, int | None]] = []  # v, c near it, and the label
        self.basis = np.eye(len(self.space.S))
        for h, label in zip(self.inputs, self.labels, strict=True):
            row = h if self.space.bias is None else np.append(h, 1.0)
            c = self.space.V @ row
            z = c @ self.space.answers + (0.0 if self.space.bias is None else self.space.bias)
            v = self.space.U.T @ self.deltas.of(z[None], self.targets[[label]])[0]
            self.locked.append((v / np.linalg.norm(v), c, label))
            if len(self.basis):
                self.exclude(v)
