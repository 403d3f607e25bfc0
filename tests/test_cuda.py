"""The GPU's side without a GPU: matrix products, captured programs and the attack on the stand-in.

The stand-in computes what the kernels are asked for from their arguments; where there is a C++
compiler the kernels themselves run too, thread by thread, and where there is nvcc it compiles them.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import strict_cuda
import strict_cupy
from cuda_cases import PRODUCTS, Product, dummies, largest_difference, matching, simulated, spread
from primitive_cases import CASES, Case, gradients, on_device, second_order

from tinyleak import ops
from tinyleak.attacks import Progress, Reconstruction, Settings, attack, attack_many, many
from tinyleak.client import Client
from tinyleak.nn import MLP, LeNet
from tinyleak.program import CapturedProgram, Program, capture, trace
from tinyleak.program.cuda import MATMUL_SOURCE, product
from tinyleak.tensor import Tensor

HOST = np.arange(12.0).reshape(3, 4)


@pytest.fixture(autouse=True)
def forget_traffic() -> None:
    strict_cupy.traffic.clear()
    strict_cuda.volume.clear()


# Our own matrix products.


def in_units(dtype: str) -> float:
    return {"float64": 1e-13, "float32": 1e-5}[dtype]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("case", PRODUCTS, ids=str)
def test_a_product_from_a_kernel_s_arguments(case: Product, dtype: str) -> None:
    a, b, out = case.arrays(strict_cupy, dtype)
    product(strict_cupy, a, b, out)()
    assert spread(out.get(), a.get() @ b.get()) < in_units(dtype)


@pytest.mark.parametrize(
    ("shapes", "kernel"),
    [
        (((5, 63), (63, 5)), "matmul_tiled"),
        (((5, 64), (64, 5)), "matmul_long"),
        (((4, 1, 9000), (4, 9000, 1)), "matmul_long"),
        (((300, 80), (80, 300)), "matmul_tiled"),
    ],
    ids=str,
)
def test_long_sums_of_few_elements_are_shared_by_a_warp(
    shapes: tuple[tuple[int, ...], ...], kernel: str
) -> None:
    call = product(strict_cupy, *Product(*shapes).arrays(strict_cupy, "float64"))
    assert call.func.name == kernel


def test_matrices_that_two_axes_cannot_number_are_refused() -> None:
    case = Product((2, 1, 2, 1, 3, 4), (3, 1, 3, 4, 2))
    message = r"\(2, 1, 2, 1, 3, 4\) @ \(3, 1, 3, 4, 2\) cannot be numbered along two axes; give"
    with pytest.raises(ValueError, match=message):
        product(strict_cupy, *case.arrays(strict_cupy, "float64"))


def test_a_view_out_of_order_is_written_to_and_not_a_copy_of_it() -> None:
    a, b = (strict_cupy.asarray(np.ones((2, 3, n, n))) for n in (4, 4))
    out = strict_cupy.zeros((3, 2, 4, 4)).swapaxes(0, 1)
    product(strict_cupy, a, b, out)()
    assert (out.get() == 4).all()


class CompiledKernels:
    """Stands for CuPy where `product` looks for kernels; the arrays are NumPy's.

    Each kernel runs its own source, compiled for the processor.
    """

    broadcast_to = staticmethod(np.broadcast_to)
    may_share_memory = staticmethod(np.may_share_memory)

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library

    def RawKernel(self, code: str, name: str) -> Callable[..., None]:  # noqa: N802
        return partial(self._launch, name == "matmul_tiled")

    def _launch(
        self, tiled: bool, grid: Sequence[int], block: Sequence[int], args: Sequence[Any]
    ) -> None:
        sizes = [(ctypes.c_uint * 3)(*size) for size in (grid, block)]
        arrays = [ctypes.c_void_p(array.ctypes.data) for array in args[:3]]
        numbers = (ctypes.c_int * 4)(*args[3:7]), (ctypes.c_longlong * 12)(*args[7:])
        self.library.launch(ctypes.c_int(tiled), *sizes, *arrays, *numbers)


@pytest.fixture(scope="module")
def compiled_kernels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, CompiledKernels]:
    """The kernels for each dtype, compiled for the processor."""
    compiler = shutil.which("g++")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("needs g++ on Linux")
    directory = tmp_path_factory.mktemp("kernels")
    (directory / "kernels.cu").write_text(MATMUL_SOURCE)
    source = Path(__file__).with_name("cuda_on_cpu.cpp")
    kernels = {}
    for dtype, real in [("float64", "double"), ("float32", "float")]:
        library = directory / f"{real}.so"
        options = ["-O1", "-w", "-shared", "-fPIC", f"-DREAL={real}", f"-I{directory}"]
        subprocess.run([compiler, *options, source, "-o", library], check=True)
        kernels[dtype] = CompiledKernels(ctypes.CDLL(library))
    return kernels


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("case", PRODUCTS, ids=str)
def test_a_product_by_the_kernel_itself(
    case: Product, dtype: str, compiled_kernels: dict[str, CompiledKernels]
) -> None:
    a, b, out = case.arrays(np, dtype)
    around = out if out.base is None else out.base
    before = around.copy()
    product(compiled_kernels[dtype], a, b, out)()
    assert spread(out, a @ b) < in_units(dtype)
    out[...] = np.nan
    np.testing.assert_array_equal(around, before)  # nothing beside it was touched


@pytest.mark.parametrize("real", ["float", "double"])
def test_the_kernels_compile_for_a_gpu(real: str, tmp_path: Path) -> None:
    compiler = shutil.which("nvcc")
    if compiler is None:
        pytest.skip("needs nvcc")
    source = tmp_path / "kernels.cu"
    source.write_text(MATMUL_SOURCE.replace("REAL", real))
    command = [compiler, "-ptx", "-Werror", "all-warnings", source, "-o", tmp_path / "kernels.ptx"]
    subprocess.run(command, check=True, capture_output=True)
    code = (tmp_path / "kernels.ptx").read_text()
    for name in ("matmul_tiled", "matmul_long"):
        assert f".entry {name}(" in code


# The stand-in: what CUDA refuses while a stream is captured.


@pytest.fixture
def capturing() -> Iterator[strict_cuda.Stream]:
    stream = strict_cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        yield stream
    with contextlib.suppress(strict_cuda.CUDARuntimeError):
        stream.end_capture()
    assert not stream.is_capturing()


@pytest.fixture
def x() -> strict_cupy.ndarray:
    return strict_cupy.asarray(HOST)


def test_work_that_is_captured_is_done_at_the_launch(x: strict_cupy.ndarray) -> None:
    xp, out = strict_cupy, strict_cupy.zeros((3, 4))
    pool, stream = xp.cuda.MemoryPool(), xp.cuda.Stream(non_blocking=True)
    with xp.cuda.using_allocator(pool.malloc), stream:
        xp.add(xp.sqrt(x), 1.0, out=out)
        out.fill(0)
        stream.begin_capture()
        xp.add(xp.sqrt(x), 1.0, out=out)
        out[0] *= 2.0
        graph = stream.end_capture()
    assert (out.get() == 0).all()
    for factor in (1.0, 4.0):
        x[...] = xp.asarray(factor * HOST)
        graph.launch()
        expected = np.sqrt(factor * HOST) + 1
        expected[0] *= 2
        np.testing.assert_array_equal(out.get(), expected)
    del pool
    with pytest.raises(strict_cuda.CUDARuntimeError, match="pool .* was deleted"):
        graph.launch()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda xp, x: x @ x.T, "cuBLAS"),
        (lambda xp, x: xp.matmul(x, x, out=x), "cuBLAS"),
        (lambda xp, x: x.get(), "copy to_host"),
        (lambda xp, x: float(x[0, 0]), "copy to_host"),
        (lambda xp, x: xp.asarray(HOST), "copy to_device"),
        (lambda xp, x: xp.concatenate([x] * 9, out=x), "copy to_device"),
        (lambda xp, x: xp.cuda.get_current_stream().synchronize(), "a captured stream waits"),
        (lambda xp, x: x + 1.0, "outside a pool"),
        (lambda xp, x: xp.cuda.get_current_stream().begin_capture(), "captured already"),
    ],
)
def test_while_capturing_the_stand_in_refuses(
    call: Callable[..., object],
    message: str,
    x: strict_cupy.ndarray,
    capturing: strict_cuda.Stream,
) -> None:
    with pytest.raises((NotImplementedError, strict_cuda.CUDARuntimeError), match=message):
        call(strict_cupy, x)


def test_while_capturing_a_pool_must_have_the_memory_ready(
    x: strict_cupy.ndarray, capturing: strict_cuda.Stream
) -> None:
    pool = strict_cupy.cuda.MemoryPool()
    with (
        strict_cupy.cuda.using_allocator(pool.malloc),
        pytest.raises(strict_cuda.CUDARuntimeError, match="no 512 bytes ready"),
    ):
        x + 1.0


def test_only_a_non_blocking_stream_is_captured() -> None:
    for stream in (strict_cupy.cuda.Stream(), strict_cupy.cuda.Stream.null):
        with pytest.raises(strict_cuda.CUDARuntimeError, match="only a non-blocking stream"):
            stream.begin_capture()


# Captured programs.


def counted(program: Program) -> int:
    """How many matrix products the library does in a program."""
    return sum(getattr(call, "func", None) is strict_cupy.matmul for call in program.calls)


def assert_captured(program: Program, draws: Sequence[Sequence[np.ndarray]]) -> None:
    """A program is captured, without a product of the library's, and gives the same launched."""
    captured = capture(program)
    assert isinstance(captured, CapturedProgram)
    names = captured.graph.names
    assert "matmul" not in names
    assert names.count("matmul_tiled") + names.count("matmul_long") == counted(program)
    for host in draws:
        arrays = [strict_cupy.asarray(array) for array in host]
        expected = [result.get() for result in program(*arrays)]
        for instruction in program.instructions:
            instruction.out.fill(np.nan if instruction.out.dtype.kind == "f" else True)
        strict_cupy.traffic.clear()
        found = captured(*arrays)
        assert strict_cupy.traffic == {"launch": 1}
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours.get(), theirs, rtol=1e-12, atol=1e-13)


