"""The affine warp of augmentation as one CUDA kernel in Triton: uint8 in, uint8 out, no intermediate in device memory.

`torch_form.warp` uses it on GPUs if Triton is installed (it comes with PyTorch's Linux wheels), and `grid_sample`
elsewhere.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

BLOCK = 256  # output pixels of one program


@triton.jit
def _warp(images, affine, out, stored_size, size, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    image = tl.program_id(0).to(tl.int64)
    pixel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < size * size
    x, y = (pixel % size).to(tl.float32), (pixel // size).to(tl.float32)
    row = affine + image * 6
    source_x = tl.load(row) * x + tl.load(row + 1) * y + tl.load(row + 2)
    source_y = tl.load(row + 3) * x + tl.load(row + 4) * y + tl.load(row + 5)
    last = (stored_size - 1).to(tl.float32)
    source_x = tl.minimum(tl.maximum(source_x, 0.0), last)  # the border pixel is repeated outside
    source_y = tl.minimum(tl.maximum(source_y, 0.0), last)
    left, top = source_x.to(tl.int32), source_y.to(tl.int32)  # truncation is the floor of numbers >= 0
    right, bottom = tl.minimum(left + 1, stored_size - 1), tl.minimum(top + 1, stored_size - 1)
    weight_x, weight_y = source_x - left.to(tl.float32), source_y - top.to(tl.float32)
    # Pointers to the first pixel of the stored image and to the output pixels.
    source = images + image * stored_size * stored_size * 3
    target = out + image * size * size * 3 + pixel * 3
    for channel in tl.static_range(3):
        top_left = tl.load(source + (top * stored_size + left) * 3 + channel, mask=inside, other=0).to(tl.float32)
        top_right = tl.load(source + (top * stored_size + right) * 3 + channel, mask=inside, other=0).to(tl.float32)
        bottom_left = tl.load(source + (bottom * stored_size + left) * 3 + channel, mask=inside, other=0).to(tl.float32)
        bottom_right = tl.load(source + (bottom * stored_size + right) * 3 + channel, mask=inside, other=0).to(
            tl.float32
        )
        upper = top_left + (top_right - top_left) * weight_x
        lower = bottom_left + (bottom_right - bottom_left) * weight_x
        tl.store(target + channel, (upper + (lower - upper) * weight_y + 0.5).to(tl.uint8), mask=inside)


def warp(images: torch.Tensor, affine: torch.Tensor, size: int) -> torch.Tensor:
    """As `torch_form.warp`, on one GPU: uint8 (N, S, S, 3), matrices float32 (N, 2, 3) -> uint8 (N, size, size, 3)."""
    out = torch.empty(len(images), size, size, 3, dtype=torch.uint8, device=images.device)
    if len(images):
        _warp[(len(images), triton.cdiv(size * size, BLOCK))](
            images.contiguous(), affine.contiguous(), out, images.shape[1], size, BLOCK
        )
    return out
