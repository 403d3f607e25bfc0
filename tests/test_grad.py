from __future__ import annotations

import gc
import math
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from tinyleak import ops
from tinyleak.gradient import depending_on, grad, topological_order, vjp
from tinyleak.tensor import Primitive, Tensor

ARRAY = np.array([[0.5, -1.0, 2.0], [1.5, 0.25, -0.75]])


def derivative(function: Callable[[Tensor], Tensor], order: int, at: float) -> float:
    x = Tensor(at)
    y = function(x)
    for _ in range(order):
        (y,) = grad(y, [x])
    return float(y)


# What the gradient is.


def test_paths_that_meet_again_add_up() -> None:
    a = Tensor(3.0)
    b = a + a
    c = b + b
    assert [float(g) for g in grad(c, [a, b, c])] == [4, 2, 1]


def test_a_long_and_a_short_path_to_the_same_node() -> None:
    # Without a topological order, the node in the middle would hand on half of its gradient.
    x = Tensor(2.0)
    middle = x * x
    y = middle * ops.exp(ops.log(middle)) + middle
    assert float(grad(y, [x])[0]) == pytest.approx(4 * 2.0**3 + 2 * 2.0)


def test_what_y_does_not_depend_on_gets_zeros() -> None:
    x = Tensor(ARRAY)
    other = Tensor(np.ones((4, 1), dtype=np.float32))
    beyond = x * 2.0
    _, by_other, by_beyond = grad(ops.sum(x), [x, other, beyond])
    assert (by_other.shape, by_other.dtype) == ((4, 1), np.float32)
    assert not by_other.data.any()
    assert (by_beyond.shape, by_beyond.data.any()) == ((2, 3), False)


def test_by_itself_by_nothing_and_by_one_twice() -> None:
    y = ops.sum(Tensor(ARRAY))
    assert float(grad(y, [y])[0]) == 1
    assert grad(y, []) == ()
    first, second = grad(y * y, [y, y])
    assert float(first) == float(second) == 2 * float(y)


def test_one_tensor_and_a_mapping_are_answered_alike() -> None:
    x, y = Tensor(ARRAY), Tensor(2.0)
    z = ops.sum(x * x * y)
    by_x = grad(z, x)
    np.testing.assert_array_equal(by_x.data, 4 * ARRAY)
    named = grad(z, {"y": y, "x": x})
    assert list(named) == ["y", "x"]
    np.testing.assert_array_equal(named["x"].data, by_x.data)
    assert float(named["y"]) == np.square(ARRAY).sum()
    (listed,) = grad(z, iter([x]))
    np.testing.assert_array_equal(listed.data, by_x.data)


@pytest.mark.parametrize(
    ("x", "what"),
    [
        (ARRAY, "an ndarray"),
        (2.0, "a float"),
        (Tensor(np.arange(3)), "a Tensor of int64"),
        (Tensor([True]), "a Tensor of bool"),
    ],
    ids=["array", "number", "whole numbers", "mask"],
)
def test_what_has_no_gradient_is_refused(x: object, what: str) -> None:
    with pytest.raises(TypeError, match=f"with respect to {what}; give Tensors of floating"):
        grad(ops.sum(Tensor(ARRAY)), [x])


def test_by_a_result_on_the_way() -> None:
    x = Tensor(ARRAY)
    middle = ops.tanh(x)
    by_x, by_middle = grad(ops.sum(middle * middle), [x, middle])
    np.testing.assert_allclose(by_middle.data, 2 * middle.data)
    np.testing.assert_allclose(by_x.data, 2 * middle.data * (1 - middle.data**2))


def test_g_weights_the_elements_and_can_be_differentiated_by() -> None:
    x, g = Tensor(ARRAY), Tensor(ARRAY[::-1].copy())
    (given,) = grad(ops.exp(x), [x], g)
    (summed,) = grad(ops.sum(ops.exp(x) * g), [x])
    np.testing.assert_array_equal(given.data, summed.data)
    (by_g,) = grad(ops.sum(given), [g])
    np.testing.assert_array_equal(by_g.data, np.exp(ARRAY))


def test_float32_stays_float32_to_second_order() -> None:
    x = Tensor(ARRAY.astype(np.float32))
    (slope,) = grad(ops.mean(ops.sigmoid(x) * 3.0 - 1), [x])
    (curve,) = grad(ops.sum(slope * slope), [x])
    assert slope.dtype == curve.dtype == np.float32


def test_leaves_are_not_changed() -> None:
    before = ARRAY.copy()
    x = Tensor(ARRAY)
    for _ in range(2):
        (slope,) = grad(ops.sum(x * x), [x])
        np.testing.assert_array_equal(slope.data, 2 * before)
    np.testing.assert_array_equal(ARRAY, before)


