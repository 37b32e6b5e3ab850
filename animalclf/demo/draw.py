"""Images of the demo set: a background, an animal, clutter in front of it, light and camera; drawn in milliseconds."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from importlib import resources

import cv2
import numpy as np

COLOURS = """white 236,232,224 cream 226,205,170 tan 184,148,108 ginger 198,116,54 brown 124,82,50 dark 74,54,44
    black 34,32,36 grey 146,144,142 slate 100,102,110 hay 150,130,70 green 96,138,56 leaf 60,104,44 sky 160,190,222
    pink 222,150,146 horn 222,206,160 red 200,44,36 orange 236,120,30 blue 60,110,210 yellow 240,206,60
    purple 170,60,150 teal 80,170,190"""
PALETTE = {name: np.array(rgb.split(","), float) for name, rgb in zip(*[iter(COLOURS.split())] * 2, strict=True)}
CLUTTER_COLOURS = np.stack(list(PALETTE.values()))
BACKGROUND_COLOURS = 15  # the background has one of the first CLUTTER_COLOURS


@dataclass(frozen=True, eq=False)
class Part:
    """Discs of `radii` float (K,) at `joints` complex (K,), joined to one shape of one colour."""

    group: str
    colour: str
    joints: np.ndarray
    radii: np.ndarray


@dataclass(frozen=True, eq=False)
class Animal:
    """A class: `count` images in the competition, the colours that its coat may have, its parts in drawing order;
    animals.txt has the details."""

    count: int
    coats: list[str]
    foot: str = "coat"
    pivot: complex | None = None
    """Centre of the head's rotation; None for an animal that is seen from above."""
    graze: float = 0.0
    """Probability of a lowered head."""
    parts: list[Part] = field(default_factory=list)


def _read(table: str) -> dict[str, Animal]:
    """The animals by class, from the text of animals.txt."""
    animals: dict[str, Animal] = {}
    group = ""
    for words in (part.split() for line in table.splitlines() if line[0] != "#" for part in line.split(" / ")):
        if "=" in words[1]:
            options = dict(word.split("=") for word in words[1:])
            animal = animals[words[0]] = Animal(
                int(options["count"]),
                options["coats"].split(","),
                options.get("foot", "coat"),
                complex(*map(float, options["pivot"].split(","))) if "pivot" in options else None,
                float(options.get("graze", 0)),
            )
            continue
        *names, colour = (word for word in words if "," not in word)
        group = names[0] if names else group
        x, y, radii = np.array([word.split(",") for word in words if "," in word], float).T
        animal.parts.append(Part(group, colour, x + 1j * y, radii))
    return animals


ANIMALS = _read(resources.files("animalclf.demo").joinpath("animals.txt").read_text())


def fill(canvas: np.ndarray, joints: np.ndarray, radii: np.ndarray, colour: np.ndarray) -> None:
    """Draw discs of `radii` (K,) at `joints` complex (K,) (pixels), joined to one shape, antialiased, on `canvas` uint8
    (H, W, 4)."""
    value = (*np.clip(colour, 0, 255).tolist(), 255)
    discs = list(zip((16 * joints).tolist(), (16 * radii).tolist(), strict=True))
    for (a, r), (b, s) in itertools.pairwise(discs):
        across = 1j * (b - a) / max(abs(b - a), 1e-6)
        quad = [
            (round(z.real), round(z.imag)) for z in (a + across * r, b + across * s, b - across * s, a - across * r)
        ]
        cv2.fillConvexPoly(canvas, np.array(quad, np.int32), value, cv2.LINE_AA, 4)
    for a, r in discs:
        cv2.circle(canvas, (round(a.real), round(a.imag)), max(round(r), 8), value, -1, cv2.LINE_AA, 4)


def _draw_animal(canvas: np.ndarray, name: str, rng: np.random.Generator) -> np.ndarray:
    """Draw an animal of class `name` in a random pose, position and colour on `canvas` uint8 (H, W, 4). Returns its
    mask uint8 (H, W)."""
    animal, (height, width) = ANIMALS[name], canvas.shape[:2]
    above = animal.pivot is None
    coat, marks = (PALETTE[rng.choice(animal.coats)] * rng.uniform(0.85, 1.12) + rng.normal(0, 6, 3) for _ in range(2))
    if abs(marks - coat).sum() < 90:  # marks must contrast with the coat
        marks = coat * 0.4 if coat.mean() > 130 else PALETTE["white"]
    colours = {**PALETTE, "coat": coat, "other": marks, "shade": coat * 0.8, "dim": coat * 0.6}
    stretch = rng.uniform((0.85, 0.9, 0.7 if above else 0.92), 1.1)
    scale, sx, sy = stretch * (min(width / 150, height / 120), rng.choice([-1, 1]), 1)
    turn = scale * np.exp(1j * (rng.uniform(-np.pi, np.pi) if above else rng.normal(0, 0.1)))
    centre = rng.uniform(0.44, 0.56, 2) * (width, height) @ (1, 1j)
    pivot, middle = animal.pivot or 0, 0 if above else 6 - 52j
    nod = rng.uniform(0.6, 1.0) if rng.random() < animal.graze else rng.normal(0, 0.14)
    angles = {"body": 0.0, "head": nod, "tail": rng.normal(0, 0.25), "both": rng.normal(0, 0.08)}
    swing = rng.uniform(0.03, 0.25)
    canvas[..., 3] = 0

    def fill_part(joints: np.ndarray, radii: np.ndarray, colour: str) -> None:
        x, y = (joints - middle).real, (joints - middle).imag
        fill(canvas, centre + turn * (sx * x + 1j * sy * y), radii * scale, colours[colour])

    for part in animal.parts:
        group, joints, radii = part.group, part.joints, part.radii
        if group in angles:
            around = pivot if group == "head" else joints[0]
            rotated = around + (joints - around) * np.exp(1j * angles[group])
            fill_part(rotated, radii, part.colour)
            if group == "both":
                fill_part(rotated.conj(), radii, part.colour)
        elif group == "leg":
            for hip, radius in zip(joints, radii, strict=True):
                leg = hip - (hip.imag + radius) * np.array([0, 0.5, 1]) * 1j * np.exp(1j * rng.normal(0, swing))
                fill_part(leg, radius * np.array([1.6, 1, 0.9]), part.colour)
                fill_part(leg[2:] + radius * 0.3, radius * np.array([1.1]), animal.foot)
        else:  # random discs along the line between two joints
            for _ in range(24 if group == "wool" else rng.integers(8)):
                point, size = joints[0] + (joints[1] - joints[0]) * rng.random(), rng.uniform(0.2, 0.5)
                reach = radii[0] * (rng.uniform(0.5, 1) if group == "wool" else (1 - size) * rng.random())
                fill_part(point + reach * np.exp(2j * np.pi * rng.random(1)), radii[:1] * size, part.colour)
    return canvas[..., 3].copy()


