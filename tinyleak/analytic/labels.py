"""The labels of a client, read off the gradient of the last layer without any optimisation.

The gradient of the mean cross-entropy by the logits of image i is (pᵢ − yᵢ) / N, where pᵢ are the
probabilities that the network gave and yᵢ is the label as a row of zeros with a one. So by the last
layer's bias it is mean(p − y), and by its weight mean((p − y) hᵀ), where h are the features.

For one image p − y has one negative entry: the label. That is the bias rule, and, where there is no
bias and the features cannot be negative, the weight rule of iDLG (Zhao, Mopuri, Bilen 2020).

For a batch counts = N · (mean(p) − mean(p − y)), and mean(p) is not known. As in LLG (Wainakh et
al. 2022) stand-in images are shown to the network. Both the mean of y and the shared gradient are
means over the batch, so a linear map that recovers y from the gradient of one image recovers the
counts from the shared one: it is fitted to the stand-ins, each with every label. One thing is sure
without any: p is nowhere negative, so a class whose entry is has an image. In a trained network,
whose p is small elsewhere, these are often all.

Lesson: lessons/10_labels.py
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tinyleak.backend import Array, to_numpy
from tinyleak.nn.losses import softmax
from tinyleak.nn.model import Model, require_fit
from tinyleak.tensor import Tensor

NON_NEGATIVE = ("sigmoid", "softplus", "relu")
"""Activations after which no feature is negative."""

STAND_INS = 512
AT_ONCE = 64
"""How many stand-in images are drawn, and how many of them are shown to the network at once."""

MOST_NUMBERS = 200
"""About how many numbers of the last layer's gradient the linear map reads."""

NOISE_FLOOR = 1e-6
"""A direction whose variance is this share of the largest is left out of the linear map."""

SURE_ERROR = 0.15
"""Counts are trusted below this standard error, expected from the stand-ins, …"""

SURE_REMAINDER = 0.25
"""… and if they are all nearer than this to whole numbers."""

SURE_SIGN = 4.0
"""An entry is negative if it is so many times below zero as the noise is large."""


@dataclass(frozen=True)
class LabelInference:
    """What the last layer's gradient says about the labels of a batch.

    Attributes:
        labels: (N,) int64, ascending: it does not say which image has which.
        counts: (K,) int64, how many images have each label.
        rule: "bias", "weight" or "rows" for one image; for a batch "signs", if those told them
            all, else "counts".
        warning: why the labels may be wrong, or None.
    """

    labels: Array
    counts: Array
    rule: str
    warning: str | None

    @property
    def trusted(self) -> bool:
        """Whether nothing speaks against them."""
        return self.warning is None


def infer_labels(
    model: Model,
    params: Mapping[str, Array],
    shared: Mapping[str, Array],
    batch: int = 1,
    *,
    probes: Array | None = None,
) -> LabelInference:
    """Read the labels off the shared gradient of the last layer.

    For one image they are right unless a defence changed the gradient. For a batch they are right
    as long as the network's predictions hardly depend on the image, as before training; the more
    they do, the more it helps if `probes` look like the client's images.

    Args:
        model: the network; its last layer is linear, (K, F), with or without a bias.
        params: its weights, by name.
        shared: the gradient of the mean cross-entropy over the batch, by name.
        batch: N, how many images it was computed from.
        probes: (M, C, H, W), images to stand in for the client's; by default smooth noise.

    Raises:
        ValueError: params or shared do not fit the model; its last layer is not linear; a batch
            below 1; probes that are not images for the model.
    """
    require_fit(model, params, "weights")
    require_fit(model, shared, "gradients")
    if batch < 1:
        raise ValueError(f"labels were to be inferred for a batch of {batch}; give 1 or more")
    weight, bias = last_layer(model)
    by_weight = to_numpy(shared[weight])
    by_bias = None if bias is None else to_numpy(shared[bias])
    if batch == 1:
        signed = getattr(model, "activation", None) not in NON_NEGATIVE
        return _one_label(by_weight, by_bias, signed)
    certain = np.zeros(model.classes, np.int64)
    if by_bias is not None:
        certain = _certain(by_weight, by_bias, batch)
        if certain.sum() == batch:
            return LabelInference(np.flatnonzero(certain), certain, "signs", None)
    logits = logits_of(model, params, stand_ins(model) if probes is None else probes)
    shift = 0.0 if bias is None else to_numpy(params[bias])
    estimate, error = _estimate(
        softmax(Tensor(logits)).data,
        logits - shift,
        by_weight @ to_numpy(params[weight]).T,
        by_bias,
    )
    return _whole_counts(batch * estimate, math.sqrt(batch) * error, batch, certain)


