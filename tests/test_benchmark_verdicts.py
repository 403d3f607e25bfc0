"""The benchmark of verdicts makes the clients that it says it does, and counts what is wrong."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import situations  # noqa: E402  # the benchmarks are scripts, not a package
import verdicts  # noqa: E402
from situations import SITUATIONS, Setting  # noqa: E402

from tinyleak.client import Client  # noqa: E402

GOOD = verdicts.Row(
    name="MLP",
    seed=0,
    code=0,
    verdict="exact",
    mse=1e-9,
    expected_mse=None,
    certified=0,
    causes=[],
    right=[],
    clear=False,
    shown=1e-9,
    said="the gradient determines the image",
    seconds=1.0,
)


def test_what_is_right_is_not_counted() -> None:
    assert GOOD.there
    assert not GOOD.false_success
    assert not GOOD.false_clear
    assert GOOD.named is None
    assert not verdicts.lost(GOOD, {("MLP", 0): True})


def test_what_is_wrong_is_counted() -> None:
    other = replace(GOOD, mse=0.1)
    assert other.false_success
    assert replace(other, code=1).false_success  # called exact
    assert replace(other, verdict="consistent").false_success  # or by its exit code
    failed = replace(other, verdict="not explained", code=1)
    assert not failed.false_success
    assert replace(failed, certified=1).false_success
    assert verdicts.lost(failed, {("MLP", 0): True})
    assert not verdicts.lost(failed, {("MLP", 0): False})
    assert replace(failed, clear=True).false_clear
    assert not replace(failed, clear=True, shown=0.1).false_clear
    wrong = replace(failed, right=["noise"])
    assert wrong.named is False
    assert replace(wrong, causes=["loss", "noise"]).named is True
    assert replace(wrong, causes=["loss", "start", "noise"]).named is False
    assert replace(wrong, verdict="refused", said="noise is refused").named is True
    assert "1 false successes, 1 false all-clears" in verdicts.summary(
        [other, replace(failed, clear=True)], {}
    )


@pytest.mark.parametrize("name", [n for n in SITUATIONS if n.startswith("MLP, pixels")])
def test_images_are_judged_in_whatever_scale_they_come_back(tmp_path: Path, name: str) -> None:
    setting = SITUATIONS[name]
    made = situations.make(setting, 3, tmp_path)
    assert made.shown is not None
    np.testing.assert_allclose(made.shown, made.images, atol=1e-5)
    mean, deviation = situations.PIXELS[setting.pixels]
    for found in (made.images, (made.images - mean) / deviation):
        assert verdicts.judged(found, [True], made, setting)[0] < 1e-12
        assert verdicts.judged(0.5 * found, [True], made, setting)[1] == 1


def test_the_same_client_is_made_whatever_the_attacker_is_told(tmp_path: Path) -> None:
    plain, told = Setting(pixels="0.5,0.5"), SITUATIONS["LeNet, pixels normalised, said"]
    told = replace(told, model="mlp")
    first, again = (situations.make(one, 1, tmp_path) for one in (plain, told))
    np.testing.assert_array_equal(first.images, again.images)
    np.testing.assert_array_equal(first.shown, again.shown)
    assert again.arguments != first.arguments
    assert not np.array_equal(situations.make(plain, 2, tmp_path).images, first.images)


def test_clients_at_random_are_of_the_whole_space(tmp_path: Path) -> None:
    drawn = [situations.random_setting(np.random.default_rng(seed)) for seed in range(200)]
    for field in vars(Setting()):
        assert field == "told" or len({getattr(one, field) for one in drawn}) > 1, field
    for setting in drawn[:10]:
        made = situations.make(setting, 0, tmp_path)
        kind = {"weights_after": "shared"} if setting.update else {"gradients": "shared"}
        files = {flag: tmp_path / f"{name}.safetensors" for flag, name in kind.items()}
        known = {"model": setting.model, "shape": (1, 28, 28)}
        known |= {"learning_rate": setting.rate} if setting.update else {}
        client = Client.from_files(tmp_path / "weights.safetensors", **files, **known)
        assert client.model.classes == 10
        assert "--model" in made.arguments
