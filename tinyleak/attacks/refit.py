"""Images that were read off one layer's noisy gradient, fitted to that of all layers."""

import numpy as np

from tinyleak.attacks.features_first import range_at
from tinyleak.attacks.matching import Matching
from tinyleak.backend import Array
from tinyleak.client import Client
from tinyleak.client.explanation import NOISE_MARGIN
from tinyleak.ops import concatenate, reshape
from tinyleak.optim.truncated import Traced, truncated_gauss_newton
from tinyleak.tensor import Tensor, as_tensor

STEPS = 10
"""Of Gauss and Newton, at most; of images that are known to four digits one or two are enough."""


def refit(client: Client, matching: Matching, x: Array) -> Array:
    """Return the pixels of all images, (n,), moved to where they make the gradient, if it is noisy.

    What is read off one layer has that layer's noise, and makes the other layers' gradients no
    better than that. The search ends as near as noise lets the client's own images be; where it
    does not come there, as with an image or a label that is wrong, all stay where they are.
    """
    noisy = any(cause.name == "noise" for cause in client.premises.causes)
    if client.noise is None or not noisy:
        return x
    names = list(client.model.shapes)
    ones = {name: np.ones(shape) for name, shape in client.model.shapes.items()}
    precision = ones if matching.precision is None else matching.precision

    def residual(x: Tensor) -> Tensor:
        made = matching.gradients(matching.images(x), matching.labels(x))
        apart = [
            (made[name] - as_tensor(matching.shared[name])) * np.sqrt(precision[name])
            for name in names
        ]
        return concatenate([reshape(part, (-1,)) for part in apart], axis=0)

    lowest, highest = range_at(client.model, x)
    weight = float(matching.scale) ** 2 * sum(float(precision[name].sum()) for name in names)
    noise = client.noise * weight
    found = truncated_gauss_newton(
        Traced(residual, x.size),
        x,
        lowest=lowest,
        highest=highest,
        steps=STEPS,
        goal=noise,
    )
    return found.x if found.value <= NOISE_MARGIN * noise else x