def last_layer(model: Model) -> tuple[str, str | None]:
    """Return the names of the last layer's weight (K, F) and bias (K,), or None for the bias.

    Raises:
        ValueError: the model does not end in a linear layer of that shape.
    """
    names = list(model.shapes)
    bias = names.pop() if model.shapes[names[-1]] == (model.classes,) else None
    shape = model.shapes[names[-1]] if names else ()
    if len(shape) != 2 or shape[0] != model.classes:
        raise ValueError(
            f"labels can be inferred where the last layer is linear, with a weight "
            f"({model.classes}, F); the last of {model} is {shape}: give the labels instead"
        )
    return names[-1], bias


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


def _certain(by_weight: Array, by_bias: Array, batch: int) -> Array:
    """Return a 1 for each class of which the sign tells that the batch has an image, (K,).

    Over the classes a gradient adds up to zero, and to noise where there is some.
    """
    noise = float(np.sqrt(np.mean(by_weight.sum(axis=0) ** 2) / len(by_bias)))
    certain = (by_bias < -SURE_SIGN * noise).astype(np.int64)
    return certain if certain.sum() <= batch else np.zeros_like(certain)


def _estimate(
    predictions: Array, outputs: Array, by_outputs: Array, by_bias: Array | None
) -> tuple[Array, float]:
    """Estimate which share of a batch has each label.

    Args:
        predictions: (M, K), p of each stand-in.
        outputs: (M, K), W h of each stand-in.
        by_outputs: (K, K), the shared gradient by the weight, times Wᵀ: mean((p − y) (W h)ᵀ).
        by_bias: (K,), the shared gradient by the bias, mean(p − y), if there is one.

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
    # Every stand-in with every label: p − y, times what is read of it.
    labels = np.eye(classes)
    residuals = predictions[:, np.newaxis] - labels
    numbers = (residuals[..., np.newaxis] * read[:, np.newaxis, np.newaxis]).reshape(
        probes * classes, -1
    )
    middle = numbers.mean(axis=0)
    numbers -= middle
    wanted = np.tile(labels - 1 / classes, (probes, 1))
    # The normal equations; directions in which the numbers hardly vary would say noise.
    linear, *_ = np.linalg.lstsq(numbers.T @ numbers, numbers.T @ wanted, rcond=NOISE_FLOOR)
    error = float((wanted - numbers @ linear).std(axis=0).max())
    return (shared.ravel() - middle) @ linear + 1 / classes, error


def _whole_counts(estimate: Array, error: float, batch: int, certain: Array) -> LabelInference:
    """Round counts to whole numbers that add up to the batch: the largest remainders go up.

    None becomes less than is certain.
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


def logits_of(model: Model, params: Mapping[str, Array], images: Array) -> Array:
    """Return what the network says of images (M, C, H, W): (M, K), in float64.

    Raises:
        ValueError: they are no images for the model.
    """
    if images.ndim != 4 or images.shape[1:] != model.image_shape or len(images) == 0:
        raise ValueError(
            f"probes of shape {images.shape} were given; {model} needs (M, *{model.image_shape})"
        )
    weights = {name: Tensor(to_numpy(params[name]).astype(float)) for name in model.shapes}
    return np.concatenate(
        [
            model(weights, Tensor(np.asarray(images[start : start + AT_ONCE], dtype=float))).data
            for start in range(0, len(images), AT_ONCE)
        ]
    )


def stand_ins(model: Model) -> Array:
    """Draw smooth noise, cut off so that much of it is black as images are: (M, C, H, W)."""
    rng = np.random.default_rng(0)
    channels, height, width = model.image_shape
    frequency = np.hypot(np.fft.fftfreq(height)[:, np.newaxis], np.fft.rfftfreq(width))
    noise = rng.standard_normal((STAND_INS, channels, height, width))
    radius = rng.uniform(1, 4, (STAND_INS, 1, 1, 1))  # of the blur, in pixels
    blurred = np.fft.irfft2(
        np.fft.rfft2(noise) * np.exp(-2 * (np.pi * radius * frequency) ** 2), s=(height, width)
    )
    spread = blurred.std(axis=(1, 2, 3), keepdims=True)
    return np.clip(blurred / spread - rng.uniform(-0.5, 2, (STAND_INS, 1, 1, 1)), 0, 1)
