"""The part of the stand-in for CuPy that stands for CUDA: streams, graphs, memory pools, kernels.

All arrays here are NumPy's, those behind the arrays of `strict_cupy`, which sends every piece of
work through `run`. What is kept of the original:

- while a stream is captured nothing is computed: the work is written down, and done, as often as
  wanted, when the graph is launched;
- then cuBLAS refuses, nothing crosses between the memories, nothing may wait, and memory comes
  from a pool that has it lying ready: a block that was freed before;
- a pool gives a freed block out again, so that a graph whose pool is gone, or is used for
  something else, computes nonsense.
- `RawKernel` knows what the two kernels of `tinyleak.program.cuda` do with their arguments: each
  thread's reads must lie in the array that was passed, and the threads together must write every
  element exactly once.
"""

from __future__ import annotations

import contextlib
import re
import weakref
from collections import Counter
from functools import partial
from types import SimpleNamespace

import numpy as np

traffic: Counter[str] = Counter()
"""How often data crossed between the memories, the host waited, and a graph was launched."""

volume: Counter[str] = Counter()
"""How many bytes crossed between the memories."""

_BLOCK_BYTES = 512  # CuPy's pool rounds up to this
_CUBLAS = {"dot", "einsum", "inner", "matmul", "tensordot", "vdot"}


class CUDARuntimeError(RuntimeError):
    """What the driver raises."""


class _Shelf:
    """The memory of a pool that nobody uses at the moment."""

    def __init__(self):
        self.free = []
        self.gone = False  # whether the pool has been deleted, and its memory with it

    def take_back(self, raw):
        raw.fill(0xFF)  # as floating numbers: NaN
        self.free.append(raw)

    def clear(self):
        self.gone = True


class _Block:
    """Memory of a pool, in use for as long as there is an array that lies in it."""

    def __init__(self, shelf, raw):
        self.shelf = shelf
        self.raw = raw
        self.__array_interface__ = raw.__array_interface__
        weakref.finalize(self, shelf.take_back, raw).atexit = False


