"""The features of each image of a batch, and its residual, unmixed from the last layer's gradient.

With hᵢ the features of image i and rᵢ = pᵢ − yᵢ its residual, the probabilities less the label, the
last layer's gradient is

    G = Σᵢ rᵢ (hᵢ, 1)ᵀ / N,   (K, F + 1).

For one image the bias's gradient is r, and dividing by it gives h. For N images, N < K, the vectors
(hᵢ, 1) span the row space of G, so (hᵢ, 1) = Σⱼ Aᵢⱼ vⱼ with the right singular vectors v of G. The
unknowns are the N·(N − 1) numbers of A that leave the last entry of each (hᵢ, 1) at 1. They are
overdetermined by K·N equations, since hᵢ determines rᵢ = softmax(W hᵢ + b) − yᵢ.

These equations are solved from several starts. With an exact gradient every start that ends at a
solution ends at the features themselves, even of images that have the same label: what tells those
apart may be a millionth of the gradient, but it is there. In float32 it is rounded away. Then they
are one image that counts several times, and has the mean of their features; with the others, whose
label nobody shares, nothing else changes.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, cycle, islice

import numpy as np

from tinyleak.analytic.first_layer import first_layer_input
from tinyleak.analytic.layer_gradient import LEAST_ROW, LastLayerGradient, LayerGradient
from tinyleak.backend import Array
from tinyleak.nn.criteria import one_hot
from tinyleak.nn.losses import softmax
from tinyleak.tensor import Tensor

STARTS = 20
"""How many starts are tried, at most. With fresh weights 60 to 72 of 72 led to the features of two
to four digits, of one label or several; larger batches and other weights need more."""

EXPLAINED = 10.0
"""The equations count as solved if the mean square of their error is at most so many times the
noise's variance: that of a wrong solution is larger by orders of magnitude."""

EVALUATIONS = 1500
"""How often the equations are evaluated from one start, at most: images of one label lie at the end
of a long valley."""

WEIGHTINGS, FIRST_EVALUATIONS = (1.0, 0.0, 0.0), 300
"""Each start first solves the equations of direction j of the row space divided by the power of its
singular value that is next in turn, evaluating them so often at most. With 1 all directions count
alike, which finds batches whose last singular values are a millionth of the first (all of 8 and 9
digits with PyTorch's weights); with 0 the equations are as they are, which finds those where
probabilities are near 0 and 1, as with U(−0.5, 0.5) (19 of 20, with up to 60 starts)."""

LEAST_SHIFT, MOST_SHIFT = -3.0, 0.5
"""Powers of ten between which a start is shifted away from the gradient's rows, in units of how far
these differ: near them where labels differ, and beyond them where images share one."""

GAP = 1e2
"""How many times larger than what noise makes the least singular value of the features must be:
noise then turns the subspace by a thousandth at most."""

FEW_STARTS = 3
"""How many starts are made for images of one label as one: of six batches of eight, each needed
one, and wrong labels left a misfit of 1e11 and more."""

TINY = 1e-18  # singular values of the equations below this share are zero; one label's may be 1e-12

SINGLE_PRECISION = 1e-7
"""How exact a gradient is taken to be, relative to its entries' root mean square: float32 rounds to
6e-8. A gradient that is more exact is fitted further all the same."""


@dataclass(frozen=True, eq=False)
class Mixture:
    """A batch as its last layer sees it."""

    features: Array  # (N, F), the input of the last layer
    # (N, K), rᵢ = pᵢ − yᵢ: the gradient of image i's loss with respect to its logits. Where noise
    # hides an image nothing is known of it, and its residual is 0.
    residuals: Array
    # The mean square of the equations' error, in units of the noise: about 1 if they were solved.
    misfit: float
    # (N,), how far the features of each are expected to be from the client's; infinite where noise
    # hides an image, or what tells it from others of its label: these have the mean of their
    # features.
    errors: Array

    def __repr__(self) -> str:
        return f"Mixture({len(self.features)} images, misfit={self.misfit:.2g})"

    @property
    def error_norms(self) -> Array:
        """How wrong the network is about each image: ‖pᵢ − yᵢ‖, (N,), from 0 to √2."""
        return np.linalg.norm(self.residuals, axis=1)


