"""One picture of the demo set: a place, an animal in it, things in front of it, light and camera. Drawn at its final size in a few milliseconds."""

from __future__ import annotations

import functools

import cv2
import numpy as np

from animalclf.data.drawing.animals import ANIMALS, draw_animal
from animalclf.data.drawing.pen import COATS, limb, oval, spline

# (upper part, lower part) of a place: sky over grass, sky over sand, wall over floor, ...
PLACES = np.array(
    [
        [(150, 190, 230), (96, 140, 62)],
        [(206, 216, 226), (130, 150, 84)],
        [(240, 190, 140), (120, 104, 70)],
        [(170, 200, 222), (206, 184, 138)],
        [(190, 200, 214), (228, 232, 238)],
        [(140, 176, 206), (62, 110, 150)],
        [(206, 190, 164), (140, 98, 62)],
        [(150, 160, 164), (96, 90, 92)],
        [(188, 160, 150), (90, 70, 66)],
        [(60, 90, 56), (96, 120, 60)],
        [(40, 52, 44), (72, 62, 48)],
    ],
    float,
)
GREENS = np.array([(60, 104, 44), (96, 138, 56), (130, 150, 70), (46, 78, 50), (150, 130, 70)], float)
OBJECTS = np.array([*COATS.values(), *GREENS, (190, 60, 50), (70, 100, 150), (210, 170, 60)], float)


@functools.cache
def _noise() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """White noise, coarse noise and fur streaks, each float32 (1024, 1024) of unit deviation: cut, not drawn anew, for each picture."""
    white = np.random.default_rng(20240).normal(0, 1, (1024, 1024)).astype(np.float32)
    coarse = cv2.GaussianBlur(white, (0, 0), 4) + 0.4 * cv2.GaussianBlur(white[::-1], (0, 0), 1.5)
    fur = cv2.filter2D(white, -1, np.eye(9, dtype=np.float32)) + cv2.GaussianBlur(white, (0, 0), 3) * 4
    return white, coarse / coarse.std(), fur / fur.std()


