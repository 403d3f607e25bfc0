"""A program against the eager engine: what it computes, what it refuses, what it simplifies.

Eager evaluation is the reference. A replay may differ from it by rounding alone, where a sum is
taken in another order or constants were joined.
"""

from __future__ import annotations

import copy
import dataclasses
import pickle
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from itertools import chain, count

import numpy as np
import pytest
from cuda_cases import unknowns
from hypothesis import given, settings
from hypothesis import strategies as st
from primitive_cases import CASES, Case, on_device, weights

from tinyleak import ops
from tinyleak.attacks import Matching
from tinyleak.gradient import grad
from tinyleak.nn import MLP, LeNet
from tinyleak.nn.criteria import one_hot
from tinyleak.nn.layers import flatten
from tinyleak.nn.model import Model
from tinyleak.program import CapturedProgram, Program, TraceError, load_program, trace
from tinyleak.program.rewrites import REWRITES
from tinyleak.tensor import Tensor
from tinyleak.transforms import copies

Arrays = Sequence[np.ndarray]
Function = Callable[..., "Tensor | tuple[Tensor, ...]"]


def eagerly(function: Function, arrays: Arrays) -> list[np.ndarray]:
    answer = function(*(Tensor(array.copy()) for array in arrays))
    return [out.numpy() for out in (answer if isinstance(answer, tuple) else (answer,))]


def assert_close(found: Arrays, expected: Arrays, tolerance: float) -> None:
    """Equal up to `tolerance` of the largest number expected (or of 1), output by output."""
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.dtype == theirs.dtype
        assert mine.shape == theirs.shape
        scale = float(np.abs(theirs).max(initial=1.0))
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=tolerance * scale)


def poison(program: Program) -> None:
    """Overwrite every buffer: what a replay needs it must compute, or get as an argument."""
    for buffer in chain(program.inputs, (line.out for line in program.instructions)):
        buffer.fill(np.nan if buffer.dtype.kind == "f" else True)


def assert_written_over_only_in_place(program: Program) -> None:
    """An instruction may write over what it reads only element by element, where each lies."""
    for line in program.instructions:
        for read in line.reads:
            if np.shares_memory(line.out, read):
                places = [(a.ctypes.data, a.shape, a.strides) for a in (line.out, read)]
                assert places[0] == places[1], line


def assert_replays(
    function: Function, draws: Sequence[Arrays], tolerance: float = 1e-12, *, check: bool = True
) -> Program:
    """Trace on the first draw; replay on all of them, twice each, between poisoned buffers."""
    program = trace(function, *draws[0], check=check)
    assert_written_over_only_in_place(program)
    loaded = load_program(program.export())
    for arrays in (*draws[1:], draws[0]):
        given = [array.copy() for array in arrays]
        found = program(*given)
        for array, before in zip(given, arrays, strict=True):
            np.testing.assert_array_equal(array, before)
        assert_close(found, eagerly(function, arrays), tolerance)
        poison(program)
        for again, first in zip(program(*given), found, strict=True):
            np.testing.assert_array_equal(again, first)
        poison(program)
        for elsewhere, first in zip(loaded(*given), found, strict=True):
            assert elsewhere.tobytes() == first.tobytes(), "exported and loaded, bit for bit"
    return program


