"""The validation of the audit: its settings, its verdicts, the attacker it holds the audit to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tinyleak.client import Truth, simulate
from tinyleak.nn import MLP, LeNet

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import audit as validation  # noqa: E402  # the benchmarks are scripts, not a package

SMALL = LeNet((1, 6, 6), 3, hidden=3)


def cell(forecast: float, attack: float, ideal: float) -> dict[str, np.ndarray]:
    """Three clients, of which the middle one counts."""
    numbers = {"given": forecast, "attack": attack, "ideal": ideal}
    return {name: np.array([number / 1e3, number, 1.0]) for name, number in numbers.items()}


def posterior(variance: float, images: np.ndarray) -> validation.Posterior:
    client, truth = simulate(SMALL, images, [0, 2], seed=1)
    return validation.Posterior(client, truth.labels, variance, 0.1, np.full((1, 6, 6), 0.5))


def test_settings_are_of_every_kind_and_drawn_again_alike() -> None:
    settings = [validation.Setting.drawn(seed) for seed in range(60)]
    assert settings == [validation.Setting.drawn(seed) for seed in range(60)]
    assert {type(one.model) for one in settings} == {LeNet, MLP}
    activations = {"sigmoid", "tanh", "softplus", "relu"}
    assert {one.model.activation for one in settings} == activations
    assert {one.batch for one in settings} == {1, 2, 4}
    assert {(one.init, one.trained) for one in settings} == {
        (init, trained) for init in ("uniform", "default") for trained in (False, True)
    }
    assert 0 < sum(one.noise == 0 for one in settings) < 30


@pytest.mark.parametrize(
    ("found", "word"),
    [
        (cell(1e-5, 2e-5, 1e-5), "right"),
        (cell(1e-5, 0.1, 2e-5), "attack stuck"),
        (cell(1e-5, 1e-2, 1e-2), "forecast wrong"),
        (cell(1e-2, 1e-5, 1e-5), "forecast wrong"),
        (cell(1e-2, 2e-2, 1e-5), "ideal better"),
    ],
)
def test_a_forecast_is_wrong_only_where_the_ideal_misses_it_too(found: dict, word: str) -> None:
    assert validation.verdict(found) == word


def test_the_residual_has_its_jacobian(rng: np.random.Generator) -> None:
    residual = posterior(1e-4, rng.random((2, 1, 6, 6)))
    x, step = rng.random(72), 1e-6
    steps = step * np.eye(72)
    columns = [(residual.value(x + s) - residual.value(x - s)) / (2 * step) for s in steps]
    jacobian, r = np.stack(columns, axis=1), residual.value(x)
    gram, slope = jacobian.T @ jacobian, jacobian.T @ r
    atol = 1e-6 * np.abs(gram).max()
    np.testing.assert_allclose(residual.gram(x), gram, rtol=0, atol=atol)
    np.testing.assert_allclose(residual.slope(x, r), slope, atol=1e-6 * np.abs(slope).max())


def test_without_much_noise_the_truth_is_most_probable_and_explained(
    rng: np.random.Generator,
) -> None:
    truth = rng.random((2, 1, 6, 6))
    residual = posterior(1e-12, truth)
    value, images = residual.most_probable(truth)
    assert residual.explains(value)
    assert not residual.explains(float(np.square(residual.value(np.full(72, 0.5))).sum()))
    # In whichever order they come.
    assert validation.error(Truth(images, [0, 2]), truth[::-1]) < 1e-6


class Levels:
    """A posterior whose value is where a search starts, and that 1 explains."""

    def most_probable(self, start: np.ndarray, **bounds: float) -> tuple[float, np.ndarray]:
        return float(start), start

    def explains(self, value: float) -> bool:
        return value <= 1


@pytest.mark.parametrize(
    ("starts", "more", "found", "left"),
    [([3, 1], [0], 1, [0]), ([3, 2], [4, 1, 0], 1, [0]), ([3, 2], [4, 3], 2, [])],
)
def test_an_attack_goes_on_until_noise_explains_what_is_left(
    starts: list[int], more: list[int], found: int, left: list[int]
) -> None:
    ahead = map(np.array, more)
    assert validation.attacked(Levels(), [np.array(x) for x in starts], ahead) == found  # type: ignore[arg-type]
    assert list(ahead) == left


def test_a_quick_run_is_kept_and_reported(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "audit.py"), "--quick", "--results", str(tmp_path)]
    first = subprocess.run(command, capture_output=True, text=True, check=False)
    assert first.returncode == 0, first.stderr
    again = subprocess.run([*command, "--report"], capture_output=True, text=True, check=False)
    assert (tmp_path / "audit.png").read_bytes().startswith(b"\x89PNG")
    assert "Spearman's rank correlation" in first.stdout
    assert again.stdout == first.stdout
    assert again.stderr == ""
