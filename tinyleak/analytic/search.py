"""The search for records one by one, by Gauss and Newton's method; see `records`."""

import math
from typing import Any, NamedTuple

import numpy as np

from tinyleak.analytic.extreme_rays import extreme_rays
from tinyleak.analytic.known import CLEAR, GUESSED, HALF, NEARLY, Known
from tinyleak.analytic.points import Points
from tinyleak.analytic.subspace import without
from tinyleak.backend import Array

PATIENCE = 60
"""Attempts in a row that may find nothing; where all are found, a record takes 1.1 to 1.6."""

OUTSIDE = 1e-3
"""What a pixel outside of its range counts for, beside 1 for all of δ: it turns the search."""

NEAR = 1e-10, 1e-20
"""f at which the range no longer matters, and at which what is known no longer matters."""

FAINT, FAINT_STEPS = tuple(k / 10 for k in range(1, 10)), 10
"""Shares of the layer's answers, one after the other, and the steps with each. Large answers
saturate what is above, as with weights from U(−0.5, 0.5), and leave f so rough that of 574 attempts
one led to one of 128 records (tanh); with fainter ones first a third does, to a few of them."""

FAR_OUTSIDE = 10.0
"""What a pixel outside of its range counts for there, less and less: with `OUTSIDE` in its place
those attempts lead to fewer different records, and to these less often."""

NEW = 1e-2
"""What a δ must have of its dual that no known one has: of records found for the first time it was
0.02 to 1, of others mostly below 1e-3."""

SHORT = 1e-3  # a δ that is so much shorter than another label's does not tell that it is right

TINY = 1e-290  # the size below which numbers have no inverse


class Ray(NamedTuple):
    """What may be a record: where, (r,), its label, how far noise may have moved it, and its f."""

    c: Array
    label: int
    spread: float
    f: float


