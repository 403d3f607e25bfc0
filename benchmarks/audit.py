"""Is the audit right? Its forecast beside what attacks achieve, over networks, batches and noise.

    python benchmarks/audit.py                 60 settings; what is there is not computed again
    python benchmarks/audit.py --report        the figure and the table of what there is

A setting is drawn from a seed: LeNet or MLP, of some widths, with an activation, with weights as
initialised or trained for a while, a batch, and noise, as a share of the gradient, or none but
float32's rounding. The audit sees the network and other images of the same kind, and forecasts at
that noise. Then each of three clients shares the gradient of its batch, with that noise, and is
attacked:

- *the attack alone* is `attack`: from noise, from several starts, by somebody who knows how strong
  the noise is, that images are smooth, and the labels.
- *the attack* goes on from there, and also from the mean of typical images, by Levenberg-Marquardt,
  to what is most probable given the noise and how much pixels vary; and starts anew, up to five
  times, where noise does not explain what is left.
- *the ideal* does so from the truth. Where it beats the attack, the attack was stuck; where it
  misses the forecast, the forecast is wrong.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from timing import table

# isort: split
# What follows imports NumPy, which `timing` has told to keep to one thread.
import numpy as np
from audit_figure import validation_figure
from cells import Cell, Cells, folder_of
from posterior import Posterior, finished
from scipy.stats import spearmanr
from training import train

from tinyleak import data
from tinyleak.attack import Settings, attack_many
from tinyleak.audit import audit, typical
from tinyleak.audit.shared import length
from tinyleak.data import Dataset
from tinyleak.defenses import Gaussian, knowledge
from tinyleak.metrics import match_batch, mse
from tinyleak.nn import MLP, LeNet
from tinyleak.report.frames import number
from tinyleak.victim import Victim, share

EXAMPLES = 5
"""Typical batches that the audit measures at."""

RESTARTS = 2
SMOOTHNESS = 3.0
"""As in defenses.py, where it was chosen, on other digits."""

WRONG = 10.0
"""A forecast is called wrong if the error is so many times as large, or as small."""

STUCK = 3.0
"""The attack is called stuck if its error is so many times as large as the ideal's."""


class Effort(NamedTuple):
    """How much is made of a setting.

    Attributes:
        clients: that are attacked.
        training: steps of momentum, for the networks that are trained.
        iterations: of L-BFGS, for each start.
        anew: how often an attack that has not arrived starts anew, at most.
    """

    clients: int = 3
    training: int = 300
    iterations: int = 600
    anew: int = 5


QUICK = Effort(1, 5, 10, 0)


@dataclass(frozen=True)
class Setting:
    """One point of the figure.

    Attributes:
        seed: from which all the rest was drawn.
        model: the network.
        init: of its weights.
        trained: whether it was trained.
        batch: N.
        noise: its standard deviation on all numbers together, as a share of the gradient's norm; 0
            is none but float32's rounding.
    """

    seed: int
    model: LeNet | MLP
    init: str
    trained: bool
    batch: int
    noise: float

    @classmethod
    def drawn(cls, seed: int) -> Setting:
        """Draw a setting."""
        rng = np.random.default_rng([seed, 3])
        batch = int(rng.choice([1, 1, 2, 4]))
        side = {1: int(rng.choice([16, 20])), 2: 12, 4: 10}[batch]
        activation = str(rng.choice(["sigmoid", "sigmoid", "tanh", "softplus", "relu"]))
        if rng.random() < 0.5:
            hidden = int(rng.choice([4, 8, 12, 16]))
            model = LeNet((1, side, side), activation=activation, hidden=hidden)
        else:
            widths = [(24,), (48,), (48, 24), (64, 32)][rng.integers(4)]
            model = MLP((1, side, side), activation=activation, widths=widths)
        init = str(rng.choice(["uniform", "default"]))
        trained = bool(rng.random() < 0.4)
        noise = 0.0 if rng.random() < 0.2 else float(10.0 ** rng.uniform(-5, 0))
        return cls(seed, model, init, trained, batch, noise)

    def __str__(self) -> str:
        name = "LeNet" if isinstance(self.model, LeNet) else "MLP"
        size = self.model.hidden if isinstance(self.model, LeNet) else self.model.widths
        weights = self.init + (" trained" if self.trained else "")
        return (
            f"{self.seed}: {name} {size} {self.model.activation}, {weights}, N={self.batch} of "
            f"{self.model.image_shape[1]}², noise {number(self.noise)}"
        )


def measure(setting: Setting, source: Dataset, effort: Effort) -> Cell:
    """Return the forecast, and each client's errors by the attack and by the ideal."""
    model, half = setting.model, len(source) // 2
    params = model.init(np.random.default_rng([setting.seed, 0]), setting.init)
    known = typical(model, params, part(source, 0, half))
    hidden = typical(model, params, part(source, half, len(source)))
    if setting.trained:
        rng = np.random.default_rng([setting.seed, 1])
        params = train(
            model, params, known.images, known.labels, rng, steps=effort.training, rate=0.05
        )
    victims = [
        share(model, params, *hidden.batch(range(start, start + setting.batch)), dtype="float32")
        for start in range(0, effort.clients * setting.batch, setting.batch)
    ]
    found = audit(model, params, known.images, known.labels, batch=setting.batch, examples=EXAMPLES)
    size = found.counting.parameters
    norm = float(np.mean([length(one.gradients) for one in victims]))
    variance = (setting.noise * norm) ** 2 / size
    victims = [noisy(one, variance, [setting.seed, 2, row]) for row, one in enumerate(victims)]
    forecast = found.at(variance or found.rounding)
    mean = known.images[: EXAMPLES * setting.batch].mean(axis=0)
    errors = {"attack alone": [], "attack": [], "ideal": []}
    for row, (victim, alone) in enumerate(
        zip(
            victims,
            attacked(model, victims, variance, setting.seed, effort.iterations),
            strict=True,
        )
    ):
        posterior = Posterior(model, victim, forecast.variance, found.prior, mean)
        rng = np.random.default_rng([setting.seed, 4, row])
        images = {
            "attack alone": alone,
            "attack": finished(posterior, alone, rng, effort.anew),
            "ideal": posterior.most_probable(victim.images)[1],
        }
        for who, some in errors.items():
            some.append(error(victim, images[who]))
    return {
        "variance": np.array(forecast.variance),
        "forecast": np.array(forecast.mse),
        "spread": np.array([forecast.lowest, forecast.highest]),
        "prior": np.array(found.prior),
        **{who: np.array(some) for who, some in errors.items()},
    }