def normal(*shapes: tuple[int, ...], seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [np.asarray(rng.standard_normal(shape)) for shape in shapes]


def traced(function: Function, *shapes: tuple[int, ...]) -> Program:
    """A program that was seen to be right."""
    return assert_replays(function, [normal(*shapes, seed=seed) for seed in range(3)])


# Every primitive.


def value(y: Tensor, xs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return (y,)


def gradients(y: Tensor, xs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return grad(ops.sum(y * Tensor(weights(y.shape))), xs)


def second_order(y: Tensor, xs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    slopes = gradients(y * y, xs)
    return grad(ops.sum(slopes[0] * Tensor(weights(slopes[0].shape, 9))), xs)


@pytest.mark.parametrize("order", [value, gradients, second_order], ids=lambda f: f.__name__)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_primitive_and_its_gradients(case: Case, order: Function) -> None:
    constants = on_device(case.constants)
    rng = np.random.default_rng(1)
    draws = [[np.asarray(case.draw(rng, shape)) for shape in case.shapes] for _ in range(3)]
    assert_replays(lambda *xs: order(case.ours(*xs, *constants), xs), draws)


# The attack.


def matching(
    model: Model, attacks: int, batch: int, dtype: str, *, stacked: bool, known: bool
) -> Matching:
    rng = np.random.default_rng(5)
    lead = (attacks,) if stacked else ()
    params = {k: rng.uniform(-0.5, 0.5, (*lead, *shape)) for k, shape in model.shapes.items()}
    shared = {k: rng.standard_normal((*lead, *shape)) for k, shape in model.shapes.items()}
    labels = one_hot(rng.integers(model.classes, size=(*lead, batch)), model.classes, dtype)
    return Matching(
        model,
        {name: array.astype(dtype) for name, array in params.items()},
        {name: array.astype(dtype) for name, array in shared.items()},
        batch,
        rng.uniform(0.5, 2.0, lead).astype(dtype) if stacked else np.array(0.5, dtype),
        labels if known else None,
    )


def assert_objective_replays(objective: Matching, attacks: int, dtype: str) -> Program:
    rng = np.random.default_rng(6)
    draws = [[rng.standard_normal((attacks, unknowns(objective))).astype(dtype)] for _ in range(3)]
    # In float32 a pixel near 0 may be on one side of a relu here and on the other there.
    tolerance = 1e-12 if dtype == "float64" else 1e-2
    return assert_replays(objective.value_and_gradient, draws, tolerance, check=False)


@pytest.mark.parametrize("known", [False, True], ids=["free labels", "known labels"])
@pytest.mark.parametrize("stacked", [False, True], ids=["common weights", "stacked weights"])
@pytest.mark.parametrize("attacks", [1, 3])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("squash", ["sigmoid", "tanh", "softplus", "relu"])
def test_the_attack_on_lenet(
    squash: str, dtype: str, batch: int, attacks: int, stacked: bool, known: bool
) -> None:
    # Of the paper's size with the paper's activation: another replaces one instruction by another.
    shape = (1, 28, 28) if squash == "sigmoid" else (1, 12, 12)
    model = LeNet(shape, activation=squash)
    objective = matching(model, attacks, batch, dtype, stacked=stacked, known=known)
    assert_objective_replays(objective, attacks, dtype)


@pytest.mark.parametrize("stacked", [False, True], ids=["common weights", "stacked weights"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("squash", ["sigmoid", "tanh", "softplus", "relu"])
def test_the_attack_on_an_mlp(squash: str, dtype: str, stacked: bool) -> None:
    model = MLP((1, 6, 6), classes=4, activation=squash, widths=(9, 7))
    objective = matching(model, 3, 2, dtype, stacked=stacked, known=False)
    assert_objective_replays(objective, 3, dtype)


def test_the_attack_on_a_colour_image() -> None:
    model = LeNet((3, 11, 14), classes=5)
    assert_objective_replays(
        matching(model, 2, 2, "float64", stacked=False, known=False), 2, "float64"
    )


def test_lenets_program_is_short_and_uses_its_buffers_again() -> None:
    objective = matching(LeNet(), 1, 1, "float64", stacked=False, known=False)
    program = trace(objective.value_and_gradient, np.zeros((1, 794)))
    assert len(program.instructions) < 180
    values = sum(line.out.nbytes for line in program.instructions)
    assert program.buffer_bytes < 0.6 * values
    merged, dead = program.removed["merge equal nodes"], program.removed["dead: no output needs it"]
    assert merged > 0
    assert dead > 0


def test_one_graph_has_one_layout() -> None:
    def layout(program: Program) -> list[int]:
        """Which piece of memory each instruction writes, numbered as they come."""
        pieces: dict[int, int] = {}
        return [
            pieces.setdefault(id(owner(line.out)), len(pieces)) for line in program.instructions
        ]

    objective = matching(LeNet(), 1, 1, "float64", stacked=False, known=False)
    start = np.zeros((1, 794))
    programs = [trace(objective.value_and_gradient, start, check=False) for _ in range(12)]
    layouts = [layout(program) for program in programs]
    assert layouts[1:] == layouts[:-1]


def owner(array: np.ndarray) -> np.ndarray:
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


# What goes in and what comes out.


def test_results_are_copies() -> None:
    program = trace(lambda x: (x, ops.exp(x), ops.transpose(ops.exp(x), (1, 0))), np.zeros((2, 3)))
    first = program(np.ones((2, 3)))
    kept = [out.copy() for out in first]
    for out in program(np.full((2, 3), 5.0)):
        out.fill(-1)
    for out, before in zip(first, kept, strict=True):
        np.testing.assert_array_equal(out, before)
    for out, before in zip(program(np.ones((2, 3))), kept, strict=True):
        np.testing.assert_array_equal(out, before)


def test_an_output_may_be_an_input_a_constant_or_given_twice() -> None:
    seven = Tensor(np.full(3, 7.0))
    program = traced(lambda x, y: (x, seven, y, x * y, x * y, seven + seven), (3,), (3,))
    assert len(program.instructions) == 1


def test_an_input_may_be_of_no_use() -> None:
    traced(lambda x, y: y * 2.0, (2,), (40,))
    traced(lambda x, y: Tensor(np.ones(3)), (3,), (4,))


def test_an_input_that_is_read_late_keeps_its_numbers() -> None:
    def function(x: Tensor, y: Tensor) -> Tensor:
        return ops.tanh(ops.sum(ops.exp(ops.tanh(x)), 0, keepdims=True)) + y

    assert_replays(function, [normal((4, 5), (4, 5), seed=seed) for seed in range(3)], check=False)


def test_an_argument_may_lie_anyhow_in_memory() -> None:
    (x,) = normal((4, 6))
    program = trace(lambda x: ops.exp(x) @ ops.transpose(x, (1, 0)), x)
    expected = program(x)[0]
    np.testing.assert_array_equal(program(np.asfortranarray(x))[0], expected)
    np.testing.assert_array_equal(program(np.repeat(x, 2, axis=1)[:, ::2])[0], expected)


def test_numbers_without_axes() -> None:
    traced(lambda x, y: x * y + ops.exp(x), (), ())
    assert trace(lambda x: x * 2.0, np.float32(3))(np.float32(4))[0].dtype == np.float32


def test_masks_and_whole_numbers() -> None:
    program = traced(lambda x, y: (x > y, (x > y) * 1.0, (x > y) * y), (3, 4), (4,))
    assert [out.dtype for out in program.outputs] == [bool, float, float]
    doubled = trace(lambda i: (i + i, (i * i) * 0.5), np.arange(3))
    whole, halves = doubled(np.array([5, 6, 7]))
    np.testing.assert_array_equal(whole, [10, 12, 14])
    np.testing.assert_array_equal(halves, [12.5, 18.0, 24.5])


def test_numbers_that_overflow_overflow_in_the_program_too() -> None:
    x = np.array([-1.0, 0.5, 1e4])

    def function(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return ops.exp(x), ops.log(x), ops.exp(x) - ops.exp(x)

    with np.errstate(all="ignore"):
        program = trace(function, x, check=False)
        for mine, theirs in zip(program(x), eagerly(function, [x]), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-15)


def test_zero_and_minus_zero_are_different_constants() -> None:
    program = trace(lambda x: (x * 0.0, x * -0.0), np.ones(2))
    positive, negative = program(np.ones(2))
    assert not np.signbit(positive).any()
    assert np.signbit(negative).all()


def test_arrays_that_the_function_closed_over_are_copied() -> None:
    weights, row = np.arange(6.0).reshape(2, 3), np.arange(3.0)
    spread = np.broadcast_to(row, (4, 3))
    turned = Tensor(weights.T)

    def function(x: Tensor) -> tuple[Tensor, ...]:
        return x @ Tensor(weights), x @ ops.swap_last_axes(turned), Tensor(spread) * 2.0, turned

    x = np.ones((4, 2))
    program = trace(function, x)
    expected = [out.copy() for out in program(x)]
    weights[:], row[:] = 7, 8
    for mine, theirs in zip(program(x), expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_constant_that_is_only_broadcast_stays_so() -> None:
    large = np.broadcast_to(np.arange(4.0), (1000, 4))
    program = trace(lambda x: x * Tensor(large), np.ones((1000, 4)))
    (read,) = [array for array in program.instructions[0].reads if array.strides[0] == 0]
    np.testing.assert_array_equal(read, large)


def test_a_choice_is_made_bit_by_bit_or_between_two_dtypes() -> None:
    x = np.array([1.0, -1.0, np.nan, np.inf, -0.0])
    program = trace(lambda x: ops.where(x > 0.0, 0.0, x), np.zeros(5))
    assert program(x)[0].tobytes() == np.array([0.0, -1.0, np.nan, 0.0, -0.0]).tobytes()
    counts = Tensor(np.arange(5))
    mixed = trace(lambda x: ops.where(x > 0.0, counts, Tensor(np.full(5, 0.5))), np.zeros(5))
    np.testing.assert_array_equal(mixed(x)[0], [0.0, 0.5, 0.5, 3.0, 0.5])


def test_a_mask_in_a_sum_counts() -> None:
    (count,) = trace(lambda x: ops.sum(x > 0.0), np.zeros(3))(np.array([1.0, -1.0, 2.0]))
    assert (count, count.dtype) == (2, np.float64)


# What is refused.


@pytest.mark.parametrize("copy", [copy.copy, copy.deepcopy, pickle.dumps], ids=lambda f: f.__name__)
def test_a_program_is_not_copied(copy: Callable[[object], object]) -> None:
    program = trace(lambda x: x * 2.0, np.ones(3))
    with pytest.raises(TypeError, match="cannot be copied or pickled.*trace the function again"):
        copy(program)
    with pytest.raises(TypeError, match="cannot be copied or pickled"):
        copy(CapturedProgram(program, None, None, []))


def test_a_second_thread_is_refused_and_the_first_goes_on() -> None:
    program = trace(ops.exp, np.ones(3))
    inside, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        inside.set()
        go_on.wait()

    slow = dataclasses.replace(program, calls=(wait, *program.calls))
    results: list[np.ndarray] = []
    first = threading.Thread(target=lambda: results.extend(slow(np.zeros(3))))
    first.start()
    inside.wait()
    for other in (slow, program):  # they share their buffers
        with pytest.raises(RuntimeError, match="once for each thread"):
            other(np.ones(3))
    go_on.set()
    first.join()
    np.testing.assert_array_equal(results[0], np.ones(3))
    np.testing.assert_array_equal(program(np.zeros(3))[0], np.ones(3))


def test_a_call_that_fails_leaves_the_program_usable() -> None:
    program = trace(lambda x: x * 2.0, np.ones(3))
    with pytest.raises(ValueError, match="trace it again"):
        program(np.ones(4))
    np.testing.assert_array_equal(program(np.ones(3))[0], [2, 2, 2])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ([np.zeros((2, 3))], "takes 2 arrays, not 1"),
        ([np.zeros((2, 3)), np.zeros(3), np.zeros(3)], "takes 2 arrays, not 3"),
        (
            [np.zeros((2, 3)), np.zeros(4)],
            r"was traced for float64 \(3,\) and was given float64 \(4,\); trace it again",
        ),
        (
            [np.zeros((2, 3)), np.zeros((1, 3))],
            r"was traced for float64 \(3,\) and was given float64 \(1, 3\)",
        ),
        (
            [np.zeros((2, 3), np.float32), np.zeros(3)],
            r"was traced for float64 \(2, 3\) and was given float32 \(2, 3\); trace it again",
        ),
    ],
)
def test_other_arrays_than_were_traced_are_refused(arrays: Arrays, message: str) -> None:
    program = trace(lambda x, y: x * y, np.zeros((2, 3)), np.zeros(3))
    with pytest.raises(ValueError, match=message):
        program(*arrays)


LOOKING: dict[str, Function] = {
    "data": lambda x: -x if x.data.sum() > 0 else x,
    "bool": lambda x: -x if ops.sum(x) > 0 else x,
    "float": lambda x: x * float(ops.sum(x)),
    "numpy": lambda x: x * Tensor(x.numpy()),
    "an array": lambda x: x * Tensor(np.asarray(x)),
    "in": lambda x: -x if 1.0 in x else x,
    "equality": lambda x: -x if ops.sum(x) == 3.0 else x,
    "an index": lambda x: ops.take(Tensor(np.zeros(3)), x),
    "the gradient": lambda x: -x if grad(ops.sum(x * x), [x])[0].data[0] > 0 else x,
}


@pytest.mark.parametrize("name", LOOKING)
def test_a_function_that_looks_at_numbers_is_refused(name: str) -> None:
    with pytest.raises(TraceError, match="looked at the numbers of a Tensor made by .* use where"):
        trace(LOOKING[name], np.ones(3))


def test_the_message_names_the_primitive() -> None:
    with pytest.raises(TraceError, match="made by multiply"):
        trace(lambda x: x if bool(ops.reshape(x, ()) * 2.0) else -x, np.ones(1))
    with pytest.raises(TraceError, match="made by an input"):
        trace(lambda x: x * float(x), np.array(1.0))


def test_a_function_that_keeps_a_tensor_is_refused() -> None:
    kept: list[Tensor] = []

    def keeps_a_result(x: Tensor) -> Tensor:
        kept.append(x * x)
        return x + 1.0

    def keeps_an_argument(x: Tensor) -> Tensor:
        kept.append(x)
        return x + 1.0

    message = r"kept a Tensor of shape \(3,\) made by multiply after it returned; return it instead"
    with pytest.raises(TraceError, match=message):
        trace(keeps_a_result, np.ones(3))
    with pytest.raises(TraceError, match=r"kept a Tensor of shape \(3,\) that it was given"):
        trace(keeps_an_argument, np.ones(3))


def test_a_profiler_that_looks_at_the_function_keeps_no_tensor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    look, looked, let_go = threading.Event(), threading.Event(), threading.Event()

    def profile() -> None:
        look.wait()
        frames = list(traceback.walk_stack(sys._current_frames()[threading.main_thread().ident]))
        looked.set()
        let_go.wait()
        del frames

    def cube(x: Tensor) -> Tensor:
        square = x * x
        look.set()
        looked.wait()
        return square * x

    def pause(seconds: float) -> None:
        let_go.set()
        profiler.join()

    monkeypatch.setattr("time.sleep", pause)
    profiler = threading.Thread(target=profile)
    profiler.start()
    try:
        program = trace(cube, np.ones(3))
    finally:
        let_go.set()
    np.testing.assert_array_equal(program(np.full(3, 2.0))[0], np.full(3, 8.0))


def test_a_function_that_is_not_the_same_every_time_is_refused() -> None:
    rng, counter, changing = np.random.default_rng(0), count(1.0), np.zeros(3)

    def with_changing_array(x: Tensor) -> Tensor:
        changing[...] = changing + 1
        return x * Tensor(changing.copy())

    for function in (
        lambda x: x + Tensor(rng.standard_normal(3)),
        lambda x: x * next(counter),
        lambda x: x > 0.0 if next(counter) % 2 else (x > 0.0) * 1.0,
        with_changing_array,
    ):
        with pytest.raises(TraceError, match="is not the same every time.* must be arguments"):
            trace(function, np.ones(3))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: 3.0,
        lambda x: None,
        lambda x: [x, x],
        lambda x: (x, np.ones(3)),
    ],
)
def test_a_function_that_returns_anything_but_tensors_is_refused(function: Function) -> None:
    message = r"returned (a float|a NoneType|a list|an ndarray); it must return a Tensor"
    with pytest.raises(TraceError, match=message):
        trace(function, np.ones(3))


# The simplifications, one by one: a function in which it must find something, and its inputs.

LABELS = {
    rewrite: rewrite.__name__.strip("_").replace("_", " ")
    for rewrite in chain.from_iterable(REWRITES.values())
}


def channels_first(x: Tensor) -> Tensor:
    """(…, N, H, W, C) → (…, N, C·H·W), a linear layer's order of columns."""
    return flatten(ops.transpose(x, (2, 0, 1)))


def stacked(*shape: int) -> Tensor:
    """One constant matrix, twice by broadcasting."""
    return Tensor(np.broadcast_to(np.arange(float(np.prod(shape))).reshape(shape), (2, *shape)))


def apart(column: Tensor, row: Tensor) -> Tensor:
    """An outer product less a constant, in which an outer product stands out."""
    rows, columns = column.shape[0], row.shape[1]
    noise = np.random.default_rng(3).standard_normal((rows, columns))
    return column @ row - Tensor(noise + np.outer(np.arange(rows), np.linspace(-1, 1, columns)))


def squared(x: Tensor, axes: int) -> Tensor:
    return ops.inner(x, x, axes)


SIMPLIFIED: dict[str, list[tuple[Function, list[tuple[int, ...]]]]] = {
    "drop what changes nothing": [
        (lambda x: ops.broadcast_to(x, shape=(2, 3)), [(2, 3)]),
        (lambda x: ops.sum_to(x, shape=(2, 3)), [(2, 3)]),
        (ops.stop_gradient, [(2, 3)]),
    ],
    "drop neutral element": [
        (lambda x: x * 1.0, [(3,)]),
        (lambda x: 1.0 * x, [(3,)]),
        (lambda x: x / 1.0, [(3,)]),
        (lambda x: x + 0.0, [(3,)]),
        (lambda x: 0.0 + x, [(3,)]),
        (lambda x: x - 0.0, [(3,)]),
    ],
    "join moves": [
        (lambda x: ops.reshape(ops.reshape(x, (6, 4)), (3, 8)), [(2, 3, 4)]),
        (lambda x: ops.transpose(ops.transpose(x, (2, 0, 1)), (1, 0)), [(2, 3, 4)]),
    ],
    "move later": [
        (lambda x: ops.tanh(ops.transpose(x, (1, 0))), [(2, 3)]),
        (lambda x: ops.exp(ops.reshape(x, (3, 2))) * 2.0, [(2, 3)]),
        (lambda x: ops.reshape(x, (2, 2, 3)) * Tensor(np.arange(6.0).reshape(2, 3)), [(2, 6)]),
        (
            lambda x: Tensor(np.arange(8.0).reshape(4, 2)) - ops.transpose(x, (1, 0)),
            [(3, 2, 4)],
        ),
        (
            lambda x, y: ops.transpose(x, (2, 0, 1)) > ops.transpose(y, (2, 0, 1)),
            [(2, 3, 4), (2, 3, 4)],
        ),
        (lambda x: ops.reshape(x, (2, 2, 3)) * stacked(2, 3), [(2, 6)]),
        # A product with a constant, whose columns can be had in any order.
        (lambda x, y: channels_first(x) + y @ stacked(4, 24), [(2, 5, 2, 3, 4), (2, 5, 4)]),
        (
            lambda x, y: (
                ops.transpose(x, (2, 0, 1)) * ops.reshape(y @ stacked(4, 24), (2, 5, 4, 2, 3))
            ),
            [(2, 5, 2, 3, 4), (2, 5, 4)],
        ),
    ],
    "contract in any order": [
        (lambda x: channels_first(x) @ Tensor(np.arange(48.0).reshape(24, 2)), [(3, 2, 3, 4)]),
        (lambda x: channels_first(x) @ stacked(24, 2), [(3, 2, 3, 4)]),
        (lambda x: channels_first(x) @ stacked(24, 2), [(2, 3, 2, 3, 4)]),
        (
            lambda x, y: channels_first(x) @ ops.transpose(channels_first(y), (1, 0)),
            [(3, 2, 3, 4), (5, 2, 3, 4)],
        ),
    ],
    "order columns later": [
        (lambda x, y: y @ channels_first(x), [(3, 2, 3, 4), (5, 3)]),
        (lambda x, y: y @ channels_first(x), [(3, 2, 3, 4), (2, 5, 3)]),
    ],
    "sum where it lies": [
        (
            lambda x, y: ops.inner(ops.transpose(x, (1, 0)), ops.transpose(y, (1, 0)), 2),
            [(2, 3, 4), (2, 3, 4)],
        ),
        (
            lambda x, y: ops.inner(ops.reshape(x, (2, 12)), ops.reshape(y, (2, 12)), 1),
            [(2, 3, 4), (2, 3, 4)],
        ),
    ],
    "compute once": [
        (lambda x, y: ops.sigmoid(copies(x, 4)) * y, [(3,), (4, 3)]),
        (lambda x, y: copies(x, 4) @ Tensor(np.ones((4, 2, 5))) + y, [(3, 2), (4, 3, 5)]),
        (lambda x, y: ops.reshape(copies(x, 4), (4, 6)) + y, [(2, 3), (4, 6)]),
        (lambda x, y: ops.transpose(copies(x, 4), (1, 0)) + y, [(2, 3), (4, 3, 2)]),
        (lambda x, y: ops.unfold(copies(x, 2), (2, 2)) + y, [(3, 3, 1), (2, 2, 2, 2, 2, 1)]),
    ],
    "leave broadcasting to the operation": [
        (lambda x, y: ops.broadcast_to(x, shape=(2, 3)) * y, [(3,), (2, 3)]),
        (lambda x, y: y - ops.broadcast_to(x, shape=(2, 3)), [(2, 1), (2, 3)]),
        (
            lambda x, y: ops.broadcast_to(x, shape=(2, 3)) + ops.broadcast_to(y, shape=(2, 3)),
            [(2, 1), (3,)],
        ),
    ],
    "join signs": [
        (lambda x: ops.negate(ops.negate(x)), [(3,)]),
        (lambda x, y: x + (-y), [(3,), (3,)]),
        (lambda x, y: (-x) + y, [(3,), (2, 3)]),
        (lambda x, y: (-x) + (-y), [(3,), (3,)]),
        (lambda x, y: x - (-y), [(3,), (3,)]),
        (lambda x, y: (-x) * y, [(3,), (3,)]),
        (lambda x, y: x / (-y), [(3,), (3,)]),
        (lambda x, y: (-x) @ (-y), [(2, 3), (3, 4)]),
        (lambda x, y: x @ (-y), [(2, 3), (3, 4)]),
    ],
    "multiply in order": [
        (lambda x, y, z: ops.transpose(x @ y, (1, 0)) - z, [(4, 3), (3, 2), (2, 4)]),
        (lambda x, y, z: z / ops.transpose(x @ y, (1, 0)), [(5, 4, 3), (3, 2), (5, 2, 4)]),
    ],
    "scale one column": [
        (lambda x, y: x @ y, [(3, 1), (1, 4)]),
        (lambda x, y: x @ y, [(5, 9, 1), (1, 4)]),
        (lambda x, y: x @ y, [(9, 1), (5, 1, 4)]),
    ],
    "make long rows": [
        (lambda x, y: ops.transpose(x, (1, 0)) @ y, [(3, 5), (3, 2)]),
        (lambda x, y: ops.transpose(x, (1, 0)) @ y, [(2, 3, 5), (3, 4)]),
    ],
    "lay constants out": [
        (lambda x: x @ Tensor(np.arange(20.0).reshape(5, 4).T), [(3, 4)]),
        (lambda x: Tensor(np.arange(20.0).reshape(5, 4)) @ x, [(2, 4, 3)]),
        (lambda x: x @ Tensor(np.broadcast_to(np.arange(20.0).reshape(5, 4), (2, 5, 4))), [(3, 5)]),
    ],
    "compare by vectors": [
        (lambda x, y: squared(apart(x, y), 2), [(256, 1), (1, 256)]),
        (lambda x, y, z: apart(x, y) @ z, [(256, 1), (1, 300), (300, 2)]),
        (lambda x, y, z: z @ apart(x, y), [(256, 1), (1, 300), (3, 256)]),
        (lambda x, y, z: z @ ops.transpose(apart(x, y), (1, 0)), [(256, 1), (1, 300), (3, 300)]),
    ],
    "join products": [
        (lambda a, b, c, d: a @ b + c @ d, [(20, 2), (2, 20), (20, 3), (3, 20)]),
        (lambda a, b, c, d: a @ b + c @ d, [(2, 20, 2), (2, 20), (2, 20, 3), (3, 20)]),
    ],
}
# What looks like it, and is not.
SIMPLIFIED_NOT: dict[str, list[tuple[Function, list[tuple[int, ...]]]]] = {
    "drop neutral element": [
        (lambda x: 1.0 / x, [(3,)]),
        (lambda x: 0.0 - x, [(3,)]),
        (lambda x: Tensor(np.zeros(3)) - x, [(3,)]),
        (lambda x: x * Tensor(np.ones((2, 1))), [(3,)]),
    ],
    "move later": [
        (lambda x, y: ops.transpose(x, (1, 0)) * y, [(2, 3), (3, 2)]),
        (lambda x, y: ops.transpose(x, (1, 2, 0)) * ops.transpose(y, (2, 0, 1)), [(3, 3, 3)] * 2),
        (lambda x, y: ops.reshape(x, (3, 2)) * y, [(2, 3), (2,)]),
        (lambda x: ops.reshape(x, (3, 4)) * Tensor(np.arange(4.0)), [(4, 3)]),
    ],
    "contract in any order": [
        # Neither factor is constant; two orders; rows that are moved as well.
        (lambda x, y: channels_first(x) @ y, [(3, 2, 3, 4), (24, 2)]),
        (
            lambda x, y: (
                channels_first(x) @ ops.transpose(flatten(ops.transpose(y, (1, 0, 2))), (1, 0))
            ),
            [(3, 2, 3, 4), (5, 2, 4, 3)],
        ),
        (
            lambda x: flatten(ops.transpose(x, (1, 0, 2, 3))) @ Tensor(np.ones((24, 2))),
            [(2, 3, 3, 4)],
        ),
    ],
    "order columns later": [
        (lambda x, y: y @ flatten(ops.transpose(x, (1, 0, 2, 3))), [(2, 3, 3, 4), (5, 3)]),
        (lambda x, y: y @ flatten(x), [(3, 2, 3, 4), (5, 3)]),
    ],
    "sum where it lies": [
        (
            lambda x, y: ops.inner(ops.transpose(x, (1, 0)), ops.transpose(y, (1, 0)), 1),
            [(2, 3), (2, 3)],
        ),
        (
            lambda x, y: ops.inner(ops.reshape(x, (3, 4)), ops.reshape(y, (3, 4)), 1),
            [(2, 6), (2, 6)],
        ),
        (
            lambda x, y: ops.inner(ops.transpose(x, (1, 2, 0)), ops.transpose(y, (2, 0, 1)), 3),
            [(2, 3, 3, 3), (2, 3, 3, 3)],
        ),
    ],
    "compute once": [
        # Copies along another axis, of one alone, or with others; axes that are used whole.
        (lambda x: ops.exp(ops.broadcast_to(x, shape=(2, 3))), [(2, 1)]),
        (lambda x: ops.exp(ops.broadcast_to(x, shape=(3, 3))), [(3, 1)]),
        (lambda x: ops.exp(ops.broadcast_to(x, shape=(3, 3, 3))), [(3, 3, 1)]),
        (lambda x: ops.exp(copies(x, 1)), [(3,)]),
        (lambda x, y: copies(x, 4) * y, [(3,), (4, 3)]),
        (lambda x: copies(x, 4) @ Tensor(np.arange(40.0).reshape(4, 2, 5)), [(3, 2)]),
        (lambda x: copies(x, 4) @ Tensor(np.ones((3, 5))), [(3,)]),
        (lambda x: ops.transpose(copies(x, 4), (1, 0, 2)), [(2, 3)]),
        (lambda x: ops.reshape(copies(x, 4), (8, 3)), [(2, 3)]),
        (lambda x: ops.unfold(copies(x, 3), (2, 2)), [(3, 1)]),
    ],
    "leave broadcasting to the operation": [
        (lambda x: ops.broadcast_to(x, shape=(2, 3)) * 2.0, [(3,)]),
    ],
    "multiply in order": [
        (lambda x, y, z: ops.transpose(x @ y, (1, 0, 2)) + z, [(2, 3, 4), (4, 4), (3, 2, 4)]),
        (lambda x, y, z: ops.transpose(x @ y, (1, 0)) - z, [(2, 3), (3, 4), (4, 2)]),
    ],
    "scale one column": [(lambda x, y: x @ y, [(1, 3), (3, 1)])],
    "make long rows": [
        (lambda x, y: ops.transpose(x, (1, 0)) @ y, [(3, 2), (3, 5)]),
        (lambda x, y: ops.transpose(x, (1, 2, 0)) @ y, [(2, 3, 5), (2, 4)]),
        (lambda x, y: x @ ops.transpose(y, (1, 0)), [(5, 3), (2, 3)]),
    ],
    "compare by vectors": [
        (lambda x, y: squared(apart(x, y), 2), [(100, 1), (1, 100)]),
        (lambda x, y: squared(apart(x, y), 1), [(256, 1), (1, 256)]),
        (lambda x, y, z: (x @ y - z) @ ops.transpose(y, (1, 0)), [(256, 1), (1, 256), (256, 256)]),
        (lambda x, y: apart(x, y) @ ops.transpose(y, (1, 0)), [(256, 2), (2, 256)]),
    ],
    "join products": [
        # The factors are larger than the products, or are not of one number of matrices.
        (lambda a, b, c, d: a @ b + c @ d, [(3, 4), (4, 3), (3, 4), (4, 3)]),
        (lambda a, b, c, d: a @ b + c @ d, [(20, 2), (2, 20), (2, 20, 3), (2, 3, 20)]),
        (lambda a, b, c, d: a @ b + c @ d, [(2, 20, 2), (2, 20), (2, 20, 3), (2, 3, 20)]),
    ],
}


def test_every_simplification_has_a_case() -> None:
    assert set(SIMPLIFIED) == set(LABELS.values())


def numbered(cases: dict[str, list[tuple[Function, list[tuple[int, ...]]]]]) -> list[object]:
    return [
        pytest.param(label, function, shapes, id=f"{label} {number}")
        for label, several in cases.items()
        for number, (function, shapes) in enumerate(several)
    ]


@pytest.mark.parametrize(("label", "function", "shapes"), numbered(SIMPLIFIED))
def test_a_simplification_finds_what_it_should(
    label: str, function: Function, shapes: list[tuple[int, ...]]
) -> None:
    assert traced(function, *shapes).removed[label] > 0


@pytest.mark.parametrize(("label", "function", "shapes"), numbered(SIMPLIFIED_NOT))
def test_a_simplification_leaves_the_rest_alone(
    label: str, function: Function, shapes: list[tuple[int, ...]]
) -> None:
    assert label not in traced(function, *shapes).removed


@pytest.mark.parametrize("nearness", [1.0, 1e-3, 1e-6, 1e-9])
@pytest.mark.parametrize("rounded", [False, True])
def test_comparing_by_vectors_keeps_the_digits(nearness: float, rounded: bool) -> None:
    """However near, all that is lost is some 1e-15 of the constant: float64's rounding of it.

    Of one that was rounded to float32 its remainder is kept in that, which loses twice as much.
    """
    rng = np.random.default_rng(0)
    column, row = rng.standard_normal((300, 1)), rng.standard_normal((1, 400))
    target = column * row
    if rounded:
        target = target.astype(np.float32).astype(float)

    def distance(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        apart = x @ y - Tensor(target)
        return squared(apart, 2), apart @ ops.swap_last_axes(y), ops.swap_last_axes(x) @ apart

    draws = [column + nearness * rng.standard_normal(column.shape), row]
    program = trace(distance, *draws, check=False)
    assert program.removed["compare by vectors"] > 0
    exact = draws[0].astype(np.longdouble) * row - target
    for found, wanted in zip(
        program(*draws), [(exact * exact).sum(), exact @ row.T, draws[0].T @ exact], strict=True
    ):
        size = max(np.abs(exact).max() / np.abs(target).max(), 1e-16)
        error = float(np.abs(found - wanted).max() / np.abs(wanted).max())
        assert error < 1e-15 + (6e-15 if rounded else 3e-15) / size
    assert any("floating" in str(one) for one in program.instructions)


@pytest.mark.parametrize("size", [1e-14, 1e12])
def test_comparing_by_vectors_keeps_the_digits_of_small_and_large_numbers(size: float) -> None:
    rng = np.random.default_rng(0)
    column, row = rng.standard_normal((300, 1)), rng.standard_normal((1, 400))
    x, y, target = (a.astype(np.float32) for a in (size * column, row, size * column * row))
    x *= 1.0 + 1e-3 * rng.standard_normal(x.shape).astype(np.float32)
    program = trace(lambda x, y: squared(x @ y - Tensor(target), 2), x, y, check=False)
    assert program.removed["compare by vectors"] > 0
    exact = x.astype(float) * y - target
    assert float(program(x, y)[0]) == pytest.approx((exact * exact).sum(), rel=1e-3)


def test_what_no_output_needs_is_dropped() -> None:
    def function(x: Tensor) -> Tensor:
        ops.exp(ops.tanh(x))
        return x * x

    program = traced(function, (3,))
    assert program.removed["traced"] == 3
    assert program.removed["dead: no output needs it"] == 2
    assert [line.name for line in program.instructions] == ["multiply"]


def test_equal_nodes_are_one() -> None:
    program = traced(lambda x: ops.exp(x) * ops.tanh(ops.exp(x)) + ops.tanh(ops.exp(x)), (3,))
    assert program.removed["merge equal nodes"] == 3
    assert len(program.instructions) == 4
    # Other parameters, another operation or other inputs make another node.
    other = traced(lambda x: (x**3, x**2, ops.sum(x, 0), ops.sum(x, 1), ops.exp(x)), (3, 3))
    assert other.removed["merge equal nodes"] == 0


def test_views_cost_nothing() -> None:
    program = traced(lambda x: ops.exp(ops.transpose(x[1:, :2], (1, 0))) * 1.0, (3, 4))
    assert program.removed["turn views into views"] >= 1
    assert [line.name for line in program.instructions] == ["exp"]


def test_nothing_is_written_over_what_is_read_in_another_order() -> None:
    square = traced(lambda x: ops.exp(x) * ops.transpose(ops.exp(x), (1, 0)), (3, 3))
    assert len({line.out.ctypes.data for line in square.instructions}) == 2
    traced(lambda x: ops.tanh(ops.exp(x)[1:]) + ops.exp(x)[:-1], (4,))


def test_what_is_elementwise_is_written_over_its_input() -> None:
    program = traced(lambda x: ops.tanh(ops.exp(ops.tanh(ops.exp(x)))), (100,))
    assert program.buffer_bytes == 2 * 800  # the argument, which stays, and the work
    assert len({line.out.ctypes.data for line in program.instructions}) == 1


def test_a_program_can_be_read() -> None:
    def function(x: Tensor, y: Tensor) -> Tensor:
        return ops.sum_to(ops.exp(x) @ y, shape=(1, 4)) * 1.0

    program = traced(function, (2, 3), (3, 4))
    text = str(program)
    summary, body = text.split("\n\n")
    lines = body.split("\n")
    assert len(lines) == len(program.instructions) == 3
    for line, name, shape, size, reads in zip(
        lines,
        ["exp", "matmul", "sum_to"],
        ["(2, 3)", "(2, 4)", "(1, 4)"],
        ["48 B", "64 B", "32 B"],
        ["(2, 3)", "(2, 3), (3, 4)", "(2, 4)"],
        strict=True,
    ):
        assert line.split()[0] == name
        assert shape in line
        assert size in line
        assert line.endswith(f"<- {reads}")
    assert "1 drop neutral element" in summary
    assert "3 instructions remain" in summary
    assert f"{program.buffer_bytes:,} bytes" in summary


# Any graph.

Steps = list[tuple[str, int, int]]


def matrix_product(a: Tensor, b: Tensor) -> Tensor | None:
    if a.ndim < 2 or b.ndim < 2 or a.shape[-1] != b.shape[-1]:
        return None
    return ops.tanh(a @ ops.transpose(b, (1, 0)))


def padded_side_by_side(a: Tensor, b: Tensor) -> Tensor | None:
    if a.ndim < 1 or a.ndim != b.ndim or a.shape[:-1] != b.shape[:-1]:
        return None
    return ops.pad(a, [(0, b.shape[-1])]) + ops.pad(b, [(a.shape[-1], 0)])


def reversed_axes(x: Tensor) -> Tensor:
    return ops.transpose(x, tuple(range(x.ndim))[::-1])


def fits_rows(x: Tensor) -> bool:
    return x.ndim > 1 and x.shape[-1] == 3


ROWS = Tensor(np.random.default_rng(11).standard_normal((3, 2)))
ROW = Tensor(np.array([0.5, -1.0, 2.0]))

# Each takes two Tensors and may answer None where their shapes do not allow it.
OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor | None]] = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: ops.tanh(a * b),
    "divide": lambda a, b: a / (b * b + 1.0),
    "double": lambda a, b: a + a,
    "negate": lambda a, b: -a,
    "subtract negated": lambda a, b: a - (-b),
    "scale": lambda a, b: (a * 0.5) * 3.0,
    "neutral": lambda a, b: (1.0 * a + 0.0) / 1.0,
    "tanh": lambda a, b: ops.tanh(a),
    "sigmoid": lambda a, b: ops.sigmoid(a),
    "softplus": lambda a, b: ops.softplus(a),
    "square": lambda a, b: ops.tanh(a) ** 2,
    "where": lambda a, b: ops.where(a > b, a, b * 0.5),
    "stop": lambda a, b: ops.stop_gradient(a) * b,
    "matmul": matrix_product,
    "matmul constant": lambda a, b: a @ ROWS if fits_rows(a) else None,
    "transposed product": lambda a, b: (
        ops.swap_last_axes(a @ ROWS) + ops.crop(ops.swap_last_axes(a), [(1, 0), (0, 0)])
        if fits_rows(a)
        else None
    ),
    "add row": lambda a, b: a + ROW,
    "outer": lambda a, b: ops.reshape(a, (-1, 1)) @ ops.reshape(b, (1, -1)),
    "inner": lambda a, b: ops.inner(a, b, a.ndim) if a.shape == b.shape else None,
    "inner moved": lambda a, b: ops.inner(reversed_axes(a), reversed_axes(a), a.ndim),
    "logsumexp": lambda a, b: ops.logsumexp(a) if a.ndim else None,
    "flatten": lambda a, b: ops.reshape(a, (-1,)),
    "column": lambda a, b: ops.reshape(a, (-1, 1)),
    "row": lambda a, b: ops.reshape(a, (1, -1)),
    "reversed axes": lambda a, b: reversed_axes(a),
    "swap": lambda a, b: ops.transpose(a, (1, 0)) if a.ndim > 1 else None,
    "stack": lambda a, b: ops.broadcast_to(a, shape=(2, *a.shape)) if a.ndim < 3 else None,
    "sum": lambda a, b: ops.sum(a, 0) if a.ndim else None,
    "mean": lambda a, b: ops.mean(a, -1, keepdims=True) if a.ndim else None,
    "crop": lambda a, b: ops.crop(a, [(1, 0)]) if a.ndim and a.shape[-1] > 1 else None,
    "pad": lambda a, b: ops.pad(a, [(1, 2)]) if a.ndim else None,
    "pads": padded_side_by_side,
    "first": lambda a, b: a[0] if a.ndim else None,
    "every other": lambda a, b: a[::2] if a.ndim else None,
    "unfold": lambda a, b: (
        ops.unfold(a, (1, 1), padding=(1, 0)) if a.ndim == 3 and a.shape[-1] < 4 else None
    ),
}
MOST_ELEMENTS = 200


def grown(steps: Steps, xs: Sequence[Tensor]) -> list[Tensor]:
    """Apply the steps one after another to what is there; those that do not fit are left out."""
    there = list(xs)
    for name, first, second in steps:
        a, b = there[first % len(there)], there[second % len(there)]
        try:
            made = OPERATIONS[name](a, b)
        except ValueError:  # shapes that do not broadcast
            continue
        if made is not None and np.prod(made.shape) <= MOST_ELEMENTS:
            there.append(made)
    return there[len(xs) :]


@settings(max_examples=120)
@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(OPERATIONS)), st.integers(0, 9), st.integers(0, 9)),
        min_size=2,
        max_size=14,
    )
)
def test_any_graph_and_its_gradients(steps: Steps) -> None:
    def function(*xs: Tensor) -> tuple[Tensor, ...]:
        made = grown(steps, xs)
        total = xs[0][0, 0]
        for tensor in made:
            total = total + ops.sum(ops.tanh(tensor))
        slopes = grad(total, xs)
        squares = [ops.sum(slope * slope) for slope in slopes]
        return (total, *made[-2:], *slopes, *grad(squares[0] + squares[1], xs))

    draws = [normal((2, 3), (3,), (), seed=seed) for seed in range(3)]
    assert_replays(function, draws, tolerance=1e-10)