def _draw_clutter(canvas: np.ndarray, count: int, size: float, rng: np.random.Generator) -> None:
    """Draw `count` posts, branches and stones of about `size` pixels at random positions, in the animals' colours."""
    for _ in range(count):
        x, y, radii = rng.uniform(0, 2 * size, (3, rng.integers(1, 4)))
        corner = rng.uniform(0, 1, 2) * canvas.shape[1::-1] @ (1, 1j) - size * (1 + 1j)
        thickness = rng.choice([0.04, 0.15])
        colour = CLUTTER_COLOURS[rng.integers(len(CLUTTER_COLOURS))] * rng.uniform(0.6, 1.1)
        fill(canvas, corner + x + 1j * y, radii * thickness, colour)


def draw(name: str, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """A random image of class `name`, uint8 (height, width, 3) RGB; it depends on `rng` only."""
    shrink = int(rng.choice([1, 2, 3, 5]))  # the background is drawn small and enlarged, so that it is out of focus
    h, w = -(-height // shrink), -(-width // shrink)
    upper, lower = CLUTTER_COLOURS[rng.integers(BACKGROUND_COLOURS, size=2)] * rng.uniform(0.6, 1, (2, 1))
    rows = np.where(
        np.arange(h)[:, None] < h * rng.uniform(-0.2, 0.7), upper, lower * np.linspace(0.8, 1.2, h)[:, None]
    )
    canvas = np.repeat(np.clip(np.pad(rows, ((0, 0), (0, 1))), 0, 255).astype(np.uint8)[:, None], w, 1)
    _draw_clutter(canvas, int(rng.integers(9)), h * rng.uniform(0.1, 0.4), rng)
    canvas = cv2.resize(canvas, (width, height))
    mask = _draw_animal(canvas, name, rng)
    _draw_clutter(canvas, int(rng.integers(4)), height * 0.15, rng)
    image = _add_relief(canvas[..., :3], mask, rng)
    return _add_light(image, rng)


def _add_relief(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`image` uint8 (H, W, 3) with light from one side and fur if `mask` uint8 (H, W) is set."""
    height, width = mask.shape
    blurred = cv2.blur(cv2.resize(mask, (width // 4, height // 4)), (height // 50 | 1, height // 50 | 1))
    offset = np.array([(1, 0, rng.normal(0, 2)), (0, 1, rng.uniform(1, 3))])
    lit = cv2.warpAffine(blurred, offset, blurred.shape[::-1])
    slope = rng.uniform(0.3, 0.7)
    relief = cv2.resize(cv2.addWeighted(blurred, slope, lit, -slope, 128), (width, height))
    fur = cv2.resize(rng.integers(0, 256, (height // 4, width), np.uint8), (width, height))
    strength = rng.uniform(0.04, 0.25)
    relief = cv2.addWeighted(relief, 1, fur, strength, -128 * strength)
    relief[mask < 128] = 128  # 128 leaves the image as it is
    return cv2.multiply(image, cv2.merge([relief] * 3), scale=1 / 128)


def _add_light(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`image` uint8 (H, W, 3) with a tone curve, a colour cast, light from one side and noise."""
    height, width = image.shape[:2]
    tone = 255 * np.linspace(0, 1, 256)[:, None] ** rng.uniform(0.8, 1.25) - 128
    tones = tone * rng.uniform(0.75, 1.15) * rng.uniform(0.93, 1.07, 3) + 128 + rng.uniform(-18, 18)
    image = cv2.LUT(image, np.clip(tones, 0, 255).astype(np.uint8)[:, None])
    ramp = np.clip(128 + np.linspace(-1, 1, width) * rng.normal(0, 16), 0, 255).astype(np.uint8)
    noise, strength = rng.integers(0, 256, (height, width), np.uint8), rng.uniform(0.01, 0.1)
    light = cv2.addWeighted(noise, strength, np.tile(ramp, (height, 1)), 1, -128 * strength)
    return cv2.addWeighted(image, 1, cv2.merge([light] * 3), 1, -128)
