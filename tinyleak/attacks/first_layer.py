"""The first linear layer, where its inputs tell the image, and the records that it shows."""

import math
from collections.abc import Sequence
from math import prod

import numpy as np

from tinyleak.analytic.known import Records
from tinyleak.analytic.layer_gradient import LayerGradient
from tinyleak.analytic.probes import smooth_noise
from tinyleak.analytic.records import find_records
from tinyleak.attacks.shown import takes_pixels
from tinyleak.client import Client
from tinyleak.client.certificates import layers_of
from tinyleak.defenses import Defense, Prune
from tinyleak.nn.criteria import loss_of
from tinyleak.nn.split import Split
from tinyleak.tensor import Tensor

PROBES = 8  # images of noise by which it is told whether features are never negative


def first_layer(
    client: Client, defenses: Sequence[Defense] = ()
) -> tuple[LayerGradient, Split] | None:
    """Return the gradient of a network's first linear layer, if its inputs tell the image.

    They are the image's pixels, or as many features of it or more. Else, or if the layer sent no
    gradient, None. Where it was pruned, as it shows or as `defenses` say, it is filled in.
    """
    layer, cut = next(layers_of(client), (None, None))
    if layer is None or cut is None:
        return None
    shape = client.model.image_shape
    wide = client.model.shapes[cut.weight][1] >= prod(shape) and not cut.is_last
    if not wide and not takes_pixels(cut.below, shape):
        return None
    if client.premises.pruned or any(isinstance(one, Prune) for one in defenses):
        layer = client.filled_in or layer
    return layer, cut


def records_of(
    client: Client, layer: LayerGradient, cut: Split, rng: np.random.Generator, seconds: float
) -> Records:
    """Return the records of a client's batch that its first linear layer shows."""
    shape = client.model.image_shape
    direct, probes = takes_pixels(cut.below, shape), smooth_noise(shape, PROBES)
    never_negative = float(cut.below(Tensor(probes)).data.min()) >= 0.0
    bounds = (0.0, 1.0) if direct else (0.0, math.inf) if never_negative else None
    return find_records(
        layer,
        cut,
        bounds=bounds,
        loss=loss_of(client.model),
        factor_known=client.loss.exact,
        rng=rng,
        seconds=seconds,
    )
