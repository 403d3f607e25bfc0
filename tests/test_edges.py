"""What stands at the edge of what a function takes: the mathematical answer, or one sentence."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tinyleak import Attacker, Client, Settings, cross_entropy, grad, nn, ops, simulate
from tinyleak.attacks.problem import length
from tinyleak.data import Dataset
from tinyleak.interop import called
from tinyleak.nn import MLP
from tinyleak.optim import levenberg_marquardt
from tinyleak.program import trace
from tinyleak.tensor import Tensor

EMPTY = Dataset("empty", np.zeros((0, 1, 2, 2)), np.zeros(0, int), 3)


def zeros(*shape: int) -> Tensor:
    return Tensor(np.zeros(shape))


@pytest.mark.parametrize("pool", [nn.avg_pool2d, nn.max_pool2d])
@pytest.mark.parametrize("name", ["kernel", "stride", "padding"])
def test_a_window_that_is_no_pair_is_answered_with_one_sentence(
    pool: Callable[..., Tensor], name: str
) -> None:
    asked: dict[str, Any] = {"kernel": (2, 2), name: 1}
    with pytest.raises(ValueError, match=f"the {name} is 1; give two numbers, down and across"):
        pool(zeros(1, 1, 4, 4), **asked)


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        (lambda: ops.pad(Tensor(2.0), []), 2.0),
        (lambda: ops.inner(zeros(2, 0), zeros(2, 0), 1), [0.0, 0.0]),
        (lambda: ops.inner(zeros(0, 2), zeros(0, 2), 1), []),
        (lambda: nn.avg_pool2d(zeros(0, 1, 4, 4), (2, 2)), np.zeros((0, 1, 2, 2))),
        (lambda: ops.take(Tensor([1.0, 2.0, 3.0]), [0, 2]), [1.0, 3.0]),
        (lambda: zeros(2, 0) @ zeros(0, 3), np.zeros((2, 3))),
        (lambda: ops.sum(zeros(2, 0), np.int64(1)), [0.0, 0.0]),
        (lambda: ops.sum(Tensor([[1.0, 2.0]]), np.array([0, 1])), 3.0),
        (lambda: ops.logsumexp(Tensor([math.inf, 1000.0, -math.inf])), [math.inf]),
    ],
)
def test_the_edge_has_an_answer(answer: Callable[[], Tensor], right: Any) -> None:
    np.testing.assert_array_equal(answer().data, right)


def test_a_crop_without_axes_has_a_gradient() -> None:
    x = Tensor(2.0)
    for part in (x[()], x[...], ops.crop(x, []), ops.pad(x, [])):
        assert float(grad(part * part, x)) == 4.0


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda: cross_entropy(zeros(0, 3), zeros(0, 3)), ValueError, "N, K ≥ 1"),
        (lambda: ops.concatenate([]), ValueError, "give at least one array"),
        (lambda: ops.stack([]), ValueError, "give at least one array"),
        (lambda: ops.sum(zeros(3), 1.0), ValueError, r"axis 1\.0 was given for a Tensor of 1 axes"),
        (
            lambda: grad(Tensor(1.0), 3),
            TypeError,
            "with respect to an int; give Tensors",
        ),
        (lambda: Tensor(object()), TypeError, "^an object of dtype object was given"),
        (lambda: trace(lambda x: x, object()), TypeError, "^an object of dtype object was given"),
        (lambda: trace(lambda x: 3, np.ones(2)), TypeError, "returned an int; it must"),
        (lambda: Attacker(seed=0.5), TypeError, "seed 0.5 was given"),
        (lambda: EMPTY.batch([0]), ValueError, "there is no image"),
        (EMPTY.consecutive, ValueError, "asks for image 0, but data 'empty' holds none"),
        (lambda: Dataset("none", np.zeros((1, 1, 2, 2)), [0], 0), ValueError, "0 classes were giv"),
        (
            lambda: Dataset("one", np.zeros((1, 1, 2, 2)), [0], 1).consecutive(0, 0),
            ValueError,
            "a batch of 0 images was asked for; give 1 or more",
        ),
    ],
)
def test_the_edge_has_a_sentence(
    call: Callable[[], Any], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence) as raised:
        call()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("value", "name"),
    [(3, "an int"), ([], "a list"), (object(), "an object"), (np.ones(1), "an ndarray")],
)
def test_an_article_is_right(value: Any, name: str) -> None:
    assert called(value) == name


def test_a_program_is_traced_for_and_called_on_whatever_holds_numbers() -> None:
    numbers = [1.0, 2.0, 3.0]
    for example in (np.array(numbers), numbers, Tensor(numbers)):
        program = trace(lambda x: x * 2.0, example)
        for given in (np.array(numbers), numbers, Tensor(numbers)):
            np.testing.assert_array_equal(program(given)[0], [2.0, 4.0, 6.0])


def test_a_program_is_not_called_while_another_is_traced() -> None:
    program = trace(lambda x: x * 2.0, np.ones(3))
    with pytest.raises(TypeError, match="being traced.*call the function that it was traced from"):
        trace(lambda x: program(x)[0], np.ones(3))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"line_search": "wolfe", "history": 0}, "line search 'wolfe' is unknown"),
        ({"history": 0}, "a history of 0 steps was asked for; give 1 or more"),
        ({"history": 2.5}, r"a history of 2\.5 steps .* \(a whole number is needed\)"),
        ({"iterations": -1}, "-1 iterations were asked for"),
        ({"iterations": True}, r"True iterations .* \(a whole number is needed\)"),
        ({"goal": math.nan}, "a goal of nan was asked for"),
        ({"goal": "small"}, "a goal of small was asked for"),
        ({"smoothness": math.nan}, "a smoothness of nan was asked for"),
        ({"smoothness": math.inf}, "a smoothness of inf was asked for"),
        ({"smoothness": None}, "a smoothness of None was asked for"),
    ],
)
def test_settings_check_themselves_when_they_are_made(
    settings: dict[str, Any], sentence: str
) -> None:
    with pytest.raises((ValueError, TypeError), match=sentence):
        Settings(**settings)


@pytest.mark.parametrize("scale", [1e-200, 1e-290, 1e200])
def test_a_gradient_too_small_or_large_to_be_squared_is_none_of_zeros(scale: float) -> None:
    model = MLP((1, 4, 4), 3, widths=(8,))
    client, _ = simulate(model, np.full((1, 1, 4, 4), 0.5), [1])
    shared = {name: scale * gradient for name, gradient in client.gradients.items()}
    assert length(shared) == pytest.approx(scale * length(client.gradients))
    again = Client.of(model, client.params, shared)
    assert length(again.gradients) == pytest.approx(length(client.gradients))


class Careless:
    """r = x − 3, by an author who writes to what he is given, and returns one array again."""

    def __init__(self) -> None:
        self.r = np.empty(2)

    def value(self, x: np.ndarray) -> np.ndarray:
        np.subtract(x, 3.0, out=self.r)
        x[...] = np.nan
        return self.r

    def slope(self, x: np.ndarray, r: np.ndarray) -> np.ndarray:
        slope = r.copy()
        x[...] = r[...] = np.nan
        return slope

    def gram(self, x: np.ndarray) -> np.ndarray:
        x[...] = np.nan
        return np.eye(2)


def test_least_squares_lends_nothing_of_its_own_and_takes_whole_numbers() -> None:
    for fit in levenberg_marquardt(Careless(), [1, 2]):
        last = fit.x.copy()
        fit.x[...] = np.nan
    np.testing.assert_allclose(last, 3.0)
    assert fit.reason == "stationary"
