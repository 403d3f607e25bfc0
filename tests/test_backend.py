"""The choice of the array module; then every primitive on the strict stand-in for CuPy."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import strict_cupy
import torch
from primitive_cases import CASES, Case, gradients, on_device, second_order

from tinyleak import backend, interop, ops
from tinyleak.check import check_gradients
from tinyleak.gradient import grad, topological_order
from tinyleak.program.kernels import prepare
from tinyleak.program.library import Scratch
from tinyleak.tensor import Tensor

HOST = np.arange(6.0).reshape(2, 3)


@pytest.fixture
def device_array() -> strict_cupy.ndarray:
    array = strict_cupy.asarray(HOST)
    strict_cupy.traffic.clear()
    return array


# Finding the module.


def test_array_module_is_the_owner_s(device_array: strict_cupy.ndarray) -> None:
    assert backend.array_module(HOST) is np
    assert backend.array_module(HOST, np.float64(2), HOST) is np
    assert backend.array_module(device_array) is strict_cupy
    assert backend.array_module(device_array, device_array) is strict_cupy


def test_mixed_devices_are_refused(device_array: strict_cupy.ndarray) -> None:
    message = r"arrays of numpy, strict_cupy were mixed in one operation; move them to one device"
    with pytest.raises(TypeError, match=message):
        backend.array_module(HOST, device_array)
    with pytest.raises(TypeError, match=message):
        Tensor(HOST) + Tensor(device_array)
    with pytest.raises(TypeError, match=message):
        Tensor(device_array) * HOST


def test_moving_to_a_device_and_back(device_array: strict_cupy.ndarray) -> None:
    moved = backend.to_device(HOST, strict_cupy)
    assert isinstance(moved, strict_cupy.ndarray)
    assert strict_cupy.traffic == {"to_device": 1}
    assert backend.to_device(moved, strict_cupy) is moved
    assert strict_cupy.traffic == {"to_device": 1}
    np.testing.assert_array_equal(backend.to_numpy(moved), HOST)
    assert strict_cupy.traffic == {"to_device": 1, "to_host": 1}
    assert type(backend.to_device(device_array, np)) is np.ndarray
    assert backend.to_device(HOST, np) is HOST
    assert backend.to_numpy(HOST) is HOST


# The door.


class Foreign:
    """An array of a library that offers only `__dlpack__`."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack__(self, **settings: object) -> object:
        return self.array.__dlpack__(**settings)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (HOST.tolist(), "float64"),
        (HOST.astype(">f4"), "float32"),
        (HOST.astype(">i8"), "int64"),
        (torch.tensor(HOST), "float64"),
        (torch.tensor(HOST, dtype=torch.float16), "float16"),
        (torch.nn.Parameter(torch.tensor(HOST)).detach(), "float64"),
        (Foreign(HOST), "float64"),
        (Tensor(HOST), "float64"),
        ([np.float32(0), np.float32(1)], "float32"),
        (np.matrix(HOST), "float64"),
    ],
    ids=lambda part: part if isinstance(part, str) else type(part).__name__,
)
def test_numbers_are_taken_from_anywhere(value: object, dtype: str) -> None:
    array = interop.as_array(value)
    assert type(array) is np.ndarray
    assert array.dtype == np.dtype(dtype)
    assert array.dtype.isnative
    expected = HOST if array.ndim == 2 else [0, 1]
    np.testing.assert_array_equal(array, expected)


