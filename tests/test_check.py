from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tinyleak import ops
from tinyleak.check import check_gradients
from tinyleak.tensor import Primitive, Tensor

X = np.array([[0.5, -1.0, 2.0], [1.5, 0.25, -0.75]])


def sine(rule: Callable[..., Any]) -> Primitive:
    """A primitive with a rule of our choice, which is not registered."""

    def forward(xp: Any, x: Any) -> Any:
        return xp.sin(x)

    made = Primitive(forward)
    made.rule(rule)
    return made


def cosine(x: Tensor) -> Tensor:
    return RIGHT(x + np.pi / 2)


RIGHT = sine(lambda g, out, x: (g * cosine(x),))
WRONG_AT = {
    1: sine(lambda g, out, x: (g * cosine(x) * 1.0001,)),
    # Right as a number; but a constant, so that the next order is lost.
    2: sine(lambda g, out, x: (g * Tensor(np.cos(x.data)),)),
    # cos x as √(1 − sin²x), with its last factor held constant.
    3: sine(lambda g, out, x: (g * first_two_right(x),)),
}

ONCE = sine(lambda g, out, x: (g * Tensor(np.cos(x.data)),))


def first_two_right(x: Tensor) -> Tensor:
    return ONCE(x + np.pi / 2)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_a_right_gradient_passes(order: int) -> None:
    check_gradients(RIGHT, [Tensor(X)], order=order, tolerance=1e-6)


def test_several_inputs_of_several_shapes() -> None:
    def function(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        return ops.sigmoid(a @ b) * c

    inputs = [Tensor(X), Tensor(X.T.copy()), Tensor(0.7)]
    check_gradients(function, inputs, order=3)


@pytest.mark.parametrize("wrong_at", [1, 2, 3])
def test_a_wrong_rule_is_caught_at_its_order_and_passes_below(wrong_at: int) -> None:
    function = WRONG_AT[wrong_at]
    if wrong_at > 1:
        check_gradients(function, [Tensor(X)], order=wrong_at - 1)
    with pytest.raises(AssertionError, match=f"the derivative of order {wrong_at} is wrong"):
        check_gradients(function, [Tensor(X)], order=3)


def test_an_error_in_one_element_of_many_is_caught() -> None:
    def rule(g: Tensor, out: Tensor, x: Tensor) -> tuple[Tensor]:
        error = np.zeros((2, 3))
        error[1, 2] = 1e-3
        return (g * (cosine(x) + error),)

    with pytest.raises(AssertionError, match="order 1 .* finite differences say"):
        check_gradients(sine(rule), [Tensor(X)], order=1)


def test_an_input_forgotten_is_caught() -> None:
    def function(a: Tensor, b: Tensor) -> Tensor:
        return a * ops.stop_gradient(b)

    with pytest.raises(AssertionError, match="order 1"):
        check_gradients(function, [Tensor(X), Tensor(X)])


def test_not_a_number_is_no_pass() -> None:
    with np.errstate(invalid="ignore"), pytest.raises(AssertionError, match="order 1"):
        check_gradients(ops.log, [Tensor(X)])


def test_the_default_order_is_two() -> None:
    with pytest.raises(AssertionError, match="order 2"):
        check_gradients(WRONG_AT[2], [Tensor(X)])
    check_gradients(WRONG_AT[3], [Tensor(X)])


def test_float32_is_refused() -> None:
    with pytest.raises(ValueError, match="was given float32 inputs; it needs float64 ones"):
        check_gradients(RIGHT, [Tensor(X), Tensor(X.astype(np.float32))])


def test_the_inputs_are_left_alone() -> None:
    kept = X.copy()
    check_gradients(RIGHT, [Tensor(X)], rng=np.random.default_rng(5))
    np.testing.assert_array_equal(X, kept)
