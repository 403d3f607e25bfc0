"""What only hardware can tell: CuPy's own arithmetic, our kernels, captured graphs, whole attacks.

Run with `pytest -m gpu`. Nothing here measures time.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from cuda_cases import PRODUCTS, Product, dummies, largest_difference, matching, simulated, spread
from primitive_cases import CASES, Case, gradients, on_device, second_order

from tinyleak import ops
from tinyleak.attacks import Progress, Settings, attack, attack_many
from tinyleak.backend import DeviceError, device_module
from tinyleak.nn import MLP, LeNet
from tinyleak.program import CapturedProgram, capture, trace
from tinyleak.program.cuda import product
from tinyleak.tensor import Tensor

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def cupy() -> Any:
    """CuPy, where there is a GPU; else the tests are skipped."""
    try:
        return device_module("cuda")
    except DeviceError as error:
        pytest.skip(str(error))


@pytest.fixture(autouse=True)
def a_failed_capture_is_an_error() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        yield


# Every primitive.


def value(case: Case, xs: Sequence[Tensor], constants: Sequence[Tensor]) -> list[Tensor]:
    return [case.ours(*xs, *constants)]


ORDERS = pytest.mark.parametrize(
    "compute", [value, gradients, second_order], ids=lambda f: f.__name__
)


@ORDERS
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_primitive_as_on_numpy(
    case: Case, compute: Callable[..., list[Tensor]], cupy: Any
) -> None:
    expected = compute(case, on_device(case.arrays()), on_device(case.constants))
    found = compute(case, on_device(case.arrays(), cupy), on_device(case.constants, cupy))
    for ours, theirs in zip(found, expected, strict=True):
        assert type(ours.data) is cupy.ndarray
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours.numpy(), theirs.data, rtol=1e-11, atol=1e-12)


@ORDERS
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_primitive_is_captured(
    case: Case, compute: Callable[..., list[Tensor]], cupy: Any
) -> None:
    constants = on_device(case.constants, cupy)
    examples = [cupy.asarray(array) for array in case.arrays()]
    program = trace(lambda *xs: tuple(compute(case, xs, constants)), *examples)
    captured = capture(program)
    assert isinstance(captured, CapturedProgram)
    rng = np.random.default_rng(1)
    for _ in range(2):
        arrays = [cupy.asarray(np.asarray(case.draw(rng, shape))) for shape in case.shapes]
        for ours, theirs in zip(captured(*arrays), program(*arrays), strict=True):
            np.testing.assert_allclose(ours.get(), theirs.get(), rtol=1e-11, atol=1e-12)


# Matrix products and programs.


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)])
@pytest.mark.parametrize("case", PRODUCTS, ids=str)
def test_our_product_as_cupy_s(case: Product, dtype: str, tolerance: float, cupy: Any) -> None:
    a, b, out = case.arrays(cupy, dtype)
    product(cupy, a, b, out)()
    assert spread(out.get(), cupy.matmul(a, b).get()) < tolerance


def assert_launches_give_the_same(
    objective: Any, attacks: int, cupy: Any, tolerance: float
) -> None:
    draws = [cupy.asarray(dummies(objective, attacks, seed)) for seed in range(3)]
    program = trace(objective.value_and_gradient, draws[0], check=False)
    captured = capture(program)
    assert isinstance(captured, CapturedProgram)
    for z in (*draws, *draws):
        again = [captured(z) for _ in range(2)]
        for first, second, replayed in zip(*again, program(z), strict=True):
            np.testing.assert_array_equal(first.get(), second.get())
            assert spread(first.get(), replayed.get()) < tolerance


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-11), ("float32", 1e-3)])
@pytest.mark.parametrize("known", [False, True], ids=["free labels", "known labels"])
@pytest.mark.parametrize("stacked", [False, True], ids=["common weights", "stacked weights"])
@pytest.mark.parametrize(("attacks", "batch"), [(1, 1), (3, 1), (1, 8), (3, 2), (64, 1)])
@pytest.mark.parametrize(
    "model", [LeNet(), LeNet((3, 32, 32), 20, "softplus"), MLP()], ids=["LeNet", "colour", "MLP"]
)
def test_the_attack_s_program_launched_and_replayed(
    model: Any,
    attacks: int,
    batch: int,
    stacked: bool,
    known: bool,
    dtype: str,
    tolerance: float,
    cupy: Any,
) -> None:
    objective = matching(cupy, model, attacks, batch, dtype, stacked=stacked, known=known)
    assert_launches_give_the_same(objective, attacks, cupy, tolerance)


def test_graphs_of_programs_that_are_gone_leave_the_others_alone(cupy: Any) -> None:
    """Memory that a graph writes to is its own, whatever is made and dropped beside it."""
    objective = matching(cupy, LeNet(), 2, 1, "float64", stacked=False, known=False)
    z = cupy.asarray(dummies(objective, 2, 0))
    captured = capture(trace(objective.value_and_gradient, z, check=False))
    expected = [result.get() for result in captured(z)]
    for size in range(1, 6):
        other = capture(trace(lambda x: ops.softplus(x) @ ops.relu(x), cupy.ones((50, 50))))
        other(cupy.full((50, 50), float(size)))
        del other
        cupy.get_default_memory_pool().free_all_blocks()
        fillers = [cupy.full(2**n, np.nan) for n in range(18)]
        for ours, theirs in zip(captured(z), expected, strict=True):
            np.testing.assert_array_equal(ours.get(), theirs)
        del fillers


def test_a_product_of_the_library_s_is_what_cannot_be_captured(cupy: Any) -> None:
    """When this fails CuPy has learnt to capture cuBLAS, and our own products may not be needed."""
    x, stream = cupy.ones((4, 4)), cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        with pytest.raises(NotImplementedError, match="cuBLAS"):
            cupy.matmul(x, x)
        stream.end_capture()


def test_an_array_of_the_device_may_stand_on_the_left_of_a_tensor(cupy: Any) -> None:
    array = cupy.arange(6.0).reshape(2, 3)
    x = Tensor(array)
    for result in (array + x, array - x, array * x, array > x, array @ x.T):
        assert type(result) is Tensor


# The attack.


@pytest.fixture
def reads(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the arrays that have been copied to the host, so far."""
    copied = []
    get = cupy.ndarray.get

    def noted(array: Any, *args: Any, **kwargs: Any) -> np.ndarray:
        copied.append(array.nbytes)
        return get(array, *args, **kwargs)

    monkeypatch.setattr(cupy.ndarray, "get", noted)
    return copied