def test_the_door_copies_when_it_is_told_to(device_array: strict_cupy.ndarray) -> None:
    assert interop.as_array(HOST) is HOST
    copy = interop.as_array(HOST, copy=True)
    assert not np.shares_memory(copy, HOST)
    assert interop.as_array(device_array) is device_array
    on_device = interop.as_array(device_array, copy=True)
    assert type(on_device) is strict_cupy.ndarray
    assert on_device is not device_array
    theirs = torch.tensor(HOST)
    ours = interop.as_array(theirs, copy=True)
    theirs[:] = -1
    np.testing.assert_array_equal(ours, HOST)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.ones(2, requires_grad=True), "a Tensor could not be read as numbers: .*detach"),
        (torch.ones(2, dtype=torch.bfloat16), "could not be read as numbers: .*BFloat16"),
        (torch.ones(2, dtype=torch.complex64), "a Tensor of dtype complex64 was given"),
        (torch.ones(2, device="meta"), "a Tensor could not be read as numbers"),
        ({"a": 1.0}, "a dict of dtype object was given"),
        (b"bytes", "a bytes of dtype"),
    ],
    ids=lambda part: part if isinstance(part, str) else type(part).__name__,
)
def test_what_the_door_refuses(value: object, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        interop.as_array(value)


def test_a_tensor_takes_what_the_door_takes() -> None:
    x = Tensor(HOST.astype(">f8"))
    assert x.dtype.isnative
    assert (x * torch.tensor(HOST)).dtype == np.float64
    np.testing.assert_array_equal((x + Foreign(HOST)).data, 2 * HOST)


# Naming a device.


def test_the_cpu_is_numpy() -> None:
    assert backend.device_module("cpu") is np


@pytest.mark.parametrize("name", ["gpu", "", "CUDA", "cuda:1"])
def test_an_unknown_device_is_refused(name: str) -> None:
    message = f'device {name!r} is unknown; choose "cpu" or "cuda"'
    with pytest.raises(backend.DeviceError, match=message):
        backend.device_module(name)


def test_cuda_without_cupy_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    message = r'"cuda" needs CuPy, which is not installed; install .*\[cuda\].*--device cpu'
    with pytest.raises(backend.DeviceError, match=message):
        backend.device_module("cuda")


def gpu_count() -> int | None:
    """The number of GPUs that CuPy finds, or None without CuPy."""
    try:
        import cupy
    except ImportError:
        return None
    try:
        return cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError:
        return 0


@pytest.mark.skipif(gpu_count() != 0, reason="needs CuPy and a machine without a GPU")
def test_cuda_without_a_gpu_says_so() -> None:
    with pytest.raises(backend.DeviceError, match=r"needs an NVIDIA GPU, and CuPy .* finds none"):
        backend.device_module("cuda")


@pytest.mark.gpu
def test_cuda_is_cupy() -> None:
    cupy = pytest.importorskip("cupy")
    if not gpu_count():
        pytest.skip("no GPU")
    assert backend.device_module("cuda") is cupy


# The stand-in itself: a rule that it does not hold is a bug that it does not find.


def refused_by_cupy(x: strict_cupy.ndarray) -> list[tuple[str, Callable[[], object]]]:
    xp = strict_cupy
    return [
        ("np.asarray", lambda: np.asarray(x)),
        ("np.add", lambda: np.add(x, 1)),
        ("np.sum", lambda: np.sum(x)),
        ("np.concatenate", lambda: np.concatenate([x, x])),
        ("array + numpy", lambda: x + HOST),
        ("numpy + array", lambda: HOST + x),
        ("array += numpy", lambda: x.__iadd__(HOST)),
        ("numpy as input", lambda: xp.add(x, HOST)),
        ("numpy as out", lambda: xp.add(x, x, out=HOST)),
        ("numpy among several", lambda: xp.concatenate([x, HOST])),
        ("numpy in a method", lambda: x.dot(HOST.T)),
        ("numpy as index", lambda: x[np.array([0])]),
        ("numpy assigned", lambda: x.__setitem__(0, HOST[0])),
        ("numpy in a reduction", lambda: xp.sum(HOST)),
        ("a list in a ufunc", lambda: xp.add(x, [1, 2, 3])),
        ("a list in a reduction", lambda: xp.sum([1, 2])),
        ("a list as index", lambda: x[[0]]),
        ("iteration", lambda: list(x)),
        ("ufunc where", lambda: xp.add(x, x, where=x > 0)),
        ("method where", lambda: x.sum(where=x > 0)),
        ("add.at of whole numbers", lambda: xp.add.at(xp.zeros(3, dtype=np.int64), x > 0, 1)),
        ("an array of arrays", lambda: xp.asarray([x, x])),
    ]


REFUSED = [name for name, _ in refused_by_cupy(strict_cupy.asarray(HOST))]


@pytest.mark.parametrize("name", REFUSED)
def test_the_stand_in_refuses(name: str, device_array: strict_cupy.ndarray) -> None:
    call = dict(refused_by_cupy(device_array))[name]
    with pytest.raises(TypeError):
        call()


@pytest.mark.skipif(not strict_cupy.knows_cupy, reason="needs CuPy, to read its signatures")
def test_the_stand_in_offers_what_cupy_has() -> None:
    x = strict_cupy.asarray(HOST)
    with pytest.raises(AttributeError, match="cupy .* has no errstate"):
        _ = strict_cupy.errstate
    with pytest.raises(AttributeError, match=r"cupy .* has no linalg\.multi_dot"):
        _ = strict_cupy.linalg.multi_dot
    with pytest.raises(TypeError, match="unexpected keyword argument 'mode'"):
        strict_cupy.take(x, x, mode="clip")
    with pytest.raises(TypeError, match="unexpected keyword argument 'where'"):
        strict_cupy.sum(x, where=x > 0)


def test_the_stand_in_draws_no_random_numbers() -> None:
    with pytest.raises(AttributeError, match="random"):
        _ = strict_cupy.random


def test_the_stand_in_counts_traffic(device_array: strict_cupy.ndarray) -> None:
    x = device_array
    y = strict_cupy.sqrt(x + 1.0) @ x.T  # work on the device is free
    y[0] *= np.float64(2)
    assert strict_cupy.asarray(y) is y
    assert not strict_cupy.traffic
    for look in (float, int, bool):
        look(y[0, 0])
    y.get()
    y.tolist()
    y[0, 0].item()
    strict_cupy.asnumpy(y)
    assert strict_cupy.traffic == {"to_host": 7}
    strict_cupy.asarray(HOST)
    strict_cupy.asarray(1.0)
    assert strict_cupy.traffic["to_device"] == 2
    x[x > 1]
    strict_cupy.nonzero(x)
    assert strict_cupy.traffic["synchronize"] == 2


def test_the_stand_in_has_memory_of_its_own() -> None:
    host = HOST.copy()
    x = strict_cupy.asarray(host)
    host[:] = 0
    assert x[1, 2].item() == 5
    x.get()[:] = 0
    assert x[1, 2].item() == 5
    assert np.isnan(strict_cupy.empty(3).get()).all()


def test_the_stand_in_s_results_are_arrays(device_array: strict_cupy.ndarray) -> None:
    x = device_array
    for result in (x.sum(), strict_cupy.max(x), x[0, 0], strict_cupy.array_equal(x, x), x > 1):
        assert type(result) is strict_cupy.ndarray
    element = x[0, 0]
    element += 7.0  # a view, as in CuPy
    assert x[0, 0].item() == 7
    out = strict_cupy.empty((2, 3))
    assert strict_cupy.add(x, 1.0, out=out) is out
    assert x.sum(axis=0, out=out[0]).shape == (3,)


# Every primitive on the stand-in: forward, gradient, second order, and its kernel.


def assert_as_on_numpy(case: Case, compute: Callable[..., Sequence[Tensor]]) -> None:
    expected = compute(case, on_device(case.arrays()), on_device(case.constants))
    xs = on_device(case.arrays(), strict_cupy)
    found = compute(case, xs, on_device(case.constants, strict_cupy))
    for ours, theirs in zip(found, expected, strict=True):
        assert type(ours.data) is strict_cupy.ndarray
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours.numpy(), theirs.data, rtol=1e-12, atol=1e-13)


