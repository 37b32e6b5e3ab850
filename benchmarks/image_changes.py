"""Changes that make a near-duplicate of an image, and what different images have in common without being duplicates.

A change takes an image uint8 (H, W, 3) and a random generator. The same state of the generator gives the same frame,
caption, margins or watermark, so that DECOYS put the same one on different images.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]
WORDS = ["photographs", "of", "animals", "from", "all", "parts", "the", "world", "buy", "prints", "online", "today"]


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """`image` uint8 (H, W, 3) after a JPEG file of `quality`."""
    return np.asarray(
        cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)
    )


def crop(image: np.ndarray, left: float, right: float, top: float, bottom: float) -> np.ndarray:
    """`image` without these fractions of its width and height."""
    height, width = image.shape[:2]
    return image[round(top * height) : round((1 - bottom) * height), round(left * width) : round((1 - right) * width)]


def crop_anywhere(image: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """`image` without 2 x `fraction` of its width and height, cut at random from both sides."""
    left, top = rng.uniform(0, 2 * fraction, 2)
    return crop(image, left, 2 * fraction - left, top, 2 * fraction - top)


def gain(image: np.ndarray, factor: float, offset: float = 0) -> np.ndarray:
    return np.clip(image * factor + offset, 0, 255).round().astype(np.uint8)


def dark(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A quarter to a half of the brightness, with less light in the shadows, and noise."""
    shade = 255 * rng.uniform(0.25, 0.5) * (image / 255) ** rng.uniform(1, 1.5)
    return gain(shade + rng.normal(0, 2, image.shape), 1)