SETTINGS = {
    "float64": Settings(iterations=20),
    "no line search": Settings(iterations=1, line_search="none"),
    "eager": Settings(iterations=20, compiled=False),
}


@pytest.mark.parametrize("restarts", [1, 3])
@pytest.mark.parametrize("name", SETTINGS)
def test_the_first_iterations_are_the_cpu_s(name: str, restarts: int, cupy: Any) -> None:
    (client,), _ = simulated(1)
    found, expected = (
        attack(client, restarts=restarts, settings=SETTINGS[name], device=device)
        for device in ("cuda", "cpu")
    )
    assert largest_difference(found, expected, 20) < 1e-6
    assert found.evaluations == expected.evaluations


def test_many_attacks_begin_as_on_the_cpu(cupy: Any) -> None:
    clients, _ = simulated(8)
    found, expected = (
        attack_many(clients, settings=Settings(iterations=20), device=device)
        for device in ("cuda", "cpu")
    )
    for ours, theirs in zip(found, expected, strict=True):
        assert largest_difference(ours, theirs, 20) < 1e-6


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_same_seed_is_the_same_attack(dtype: str, cupy: Any) -> None:
    (client,), _ = simulated(1)
    settings = Settings(iterations=200, dtype=dtype)
    first, second = (attack(client, restarts=2, settings=settings, device="cuda") for _ in range(2))
    assert first.distances == second.distances
    np.testing.assert_array_equal(first.images, second.images)


def test_attacks_succeed(cupy: Any) -> None:
    clients, truths = simulated(8)
    found = attack_many(clients, device="cuda")
    errors = [np.square(a.images - b.images).mean() for a, b in zip(found, truths, strict=True)]
    assert sum(error < 1e-3 for error in errors) >= 7, errors


def test_an_attack_on_a_batch_of_known_labels(cupy: Any) -> None:
    (client,), (truth,) = simulated(1, batch=2)
    found, expected = (
        attack(client, labels=truth.labels, settings=Settings(iterations=20), device=device)
        for device in ("cuda", "cpu")
    )
    assert largest_difference(found, expected, 20) < 1e-6


@pytest.mark.parametrize("restarts", [1, 3])
def test_an_attack_reads_a_few_numbers_an_evaluation(
    restarts: int, reads: list[int], cupy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    launches, seen = [], []
    launch = CapturedProgram.__call__

    def noted(program: CapturedProgram, *arrays: Any) -> Any:
        launches.append(program)
        return launch(program, *arrays)

    def note(progress: Progress) -> None:
        seen.append((len(reads), len(launches), len(set(launches))))

    monkeypatch.setattr(CapturedProgram, "__call__", noted)
    (client,), _ = simulated(1)
    attack(
        client,
        restarts=restarts,
        settings=Settings(iterations=40),
        device="cuda",
        on_progress=note,
    )
    quiet = 0
    for before, after in zip(seen, seen[1:], strict=False):
        if before[2] < after[2]:
            continue  # some have ended: the others' program is traced and captured anew
        quiet += 1
        assert after[0] - before[0] == after[1] - before[1]
        assert max(reads[before[0] : after[0]]) <= 100 * restarts
    assert quiet >= 30
