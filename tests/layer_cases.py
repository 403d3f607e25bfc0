"""The layers that ordinary networks are made of, beyond the paper's, beside PyTorch's."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from primitive_cases import Case, apart
from torch.nn import functional

from tinyleak import nn
from tinyleak.ops import concatenate
from tinyleak.tensor import Tensor

Shape = tuple[int, ...]


def convolution_case(image: Shape, weight: Shape, bias: bool = True, **how: Any) -> Case:
    outside = (weight[0],)
    return Case(
        "convolution",
        partial(nn.convolution, **how),
        partial(functional.conv2d, **how),
        (image, weight, outside) if bias else (image, weight),
        " ".join(f"{name} {value}" for name, value in how.items()),
    )


def transposed_case(image: Shape, weight: Shape, **how: Any) -> Case:
    names = {"extra": "output_padding"}
    theirs = {names.get(name, name): value for name, value in how.items()}
    return Case(
        "transposed_convolution",
        partial(nn.transposed_convolution, **how),
        lambda x, w, b: functional.conv_transpose2d(x, w, b, **theirs),
        (image, weight, (weight[1] * how.get("groups", 1),)),
        " ".join(f"{name} {value}" for name, value in how.items()),
    )


def pooling_case(image: Shape, kernel: Any, **how: Any) -> Case:
    names = {"ceil": "ceil_mode"}
    theirs = {names.get(name, name): value for name, value in how.items()}
    return Case(
        "max_pool2d",
        lambda x: nn.max_pool2d(x, kernel, **how),
        lambda x: functional.max_pool2d(x, kernel, **theirs),
        (image,),
        f"{kernel} {how}",
        apart,
    )


def average_case(image: Shape, kernel: Any, **how: Any) -> Case:
    names = {"ceil": "ceil_mode", "count_padding": "count_include_pad"}
    theirs = {names.get(name, name): value for name, value in how.items()}
    return Case(
        "avg_pool2d",
        lambda x: nn.avg_pool2d(x, kernel, **how),
        lambda x: functional.avg_pool2d(x, kernel, **theirs),
        (image,),
        f"{kernel} {how}",
    )


def padded_conv2d(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return functional.conv2d(functional.pad(x, (0, 3, 2, 1)), w)


def torch_gru(x: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
    start = torch.zeros(1, len(x), weights[1].shape[1], dtype=x.dtype)
    return torch._VF.gru(x, start, list(weights), True, 1, 0.0, False, False, True)[0]


def torch_lstm(x: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
    start = torch.zeros(1, len(x), weights[1].shape[1], dtype=x.dtype)
    return torch._VF.lstm(x, [start, start], list(weights), True, 1, 0.0, False, False, True)[0]


def both_ways(x: Tensor, *weights: Tensor) -> Tensor:
    forwards, _ = nn.gru(x, *weights)
    return concatenate([forwards, nn.gru(x, *weights, backwards=True)[0]], -1)


def torch_both_ways(x: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
    return torch.cat([torch_gru(x, *weights), torch_gru(x.flip(1), *weights).flip(1)], -1)


def torch_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **how: Any) -> torch.Tensor:
    # Of the fused forms none has a second derivative.
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        return functional.scaled_dot_product_attention(q, k, v, **how)


MASK = np.array([[True, True, False], [True, True, True]])
ROWS = np.array([[2, 0], [2, 1]])
GATES = ((2, 4, 3), (6, 3), (6, 2), (6,), (6,))

LAYERS = [
    convolution_case((2, 4, 5, 6), (6, 2, 3, 3), groups=2, padding=(1, 1)),
    convolution_case((2, 3, 5, 5), (3, 1, 3, 3), groups=3, padding=(1, 1), stride=(2, 1)),
    convolution_case((1, 2, 5, 4), (4, 1, 2, 3), False, groups=2),
    convolution_case((2, 2, 7, 6), (3, 2, 3, 2), dilation=(2, 3), padding=(2, 1)),
    convolution_case((1, 2, 8, 9), (4, 1, 3, 3), groups=2, dilation=(2, 2), stride=(3, 2)),
    # By tiles.
    convolution_case((3, 16, 6, 7), (17, 16, 3, 3), padding=(1, 1)),
    convolution_case((8, 17, 5, 6), (16, 17, 4, 4), padding=(1, 0)),
    convolution_case((4, 16, 5, 6), (16, 16, 5, 5), False, padding=(2, 2)),
    Case(
        "convolution",
        lambda x, w: nn.convolution(x, w, padding=((2, 1), (0, 3))),
        padded_conv2d,
        ((2, 2, 4, 3), (3, 2, 3, 2)),
        "padded per side",
    ),
    transposed_case((2, 3, 4, 3), (3, 2, 3, 2)),
    transposed_case((1, 4, 3, 3), (4, 1, 3, 3), stride=(2, 3), padding=(1, 1), groups=2),
    transposed_case((1, 2, 3, 2), (2, 3, 2, 3), stride=(2, 2), extra=(1, 1), dilation=(2, 3)),
    pooling_case((2, 3, 6, 7), (2, 2)),
    pooling_case((2, 3, 6, 7), (3, 2), stride=(1, 2)),
    pooling_case((1, 2, 7, 7), (3, 3), stride=(2, 2), padding=(1, 1)),
    pooling_case((1, 2, 6, 8), (3, 2), stride=(2, 3), dilation=(2, 1), ceil=True),
    pooling_case((1, 1, 5, 5), (2, 2), padding=(1, 1), ceil=True),
    average_case((2, 3, 6, 7), (3, 3), stride=(2, 2), padding=(1, 1)),
    average_case((2, 3, 6, 7), (3, 2), stride=(2, 2), padding=(1, 1), count_padding=False),
    average_case((1, 2, 7, 8), (2, 3), stride=(2, 2), padding=(1, 0), ceil=True),
    *[
        Case(
            "adaptive_avg_pool2d",
            lambda x, size=size: nn.adaptive_avg_pool2d(x, size),
            lambda x, size=size: functional.adaptive_avg_pool2d(x, size),
            ((2, 3, 7, 6),),
            f"to {size}",
        )
        for size in [(1, 1), (3, 3), (5, 2)]
    ],
    Case(
        "adaptive_max_pool2d",
        lambda x: nn.adaptive_max_pool2d(x, (3, 4)),
        lambda x: functional.adaptive_max_pool2d(x, (3, 4)),
        ((2, 3, 7, 6),),
    ),
    Case(
        "batch_norm_of_batch",
        nn.batch_norm_of_batch,
        lambda x, w, b: functional.batch_norm(x, None, None, w, b, training=True),
        ((2, 3, 4, 5), (3,), (3,)),
    ),
    *[
        Case(
            "group_norm",
            lambda x, w, b, groups=groups: nn.group_norm(x, groups, w, b),
            lambda x, w, b, groups=groups: functional.group_norm(x, groups, w, b),
            ((2, 4, 3, 2), (4,), (4,)),
            f"of {groups}",
        )
        for groups in (1, 2, 4)
    ],
    Case("attention", nn.attention, torch_attention, ((2, 3, 4), (2, 5, 4), (2, 5, 3))),
    Case(
        "attention",
        lambda q, k, v: nn.attention(q, k, v, causal=True, scale=0.7),
        lambda q, k, v: torch_attention(q, k, v, is_causal=True, scale=0.7),
        ((2, 3, 4), (2, 3, 4), (2, 3, 4)),
        "causal",
    ),
    Case(
        "attention",
        lambda q, k, v: nn.attention(q, k, v, mask=Tensor(MASK)),
        lambda q, k, v: torch_attention(q, k, v, attn_mask=torch.tensor(MASK)),
        ((2, 2, 4), (2, 3, 4), (2, 3, 4)),
        "masked",
    ),
    Case(
        "attention",
        lambda q, k, v, m: nn.attention(q, k, v, mask=m),
        lambda q, k, v, m: torch_attention(q, k, v, attn_mask=m),
        ((2, 2, 4), (2, 3, 4), (2, 3, 4), (2, 2, 3)),
        "biased",
    ),
    Case("gru", lambda *xs: nn.gru(*xs)[0], torch_gru, GATES),
    Case("gru", both_ways, torch_both_ways, GATES, "both ways"),
    Case("lstm", lambda *xs: nn.lstm(*xs)[0], torch_lstm, ((2, 4, 3), (8, 3), (8, 2), (8,), (8,))),
    Case("bilinear", nn.bilinear, functional.bilinear, ((3, 2), (3, 4), (5, 2, 4), (5,))),
    Case(
        "embedding",
        lambda table: nn.embedding(table, ROWS),
        lambda table: functional.embedding(torch.tensor(ROWS), table),
        ((3, 4),),
    ),
    Case("glu", nn.glu, functional.glu, ((3, 4),)),
]
