"""The records of a batch, one by one, out of the gradient of one linear layer.

The gradient of a linear layer is G = Σᵢ δᵢ (hᵢ, 1)ᵀ / N, of rank N = U S Vᵀ. Each record is a point
(h, 1) = cᵀ V of the row space, and the network above says its δ for each label. Of all points of
the row space the records are those whose δ lies in the column space:

    f(h) = ‖(I − U Uᵀ) δ(h, y)‖² / ‖δ(h, y)‖² = 0

(see `certificate`). That is N − 1 unknowns for one record, not N images at once, and needs no prior
on the data, no order and no labels: f is minimised by Gauss and Newton's method from random points
of the row space, for one label at a time. Where it comes to zero, and the record is certified, it
is taken out: with Uᵀδ = b and N / m = cᵀ S⁻¹ b for m copies, S − m b cᵀ / N has one dimension
less, and what is left is searched through.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from tinyleak.analytic.certificate import certify
from tinyleak.analytic.deltas import Deltas, Loss
from tinyleak.analytic.layer_gradient import LayerGradient
from tinyleak.backend import Array
from tinyleak.nn.losses import cross_entropy
from tinyleak.nn.split import Split
from tinyleak.tensor import Tensor

import os
MODE = int(os.environ.get("MODE", "0"))
PATIENCE = 60
"""Attempts in a row that may find nothing: 1.2 to 1.6 are needed for a record where all are found."""

OUTSIDE = 1e-3
"""What a pixel outside of the range counts for, beside 1 for all of δ: enough to turn the search."""

CONVERGED = 1e-26
"""f at which it is zero: float64 rounds δ to 1e-16 of its length, and sums of it to 1e-13."""


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
        why: why the search ended before all were found, or None.
    """

    inputs: Array
    labels: Array
    copies: Array
    missing: int
    attempts: int
    seconds: float
    why: str | None = None

    def __repr__(self) -> str:
        found = int(self.copies.sum())
        return f"Records({found} of {found + self.missing}, {self.seconds:.1f} s)"


class Rows:
    """Points of the row space in n coordinates t: h = (c₀ + t N) V, with a last 1 if it has one."""

    def __init__(self, basis: Array, V: Array, answers: Array, shift: Array, bias: bool) -> None:
        """Take the points spanned by `basis`, (k, r), in coordinates of V's rows.

        Args:
            basis: orthonormal rows.
            V: (r, F), or (r, F + 1) with a bias.
            answers: (r, O), what the layer answers to V's rows, but for its bias.
            shift: (O,), that bias.
            bias: whether it has one.
        """
        self.start, self.axes = np.zeros(basis.shape[1]), basis
        if bias:
            ends = basis @ V[:, -1]
            self.start = ends @ basis / (ends @ ends)
            self.axes = without(basis, ends)
            V = V[:, :-1]
        self.V = V
        self.h0, self.h = self.start @ V, self.axes @ V
        self.z0, self.z = self.start @ answers + shift, self.axes @ answers

    def coordinates(self, c: Array) -> Array:
        """Return t of the point with the coordinates c of V's rows."""
        return np.asarray(self.axes @ (c - self.start))

    def point(self, t: Array) -> Array:
        """Return c."""
        return np.asarray(self.start + t @ self.axes)

    def random(self, rng: np.random.Generator, bias: bool) -> Array:
        """Return t of a random point: about as far from h₀ as that is from 0."""
        t = rng.standard_normal(len(self.axes))
        length = np.linalg.norm(self.h0) if bias else 0.25 * math.sqrt(self.h.shape[1])
        if not len(t):
            return t
        t *= rng.uniform(0.0, 1.0 if bias else 0.5) * length / np.linalg.norm(t @ self.h)
        if not bias:
            ones = self.h.sum(axis=1)
            t += length * ones / np.linalg.norm(ones)
        return t


def without(basis: Array, coefficients: Array) -> Array:
    """Return an orthonormal basis, (k − 1, r), of what is at right angles to a vector of the span.

    Args:
        basis: (k, r), orthonormal rows.
        coefficients: (k,), of the vector.
    """
    # Householder's reflection takes the vector to the first axis, which is then left out.
    u = coefficients / np.linalg.norm(coefficients)
    u[0] += math.copysign(1.0, u[0])
    return np.asarray(basis[1:] - np.outer(u[1:], (u @ basis)) * (2.0 / (u @ u)))


def find_records(
    layer: LayerGradient,
    cut: Split,
    *,
    lowest: float | None = None,
    highest: float | None = None,
    loss: Loss = cross_entropy,
    rng: np.random.Generator | None = None,
    seconds: float = 60.0,
) -> Records:
    search = _Search(layer, cut, lowest, highest, loss, rng or np.random.default_rng(0))
    return search.run(seconds)


