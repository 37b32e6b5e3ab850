"""Images of any size to their stored size as an ONNX graph: the pixels of data/resize.py, which uses OpenCV.

ONNX's own `Resize` differs from OpenCV by 1 of 255 in every tenth pixel (bilinear) or in one of two thousand (cubic),
because its positions are less exact. So bilinear resizing repeats OpenCV's fixed-point arithmetic, and cubic resizing
that of IPP in floating point, to which OpenCV leaves it on x86; of an image with a side below four pixels it is
fixed-point too.
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
def _positions(old, new):
    """The position of each new pixel among the old ones, float64."""
    pixels = op.Cast(op.Range(op.Constant(value_int=0), new, op.Constant(value_int=1)), to=DOUBLE.dtype)
    half, one = op.Cast(0.5, to=DOUBLE.dtype), op.Cast(1.0, to=DOUBLE.dtype)
    scale = one / (op.Cast(new, to=DOUBLE.dtype) / op.Cast(old, to=DOUBLE.dtype))
    return (pixels + half) * scale - half


@script(default_opset=op)
def _taps(old, new):
    """For each new pixel the old one before its position, int64, and the fraction of a pixel from it, float32."""
    position = op.Cast(_positions(old, new), to=FLOAT.dtype)
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
def _cubic_weights(x):
    """2048 times the weights of the four old pixels around positions with the fractions `x` (1, new), (4, new)."""
    first = ((-0.75 * (x + 1.0) + 3.75) * (x + 1.0) - 6.0) * (x + 1.0) + 3.0
    second = (1.25 * x - 2.25) * x * x + 1.0
    third = (1.25 * (1.0 - x) - 2.25) * (1.0 - x) * (1.0 - x) + 1.0
    return op.Concat(first, second, third, 1.0 - first - second - third, axis=0) * 2048.0


@script(default_opset=op)
def _cubic_taps(old, new, is_fixed):
    """The four old pixels around each new one, int64 (4, new), and 2048 times their weights, float64 (4, new, 1)."""
    zero, one = op.Constant(value_int=0), op.Constant(value_int=1)
    position = _positions(old, new)
    exact = _cubic_weights(op.Unsqueeze(position - op.Floor(position), [0]))
    before, fraction = _taps(old, new)
    fixed = op.Cast(op.Round(_cubic_weights(op.Unsqueeze(fraction, [0]))), to=DOUBLE.dtype)
    before = op.Where(is_fixed, before, op.Cast(op.Floor(position), to=INT64.dtype))
    offsets = op.Unsqueeze(op.Constant(value_ints=[-1, 0, 1, 2]), [1])
    pixels = op.Clip(op.Unsqueeze(before, [0]) + offsets, zero, old - one)
    return pixels, op.Unsqueeze(op.Where(is_fixed, fixed, exact), [2])


@script(default_opset=op)
def _cubic(images, height, width):
    """OpenCV's INTER_CUBIC for uint8. The longer side is resized first, so that intermediate pixels are few."""
    old_height, old_width = _sides(images)
    old_short, old_long = op.Min(old_height, old_width), op.Max(old_height, old_width)
    is_tall, is_fixed = old_height > old_width, old_short < op.Constant(value_int=4)
    if is_tall:
        wide = op.Transpose(images, perm=[0, 2, 1, 3])
    else:
        wide = op.Identity(images)
    taps, weights = _cubic_taps(old_long, op.Where(is_tall, height, width), is_fixed)
    rows = op.ReduceSum(op.Cast(op.Gather(wide, taps, axis=2), to=DOUBLE.dtype) * weights, [2], keepdims=0)
    taps, weights = _cubic_taps(old_short, op.Where(is_tall, width, height), is_fixed)
    sums = op.Gather(rows, taps, axis=1) * op.Unsqueeze(weights, [2])
    means = op.ReduceSum(sums, [1], keepdims=0) / op.Cast(4194304.0, to=DOUBLE.dtype)
    resized = op.Cast(op.Clip(op.Cast(op.Round(means), to=FLOAT.dtype), 0.0, 255.0), to=UINT8.dtype)
    if is_tall:
        upright = op.Transpose(resized, perm=[0, 2, 1, 3])
    else:
        upright = op.Identity(resized)
    return upright


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