def stretch(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Another aspect ratio: one side times 0.55 to 0.8."""
    factors = np.roll([rng.uniform(0.55, 0.8), 1], rng.integers(2))
    return cv2.resize(image, None, fx=factors[0], fy=factors[1], interpolation=cv2.INTER_AREA)


def crop_shape(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Another aspect ratio: 25 to 40 % of one side are cut off."""
    first = rng.uniform(0.25, 0.4)
    low = rng.uniform(0, first)
    edges = [low, first - low, 0, 0] if rng.integers(2) else [0, 0, low, first - low]
    return crop(image, *edges)


def rotate(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rotated by 3 to 10 degrees; the corners are black, white or continued."""
    height, width = image.shape[:2]
    degrees = rng.uniform(3, 10) * rng.choice([-1, 1])
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1)
    colour, mode = [
        ((0,) * 3, cv2.BORDER_CONSTANT),
        ((255,) * 3, cv2.BORDER_CONSTANT),
        ((0,) * 3, cv2.BORDER_REPLICATE),
    ][rng.integers(3)]
    return cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=mode, borderValue=colour)


def material(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """A textured surface uint8 (height, width, 3), such as wood or stone."""
    colour = rng.uniform(40, 220, 3)
    grain = rng.normal(size=(height, width)).astype(np.float32)
    grain = cv2.GaussianBlur(grain, (0, 0), rng.uniform(0.6, 2), sigmaY=rng.uniform(2, 14))
    return gain(colour + grain[..., None] / grain.std() * rng.uniform(8, 25), 1)


def frame(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A frame of two materials, as wide as 6 to 14 % of the shorter side."""
    height, width = image.shape[:2]
    side = max(2, round(rng.uniform(0.06, 0.14) * min(height, width)))
    inner = round(side * rng.uniform(0.2, 0.6))
    out = material(height + 2 * side, width + 2 * side, np.random.default_rng(rng.integers(2**32)))
    out[inner:-inner, inner:-inner] = rng.uniform(0, 255, 3)
    out[side:-side, side:-side] = image
    return out


def caption(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A bar with two lines of text above or below, as high as 12 to 22 % of the image."""
    height, width = image.shape[:2]
    bar = max(8, round(height * rng.uniform(0.12, 0.22)))
    ink, paper = [(0, 0, 0), (255, 255, 255)][:: rng.choice([-1, 1])]
    strip = np.full((bar, width, 3), paper, np.uint8)
    for line in (0, 1):
        text = " ".join(rng.permutation(WORDS)[:8])
        cv2.putText(
            strip, text, (4, round(bar * (0.4 + 0.45 * line))), cv2.FONT_HERSHEY_SIMPLEX, bar / 80, ink, 1, cv2.LINE_AA
        )
    return np.concatenate([strip, image] if rng.integers(2) else [image, strip])


def margins(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """White or black margins of 5 to 25 % on two or four sides."""
    height, width = image.shape[:2]
    down, across = (
        rng.uniform(0.05, 0.25, (2, 2)) * [[height], [width]] * rng.permutation([[1, 1], [1, 0]])[:, :1]
    ).round()
    colour = (rng.choice([0, 255, 255]).item(),) * 3
    top, bottom, left, right = (int(side) for side in (*down, *across))
    return cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_CONSTANT, value=colour)


def watermark(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Translucent text in three lines across the image."""
    height, width = image.shape[:2]
    layer = image.copy()
    for line in range(3):
        place = (round(width * rng.uniform(0, 0.2)), round(height * (0.25 + 0.3 * line)))
        text = "-".join(rng.permutation(WORDS)[:3]).upper()
        cv2.putText(layer, text, place, cv2.FONT_HERSHEY_SIMPLEX, width / 350, (255, 255, 255), 2, cv2.LINE_AA)
    return cv2.addWeighted(layer, 0.6, image, 0.4, 0)


def photographed_print(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A print on a table, seen at an angle: perspective, rotated by up to 8 degrees, in uneven light."""
    height, width = image.shape[:2]
    out_height, out_width = (round(side * rng.uniform(1.15, 1.45)) for side in (height, width))
    angle = np.deg2rad(rng.uniform(-8, 8))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [width / 2, height / 2]
    seen_corners = (
        corners @ turn.T + rng.uniform(-0.06, 0.06, (4, 2)) * [width, height] + [out_width / 2, out_height / 2]
    )
    matrix = cv2.getPerspectiveTransform(
        np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32), seen_corners.astype(np.float32)
    )
    table = material(out_height, out_width, np.random.default_rng(rng.integers(2**32)))
    out = cv2.warpPerspective(image, matrix, (out_width, out_height), flags=cv2.INTER_LINEAR)
    inside = cv2.warpPerspective(np.ones((height, width), np.float32), matrix, (out_width, out_height))[..., None]
    low, high = rng.uniform(0.7, 1.1, 2)
    light = np.linspace(low, high, out_width)[:, None]
    return gain((inside * out + (1 - inside) * table) * light, 1)


WEAK: dict[str, Change] = {
    "mirror": lambda image, rng: image[:, ::-1],
    "turn 90": lambda image, rng: np.rot90(image, 1),
    "turn 180": lambda image, rng: np.rot90(image, 2),
    "turn 270": lambda image, rng: np.rot90(image, 3),
    "recompress q=30": lambda image, rng: jpeg(image, 30),
    "resize to 50 %": lambda image, rng: cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "crop 5 % a side": lambda image, rng: crop(image, 0.05, 0.05, 0.05, 0.05),
    "crop 5 % a side, off centre": lambda image, rng: crop_anywhere(image, 0.05, rng),
    "crop 10 % a side": lambda image, rng: crop(image, 0.1, 0.1, 0.1, 0.1),
    "crop 10 % a side, off centre": lambda image, rng: crop_anywhere(image, 0.1, rng),
    "crop 15 % of the width": lambda image, rng: crop(image, 0.15, 0, 0, 0),
    "brightness x 0.6": lambda image, rng: gain(image, 0.6),
    "brightness x 1.4": lambda image, rng: gain(image, 1.4),
    "contrast x 0.6": lambda image, rng: gain(image, 0.6, 51),
    "mirror, crop 5 % off centre": lambda image, rng: crop_anywhere(image, 0.05, rng)[:, ::-1],
    "mirror, darken x 0.6": lambda image, rng: gain(image[:, ::-1], 0.6),
    "turn 90, brighten x 1.4": lambda image, rng: gain(np.rot90(image), 1.4),
    "turn 90, crop 5 % a side": lambda image, rng: np.rot90(crop(image, 0.05, 0.05, 0.05, 0.05)),
    "crop 10 % off centre, darken x 0.6": lambda image, rng: gain(crop_anywhere(image, 0.1, rng), 0.6),
}
STRONG: dict[str, Change] = {
    "frame": frame,
    "caption": caption,
    "margins": margins,
    "watermark": watermark,
    "print": photographed_print,
    "crop to 80 %": lambda image, rng: crop_anywhere(image, 0.1, rng),
    "crop to 70 %": lambda image, rng: crop_anywhere(image, 0.15, rng),
    "crop to 60 %": lambda image, rng: crop_anywhere(image, 0.2, rng),
    "aspect ratio, stretched": stretch,
    "aspect ratio, cropped": crop_shape,
    "dark": dark,
    "recompress q=10": lambda image, rng: jpeg(image, 10),
    "rotate 3 to 10 degrees": rotate,
    "mirror, frame": lambda image, rng: frame(image[:, ::-1], rng),
    "crop to 80 %, margins, dark": lambda image, rng: margins(dark(crop_anywhere(image, 0.1, rng), rng), rng),
}
DECOYS: dict[str, Change] = {"frame": frame, "caption": caption, "margins": margins, "watermark": watermark}


def saved(image: np.ndarray, quality: int = 90) -> np.ndarray:
    """`image` uint8 (H, W, 3) of any strides as a JPEG file shows it."""
    return jpeg(np.ascontiguousarray(image), quality)


def modified(image: np.ndarray, change: str, rng: np.random.Generator) -> np.ndarray:
    """`image` uint8 (H, W, 3) after the change of that name, from a JPEG file."""
    return saved({**WEAK, **STRONG}[change](image, rng))


def decoys(images: list[np.ndarray], kind: str, seed: int) -> list[np.ndarray]:
    """The images with the same frame, caption, margins or watermark, which `seed` gives, from JPEG files."""
    return [saved(DECOYS[kind](image, np.random.default_rng(seed))) for image in images]


def drawn(seed: int, height: int = 225, width: int = 300, shapes: int = 400) -> np.ndarray:
    """An image uint8 (H, W, 3) of overlapping textured discs and boxes, whose sizes follow a power law: dead leaves,
    which have the statistics of photographs (Lee, Mumford, Huang 2001)."""
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width, 3), np.uint8)
    for radius in np.sort(2 + min(height, width) * 0.4 * rng.uniform(0, 1, shapes) ** 4)[::-1]:
        colour = rng.uniform(0, 255, 3) * 0.4 + rng.uniform(0, 255) * 0.6
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        if rng.integers(2):
            cv2.circle(image, (round(x), round(y)), round(radius), colour.tolist(), -1, cv2.LINE_AA)
        else:
            box = cv2.boxPoints(((x, y), (radius * 2, radius * rng.uniform(0.4, 2)), rng.uniform(0, 180)))
            cv2.fillConvexPoly(image, box.round().astype(np.int32), colour.tolist(), cv2.LINE_AA)
    noise = cv2.GaussianBlur(rng.normal(0, 20, image.shape).astype(np.float32), (0, 0), 1.5)
    return gain(image + noise, 1)
