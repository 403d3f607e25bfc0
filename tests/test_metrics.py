"""Metrics: values worked out by hand or by trying all permutations, and their bad inputs."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
import torch

from tinyleak.metrics import (
    match_batch,
    mse,
    psnr,
    token_accuracy,
    wilson_interval,
)


def test_mse_is_one_number_an_image():
    a = np.zeros((2, 1, 2, 2))
    b = np.stack([np.full((1, 2, 2), 0.5), np.array([[[0.0, 0.0], [0.0, 0.2]]])])
    np.testing.assert_allclose(mse(a, b), [0.25, 0.01])


def test_mse_of_float32_and_of_bytes_is_computed_in_float64():
    value = mse(np.full((1, 4), 1e-30, np.float32), np.zeros((1, 4), np.float32))
    assert value.dtype == np.float64
    np.testing.assert_allclose(value, [1e-60], rtol=1e-6)
    np.testing.assert_allclose(mse(np.zeros((1, 1), np.uint8), np.ones((1, 1), np.uint8)), [1.0])


def test_psnr_in_decibels():
    truth = np.zeros((3, 1, 4, 4))
    found = truth + np.array([0.1, 0.0, 1.0]).reshape(3, 1, 1, 1)
    np.testing.assert_allclose(psnr(found, truth), [20.0, np.inf, 0.0], atol=1e-12)


def test_runaway_images_have_infinite_error_and_no_warning():
    found = np.array([[1e200, 0.0], [np.nan, 0.0], [np.inf, 0.0]])
    error = mse(found, np.zeros((3, 2)))
    assert error[0] == np.inf
    assert np.isnan(error[1])
    assert error[2] == np.inf
    assert psnr(found, np.zeros((3, 2)))[0] == -np.inf


@pytest.mark.parametrize("metric", [mse, psnr, match_batch])
@pytest.mark.parametrize(
    ("first", "second"),
    [((2, 1, 4, 4), (2, 1, 4, 5)), ((1, 4), (2, 4)), ((4,), (4,)), ((0, 4), (0, 4))],
)
def test_images_that_cannot_be_compared(metric, first, second):
    with pytest.raises(ValueError, match=r"two arrays of one shape \(N, \.\.\.\)"):
        metric(np.zeros(first), np.zeros(second))


def test_match_batch_undoes_a_shuffle(rng):
    truth = rng.random((8, 1, 5, 5))
    shuffle = rng.permutation(8)
    found = truth[shuffle] + rng.normal(0, 0.01, truth.shape)
    order = match_batch(found, truth)
    assert order.dtype == np.int64
    np.testing.assert_array_equal(shuffle[order], np.arange(8))
    assert mse(found[order], truth).max() < 1e-3


def test_match_batch_takes_the_smallest_total(rng):
    for _ in range(20):
        truth, found = rng.random((2, 4, 3))
        best = min(mse(found[list(order)], truth).sum() for order in permutations(range(4)))
        assert mse(found[match_batch(found, truth)], truth).sum() == pytest.approx(best, rel=1e-12)


def test_match_batch_is_not_the_greedy_choice():
    # 0.6 is nearest to 1.0, but giving it away leaves 0.0 with 2.0.
    truth, found = np.array([[0.0], [1.0]]), np.array([[0.6], [2.0]])
    np.testing.assert_array_equal(match_batch(found, truth), [0, 1])


@pytest.mark.parametrize("runaway", [np.nan, np.inf, 1e15, 1e200])
def test_match_batch_still_fits_the_good_images_when_others_ran_away(rng, runaway):
    # Where a pair cannot be compared, or its error is huge, the small errors must still count.
    for _ in range(50):
        truth = rng.random((6, 3))
        found = truth[rng.permutation(6)] + rng.normal(0, 0.3, truth.shape)
        lost = rng.permutation(6)[:2]
        found[lost] = runaway
        good = np.setdiff1d(np.arange(6), lost)
        best = min(
            mse(found[good], truth[list(chosen)]).sum() for chosen in permutations(range(6), 4)
        )
        order = match_batch(found, truth)
        fitted = np.isin(order, good)
        total = mse(found[order[fitted]], truth[fitted]).sum()
        assert total == pytest.approx(best, rel=1e-9)


def test_wilson_interval_solves_its_equation():
    # Its ends are the probabilities p at which the observed share is z standard errors away.
    low, high = wilson_interval(27, 40)
    for p in (low, high):
        assert abs(27 / 40 - p) / math.sqrt(p * (1 - p) / 40) == pytest.approx(1.959964, rel=1e-6)
    assert low < 27 / 40 < high


def test_wilson_interval_of_all_and_of_none():
    low, high = wilson_interval(300, 300)
    assert high == 1.0
    assert low == pytest.approx(1 / (1 + 1.959964**2 / 300), rel=1e-6)
    assert wilson_interval(0, 300) == pytest.approx((0.0, 1 - low))


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (-1, 4), (5, 4)])
def test_wilson_interval_of_no_proportion(successes, trials):
    with pytest.raises(ValueError, match=f"{successes} successes of {trials} trials"):
        wilson_interval(successes, trials)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95])
def test_wilson_interval_with_a_confidence_that_is_none(confidence):
    with pytest.raises(ValueError, match="is not between 0 and 1"):
        wilson_interval(1, 2, confidence)


@pytest.mark.parametrize("give", [np.asarray, torch.tensor, lambda a: np.asarray(a).tolist()])
def test_arrays_of_any_library_are_compared(give) -> None:
    found, truth = [[0.0, 1.0], [1.0, 1.0]], [[1.0, 1.0], [0.0, 0.5]]
    np.testing.assert_allclose(mse(give(found), give(truth)), [0.5, 0.625])
    assert match_batch(give(found), give(truth)).tolist() == [1, 0]
    assert token_accuracy(give([[1, 2]]), give([[1, 3]]), give([[True, True]])) == 0.5
