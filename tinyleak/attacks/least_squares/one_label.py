"""Images of one label of which only the mean is known, told apart.

In a network that has not been trained the last layer's gradient, once it is rounded, shows no more
of such images than the mean m of their features, and so nearly that of their pixels. Be they m + dᵢ
with Σ dᵢ = 0. Then the gradient differs from that of N equal images by

    J δm + ½ Σᵢ D²g(m)[dᵢ, dᵢ] / N + …,

where δm is how far m is off. What J reaches is left out and the rest is matched, a problem as that
of phase retrieval: descents from noise end at wrong dᵢ, each with parts of the others. A sum of
more squares than needed has hardly any such ends (Burer and Monteiro 2003, "A nonlinear programming
algorithm for solving semidefinite programs via low-rank factorization"). So `COPIES` dummies stand
for each image; mixtures of what becomes of them are so near that one of a few leads to the dᵢ.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from tinyleak.attacks.distances import End, search_in_range
from tinyleak.attacks.least_squares.last_layer import Indices
from tinyleak.attacks.least_squares.polishing import Moving
from tinyleak.attacks.least_squares.residual import GradientResidual, as_float64
from tinyleak.backend import Array
from tinyleak.optim import Fit, levenberg_marquardt
from tinyleak.optim.bounds import solver

COPIES, SPREAD = 3, 0.2
"""Dummies for each image, and the standard deviation of the noise that they begin as."""

EVALUATIONS, LAST = 300, 50  # of the distance, with so many dummies, and with one for each image

TRIALS, MIXTURES, NEAR = 12, 6, 2e-3
"""Mixtures to try, at most, of how many of them the dummies are the same, and the share of the
distance that one leaves that leads on: of pairs those left 2e-4 to 2e-3, others 9e-3 to 3e-2."""

DRIFT = 10.0  # what the mean square by which dummies leave their mean adds to that share

FLOOR = 1e-10
"""The damping of the directions that J hardly reaches, as a share of their mean square."""

DAMPING, STEPS = 1e-6, 15  # the first λ of the last steps, and how many: two to six suffice


def in_own_units(gradient: GradientResidual) -> GradientResidual:
    """Return the residual with each parameter's gradient in units of its own size.

    It is rounded in these, and those of the first layers tell most of what tells images apart.
    """
    matching = gradient.matching
    sizes = {name: np.square(as_float64(one)).sum() for name, one in matching.shared.items()}
    precision = {
        name: np.full(one.shape, 1.0 / (sizes[name] or np.inf) / len(sizes))
        for name, one in matching.shared.items()
    }
    matching = replace(matching, precision=precision)
    return GradientResidual(matching, gradient.targets, gradient.unsettled)


def told_apart(
    gradient: GradientResidual,
    x: Array,
    groups: Sequence[Indices],
    goal: float,
    rng: np.random.Generator,
) -> Iterator[Fit]:
    """Tell the images of each group apart, where x holds their mean for each of them.

    Args:
        gradient: the residual in its parameters' own units (see `in_own_units`).
        x: (n,), the pixels of the batch; those of images in no group are nearly right.
        groups: which images share a label, at least one group.
        goal: the mean square error of a parameter's gradient, relative to its size, that is enough.
        rng: draws the noise.

    Yields:
        As `levenberg_marquardt` does, of all pixels.
    """
    x = _Apart(gradient, x, groups).corrected()
    apart = _Apart(gradient, x, groups)
    best = End(np.inf, x, 0)
    for trial in range(TRIALS):
        if trial % MIXTURES == 0:
            noise = SPREAD * rng.standard_normal((COPIES * len(apart.grouped), apart.pixels))
            found = apart.search(noise, COPIES, EVALUATIONS).x
        end = apart.search(apart.mixed(found, rng), 1, LAST)
        best = min(best, end, key=lambda end: end.value)
        if best.value < NEAR:
            break
    rows, grouped = x.reshape(-1, apart.pixels).copy(), apart.grouped
    rows[grouped] = best.x.reshape(-1, apart.pixels)
    moves = (rows > 0.0) & (rows < 1.0)
    moves[grouped] = True
    del apart  # the largest array of all
    some = Moving(gradient, rows.ravel(), np.flatnonzero(moves))
    for fit in levenberg_marquardt(
        some,
        rows[moves],
        lowest=0.0,
        highest=1.0,
        damping=DAMPING,
        radius=np.inf,
        max_iterations=STEPS,
        goal=goal,
    ):
        yield replace(fit, x=some.at(fit.x))


class _Apart:
    """What J does not reach of the gradient, as a function of dummies for the images of groups."""

    def __init__(self, gradient: GradientResidual, x: Array, groups: Sequence[Indices]) -> None:
        self.gradient, self.x, self.groups = gradient, x, groups
        self.grouped = np.concatenate(groups)
        images = x.reshape(len(gradient.targets), -1)
        self.pixels, self.means = images.shape[1], images[self.grouped]
        # Each mean is an unknown once, and the moving pixels of the other images are.
        self.moves = (images > 0.0) & (images < 1.0)
        self.moves[self.grouped] = False
        self.moves[[group[0] for group in groups]] = True
        self.rows = gradient.rows(gradient.images(x), gradient.targets, np.flatnonzero(self.moves))
        gram = self.rows @ self.rows.T
        gram[np.diag_indices(len(gram))] += FLOOR * np.trace(gram) / len(gram)
        self.solve, self.residual = solver(gram), gradient.value(x)

    def corrected(self) -> Array:
        """Return the pixels with each mean moved by a step of Gauss and Newton."""
        step = np.zeros(self.moves.shape)
        step[self.moves] = -self.solve(self.rows @ self.residual)
        rows = self.x.reshape(self.moves.shape).copy()
        for group in self.groups:
            rows[group] += step[group[0]] / len(group)
        return rows.ravel().clip(0.0, 1.0)

    def mixed(self, found: Array, rng: np.random.Generator) -> Array:
        """Return random mixtures of what dummies differ by, as large as these, one an image."""
        mixtures = []
        for dummies in self._split(found.reshape(-1, self.pixels), COPIES):
            some = dummies - dummies.mean(axis=0)
            mixture = rng.standard_normal((len(some) // COPIES, len(some))) @ some
            mixture -= mixture.mean(axis=0)
            mixtures.append(mixture * np.linalg.norm(some) / np.linalg.norm(mixture) / COPIES**0.5)
        return np.concatenate(mixtures)

    def search(self, deviations: Array, copies: int, evaluations: int) -> End:
        """Minimise from deviations from the means on, (copies · M, n), those of each image along.

        The value is the share that is left of what J does not reach.
        """
        matching, means = self.gradient.matching, np.repeat(self.means, copies, axis=0)
        targets = np.repeat(self.gradient.targets[self.grouped], copies, axis=0)
        dummies = GradientResidual(
            replace(matching, batch=len(means), targets=targets), targets, np.zeros(0, np.int64)
        )
        share, at_means = len(self.grouped) / matching.batch, dummies.value(means.ravel())
        whole = float(np.square(self._unreached(self.residual)).sum())

        def objective(y: Array) -> tuple[float, Array]:
            r = self._unreached(self.residual + share * (dummies.value(y) - at_means))
            slope = 2 * share / whole * dummies.slope(y, r).reshape(means.shape)
            value = float(r @ r) / whole
            parts = self._split(y.reshape(means.shape) - means, copies)
            off = [part.mean(axis=0) for part in parts]
            value += DRIFT / self.pixels * sum(float(one @ one) for one in off)
            pulls = [
                np.tile(one / len(part), (len(part), 1))
                for one, part in zip(off, parts, strict=True)
            ]
            slope += 2 * DRIFT / self.pixels * np.concatenate(pulls)
            return value, slope.ravel()

        return search_in_range(objective, (means + deviations).ravel(), 0.0, iterations=evaluations)

    def _split(self, rows: Array, copies: int) -> list[Array]:
        """Return the dummies of each group, as views."""
        return np.split(rows, np.cumsum([copies * len(group) for group in self.groups])[:-1])

    def _unreached(self, r: Array) -> Array:
        return r - self.solve(self.rows @ r) @ self.rows
