"""Images of any size to their stored size as an ONNX graph: the pixels of data/resize.py, which uses OpenCV.

Bilinear resizing repeats OpenCV's fixed-point arithmetic, because ONNX's own `Resize` differs from it by 1 of 255 in
every tenth pixel. Cubic resizing is ONNX's: it differs in one pixel of several thousand.
"""

# mypy: ignore-errors
# The decorated functions are a language of their own: onnxscript compiles their source to nodes of the graph.
from __future__ import annotations

import onnx
from onnx.inliner import inline_local_functions
from onnxscript import DOUBLE, FLOAT, INT32, INT64, UINT8, script
from onnxscript import opset20 as op

from animalclf.utils.canvas import SHORT_SIDE, STEP

OPSET = 20
_STEP, _SHORT_SIDE = float(STEP), SHORT_SIDE


@script(default_opset=op)
def _sides(images):
    """Height and width, int64 scalars."""
    shape = op.Shape(images)
    return op.Gather(shape, 1), op.Gather(shape, 2)


@script(default_opset=op)
def _taps(old, new):
    """For each new pixel the old one before its position, int64, and the fraction of a pixel from it, float32."""
    pixels = op.Cast(op.Range(op.Constant(value_int=0), new, op.Constant(value_int=1)), to=DOUBLE.dtype)
    half, one = op.Cast(0.5, to=DOUBLE.dtype), op.Cast(1.0, to=DOUBLE.dtype)
    scale = one / (op.Cast(new, to=DOUBLE.dtype) / op.Cast(old, to=DOUBLE.dtype))
    position = op.Cast((pixels + half) * scale - half, to=FLOAT.dtype)
    before = op.Floor(position)
    return op.Cast(before, to=INT64.dtype), position - before


@script(default_opset=op)
def _fixed_point(weight, shape):
    return op.Reshape(op.Cast(op.Round(weight * 2048.0), to=INT32.dtype), shape)


@script(default_opset=op)
def _linear(images, height, width):
    """OpenCV's INTER_LINEAR for uint8: weights of 11 bits, and the intermediate rows without their lowest 4 bits."""
    old_height, old_width = _sides(images)
    zero, one = op.Constant(value_int=0), op.Constant(value_int=1)
    pixels = op.Cast(images, to=INT32.dtype)

    left, fraction = _taps(old_width, width)
    last = old_width - one
    outside = op.Or(left < zero, left >= last)  # only here: rows beyond the edge keep their fraction
    left, fraction = op.Clip(left, zero, last), op.Where(outside, 0.0, fraction)
    right = op.Min(left + one, last)
    weight_left, weight_right = _fixed_point(1.0 - fraction, [-1, 1]), _fixed_point(fraction, [-1, 1])
    rows = op.Gather(pixels, left, axis=2) * weight_left + op.Gather(pixels, right, axis=2) * weight_right
    rows = rows / op.Cast(16, to=INT32.dtype)

    above, fraction = _taps(old_height, height)
    last = old_height - one
    below = op.Clip(above + one, zero, last)
    above = op.Clip(above, zero, last)
    weight_above, weight_below = _fixed_point(1.0 - fraction, [-1, 1, 1]), _fixed_point(fraction, [-1, 1, 1])
    low_bits = op.Cast(65536, to=INT32.dtype)
    upper = op.Gather(rows, above, axis=1) * weight_above / low_bits
    lower = op.Gather(rows, below, axis=1) * weight_below / low_bits
    return (upper + lower + op.Cast(2, to=INT32.dtype)) / op.Cast(4, to=INT32.dtype)


@script(default_opset=op)
def _means(pixels, height, width, factor_y, factor_x):
    """OpenCV's INTER_AREA for whole factors: int32 (N, height factor_y, width factor_x, 3) to uint8 (N, height,
    width, 3). Two by two pixels are rounded half up, all others half to even."""
    shape = op.Concat(
        op.Constant(value_ints=[0]), op.Unsqueeze(height, [0]), op.Unsqueeze(factor_y, [0]),
        op.Unsqueeze(width, [0]), op.Unsqueeze(factor_x, [0]), op.Constant(value_ints=[3]), axis=0,
    )  # fmt: skip
    sums = op.ReduceSum(op.Cast(op.Reshape(pixels, shape), to=FLOAT.dtype), [2, 4], keepdims=0)
    area = op.Cast(factor_y * factor_x, to=FLOAT.dtype)
    two_by_two = op.And(factor_y == op.Constant(value_int=2), factor_x == op.Constant(value_int=2))
    means = op.Where(two_by_two, op.Floor((sums + 2.0) / 4.0), op.Round(sums * (1.0 / area)))
    return op.Cast(means, to=UINT8.dtype)