class Search(Known):
    """What is known of the records so far, and the search for the next."""

    def run(self) -> None:
        """Search until all records are found, or the patience or the time has run out."""
        self.take_rays()
        self.search()
        refined = 0
        while refined < len(self.inputs) + len(self.guesses) and self._missing and self._time_left:
            refined = len(self.inputs) + len(self.guesses)
            if not self._refine():
                break
            self.search()

    def take_rays(self) -> None:
        """Take the records that are extreme rays, as long as there are more."""
        new = True
        while new and len(self.basis) and self._time_left:
            known = len(self.inputs)
            for ray in self._rays(self.basis):
                self.claim(ray.label, ray.c, ray.spread)
            new = len(self.inputs) > known

    def _rays(self, basis: Array) -> list[Ray]:
        """Return the extreme rays within a part of the row space, where a ReLU is below the layer.

        Pixels are never negative either, but few pixels of an image are black in all others.
        """
        bounds, has_bias = self.bounds or (-math.inf, math.inf), self.space.bias is not None
        if bounds[0] < 0.0 or bounds[1] < math.inf or not has_bias:
            return []
        deviation = math.sqrt(self.layer.variance)
        found = extreme_rays(basis @ self.space.V, basis * (deviation / self.space.S))
        return [] if found is None else self._judged(found[0] @ basis, found[1])

    def _judged(self, c: Array, spreads: Array) -> list[Ray]:
        """Return points of the row space, (M, r), each with the label that suits it best."""
        fs, _ = self._by_label(c)
        labels = np.argmin(fs, axis=0)
        return [
            Ray(point, int(label), float(spread), float(f))
            for point, label, spread, f in zip(c, labels, spreads, fs.min(axis=0), strict=True)
        ]

    def _by_label(self, c: Array) -> tuple[Array, Array]:
        """Return f of points of the row space, (M, r), and how long δ is, by label: (K, M)."""
        z = c @ self.space.answers + (0.0 if self.space.bias is None else self.space.bias)
        count, classes = len(z), len(self.targets)
        rows = self.deltas.of(np.tile(z, (classes, 1)), np.repeat(self.targets, count, axis=0))
        deltas = rows.reshape(classes, count, -1)
        sizes = np.square(deltas).sum(axis=2)
        rest = deltas - (deltas @ self.space.U) @ self.space.U.T
        return np.square(rest).sum(axis=2) / (sizes + 1e-300), np.sqrt(sizes)

    def _likelier(self, c: Array, label: int) -> int:
        """Return the label that suits a point, (r,), best: the one that led there, or another.

        What a network is sure of has a δ that rounds to zero, which would suit everywhere.
        """
        f, length = self._by_label(c[None])
        possible = length[:, 0] > SHORT * length.max()
        possible[label] = True
        return int(np.argmin(np.where(possible, f[:, 0], np.inf)))

    def search(self) -> None:
        """Search from random points, where no known record is."""
        everywhere = self.space.points(np.eye(len(self.space.S)))
        bounded = 0.0 if self.bounds is None else 1.0
        misses, faintly = 0, False
        while not self._complete and misses < PATIENCE and self._time_left:
            label = self._draw_label()
            points = self.space.points(self.basis)
            t = points.random(self.rng)
            how: dict[str, Any] = {"goal": NEAR[0], "U": self.space.U @ self.columns.T}
            for share in FAINT if faintly else ():
                outside = bounded * FAR_OUTSIDE * (1.0 - share)
                faint = points.faintly(share)
                t = self.descend(faint, label, t, steps=FAINT_STEPS, outside=outside, **how)
            t = self.descend(points, label, t, outside=bounded * OUTSIDE, **how)
            label = self._likelier(points.at(t)[0], label)
            t = self.descend(points, label, t, **how | {"goal": NEAR[1]})
            c = points.at(t)[0]
            # What is known is not known exactly, so the last steps do without it.
            t = self.descend(everywhere, label, everywhere.nearest(c))
            spread = self._spread(everywhere, label, t)
            found = self.claim(label, everywhere.at(t)[0], spread, c)
            misses = 0 if found else misses + 1
            faintly ^= not found  # what has just failed is not tried again at once
            self._note(label, found)

    def claim(self, label: int, c: Array, spread: float, apart: Array | None = None) -> bool:
        """Take the record at a point of the row space, and search no longer where it is."""
        h = c @ self.space.V[:, : self.layer.weight_gradient.shape[1]]
        share = spread / math.sqrt(1.0 + float(h @ h))
        certified = share < CLEAR and self.take(h, label, spread)
        if certified:
            label = self.labels[-1]
        dual = self._dual(label, c)
        left = self.basis @ dual
        if np.linalg.norm(left) <= NEW * np.linalg.norm(dual):  # as where δ rounds to 0
            return certified
        answer = self._certificates(h, [label], spread)
        if not certified and not (answer.fits[0] and answer.counts[0] > 0.0):
            return False
        if not certified and share < NEARLY:
            if apart is not None:
                other_h = apart @ self.space.V[:, : self.layer.weight_gradient.shape[1]]
                other = self._certificates(other_h, [label], spread)
                if other.count_errors[0] < answer.count_errors[0]:
                    h, answer = other_h, other
            if answer.count_errors[0] < HALF and self._is_new(h, label):
                self.guesses.append((h, label))
        self.basis = without(self.basis, left)
        if share < NEARLY:
            self.columns = without(self.columns, self.columns @ (c / self.space.S))
        return True

    def last_guesses(self) -> list[tuple[Array, int]]:
        """Return what is nearly a record, as far as noise lets it be told, with its label."""
        if self.space.bias is None:
            return self.guesses
        left, V = np.eye(len(self.space.V)), self.space.V
        known = [*zip(self.inputs, self.labels, strict=True), *self.guesses]
        for h, label in known[: len(left) - 1]:
            left = without(left, left @ self._dual(label, self._coordinates(h[None])[0]))
        everywhere = True  # where nothing that is known, less exactly, has been taken off
        while len(left) > 1:
            rays = self._rays(np.eye(len(V)) if everywhere else left)
            likely = [
                r for r in rays if r.f < GUESSED**2 and self._is_new(r.c @ V[:, :-1], r.label)
            ]
            if likely:
                best = min(likely, key=lambda ray: ray.f)
                self.guesses.append((best.c @ V[:, :-1], best.label))
                left = without(left, left @ self._dual(best.label, best.c))
            elif everywhere:
                everywhere = False
            else:
                break
        if len(left) == 1 and len(left) < len(V):  # what all others leave is known without a ray
            (last,) = self._judged(left / (left @ V[:, -1]), np.zeros(1))
            if last.f < GUESSED**2:
                self.guesses.append((last.c @ V[:, :-1], last.label))
        return self.guesses[: self._missing]

    def _draw_label(self) -> int:
        self.attempts += 1
        shares = self.weights / self.weights.sum()
        return int(self.rng.choice(len(shares), p=shares))

    def _note(self, label: int, found: bool) -> None:
        """Draw a label less often where it was searched for in vain."""
        self.weights[label] = max(self.weights[label] * 0.5 + (0.5 if found else 0.05), 0.03)

    def _spread(self, points: Points, label: int, t: Array, U: Array | None = None) -> float:
        """Return how far what is left of f, as noise, may have moved h."""
        if not len(t):
            return 0.0
        f, gram, _ = self.evaluate(points, label, t, U=U)
        equations = max(len(self.space.U) - len(self.space.S), 1)
        if not TINY < np.abs(gram).max() < math.inf:  # nothing shows there where h is
            return math.inf
        return math.sqrt(abs(float(np.trace(np.linalg.pinv(gram, hermitian=True)))) * f / equations)
