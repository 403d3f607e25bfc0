"""Features and labels of a batch at once: from the last layer's gradient, many starts together.

With the gradient's row space as in `tinyleak.analytic.mixture`, (hᵢ, 1) = Σⱼ Aᵢⱼ vⱼ, the equations

    Σᵢ rᵢ aᵢᵀ = L,   rᵢ = softmax(W hᵢ + b) − yᵢ,   L = N · G Vᵀ,   (K, N),

hold for the features of the batch with its labels. Wherever A is, they say what each residual would
have to be: the rows of (L A⁻¹)ᵀ. What p exceeds that by is near a label's row of zeros with a one
where A is near the batch's. So each label is, at every step, the class for which that is largest,
but for those that are certain; and no set of labels is tried. A step of Levenberg and Marquardt's
method for N·(N − 1) unknowns is small, so that many starts take it together.

Where the gradient shows fewer images than there are, M of N, some are copies: then M are searched
for, and how often each counts, at every step, is what brings its p − r nearest to such a row.
"""

import time
from collections.abc import Iterator

import numpy as np

from tinyleak.analytic.labels import certain_counts
from tinyleak.analytic.layer_gradient import LastLayerGradient
from tinyleak.backend import Array
from tinyleak.nn.losses import softmax
from tinyleak.tensor import Tensor

AT_ONCE, FIRST, BETTER, LAST = 128, 20, 32, 60
"""Starts that take steps together, how many steps all take, and how many of them, which fit best by
then, take so many more. Those that lead to the batch mostly are among them."""

KEPT, FRESH = 16, 0.2
"""How many fits are kept, of which most images are right mostly, to start from with one or two of
them drawn anew; and the share of starts that are all new. Without them two of seven batches of
eight by a trained LeNet were found within 40 s, with them five within 15 s."""

SHORT_ROW = 1e-3
"""Rows of the gradient shorter than this share of the longest count as if they were as long."""

LEAST_SHIFT, MOST_SHIFT = -3.0, 0.5
"""Powers of ten between which a start is shifted from the gradient's rows, in units of how far
these differ."""

FARTHEST = 0.5
"""How far from the nearest point of the row space to 0 a start is, at most, as a share of how far
that is from 0: the features of digits were 0.15 to 1 times as far, by trained LeNets."""

NEAR = 1e-6
"""The sum of squares, of rows whose lengths are 1, below which a fit may be the batch: then it is
looked at exactly. Rounding in float32 leaves less than 1e-9."""

SAME = 1e-2
"""Sums of squares that differ by less than this share are of one fit. As many times as M² starts
are made without one that is less, and then no longer, as where labels are soft."""

DAMPING, EASED, RAISED, DAMPINGS = 1e-2, 0.2, 4.0, (1e-12, 1e8)
"""λ at first, what a step that leads down and one that does not multiply it with, and its ends:
with less, equations that do not tell all unknowns have no solution."""


def fits(
    layer: LastLayerGradient, rng: np.random.Generator, seconds: float
) -> Iterator[tuple[Array, Array]]:
    """Yield labels and features, (N,) and (N, F), that nearly make the last layer's gradient.

    Args:
        layer: the last layer's gradient, with that of its bias, of the mean cross-entropy over N
            images, fewer than classes.
        rng: draws the starts.
        seconds: how long to search.
    """
    search, until = _Search(layer), time.perf_counter() + seconds
    if not len(search.certain) <= search.images or not search.images:
        return  # one image under two labels, or none that shows
    kept, lowest, again = search.starts(rng)[:0], np.inf, 0
    while time.perf_counter() < until and again < search.images**2:
        new, _ = search.best(search.descend(search.drawn(kept, rng), FIRST), BETTER)
        kept, values = search.best(np.concatenate([kept, search.descend(new, LAST)]), KEPT)
        again = 0 if values[0] < (1.0 - SAME) * lowest else again + 1
        lowest = float(values[0])
        if lowest < NEAR and again == 0:
            A, _, labels, copies = (one[0] for one in search.explained(kept[:1]))
            if copies.sum() == layer.batch:
                features = (A @ search.axes)[:, :-1]
                yield np.repeat(labels, copies), np.repeat(features, copies, axis=0)