def value(case: Case, xs: Sequence[Tensor], constants: Sequence[Tensor]) -> list[Tensor]:
    return [case.ours(*xs, *constants)]


@pytest.mark.parametrize("compute", [value, gradients, second_order], ids=lambda f: f.__name__)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_primitive_on_a_device(case: Case, compute: Callable[..., Sequence[Tensor]]) -> None:
    assert_as_on_numpy(case, compute)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_primitive_on_a_device_into_given_memory(case: Case) -> None:
    xs = on_device(case.arrays(), strict_cupy)
    constants = on_device(case.constants, strict_cupy)
    results = [*value(case, xs, constants), *second_order(case, xs, constants)]
    for node in topological_order(*results):
        if node.primitive is None:
            continue
        arrays = tuple(x.data for x in node.inputs)
        out = strict_cupy.empty(node.shape, dtype=node.dtype)
        for call in prepare(node.primitive, Scratch(strict_cupy), arrays, out, node.params):
            call()
        np.testing.assert_allclose(out.get(), node.numpy(), rtol=1e-12, atol=1e-13)


def test_a_number_joins_the_device_of_its_partner(device_array: strict_cupy.ndarray) -> None:
    x = Tensor(device_array)
    for result in (x + 1.0, 1.0 - x, 2 * x, x / 3, x**2, x**0.5, x > 1.0, ops.where(x > 1, x, 0.0)):
        assert type(result.data) is strict_cupy.ndarray


def test_an_array_of_the_device_may_stand_on_the_left(device_array: strict_cupy.ndarray) -> None:
    x = Tensor(device_array)
    for result in (device_array + x, device_array * x, device_array > x, device_array @ x.T):
        assert type(result) is Tensor
        assert type(result.data) is strict_cupy.ndarray
    np.testing.assert_array_equal((device_array - x * 2.0).numpy(), -HOST)


def test_gradients_on_a_device_leave_nothing_behind_on_the_host(
    device_array: strict_cupy.ndarray,
) -> None:
    x = Tensor(device_array)
    y = ops.sum(ops.sigmoid(x @ ops.swap_last_axes(x)))
    (slope,) = grad(y, [x])
    grad(ops.inner(slope, slope, 2), [x])
    assert strict_cupy.traffic["to_host"] == strict_cupy.traffic["synchronize"] == 0


def test_the_gradient_check_runs_on_a_device(device_array: strict_cupy.ndarray) -> None:
    check_gradients(lambda x: ops.tanh(x) * x, [Tensor(device_array)], order=2)
