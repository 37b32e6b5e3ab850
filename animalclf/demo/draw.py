"""Images of the demo set: a background, an animal, clutter in front of it, light and camera; drawn in milliseconds."""

from __future__ import annotations

import itertools
from typing import Any

import cv2
import numpy as np

# A class is a line of options, then the animal's parts "group colour x,y,radius x,y,radius ..." in drawing order (a part without a group has
# the one before it): discs joined to one shape, in 1/100 of the frame; x to the front, y down, the ground at 0. Groups: `tail` swings about its
# first joint, `head` turns about `pivot`, `both` is drawn mirrored at y = 0 too; `patches` and `wool` are random discs along two joints; each
# joint of `leg` is the hip of one. `count`: images in the competition; `graze`: probability of a lowered head. An animal without a pivot is seen
# from above.
TABLE = """
cane count=4363 coats=white,cream,tan,ginger,brown,dark,black,grey foot=coat pivot=24,-50 graze=0.1
leg shade -22,-48,4 31,-48,4 / coat -31,-48,4 23,-48,4 / tail coat -32,-54,4 -46,-64,4 -52,-80,2 / body coat -28,-52,12 0,-51,13 26,-51,15
patches other -28,-52,12 26,-51,14 / head coat 24,-54,12 40,-72,9 42,-76,12 / coat 48,-74,8 64,-70,6 / black 68,-73,4 / pink 58,-64,3 60,-57,3
head black 49,-80,2.5 / dim 38,-84,4 31,-74,8 31,-60,5
cavallo count=2123 coats=white,tan,ginger,brown,dark,black,grey foot=black pivot=24,-64 graze=0.25
leg shade -24,-58,4 30,-58,4 / coat -34,-58,4 22,-58,4 / tail dim -42,-66,4 -52,-54,7 -54,-36,6 -52,-18,1 / body coat -30,-64,14 0,-62,13 26,-64,14
head dim 14,-76,5 30,-94,7 44,-108,5 / coat 24,-66,13 40,-88,8 48,-100,8 58,-92,6 68,-80,5 / coat 44,-106,4 46,-116,0 / black 53,-99,2.2
elefante count=946 coats=grey,slate,tan,brown,grey foot=shade pivot=34,-66
leg shade -20,-44,9 26,-44,9 / coat -36,-44,9 12,-44,9 / tail shade -50,-70,2 -58,-52,1.5 -58,-36,1.5 / body coat -26,-62,26 0,-66,26 22,-64,25
head coat 46,-74,19 / coat 58,-74,11 72,-58,8 74,-34,6 72,-16,4 80,-10,3 / horn 60,-58,3 70,-50,2.5 80,-50,0 / shade 38,-84,12 27,-70,17 30,-52,9
head black 56,-80,2.2
farfalla count=1612 coats=orange,blue,yellow,purple,red,teal,white,brown
both dim -2,4,5 -22,24,16 -30,38,13 / dim 4,4,5 18,34,19 24,52,15 / coat -4,6,4 -22,24,13 -29,36,10 / coat 6,6,4 18,34,16 23,50,11 / other 20,50,6
both other -24,32,6 / black 18,34,3.5 / body black -30,0,2 -10,0,4 18,0,4.5 / both black 20,2,1 34,8,0.8 42,18,1
gallina count=2598 coats=white,cream,ginger,brown,dark,black,grey foot=horn pivot=16,-50 graze=0.3
leg shade -2,-26,2 / coat 8,-26,2 / tail dim -28,-44,6 -44,-62,9 -46,-78,2 / shade -24,-40,8 -44,-50,9 -56,-62,1
body coat -22,-40,13 -4,-36,19 10,-38,17 / horn 4,-1,1.2 20,-1,1.2 / shade 8,-40,9 -8,-38,11 -24,-42,3 / patches dim -20,-38,12 8,-34,15
head coat 12,-46,13 22,-62,8 26,-70,8 / red 20,-79,4 26,-81,4 32,-79,4 / horn 32,-71,4 44,-68,0 / red 33,-62,3 34,-57,4 / black 29,-72,2
gatto count=1168 coats=white,cream,ginger,brown,black,grey,slate foot=coat pivot=26,-44 graze=0.1
leg shade -22,-38,4 28,-38,4 / coat -32,-38,4 20,-38,4 / tail coat -34,-44,4 -50,-50,4 -58,-68,4 -48,-84,3 / body coat -30,-42,12 0,-43,11 26,-42,12
body dim -30,-53,1.5 -28,-42,0 / dim -18,-53,1.5 -17,-40,0 / dim 7,-53,1.5 8,-40,0 / head coat 26,-46,11 36,-56,12 / coat 29,-70,8 24,-88,0
head coat 47,-70,8 52,-88,0 / coat 32,-61,15 44,-61,15 / white 35,-54,6 42,-54,6 / pink 37,-57,2.5 40,-57,2.5 / green 31,-63,4 / green 45,-63,4
head black 31,-63,1.8 / black 45,-63,1.8
mucca count=1366 coats=white,white,cream,ginger,brown,black foot=black pivot=32,-58 graze=0.35
leg shade -24,-44,5 33,-44,5 / coat -35,-44,5 24,-44,5 / tail shade -46,-68,2 -54,-50,2 -54,-28,2 / dim -54,-26,4 -54,-16,2 / body pink -18,-34,10
body coat -34,-56,18 0,-54,20 30,-57,18 / patches other -34,-56,18 30,-56,18 / head coat 30,-62,15 48,-72,11 / horn 46,-82,4 42,-94,3 50,-101,0
head horn 56,-82,4 62,-93,3 58,-101,0 / dim 46,-78,3 36,-78,5 28,-73,2 / coat 52,-74,12 62,-64,9 / pink 66,-58,9 70,-57,8 / black 55,-77,2.2
pecora count=1320 coats=white,white,cream,tan,brown,dark,grey foot=black pivot=30,-48 graze=0.35
leg shade -14,-30,3 22,-30,3 / coat -22,-30,3 14,-30,3 / body coat -38,-46,8 / coat -18,-46,22 18,-46,21 / wool coat -20,-46,23 20,-46,22
head coat 26,-52,15 / other 36,-58,9 48,-52,8 56,-46,6 / other 36,-64,3 26,-62,5 20,-56,2 / black 45,-58,2 / wool coat 26,-66,7 38,-68,5
ragno count=4321 coats=black,dark,brown,ginger,tan,slate,cream
both shade 12,6,3 32,28,2.5 58,30,2 76,18,1 / coat 8,8,3 14,40,2.5 36,60,2 50,78,1 / body coat -12,0,13 -24,0,18 -30,0,15
both shade 2,8,3 -10,42,2.5 -34,58,2 -46,78,1 / coat -4,6,3 -26,30,2.5 -58,34,2 -76,20,1 / patches other -14,0,12 -30,0,14 / body shade 6,0,9 14,0,9
both black 20,4,2.5
scoiattolo count=1362 coats=ginger,brown,dark,grey,black,tan foot=shade pivot=6,-44
leg shade 4,-12,8 / coat -6,-12,8 / tail dim -12,-8,7 -36,-22,13 -40,-50,14 -32,-76,13 -16,-82,8
tail coat -14,-10,3 -35,-26,7 -38,-50,8 -31,-72,7 -18,-80,3 / body coat -4,-16,15 0,-30,13 6,-42,11 / cream 6,-18,8 12,-34,6
body shade -4,-12,11 8,-7,6 22,-4,5 / head coat 4,-66,4 0,-80,0 / coat 12,-67,4 12,-82,0 / coat 10,-58,11 / coat 16,-56,8 24,-53,4 / black 27,-54,2
head black 16,-60,2.5 / body horn 27,-36,5
"""
COLOURS = """white 236,232,224 cream 226,205,170 tan 184,148,108 ginger 198,116,54 brown 124,82,50 dark 74,54,44 black 34,32,36
    grey 146,144,142 slate 100,102,110 hay 150,130,70 green 96,138,56 leaf 60,104,44 sky 160,190,222 pink 222,150,146
    horn 222,206,160 red 200,44,36 orange 236,120,30 blue 60,110,210 yellow 240,206,60 purple 170,60,150 teal 80,170,190"""