def _cut(layer: int, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """A window of one layer of the noise, float32 (height, width); larger than 512 pixels it is enlarged."""
    h, w = min(height, 512), min(width, 512)
    y, x = rng.integers(1024 - h), rng.integers(1024 - w)
    window = _noise()[layer][y : y + h, x : x + w]
    return window if (h, w) == (height, width) else cv2.resize(window, (width, height))


def _add(image: np.ndarray, light: np.ndarray) -> np.ndarray:
    """`image` uint8 (H, W, 3) with `light` float32 (H, W) added to each channel."""
    return cv2.add(image, cv2.merge([light] * 3), dtype=cv2.CV_8U)


def _polygon(image: np.ndarray, points: np.ndarray, colour: np.ndarray) -> None:
    cv2.fillPoly(image, [np.rint(points * 16).astype(np.int32)], colour.tolist(), cv2.LINE_AA, 4)


def _thing(image: np.ndarray, x: float, y: float, size: float, rng: np.random.Generator) -> None:
    """A tree, bush, stone, box, post or ball at (x, y), `size` pixels high, in any colour an animal may have."""
    kind = rng.integers(6)
    colour = OBJECTS[rng.integers(len(OBJECTS))] * rng.uniform(0.7, 1.04)
    if kind == 0:
        _polygon(image, limb((x, y, size * 0.06), (x + rng.normal(0, size * 0.05), y - size, size * 0.04)), OBJECTS[4] * 0.8)
        for _ in range(5):
            _polygon(
                image, oval(x + rng.normal(0, size * 0.2), y - size + rng.normal(0, size * 0.15), size * 0.25, size * 0.2), GREENS[rng.integers(5)]
            )
    elif kind == 1:
        for _ in range(4):
            _polygon(image, oval(x + rng.normal(0, size * 0.3), y - size * rng.uniform(0.1, 0.3), size * 0.3, size * 0.22), GREENS[rng.integers(5)])
    elif kind == 2:
        corners = np.array([(-0.5, 0), (-0.4, -0.4), (0.0, -0.55), (0.4, -0.35), (0.5, 0)]) + rng.normal(0, 0.05, (5, 2))
        _polygon(image, spline(corners * size + (x, y)), colour)
    elif kind == 3:
        w, h = size * rng.uniform(0.3, 0.8), size * rng.uniform(0.3, 0.9)
        _polygon(image, np.array([(x - w / 2, y - h), (x + w / 2, y - h), (x + w / 2, y), (x - w / 2, y)]), colour)
    elif kind == 4:
        _polygon(image, limb((x, y, size * 0.05), (x + rng.normal(0, size * 0.2), y - size, size * 0.05)), colour)
    else:
        _polygon(image, oval(x, y - size * 0.3, size * rng.uniform(0.2, 0.5), size * rng.uniform(0.2, 0.35), rng.uniform(0, 3)), colour)


def background(height: int, width: int, near: bool, rng: np.random.Generator) -> np.ndarray:
    """An empty place, uint8 (height, width, 3): horizon and things, or (`near`) leaves and blobs close to the lens; sharp or out of focus."""
    shrink = int(rng.choice([1, 2, 3, 5]))  # drawn small and enlarged: out of focus, and quick
    h, w = -(-height // shrink), -(-width // shrink)
    upper, lower = PLACES[rng.integers(len(PLACES))] * rng.uniform(0.75, 1.1) + rng.normal(0, 8, (2, 3))
    horizon = 0 if near else int(h * rng.uniform(0.2, 0.68))
    fade = np.linspace(0, 1, h)[:, None]
    rows = np.where(np.arange(h)[:, None] < horizon, upper + (lower - upper) * 0.3 * fade, lower * (0.8 + 0.4 * fade))
    if near:
        rows = lower + (upper - lower) * (fade if rng.random() < 0.5 else 1 - fade) * rng.uniform(0, 1)
    image = np.repeat(np.clip(rows, 0, 255).astype(np.uint8)[:, None], w, 1)
    if near:
        for _ in range(int(rng.integers(2, 12))):
            x, y, r = rng.uniform(0, w), rng.uniform(0, h), rng.uniform(0.05, 0.3) * h
            colour = (OBJECTS if rng.random() < 0.3 else GREENS)[rng.integers(5)] * rng.uniform(0.6, 1.3)
            _polygon(image, oval(x, y, r, r * rng.uniform(0.25, 1), rng.uniform(0, 3)), np.clip(colour, 0, 255))
    else:
        if rng.random() < 0.4:  # hills
            tops = np.stack([np.linspace(-0.2, 1.2, 6) * w, horizon - rng.uniform(0, 0.25, 6) * h], 1)
            _polygon(
                image, np.vstack([spline(tops, closed=False), [(w * 1.2, horizon), (-w * 0.2, horizon)]]), (upper + lower) / 2 * rng.uniform(0.7, 1)
            )
        for _ in range(int(rng.integers(0, 6))):
            y = rng.uniform(horizon, h)
            _thing(image, rng.uniform(0, w), y, h * rng.uniform(0.15, 0.7), rng)
    if shrink > 1:
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return image


def _placing(height: int, width: int, small: bool, rng: np.random.Generator) -> np.ndarray:
    """Where the animal stands: the map (2, 3) from its units to pixels."""
    scale = min(width / 1.5, height / 1.15) * rng.uniform(0.7, 1.04)
    closeup = rng.random() < 0.12
    if closeup:
        scale *= rng.uniform(1.15, 1.45)
    angle = rng.uniform(-np.pi, np.pi) if small and rng.random() < 0.6 else np.radians(rng.normal(0, 6))
    mirror = rng.choice([-1.0, 1.0])
    sx, sy = scale * rng.uniform(0.88, 1.14), scale * rng.uniform(0.92, 1.08)
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[c * sx * mirror, -s * sy], [s * sx * mirror, c * sy]])
    middle = np.array((0.0, 0.0) if small else (0.3, -0.58) if closeup else (0.1, -0.47))
    place = np.array((width * rng.uniform(0.4, 0.6), height * rng.uniform(0.45, 0.6)))
    return np.hstack([turn, (place - turn @ middle)[:, None]])


