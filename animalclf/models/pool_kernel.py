"""2 x 2 max pooling in NHWC order as one CUDA kernel, written in Triton, for layers that autograd does not follow.

PyTorch's own kernel also finds the place of each maximum, for a backward pass that never comes: it takes four times as long.
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
    column, row = (
        pixel % width_out,
        pixel // width_out,
    )  # rows count through all images: an image has an even number of rows
    first = maps + ((2 * row) * width + 2 * column) * channels + channel
    a = tl.load(first, mask=inside)
    b = tl.load(first + channels, mask=inside)
    c = tl.load(first + width * channels, mask=inside)
    d = tl.load(first + width * channels + channels, mask=inside)
    upper = tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)
    lower = tl.maximum(c, d, propagate_nan=tl.PropagateNan.ALL)
    tl.store(out + number, tl.maximum(upper, lower, propagate_nan=tl.PropagateNan.ALL), mask=inside)


def max_pool(maps: torch.Tensor) -> torch.Tensor:
    """As `F.max_pool2d(maps, 2)` for (N, C, H, W) of even H and W on a GPU, channels_last in memory; without a gradient."""
    count, channels, height, width = maps.shape
    out = torch.empty(
        (count, channels, height // 2, width // 2),
        dtype=maps.dtype,
        device=maps.device,
        memory_format=torch.channels_last,
    )
    if out.numel():
        _pool[(triton.cdiv(out.numel(), BLOCK),)](maps, out, out.numel(), channels, width // 2, width, BLOCK)
    return out
