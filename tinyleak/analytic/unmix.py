"""What the last layer's gradient says of each image of a batch: its features, and how unsure it is.

With hᵢ the features of image i and rᵢ = pᵢ − yᵢ its probabilities less its label, the last layer's
gradient by weight and bias is

    G = Σᵢ rᵢ (hᵢ, 1)ᵀ / N,   (K, F + 1).

For one image the bias shows r, and a division h. For N images, N < K, the rows of G span what the
N vectors (hᵢ, 1) span, so (hᵢ, 1) = Σⱼ Aᵢⱼ vⱼ with the right singular vectors v of G: all that is
left to know are the N·(N − 1) numbers of A whose rows have the last entry right. And these are
overdetermined by K·N equations, since rᵢ = softmax(W hᵢ + b) − yᵢ once hᵢ is known.

They are searched for from several starts. Of an exact gradient every start that ends well ends at
the features themselves, images of one label among them: what tells those apart may be a millionth
of the gradient, but is there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np

from tinyleak.analytic.labels import last_layer
from tinyleak.backend import Array, to_numpy
from tinyleak.nn.losses import one_hot, softmax
from tinyleak.nn.model import Model
from tinyleak.tensor import Tensor

STARTS = 20
"""How often the mixture is searched for, from other starts, until noise explains what is left."""

EXPLAINED = 10.0
"""Noise explains what is left if its square is no more than so many times the expected."""

EVALUATIONS = 1500
"""Of one search, at most: images of one label lie at the end of a long valley."""

LEAST_SHIFT, MOST_SHIFT = -3.0, 0.5
"""Powers of ten, between which a start is moved away from the rows of the gradient."""

FLOOR = 1e-7
"""How exact a gradient is taken to be, as a share of its entries' root mean square: float32."""


@dataclass(frozen=True)
class SeparatedBatch:
    """A batch as its last layer sees it.

    Attributes:
        features: (N, F), the input of the last layer.
        residuals: (N, K), rᵢ = pᵢ − yᵢ: what the loss's gradient by the logits is. It is 0 where
            noise hides the image, of which nothing is known then.
        misfit: the mean square of what is left, in units of the noise: about 1 if all is well.
    """

    features: Array
    residuals: Array
    misfit: float

    @property
    def doubts(self) -> Array:
        """How unsure the network is of each image: ‖rᵢ‖, (N,), from 0 to √2."""
        return np.linalg.norm(self.residuals, axis=1)


def separate(
    model: Model,
    params: Mapping[str, Array],
    shared: Mapping[str, Array],
    labels: Sequence[int] | Array,
    *,
    variance: float = 0.0,
    rounding: float = FLOOR,
    guess: Array | None = None,
    starts: int = STARTS,
    rng: np.random.Generator | None = None,
) -> SeparatedBatch:
    """Separate the images of a batch in the gradient of the last layer.

    Args:
        model: the network; its last layer is linear, (K, F), with a bias.
        params: its weights, by name.
        shared: the gradient of the mean cross-entropy over the batch, by name.
        labels: (N,), N below K and no more than F.
        variance: of the noise on every number of the gradient.
        rounding: how exact the gradient is at best, as a share of its entries' root mean square.
        guess: (N, F), features to search from first.
        starts: how often to search, at most.
        rng: decides where the starts are.

    Returns:
        The images in the order of the labels; those of one label in any. Where the gradient is too
        noisy, or the search found no solution, the misfit is large.

    Raises:
        ValueError: the last layer is not linear, or has no bias; too many images for it, or
            none; a label that is no class of it; its gradient is zero.
    """
    name, bias_name = last_layer(model)
    if bias_name is None:
        raise ValueError(
            "images can be separated where the last layer has a bias, whose gradient adds up what "
            f"the network is unsure of; the last layer of {model} has none"
        )
    weight, bias = (to_numpy(params[one]).astype(float) for one in (name, bias_name))
    by_weight, by_bias = (to_numpy(shared[one]).astype(float) for one in (name, bias_name))
    batch, (classes, size) = len(labels), weight.shape
    if not 1 <= batch < max(2, min(classes, size + 1)):
        raise ValueError(
            f"{batch} images were to be separated by a last layer of {classes} classes and {size} "
            "features; there must be fewer images than either"
        )
    labels = np.asarray(labels)
    answers = one_hot(labels, classes)
    if not by_bias.any():
        raise ValueError("the last layer's gradient is zero, so it shows no image")
    gradient = np.column_stack([by_weight, by_bias])
    noise = max(np.sqrt(variance), rounding * float(np.sqrt(np.mean(gradient**2))))
    sizes = np.linalg.svd(gradient, compute_uv=False)
    visible = int(np.sum(sizes[:batch] > noise * (np.sqrt(classes) + np.sqrt(size + 1))))
    # Of an image that is seen the label's row of the gradient is pulled down, by how unsure it is.
    seen = np.sort(np.argsort(by_bias[labels], kind="stable")[: max(visible, 1)])
    features, residuals = np.zeros((batch, size)), np.zeros((batch, classes))
    if len(seen) == 1:
        features[:] = by_bias @ by_weight / (by_bias @ by_bias)
        residuals[seen] = batch * by_bias
        return SeparatedBatch(features, residuals, 0.0)
    mixture = _Mixture(gradient, weight, bias, answers[seen], noise, batch)
    begin = () if guess is None else (mixture.unknowns(guess[seen]),)
    away = mixture.starts(labels[seen], rng or np.random.default_rng(0))
    found, misfit = mixture.solve(islice(chain(begin, away), starts))
    features[seen], residuals[seen] = mixture.features(found), mixture.residuals(found)
    features[np.setdiff1d(np.arange(batch), seen)] = features[seen].mean(axis=0)
    return SeparatedBatch(features, residuals, misfit)


