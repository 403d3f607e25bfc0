"""A program as a CUDA graph: captured once, then launched as one call an evaluation.

A launch of one small kernel costs the processor more time than the GPU needs to run it. A captured
graph launches all of a program's kernels at once. CuPy refuses its cuBLAS products while a stream
is being captured, so a captured program brings two small matrix products of its own; the matrices
here are small. The primitives know nothing of this: the calls are exchanged at capture time.

Lesson: lessons/14_a_graph_is_a_program.py
"""

import math
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any, NoReturn

import numpy as np

from tinyleak.backend import Array, array_module
from tinyleak.program.library import Call, shares_memory
from tinyleak.program.program import Program

TILE = 16  # rows and columns of C that a block computes: 256 threads
WARP = 32  # threads that run in step, on every NVIDIA GPU
WARPS_IN_BLOCK = 8  # 256 threads to a block again

MATMUL_SOURCE = r"""
// C[p, q, i, j] = sum over k of A[p, q, i, k] B[p, q, k, j], for any strides, in elements.
// The matrices are numbered by blockIdx.z = p * inner + q.

// One thread for each element of C; a block of 16 x 16 shares what it reads.
extern "C" __global__ void matmul_tiled(
    const REAL* a, const REAL* b, REAL* c, int inner, int rows, int depth, int columns,
    long long a_outer, long long a_inner, long long a_row, long long a_column,
    long long b_outer, long long b_inner, long long b_row, long long b_column,
    long long c_outer, long long c_inner, long long c_row, long long c_column)
{
    __shared__ REAL a_tile[16][17];
    __shared__ REAL b_tile[16][17];
    const int x = threadIdx.x, y = threadIdx.y;
    const int i = blockIdx.y * 16 + y, j = blockIdx.x * 16 + x;
    const int p = blockIdx.z / inner, q = blockIdx.z % inner;
    a += p * a_outer + q * a_inner;
    b += p * b_outer + q * b_inner;
    c += p * c_outer + q * c_inner;
    REAL total = 0;
    for (int start = 0; start < depth; start += 16) {
        const int ka = start + x, kb = start + y;
        a_tile[y][x] = (i < rows && ka < depth) ? a[i * a_row + ka * a_column] : REAL(0);
        b_tile[y][x] = (kb < depth && j < columns) ? b[kb * b_row + j * b_column] : REAL(0);
        __syncthreads();
        #pragma unroll
        for (int k = 0; k < 16; ++k) total += a_tile[y][k] * b_tile[k][x];
        __syncthreads();
    }
    if (i < rows && j < columns) c[i * c_row + j * c_column] = total;
}

// One warp for each element of C: the lanes share a long sum, as in an inner product.
extern "C" __global__ void matmul_long(
    const REAL* a, const REAL* b, REAL* c, int inner, int rows, int depth, int columns,
    long long a_outer, long long a_inner, long long a_row, long long a_column,
    long long b_outer, long long b_inner, long long b_row, long long b_column,
    long long c_outer, long long c_inner, long long c_row, long long c_column)
{
    const int lane = threadIdx.x;
    const long long element = (long long)blockIdx.x * blockDim.y + threadIdx.y;
    if (element >= (long long)rows * columns) return;
    const int i = element / columns, j = element % columns;
    const int p = blockIdx.z / inner, q = blockIdx.z % inner;
    a += p * a_outer + q * a_inner + i * a_row;
    b += p * b_outer + q * b_inner + j * b_column;
    c += p * c_outer + q * c_inner;
    REAL total = 0;
    for (int k = lane; k < depth; k += 32) total += a[k * a_column] * b[k * b_row];
    for (int step = 16; step > 0; step /= 2)
        total += __shfl_down_sync(0xffffffffu, total, step);
    if (lane == 0) c[i * c_row + j * c_column] = total;
}
"""


class CapturedProgram:
    """A program on the GPU that is launched as one CUDA graph.

    Called like the program, and gives the same; arrays stay on the GPU.
    """

    def __init__(self, program: Program, graph: Any, pool: Any, calls: Sequence[Call]) -> None:
        self.program, self.graph = program, graph  # which uses the program's buffers
        # What the graph allocated, and the kernels it launches, live as long as the graph.
        self._pool, self._calls = pool, calls

    def __call__(self, *arrays: Array) -> tuple[Array, ...]:
        """Copy the arrays in, launch the graph, return copies of the outputs; as a `Program`."""
        return self.program.run(self.graph.launch, arrays)

    def __reduce__(self) -> NoReturn:
        self.program.__reduce__()