def _shade(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Fur and roundness within the mask: streaks, and light from one side that falls off towards the other."""
    h, w = mask.shape
    small = cv2.resize(mask, (w // 3, h // 3), interpolation=cv2.INTER_AREA)
    reach = (max(h, w) // 40 | 1,) * 2
    soft = cv2.blur(cv2.blur(small, reach), reach).astype(np.float32) / 255
    dx, dy = rng.normal(0, 2), rng.uniform(1, 4)
    lit = cv2.warpAffine(soft, np.array([[1, 0, dx], [0, 1, dy]]), (w // 3, h // 3), borderMode=cv2.BORDER_REPLICATE)
    relief = cv2.resize((lit - soft) * np.float32(rng.uniform(-1.6, -0.8)) + soft * 0.25 - 0.2, (w, h))
    relief += _cut(2, h, w, rng) * np.float32(rng.uniform(0.02, 0.13))
    relief *= mask
    return cv2.multiply(image, cv2.merge([relief / 255 + 1] * 3), dtype=cv2.CV_8U)


def _foreground(image: np.ndarray, rng: np.random.Generator) -> None:
    """Something in front of the animal: blades of grass, a post or branch, a bush."""
    h, w = image.shape[:2]
    kind = rng.integers(3)
    colour = GREENS[rng.integers(5)]
    if kind == 0:
        left, span = rng.uniform(-0.2, 0.6) * w, rng.uniform(0.3, 1.0) * w
        for x in rng.uniform(left, left + span, 26):
            tip = (x + rng.normal(0, 0.04) * w, h - rng.uniform(0.05, 0.28) * h)
            _polygon(image, np.array([(x - 0.007 * w, h + 2), tip, (x + 0.007 * w, h + 2)]), np.clip(colour * rng.uniform(0.7, 1.25), 0, 255))
    elif kind == 1:
        ends = rng.uniform(-0.1, 1.1, 4) * (w, h, w, h)
        wide = rng.uniform(0.012, 0.035) * h
        x0, y0, x1, y1 = ends
        if rng.random() < 0.5:
            y0, y1 = -9.0, h + 9.0
        else:
            x0, x1 = -9.0, w + 9.0
        _polygon(
            image, limb((x0, y0, wide), ((x0 + x1) / 2, (y0 + y1) / 2, wide * 0.9), (x1, y1, wide * 0.8)), OBJECTS[rng.integers(len(OBJECTS))] * 0.85
        )
    else:
        x, y = rng.choice([0.05, 0.95]) * w, rng.uniform(0.5, 1.0) * h
        for _ in range(6):
            _polygon(image, oval(x + rng.normal(0, 0.08) * w, y + rng.normal(0, 0.1) * h, 0.09 * w, 0.1 * h), colour * rng.uniform(0.75, 1.1))


def _camera(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Light from one side, colour cast, exposure and contrast, a little blur and the sensor's noise."""
    h, w = image.shape[:2]
    if rng.random() < 0.3:
        size = int(rng.choice([3, 5]))
        image = cv2.GaussianBlur(image, (size, size), rng.uniform(0.5, 1.4))
    level, contrast, gamma = rng.uniform(-18, 18), rng.uniform(0.75, 1.15), rng.uniform(0.8, 1.25)
    tone = 255 * (np.arange(256) / 255) ** gamma
    table = (tone[:, None] - 128) * contrast * rng.uniform(0.93, 1.07, 3) + 128 + level
    image = cv2.LUT(image, np.clip(table, 0, 255).astype(np.uint8)[:, None])
    ramp = _cut(0, h, w, rng) * np.float32(rng.uniform(0.5, 7))
    ramp += np.linspace(-1, 1, w, dtype=np.float32) * np.float32(rng.normal(0, 16))
    ramp += np.linspace(-1, 1, h, dtype=np.float32)[:, None] * np.float32(rng.normal(0, 14))
    return _add(image, ramp)


def picture(name: str, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """One picture of class `name`, uint8 (height, width, 3) RGB; all its chance comes from `rng`."""
    small = ANIMALS[name].small
    image = background(height, width, rng.random() < (0.75 if small else 0.25), rng)
    matrix = _placing(height, width, small, rng)
    light = _cut(1, height, width, rng) * np.float32(rng.uniform(1, 9))
    if not small and rng.random() < 0.8:  # the animal's shadow on the ground
        x, y = matrix @ (0, 0, 1)
        reach = float(np.hypot(*matrix[:, 0]))
        shadow = np.zeros((height, width), np.uint8)
        _polygon(shadow, oval(x, y, reach * 0.5, reach * 0.06), np.array([255.0]))
        light -= cv2.blur(shadow, (9, 5)) * np.float32(rng.uniform(0.1, 0.25))
    image = _add(image, light)
    mask = draw_animal(name, image, matrix, rng)
    image = _shade(image, mask, rng)
    if rng.random() < 0.35:
        _foreground(image, rng)
    return _camera(image, rng)