def unmix(
    layer: LastLayerGradient,
    labels: Sequence[int] | Array,
    *,
    variance: float | None = None,
    rounding: float = SINGLE_PRECISION,
    guess: Array | None = None,
    starts: int = STARTS,
    rng: np.random.Generator | None = None,
) -> Mixture:
    """Unmix the images of a batch in the gradient of the last layer.

    Args:
        layer: the last layer's gradient, with that of its bias, of the mean cross-entropy.
        labels: (N,), N below K and no more than F.
        variance: of the noise on every number of the gradient; by default the layer's own estimate.
        rounding: the least error of the gradient's entries, relative to their root mean square.
        guess: (N, F), features to start from first.
        starts: how many starts to try, at most.
        rng: draws the starts.

    Returns:
        The images in the order of the labels; those of one label in any order. If the gradient is
        too noisy, or no solution was found, the misfit is large.

    Raises:
        ValueError: the last layer has no bias; another number of labels than images; too many
            images for it; a label that is not one of its classes; its gradient is zero.
    """
    by_bias = layer.bias_gradient
    if by_bias is None or layer.bias is None:
        raise ValueError(
            "images can be unmixed where the last layer has a bias, whose gradient adds up their "
            f"residuals; the last layer of {layer.model} has none"
        )
    batch, (classes, size) = len(labels), layer.weight.shape
    if batch != layer.batch:
        raise ValueError(
            f"{batch} labels were given for the gradient of {layer.batch} images; give one for each"
        )
    if not batch < max(2, min(classes, size + 1)):
        raise ValueError(
            f"{batch} images were to be unmixed by a last layer of {classes} classes and {size} "
            "features; there must be fewer images than either"
        )
    labels = np.asarray(labels)
    answers = one_hot(labels, classes)
    if not by_bias.any():
        raise ValueError("the last layer's gradient is zero, so it shows no image")
    least = rounding * float(np.sqrt(np.mean(layer.matrix**2)))
    noise = max((layer.noise or 0.0) if variance is None else variance, least**2)
    deviations = np.full(classes, math.sqrt(noise))
    visible: LayerGradient = layer
    if variance is None and layer.is_only_rounded:
        deviations, visible = rounding * _sizes(layer, layer.bias, answers), layer.balanced
        noise = visible.variance
        alike, whose, copies = np.unique(labels, return_inverse=True, return_counts=True)
        hidden = visible.standing_out(GAP**2 * noise, batch) < batch
        if hidden and len(alike) < batch:
            equations = _Equations(layer, layer.bias, one_hot(alike, classes), deviations, copies)
            begin = equations.starts(alike, rng or np.random.default_rng(0))
            found, misfit = equations.solve(islice(begin, FEW_STARTS))
            if misfit <= EXPLAINED:
                errors = np.where(copies > 1, np.inf, equations.errors(found, misfit))
                of_each = equations.features(found)[whose], equations.residuals(found)[whose]
                return Mixture(*of_each, misfit, errors[whose])
    # The more wrong the network is about an image, the more negative is its label's entry.
    seen = np.sort(
        np.argsort(by_bias[labels], kind="stable")[: max(visible.standing_out(noise, batch), 1)]
    )
    features, residuals = np.zeros((batch, size)), np.zeros((batch, classes))
    if len(seen) == 1:
        features[:] = first_layer_input(layer)
        residuals[seen] = batch * by_bias
        return Mixture(features, residuals, 0.0, np.where(residuals.any(axis=1), 0.0, np.inf))
    equations = _Equations(layer, layer.bias, answers[seen], deviations, np.ones(len(seen)))
    first = () if guess is None else (equations.unknowns(guess[seen]),)
    away = equations.starts(labels[seen], rng or np.random.default_rng(0))
    found, misfit = equations.solve(islice(chain(first, away), starts))
    features[seen], residuals[seen] = equations.features(found), equations.residuals(found)
    features[np.setdiff1d(np.arange(batch), seen)] = features[seen].mean(axis=0)
    errors = np.full(batch, np.inf)
    errors[seen] = equations.errors(found, misfit)
    return Mixture(features, residuals, misfit, errors)