class MemoryPool:
    """Memory that is used again and again."""

    def __init__(self):
        self._shelf = _Shelf()
        weakref.finalize(self, self._shelf.clear).atexit = False

    def malloc(self, size):
        size = -(-max(size, 1) // _BLOCK_BYTES) * _BLOCK_BYTES
        for place, raw in enumerate(self._shelf.free):
            if raw.nbytes == size:
                return _Block(self._shelf, self._shelf.free.pop(place))
        if _current().is_capturing():
            raise CUDARuntimeError(f"the pool has no {size} bytes ready, and a stream is captured")
        return _Block(self._shelf, np.empty(size, np.uint8))


class Graph:
    """What was captured: calls to be made, in order.

    Attributes:
        names: what each call does.
    """

    def __init__(self):
        self.names = []
        self._calls = []
        self._shelves = set()

    def record(self, name, function, args, kwargs):
        self.names.append(name)
        self._calls.append(partial(function, *self._bare(args), **self._bare(kwargs)))

    def launch(self, stream=None):
        if _current().is_capturing():
            raise CUDARuntimeError("a graph was launched while a stream is captured")
        if any(shelf.gone for shelf in self._shelves):
            raise CUDARuntimeError("the memory pool that the graph computes in was deleted")
        traffic["launch"] += 1
        for call in self._calls:
            call()

    def _bare(self, value):
        """Replace arrays by others on the same memory: a graph keeps no block in use."""
        if isinstance(value, list | tuple):
            return type(value)([self._bare(entry) for entry in value])
        if isinstance(value, dict):
            return {key: self._bare(entry) for key, entry in value.items()}
        owner = value if isinstance(value, np.ndarray) else None
        while not isinstance(owner, _Block):
            if owner is None:
                return value
            owner = getattr(owner, "base", None)
        self._shelves.add(owner.shelf)
        places = [array.__array_interface__["data"][0] for array in (value, owner.raw)]
        offset = places[0] - places[1]
        return np.ndarray(value.shape, value.dtype, owner.raw, offset, value.strides)


class Stream:
    """A queue of work; here all of it is done at once, unless the stream is being captured."""

    null = None

    def __init__(self, null=False, non_blocking=False):
        self._capturable = non_blocking and not null
        self._graph = None
        self._broken = False

    def __enter__(self):
        _streams.append(self)
        return self

    def __exit__(self, *error):
        _streams.pop()

    def is_capturing(self):
        return self._graph is not None

    def synchronize(self):
        if self.is_capturing():
            self._broken = True
            raise CUDARuntimeError("cudaErrorStreamCaptureUnsupported: a captured stream waits")
        traffic["synchronize"] += 1

    def begin_capture(self, mode=None):
        if not self._capturable:
            raise CUDARuntimeError("only a non-blocking stream can be captured")
        if self.is_capturing():
            raise CUDARuntimeError("cudaErrorIllegalState: it is captured already")
        self._graph = Graph()

    def end_capture(self):
        if not self.is_capturing():
            raise CUDARuntimeError("cudaErrorIllegalState: no capture was begun")
        graph, self._graph = self._graph, None
        broken, self._broken = self._broken, False
        if broken:
            raise CUDARuntimeError("cudaErrorStreamCaptureInvalidated")
        return graph


Stream.null = Stream(null=True)
_streams = [Stream.null]
_allocators = [None]


def _current():
    return _streams[-1]


@contextlib.contextmanager
def _using_allocator(allocator=None):
    _allocators.append(allocator)
    try:
        yield
    finally:
        _allocators.pop()


def get_device_count():
    return 1


cuda = SimpleNamespace(
    Device=lambda: SimpleNamespace(synchronize=lambda: _current().synchronize()),
    Graph=Graph,
    MemoryPool=MemoryPool,
    Stream=Stream,
    get_current_stream=_current,
    runtime=SimpleNamespace(CUDARuntimeError=CUDARuntimeError, getDeviceCount=get_device_count),
    using_allocator=_using_allocator,
)
"""`cupy.cuda`."""


def crossing(direction, count):
    """Count a copy of so many bytes between the memories, `"to_host"` or `"to_device"`."""
    if _current().is_capturing():
        raise CUDARuntimeError(f"a copy {direction} was asked for while a stream is captured")
    traffic[direction] += 1
    volume[direction] += count


def waiting():
    """Count that the host waits for the device."""
    _current().synchronize()


def run(name, function, *args, writes=(), **kwargs):
    """Do work on host arrays, now or, if the current stream is being captured, in the graph.

    Args:
        name: what the work is called.
        function: what does it; it writes nothing but `writes` and `out`.
        args: its arguments.
        writes: which arrays it writes to; otherwise it makes a new one, or a view.
        kwargs: its further arguments.
    """
    graph = _current()._graph
    if graph is not None and name in _CUBLAS:
        raise NotImplementedError(
            "calling cuBLAS API during stream capture is currently unsupported"
        )
    if kwargs.get("out") is not None:
        writes = (kwargs["out"],)
    if graph is not None and len(writes) > 0:
        graph.record(name, function, args, kwargs)
        return kwargs.get("out")
    result = function(*args, **kwargs)
    if isinstance(result, np.generic):
        result = np.asarray(result)
    if len(writes) > 0 or not isinstance(result, np.ndarray) or _is_view(result, (args, kwargs)):
        return result
    made = _allocated(result)
    if graph is not None:
        graph.record(name, _fill, (made, function, args, kwargs), {})
        if made.dtype.kind == "f":
            made.fill(np.nan)
    return made


def _fill(target, function, args, kwargs):
    target[...] = function(*args, **kwargs)


def _is_view(result, arguments):
    """Whether a result looks at the memory of one of the arguments."""
    return any(np.may_share_memory(result, array) for array in _arrays_in(arguments))


def _arrays_in(value):
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from _arrays_in(entry)
    elif isinstance(value, dict):
        yield from _arrays_in(list(value.values()))


def _allocated(result):
    """Give a new array the memory that CuPy would: of the pool, if one is in use."""
    if _allocators[-1] is None:
        if _current().is_capturing():
            raise CUDARuntimeError("memory was allocated, outside a pool, during a capture")
        return result
    block = np.asarray(_allocators[-1](result.nbytes))
    made = np.ndarray(result.shape, result.dtype, block, strides=result.strides)
    made[...] = result
    return made


_TYPES = {"double*": np.float64, "float*": np.float32, "int": np.int32, "long long": np.int64}


class RawKernel:
    """One of the two matrix products of `tinyleak.program.cuda`, thread by thread."""

    def __init__(self, code, name, options=(), backend="nvrtc"):
        declared = re.search(rf'extern "C" __global__ void {name}\((.*?)\)', code, re.DOTALL)
        if declared is None:
            raise ValueError(f"the source has no kernel {name}")
        self.name = name
        self.types = [re.sub(r"\s*\w+$", "", part.strip()) for part in declared[1].split(",")]

    def __call__(self, grid, block, args, *, shared_mem=0):
        self._check_arguments(grid, block, args)
        a, b, c, *numbers = (getattr(arg, "_host", arg) for arg in args)
        inner, rows, depth, columns, *steps = (int(number) for number in numbers)
        _check_threads(self.name, grid, block, rows, columns)
        assert grid[2] % inner == 0, "the matrices are numbered along two axes"
        leading = (grid[2] // inner, inner)
        left = _reached(a, (*leading, rows, depth), steps[0:4])
        right = _reached(b, (*leading, depth, columns), steps[4:8])
        target = _reached(c, (*leading, rows, columns), steps[8:12])
        assert not np.may_share_memory(a, c) and not np.may_share_memory(b, c)
        assert target.size == c.size == np.unique(_places(target)).size, "once and only once"
        run(self.name, _multiply, left, right, target, writes=(target,))

    def _check_arguments(self, grid, block, args):
        assert len(grid) == len(block) == 3, (grid, block)
        assert min(grid) > 0 and grid[0] < 2**31 and max(grid[1:]) < 2**16, grid
        assert np.prod(block) <= 1024, block
        assert len(args) == len(self.types), (args, self.types)
        for arg, declared in zip(args, self.types, strict=True):
            wanted = _TYPES[declared.removeprefix("const ")]
            assert arg.dtype == wanted and hasattr(arg, "_host") == ("*" in declared), arg


def _check_threads(name, grid, block, rows, columns):
    """Check that the threads of the grid compute each element of a matrix once."""
    if name == "matmul_tiled":
        assert tuple(block) == (16, 16, 1), "a block of 16 x 16 shares its tiles"
        i, j = np.meshgrid(np.arange(grid[1] * 16), np.arange(grid[0] * 16), indexing="ij")
        element = (i * columns + j)[(i < rows) & (j < columns)]
    else:
        assert block[0] == 32 and grid[1] == block[2] == 1, "a warp sums up an element"
        element = np.arange(grid[0] * block[1])
        element = element[element < rows * columns]
    assert np.array_equal(np.sort(element), np.arange(rows * columns)), "once and only once"


def _multiply(left, right, target):
    target[...] = left @ right


def _reached(array, shape, steps):
    """The elements that a kernel reaches from an array's first one, by steps of elements."""
    strides = [step * array.itemsize for step in steps]
    found = np.lib.stride_tricks.as_strided(array, shape, strides)
    low, high = np.lib.array_utils.byte_bounds(found)
    first, last = np.lib.array_utils.byte_bounds(array)
    assert first <= low and high <= last, "a thread reads or writes beside the array"
    return found


def _places(array):
    """Where each element lies, in bytes from the first."""
    indices = np.indices(array.shape)
    return sum(n * step for n, step in zip(indices, array.strides, strict=True))
