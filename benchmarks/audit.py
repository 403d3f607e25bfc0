"""Is the audit right? Its forecast beside what attacks achieve, over networks, batches and noise.

    python benchmarks/audit.py                 60 settings; what is there is not computed again
    python benchmarks/audit.py --report        the figure and the table of what there is

A setting is drawn from a seed: LeNet or MLP, of some widths, with an activation, with weights as
initialised or trained for a while, a batch, and noise, as a share of the gradient, or none but
float32's rounding. In it each of three clients, whose images are drawn too, shares the gradient of
its batch with that noise. There are two forecasts: *without* a gradient, for typical images, and
*given* it, for each client; neither sees the clients' images, and no network was trained on those
or on the typical ones. Each client is attacked:

- *the attack* looks for what is most probable given the noise, how much pixels vary, and the
  labels, by Levenberg-Marquardt: from what `recursion` reads off the gradient, and from the mean of
  typical images; and, where noise does not explain what is left, from what L-BFGS finds, from
  typical images whose gradients are near, and from grey noise.
- *the ideal* starts from the truth. Where it beats the attack, the attack was stuck; where it
  misses the forecast, the forecast is wrong.

What a setting stands for is the median over its clients, of forecasts and of errors.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from timing import table

# isort: split
# What follows imports NumPy, which `timing` has told to keep to one thread.
import numpy as np
from audit_figure import validation_figure
from audit_settings import Setting
from cells import Cell, Cells, folder_of
from posterior import Posterior, attacked, first, more
from scipy.stats import spearmanr

from tinyleak import data
from tinyleak.attacks.problem import length
from tinyleak.audit import Audit, audit, typical
from tinyleak.client import Client, Truth, share
from tinyleak.data import Dataset
from tinyleak.defenses import Gaussian
from tinyleak.metrics import match_batch, mse
from tinyleak.nn import train
from tinyleak.report.canvas import number

EXAMPLES = 5
"""Typical batches that the audit measures at."""

SPLIT = (400, 700)
"""The images before are for training, those after are the clients'; between are typical ones."""

WRONG = 10.0
"""A forecast is called wrong if the error is so many times as large, or as small."""

STUCK = 3.0
"""The attack is called stuck if its error is so many times as large as the ideal's, and the
ideal's is as forecast."""


FIRST = 100
"""The first seed that is reported; those before were for development."""


class Effort(NamedTuple):
    """How much is made of a setting.

    Attributes:
        clients: that are attacked.
        training: steps of momentum, for the networks that are trained.
        iterations: of L-BFGS, where noise does not explain what is left.
        anew: how often an attack starts anew from grey noise then, at most.
    """

    clients: int = 3
    training: int = 300
    iterations: int = 300
    anew: int = 1


QUICK = Effort(1, 5, 10, 0)


def measure(setting: Setting, source: Dataset, effort: Effort) -> Cell:
    """Return the forecasts, and each client's errors by the attack and by the ideal."""
    model = setting.model
    params = model.init(np.random.default_rng([setting.seed, 0]), setting.init)
    seen, known, hidden = (
        typical(model, params, part(source, *ends))
        for ends in ((0, SPLIT[0]), SPLIT, (SPLIT[1], len(source)))
    )
    if setting.trained:
        seed = np.random.default_rng([setting.seed, 1])
        options = {"steps": effort.training, "learning_rate": 0.05, "seed": seed}
        params = train(model, seen.images, seen.labels, params=params, **options).params
    chosen = np.random.default_rng([setting.seed, 5]).permutation(len(hidden.images))
    batches = chosen[: effort.clients * setting.batch].reshape(effort.clients, setting.batch)
    clients = [share(model, params, *hidden.batch(batch), dtype="float32") for batch in batches]
    options = {"batch": setting.batch, "examples": EXAMPLES}
    found = audit(model, params, known.images, known.labels, **options)
    norm = float(np.mean([length(one.gradients) for one, _ in clients]))
    variance = (setting.noise * norm) ** 2 / found.counting.parameters
    without = found.at(variance) if variance else found.rounded
    cells: dict[str, list[float]] = {name: [] for name in ("given", "attack", "ideal")}
    for row, (exact, truth) in enumerate(clients):
        client = noisy(exact, variance, [setting.seed, 2, row])
        given = forecast_given(
            audit(model, params, known.images, known.labels, gradients=client.gradients, **options)
        )
        posterior = Posterior(
            client, truth.labels, without.variance, found.prior, known.images.mean(axis=0)
        )
        rng = np.random.default_rng([setting.seed, 4, row])
        images = attacked(
            posterior,
            [
                *first(client, truth.labels, variance),
                np.broadcast_to(posterior.mean, truth.images.shape),
            ],
            more(client, truth.labels, known, variance, rng, effort.iterations, effort.anew),
        )
        cells["given"].append(given)
        cells["attack"].append(error(truth, images))
        cells["ideal"].append(error(truth, posterior.most_probable(truth.images)[1]))
    return {
        "variance": np.array(without.variance),
        "without": np.array(without.mse),
        "spread": np.array([without.lowest, without.highest]),
        "prior": np.array(found.prior),
        **{name: np.array(numbers) for name, numbers in cells.items()},
    }


