"""The search for records one by one, by Gauss and Newton's method; see `records`."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tinyleak.analytic.certificate import Certificates, certify
from tinyleak.analytic.deltas import Deltas
from tinyleak.analytic.descent import Descent
from tinyleak.analytic.extreme_rays import extreme_rays
from tinyleak.analytic.layer_gradient import LayerGradient
from tinyleak.analytic.points import Points, RowSpace, without
from tinyleak.analytic.together import refine
from tinyleak.backend import Array

PATIENCE = 60
"""Attempts in a row that may find nothing; where all are found, a record takes 1.1 to 1.6."""

OUTSIDE = 1e-3
"""What a pixel outside of its range counts for, beside 1 for all of δ: it turns the search."""

NEAR = 1e-10, 1e-20
"""f at which the range no longer matters, and at which what is known no longer matters."""

CLEAR = 1e-3
"""What noise may leave unknown of a record, as a share of its length; more is not claimed."""

GUESSED, NEARLY, HALF = 3e-2, 1e-2, 0.5
"""How far δ of a guess may be from the column space, relative to its length; inputs that differ by
less, likewise, are one record, and a guess is known as well as that; and how far its copies may be
from a whole number."""

FIT = 5.0
"""How far a product of two records may be from what it should, in units of its noise: of refined
ones it was at most 4.4, and 5.0 and more where one of two was not what it is."""

NEW = 1e-2
"""What a δ must have of its dual that no known one has: of records found for the first time it was
0.02 to 1, of others mostly below 1e-3."""


@dataclass(frozen=True, eq=False, repr=False)
class Records:
    """The records that were found, each certified, in the order in which they were.

    Attributes:
        inputs: (M, F), what came into the layer; pixels where it is the network's first.
        labels: (M,) int64.
        copies: (M,) int64, how often each is in the batch.
        missing: how many of the batch were not found.
        attempts: from how many points was searched.
        seconds: how long it took.
        guesses: (G, F), what may be some of those that were not found: each is a record as far as
            noise lets it be told, which is not far enough to certify it.
        guessed_labels: (G,) int64.
    """

    inputs: Array
    labels: Array
    copies: Array
    missing: int
    attempts: int
    seconds: float
    guesses: Array
    guessed_labels: Array

    def __repr__(self) -> str:
        found = int(self.copies.sum())
        return f"Records({found} of {found + self.missing}, {self.seconds:.1f} s)"


class Ray(NamedTuple):
    """What may be a record: where, (r,), its label, how far noise may have moved it, and its f."""

    c: Array
    label: int
    spread: float
    f: float


class Search(Descent):
    """What is known of the records so far, and the search for the next."""

    def __init__(
        self,
        layer: LayerGradient,
        deltas: Deltas,
        bounds: tuple[float, float] | None,
        rng: np.random.Generator,
        seconds: float,
        factor_known: bool,
    ) -> None:
        super().__init__(RowSpace.of(layer, deltas.cut), deltas, bounds)
        self.layer, self.rng, self.factor_known = layer, rng, factor_known
        self.begun, self.seconds, self.attempts = time.perf_counter(), seconds, 0
        self.basis = np.eye(len(self.space.S))  # of where the other records lie
        self.columns = self.basis  # of their δ, in coordinates of U
        self.weights = np.ones(len(self.targets))  # how likely a label is worth an attempt
        self.inputs: list[Array] = []
        self.labels: list[int] = []
        self.copies: list[int] = []
        self.counts: list[float] = []  # the same, times the loss's factor
        self.guesses: list[tuple[Array, int]] = []

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
        deviation = math.sqrt(max(self.layer.noise or 0.0, self.layer.rounding))
        found = extreme_rays(basis @ self.space.V, basis * (deviation / self.space.S))
        return [] if found is None else self._judged(found[0] @ basis, found[1])

    def _judged(self, c: Array, spreads: Array) -> list[Ray]:
        """Return points of the row space, (M, r), each with the label that suits it best."""
        z = c @ self.space.answers + self.space.bias
        fs = []
        for target in self.targets:
            delta = self.deltas.of(z, np.repeat(target[None], len(z), axis=0))
            rest = delta - delta @ self.space.U @ self.space.U.T
            fs.append(np.square(rest).sum(axis=1) / (np.square(delta).sum(axis=1) + 1e-300))
        labels = np.argmin(fs, axis=0)
        return [
            Ray(point, int(label), float(spread), float(f))
            for point, label, spread, f in zip(c, labels, spreads, np.min(fs, axis=0), strict=True)
        ]

    def _dual(self, label: int, c: Array) -> Array:
        """Return S⁻¹ Uᵀ δ of a record, (r,): the other records lie at right angles to it."""
        z = c @ self.space.answers + (0.0 if self.space.bias is None else self.space.bias)
        delta = self.deltas.of(z[None], self.targets[[label]])[0]
        return np.asarray(self.space.U.T @ delta / self.space.S)

    def search(self) -> None:
        """Search from random points, where no known record is."""
        everywhere = self.space.points(np.eye(len(self.space.S)))
        misses = 0
        while not self._complete and misses < PATIENCE and self._time_left:
            label = self._draw_label()
            points = self.space.points(self.basis)
            t = points.random(self.rng)
            U = self.space.U @ self.columns.T
            if self.bounds is not None:
                t = self.descend(points, label, t, outside=OUTSIDE, goal=NEAR[0], U=U)
            t = self.descend(points, label, t, goal=NEAR[1], U=U)
            c = points.at(t)[0]
            # What is known is not known exactly, so the last steps do without it.
            t = self.descend(everywhere, label, everywhere.nearest(c))
            spread = self._spread(everywhere, label, t)
            found = self.claim(label, everywhere.at(t)[0], spread, c)
            misses = 0 if found else misses + 1
            self._note(label, found)

    def claim(self, label: int, c: Array, spread: float, apart: Array | None = None) -> bool:
        """Take the record at a point of the row space, and search no longer where it is."""
        h = c @ self.space.V[:, : self.layer.weight_gradient.shape[1]]
        share = spread / math.sqrt(1.0 + float(h @ h))
        certified = share < CLEAR and self.take(h, label, spread)
        if certified:
            label = self.labels[-1]
            same = self._same(h, label, [guess for guess, _ in self.guesses])
            self.guesses = [g for g, known in zip(self.guesses, same, strict=True) if not known]
        dual = self._dual(label, c)
        left = self.basis @ dual
        if np.linalg.norm(left) <= NEW * np.linalg.norm(dual):  # as where δ rounds to 0
            return certified
        answer = self._certificates(h, [label], spread)
        if not certified and not answer.fits[0]:
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

    def _refine(self) -> bool:
        """Refine all that is known together, without guesses that do not fit; whether it could."""
        space, certified = self.space, len(self.inputs)
        known = [*zip(self.inputs, self.labels, strict=True), *self.guesses]
        c, labels = (
            self._coordinates(np.array([h for h, _ in known])),
            np.array([k for _, k in known]),
        )
        counts = (self.layer.records or 0) / np.append(self.copies, np.ones(len(self.guesses)))
        fits = np.arange(len(c))
        noise = math.sqrt(max(self.layer.noise or 0.0, self.layer.rounding))
        while True:
            c, labels, counts = c[fits], labels[fits], counts[fits]
            known_counts = counts if self.factor_known else None
            told = refine(
                space, self.deltas, c, self.targets[labels], known_counts, noise, self.rng
            )
            c, fits = told.c, np.arange(len(c))
            while (worst := told.misfits[np.ix_(fits, fits)]).max() > FIT:
                sums = np.where(worst > FIT, worst, 0.0).sum(axis=0)
                sums[fits < certified] = 0.0
                if not sums.any() or len(fits) == 1:
                    return False
                fits = np.delete(fits, np.argmax(sums))
            if len(fits) == len(c):
                break
        self.inputs, self.labels, self.copies, self.counts, self.guesses = [], [], [], [], []
        self.basis = self.columns = np.eye(len(space.S))
        inputs = c @ space.V[:, : self.layer.weight_gradient.shape[1]]
        clear = CLEAR / FIT * math.sqrt(np.square(inputs).sum(axis=1).mean())
        for h, one, label, spread in zip(
            inputs, c, labels.tolist(), told.spreads.tolist(), strict=True
        ):
            if not (spread < clear and self.take(h, label, spread)):
                self.guesses.append((h, label))
            self.basis = without(self.basis, self.basis @ self._dual(label, one))
            self.columns = without(self.columns, self.columns @ (one / space.S))
        return True

    def found(self) -> Records:
        """Return what has been found."""
        if not self.factor_known and len(self.space.S) > 1:
            self._keep_what_agrees()
        shape = (-1, self.layer.weight_gradient.shape[1])
        copies = np.array(self.copies, dtype=np.int64)
        missing = self._missing
        guesses = self._guesses() if missing else []
        seconds = time.perf_counter() - self.begun
        return Records(
            np.reshape(self.inputs, shape),
            np.array(self.labels, dtype=np.int64),
            copies,
            missing,
            self.attempts,
            seconds,
            np.reshape([h for h, _ in guesses], shape),
            np.array([label for _, label in guesses], dtype=np.int64),
        )

    def _keep_what_agrees(self) -> None:
        """Keep records that have a factor of the loss in common, which no one shows alone."""
        counts = np.array(self.counts)
        shares = counts / np.median(counts) if len(counts) > 1 else np.zeros(len(counts))
        whole = np.rint(shares)
        agree = (whole > 0) & (np.abs(shares - whole) < NEARLY)
        kept = np.flatnonzero(agree).tolist() if agree.sum() > 1 else []
        self.inputs, self.labels = [self.inputs[k] for k in kept], [self.labels[k] for k in kept]
        self.copies = [1] * len(kept)

    def _guesses(self) -> list[tuple[Array, int]]:
        """Return what is nearly a record, as far as noise lets it be told, with its label."""
        if self.space.bias is None:
            return self.guesses
        left, V = np.eye(len(self.space.V)), self.space.V
        known = [*zip(self.inputs, self.labels, strict=True), *self.guesses]
        for h, label in known[: len(left) - 1]:
            left = without(left, left @ self._dual(label, V @ np.append(h, 1.0)))
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

    @property
    def _missing(self) -> int:
        return (self.layer.records or 0) - sum(self.copies)

    @property
    def _complete(self) -> bool:
        return not len(self.basis) or len(self.guesses) >= self._missing

    @property
    def _time_left(self) -> bool:
        return time.perf_counter() - self.begun < self.seconds

    def _draw_label(self) -> int:
        self.attempts += 1
        shares = self.weights / self.weights.sum()
        return int(self.rng.choice(len(shares), p=shares))

    def _note(self, label: int, found: bool) -> None:
        """Draw a label less often where it was searched for in vain."""
        self.weights[label] = max(self.weights[label] * 0.5 + (0.5 if found else 0.05), 0.03)

    def _spread(self, points: Points, label: int, t: Array) -> float:
        """Return how far what is left of f, as noise, may have moved h."""
        if not len(t):
            return 0.0
        f, gram, _ = self.evaluate(points, label, t)
        equations = max(len(self.space.U) - len(self.space.S), 1)
        if not np.isfinite(gram).all():
            return math.inf
        return math.sqrt(abs(float(np.trace(np.linalg.pinv(gram, hermitian=True)))) * f / equations)

    def _is_new(self, h: Array, label: int) -> bool:
        """Whether a record is none of those that are known, nor of the guesses."""
        return not self._same(h, label, [*self.inputs, *(g for g, _ in self.guesses)]).any()

    def _same(self, h: Array, label: int, others: list[Array]) -> Array:
        """Tell which of some inputs are this one: δ of a record is apart from all others' (M,)."""
        c = self._coordinates(np.array([h, *others]))
        products = np.abs(c @ self._dual(label, c[0]))
        return np.asarray(products[1:] > HALF * products[0])

    def _coordinates(self, inputs: Array) -> Array:
        """Return inputs, (M, F), in coordinates of the row space, (M, r)."""
        ends = self.space.V.shape[1] - inputs.shape[1]  # 1 with a bias
        return np.asarray(np.pad(inputs, [(0, 0), (0, ends)], constant_values=1.0) @ self.space.V.T)

    def take(self, h: Array, label: int, spread: float = 0.0) -> bool:
        """Keep an input with its label if it is certified, and new; `spread` as for `certify`."""
        if not np.isfinite(h).all() or self._same(h, label, self.inputs).any():
            return False
        # Where a network is sure, labels differ in how long δ is, and not in where it points.
        labels = [label, *(other for other in range(len(self.targets)) if other != label)]
        answer = self._certificates(h, labels, spread)
        if not answer.certified.any():
            return False
        first = int(np.argmax(answer.certified))
        if answer.copies[first] > self._missing:
            return False
        self.inputs.append(h)
        self.labels.append(labels[first])
        self.copies.append(int(answer.copies[first]))
        self.counts.append(float(answer.counts[first]))
        return True

    def _certificates(self, h: Array, labels: list[int], spread: float) -> Certificates:
        """Certify an input with each of some labels."""
        return certify(
            self.layer,
            self.deltas.cut,
            np.repeat(h[None], len(labels), axis=0),
            np.array(labels),
            loss=self.deltas.loss,
            factor_known=self.factor_known,
            spread=spread,
        )

    def exclude(self, b: Array) -> None:
        """Search no longer where a record is whose δ is U b."""
        self.basis = without(self.basis, self.basis @ (b / self.space.S))