def part(source: Dataset, start: int, stop: int) -> Dataset:
    """Return some of the images of a data set."""
    return replace(source, images=source.images[start:stop], labels=source.labels[start:stop])


def noisy(victim: Victim, variance: float, seed: Sequence[int]) -> Victim:
    """Return the client with noise on its gradient."""
    gradients = {name: np.asarray(g, dtype=float) for name, g in victim.gradients.items()}
    if variance:
        gradients = Gaussian(variance)(gradients, np.random.default_rng(seed))
    return replace(victim, gradients=gradients)


def attacked(
    model: LeNet | MLP, victims: Sequence[Victim], variance: float, seed: int, iterations: int
) -> list[np.ndarray]:
    """Return what `attack` finds of each client, cut to the range of a pixel: (N, C, H, W)."""
    settings, precision = Settings(iterations=iterations), None
    if variance:
        known = [knowledge([Gaussian(variance)], one.gradients).precision for one in victims]
        settings, precision = replace(settings, smoothness=SMOOTHNESS), known
    found = attack_many(
        model,
        [one.params for one in victims],
        [one.gradients for one in victims],
        batch=len(victims[0].labels),
        labels=[one.labels.tolist() for one in victims],
        precision=precision,
        seeds=[1000 * seed + row for row in range(len(victims))],
        restarts=RESTARTS,
        settings=settings,
    )
    return [np.clip(one.images, 0, 1) for one in found]


def error(victim: Victim, images: np.ndarray) -> float:
    """Return the mean squared error of a batch, in the order that fits best."""
    cut = np.clip(images, 0, 1)
    return float(mse(cut[match_batch(cut, victim.images)], victim.images).mean())


def verdict(cell: Cell) -> str:
    """Return a word for how forecast, attack and ideal go together."""
    forecast = float(cell["forecast"])
    achieved, best = (float(np.mean(cell[who])) for who in ("attack", "ideal"))
    if 1 / WRONG < achieved / forecast < WRONG:
        return "right"
    if achieved > STUCK * best and 1 / WRONG < best / forecast < WRONG:
        return "attack stuck"
    return "forecast wrong"


def rank(forecast: np.ndarray, achieved: np.ndarray) -> float:
    """Return Spearman's rank correlation, if there are enough points for one."""
    return float(spearmanr(forecast, achieved).statistic) if len(forecast) > 2 else np.nan


def report(found: dict[Setting, Cell], path: Path) -> None:
    """Print how well forecast and errors agree, and where not; draw both."""
    forecast = np.array([float(cell["forecast"]) for cell in found.values()])
    errors = {
        who: np.array([float(np.mean(cell[who])) for cell in found.values()])
        for who in ("attack alone", "attack", "ideal")
    }
    words = [verdict(cell) for cell in found.values()]
    single = np.array([setting.batch == 1 for setting in found])
    for who, achieved in errors.items():
        whole, images, batches = (
            rank(forecast[which], achieved[which]) for which in (single | True, single, ~single)
        )
        near = np.abs(np.log10(achieved / forecast)) < np.log10(WRONG)
        print(
            f"the forecast and the {who}: Spearman's rank correlation {whole:.3f} over "
            f"{len(found)} settings (single images {images:.3f}, batches {batches:.3f}); "
            f"{near.mean():.0%} within a factor of {WRONG:g}"
        )
    rows = [
        [str(setting), *(number(float(x)) for x in numbers), word]
        for setting, *numbers, word in zip(found, forecast, *errors.values(), words, strict=True)
    ]
    header = ["setting", "forecast", *errors, ""]
    print(f"\n{table(header, [row for row in rows if row[-1] != 'right'] or [['none'] * 6])}")
    smooth = [setting.model.activation != "relu" for setting in found]
    validation_figure(path, forecast, errors["attack"], errors["ideal"], np.array(smooth))


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--settings", type=int, default=60, help="how many (60)")
    parser.add_argument("--first", type=int, default=0, help="the first one's seed (0)")
    parser.add_argument("--report", action="store_true", help="compute nothing")
    parser.add_argument(
        "--results",
        type=Path,
        help="where cells and the figure go (results/audit; a new folder with --quick)",
    )
    parser.add_argument("--quick", action="store_true", help="few and short: a smoke test")
    return parser.parse_args(arguments)


def main() -> int:
    """Compute what is missing, then say how it came out."""
    options = parse_arguments()
    effort = Effort()
    if options.quick:
        options.settings, effort = 2, QUICK
    cells = Cells(folder_of(options, "results/audit"))
    source = data.load("glyphs")
    found = {}
    for seed in range(options.first, options.first + options.settings):
        setting = Setting.drawn(seed)
        name = f"setting {seed}"
        if options.report:
            cell = cells.peek(name)
        else:
            cell = cells.get(name, lambda one=setting: measure(one, source, effort))
        if cell is not None:
            found[setting] = cell
    if len(found) > 1:
        report(found, cells.folder / "audit.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