SMALL_LENET = LeNet((3, 8, 8), classes=5, activation="softplus", hidden=4)
SMALL_MLP = MLP((1, 6, 6), classes=4, activation="relu", widths=(9, 7))


@pytest.mark.parametrize("stacked", [False, True], ids=["common weights", "stacked weights"])
@pytest.mark.parametrize(("attacks", "batch"), [(1, 1), (3, 1), (3, 2)])
@pytest.mark.parametrize(
    ("model", "known", "dtype"),
    [
        (LeNet(), False, "float64"),
        (MLP(), False, "float64"),
        *[
            (model, known, dtype)
            for model in (SMALL_LENET, SMALL_MLP)
            for known in (False, True)
            for dtype in ("float64", "float32")
        ],
    ],
    ids=lambda part: f"known={part}" if type(part) is bool else str(part),
)
def test_the_attack_s_program_is_captured(
    model: Any, known: bool, dtype: str, attacks: int, batch: int, stacked: bool
) -> None:
    settings = {"stacked": stacked, "known": known}
    objective = matching(strict_cupy, model, attacks, batch, dtype, **settings)
    draws = [[dummies(objective, attacks, seed)] for seed in range(3)]
    example = strict_cupy.asarray(draws.pop()[0])
    program = trace(objective.value_and_gradient, example, check=False)
    assert_captured(program, draws)
    on_the_host = matching(np, model, attacks, batch, dtype, **settings).value_and_gradient
    tolerance = 1e-12 if dtype == "float64" else 1e-2
    for (z,) in draws:
        expected = trace(on_the_host, z, check=False)(z)
        for ours, theirs in zip(program(strict_cupy.asarray(z)), expected, strict=True):
            assert spread(ours.get(), theirs) < tolerance