PALETTE = {name: np.array(rgb.split(","), float) for name, rgb in zip(*[iter(COLOURS.split())] * 2, strict=True)}
THINGS = np.stack(list(PALETTE.values()))  # clutter and background, from the first 15, have the animals' colours


def _read(table: str) -> dict[str, tuple[dict[str, str], list[Any]]]:
    """Options and parts by class; a part is group, colour, joints complex (K,) and radii float (K,)."""
    animals: dict[str, tuple[dict[str, str], list[Any]]] = {}
    group, parts = "", []
    for words in (part.split() for line in table.strip().split("\n") for part in line.split(" / ")):
        if "=" in words[1]:
            parts = animals.setdefault(words[0], (dict(word.split("=") for word in words[1:]), []))[1]
            continue
        *named, colour = (word for word in words if "," not in word)
        group = named[0] if named else group
        x, y, radii = np.array([word.split(",") for word in words if "," in word], float).T
        parts.append((group, colour, x + 1j * y, radii))
    return animals


ANIMALS = _read(TABLE)


def fill(canvas: np.ndarray, joints: np.ndarray, radii: np.ndarray, colour: np.ndarray) -> None:
    """Draw discs of `radii` (K,) at `joints` complex (K,) (pixels), joined to one shape, antialiased, on `canvas` uint8 (H, W, 4)."""
    value, discs = (*np.clip(colour, 0, 255).tolist(), 255), list(zip((16 * joints).tolist(), (16 * radii).tolist(), strict=True))
    for (a, r), (b, s) in itertools.pairwise(discs):
        across = 1j * (b - a) / max(abs(b - a), 1e-6)
        quad = [(round(z.real), round(z.imag)) for z in (a + across * r, b + across * s, b - across * s, a - across * r)]
        cv2.fillConvexPoly(canvas, np.array(quad, np.int32), value, cv2.LINE_AA, 4)
    for a, r in discs:
        cv2.circle(canvas, (round(a.real), round(a.imag)), max(round(r), 8), value, -1, cv2.LINE_AA, 4)


