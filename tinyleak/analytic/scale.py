"""The factor by which a client multiplied its loss, inferred from the last layer's gradient.

PyTorch's cross-entropy averages over the batch, or adds up (N times as much) if told so, and a
client may weight its loss besides. Then the last layer's weight has the gradient
c · mean((p − y) hᵀ) and its bias c · mean(p − y), with probabilities p, labels y and features h.

For one image that tells c exactly: the weight's gradient divided by the bias's is h, and h gives p
and c. For a batch a mean of p is enough, since a label that no image has gives c · mean(pₖ); before
much training that hardly depends on the images, so probes show it.
"""

import math
from dataclasses import dataclass

import numpy as np

from tinyleak.backend import Array

UNSURE = 2.0
"""How many times that a factor may be off that is neither a mean's nor a sum's: a client may have
normalised its images, which takes the mean of p up to twice as far from that over probes."""

LEAST_ERROR = 1e-3  # no estimate from probes is taken to be better than this share

UNLIKE = 0.5
"""How far the mean over a client's images is from that over probes, beside what differs from probe
to probe, however many images there are: 0.3 to 0.7 at the median, of fresh and trained networks."""

MOST_ERROR = 0.1
"""With a larger error an estimate cannot distinguish a mean from a mean times a factor …"""

SURE_COUNT = 0.25
"""… unless all counts of labels come out nearer than this to whole numbers, as in `labels`."""

ROUNDS = 10
"""Each sets labels apart that images have from those that none has; two are enough mostly."""


@dataclass(frozen=True)
class LossScale:
    """The factor by which a client multiplied the mean cross-entropy."""

    factor: float  # c; 1 where the client averaged, N where it added up
    # Whether c is known exactly: for one image, and for a batch where it can only be a mean or a
    # sum. Otherwise it is an estimate.
    exact: bool
    # How far off the factor may be, as a share of it: about three standard deviations; infinite for
    # a lower bound.
    error: float = 0.0


def factor_of_batch(
    g: Array, shown: Array, batch: int, noise: float, usual: tuple[float, ...]
) -> LossScale | None:
    """Compare the gradient of absent labels with what the loss makes of the probes for them.

    The bias's gradient is g = c (p − n / N), for a mean p of the probabilities and n images of each
    label. So c is at least g / p, and it is that for a label that no image has; and with the right
    c all n = N (p − g / c) are counts: whole and not negative, as exactly as the probes tell p.

    Args:
        g: (K,), with respect to the last layer's bias.
        shown: (M, K), p of each probe, or what stands for it in another loss than cross-entropy.
        batch: N.
        noise: the standard deviation of the error of each g.
        usual: the factors that a mean and a sum have.

    Returns:
        None where the gradient does not tell, as where images have every label.
    """
    p, differ = shown.mean(axis=0), math.sqrt(1.0 / batch + UNLIKE**2)
    deviation = differ * shown.std(axis=0)

    def counts(factor: float) -> tuple[Array, Array]:
        """Return n, and how far it may be off."""
        allowed = 3 * batch * (deviation + noise / factor + LEAST_ERROR * np.abs(p))
        return batch * (p - g / factor), allowed

    if not (possible := (g > 0) & (p > 0)).any():
        return None
    factor = float((g[possible] / (p + 3 * deviation)[possible]).max())
    for _ in range(ROUNDS):
        # A label of few images has a positive entry, too, if it is probable.
        absent = possible & (counts(factor)[0] < 0.5)
        if not absent.any():
            return None
        factor = float(g[absent].sum() / p[absent].sum())
    probable = shown[:, absent].sum(axis=1)
    error = LEAST_ERROR + 3 * float(probable.std() / probable.mean()) * differ
    error += 3 * noise * math.sqrt(absent.sum()) / float(g[absent].sum())
    for c in usual:
        n, allowed = counts(c)
        if (np.abs(n - np.maximum(np.rint(n), 0.0)) > allowed).any():
            continue
        off = abs(c / factor - 1.0)
        if (off <= error <= MOST_ERROR) or allowed.max() < SURE_COUNT:
            return LossScale(c, exact=True, error=error)
        error = max(error, off * (1.0 + LEAST_ERROR))
        break
    else:
        # Where images have every label, what was taken for absent is not: counts are not whole.
        n, allowed = counts(factor)
        allowed = allowed + batch * np.abs(g / factor) * error
        wrong = (np.abs(n - np.maximum(np.rint(n), 0.0)) > allowed).any()
        if wrong or (batch >= len(p) and allowed.max() > 0.5):
            # It is a lower bound all the same: above 1 it rules out a mean.
            no_mean = factor * (1.0 - UNSURE * error) > 1.0
            return LossScale(factor, exact=False, error=math.inf) if no_mean else None
    return LossScale(factor, exact=False, error=UNSURE * error)