# Higher orders.


@pytest.mark.parametrize("order", range(9))
def test_every_derivative_of_a_power(order: int) -> None:
    expected = math.perm(7, order) * 1.5 ** (7 - order) if order <= 7 else 0
    assert derivative(lambda x: x**7, order, 1.5) == pytest.approx(expected)


@pytest.mark.parametrize("order", range(6))
def test_every_derivative_of_an_exponential(order: int) -> None:
    expected = (-2) ** order * math.exp(-2 * 0.7)
    assert derivative(lambda x: ops.exp(-2.0 * x), order, 0.7) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "exp", "log", "sqrt", "softplus", "logsumexp"])
def test_the_fifth_derivative_is_pytorchs(name: str) -> None:
    ours: Callable[[Tensor], Tensor] = getattr(ops, name)
    theirs = {"softplus": torch.nn.functional.softplus}.get(name) or getattr(torch, name)
    if name == "logsumexp":

        def ours(x: Tensor) -> Tensor:
            pair = ops.concatenate([ops.reshape(x, (1,)), ops.reshape(x * x, (1,))])
            return ops.reshape(ops.logsumexp(pair), ())

        def theirs(x: torch.Tensor) -> torch.Tensor:
            return torch.logsumexp(torch.stack([x, x * x]), 0)

    at = torch.tensor(0.6, dtype=torch.float64, requires_grad=True)
    y = theirs(at)
    for _ in range(5):
        (y,) = torch.autograd.grad(y, [at], create_graph=True)
    assert derivative(ours, 5, 0.6) == pytest.approx(y.item(), rel=1e-9)


def test_mixed_derivatives_commute() -> None:
    x, y = Tensor(ARRAY), Tensor(ARRAY[0])
    z = ops.sum(ops.sigmoid(x * y) / (1.0 + x * x))
    u, v = Tensor(np.cos(ARRAY)), Tensor(np.sin(ARRAY[0]))
    by_x, by_y = grad(z, [x, y])
    (first,) = grad(ops.sum(by_x * u), [y])
    (second,) = grad(ops.sum(by_y * v), [x])
    assert float(ops.sum(first * v)) == pytest.approx(float(ops.sum(second * u)), rel=1e-12)


def test_several_results_are_pulled_back_at_once() -> None:
    x = Tensor(ARRAY)
    first = ops.sigmoid(x)
    second = first * x  # which depends on the first
    gs = {first: Tensor(np.cos(ARRAY)), second: Tensor(np.sin(ARRAY))}
    (together,) = vjp(gs, [x])
    apart = [grad(y, [x], g)[0].data for y, g in gs.items()]
    np.testing.assert_allclose(together.data, apart[0] + apart[1], rtol=1e-14)
    with pytest.raises(ValueError, match=r"g of shape \(\) for y of shape \(2, 3\)"):
        vjp({first: Tensor(1.0)}, [x])


# Errors that name the primitive.


def made_by(rule: Callable[..., Any] | None) -> Primitive:
    """A primitive `double` of two inputs with the given rule, which is not registered."""

    def double(xp: Any, x: Any, y: Any) -> Any:
        return 2 * x

    made = Primitive(double)
    if rule is not None:
        made.rule(rule)
    return made


@pytest.mark.parametrize(
    ("rule", "error", "message"),
    [
        (None, NotImplementedError, "double has no gradient rule; give it one with @double.rule"),
        (
            lambda g, out, x, y: (g,),
            TypeError,
            "the rule of double returned 1 gradients for 2 inputs",
        ),
        (lambda g, out, x, y: g, TypeError, "the rule of double returned no tuple of gradients"),
        (
            lambda g, out, x, y: (g[0], None),
            ValueError,
            r"rule of double returned a gradient of shape \(3,\) for an input of shape \(2, 3\)",
        ),
        (
            lambda g, out, x, y: (ops.concatenate([g, g]), None),
            ValueError,
            r"the rule of double returned a gradient of shape \(4, 3\)",
        ),
    ],
    ids=["missing", "wrong arity", "no tuple", "too few axes", "wrong length"],
)
def test_a_bad_rule_is_named(rule: Any, error: type[Exception], message: str) -> None:
    x = Tensor(ARRAY)
    y = made_by(rule)(x, Tensor(1.0))
    with pytest.raises(error, match=message):
        grad(ops.sum(y), [x])


def test_a_rule_may_answer_in_the_broadcast_shape() -> None:
    x = Tensor(1.5)
    triple = made_by(lambda g, out, x, y: (Tensor(np.ones((2, 3))), None))
    assert float(grad(triple(x, Tensor(0.0)), [x])[0]) == 6


