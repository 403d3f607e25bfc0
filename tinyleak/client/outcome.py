"""How good what an attack found is: judged by the truth, or by the shared gradient."""

from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np

from tinyleak.backend import Array
from tinyleak.interop import as_array, called
from tinyleak.metrics import match_batch, mse, psnr

RECOVERED_MSE = 1e-3
"""An image counts as recovered below this mean squared error, of pixels in [0, 1]."""

Verdict: TypeAlias = Literal["exact", "consistent", "not explained"]
"""What the shared gradient says of what was found: that it makes it to the rounding that it was
written with, as nearly as its noise allows, or not."""


class Found(Protocol):
    """What an attack found: images (N, C, H, W), labels (N,) and their probabilities (N, K)."""

    @property
    def images(self) -> Array: ...
    @property
    def labels(self) -> Array: ...
    @property
    def soft_labels(self) -> Array: ...


def require_found(found: Any) -> None:
    """Refuse what is not an attack's reconstruction of images.

    Raises:
        TypeError: it has no images and labels.
    """
    if not hasattr(found, "images") or not hasattr(found, "soft_labels"):
        raise TypeError(
            f"{called(found)} was given to be judged; give what attack returned (of "
            "text, ask the truth that came with the TextClient)"
        )


@dataclass(frozen=True, eq=False, repr=False)
class Outcome:
    """What an attack found, judged; image by image in the client's order, where that is known.

    Attributes:
        succeeded: whether every image came back with its label, as far as that can be known.
        verdict: what the shared gradient says; None where the truth judged alone.
        sentence: the same in words.
        images: (N, C, H, W), found.
        labels: (N,), found.
        soft_labels: (N, K), the probabilities found.
        order: (N,), which of the images found lies beside each of the client's.
        truth: (N, C, H, W), the client's images, if they are known; so are the next three.
        labels_true: (N,).
        mse: (N,), mean squared errors.
        psnr: (N,), peak signal-to-noise ratios in dB.
        recovered: (N,), whether an image's MSE is below `RECOVERED_MSE` and its label is right.
        distance: ‖gradient found − shared‖² / ‖shared‖², where no truth is known.
        tolerance: the largest distance that rounding and noise explain, bounded beforehand.
        noisy: whether noise, beyond any rounding, decides the tolerance.
        factor: by which the client multiplied its mean loss.
        expected_mse: of each pixel, as far as the gradient determines it at its rounding or noise;
            None where it is not explained.
        certified: (N,), whether a linear layer's gradient vouches for each image with its label;
            None where none can tell.
    """

    succeeded: bool
    verdict: Verdict | None
    sentence: str
    images: Array
    labels: Array
    soft_labels: Array
    order: Array
    truth: Array | None = None
    labels_true: Array | None = None
    mse: Array | None = None
    psnr: Array | None = None
    recovered: Array | None = None
    distance: float | None = None
    tolerance: float | None = None
    noisy: bool = False
    factor: float | None = None
    expected_mse: float | None = None
    certified: tuple[bool | None, ...] | None = None

    def __repr__(self) -> str:
        if self.mse is not None:
            how = f"largest MSE {float(np.max(self.mse)):.1e}"
        else:
            how = f"distance {self.distance:.1e} where {self.tolerance:.1e} is allowed"
        return f"<Outcome: {self.sentence}; {how}>"

    def plot(self) -> Any:
        """Draw the images found, beside the truth if it is known: a matplotlib `Figure`.

        Raises:
            ValueError: images that cannot be drawn.
        """
        from tinyleak.report import side_by_side

        return side_by_side(self.images, self.truth, self.labels, self.labels_true, self.mse)

    def _repr_png_(self) -> bytes | None:
        """Show the images in a notebook; None where they cannot be drawn, and then their `repr`."""
        from tinyleak.report import png_of

        return png_of(self.plot)


@dataclass(frozen=True, eq=False, repr=False)
class Truth:
    """The data of a client, copied. No attack sees it.

    Attributes:
        images: (N, C, H, W), pixels in [0, 1].
        labels: (N,).

    Raises:
        TypeError: images or labels that are not arrays of numbers.
    """

    images: Array
    labels: Array

    def __post_init__(self) -> None:
        for name in ("images", "labels"):
            object.__setattr__(self, name, as_array(getattr(self, name), copy=True))

    def __repr__(self) -> str:
        return f"<Truth: images {self.images.shape}, labels {self.labels.tolist()[:20]}>"

    def judge(self, found: Found) -> Outcome:
        """Compare what an attack found with what the client had, in the order that fits best.

        Raises:
            ValueError: another number or size of images than the client's.
            TypeError: something else than what an attack found.
        """
        require_found(found)
        order = match_batch(found.images, self.images)
        images, labels = found.images[order], found.labels[order]
        errors = mse(images, self.images)
        recovered = (errors < RECOVERED_MSE) & (labels == self.labels)
        sentence = "success" if recovered.all() else "NO success"
        if len(images) > 1:
            sentence += f", {int(recovered.sum())} of {len(images)} images recovered"
        return Outcome(
            succeeded=bool(recovered.all()),
            verdict=None,
            sentence=sentence,
            images=images,
            labels=labels,
            soft_labels=found.soft_labels[order],
            order=order,
            truth=self.images,
            labels_true=self.labels,
            mse=errors,
            psnr=psnr(images, self.images),
            recovered=recovered,
        )