def _animal(canvas: np.ndarray, name: str, rng: np.random.Generator) -> np.ndarray:
    """Draw an animal of class `name` in a random pose, place and colour on `canvas` uint8 (H, W, 4); returns its mask, uint8 (H, W)."""
    (options, parts), (height, width) = ANIMALS[name], canvas.shape[:2]
    coats, above = options["coats"].split(","), "pivot" not in options
    coat, other = (PALETTE[rng.choice(coats)] * rng.uniform(0.85, 1.12) + rng.normal(0, 6, 3) for _ in range(2))
    if abs(other - coat).sum() < 90:  # marks stand out
        other = coat * 0.4 if coat.mean() > 130 else PALETTE["white"]
    colours = {**PALETTE, "coat": coat, "other": other, "shade": coat * 0.8, "dim": coat * 0.6}
    scale, sx, sy = rng.uniform((0.85, 0.9, 0.7 if above else 0.92), 1.1) * (min(width / 150, height / 120), rng.choice([-1, 1]), 1)
    turn = scale * np.exp(1j * (rng.uniform(-np.pi, np.pi) if above else rng.normal(0, 0.1)))
    place = rng.uniform(0.44, 0.56, 2) * (width, height) @ (1, 1j)
    pivot, middle = complex(*map(float, options.get("pivot", "0,0").split(","))), 0 if above else 6 - 52j
    nod = rng.uniform(0.6, 1.0) if rng.random() < float(options.get("graze", 0)) else rng.normal(0, 0.14)
    angles = {"body": 0.0, "head": nod, "tail": rng.normal(0, 0.25), "both": rng.normal(0, 0.08)}
    swing = rng.uniform(0.03, 0.25)
    canvas[..., 3] = 0

    def put(joints: np.ndarray, radii: np.ndarray, colour: str) -> None:
        x, y = (joints - middle).real, (joints - middle).imag
        fill(canvas, place + turn * (sx * x + 1j * sy * y), radii * scale, colours[colour])

    for group, colour, joints, radii in parts:
        if group in angles:
            around = pivot if group == "head" else joints[0]
            turned = around + (joints - around) * np.exp(1j * angles[group])
            put(turned, radii, colour)
            if group == "both":
                put(turned.conj(), radii, colour)
        elif group == "leg":
            for hip, wide in zip(joints, radii, strict=True):
                leg = hip - (hip.imag + wide) * np.array([0, 0.5, 1]) * 1j * np.exp(1j * rng.normal(0, swing))
                put(leg, wide * np.array([1.6, 1, 0.9]), colour)
                put(leg[2:] + wide * 0.3, wide * np.array([1.1]), options["foot"])
        else:
            for _ in range(24 if group == "wool" else rng.integers(8)):
                centre, size = joints[0] + (joints[1] - joints[0]) * rng.random(), rng.uniform(0.2, 0.5)
                reach = radii[0] * (rng.uniform(0.5, 1) if group == "wool" else (1 - size) * rng.random())
                put(centre + reach * np.exp(2j * np.pi * rng.random(1)), radii[:1] * size, colour)
    return canvas[..., 3].copy()