def value(case: Case, xs: Sequence[Tensor], constants: Sequence[Tensor]) -> list[Tensor]:
    return [case.ours(*xs, *constants)]


@pytest.mark.parametrize("compute", [value, gradients, second_order], ids=lambda f: f.__name__)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_primitive_is_captured(case: Case, compute: Callable[..., list[Tensor]]) -> None:
    constants = on_device(case.constants, strict_cupy)
    rng = np.random.default_rng(1)
    draws = [[np.asarray(case.draw(rng, shape)) for shape in case.shapes] for _ in range(2)]
    examples = [strict_cupy.asarray(array) for array in case.arrays()]
    program = trace(lambda *xs: tuple(compute(case, xs, constants)), *examples)
    assert_captured(program, draws)


def test_joining_many_arrays_is_captured() -> None:
    def joined(x: Tensor) -> Tensor:
        return ops.concatenate([x[row : row + 1] * float(row) for row in range(12)], axis=-1)

    program = trace(joined, strict_cupy.asarray(np.ones((12, 2))))
    assert_captured(program, [[np.arange(24.0).reshape(12, 2)]])


def test_a_captured_program_takes_what_the_program_takes() -> None:
    captured = capture(trace(lambda x: x * 2.0, strict_cupy.asarray(HOST)))
    with pytest.raises(ValueError, match=r"traced for float64 \(3, 4\) and was given float64 \(4"):
        captured(strict_cupy.asarray(HOST.T))
    (first,) = captured(strict_cupy.asarray(HOST))
    captured(strict_cupy.asarray(-HOST))
    np.testing.assert_array_equal(first.get(), 2 * HOST)  # a copy, which no launch overwrites


