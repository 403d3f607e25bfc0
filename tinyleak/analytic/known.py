"""What is known of the records of a batch so far; see `records`."""

import math
import time
from dataclasses import dataclass

import numpy as np

from tinyleak.analytic.certificate import Certificates, certify
from tinyleak.analytic.deltas import Deltas
from tinyleak.analytic.descent import Descent
from tinyleak.analytic.layer_gradient import LayerGradient
from tinyleak.analytic.points import RowSpace
from tinyleak.analytic.subspace import without
from tinyleak.analytic.together import refine
from tinyleak.analytic.twins import EXACT, Twins
from tinyleak.backend import Array

CLEAR = 1e-3
"""What noise may leave unknown of a record, as a share of its length; more is not claimed."""

GUESSED, NEARLY, HALF = 3e-2, 1e-2, 0.5
"""How far δ of a guess may be from the column space, relative to its length; inputs that differ by
less, likewise, are one record, and a guess is known as well as that; and how far its copies may be
from a whole number."""

SAFE = 6.0
"""So many spreads what was refined must be from a pixel's exactness: of 128 it was up to 5.9."""

FIT = 5.0
"""How far a product of two records may be from what it should, in units of its noise: of refined
ones it was at most 4.4, and 5.0 and more where one of two was not what it is."""


@dataclass(frozen=True, eq=False, repr=False)
class Records:
    """The records that were found, each certified, in the order in which they were."""

    inputs: Array  # (M, F), what came into the layer; pixels where it is the network's first
    labels: Array  # (M,) int64
    copies: Array  # (M,) int64, how often each is in the batch
    missing: int  # how many of the batch were not found
    attempts: int  # from how many points was searched
    seconds: float  # how long it took
    # (G, F), what may be some of those that were not found: each is a record as far as noise lets
    # it be told, which is not far enough to certify it.
    guesses: Array
    guessed_labels: Array  # (G,) int64

    def __repr__(self) -> str:
        found = int(self.copies.sum())
        return f"Records({found} of {found + self.missing}, {self.seconds:.1f} s)"


class StoppedSearchError(KeyboardInterrupt):
    """Ctrl-C during a search for records, with those that were found until then."""

    def __init__(self, records: Records) -> None:
        super().__init__()
        self.records = records