def test_a_rule_is_not_asked_where_no_input_depends_on_x() -> None:
    x, constant = Tensor(ARRAY), Tensor(ARRAY)
    y = ops.sum(made_by(None)(constant, constant) * x)
    np.testing.assert_array_equal(grad(y, [x])[0].data, 2 * ARRAY)


def test_a_gradient_that_nobody_asked_for_is_not_computed() -> None:
    asked = []

    def rule(g: Tensor, out: Tensor, x: Tensor, y: Tensor) -> Any:
        return lambda: asked.append("x") or 2.0 * g, lambda: asked.append("y") or g

    x, y = Tensor(ARRAY), Tensor(ARRAY)
    (by_x,) = grad(ops.sum(made_by(rule)(x, y)), [x])
    np.testing.assert_array_equal(by_x.data, np.full((2, 3), 2.0))
    assert asked == ["x"]


def test_none_from_a_rule_is_no_gradient() -> None:
    x, y = Tensor(ARRAY), Tensor(ARRAY)
    z = made_by(lambda g, out, x, y: (2.0 * g, None))(x, y)
    by_x, by_y = grad(ops.sum(z), [x, y])
    assert by_x.data.tolist() == [[2] * 3] * 2
    assert by_y.data.tolist() == [[0] * 3] * 2


def test_what_is_no_scalar_is_refused() -> None:
    x = Tensor(ARRAY)
    with pytest.raises(ValueError, match=r"needs a scalar, not \(2, 3\): sum it first, or pass g"):
        grad(x * 2.0, [x])
    with pytest.raises(ValueError, match=r"g of shape \(3,\) for y of shape \(2, 3\)"):
        grad(x * 2.0, [x], Tensor(np.ones(3)))


# The order of the graph.


def test_the_order_lists_each_node_once_and_after_its_inputs() -> None:
    x = Tensor(ARRAY)
    y = ops.sigmoid(x)
    z = y * x + y
    order = topological_order(z, y)
    assert len(order) == len(set(order)) == 4
    place = {node: number for number, node in enumerate(order)}
    for node in order:
        assert all(place[x] < place[node] for x in node.inputs)
    assert depending_on([y], order) == {y, z, *z.inputs}


# Depth and memory.

DEPTH = 10_000


def test_a_chain_of_ten_thousand_nodes() -> None:
    x = Tensor(1.0)
    y = x
    for _ in range(DEPTH - 1):
        y = y * x
    (slope,) = grad(y, [x])
    (curve,) = grad(slope, [x])
    assert float(slope) == DEPTH
    assert float(curve) == DEPTH * (DEPTH - 1)
    alive = weakref.ref(y)
    del y, slope, curve  # a recursion here would crash the interpreter
    assert alive() is None


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Without the search for cycles, only what is referred to nowhere is given back."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def second_order_once() -> list[weakref.ref[Tensor]]:
    """Differentiate through most primitives twice; answer with every node, weakly."""
    image = Tensor(np.linspace(-1, 1, 2 * 6 * 6).reshape(1, 6, 6, 2))
    weight = Tensor(np.linspace(-0.5, 0.5, 3 * 3 * 2 * 4).reshape(18, 4))
    windows = ops.unfold(image, (3, 3), stride=(2, 2), padding=(1, 1))
    hidden = ops.sigmoid(ops.reshape(windows, (9, 18)) @ weight)
    scores = ops.max(hidden, 0) + ops.take(hidden, np.array([1, 1]))[0] * ops.softplus(hidden)[2]
    loss = ops.mean(ops.logsumexp(ops.tanh(scores) ** 2 / ops.sqrt(ops.exp(scores))))
    (slope,) = grad(loss, [weight])
    (curve,) = grad(ops.inner(slope, slope, 2), [image])
    return [weakref.ref(node) for node in topological_order(curve)]


@pytest.mark.usefixtures("no_collector")
def test_no_node_outlives_its_use() -> None:
    nodes = second_order_once()
    assert len(nodes) > 100
    assert [ref() for ref in nodes if ref() is not None] == []


def bytes_in_arrays() -> int:
    everything = tracemalloc.take_snapshot()
    only = tracemalloc.DomainFilter(inclusive=True, domain=np.lib.tracemalloc_domain)
    return sum(trace.size for trace in everything.filter_traces([only]).traces)


@pytest.mark.usefixtures("no_collector")
def test_repetition_does_not_grow() -> None:
    tracemalloc.start()
    try:
        second_order_once()
        before = bytes_in_arrays()
        for _ in range(10):
            second_order_once()
        assert bytes_in_arrays() <= before
    finally:
        tracemalloc.stop()


@pytest.mark.usefixtures("no_collector")
def test_no_cycle_is_left_for_the_collector() -> None:
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        second_order_once()
        gc.collect()
        assert [found for found in gc.garbage if isinstance(found, Tensor)] == []
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