class _Search:
    """The equations in unknowns (R, M, M − 1), for R starts at once, of M images that show."""

    def __init__(self, layer: LastLayerGradient) -> None:
        assert layer.bias is not None, "the bias's gradient gives the last entry of (h, 1)"
        self.images, (self.classes, size) = layer.balanced.rank, layer.weight.shape
        self.most = layer.batch - self.images + 1
        self.axes = layer.balanced.decomposition[2][: self.images]
        self.gradient, self.bias = layer.matrix, layer.bias
        self.seen = layer.batch * layer.matrix @ self.axes.T
        lengths = np.linalg.norm(self.seen, axis=1, keepdims=True)
        self.lengths = np.maximum(lengths, SHORT_ROW * lengths.max())
        ends = self.axes[:, -1]
        self.constant, self.free = ends / (ends @ ends), np.linalg.svd(ends[None])[2][1:]
        self.logits = self.axes[:, :size] @ layer.weight.T
        self.certain = np.flatnonzero(certain_counts(layer))

    def starts(self, rng: np.random.Generator) -> Array:
        """Return where to search from: near the gradient's rows of the labels that are certain, and
        of any others, each divided by its entry of the bias.
        """
        if self.images == 1:  # it is the row space
            return np.zeros((1, 1, 0))
        others = rng.integers(self.classes, size=(AT_ONCE, self.images - len(self.certain)))
        certain = np.broadcast_to(self.certain, (AT_ONCE, len(self.certain)))
        ends = self.gradient[:, -1:]
        least = np.finfo(float).eps * float(np.abs(ends).max()) or 1.0  # so that nothing overflows
        rows = self.gradient / np.where(np.abs(ends) < least, least, ends)
        rows = (rows @ self.axes.T - self.constant) @ self.free.T
        width = float(np.median(np.abs(rows - np.median(rows, axis=0))))
        shift = width * 10.0 ** rng.uniform(LEAST_SHIFT, MOST_SHIFT, size=(AT_ONCE, 1, 1))
        x = rows[np.concatenate([certain, others], axis=1)]
        x = x + shift * rng.standard_normal(x.shape)
        lengths = np.linalg.norm(x, axis=2, keepdims=True)
        return np.asarray(x * np.minimum(1.0, FARTHEST * np.linalg.norm(self.constant) / lengths))

    def drawn(self, kept: Array, rng: np.random.Generator) -> Array:
        """Return starts, most of them fits that are kept, with one or two images drawn anew."""
        x = self.starts(rng)
        if not len(kept) or self.images < 2:
            return x
        which = rng.integers(len(kept), size=(2, len(x))).min(axis=0)  # the better of two
        order = np.argsort(rng.random(x.shape[:2]), axis=1)
        anew = order < rng.integers(1, 3, size=(len(x), 1))
        anew |= rng.random((len(x), 1)) < FRESH
        return np.where(anew[..., None], x, kept[which])

    def best(self, x: Array, most: int) -> tuple[Array, Array]:
        """Return those that fit best, of each that was found again one, and their values."""
        values = self.values(x)
        order = np.argsort(values)
        x, values = x[order], values[order]
        apart = np.append(True, values[1:] > (1.0 + SAME) * values[:-1])
        return x[apart][:most], values[apart][:most]

    def explained(self, x: Array) -> tuple[Array, Array, Array, Array]:
        """Return A, (R, M, M), with p, (R, M, K), and what suits it best.

        These are labels, and how often each image counts, (R, M).
        """
        A = self.constant + x @ self.free
        p = softmax(Tensor((A @ self.logits + self.bias).reshape(-1, self.classes))).data
        p = p.reshape(*x.shape[:2], self.classes)
        counts = np.arange(1, self.most + 1)[:, None, None, None]
        exceeds = p - (self.seen @ np.linalg.pinv(A)).swapaxes(1, 2) / counts
        labels = np.argmax(exceeds, axis=3)
        labels[..., : len(self.certain)] = self.certain
        apart = counts * (exceeds - np.eye(self.classes)[labels])
        best = np.argmin(np.square(apart).sum(axis=3), axis=0)
        return A, p, np.take_along_axis(labels, best[None], axis=0)[0], best + 1

    def errors(self, x: Array) -> tuple[Array, tuple[Array, Array, Array, Array]]:
        """Return the errors of the equations, (R, K, M), and A, p, r, copies, (R, M, 1), at x."""
        A, p, labels, copies = self.explained(x)
        r, copies = p - np.eye(self.classes)[labels], copies[..., None]
        return ((copies * r).swapaxes(1, 2) @ A - self.seen) / self.lengths, (A, p, r, copies)

    def values(self, x: Array) -> Array:
        """Return the sum of the errors' squares, (R,)."""
        return np.asarray(np.square(self.errors(x)[0]).sum(axis=(1, 2)))

    def jacobian(self, A: Array, p: Array, r: Array, copies: Array) -> Array:
        """Return the errors' derivatives by the unknowns, (R, K·M, M·(M − 1))."""
        by_free = self.free @ self.logits
        by_p = (copies * p)[:, :, None] * (by_free - (p @ by_free.T)[..., None])
        J = np.einsum("rifk,rij->rkjif", by_p, A) + np.einsum(
            "rik,fj->rkjif", copies * r, self.free
        )
        J /= self.lengths[:, :, None, None]
        return J.reshape(len(A), self.seen.size, -1)

    def descend(self, x: Array, steps: int) -> Array:
        """Take steps of Levenberg and Marquardt's method, each start with a λ of its own."""
        x, damping = x.copy(), np.full(len(x), DAMPING)
        errors, at = self.errors(x)
        if not x.size:
            return x
        value = np.square(errors).sum(axis=(1, 2))
        for _ in range(steps):
            J = self.jacobian(*at)
            gram, slope = J.swapaxes(1, 2) @ J, J.swapaxes(1, 2) @ errors.reshape(len(x), -1, 1)
            sizes = np.einsum("rii->ri", gram)
            sizes = np.maximum(sizes, 1e-12 * sizes.max(axis=1, keepdims=True)) + 1e-200
            diagonal = np.arange(sizes.shape[1])
            gram[:, diagonal, diagonal] += damping[:, None] * sizes
            tried = x - np.linalg.solve(gram, slope).reshape(x.shape)
            with np.errstate(over="ignore", invalid="ignore"):  # of wild steps, which are not taken
                new_errors, new_at = self.errors(tried)
                new_value = np.square(new_errors).sum(axis=(1, 2))
            down = new_value < value
            x[down], errors[down], value[down] = tried[down], new_errors[down], new_value[down]
            for old, new in zip(at, new_at, strict=True):
                old[down] = new[down]
            damping = np.clip(damping * np.where(down, EASED, RAISED), *DAMPINGS)
        return x