class Known(Descent):
    """The records that are known, and where others are not."""

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
        # Of where the other records lie, (k, r), in coordinates of the row space.
        self.basis = np.eye(len(self.space.S))
        self.columns = self.basis  # of their δ, (k, r), in coordinates of U
        self.weights = np.ones(len(self.targets))  # how likely a label is worth an attempt
        self.inputs: list[Array] = []  # of each record that is certified, as the three that follow
        self.labels: list[int] = []
        self.copies: list[int] = []
        self.counts: list[float] = []  # the same, times the loss's factor
        self.guesses: list[tuple[Array, int]] = []  # inputs and labels that may be others

    def found(self) -> Records:
        """Return what has been found."""
        self._keep([*range(len(self.counts))])  # Ctrl-C may come while one is being kept
        if not self.factor_known and len(self.space.S) > 1:
            self._keep_what_agrees()
        elif sum(self.copies) - len(self.copies) > (self.layer.records or 0) - self.layer.rank:
            # Some are means of records that the gradient shows apart, but not which.
            means = [k for k, copies in enumerate(self.copies) if copies > 1]
            self.guesses += [(self.inputs[k], self.labels[k]) for k in means]
            self._keep([k for k, copies in enumerate(self.copies) if copies == 1])
        shape = (-1, self.layer.weight_gradient.shape[1])
        guesses = self.last_guesses() if self._missing else []
        return Records(
            np.reshape(self.inputs, shape),
            np.array(self.labels, dtype=np.int64),
            np.array(self.copies, dtype=np.int64),
            self._missing,
            self.attempts,
            time.perf_counter() - self.begun,
            np.reshape([h for h, _ in guesses], shape),
            np.array([label for _, label in guesses], dtype=np.int64),
        )

    def last_guesses(self) -> list[tuple[Array, int]]:
        """Return what is nearly a record, as far as noise lets it be told, with its label."""
        return self.guesses

    def _keep_what_agrees(self) -> None:
        """Keep records that have a factor of the loss in common, as most must: none shows it alone.

        Mixtures of a few records that are all alike may agree on another. And what agrees may all
        be means of two, unless it is more than half of the batch.
        """
        counts = np.array(self.counts)
        factor = float(np.median(counts)) if len(counts) > 1 else math.inf
        whole = np.maximum(np.rint(counts / factor), 1.0)
        agree = np.abs(counts / factor / whole - 1.0) < CLEAR
        single = agree & (whole == 1.0)
        single &= 2 * single.sum() > (self.layer.records or 0)
        copies = [
            k for k in np.flatnonzero(agree & ~single).tolist() if self._alone(k, whole[k] * factor)
        ]
        kept = sorted([*np.flatnonzero(single).tolist(), *copies])
        self._keep(kept if agree.sum() > max(len(counts) / 2, 1) else [])

    def _alone(self, k: int, count: float) -> bool:
        """Tell whether a record that counts several times, perhaps, is no mean of others."""
        twins = Twins(self.layer, self.deltas, factor_known=False)
        return twins.excluded(self.inputs[k], self.targets[self.labels[k]], count)

    def _keep(self, kept: list[int]) -> None:
        """Keep these alone of the records that are certified."""
        self.inputs, self.labels = [self.inputs[k] for k in kept], [self.labels[k] for k in kept]
        self.copies, self.counts = [self.copies[k] for k in kept], [self.counts[k] for k in kept]

    @property
    def _missing(self) -> int:
        return (self.layer.records or 0) - sum(self.copies)

    @property
    def _complete(self) -> bool:
        return not len(self.basis) or len(self.guesses) >= self._missing

    @property
    def _time_left(self) -> bool:
        return time.perf_counter() - self.begun < self.seconds

    def _refine(self) -> bool:
        """Refine all that is known together, without guesses that do not fit; whether it could."""
        space, certified = self.space, len(self.inputs)
        known = [*zip(self.inputs, self.labels, strict=True), *self.guesses]
        c = self._coordinates(np.array([h for h, _ in known]))
        labels = np.array([label for _, label in known])
        products = [one @ self._dual(label, one) for one, label in zip(c, labels, strict=True)]
        copies = np.maximum(np.rint((self.layer.records or 0) / np.array(products)), 1.0)
        copies[:certified] = self.copies
        counts = (self.layer.records or 0) / copies
        fits = np.arange(len(c))
        noise = math.sqrt(self.layer.variance)
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
        clear = EXACT / SAFE * float(np.abs(inputs).max()) * math.sqrt(inputs.shape[1])
        for h, one, label, spread in zip(
            inputs, c, labels.tolist(), told.spreads.tolist(), strict=True
        ):
            if not (spread < clear and self.take(h, label, spread)):
                self.guesses.append((h, label))
            self.basis = without(self.basis, self.basis @ self._dual(label, one))
            self.columns = without(self.columns, self.columns @ (one / space.S))
        return True

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
        same = self._same(h, labels[first], [guess for guess, _ in self.guesses])
        self.guesses = [g for g, known in zip(self.guesses, same, strict=True) if not known]
        self.inputs.append(h)
        self.labels.append(labels[first])
        self.copies.append(int(answer.copies[first]))
        self.counts.append(float(answer.counts[first]))
        return True

    def _same(self, h: Array, label: int, others: list[Array]) -> Array:
        """Tell which of some inputs are this one: δ of a record is apart from all others' (M,)."""
        c = self._coordinates(np.array([h, *others]))
        products = np.abs(c @ self._dual(label, c[0]))
        return np.asarray(products[1:] > HALF * products[0])

    def _is_new(self, h: Array, label: int) -> bool:
        """Whether a record is none of those that are known, nor of the guesses."""
        return not self._same(h, label, [*self.inputs, *(g for g, _ in self.guesses)]).any()

    def _coordinates(self, inputs: Array) -> Array:
        """Return inputs, (M, F), in coordinates of the row space, (M, r)."""
        ends = self.space.V.shape[1] - inputs.shape[1]  # 1 with a bias
        return np.asarray(np.pad(inputs, [(0, 0), (0, ends)], constant_values=1.0) @ self.space.V.T)

    def _dual(self, label: int, c: Array) -> Array:
        """Return S⁻¹ Uᵀ δ of a record, (r,): the other records lie at right angles to it."""
        z = c @ self.space.answers + (0.0 if self.space.bias is None else self.space.bias)
        delta = self.deltas.of(z[None], self.targets[[label]])[0]
        return np.asarray(self.space.U.T @ delta / self.space.S)

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
