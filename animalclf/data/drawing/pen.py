"""The pen that draws the animals: smooth outlines, ovals and tapering limbs in an animal's own units, antialiased, with OpenCV."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

RGB = np.ndarray  # float (3,), 0..255

COATS: dict[str, tuple[int, int, int]] = {
    "white": (236, 232, 224),
    "cream": (226, 205, 170),
    "tan": (184, 148, 108),
    "ginger": (198, 116, 54),
    "brown": (124, 82, 50),
    "dark": (74, 54, 44),
    "black": (42, 40, 44),
    "grey": (146, 144, 142),
    "slate": (100, 102, 110),
}
BLACK, WHITE, PINK, RED, HORN = (
    np.array(colour, float) for colour in ((24, 20, 22), (248, 246, 240), (222, 150, 146), (200, 44, 36), (222, 206, 160))
)
VIVID = np.array(
    [(236, 120, 30), (60, 110, 210), (240, 206, 60), (170, 60, 150), (220, 60, 50), (80, 170, 190), (238, 234, 220), (120, 84, 50)], float
)

_CATMULL_ROM = np.array([[0, 2, 0, 0], [-1, 0, 1, 0], [2, -5, 4, -1], [-1, 3, -3, 1]]) / 2
_STEPS = 6  # points a piece of a spline
_WEIGHTS = np.vander(np.arange(_STEPS) / _STEPS, 4, increasing=True) @ _CATMULL_ROM
_TURN = np.arange(28) * (2 * np.pi / 28)
_CIRCLE = np.stack([np.cos(_TURN), np.sin(_TURN)], 1)
_CAP = np.stack([np.cos(_TURN[2:14:2]), np.sin(_TURN[2:14:2])], 1)  # half a circle


def spline(points: Sequence[Sequence[float]] | np.ndarray, closed: bool = True) -> np.ndarray:
    """A smooth curve (Catmull-Rom) through `points` (K, D): float (6 K, D) closed, (6 (K - 1) + 1, D) open."""
    p = np.asarray(points, float)
    padded = np.concatenate([p[-1:], p, p[:2]] if closed else [p[:1], p, p[-1:]])
    pieces = len(padded) - 3
    windows = np.stack([padded[k : k + pieces] for k in range(4)], 1)
    curve = (_WEIGHTS @ windows).reshape(pieces * _STEPS, p.shape[1])
    return curve if closed else np.concatenate([curve, p[-1:]])


def oval(x: float, y: float, rx: float, ry: float, angle: float = 0.0) -> np.ndarray:
    """Outline of an ellipse turned by `angle` (radians), float (28, 2)."""
    c, s = np.cos(angle), np.sin(angle)
    return _CIRCLE @ np.array([(rx * c, rx * s), (-ry * s, ry * c)]) + (x, y)


def limb(*joints: tuple[float, float, float]) -> np.ndarray:
    """Outline of a bent, tapering tube with round ends through joints (x, y, half width), float (N, 2)."""
    curve = spline(joints, closed=False)
    centre, half = curve[:, :2], curve[:, 2:]
    along = np.empty_like(centre)
    along[1:-1] = centre[2:] - centre[:-2]
    along[0], along[-1] = centre[1] - centre[0], centre[-1] - centre[-2]
    along /= np.maximum(np.hypot(along[:, :1], along[:, 1:]), 1e-9)
    across = along[:, ::-1] * (-1, 1)
    side = half * across
    end = centre[-1] + half[-1] * (_CAP @ np.stack([across[-1], along[-1]]))
    start = centre[0] - half[0] * (_CAP @ np.stack([across[0], along[0]]))
    return np.concatenate([centre + side, end, (centre - side)[::-1], start])


@dataclass(frozen=True)
class Pen:
    """Where to draw: picture uint8 (H, W, 3), the animal's mask uint8 (H, W), the map (2, 3) from the animal's units to pixels, and the chance."""

    image: np.ndarray
    mask: np.ndarray
    matrix: np.ndarray
    rng: np.random.Generator

    def at(self, x: float, y: float, angle: float = 0.0, scale: float | tuple[float, float] = 1.0) -> Pen:
        """The same pen in a frame of its own: origin (x, y), turned by `angle` (radians), `scale` units a unit."""
        sx, sy = scale if isinstance(scale, tuple) else (scale, scale)
        c, s = np.cos(angle), np.sin(angle)
        local = np.array([[c * sx, -s * sy, x], [s * sx, c * sy, y], [0, 0, 1]])
        return Pen(self.image, self.mask, self.matrix @ local, self.rng)

    def _pixels(self, points: np.ndarray) -> np.ndarray:
        return np.rint((points @ self.matrix[:, :2].T + self.matrix[:, 2]) * 16).astype(np.int32)

    def fill(self, points: np.ndarray, colour: RGB, edge: float = 1.0) -> None:
        """Fill an outline; `edge` below 1 also draws its rim in the colour times `edge`."""
        pixels = [self._pixels(points)]
        cv2.fillPoly(self.image, pixels, colour.tolist(), cv2.LINE_AA, 4)
        cv2.fillPoly(self.mask, pixels, 255, cv2.LINE_AA, 4)
        if edge < 1:
            cv2.polylines(self.image, pixels, True, (colour * edge).tolist(), 1, cv2.LINE_AA, 4)

    def line(self, points: Sequence[Sequence[float]] | np.ndarray, colour: RGB, width: float = 0.0) -> None:
        """A smooth open line, `width` units wide and at least a pixel."""
        (a, b, _), (c, d, _) = self.matrix
        thick = max(1, round(width * abs(a * d - b * c) ** 0.5))
        pixels = [self._pixels(spline(points, closed=False) if len(points) > 2 else np.asarray(points, float))]
        cv2.polylines(self.image, pixels, False, colour.tolist(), thick, cv2.LINE_AA, 4)
        cv2.polylines(self.mask, pixels, False, 255, thick, cv2.LINE_AA, 4)

    def dot(self, x: float, y: float, radius: float, colour: RGB) -> None:
        self.fill(oval(x, y, radius, radius), colour)

    def eye(self, x: float, y: float, radius: float) -> None:
        """A dark eye with a glint."""
        self.dot(x, y, radius, BLACK)
        self.dot(x + radius * 0.3, y - radius * 0.35, radius * 0.35, WHITE)

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def between(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def patches(self, body: np.ndarray, colour: RGB, count: int, size: float) -> None:
        """Blotches that stay within the outline `body`: centres are pulled towards its middle."""
        middle = body.mean(0)
        for place in self.rng.choice(body, count):
            x, y = middle + (place - middle) * self.between(0.1, 0.62)
            radii = size * self.rng.uniform(0.55, 1.1, 7)
            self.fill(spline(_CIRCLE[::4] * (1, 0.8) * radii[:, None] + (x, y)), colour)


def legs(p: Pen, colour: RGB, places: Sequence[float], length: float, width: float, swing: float, foot: RGB | None = None) -> None:
    """Legs from y = -length down to the ground, each swung by its own angle, the knee bent a little; with hoofs in the colour `foot`."""
    for x in places:
        angle = p.rng.normal(0, swing)
        bend = p.rng.normal(0, 0.03) - abs(angle) * 0.1
        x1, y1 = x + np.sin(angle) * length, -length + np.cos(angle) * length
        knee = ((x + x1) / 2 + bend, -length / 2 + y1 / 2)
        p.fill(limb((x, -length - width, width * 1.7), (*knee, width), (x1, y1 - width, width * 0.85)), colour)
        if foot is None:
            p.fill(oval(x1 + width * 0.6, y1 - width * 0.5, width * 1.5, width * 0.8), colour * 0.9)
        else:
            p.fill(limb((x1, y1 - width * 1.3, width * 0.9), (x1 + width * 0.3, y1 - width * 0.4, width)), foot)
