"""What is read off one client's gradient: its noise, its labels, and how wrong the network was."""

import math
from dataclasses import dataclass

import numpy as np

from tinyleak.analytic import LastLayerGradient, LayerGradient, infer_labels, unmix
from tinyleak.analytic.cause import Cause
from tinyleak.analytic.first_layer import error_of_input
from tinyleak.attacks.problem import length
from tinyleak.backend import Array
from tinyleak.client import Client

FLOAT32_ROUNDING = 1e-5
"""Noise this small, relative to the gradient, is rounding: float32 rounds each number to 6e-8 of
itself, and some of a gradient's are small sums of a hundred times larger ones."""

LEAST_SIGNAL = 0.1
"""The length of a gradient is unknown where its square is less than this part of the noise's: the
estimate of the noise is off by as much."""

MOST_MISFIT = 1e3
"""The result of unmixing is rejected if its mean square error is larger, in units of the noise: the
noise is then 30 times as large as estimated, or the images are others."""


UNACCOUNTED = (
    *("adam", "decoupled decay", "batch size", "stale weights", "dropout", "batch norm"),
    *("loss", "clipping", "momentum", "pruning", "rounding"),
)
"""Causes that nothing here accounts for: the gradient is not of the kind that is forecast."""

RESIZED = ("adam", "decoupled decay", "rounding")
"""Causes that leave little but signs of the entries. Signs of δ xᵀ have the rank 1 as well, but
their ratio is no image."""

MOST_WRONG = 1.1 * math.sqrt(2)
"""No image has a larger ‖p − y‖ than √2; noise may add a little. Beyond, the gradient is not that
of the mean loss over the batch that was said."""


@dataclass(frozen=True, eq=False, repr=False)
class Shared:
    """What is read off a client's gradient, or off the mean of its local steps."""

    norm: float  # its length
    typical_norm: float  # the mean length of the gradients of typical batches
    zeros: float  # the share of its numbers that are exactly 0
    # The variance of the noise on each of them, read off the last layer; None if that has no
    # estimate. Rounding and pruning count as noise.
    noise: float | None
    exact: bool  # whether that is no more than rounding
    labels: list[int] | None  # (N,), read off the last layer, ascending; None if it is not linear
    label_warning: str | None  # why the labels may be wrong, or None
    # (N,), how wrong the network is about each image, ‖p − y‖, in the order of the labels; None if
    # that is not determined.
    error_norms: Array | None
    numbers: int  # how many it has
    steps: int  # of how many local steps it is the mean
    # The expected squared error of the pixels of one image that the first layer's gradient shows
    # outright, in its ratio to that of the bias; None if it does not.
    shown_mse: float | None = None
    causes: tuple[Cause, ...] = ()  # what contradicts the assumptions, and is not accounted for

    def __repr__(self) -> str:
        return f"<Shared: {self.numbers} numbers, norm {self.norm:.3g}, noise {self.noise}>"

    @property
    def signal(self) -> float | None:
        """The length of the gradient without its noise; None if noise is nearly all of it."""
        noise = (self.noise or 0.0) * self.numbers
        left = self.norm**2 - noise
        return math.sqrt(left) if left > LEAST_SIGNAL * noise else None


def read_shared(client: Client, typical_norm: float, probes: Array) -> Shared:
    """Return what is read off a client's gradient, without a search for the images.

    `typical_norm` is the mean length of the gradients of typical batches; `probes`, (M, C, H, W),
    are typical images, by which labels are inferred where noise alone would leave them open. A
    gradient that is zero everywhere is a ValueError.
    """
    norm = length(client.gradients) / client.multiple
    if norm == 0:
        raise ValueError(
            "the gradients are zero everywhere, so nothing can be read from them; check that the "
            "client's backward pass was run before they were saved"
        )
    sent = list(client.sent.values())
    numbers = sum(array.size for array in sent)
    noise = None if client.noise is None else client.noise / client.multiple**2
    labels, warning, error_norms = None, None, None
    if client.premises.targets is not None:
        labels = client.labels.labels.tolist()
    elif client.last_layer is not None:
        inference = client.labels
        if not inference.trusted:
            inference = infer_labels(client.last_layer, probes=probes)
        labels, warning = inference.labels.tolist(), inference.warning
    if client.last_layer is not None and labels is not None:
        error_norms = _error_norms(client.last_layer, labels)
        if error_norms is not None and error_norms.max() > MOST_WRONG:
            warning = warning or (
                f"an image's ‖p − y‖ would be {error_norms.max():.2g}, and no more than 1.4 is "
                f"possible; check that the batch is {client.batch}, and that the loss is its mean"
            )
            error_norms = None
    return Shared(
        norm=norm,
        typical_norm=typical_norm,
        zeros=sum(int((array == 0).sum()) for array in sent) / numbers,
        noise=noise,
        exact=noise is not None and math.sqrt(noise * numbers) < FLOAT32_ROUNDING * norm,
        labels=labels,
        label_warning=warning,
        error_norms=error_norms,
        numbers=numbers,
        steps=client.steps,
        shown_mse=_shown(client),
        causes=tuple(cause for cause in client.premises.causes if _is_left(client, cause)),
    )


def _is_left(client: Client, cause: Cause) -> bool:
    """Return whether a cause is not accounted for.

    Another loss that is known is, and rounding that is small, or was measured as noise.
    """
    small = "float16" in cause.advice  # or bfloat16
    known = {"loss": client.premises.loss, "rounding": small or client.noise is not None}
    return cause.name in UNACCOUNTED and not known.get(cause.name)


def _shown(client: Client) -> float | None:
    """Return how exactly the first layer shows the one image of a client, if it does."""
    names, shapes = list(client.model.shapes), client.model.shapes
    pixels = math.prod(client.model.image_shape)
    first, bias = names[0], (names + [names[0]])[1]
    sent = {first, bias}.isdisjoint(client.frozen)
    fits = sent and shapes[first][1:] == (pixels,) and shapes[bias] == shapes[first][:1]
    resized = any(
        cause.name in RESIZED and _is_left(client, cause) for cause in client.premises.causes
    )
    if not fits or resized or client.batch > 1 or client.steps > 1:
        return None
    layer = LayerGradient(client.gradients[first], client.gradients[bias], 1)
    if not layer.bias_gradient.any():  # type: ignore[union-attr]  # it has been given
        return None
    scale = float(np.mean(np.square(getattr(client.model, "std", 1.0))))
    return error_of_input(layer) * scale


def _error_norms(layer: LastLayerGradient, labels: list[int]) -> Array | None:
    """Return how wrong the network is about each of a client's images, ‖p − y‖: (N,), or None.

    None where the last layer does not determine it: it has no bias; the batch is too large; or
    unmixing found nothing that explains its gradient.
    """
    try:
        found = unmix(layer, labels)
    except ValueError:
        return None
    return found.error_norms if found.misfit < MOST_MISFIT else None