def forecast_given(found: Audit) -> float:
    """Return the forecast for the given gradient, at the noise that is read off it."""
    assert found.shared is not None, "it was given"
    noise = found.shared.noise
    return (found.at(noise) if noise and not found.shared.exact else found.rounded).mse


def part(source: Dataset, start: int, stop: int) -> Dataset:
    """Return some of the images of a data set."""
    images, labels = source.images[start:stop], source.labels[start:stop]
    return Dataset(source.name, images, labels, source.classes)


def noisy(client: Client, variance: float, seed: Sequence[int]) -> Client:
    """Return the client with noise on its gradient."""
    gradients = {name: np.asarray(g, dtype=float) for name, g in client.gradients.items()}
    if variance:
        gradients = Gaussian(variance)(gradients, np.random.default_rng(seed))
    return replace(client, gradients=gradients)


def error(truth: Truth, images: np.ndarray) -> float:
    """Return the mean squared error of a batch, in the order that fits best."""
    cut = np.clip(images, 0, 1)
    return float(mse(cut[match_batch(cut, truth.images)], truth.images).mean())


def verdict(cell: Cell) -> str:
    """Return a word for how forecast, attack and ideal go together."""
    forecast, achieved, best = (float(np.median(cell[n])) for n in ("given", "attack", "ideal"))
    if 1 / WRONG < achieved / forecast < WRONG:
        return "right" if best > forecast / WRONG else "ideal better"
    if achieved > STUCK * best and 1 / WRONG < best / forecast < WRONG:
        return "attack stuck"
    return "forecast wrong"


def rank(forecast: np.ndarray, achieved: np.ndarray) -> float:
    """Return Spearman's rank correlation, if there are enough points for one."""
    return float(spearmanr(forecast, achieved).statistic) if len(forecast) > 2 else np.nan


def report(found: dict[Setting, Cell], path: Path) -> None:
    """Print how well forecasts and errors agree, and where not; draw both."""
    cells = list(found.values())
    medians = {
        name: np.array([float(np.median(cell[name])) for cell in cells])
        for name in ("without", "given", "attack", "ideal")
    }
    single = {
        name: np.concatenate([np.atleast_1d(cell[name]) for cell in cells])
        for name in ("given", "attack", "ideal")
    }
    alone = np.array([setting.batch == 1 for setting in found])
    for forecast in ("given", "without"):
        for who in ("attack", "ideal"):
            whole, images, batches = (
                rank(medians[forecast][which], medians[who][which])
                for which in (alone | True, alone, ~alone)
            )
            print(
                f"the forecast {forecast} a gradient and the {who}: Spearman's rank correlation "
                f"{whole:.3f} over {len(found)} settings (single images {images:.3f}, batches "
                f"{batches:.3f}); {within(medians[who], medians[forecast]):.0%} within a factor of "
                f"{WRONG:g}"
            )
    for who in ("attack", "ideal"):
        print(
            f"client by client, the forecast given a gradient and the {who}: "
            f"{rank(single['given'], single[who]):.3f} over {len(single[who])} clients; "
            f"{within(single[who], single['given']):.0%} within a factor of {WRONG:g}"
        )
    stuck = int(np.sum(medians["attack"] > STUCK * medians["ideal"]))
    print(f"the attack's error is more than {STUCK:g} times the ideal's in {stuck} settings")
    words = [verdict(cell) for cell in cells]
    rows = [
        [str(setting), *(number(float(x)) for x in numbers), word]
        for setting, *numbers, word in zip(found, *medians.values(), words, strict=True)
    ]
    header = ["setting", *medians, ""]
    print(f"\n{table(header, [row for row in rows if row[-1] != 'right'] or [['none'] * 6])}")
    validation_figure(path, cells, [setting.model.activation != "relu" for setting in found])


def within(achieved: np.ndarray, forecast: np.ndarray) -> float:
    """Return which part of forecasts is right up to the factor that is called wrong."""
    return float(np.mean(np.abs(np.log10(achieved / forecast)) < np.log10(WRONG)))


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--settings", type=int, default=60, help="how many (60)")
    parser.add_argument("--first", type=int, default=FIRST, help=f"the first one's seed ({FIRST})")
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
