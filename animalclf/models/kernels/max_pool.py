"""2 x 2 max pooling in NHWC order as one CUDA kernel in Triton, for layers without a gradient.

PyTorch's kernel also stores the position of each maximum for the backward pass, and takes four times as long.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

BLOCK = 1024  # outputs of one program


@triton.jit
def _pool(maps, out, total, channels, width_out, width, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    number = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = number < total
    channel, pixel = number % channels, number // channels
    # An image has an even number of rows, so rows can be counted through all images.
    column, row = pixel % width_out, pixel // width_out
    first = maps + ((2 * row) * width + 2 * column) * channels + channel
    a = tl.load(first, mask=inside)
    b = tl.load(first + channels, mask=inside)
    c = tl.load(first + width * channels, mask=inside)
    d = tl.load(first + width * channels + channels, mask=inside)
    upper = tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)
    lower = tl.maximum(c, d, propagate_nan=tl.PropagateNan.ALL)
    tl.store(out + number, tl.maximum(upper, lower, propagate_nan=tl.PropagateNan.ALL), mask=inside)


def max_pool(maps: torch.Tensor) -> torch.Tensor:
    """As `F.max_pool2d(maps, 2)`, for (N, C, H, W) of even H and W on a GPU in channels_last order; without a
    gradient."""
    count, channels, height, width = maps.shape
    shape = (count, channels, height // 2, width // 2)
    out = torch.empty(shape, dtype=maps.dtype, device=maps.device, memory_format=torch.channels_last)
    if out.numel():
        _pool[(triton.cdiv(out.numel(), BLOCK),)](maps, out, out.numel(), channels, width // 2, width, BLOCK)
    return out
