"""What the forecast means to the eye: the best guess of a typical image at each noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tinyleak.audit.measured import Measured
from tinyleak.backend import Array
from tinyleak.tensor import Tensor


def best_guesses(
    audit: Measured, variances: Sequence[float], *, seed: int = 0
) -> list[Array] | None:
    """Return the first typical image as the best attacker would see it: (C, H, W) for each noise.

    With d the difference between the batch and the mean image, the gradient shows J d plus noise e,
    and the best guess of d solves (JᵀJ + v/τ²) d̂ = JᵀJ d + Jᵀe: the mean of the posterior, for
    noise of each variance v, 0 or more. None where the spectrum was estimated, since a guess needs
    all of JᵀJ.
    """
    if not audit.spectra[0].complete:
        return None
    jacobian = audit.jacobians[0]
    gram = jacobian.gram()
    mean = audit.images.mean(axis=0 if len(audit.images) > 1 else None)
    truth = jacobian.images - mean
    rng = np.random.default_rng(seed)
    noise = {
        name: Tensor(rng.standard_normal((1, *shape))) for name, shape in audit.model.shapes.items()
    }
    noise_seen = jacobian.transposed_times(noise).data[0]
    shown = gram @ truth.ravel()
    guesses = []
    for variance in variances:
        seen = shown + np.sqrt(variance) * noise_seen
        # Without noise the solution of least norm: what J does not see is guessed to be the mean.
        damped = gram + variance / audit.prior * np.eye(len(gram))
        found = np.linalg.solve(damped, seen) if variance else np.linalg.pinv(gram) @ seen
        guesses.append(found.reshape(truth.shape)[0] + mean)
    return guesses
