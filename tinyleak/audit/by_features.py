"""What float32 leaves to the attack by features, at a typical input: computed, not assumed.

A forecast for noise takes the errors of all numbers to be independent and of one size. Those of
float32 are neither. What the client computed first is wrong in all that it computed from it: the
features are off by as much in every row of their layer's gradient, so that no mean makes them more
exact. What it computed last cancels: a layer's gradient and its bias's have the same wrong δ, and
their quotient is right. So a client with a typical input is simulated in float32; the residual r of
the attack by features (`tinyleak.attacks.shown`) at that input is what float32 did; and the end of
the attack is linear least squares from there, within [0, 1] for images, with each part weighed by
its own error as the attack does.
"""

import numpy as np

from tinyleak.analytic.jacobian import Jacobian, without_ties
from tinyleak.analytic.jacobian_spectrum import MOST_DENSE, of_gram
from tinyleak.analytic.within_bounds import change_within_bounds
from tinyleak.attacks.shown import in_a_row, most_shown, takes_pixels
from tinyleak.backend import Array
from tinyleak.client import Client, Truth, share
from tinyleak.nn.models.as_trained import are_images
from tinyleak.ops import reshape
from tinyleak.optim.truncated import Traced
from tinyleak.tensor import Tensor

INSIDE = 0.5  # a pixel that no bound holds, as the numbers of a table have none


def in_float32(jacobian: Jacobian) -> tuple[Client, Truth]:
    """Return a simulated client that computes in float32, and whose batch is a Jacobian's."""
    # Weights and images are in float32 as well, so client and attacker know the same ones.
    weights = {name: array.astype(np.float32) for name, array in jacobian.params.items()}
    images, labels = jacobian.images.astype(np.float32), jacobian.targets.argmax(axis=1)
    return share(jacobian.model, weights, images, labels, dtype="float32")


def error_by_features(client: Client, truth: Truth, prior: float) -> float | None:
    """Return the mean squared error of a pixel where the attack by features would end.

    Args:
        client: of one image, with a gradient that was computed in float32.
        truth: that image.
        prior: τ², the variance of a pixel before anything was shared.

    Returns:
        None where no layer shows anything, or not all of the image, for several images, or for too
        many pixels.
    """
    image = truth.images.astype(float)
    if client.batch != 1 or image.size > MOST_DENSE:
        return None
    shown = most_shown(client.model, client.params, client.sent)
    if shown is None:
        return None
    if shown.features is not None and takes_pixels(shown.below, client.model.image_shape):
        return float(np.mean((shown.features.ravel() - image.ravel()) ** 2))

    def parts(z: Tensor) -> list[Tensor]:
        return shown.parts(reshape(z, image.shape), client.gradients)

    traced = Traced(lambda z: in_a_row(parts(z)), image.size)
    errors = [part.data.ravel() for part in parts(Tensor(image.ravel()))]
    precision = np.concatenate([_precision(one) for one in errors])
    x = without_ties(image).ravel()
    rows = [traced.back(x, precision * traced.along(x, unit)) for unit in np.eye(image.size)]
    pull = traced.back(x, precision * np.concatenate(errors))
    inside = image.ravel() if are_images(client.model) else np.full(image.size, INSIDE)
    spectrum = of_gram(np.stack(rows))
    if spectrum.rank < image.size:  # the rest of the gradient may tell more
        return None
    change = change_within_bounds(spectrum, inside, 1.0, prior, pull)
    return None if change is None else float(change @ change) / image.size


def _precision(errors: Array) -> Array:
    """Return 1 / v for each number of a part, v what these are off by: a mean square."""
    rounding = float(np.finfo(np.float32).eps) ** 2
    return np.full(len(errors), len(errors) / (float(errors @ errors) + rounding))