class _Mixture:
    """The equations for A, of which a row is the constant c₀ plus a combination of `free` rows."""

    def __init__(
        self,
        gradient: Array,
        weight: Array,
        bias: Array,
        targets: Array,
        noise: float,
        batch: int,
    ) -> None:
        self.images, size = len(targets), weight.shape[1]
        self.axes = np.linalg.svd(gradient, full_matrices=False)[2][: self.images]
        self.seen = batch * gradient @ self.axes.T
        self.logits = self.axes[:, :size] @ weight.T
        self.bias, self.targets, self.gradient = bias, targets, gradient
        self.noise = batch * noise
        ends = self.axes[:, -1]
        self.constant = ends / (ends @ ends)
        self.free = np.linalg.svd(ends[None])[2][1:]

    def matrix(self, unknowns: Array) -> Array:
        """Return A, (M, M), for M·(M − 1) unknowns."""
        return self.constant + unknowns.reshape(self.images, -1) @ self.free

    def features(self, unknowns: Array) -> Array:
        """Return the features, (M, F)."""
        return (self.matrix(unknowns) @ self.axes)[:, :-1]

    def residuals(self, unknowns: Array) -> Array:
        """Return rᵢ, (M, K)."""
        logits = self.matrix(unknowns) @ self.logits + self.bias
        return softmax(Tensor(logits)).data - self.targets

    def misfits(self, unknowns: Array) -> Array:
        """Return what the equations are off by, in units of the noise: (K·M,)."""
        mixed = self.residuals(unknowns).T @ self.matrix(unknowns)
        return ((mixed - self.seen) / self.noise).ravel()

    def slopes(self, unknowns: Array) -> Array:
        """Return ∂misfits/∂unknowns, (K·M, M·(M − 1))."""
        A, r = self.matrix(unknowns), self.residuals(unknowns)
        p, by_free = r + self.targets, self.free @ self.logits
        by_p = p[:, None] * (by_free - (p @ by_free.T)[:, :, None])
        by_unknowns = np.einsum("ifk,ij->kjif", by_p, A) + np.einsum("ik,fj->kjif", r, self.free)
        return by_unknowns.reshape(-1, unknowns.size) / self.noise

    def unknowns(self, features: Array) -> Array:
        """Return the unknowns that come nearest to some features, (M, F)."""
        return (features @ self.axes[:, :-1].T + self.axes[:, -1] - self.constant) @ self.free.T

    def starts(self, labels: Array, rng: np.random.Generator) -> Iterator[Array]:
        """Yield where to search from, each (M, M − 1), without end.

        Each row of the gradient is a mixture of images; divided by its entry of the bias, it is
        one whose shares add up to 1, as an image's. In a label's row its images have the largest
        share.
        """
        ends = self.gradient[:, -1:]
        rows = self.gradient / np.where(np.abs(ends) < self.noise, self.noise, ends)
        rows = (rows @ self.axes.T - self.constant) @ self.free.T
        middle = np.median(rows, axis=0)
        width = max(float(np.median(np.abs(rows - middle))), 1e-6)
        yield rows[labels]
        while True:
            shift = width * 10.0 ** rng.uniform(LEAST_SHIFT, MOST_SHIFT)
            yield rows[labels] + shift * rng.standard_normal(rows[labels].shape)

    def solve(self, starts: Iterable[Array]) -> tuple[Array, float]:
        """Return the unknowns that fit best, and the mean square of their misfits."""
        from scipy.optimize import least_squares

        best, lowest = np.zeros(self.images * (self.images - 1)), np.inf
        for start in starts:
            fit = least_squares(
                self.misfits,
                start.ravel(),
                self.slopes,
                method="lm",
                max_nfev=EVALUATIONS,
                **dict.fromkeys(("ftol", "xtol", "gtol"), np.finfo(float).eps),
            )
            misfit = 2.0 * float(fit.cost) / fit.fun.size
            if misfit < lowest:
                best, lowest = fit.x, misfit
            if lowest < EXPLAINED:
                break
        return best, lowest
