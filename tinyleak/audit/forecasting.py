"""The audit: what to expect of a network's gradient, without an attack on its client.

Lesson: lessons/15_pytorch.py
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tinyleak.analytic.jacobian import Jacobian, without_ties
from tinyleak.analytic.jacobian_spectrum import Spectrum, measure
from tinyleak.analytic.within_bounds import error_within_bounds
from tinyleak.attacks.problem import length
from tinyleak.audit.by_features import error_by_features, in_float32
from tinyleak.audit.figures import directions, forecast, panels
from tinyleak.audit.measured import LONGEST, Measured
from tinyleak.audit.page import STYLE, content_of, write
from tinyleak.audit.rehearsal import rehearse
from tinyleak.audit.rescaled import rescaled_jacobians
from tinyleak.audit.shared import read_shared
from tinyleak.audit.structure import count, find, saturation
from tinyleak.audit.typical_images import pixel_variance, typical
from tinyleak.audit.words import headline
from tinyleak.backend import Array
from tinyleak.client import Client, Truth, share
from tinyleak.data import Dataset
from tinyleak.data.files import PathLike
from tinyleak.interop import called, whole
from tinyleak.nn.criteria import one_hot
from tinyleak.nn.fitting import own_parameters
from tinyleak.nn.model import Model
from tinyleak.nn.models.as_trained import are_images, network_of
from tinyleak.nn.models.exported import refuse_mixing

VARIANCES = (1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
"""The noise to forecast for unless something else is asked for: from little more than rounding to
what hides an image of the paper's network."""


class Audit(Measured):
    """What to expect of a network's gradient: its numbers, a figure, and a page."""

    def plot(self) -> Any:
        """Draw the forecast against the noise, and where each direction drowns: a `Figure`."""
        return panels(self, forecast, directions)

    def save(self, path: PathLike, *, subject: str | None = None) -> None:
        """Write one HTML page, with its figures inside.

        `subject` is the line under its heading; by default which network, and whose images.
        """
        write(path, content_of(self, subject))

    def __repr__(self) -> str:
        return f"<Audit: {headline(self)}>"[:LONGEST]

    def _repr_html_(self) -> str:
        """Show the page in a notebook."""
        return STYLE + content_of(self)


def audit(
    client: Client | Model,
    params: Mapping[str, Any] | None = None,
    images: Dataset | Any | None = None,
    labels: Sequence[int] | Array | None = None,
    *,
    batch: int | None = None,
    gradients: Mapping[str, Any] | None = None,
    examples: int = 5,
    rehearsals: int = 0,
    prior: float | None = None,
    variances: Sequence[float] = VARIANCES,
) -> Audit:
    """Measure what to expect of the gradient that a client shares.

        audit(client)                             # a tinyleak.client.Client
        audit(model, params, gradients=gradients)  # the same, in its parts
        audit(model, params)                      # any client of this network

    The labels are taken as known, since they can be inferred from a gradient. The audit measures at
    typical images and not the client's, at the first `examples` batches of them. If there is a
    gradient, the batches have its labels if it shows them, and their Jacobians are rescaled to the
    client's images (see `tinyleak.audit.rescaled`).

    Args:
        client: the client; or its network, followed by its weights.
        params: with a network: its weights, by name.
        images: typical images: a data set, or an array (M, C, H, W) of pixels in [0, 1]; resized
            where need be, 200 at most. By default the built-in digits.
        labels: (M,), of such an array; by default those that the network gives them.
        batch: with a network: N, of how many images the client shares the mean gradient; 1.
        gradients: with a network: a shared gradient, by name. A constant factor on the loss is read
            off its last layer, if that is linear.
        examples: how many batches to measure at, at most.
        rehearsals: on how many simulated clients, at most, to try the attack itself, each with a
            typical batch: what stops a search shows there alone (see `tinyleak.audit.rehearsal`).
        prior: τ², the variance of a pixel before anything is shared; by default that of the images.
        variances: of the noise to forecast for, 0 or more.

    Raises:
        ValueError: weights or gradients that do not fit the network, are not finite, or are all
            zero; too few images, or images that are all the same; numbers out of range.
        TypeError: a network without weights; a client together with what it has itself.
    """
    client = _client(client, params, gradients, batch)
    if isinstance(client, Client):
        model, weights, batch = client.model, client.params, client.batch
    else:
        model, weights = client, own_parameters(client, params or {}, "weights")
        batch = 1 if batch is None else batch
    batch = whole(batch, 1, "a batch of {} was given; give 1 or more")
    refuse_mixing(network_of(model), batch)
    examples = whole(examples, 1, "{} examples were asked for; give 1 or more")
    rehearsals = whole(rehearsals, 0, "{} rehearsals were asked for; give 0 or more")
    variances = tuple(float(variance) for variance in variances)
    if not all(0 <= variance < math.inf for variance in variances):
        raise ValueError(f"noise of variances {variances} was given; give finite ones, 0 or more")
    known = typical(model, weights, images, labels)
    if len(known) < batch:
        raise ValueError(
            f"{len(known)} typical images were given for a batch of {batch}; give at least as many"
        )
    prior = pixel_variance(known.images) if prior is None else prior
    if not 0 < prior < math.inf:
        raise ValueError(f"pixels of variance {prior} leave nothing to find; give more than 0")
    batches = [
        (known.images[start : start + batch], known.labels[start : start + batch])
        for start in range(0, len(known) - batch + 1, batch)
    ]
    norm, rounding = _norm_and_rounding(model, weights, batches[:examples])
    shared, precision, frozen = None, None, tuple[str, ...]()
    if isinstance(client, Client):
        shared, frozen = read_shared(client, norm, known.images), client.frozen
        precision = client.weigh()
    if shared is not None:
        jacobians = rescaled_jacobians(model, weights, known, shared, batch, examples)
    else:
        jacobians = [
            Jacobian(model, weights, x, one_hot(y, model.classes)) for x, y in batches[:examples]
        ]
    alone = batch == 1 and precision is None and not frozen
    clients = [in_float32(one) if alone else None for one in jacobians]
    jacobians = [
        replace(one, images=without_ties(one.images), precision=precision) for one in jacobians
    ]
    spectra, rounded = _measured(jacobians, clients, rounding, prior)
    measured = known.images[: batch * len(spectra)]
    dtype = client.dtype if isinstance(client, Client) else "float32"
    rehearsed = [
        rehearse(model, weights, x, one_hot(y, model.classes), dtype=dtype)
        for x, y in batches[:rehearsals]
    ]
    return Audit(
        model=model,
        source=known.name,
        counting=count(model, batch, frozen),
        findings=find(model, batch, frozen),
        saturations=saturation(model, weights, measured),
        images=measured,
        jacobians=jacobians[: len(spectra)],
        spectra=spectra,
        prior=prior,
        rounding=rounding,
        errors=rounded,
        variances=variances,
        shared=shared,
        rehearsals=rehearsed,
        interrupted=len(spectra) < len(jacobians),
    )