def _clutter(canvas: np.ndarray, count: int, size: float, rng: np.random.Generator) -> None:
    """Draw `count` things of about `size` pixels anywhere, in the animals' colours: posts, branches, stones."""
    for _ in range(count):
        x, y, radii = rng.uniform(0, 2 * size, (3, rng.integers(1, 4)))
        corner = rng.uniform(0, 1, 2) * canvas.shape[1::-1] @ (1, 1j) - size * (1 + 1j)
        fill(canvas, corner + x + 1j * y, radii * rng.choice([0.04, 0.15]), THINGS[rng.integers(len(THINGS))] * rng.uniform(0.6, 1.1))


def draw(name: str, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """An image of class `name`, uint8 (height, width, 3) RGB; `rng` decides all that varies."""
    shrink = int(rng.choice([1, 2, 3, 5]))  # the background is drawn small and enlarged: out of focus
    h, w = -(-height // shrink), -(-width // shrink)
    upper, lower = THINGS[rng.integers(15, size=2)] * rng.uniform(0.6, 1, (2, 1))
    rows = np.where(np.arange(h)[:, None] < h * rng.uniform(-0.2, 0.7), upper, lower * np.linspace(0.8, 1.2, h)[:, None])
    canvas = np.repeat(np.clip(np.pad(rows, ((0, 0), (0, 1))), 0, 255).astype(np.uint8)[:, None], w, 1)
    _clutter(canvas, int(rng.integers(9)), h * rng.uniform(0.1, 0.4), rng)
    canvas = cv2.resize(canvas, (width, height))
    mask = _animal(canvas, name, rng)
    _clutter(canvas, int(rng.integers(4)), height * 0.15, rng)

    # light from one side and fur within the mask: 128 leaves the image as it is
    soft = cv2.blur(cv2.resize(mask, (width // 4, height // 4)), (height // 50 | 1, height // 50 | 1))
    lit = cv2.warpAffine(soft, np.array([(1, 0, rng.normal(0, 2)), (0, 1, rng.uniform(1, 3))]), soft.shape[::-1])
    slope = rng.uniform(0.3, 0.7)
    relief = cv2.resize(cv2.addWeighted(soft, slope, lit, -slope, 128), (width, height))
    fur, strength = cv2.resize(rng.integers(0, 256, (height // 4, width), np.uint8), (width, height)), rng.uniform(0.04, 0.25)
    relief = cv2.addWeighted(relief, 1, fur, strength, -128 * strength)
    relief[mask < 128] = 128
    image = cv2.multiply(canvas[..., :3], cv2.merge([relief] * 3), scale=1 / 128)

    # tone, colour cast, light from a side, noise
    tone = 255 * np.linspace(0, 1, 256)[:, None] ** rng.uniform(0.8, 1.25) - 128
    tones = tone * rng.uniform(0.75, 1.15) * rng.uniform(0.93, 1.07, 3) + 128 + rng.uniform(-18, 18)
    image = cv2.LUT(image, np.clip(tones, 0, 255).astype(np.uint8)[:, None])
    ramp = np.clip(128 + np.linspace(-1, 1, width) * rng.normal(0, 16), 0, 255).astype(np.uint8)
    noise, strength = rng.integers(0, 256, (height, width), np.uint8), rng.uniform(0.01, 0.1)
    light = cv2.addWeighted(noise, strength, np.tile(ramp, (height, 1)), 1, -128 * strength)
    return cv2.addWeighted(image, 1, cv2.merge([light] * 3), 1, -128)
