"""Every primitive four ways: its value, its gradient, its second order, and finite differences.

The first three are compared with PyTorch on the table of `primitive_cases.py`. Then what a replay
relies on (the kernels), every adjoint pair by ⟨A x, y⟩ = ⟨x, Aᵀ y⟩, extreme values,
and the messages for bad input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from primitive_cases import CASES, Case, gradients, on_device, second_order, weights

from tinyleak import ops
from tinyleak.check import check_gradients
from tinyleak.gradient import grad, topological_order
from tinyleak.program import trace
from tinyleak.program.kernels import IN_PLACE, KERNELS, LIBRARY, VIEWS, prepare
from tinyleak.program.library import Scratch
from tinyleak.tensor import PRIMITIVES, Tensor

LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "row-major": np.copy,
    "column-major": lambda a: a.copy(order="F"),
    "every other element": lambda a: np.stack([a, a + 1], axis=-1)[..., 0],
    "backwards": lambda a: a[..., ::-1].copy()[..., ::-1] if a.ndim else a,
}

each_case = pytest.mark.parametrize("case", CASES, ids=str)
each_layout = pytest.mark.parametrize("layout", LAYOUTS)


def torch_inputs(case: Case, dtype: torch.dtype) -> list[torch.Tensor]:
    return [torch.tensor(a, dtype=dtype, requires_grad=True) for a in case.arrays()]


def torch_value(case: Case, xs: Sequence[torch.Tensor]) -> torch.Tensor:
    return case.torchs(*xs, *map(torch.tensor, case.constants))


def torch_grad(y: torch.Tensor, xs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """torch.autograd.grad, with zeros where PyTorch has None or raises."""
    if not y.requires_grad:
        return [torch.zeros_like(x) for x in xs]
    found = torch.autograd.grad(y, xs, create_graph=True, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(xs, found, strict=True)]


def assert_same(ours: Sequence[Tensor], torchs: Sequence[torch.Tensor]) -> None:
    for mine, theirs in zip(ours, torchs, strict=True):
        assert mine.shape == tuple(theirs.shape)
        assert str(mine.dtype) == str(theirs.dtype).removeprefix("torch.")
        tight = mine.dtype == np.float64
        np.testing.assert_allclose(
            mine.numpy(),
            theirs.detach().numpy(),
            rtol=1e-11 if tight else 1e-5,
            atol=1e-12 if tight else 1e-5,
        )


# The package's own: a user, such as a test that was here before, may have registered others.
OWN = {name for name, one in PRIMITIVES.items() if one.forward.__module__.startswith("tinyleak.")}


def test_every_primitive_has_a_case() -> None:
    assert {case.primitive for case in CASES} == OWN


@each_case
def test_a_case_uses_its_primitive(case: Case) -> None:
    result = case.ours(*on_device(case.arrays()), *on_device(case.constants))
    names = {node.primitive.name for node in topological_order(result) if node.primitive}
    # A power of 1 or a reshape to the same shape may be left out; none of the rows is such a one.
    assert case.primitive in names


@each_case
@each_layout
def test_value_and_gradient(case: Case, layout: str) -> None:
    xs = on_device([LAYOUTS[layout](a) for a in case.arrays()])
    constants = on_device([LAYOUTS[layout](a) for a in case.constants])
    theirs = torch_inputs(case, torch.float64)
    y = torch_value(case, theirs)
    assert_same([case.ours(*xs, *constants)], [y])
    slopes = torch_grad((y * torch.tensor(weights(tuple(y.shape)))).sum(), theirs)
    assert_same(gradients(case, xs, constants), slopes)


@each_case
def test_value_and_gradient_stay_in_float32(case: Case) -> None:
    xs = on_device([a.astype(np.float32) for a in case.arrays()])
    constants = on_device(case.constants)
    theirs = torch_inputs(case, torch.float32)
    y = torch_value(case, theirs)
    assert_same([case.ours(*xs, *constants)], [y])
    weighted = y * torch.tensor(weights(tuple(y.shape)), dtype=torch.float32)
    assert_same(gradients(case, xs, constants), torch_grad(weighted.sum(), theirs))


@each_case
def test_second_order(case: Case) -> None:
    theirs = torch_inputs(case, torch.float64)
    y = torch_value(case, theirs)
    slopes = torch_grad((y * y * torch.tensor(weights(tuple(y.shape)))).sum(), theirs)
    along = [(s * torch.tensor(weights(tuple(s.shape), 9))).sum() for s in slopes]
    expected = torch_grad(torch.stack(along).sum(), theirs)
    assert_same(second_order(case, on_device(case.arrays()), on_device(case.constants)), expected)


@pytest.mark.parametrize("case", [case for case in CASES if case.smooth], ids=str)
def test_finite_differences_to_the_third_order(case: Case) -> None:
    constants = on_device(case.constants)

    def cubed(*xs: Tensor) -> Tensor:
        y = case.ours(*xs, *constants)
        return y * y * y  # so that no order is zero, even for a linear primitive

    check_gradients(cubed, on_device(case.arrays()), order=3)


# What a replay relies on, of every primitive in the graphs of every case's derivatives.


def nodes(case: Case) -> list[Tensor]:
    xs, constants = on_device(case.arrays()), on_device(case.constants)
    results = [
        case.ours(*xs, *constants),
        *gradients(case, xs, constants),
        *second_order(case, xs, constants),
    ]
    return [node for node in topological_order(*results) if node.primitive]


MEMORY: dict[str, Callable[[Tensor], np.ndarray]] = {
    "row-major": lambda like: np.empty(like.shape, like.dtype),
    "transposed": lambda like: np.empty(like.shape[::-1], like.dtype).T,
}


@each_case
@pytest.mark.parametrize("memory", MEMORY)
def test_prepared_calls_read_their_inputs_anew(case: Case, memory: str) -> None:
    for node in nodes(case):
        out = MEMORY[memory](node)
        arrays = tuple(np.zeros_like(x.data, order="C") for x in node.inputs)
        calls = prepare(node.primitive, Scratch(np), arrays, out, node.params)
        for _ in range(2):
            for array, x in zip(arrays, node.inputs, strict=True):
                np.copyto(array, x.data)
            out.fill(True if out.dtype == bool else 77)
            for call in calls:
                call()
            np.testing.assert_allclose(
                out, node.data, rtol=1e-12, atol=1e-13, err_msg=repr(node.primitive)
            )


@each_case
def test_the_buffer_may_be_an_input_in_place(case: Case) -> None:
    for node in nodes(case):
        if node.primitive.name not in IN_PLACE:
            continue
        for target in node.inputs:
            if (target.shape, target.dtype) != (node.shape, node.dtype):
                continue
            # One copy for each distinct input, as x · x has the same memory twice.
            copies = {x: np.array(x.data) for x in node.inputs}
            arrays = tuple(copies[x] for x in node.inputs)
            for call in prepare(node.primitive, Scratch(np), arrays, copies[target], node.params):
                call()
            np.testing.assert_allclose(
                copies[target], node.data, rtol=1e-13, err_msg=repr(node.primitive)
            )


def test_the_tables_of_kernels_name_primitives() -> None:
    computed = {*KERNELS, *LIBRARY}
    assert {"add", "multiply", "sigmoid"} <= IN_PLACE <= computed <= OWN
    assert OWN - computed <= VIEWS | {"raise_to"}


@pytest.mark.parametrize("name", sorted(VIEWS))
def test_a_view_shares_memory_with_its_input(name: str) -> None:
    seen = 0
    for case in CASES:
        for node in nodes(case) if case.primitive == name else []:
            if node.primitive.name == name:
                x = np.ascontiguousarray(node.inputs[0].data).reshape(node.inputs[0].shape)
                result = node.primitive.forward(np, x, **node.params)
                assert np.shares_memory(result, x)
                seen += 1
    assert seen


# Adjoint pairs: ⟨A x, y⟩ = ⟨x, Aᵀ y⟩, and the rule of A is that very Aᵀ.


def assert_adjoint(
    forward: Callable[[Tensor], Tensor], back: Callable[[Tensor], Tensor], shape: Sequence[int]
) -> None:
    rng = np.random.default_rng(3)
    x = Tensor(rng.standard_normal(shape))
    ax = forward(x)
    y = Tensor(rng.standard_normal(ax.shape))
    aty = back(y)
    assert aty.shape == x.shape
    left = float(np.sum(ax.data * y.data))
    assert left == pytest.approx(float(np.sum(x.data * aty.data)), rel=1e-12, abs=1e-12)
    (by_the_rule,) = grad(ops.sum(ax * y), [x])
    np.testing.assert_allclose(by_the_rule.data, aty.data, rtol=1e-12, atol=1e-13)


lengths = st.integers(1, 4)
shapes = st.lists(lengths, min_size=1, max_size=4).map(tuple)


@given(shapes, st.lists(lengths, max_size=2), st.data())
def test_broadcast_to_and_sum_to(
    shape: tuple[int, ...], new: list[int], data: st.DataObject
) -> None:
    small = tuple(data.draw(st.sampled_from([1, n])) for n in shape)
    large = (*new, *shape)
    assert_adjoint(
        lambda x: ops.broadcast_to(x, shape=large), lambda y: ops.sum_to(y, shape=small), small
    )
    assert_adjoint(
        lambda x: ops.sum_to(x, shape=small), lambda y: ops.broadcast_to(y, shape=large), large
    )


@given(shapes, st.randoms(use_true_random=False))
def test_reshape_and_reshape(shape: tuple[int, ...], random: object) -> None:
    other = list(shape)
    random.shuffle(other)
    for to in (other, (-1,), (1, *shape, 1)):
        assert_adjoint(lambda x, to=to: ops.reshape(x, to), lambda y: ops.reshape(y, shape), shape)


@given(shapes, st.data())
def test_transpose_and_its_inverse(shape: tuple[int, ...], data: st.DataObject) -> None:
    count = data.draw(st.integers(0, len(shape)))
    axes = data.draw(st.permutations(range(count)))
    inverse = np.argsort(axes).tolist()
    assert_adjoint(lambda x: ops.transpose(x, axes), lambda y: ops.transpose(y, inverse), shape)


@given(shapes, st.data())
def test_pad_and_crop(shape: tuple[int, ...], data: st.DataObject) -> None:
    count = data.draw(st.integers(0, len(shape)))
    width = st.integers(0, 3)
    widths = data.draw(st.lists(st.tuples(width, width), min_size=count, max_size=count))
    assert_adjoint(lambda x: ops.pad(x, widths), lambda y: ops.crop(y, widths), shape)
    padded = ops.pad(Tensor(np.zeros(shape)), widths).shape
    assert_adjoint(lambda x: ops.crop(x, widths), lambda y: ops.pad(y, widths), padded)


@given(shapes, st.data())
def test_index_and_laying_back(shape: tuple[int, ...], data: st.DataObject) -> None:
    key = []
    for n in shape[: data.draw(st.integers(0, len(shape)))]:
        start, stop = sorted(data.draw(st.tuples(st.integers(0, n - 1), st.integers(1, n))))
        part = slice(start, max(stop, start + 1), data.draw(st.integers(1, 3)))
        key.append(data.draw(st.sampled_from([part, start, start - n])))

    def lay_back(y: Tensor) -> Tensor:
        zeros = np.zeros(shape)
        zeros[tuple(key)] = y.data
        return Tensor(zeros)

    assert_adjoint(lambda x: x[tuple(key)], lay_back, shape)


@given(shapes, st.lists(lengths, min_size=1, max_size=3), st.data())
def test_concatenate_and_split(
    shape: tuple[int, ...], parts: list[int], data: st.DataObject
) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    whole = list(shape)
    whole[axis] = sum(parts)
    assert_adjoint(  # split, then joined in another order, against the reverse of that
        lambda x: ops.concatenate(ops.split(x, parts, axis)[::-1], axis),
        lambda y: ops.concatenate(ops.split(y, parts[::-1], axis)[::-1], axis),
        whole,
    )


@given(shapes, st.lists(lengths, max_size=2), st.data())
def test_take_and_scatter_add(
    shape: tuple[int, ...], places: list[int], data: st.DataObject
) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    indices = np.random.default_rng(4).integers(0, shape[axis], places)
    assert_adjoint(
        lambda x: ops.take(x, indices, axis),
        lambda y: ops.scatter_add(y, indices, axis, shape[axis]),
        shape,
    )
    taken = ops.take(Tensor(np.zeros(shape)), indices, axis).shape
    assert_adjoint(
        lambda x: ops.scatter_add(x, indices, axis, shape[axis]),
        lambda y: ops.take(y, indices, axis),
        taken,
    )


pairs = st.tuples(lengths, lengths)


@given(pairs, pairs, st.tuples(st.integers(0, 3), st.integers(0, 3)), pairs, st.integers(1, 3))
def test_unfold_and_fold(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    more: tuple[int, int],
    channels: int,
) -> None:
    # The smallest image that a window fits, and a little more, so that some pixels go unseen.
    size = tuple(max(1, k - 2 * p) + m - 1 for k, p, m in zip(kernel, padding, more, strict=True))
    settings = {"stride": stride, "padding": padding}
    image = (2, *size, channels)

    def unfold(x: Tensor) -> Tensor:
        return ops.unfold(x, kernel, **settings)

    def fold(y: Tensor) -> Tensor:
        return ops.fold(y, size, **settings)

    assert_adjoint(unfold, fold, image)
    assert_adjoint(fold, unfold, unfold(Tensor(np.zeros(image))).shape)


# Values at the ends of the floating-point range, without a warning.


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("ours", "torchs"),
    [
        (ops.sigmoid, torch.sigmoid),
        (ops.softplus, torch.nn.functional.softplus),
        (ops.tanh, torch.tanh),
        (ops.logsumexp, lambda x: torch.logsumexp(x, -1, keepdim=True)),
        (lambda x: ops.logsumexp(x, 0), lambda x: torch.logsumexp(x, 0, keepdim=True)),
    ],
    ids=["sigmoid", "softplus", "tanh", "logsumexp", "logsumexp of one"],
)
def test_extreme_values(
    ours: Callable[[Tensor], Tensor], torchs: Callable[[torch.Tensor], torch.Tensor], dtype: type
) -> None:
    values = np.array([[-1e30, -1000, -800, -100, 0, 100, 800, 1000]], dtype=dtype)
    theirs = torch.tensor(values, requires_grad=True)
    expected = torchs(theirs)
    (expected_slope,) = torch.autograd.grad(expected.sum(), [theirs])
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        x = Tensor(values)
        y = ours(x)
        (slope,) = grad(ops.sum(y), [x])
        (curve,) = grad(ops.sum(slope * slope), [x])
    assert np.isfinite(curve.data).all()
    np.testing.assert_allclose(y.data, expected.detach().numpy(), rtol=1e-6, atol=1e-37)
    np.testing.assert_allclose(slope.data, expected_slope.numpy(), rtol=1e-6, atol=1e-37)


INF = float("inf")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "values",
    [[-INF, -INF], [INF, 1.0], [-INF, 1.0], [INF, INF], [-INF, INF], [np.nan, 1.0], [-INF]],
    ids=str,
)
def test_logsumexp_of_infinities_is_pytorchs(values: list[float], dtype: type) -> None:
    theirs = torch.tensor(np.array(values, dtype), requires_grad=True)
    expected = torch.logsumexp(theirs, -1, keepdim=True)
    (slope,) = torch.autograd.grad(expected.sum(), [theirs])
    x = Tensor(np.array(values, dtype))
    y = ops.logsumexp(x)  # without a warning of NumPy's
    with np.errstate(all="ignore"):
        by_x = grad(ops.sum(y), x)
    np.testing.assert_array_equal(y.data, expected.detach().numpy())
    np.testing.assert_array_equal(by_x.data, slope.numpy())


@pytest.mark.parametrize("function", [ops.relu, ops.max, lambda x: ops.maximum(x, 0.0)])
def test_not_a_number_passes_through_maxima(function: Callable[[Tensor], Tensor]) -> None:
    x = np.array([1.0, np.nan, -1.0])
    expected = function(Tensor(np.array([1.0, np.nan, -1.0]))).data
    assert np.isnan(expected).any()
    assert not np.isnan(function(Tensor([1.0, -1.0])).data).any()
    np.testing.assert_array_equal(trace(function, x, check=False)(x)[0], expected)
    assert np.isnan(ops.maximum(Tensor(0.0), Tensor(x)).data[1])


# Kinks, where the convention is ours to state.


def slope_of(function: Callable[[Tensor], Tensor], x: list[float]) -> list[float]:
    at = Tensor(x)
    return grad(ops.sum(function(at)), [at])[0].data.tolist()


def test_relu_has_no_slope_at_zero() -> None:
    assert slope_of(ops.relu, [-1.0, 0.0, 2.0]) == [0, 0, 1]


def test_equal_maxima_share_the_gradient() -> None:
    assert slope_of(ops.max, [3.0, 1.0, 3.0]) == [0.5, 0, 0.5]


def test_the_second_of_two_equals_has_the_gradient_of_maximum() -> None:
    assert slope_of(lambda x: ops.maximum(x, 1.0), [1.0, 2.0]) == [0, 1]


def test_the_power_0_is_constant_everywhere() -> None:
    assert slope_of(lambda x: x**0, [0.0, 2.0]) == [0, 0]


def test_where_takes_numbers_on_either_side() -> None:
    x = Tensor(np.array([1.0, -2.0], dtype=np.float32))
    assert ops.where(x > 0, x, 0.0).data.tolist() == [1, 0]
    assert ops.where(x > 0, 5, x).data.tolist() == [5, -2]
    assert ops.where(x > 0, x, 0.0).dtype == np.float32


def test_arrays_without_elements() -> None:
    x = Tensor(np.zeros((0, 3)))
    y = ops.matmul(ops.sigmoid(x * 2.0), Tensor(np.ones((3, 2))))
    assert y.shape == (0, 2)
    assert float(ops.sum(y)) == 0
    assert grad(ops.sum(y), [x])[0].shape == (0, 3)
    assert ops.concatenate([x, Tensor(np.ones((1, 3)))]).shape == (1, 3)


def test_an_axis_of_length_0() -> None:
    x = Tensor(np.zeros((2, 0)))
    assert ops.inner(x, x, 1).data.tolist() == [0, 0]
    assert ops.inner(x, x, 2).data.tolist() == 0
    assert grad(ops.sum(ops.inner(x, x, 1)), x).shape == (2, 0)
    assert ops.reshape(x, (-1, 2)).shape == (0, 2)
    assert ops.sum(x, 1).data.tolist() == [0, 0]
    assert ops.unfold(Tensor(np.zeros((0, 3, 3, 1))), (2, 2)).shape == (0, 2, 2, 2, 2, 1)
    images = ops.fold(Tensor(np.zeros((0, 2, 2, 2, 2, 1))), (3, 3))
    assert images.shape == (0, 3, 3, 1)
    program = trace(lambda x: (ops.inner(x, x, 1), ops.concatenate([x, x])), x.data)
    assert [out.tolist() for out in program(x.data)] == [[0, 0], [[]] * 4]


def test_a_number_without_axes_is_padded_cropped_and_indexed() -> None:
    x = Tensor(2.0)
    for move in (lambda x: ops.pad(x, []), lambda x: ops.crop(x, []), lambda x: x[...]):
        assert move(x).data.tolist() == 2
        assert float(grad(move(x) * 3.0, x)) == 3
        assert trace(move, np.array(2.0))(np.array(5.0))[0].tolist() == 5
    assert x[None].shape == (1,)
    assert x.T.shape == ()


def test_an_inner_product_with_itself_has_twice_the_gradient() -> None:
    x = Tensor(np.random.default_rng(0).normal(size=(2, 3, 4)))
    squares = ops.inner(x, x, 2)
    (found,) = grad(ops.sum(squares * Tensor(np.array([1.0, -3.0]))), [x])
    np.testing.assert_allclose(found.data, 2 * x.data * np.array([1.0, -3.0])[:, None, None])
    check_gradients(lambda x: ops.tanh(ops.inner(x, x, 2)), [x], order=3)


@pytest.mark.parametrize("scratch", [1, 5_000, 10_000])
def test_fold_in_slices_is_the_same_as_at_once(
    scratch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fold(x: Tensor) -> Tensor:
        return ops.fold(ops.transpose(x, (0, 2, 1, 3, 4)), (4, 5), padding=(1, 0))

    windows = np.random.default_rng(0).normal(size=(3, 5, 5, 2, 4, 2, 3))
    (at_once,) = trace(fold, windows)(windows)
    np.testing.assert_allclose(at_once, fold(Tensor(windows)).data, rtol=1e-13)
    monkeypatch.setattr("tinyleak.program.folding.SCRATCH_BYTES", scratch)
    program = trace(fold, windows)
    np.testing.assert_array_equal(program(windows[::-1])[0], at_once[::-1])


def test_fold_of_windows_that_leave_gaps_is_zero_there() -> None:
    image = ops.fold(Tensor(np.ones((2, 2, 1, 1, 1))), (4, 4), stride=(3, 3))
    assert image.data[..., 0].tolist() == [[1, 0, 0, 1], [0] * 4, [0] * 4, [1, 0, 0, 1]]


# Bad input: one sentence that names the primitive, what was given and what to do.

A = Tensor(np.zeros((2, 3)))
IMAGE = Tensor(np.zeros((1, 4, 4, 2)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: ops.add(A, np.zeros(2)),
            r"add cannot combine float64 \(2, 3\) and float64 \(2,\)",
        ),
        (lambda: A @ A, r"matmul cannot combine float64 \(2, 3\) and float64 \(2, 3\)"),
        (lambda: A @ np.zeros(3), r"matmul .* needs two axes or more; reshape a vector"),
        (lambda: ops.inner(A, A, 3), r"inner over 3 axes was given \(2, 3\) and \(2, 3\)"),
        (lambda: ops.inner(A, A[0], 1), r"inner .* one shape with that many axes"),
        (
            lambda: ops.reshape(A, (4, 2)),
            r"reshape cannot combine float64 \(2, 3\), shape=\(4, 2\)",
        ),
        (lambda: ops.reshape(A, (4, -1)), r"reshape cannot combine"),
        (lambda: ops.reshape(A, (-1, -1)), r"reshape cannot combine"),
        (lambda: ops.broadcast_to(A, shape=(2, 4)), r"broadcast_to cannot combine .*\(2, 4\)"),
        (lambda: ops.sum_to(A, shape=(2, 2)), r"\(2, 2\) does not broadcast to \(2, 3\)"),
        (lambda: ops.sum_to(A, shape=(2, 3, 1)), r"does not broadcast to \(2, 3\)"),
        (lambda: ops.transpose(A, (0, 2)), r"transpose of \(2, 3\) was given axes \(0, 2\)"),
        (lambda: ops.transpose(A, (2, 1, 0)), r"k at most 2"),
        (lambda: ops.pad(A, [(0, -1)]), r"pad of \(2, 3\) .* non-negative \(before, after\)"),
        (lambda: ops.pad(A, [(0, 0)] * 3), r"pad of \(2, 3\) was given"),
        (lambda: ops.crop(A, [(2, 2)]), r"crop of \(2, 3\) .* no wider than they are"),
        (lambda: A[0, 0, 0], r"shape \(2, 3\) was indexed with \(0, 0, 0\); give at most 2"),
        (lambda: A[::-1], r"slices with positive steps"),
        (lambda: A[np.array([0])], r"arrays of indices go to ops.take"),
        (lambda: A[..., 0, ...], r"indexed with \(Ellipsis, 0, Ellipsis\)"),
        (lambda: A[True], r"indexed with True"),
        (lambda: ops.concatenate([A, A[:, :2]]), r"concatenate cannot combine .*\(2, 3\) and"),
        (lambda: ops.concatenate([A, A], axis=2), r"axis 2 is out of bounds"),
        (lambda: ops.split(A, [1, 1], axis=1), r"lengths \[1, 1\]; they must add up to 3"),
        (lambda: ops.split(A, [3], axis=2), r"axis 2 was given for a Tensor of 2 axes"),
        (lambda: ops.take(A, np.array([0, 2])), r"indices from 0 to 2 .* lie in \[0, 2\)"),
        (lambda: ops.take(A, np.array([-1])), r"indices from -1 to -1 were given"),
        (lambda: ops.take(A, np.array([0.0])), r"float64 were given; whole numbers"),
        (lambda: ops.take(A, np.array([0]), axis=2), r"axis 2 was given"),
        (lambda: ops.scatter_add(A, np.array([0, 5]), 0, 5), r"lie in \[0, 5\)"),
        (lambda: ops.scatter_add(A, np.array([0]), 0, 5), r"given indices of shape \(1,\)"),
        (lambda: ops.scatter_add(A, np.array([0, 1]), 2, 5), r"axis 2 was given"),
        (lambda: ops.sum(A, 2), r"axis 2 was given for a Tensor of 2 axes"),
        (lambda: ops.mean(A, (0, -2)), r"axes \(0, -2\) name one axis .* twice"),
        (lambda: ops.max(A, -3), r"axis -3 was given"),
        (lambda: ops.max(A[:0]), r"amax cannot combine float64 \(0, 3\)"),
        (lambda: ops.mean(A[:, :0], 1), r"mean of \(2, 0\) over axes 1 has no elements"),
        (lambda: ops.stack([A, A[0]]), r"concatenate cannot combine"),
        (lambda: ops.stack([A, A], 3), r"axis 3 was given for a Tensor of 3 axes"),
        (lambda: ops.concatenate([]), r"concatenate cannot combine .*at least one array"),
        (lambda: ops.unfold(A, (1, 1)), r"unfold needs images \(…, H, W, C\), not \(2, 3\)"),
        (lambda: ops.unfold(IMAGE, (5, 1)), r"window of \(5, 1\) does not fit .*\(4, 4\)"),
        (lambda: ops.unfold(IMAGE, (0, 1)), r"kernel \(0, 1\).* at least 1"),
        (lambda: ops.unfold(IMAGE, (1, 1), stride=(0, 1)), r"stride \(0, 1\).* at least 1"),
        (lambda: ops.unfold(IMAGE, (1, 1), padding=(-1, 0)), r"padding \(-1, 0\).* at least 0"),
        (lambda: ops.fold(IMAGE, (4, 4)), r"fold needs windows \(…, oH, oW, kH, kW, C\)"),
        (
            lambda: ops.fold(ops.unfold(IMAGE, (2, 2)), (5, 4)),
            r"fold was given \(3, 3\) windows, but an image of \(5, 4\) .* has \(4, 3\)",
        ),
    ],
)
def test_bad_input_is_named(call: Callable[[], Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