@script(default_opset=op)
def _cubic(images, height, width):
    """OpenCV's INTER_CUBIC for uint8."""
    old_sides = op.Shape(images, start=1, end=3)
    new_sides = op.Concat(op.Unsqueeze(height, [0]), op.Unsqueeze(width, [0]), axis=0)
    channels = op.Transpose(op.Cast(images, to=FLOAT.dtype), perm=[0, 3, 1, 2])
    # One image of N * 3 channels: onnxruntime would move the transposition behind Resize, which then refuses to shrink.
    one = op.Constant(value_ints=[1])
    all_channels = op.Reshape(channels, op.Concat(one, op.Constant(value_ints=[-1]), old_sides, axis=0))
    sizes = op.Concat(op.Shape(all_channels, start=0, end=2), new_sides, axis=0)
    resized = op.Resize(
        all_channels, None, None, sizes,
        mode="cubic", cubic_coeff_a=-0.75, coordinate_transformation_mode="half_pixel",
    )  # fmt: skip
    shape = op.Concat(op.Constant(value_ints=[-1]), op.Constant(value_ints=[3]), new_sides, axis=0)
    rounded = op.Cast(op.Clip(op.Round(resized), 0.0, 255.0), to=UINT8.dtype)
    return op.Transpose(op.Reshape(rounded, shape), perm=[0, 2, 3, 1])


@script(default_opset=op)
def _factor(old, new):
    """Of the multiple of the new side that an image is resized to before its areas are averaged."""
    one, two = op.Constant(value_int=1), op.Constant(value_int=2)
    nearest = op.Cast(op.Round(op.Cast(old, to=DOUBLE.dtype) / op.Cast(new, to=DOUBLE.dtype)), to=INT64.dtype)
    return op.Where(old > new, op.Max(two, nearest), one)


@script(default_opset=op)
def _stretched(images, height, width):
    """data/resize.py: `_stretched`."""
    old_height, old_width = _sides(images)
    grows = op.Or(old_height < height, old_width < width)
    if grows:
        stretched = _cubic(images, height, width)
    else:
        factor_y, factor_x = _factor(old_height, height), _factor(old_width, width)
        stretched = _means(_linear(images, height * factor_y, width * factor_x), height, width, factor_y, factor_x)
    return stretched


@script(default_opset=op)
def _sides_on_canvas(old_height, old_width, canvas):
    """utils/canvas.py: `sides_on_canvas`."""
    height, width = op.Cast(old_height, to=DOUBLE.dtype), op.Cast(old_width, to=DOUBLE.dtype)
    short_side = op.Cast(op.Constant(value_float=_SHORT_SIDE), to=DOUBLE.dtype)
    step = op.Cast(op.Constant(value_float=_STEP), to=DOUBLE.dtype)
    scale = op.Min(canvas / op.Max(height, width), short_side * canvas / op.Min(height, width))
    new_height = op.Min(canvas, op.Max(step, op.Round(height * scale / step) * step))
    new_width = op.Min(canvas, op.Max(step, op.Round(width * scale / step) * step))
    return op.Cast(new_height, to=INT64.dtype), op.Cast(new_width, to=INT64.dtype)


def preprocessing(size: int, resize_mode: str) -> onnx.ModelProto:
    """The graph from `images` uint8 (N, H, W, 3), RGB, to `stored` uint8 (N, size, size, 3); with `resize_mode` "keep"
    to uint8 (N, h, w, 3), the canvas without its padding."""

    @script(default_opset=op)
    def squash(images):
        side = op.Constant(value_int=size)
        return _stretched(images, side, side)

    @script(default_opset=op)
    def keep(images):
        canvas = op.Constant(value_float=float(size))
        old_height, old_width = _sides(images)
        height, width = _sides_on_canvas(old_height, old_width, op.Cast(canvas, to=DOUBLE.dtype))
        return _stretched(images, height, width)

    squashes = resize_mode == "squash"
    sides = (size, size) if squashes else ("stored_height", "stored_width")
    model = (squash if squashes else keep).to_model_proto(
        input_types=[UINT8["batch", "height", "width", 3]], output_types=[UINT8["batch", *sides, 3]]
    )
    return inline_local_functions(model)
