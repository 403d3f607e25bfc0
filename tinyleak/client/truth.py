"""What a client keeps to itself, and how close an attack came to it."""

from dataclasses import dataclass

from tinyleak.backend import Array
from tinyleak.client.outcome import RECOVERED_MSE, Found, Outcome, require_found
from tinyleak.interop import as_array
from tinyleak.metrics import match_batch, mse, psnr


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