def test_a_program_on_a_gpu_is_not_exported() -> None:
    program = trace(lambda x: x * 2.0, strict_cupy.asarray(HOST))
    with pytest.raises(TypeError, match="on a GPU cannot be exported; trace the function on the C"):
        program.export()


# Where capturing fails.


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> list[strict_cuda.Stream]:
    """The streams that are made during a test."""
    made = []

    class Noted(strict_cuda.Stream):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            made.append(self)

    monkeypatch.setattr(strict_cupy.cuda, "Stream", Noted)
    return made


def refuse(self: object, *args: object) -> None:
    raise strict_cuda.CUDARuntimeError("cudaErrorNotPermitted")


def hide_a_product(program: Program) -> Program:
    a, out = (strict_cupy.zeros((2, 2)) for _ in range(2))
    hidden = [lambda: strict_cupy.matmul(a, a, out=out)]
    return dataclasses.replace(program, calls=(*program.calls, *hidden))


def read_a_number(program: Program) -> Program:
    return dataclasses.replace(program, calls=(*program.calls, program.outputs[0].get))


def wait_for_the_gpu(program: Program) -> Program:
    def wait() -> None:
        strict_cupy.cuda.get_current_stream().synchronize()

    return dataclasses.replace(program, calls=(*program.calls, wait))


def use_more_memory_each_time(program: Program) -> Program:
    kept = []
    calls = (*program.calls, lambda: kept.append(strict_cupy.ones(1000 * (len(kept) + 1))))
    return dataclasses.replace(program, calls=calls)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (hide_a_product, "cuBLAS"),
        (read_a_number, "copy to_host"),
        (wait_for_the_gpu, "a captured stream waits"),
        (use_more_memory_each_time, "bytes ready"),
    ],
    ids=lambda part: getattr(part, "__name__", None),
)
def test_what_cannot_be_captured_is_replayed(
    change: Callable[[Program], Program], message: str, streams: list[strict_cuda.Stream]
) -> None:
    x = strict_cupy.asarray(HOST)
    program = change(trace(lambda x: ops.exp(x) @ ops.swap_last_axes(x), x))
    with pytest.warns(RuntimeWarning, match=f"not captured as a CUDA graph .*{message}.*replayed"):
        assert capture(program) is program
    assert len(streams) == 1
    assert not streams[0].is_capturing()
    assert strict_cupy.cuda.get_current_stream() is strict_cuda.Stream.null
    (result,) = program(x)
    np.testing.assert_allclose(result.get(), np.exp(HOST) @ HOST.T, rtol=1e-14)


@pytest.mark.parametrize("method", ["begin_capture", "end_capture"])
def test_an_attack_goes_on_where_capturing_fails(
    method: str, streams: list[strict_cuda.Stream], monkeypatch: pytest.MonkeyPatch, gpu: None
) -> None:
    monkeypatch.setattr(strict_cuda.Stream, method, refuse)
    clients, _ = simulated(1)
    settings = Settings(iterations=4)
    with pytest.warns(RuntimeWarning, match="cudaErrorNotPermitted") as caught:
        (found,) = run(clients, settings, "cuda", restarts=3)
    assert len(caught) == len(streams) == 1
    assert strict_cupy.traffic["launch"] == 0
    (expected,) = run(clients, settings, "cpu", restarts=3)
    assert largest_difference(found, expected, 4) < 1e-12


