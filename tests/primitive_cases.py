"""The table of cases that every primitive is tested on: what we compute, and what PyTorch does.

`test_ops.py` runs it four ways against PyTorch, `test_backend.py` once more on the stand-in for
CuPy. A primitive without a row fails a test.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from tinyleak import ops
from tinyleak.backend import array_module
from tinyleak.gradient import grad
from tinyleak.nn.pooling import pooling_windows
from tinyleak.tensor import Tensor

Shape = tuple[int, ...]


def normal(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    return rng.standard_normal(shape)


def positive(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    return rng.uniform(0.5, 2.0, shape)


def apart(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """No two alike, nor nearly: a maximum has its derivatives there."""
    return (rng.permutation(math.prod(shape)) / 4 - 1).reshape(shape)


@dataclass(frozen=True)
class Case:
    """One row: a function that uses a primitive, and the same function in PyTorch."""

    primitive: str
    ours: Callable[..., Tensor]
    torchs: Callable[..., torch.Tensor]
    shapes: tuple[Shape, ...]
    note: str = ""
    draw: Callable[[np.random.Generator, Shape], np.ndarray] = normal
    constants: tuple[np.ndarray, ...] = ()
    smooth: bool = True  # whether the gradient is that of the value, so that differences show it

    def __str__(self) -> str:
        shapes = " ".join("x".join(map(str, shape)) or "scalar" for shape in self.shapes)
        return " ".join(filter(None, (self.primitive, self.note, shapes)))

    def arrays(self) -> list[np.ndarray]:
        """The inputs, in float64 and the same each time."""
        rng = np.random.default_rng(7)
        return [np.asarray(self.draw(rng, shape)) for shape in self.shapes]


def on_device(arrays: Sequence[np.ndarray], xp: Any = np) -> list[Tensor]:
    return [Tensor(xp.asarray(array)) for array in arrays]


def weights(shape: Shape, seed: int = 8) -> np.ndarray:
    """Random weights, so that a wrong element of a gradient cannot hide in a sum."""
    return np.random.default_rng(seed).standard_normal(shape)


def gradients(case: Case, xs: Sequence[Tensor], constants: Sequence[Tensor]) -> list[Tensor]:
    """∂/∂x of Σ w · f(x)."""
    y = case.ours(*xs, *constants)
    return list(grad(ops.sum(y * on_device_of(y, weights(y.shape))), xs))


def second_order(case: Case, xs: Sequence[Tensor], constants: Sequence[Tensor]) -> list[Tensor]:
    """∂/∂x of ⟨v, ∂/∂x Σ w · f(x)²⟩; squared, so that it is not zero for a linear f."""
    y = case.ours(*xs, *constants)
    slopes = grad(ops.sum(y * y * on_device_of(y, weights(y.shape))), xs)
    terms = [ops.sum(s * on_device_of(s, weights(s.shape, 9))) for s in slopes]
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return list(grad(total, xs))


def on_device_of(like: Tensor, array: np.ndarray) -> Tensor:
    # Not `like.data`, which a Tensor that is being traced refuses.
    return Tensor(array_module(like._array).asarray(array.astype(like.dtype)))


def torch_unfold(x: torch.Tensor, kernel: Shape, stride: Shape, padding: Shape) -> torch.Tensor:
    """torch.nn.functional.unfold, from (…, H, W, C) to (…, oH, oW, kH, kW, C)."""
    *leading, height, width, channels = x.shape
    counts = [
        (n + 2 * p - k) // s + 1
        for n, k, s, p in zip((height, width), kernel, stride, padding, strict=True)
    ]
    images = x.reshape(-1, height, width, channels).permute(0, 3, 1, 2)
    columns = functional.unfold(images, kernel, stride=stride, padding=padding)
    windows = columns.reshape(-1, channels, *kernel, *counts).permute(0, 4, 5, 2, 3, 1)
    return windows.reshape(*leading, *counts, *kernel, channels)


def torch_fold(x: torch.Tensor, size: Shape, stride: Shape, padding: Shape) -> torch.Tensor:
    """torch.nn.functional.fold, from (…, oH, oW, kH, kW, C) to (…, H, W, C)."""
    *leading, down, across, high, wide, channels = x.shape
    windows = x.reshape(-1, down, across, high, wide, channels).permute(0, 5, 3, 4, 1, 2)
    columns = windows.reshape(-1, channels * high * wide, down * across)
    images = functional.fold(columns, size, (high, wide), stride=stride, padding=padding)
    return images.permute(0, 2, 3, 1).reshape(*leading, *size, channels)


def torch_scatter_add(
    x: torch.Tensor, indices: torch.Tensor, axis: int, length: int
) -> torch.Tensor:
    before, after = x.shape[:axis], x.shape[axis + indices.ndim :]
    flat = x.reshape(*before, indices.numel(), *after)
    zeros = torch.zeros(*before, length, *after, dtype=x.dtype)
    return zeros.index_add(axis, indices.reshape(-1), flat)


TWO_SHAPES = [((3, 4), (3, 4)), ((3, 4), (4,)), ((2, 1, 4), (3, 1)), ((), (2, 3)), ((2, 3), ())]
ONE_SHAPE = [((3, 4),), ((2, 1, 3),), ((),)]
MASK = np.array([[True, False, True, True], [False, False, True, False]])


def rows(
    primitive: str,
    ours: Callable[..., Tensor],
    torchs: Callable[..., torch.Tensor],
    shapes: Sequence[tuple[Shape, ...]],
    **settings: Any,
) -> list[Case]:
    return [Case(primitive, ours, torchs, each, **settings) for each in shapes]


ELEMENTWISE = [
    *rows("add", ops.add, torch.add, TWO_SHAPES),
    *rows("subtract", ops.subtract, torch.subtract, TWO_SHAPES),
    *rows("multiply", ops.multiply, torch.multiply, TWO_SHAPES),
    *rows("divide", ops.divide, torch.divide, TWO_SHAPES, draw=positive),
    *rows("negate", ops.negate, torch.negative, ONE_SHAPE),
    *rows("exp", ops.exp, torch.exp, ONE_SHAPE),
    *rows("log", ops.log, torch.log, ONE_SHAPE, draw=positive),
    *rows("sqrt", ops.sqrt, torch.sqrt, ONE_SHAPE, draw=positive),
    *rows("tanh", ops.tanh, torch.tanh, ONE_SHAPE),
    *rows("sin", ops.sin, torch.sin, ONE_SHAPE),
    *rows("cos", ops.cos, torch.cos, ONE_SHAPE),
    *rows("erf", ops.erf, torch.erf, ONE_SHAPE),
    *rows("sigmoid", ops.sigmoid, torch.sigmoid, ONE_SHAPE),
    *rows("softplus", ops.softplus, functional.softplus, ONE_SHAPE),
    *rows("maximum", ops.relu, torch.relu, ONE_SHAPE, note="relu"),
    *[
        Case("power", lambda x, e=e: x**e, lambda x, e=e: x**e, ((3, 4),), f"to the {e}", positive)
        for e in (0, 1, 2, 3, 0.5, -1.5)
    ],
    Case("power", lambda x: x**3, lambda x: x**3, ((3, 4),), "to the 3, of negatives"),
    *[
        case
        for name, compare in [("greater", operator.gt), ("greater_equal", operator.ge)]
        for case in rows(
            name,
            lambda a, b, compare=compare: ops.where(compare(a, b), a * b, a),
            lambda a, b, compare=compare: torch.where(compare(a, b), a * b, a),
            TWO_SHAPES,
        )
    ],
    *rows(
        "raise_to",
        lambda a, b: a**b,
        lambda a, b: a**b,
        TWO_SHAPES,
        draw=positive,
    ),
    Case("raise_to", lambda x: 1.5**x, lambda x: 1.5**x, ((3, 4),), "of a number"),
    *rows("maximum", ops.maximum, torch.maximum, TWO_SHAPES),
    *[
        Case(
            "where",
            lambda a, b, mask: ops.where(mask, a, b),
            lambda a, b, mask: torch.where(mask, a, b),
            shapes,
            constants=(MASK,),
        )
        for shapes in [((2, 4), (2, 4)), ((4,), (2, 1)), ((3, 1, 1), ()), ((), ())]
    ],
    *[
        Case(
            name,
            lambda a, b, compare=compare: compare(a, b) * a,
            lambda a, b, compare=compare: compare(a, b).to(a.dtype) * a,
            ((3, 4), (4,)),
            draw=lambda rng, shape: rng.integers(0, 3, shape).astype(float),
            smooth=False,
        )
        for name, compare in [("equal", operator.eq), ("not_equal", operator.ne)]
    ],
    *rows(
        "floating",
        lambda a, b: (a < b) * a,
        lambda a, b: (a < b).to(a.dtype) * a,
        TWO_SHAPES,
        note="of a mask",
    ),
    Case(
        "stop_gradient",
        lambda x: ops.stop_gradient(x) * x,
        lambda x: x.detach() * x,
        ((3, 4),),
        smooth=False,
    ),
]

REDUCTIONS = [
    *[
        Case(
            "broadcast_to",
            lambda x, to=to: ops.broadcast_to(x, shape=to),
            lambda x, to=to: torch.broadcast_to(x, to),
            (shape,),
            f"to {to}",
        )
        for shape, to in [((3, 1), (3, 4)), ((4,), (2, 3, 4)), ((), (2, 3)), ((1, 3, 1), (2, 3, 2))]
    ],
    *[
        Case(
            "sum_to",
            lambda x, to=to: ops.sum_to(x, shape=to),
            lambda x, to=to: x.sum_to_size(to),
            (shape,),
            f"to {to}",
        )
        for shape, to in [((3, 4), (3, 1)), ((2, 3, 4), (4,)), ((2, 3), ()), ((2, 3, 2), (1, 3, 1))]
    ],
    *[
        Case(
            "sum_to",
            lambda x, a=axes, k=keep, f=ours: f(x, a, keepdims=k),
            lambda x, a=axes, k=keep, f=torchs: f(x, dim=a, keepdim=k),
            ((2, 3, 4),),
            f"{ours.__name__} over {axes}{', kept' if keep else ''}",
        )
        for ours, torchs in [(ops.sum, torch.sum), (ops.mean, torch.mean)]
        for axes, keep in [(None, False), (0, False), (-1, True), ((0, 2), False), ((-1, 1), True)]
    ],
    *[
        Case(
            "amax",
            lambda x, a=axes, k=keep: ops.max(x, a, keepdims=k),
            lambda x, a=axes, k=keep: torch.amax(x, () if a is None else a, keepdim=k),
            ((2, 3, 4),),
            f"over {axes}{', kept' if keep else ''}",
            apart,
        )
        for axes, keep in [(None, False), (1, False), (-1, True), ((0, 2), False)]
    ],
    *[
        Case(
            "stop_gradient",
            lambda x, a=axis: ops.logsumexp(x, a),
            lambda x, a=axis: torch.logsumexp(x, a, keepdim=True),
            ((3, 4),),
            f"logsumexp over {axis}",
        )
        for axis in (-1, 0)
    ],
]

PRODUCTS = [
    *rows(
        "matmul",
        ops.matmul,
        torch.matmul,
        [
            ((3, 4), (4, 2)),
            ((2, 3, 4), (2, 4, 5)),
            ((2, 3, 4), (4, 5)),
            ((2, 1, 3, 4), (3, 4, 2)),
            ((1, 4), (4, 1)),
        ],
    ),
    *[
        Case(
            "inner",
            lambda a, b, n=axes: ops.inner(a, b, axes=n),
            lambda a, b, n=axes: (a * b).sum(dim=tuple(range(-n, 0))) if n else a * b,
            ((2, 3, 4), (2, 3, 4)),
            f"over {axes} axes",
        )
        for axes in (0, 1, 2, 3)
    ],
]

SHAPES = [
    *[
        Case(
            "reshape",
            lambda x, to=to: ops.reshape(x, to),
            lambda x, to=to: torch.reshape(x, to),
            (shape,),
            f"to {to}",
        )
        for shape, to in [
            ((3, 4), (2, 6)),
            ((2, 3, 4), (6, -1)),
            ((1,), ()),
            ((2, 3), (1, 2, 1, 3)),
        ]
    ],
    *[
        Case(
            "transpose",
            lambda x, axes=axes: ops.transpose(x, axes),
            lambda x, full=full: torch.permute(x, full),
            ((2, 3, 4),),
            f"by {axes}",
        )
        for axes, full in [((1, 0), (0, 2, 1)), ((2, 0, 1), (2, 0, 1)), ((1, 2, 0), (1, 2, 0))]
    ],
    Case("transpose", ops.swap_last_axes, lambda x: x.mT, ((2, 3, 4),), "swapped last axes"),
    *[
        Case(
            "pad_to",
            lambda x, w=widths: ops.pad(x, w),
            lambda x, w=widths: functional.pad(x, [n for pair in reversed(w) for n in pair]),
            ((2, 3, 4),),
            f"by {widths}",
        )
        for widths in [((1, 2),), ((0, 1), (2, 0)), ((1, 0), (0, 0), (0, 3))]
    ],
    *[
        Case(
            "crop_to",
            lambda x, w=widths: ops.crop(x, w),
            lambda x, w=widths: functional.pad(x, [-n for pair in reversed(w) for n in pair]),
            ((4, 3, 5),),
            f"by {widths}",
        )
        for widths in [((1, 2),), ((0, 1), (2, 0)), ((1, 0), (0, 0), (0, 3))]
    ],
    *[
        Case("crop_to", lambda x, k=key: x[k], lambda x, k=key: x[k], ((4, 5),), f"at {note}")
        for key, note in [
            (1, "1"),
            ((..., None, 2), "..., None, 2"),
            (-1, "-1"),
            (slice(1, 3), "1:3"),
            (slice(None, None, 2), "::2"),
            ((slice(None), 2), ":, 2"),
            ((slice(-3, None), slice(1, 100, 3)), "-3:, 1:100:3"),
            ((2, -2), "2, -2"),
        ]
    ],
    *[
        Case(
            "concatenate",
            lambda *xs, a=axis: ops.concatenate(xs, axis=a),
            lambda *xs, a=axis: torch.concatenate(xs, dim=a),
            shapes,
            f"along {axis}",
        )
        for axis, shapes in [
            (0, ((2, 3), (1, 3))),
            (1, ((2, 1), (2, 2), (2, 3))),
            (-1, ((2, 1, 2), (2, 1, 1))),
        ]
    ],
    *[
        Case(
            "concatenate",
            lambda *xs, a=axis: ops.stack(xs, a),
            lambda *xs, a=axis: torch.stack(xs, a),
            ((2, 3), (2, 3)),
            f"stacked along {axis}",
        )
        for axis in (0, 1, -1)
    ],
    Case(
        "crop_to",
        lambda x: ops.split(x, [1, 3, 2], axis=1)[1] * 2.0 + ops.split(x, [3, 3], axis=-1)[0],
        lambda x: torch.split(x, [1, 3, 2], dim=1)[1] * 2.0 + torch.split(x, [3, 3], dim=-1)[0],
        ((2, 6),),
        "split",
    ),
    *[
        Case(
            "take",
            lambda x, chosen, a=axis: ops.take(x, chosen, axis=a),
            lambda x, chosen, a=axis % 3: x[(slice(None),) * a + (chosen,)],
            ((3, 4, 2),),
            f"{indices.tolist()} along {axis}",
            constants=(indices,),
        )
        for axis, indices in [
            (0, np.array([2, 0, 2])),
            (1, np.array([[3, 0, 0], [1, 1, 2]])),
            (-1, np.array([1, 1, 1])),
            (1, np.array(2)),
        ]
    ],
    *[
        Case(
            "scatter_add",
            lambda x, places, a=axis: ops.scatter_add(x, places, axis=a, length=5),
            lambda x, places, a=axis: torch_scatter_add(x, places, a, 5),
            (shape,),
            f"at {indices.tolist()} along {axis}",
            constants=(indices,),
        )
        for axis, shape, indices in [
            (0, (3, 2), np.array([4, 0, 4])),
            (1, (2, 2, 3, 2), np.array([[3, 0, 0], [1, 1, 2]])),
            (2, (2, 3, 2), np.array([1, 1])),
        ]
    ],
]

WINDOWS = [
    # size, kernel, stride, padding
    ((5, 5), (3, 3), (1, 1), (0, 0)),
    ((6, 5), (2, 3), (2, 1), (1, 2)),
    ((7, 6), (5, 5), (2, 2), (2, 2)),
    ((7, 8), (2, 2), (3, 3), (0, 0)),
    ((4, 9), (1, 4), (1, 5), (0, 3)),
    ((3, 3), (3, 3), (1, 1), (0, 0)),
]


def window_cases(size: Shape, kernel: Shape, stride: Shape, padding: Shape) -> list[Case]:
    """`unfold` and `fold` of the same windows."""
    note = f"kernel {kernel} stride {stride} padding {padding}"
    image = (2, *size, 3)
    windows = ops.unfold(Tensor(np.zeros(image)), kernel, stride=stride, padding=padding).shape
    return [
        Case(
            "unfold",
            lambda x: ops.unfold(x, kernel, stride=stride, padding=padding),
            lambda x: torch_unfold(x, kernel, stride, padding),
            (image,),
            note,
        ),
        Case(
            "fold",
            lambda x: ops.fold(x, size, stride=stride, padding=padding),
            lambda x: torch_fold(x, size, stride, padding),
            (windows,),
            note,
        ),
    ]


CASES = [
    *ELEMENTWISE,
    *REDUCTIONS,
    *PRODUCTS,
    *SHAPES,
    *[case for setting in WINDOWS for case in window_cases(*setting)],
    *[
        Case(
            "winners",
            lambda x, s=size, how=how: ops.largest_of_windows(
                x, *pooling_windows((5, 6), *((n, n) for n in (s, *how[:3])), how[3])
            ),
            lambda x, s=size, how=how: functional.max_pool2d(
                x.permute(0, 3, 1, 2), s, *how
            ).permute(0, 2, 3, 1),
            ((2, 5, 6, 2),),
            f"{size} {how}",
            apart,
        )
        for size, how in [(2, (2, 0, 1, False)), (3, (2, 1, 1, True)), (2, (1, 1, 3, False))]
    ],
    Case(
        "unfold",
        lambda x: ops.unfold(x, (2, 2)),
        lambda x: torch_unfold(x, (2, 2), (1, 1), (0, 0)),
        ((2, 3, 4, 4, 1),),
        "two leading axes",
    ),
    Case(
        "fold",
        lambda x: ops.fold(x, (3, 3)),
        lambda x: torch_fold(x, (3, 3), (1, 1), (0, 0)),
        ((2, 2, 2, 2, 1),),
        "no leading axis",
    ),
]
