"""The labels of a client, inferred from the gradient of the last layer without any optimisation.

The gradient of the mean cross-entropy with respect to the logits of image i is (pᵢ − yᵢ) / N, where
pᵢ are the probabilities that the network gives and yᵢ is the label as a row of zeros with a one. So
it is mean(p − y) with respect to the last layer's bias, and mean((p − y) hᵀ) with respect to its
weight, where h are the features.

For one image p − y has one negative entry: the label. That is the bias rule, and, where there is no
bias and the features cannot be negative, the weight rule of iDLG (Zhao, Mopuri, Bilen 2020).

For a batch counts = N · (mean(p) − mean(p − y)), and mean(p) is not known. As in LLG (Wainakh et
al. 2022) probes are shown to the network instead of the client's images. Both the mean of y and the
shared gradient are means over the batch, so a linear map that recovers y from the gradient of one
image recovers the counts from the shared one: it is fitted to the probes, each with every label.
One thing is certain without any probe: p is never negative, so if an entry of mean(p − y) is, some
image has that label. In a trained network, whose other p are small, this often tells all labels.

Lesson: lessons/10_labels.py
"""

import math
from dataclasses import dataclass

import numpy as np

from tinyleak.analytic.layer_gradient import LastLayerGradient
from tinyleak.analytic.probes import logits_of
from tinyleak.backend import Array
from tinyleak.nn.losses import softmax
from tinyleak.tensor import Tensor

NON_NEGATIVE = ("sigmoid", "softplus", "relu", "relu6")
"""Activations after which no feature is negative."""

MOST_NUMBERS = 200
"""About how many numbers of the last layer's gradient the linear map reads: its normal equations
are 200 × 200 then, which takes no time."""

LEAST_VARIANCE = 1e-6
"""A direction whose variance over the probes is less than this share of the largest is left out of
the linear map: what it would read there is mostly noise. Chosen with benchmarks/labels.py."""

SURE_ERROR = 0.15  # counts are trusted below this standard error, expected from the probes, …

SURE_REMAINDER = 0.25
"""… and if they are all nearer than this to whole numbers. Both were chosen so that no trusted
count of benchmarks/labels.py is wrong."""

SURE_SIGN = 4.0
"""An entry counts as negative if it is so many standard deviations of the noise below zero, which
normal noise alone reaches once in 30,000 entries."""


@dataclass(frozen=True, eq=False, repr=False)
class LabelInference:
    """The labels of a batch, as far as the last layer's gradient shows them."""

    labels: Array  # (N,) int64, ascending: which image has which is not known
    counts: Array  # (K,) int64, how many images have each label
    # "bias", "weight" or "rows" for one image; for a batch "signs", if those told them all,
    # "records" or "features" if they were searched for (`search_labels`), else "counts".
    rule: str
    warning: str | None  # why the labels may be wrong, or None

    def __repr__(self) -> str:
        some = ", ".join(map(str, self.labels[:20])) + (", …" if len(self.labels) > 20 else "")
        return f"LabelInference([{some}] by {self.rule}, trusted={self.trusted})"

    @property
    def trusted(self) -> bool:
        """Whether there is no warning."""
        return self.warning is None


def infer_labels(layer: LastLayerGradient, *, probes: Array | None = None) -> LabelInference:
    """Infer the labels from the shared gradient of the last layer.

    For one image they are right unless a defence changed the gradient. For a batch they are right
    as long as the network's predictions hardly depend on the image, as before training; the more
    they do, the more it helps if `probes` look like the client's images.

    Args:
        layer: the last layer's gradient, of the mean cross-entropy over the batch.
        probes: (M, C, H, W), images to show to the network; by default smooth noise.

    Raises:
        ValueError: probes that do not fit the model.
    """
    if layer.batch == 1:
        signed = getattr(layer.model, "activation", None) not in NON_NEGATIVE
        return _one_label(layer.weight_gradient, layer.bias_gradient, signed)
    certain = certain_counts(layer)
    if certain.sum() == layer.batch:
        return LabelInference(np.flatnonzero(certain), certain, "signs", None)
    logits = layer.probe_logits if probes is None else logits_of(layer.model, layer.params, probes)
    estimate, error = _estimate(
        softmax(Tensor(logits)).data,
        logits if layer.bias is None else logits - layer.bias,
        layer.weight_gradient @ layer.weight.T,
        layer.bias_gradient,
    )
    batch = layer.batch
    return _whole_counts(batch * estimate, math.sqrt(batch) * error, batch, certain)