# The attack.


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `device="cuda"` mean the stand-in."""
    modules = {"cpu": np, "cuda": strict_cupy}
    monkeypatch.setattr(many, "device_module", modules.__getitem__)


def run(
    clients: Sequence[Client], settings: Settings, device: str, **options: Any
) -> list[Reconstruction]:
    """Attack one client, or several at once."""
    options |= {"settings": settings, "device": device}
    if len(clients) == 1:
        return [attack(clients[0], **options)]
    return attack_many(clients, **options)


ATTACKS: dict[str, tuple[int, Settings, dict[str, Any]]] = {
    "one": (1, Settings(iterations=20), {}),
    "three restarts": (1, Settings(iterations=20), {"restarts": 3}),
    "many": (3, Settings(iterations=20), {}),
    "many with restarts": (2, Settings(iterations=20), {"restarts": 2}),
    "float32": (1, Settings(iterations=20, dtype="float32"), {}),
    "no line search": (1, Settings(iterations=1, line_search="none"), {"restarts": 2}),
    "eager": (1, Settings(iterations=3, compiled=False), {}),
}


@pytest.mark.parametrize("known", [False, True], ids=["free labels", "known labels"])
@pytest.mark.parametrize("name", ATTACKS)
def test_the_attack_is_the_same_on_either_device(name: str, known: bool, gpu: None) -> None:
    count, settings, options = ATTACKS[name]
    clients, truths = simulated(count)
    if known:
        labels = [truth.labels for truth in truths]
        options = options | {"labels": labels if count > 1 else labels[0]}
    expected = run(clients, settings, "cpu", **options)
    assert not strict_cupy.traffic
    found = run(clients, settings, "cuda", **options)
    for ours, theirs in zip(found, expected, strict=True):
        assert largest_difference(ours, theirs, 20) < 1e-9
        assert (ours.iterations, ours.evaluations) == (theirs.iterations, theirs.evaluations)
        assert ours.reason == theirs.reason
        assert spread(ours.images, theirs.images) < 1e-9
        np.testing.assert_allclose(ours.soft_labels, theirs.soft_labels, rtol=1e-9)
        assert type(ours.images) is type(ours.soft_labels) is np.ndarray


@pytest.mark.parametrize("name", [name for name in ATTACKS if name != "eager"])
def test_an_attack_reads_once_an_evaluation(name: str, gpu: None) -> None:
    count, settings, options = ATTACKS[name]
    seen = []

    def note(progress: Progress) -> None:
        seen.append((strict_cupy.traffic.copy(), strict_cuda.volume.copy()))

    clients, _ = simulated(count)
    found = run(clients, settings, "cuda", on_progress=note, **options)
    running = count * options.get("restarts", 1)
    quiet = 0
    for (before, bytes_before), (after, bytes_after) in zip(seen, seen[1:], strict=False):
        traffic, volume = after - before, bytes_after - bytes_before
        if traffic["synchronize"]:
            continue  # some attacks have ended: the others' program is traced and captured anew
        quiet += 1
        assert traffic["launch"] >= 1
        assert traffic["to_host"] == traffic["launch"]
        # Step lengths go over, and what is to be done; nothing of the size of an image.
        assert traffic["to_device"] <= 5 * traffic["launch"]
        assert volume["to_device"] <= 100 * running * traffic["launch"]
        assert volume["to_host"] <= 100 * running * traffic["launch"]
    assert quiet >= 15
    at_the_end = strict_cupy.traffic - seen[-1][0]
    assert at_the_end["to_host"] <= 3 * len(found)
    assert at_the_end["launch"] == 0


def test_a_lone_attack_sends_nothing_while_it_runs(gpu: None) -> None:
    sent = []

    def note(progress: Progress) -> None:
        sent.append(strict_cupy.traffic["to_device"])

    clients, _ = simulated(1)
    run(clients, Settings(iterations=20), "cuda", on_progress=note)
    assert len(sent) == 21
    assert len(set(sent[1:-1])) == 1


def test_progress_brings_images_over_when_they_are_asked_for(gpu: None) -> None:
    def look(progress: Progress) -> None:
        before = strict_cupy.traffic["to_host"]
        assert type(progress.distance) is float
        assert strict_cupy.traffic["to_host"] == before
        assert progress.images().shape == (1, 1, 28, 28)
        assert strict_cupy.traffic["to_host"] == before + 1

    clients, _ = simulated(1)
    run(clients, Settings(iterations=2), "cuda", on_progress=look)


def test_the_whole_attack_succeeds(gpu: None) -> None:
    clients, (truth,) = simulated(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (found,) = run(clients, Settings(goal=1e-10), "cuda")
    assert found.reason == "converged"
    assert np.square(found.images - truth.images).mean() < 1e-3
    assert found.labels == truth.labels
