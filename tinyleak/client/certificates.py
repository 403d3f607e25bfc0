"""Which of the images that an attack found are certified as records of the client's batch.

Every linear layer is asked that the network has (see `tinyleak.analytic.certificate`): an image is
certified if one layer says so whose input determines the image, and no layer refuses it. Where none
can tell, only the whole gradient decides.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyleak.analytic.certificate import Certificates, as_verdicts, certify
from tinyleak.analytic.layer_gradient import LayerGradient
from tinyleak.backend import Array
from tinyleak.interop import as_array
from tinyleak.nn.criteria import loss_of
from tinyleak.nn.split import Split, linear_layers
from tinyleak.tensor import Tensor

NOTICED = 1e-3
"""A layer that does not notice a change of an image by so much, root mean square of pixels in
[0, 1], certifies no image: squashed often enough, all images come in nearly alike."""


@dataclass(frozen=True, eq=False, repr=False)
class ImageCertificates:
    """What a client's gradient says of M images, image by image."""

    # For each True (a record of the batch), False (none) or None (cannot tell).
    verdicts: tuple[bool | None, ...]
    layers: dict[str, Certificates]  # what each linear layer says, by the name of its weight
    why: str | None = None  # why none of the images can be told about; None if some can

    def __repr__(self) -> str:
        counts = [sum(v is answer for v in self.verdicts) for answer in (True, False, None)]
        return "ImageCertificates({} certified, {} refused, {} unknown)".format(*counts)


def certify_images(client: Any, images: Array, labels: Array) -> ImageCertificates:
    """Tell which images, each with its label, are records of a client's batch; needs no truth.

    Args:
        client: whose gradient decides, a `tinyleak.Client`.
        images: (M, C, H, W).
        labels: (M,) whole numbers, or (M, K) rows of probabilities, taken as they are.

    Raises:
        ValueError: images that do not fit the client's network, or labels that do not fit them.
    """
    images, labels = as_array(images).astype(float), as_array(labels)
    if images.ndim != 4 or images.shape[1:] != client.model.image_shape or len(images) == 0:
        raise ValueError(
            f"images of shape {images.shape} were given; {client.network} needs (M, "
            f"{', '.join(map(str, client.model.image_shape))})"
        )
    unknown = (None,) * len(images)
    if client.local is not None:
        why = "what several local steps changed is no gradient of one batch"
        return ImageCertificates(unknown, {}, why)
    layers: dict[str, Certificates] = {}
    said_yes, said_no, doubted = np.zeros((3, len(images)), np.bool_)
    for layer, cut in layers_of(client):
        if layer is None:
            continue

        def ask(
            images: Array, labels: Array, cut: Split = cut, layer: LayerGradient = layer
        ) -> Certificates:
            inputs, exact = cut.below(Tensor(images)).data, client.loss.exact
            loss = loss_of(client.model)
            return certify(layer, cut, inputs, labels, loss=loss, factor_known=exact, together=True)

        found = layers[cut.weight] = ask(images, labels)
        yes = found.certified & _determined(images, layer.weight_gradient.shape[1])
        # Copies to a layer may be twins to one below it, which tells them apart, or cannot.
        yes &= ~(doubted & (found.copies > 1))
        doubted |= ~found.certified & (found.why is None)
        for changed in _changes(images) if yes.any() else ():
            yes &= ~ask(changed, labels).certified
        said_yes |= yes
        # What pruning took may be all that a record lacks; another loss has another δ.
        told = client.premises.loss is not None and client.loss.fact.source != "assumed"
        sure = told and not client.premises.pruned
        said_no |= [v is False and sure for v in found.verdicts]
    if not layers:
        return ImageCertificates(unknown, {}, f"{client.network} has no linear layer to be asked")
    reasons = [found.why for found in layers.values()]
    why = "; ".join(f"{n}: {w}" for n, w in zip(layers, reasons, strict=True) if w)
    return ImageCertificates(
        as_verdicts(said_yes & ~said_no, said_no), layers, why if all(reasons) else None
    )


def layers_of(client: Any) -> Iterator[tuple[LayerGradient | None, Split]]:
    """Yield the gradient of each linear layer, None if it sent none, and the network cut there."""
    params = {name: array.astype(float) for name, array in client.params.items()}
    for cut in linear_layers(client.model, params):
        layer = None
        if {cut.weight, cut.bias}.isdisjoint(client.frozen):
            bias = None if cut.bias is None else client.gradients[cut.bias]
            roundoff = float(np.finfo(client.dtype).eps)
            layer = LayerGradient(client.gradients[cut.weight], bias, client.batch, roundoff)
        yield layer, cut


def _determined(images: Array, features: int) -> Array:
    """Return whether so many features can determine each image: (M,) booleans.

    Pixels at an end of their range were most likely there exactly; the others are unknowns.
    """
    free = (images > images.min()) & (images < images.max())
    return np.asarray(free.sum(axis=(1, 2, 3)) <= features)


def _changes(images: Array) -> Iterator[Array]:
    """Yield images changed by `NOTICED`: by noise, and darker."""
    yield images + NOTICED * np.random.default_rng(0).standard_normal(images.shape)
    sizes = np.sqrt(np.square(images).mean(axis=(1, 2, 3), keepdims=True))
    yield images * (1.0 - NOTICED / np.maximum(sizes, NOTICED))