def _one_label(by_weight: Array, by_bias: Array | None, signed: bool) -> LabelInference:
    """Find the one image's label: by a sign where signs can be known, else by the rows' sizes."""
    if by_bias is None and signed:
        # The rows (pₖ − yₖ) h add up to zero, and the label's is opposed to all others.
        label = int(np.argmax(np.square(by_weight).sum(axis=1)))
        opposed = np.delete(by_weight @ by_weight[label], label) <= 0
        sure = len(by_weight) > 2 and bool(opposed.all()) and bool(by_weight[label].any())
        rule = "rows"
    else:
        residuals = by_weight.sum(axis=1) if by_bias is None else by_bias
        label = int(np.argmin(residuals))
        others = np.delete(residuals, label)
        # Where the network is certain, rounding leaves −0 or 0 for the label: less than the rest.
        sure = bool((others >= 0).all() and (others > residuals[label]).all())
        rule = "weight" if by_bias is None else "bias"
    counts = np.zeros(len(by_weight), np.int64)
    counts[label] = 1
    warning = None
    if not sure:
        warning = (
            f"label {label} is a guess: the last layer's gradient is not that of one image, "
            "or its signs do not tell the label's row from the others'"
        )
    return LabelInference(np.array([label]), counts, rule, warning)


def certain_counts(layer: LastLayerGradient) -> Array:
    """Return a 1 for each class that a batch has an image of for certain, by its sign: (K,)."""
    certain = np.zeros(layer.model.classes, np.int64)
    if layer.bias_gradient is not None:
        certain[layer.bias_gradient < -SURE_SIGN * math.sqrt(layer.noise or 0.0)] = 1
    return certain if certain.sum() <= layer.batch else np.zeros_like(certain)


def _estimate(
    predictions: Array, outputs: Array, by_outputs: Array, by_bias: Array | None
) -> tuple[Array, float]:
    """Estimate which share of a batch has each label.

    Args:
        predictions: (M, K), p of each probe.
        outputs: (M, K), W h of each probe.
        by_outputs: (K, K), the weight's shared gradient times Wᵀ: mean((p − y) (W h)ᵀ).
        by_bias: (K,), the bias's shared gradient, mean(p − y), if there is one.

    Returns:
        The shares (K,), and the largest standard error of a share times √N.
    """
    probes, classes = predictions.shape
    # Without a bias mean(p − y) is not known, and so W h cannot be taken from its mean.
    centre = np.zeros(classes) if by_bias is None else outputs.mean(axis=0)
    _, sizes, axes = np.linalg.svd(outputs - centre, full_matrices=False)
    kept = axes[: max(1, MOST_NUMBERS // classes)]
    scale = float(sizes[0]) / math.sqrt(probes) or 1.0
    read = (outputs - centre) @ kept.T / scale
    shared = by_outputs @ kept.T
    if by_bias is None:
        shared = shared / scale
    else:
        read = np.concatenate([np.ones((probes, 1)), read], axis=1)
        shared = (shared - np.outer(by_bias, kept @ centre)) / scale
        shared = np.concatenate([by_bias[:, np.newaxis], shared], axis=1)
    # Every probe with every label: p − y, times what is read of it.
    labels = np.eye(classes)
    residuals = predictions[:, np.newaxis] - labels
    numbers = (residuals[..., np.newaxis] * read[:, np.newaxis, np.newaxis]).reshape(
        probes * classes, -1
    )
    middle = numbers.mean(axis=0)
    numbers -= middle
    wanted = np.tile(labels - 1 / classes, (probes, 1))
    # The normal equations, without directions in which the numbers hardly vary.
    linear, *_ = np.linalg.lstsq(numbers.T @ numbers, numbers.T @ wanted, rcond=LEAST_VARIANCE)
    error = float((wanted - numbers @ linear).std(axis=0).max())
    return (shared.ravel() - middle) @ linear + 1 / classes, error


def _whole_counts(estimate: Array, error: float, batch: int, certain: Array) -> LabelInference:
    """Round counts to whole numbers that add up to the batch: the largest remainders go up.

    No count becomes smaller than what is certain.
    """
    rest = batch - int(certain.sum())
    positive = np.maximum(estimate - certain, 0)
    total = float(positive.sum())
    positive = (
        positive * (rest / total) if total > 0 else np.full(len(estimate), rest / len(estimate))
    )
    counts = np.floor(positive).astype(np.int64)
    missing = rest - int(counts.sum())
    counts[np.argsort(counts - positive, kind="stable")[:missing]] += 1
    counts += certain
    remainder = float(np.abs(estimate - counts).max())
    warning = None
    if not (error < SURE_ERROR and remainder < SURE_REMAINDER):
        warning = (
            f"the label counts are an estimate: {remainder:.2f} from whole numbers, standard error "
            f"{error:.2f} or more; images like the client's as probes help, and labels that are "
            "optimised need none"
        )
    return LabelInference(np.repeat(np.arange(len(counts)), counts), counts, "counts", warning)