def _measured(
    jacobians: Sequence[Jacobian],
    clients: Sequence[tuple[Client, Truth] | None],
    rounding: float,
    prior: float,
) -> tuple[list[Spectrum], list[float]]:
    """Return the spectra of the Jacobians, or of those that were done when Ctrl-C came.

    Beside them the mean squared error that rounding leaves at each, within [0, 1] for images.
    """
    spectra: list[Spectrum] = []
    errors = []
    try:
        for jacobian, simulated in zip(jacobians, clients, strict=True):
            spectrum = measure(jacobian)
            error = None if simulated is None else error_by_features(*simulated, prior)
            if error is None and rounding > 0 and are_images(jacobian.model):
                error = error_within_bounds(spectrum, jacobian.images.ravel(), rounding, prior)
            errors.append(spectrum.forecast(rounding, prior) if error is None else error)
            # Guesses are made of the first batch, and directions take much memory.
            spectra.append(replace(spectrum, axes=None) if spectra else spectrum)
    except KeyboardInterrupt:
        if not spectra:
            raise
    return spectra, errors[: len(spectra)]


def _client(
    client: Client | Model,
    params: Mapping[str, Any] | None,
    gradients: Mapping[str, Any] | None,
    batch: int | None,
) -> Client | Model:
    """Return the client, put together from its parts if there is a gradient among them."""
    if isinstance(client, Client):
        parts = {"params": params, "gradients": gradients, "batch": batch}
        given = [name for name, part in parts.items() if part is not None]
        if given:
            raise TypeError(
                f"{' and '.join(given)} were given, but a client has its own; leave them out, and "
                "give typical images as images="
            )
        return client
    if params is None:
        raise TypeError(
            f"{called(client)} was given without weights; give a Client, or a network and "
            "its weights (of text: to audit_text)"
        )
    if gradients is None:
        return client
    return Client.of(client, params, gradients, batch=1 if batch is None else batch)


def _norm_and_rounding(
    model: Model, params: Mapping[str, Array], batches: Sequence[tuple[Array, Array]]
) -> tuple[float, float]:
    """Return the mean length of typical gradients, and what computing them in float32 changes.

    That is a mean square, and far more than rounding the result would change where the softmax is
    nearly the label: the client computes the small difference of two numbers near one.
    """
    # Weights travel in float32, so client and attacker know the same ones.
    weights = {name: array.astype(np.float32) for name, array in params.items()}
    norms, errors = [], []
    for batch in batches:
        exact, rounded = (
            share(model, weights, *batch, dtype=dtype)[0].gradients
            for dtype in ("float64", "float32")
        )
        norms.append(length(exact))
        off = length({name: rounded[name] - gradient for name, gradient in exact.items()})
        errors.append(off**2 / sum(array.size for array in exact.values()))
    return float(np.mean(norms)), float(np.mean(errors))