def _sizes(layer: LastLayerGradient, bias: Array, answers: Array) -> Array:
    """Return how large the numbers are whose rounding each row of the gradient has, (K,).

    They are those of p h, as often as the logits are large, whose rounding p = softmax(z) has; and
    those of y h, which may cancel them.
    """
    axis = layer.balanced.decomposition[2][0]
    features = axis[:-1] / axis[-1]  # of about all images
    typical = np.sqrt(np.mean(features**2)) or 1.0  # the bias's 1, where all are zero
    logits = np.abs(layer.weight @ features + bias).max()
    p, y = np.abs(layer.matrix[:, -1]), answers.mean(axis=0)
    sizes = typical * (p * (1.0 + logits) + 2.0 * y)
    return np.where(sizes > LEAST_ROW * sizes.max(), sizes, sizes.max())


class _Equations:
    """The equations for A, of rows c₀ plus combinations of `free`, each counted `copies` times."""

    def __init__(
        self,
        layer: LastLayerGradient,
        bias: Array,
        targets: Array,
        deviations: Array,
        copies: Array,
    ) -> None:
        self.images, size = len(targets), layer.weight.shape[1]
        self.copies = copies[:, np.newaxis]
        self.axes = layer.balanced.decomposition[2][: self.images]
        self.seen = layer.batch * layer.matrix @ self.axes.T
        self.logits = self.axes[:, :size] @ layer.weight.T
        self.bias, self.targets, self.gradient = bias, targets, layer.matrix
        self.deviation = layer.batch * deviations[:, np.newaxis]
        sizes = layer.balanced.sizes[: self.images]
        self.sizes = np.maximum(sizes, np.finfo(float).eps * sizes[0])  # 0 where features are
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

    def misfits(self, unknowns: Array, power: float = 0.0) -> Array:
        """Return the error of each equation, (K·M,), in units of its noise times sizes^power."""
        mixed = (self.copies * self.residuals(unknowns)).T @ self.matrix(unknowns)
        return ((mixed - self.seen) / (self.deviation * self.sizes**power)).ravel()

    def jacobian(self, unknowns: Array, power: float = 0.0) -> Array:
        """Return ∂misfits/∂unknowns, (K·M, M·(M − 1))."""
        A, r = self.copies * self.matrix(unknowns), self.residuals(unknowns)
        p, by_free = r + self.targets, self.free @ self.logits
        by_p = p[:, None] * (by_free - (p @ by_free.T)[:, :, None])
        by_unknowns = np.einsum("ifk,ij->kjif", by_p, A) + np.einsum(
            "ik,fj->kjif", self.copies * r, self.free
        )
        by_unknowns /= (self.deviation * self.sizes**power)[:, :, np.newaxis, np.newaxis]
        return by_unknowns.reshape(self.seen.size, unknowns.size)

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
        rows = self.gradient / np.where(np.abs(ends) < self.deviation, self.deviation, ends)
        rows = (rows @ self.axes.T - self.constant) @ self.free.T
        middle = np.median(rows, axis=0)
        width = max(float(np.median(np.abs(rows - middle))), 1e-6)
        yield rows[labels]
        while True:
            shift = width * 10.0 ** rng.uniform(LEAST_SHIFT, MOST_SHIFT)
            yield rows[labels] + shift * rng.standard_normal(rows[labels].shape)

    def errors(self, unknowns: Array, misfit: float) -> Array:
        """Return how far the features are expected to be from the client's, (M,)."""
        jacobian = self.jacobian(unknowns)
        variances = misfit * np.square(np.linalg.pinv(jacobian, rcond=TINY)).sum(axis=1)
        return np.sqrt(variances.reshape(self.images, -1).sum(axis=1))

    def solve(self, starts: Iterable[Array]) -> tuple[Array, float]:
        """Return the unknowns that fit best, and the mean square of their misfits."""
        from scipy.optimize import least_squares

        best, lowest = np.zeros(self.images * (self.images - 1)), np.inf
        if not best.size:
            return best, float(np.mean(self.misfits(best) ** 2))
        how = {"method": "lm", **dict.fromkeys(("ftol", "xtol", "gtol"), np.finfo(float).eps)}
        for start, power in zip(starts, cycle(WEIGHTINGS)):
            x = start.ravel()
            for by, most in ((power, FIRST_EVALUATIONS), (0.0, EVALUATIONS)):
                with np.errstate(over="ignore"):  # of wild steps, which it takes back
                    fit = least_squares(
                        self.misfits, x, self.jacobian, max_nfev=most, args=(by,), **how
                    )
                x = fit.x
            misfit = 2.0 * float(fit.cost) / fit.fun.size
            if misfit < lowest:
                best, lowest = x, misfit
            if lowest < EXPLAINED:
                break
        return best, lowest