class _Search:
    def __init__(self, layer, cut, lowest, highest, loss, rng) -> None:
        self.layer, self.cut, self.loss, self.rng = layer, cut, loss, rng
        self.range = (lowest, highest)
        self.deltas = Deltas(cut, loss)
        rank = layer.rank
        U, S, V = layer.decomposition
        self.U, self.S, self.V = U[:, :rank].copy(), S[:rank], V[:rank]
        self.bias = layer.bias_gradient is not None
        nothing = Tensor(np.zeros((1, layer.weight_gradient.shape[1])))
        self.shift = cut.outputs(nothing).data[0]
        width = layer.weight_gradient.shape[1]
        self.answers = cut.outputs(Tensor(self.V[:, :width])).data - self.shift
        self.columns, self.rows = np.eye(rank), np.eye(rank)
        count = int(3 * rank + 20)
        self.some = None
        if count < 0.8 * len(self.U) and MODE:
            picked = np.sort(rng.choice(len(self.U), count, replace=False))
            self.some = (picked, np.linalg.qr(self.U[picked])[0])
        self.inputs, self.labels, self.copies = [], [], []
        self.attempts = 0

    def hull(self, basis):
        return Rows(basis, self.V, self.answers, self.shift, self.bias)

    def run(self, seconds):
        begun = time.process_time()
        classes = self.cut.model.classes
        weights, misses = np.ones(classes), 0
        full = self.hull(np.eye(len(self.S)))
        eye = np.eye(classes)
        t1=t2=t3=0; self.evals=0
        while len(self.rows) and misses < PATIENCE and time.process_time() - begun < seconds:
            self.attempts += 1
            label = int(self.rng.choice(classes, p=weights / weights.sum()))
            hull = self.hull(self.rows)
            a=time.process_time()
            t = self.descend(hull, eye[label], hull.random(self.rng, self.bias), OUTSIDE if self.range[0] is not None else 0.0, goal=1e-7, some=self.some)
            b=time.process_time()
            if self.range[0] is not None:
                t = self.descend(hull, eye[label], t, goal=1e-9, some=self.some)
            c=time.process_time()
            t = self.descend(full, eye[label], full.coordinates(hull.point(t)))
            d=time.process_time(); t1+=b-a; t2+=c-b; t3+=d-c
            found = self.take(full, t, label)
            misses = 0 if found else misses + 1
            weights[label] = max(weights[label] * 0.5 + (0.5 if found else 0.05), 0.03)
        print(f"   times {t1:.1f} {t2:.1f} {t3:.1f} evals {self.evals}")
        self.seconds = time.process_time() - begun
        N=self.layer.records
        return Records(np.array(self.inputs), np.array(self.labels), np.array(self.copies), N-int(sum(self.copies)), self.attempts, self.seconds)

    def take(self, full, t, label):
        c = full.point(t)
        h = c @ full.V
        if self.range[0] is not None and np.abs(h).max() > 100:
            return False
        found = certify(self.layer, self.cut, h[None], np.array([label]), loss=self.loss)
        if found.verdicts[0] is not True: return False
        if any(np.abs(h - other).max() < 1e-5 for other in self.inputs): return False
        delta = self.deltas.of((full.z0 + t @ full.z)[None], np.eye(self.cut.model.classes)[[label]])[0]
        b = self.U.T @ delta
        self.rows = without(self.rows, self.rows @ (b / self.S))
        self.columns = without(self.columns, self.columns @ (c / self.S))
        self.inputs.append(h); self.labels.append(label); self.copies.append(int(found.copies[0]))
        return True

    def descend(self, hull, target, t, outside=0.0, softness=0.0, steps=40, goal=CONVERGED, some=None):
        if not len(t): return t
        damping = 1e-3
        f, gram, slope = self.evaluate(hull, target, t, outside, softness, some)
        for step in range(steps):
            for _ in range(8):
                try:
                    move = np.linalg.solve(gram + damping * np.diag(np.diag(gram) + 1e-300), slope)
                    new = self.evaluate(hull, target, t - move, outside, softness, some)
                except np.linalg.LinAlgError:
                    new = (math.inf,)
                if new[0] < f: break
                damping *= 5.0
            else:
                return t
            gain = 1.0 - new[0] / f
            t = t - move
            f, gram, slope = new
            damping = max(damping / 5.0, 1e-15)
            if f < goal or (gain < 1e-6 and step > 5) or (f < 1e-11 and gain < 0.1): break
        return t

    def evaluate(self, hull, target, t, outside, softness, some=None):
        self.evals+=1
        some, U = (slice(None), self.U) if some is None else some
        delta, J = self.deltas.along(hull.z0 + t @ hull.z, target, hull.z, softness)
        delta, J = delta[some], J[:, some]
        length = np.linalg.norm(delta) + 1e-300
        delta = delta / length
        # Of δ / |δ| the derivative is (J - J δδᵀ) / |δ|.
        along, inside = J @ delta, delta @ U
        rest = delta - U @ inside
        within = J @ U - np.outer(along, inside)
        gram = (J @ J.T - np.outer(along, along) - within @ within.T) / length**2
        slope, f = (J @ rest - along * (delta @ rest)) / length, rest @ rest
        if outside:
            h = hull.h0 + t @ hull.h
            excess = h - np.clip(h, *self.range)
            far = excess != 0.0
            axes = hull.h[:, far]
            f = f + outside * (excess @ excess)
            gram += outside * axes @ axes.T
            slope += outside * axes @ excess[far]
        return f, gram, slope