def capture(program: Program) -> Program | CapturedProgram:
    """Capture a program on the GPU as a CUDA graph.

    Where that fails the program itself is returned, which replays call by call, and a warning
    says so once.
    """
    module = array_module(*program.inputs)
    stream = None
    capturing = False
    try:
        calls = [capturable(module, call) for call in program.calls]
        pool = module.cuda.MemoryPool()
        # The null stream cannot be captured, nor one that waits for it.
        stream = module.cuda.Stream(non_blocking=True)
        module.cuda.get_current_stream().synchronize()
        with module.cuda.using_allocator(pool.malloc), stream:
            # Once before: kernels are compiled, and the pool is filled, outside the capture.
            _run(calls)
            stream.synchronize()
            stream.begin_capture()
            capturing = True
            _run(calls)
            graph = stream.end_capture()
            capturing = False
    except Exception as error:  # whatever the driver refuses, the program can be replayed
        if capturing and stream is not None:
            _abandon(stream)
        warnings.warn(
            f"the program was not captured as a CUDA graph ({error}); it is replayed call by call",
            RuntimeWarning,
            stacklevel=2,
        )
        return program
    return CapturedProgram(program, graph, pool, calls)


def capturable(module: Any, call: Call) -> Call:
    """Exchange a call of the library's matrix product for one of ours."""
    if isinstance(call, partial) and call.func is module.matmul:
        return product(module, *call.args, **call.keywords)
    return call


def product(module: Any, a: Array, b: Array, out: Array) -> Call:
    """Return the call of our own kernel that computes `a @ b` into `out`.

    They are CuPy's: (…, n, k) and (…, k, m), of any strides, whose leading axes broadcast, and (…,
    n, m). A ValueError where the leading axes cannot be merged into the same two.
    """
    a, b, c = _two_leading_axes(module, a, b, out)
    outer, inner, rows, columns = c.shape
    depth = a.shape[-1]
    size = out.dtype.itemsize
    arguments = [a, b, c, *(np.int32(n) for n in (inner, rows, depth, columns))]
    arguments += [np.int64(step // size) for x in (a, b, c) for step in x.strides]
    source = MATMUL_SOURCE.replace("REAL", "double" if size == 8 else "float")
    if depth >= 2 * WARP and c.size <= 2**16:
        kernel = module.RawKernel(source, "matmul_long")
        grid = (-(-rows * columns // WARPS_IN_BLOCK), 1, outer * inner)
        block = (WARP, WARPS_IN_BLOCK, 1)
    else:
        kernel = module.RawKernel(source, "matmul_tiled")
        grid = (-(-columns // TILE), -(-rows // TILE), outer * inner)
        block = (TILE, TILE, 1)
    return partial(kernel, grid, block, tuple(arguments))


def _two_leading_axes(module: Any, a: Array, b: Array, out: Array) -> list[Array]:
    """View matrices (…, n, m) as (outer, inner, n, m), whose strides a kernel can follow.

    One axis would not do: weights of R networks, (R, 1, …), broadcast over N images each.
    """
    leading = out.shape[:-2]
    arrays = [*(module.broadcast_to(x, leading + x.shape[-2:]) for x in (a, b)), out]
    for split in range(len(leading) + 1):
        numbered = math.prod(leading[:split]), math.prod(leading[split:])
        views = [x.reshape((*numbered, *x.shape[-2:])) for x in arrays]
        if all(shares_memory(module, *pair) for pair in zip(views, arrays, strict=True)):
            return views
    raise ValueError(
        f"the matrices of {a.shape} @ {b.shape} cannot be numbered along two axes; "
        "give them at most one leading axis that broadcasts"
    )


def _run(calls: Sequence[Call]) -> None:
    for call in calls:
        call()


def _abandon(stream: Any) -> None:
    """End a capture that failed, so that the stream and the device are usable again."""
    try:
        stream.end_capture()
    except Exception:
        return
