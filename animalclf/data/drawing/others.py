"""Hen, squirrel, butterfly and spider."""

from __future__ import annotations

import numpy as np

from animalclf.data.drawing.pen import BLACK, RED, RGB, VIVID, WHITE, Pen, legs, limb, oval, spline


def hen(p: Pen, coat: RGB, other: RGB) -> None:
    """A boat-shaped body with a fan of tail feathers, comb, wattle and beak, two thin legs; upright, pecking or brooding."""
    brooding = p.chance(0.2)
    low = 0.02 if brooding else p.between(0.24, 0.32)
    yellow = np.array((226, 168, 50), float) * p.between(0.7, 1.05)
    for x in () if brooding else (-0.06, 0.08):
        foot = x + p.rng.normal(0.02, 0.06)
        p.line([(x, -low - 0.05), (x + 0.01, -low / 2), (foot, -0.02)], yellow, 0.03)
        for toe in (-0.07, 0.06, 0.11):
            p.line([(foot, -0.03), (foot + toe, 0.0)], yellow, 0.018)
    fan = p.between(0.9, 1.5)
    for k, angle in enumerate(np.linspace(-2.9, -1.9, 6)):
        x, y = -0.26, -low - 0.22
        tip = fan * p.between(0.26, 0.34)
        p.fill(
            limb(
                (x, y, 0.04),
                (x + np.cos(angle) * tip * 0.6, y + np.sin(angle) * tip * 0.7, 0.06),
                (x + np.cos(angle) * tip, y + np.sin(angle) * tip, 0.025),
            ),
            other * (0.55 + 0.07 * k),
            0.7,
        )
    p.fill(
        spline(
            [
                (-0.36, -low - 0.33),
                (-0.2, -low - 0.26),
                (0.08, -low - 0.32),
                (0.28, -low - 0.25),
                (0.3, -low - 0.1),
                (0.12, -low),
                (-0.12, -low),
                (-0.3, -low - 0.12),
            ]
        ),
        coat,
    )
    pecking = not brooding and p.chance(0.3)
    face = (p.between(0.42, 0.5), -low * 0.5) if pecking else (p.between(0.28, 0.36), -low - p.between(0.5, 0.62))
    p.fill(limb((0.16, -low - 0.18, 0.15), ((0.28 + face[0]) / 2, (-low - 0.26 + face[1]) / 2, 0.11), (*face, 0.075)), coat)
    ruff = coat * 0.7 + other * 0.3
    for k in np.linspace(0.35, 0.8, 4):
        x, y = 0.2 + (face[0] - 0.2) * k, -low - 0.2 + (face[1] + low + 0.2) * k
        p.line([(x - 0.06, y - 0.01), (x, y + 0.05), (x + 0.05, y + 0.02)], ruff * 0.75, 0.015)
    for row in range(3):
        x = -0.02 - 0.09 * row
        p.fill(
            spline([(x + 0.1, -low - 0.22), (x + 0.08, -low - 0.12), (x - 0.06, -low - 0.09), (x - 0.17, -low - 0.17), (x - 0.05, -low - 0.24)]),
            other * (0.95 - 0.13 * row),
            0.65,
        )
    head = p.at(*face, p.between(0.7, 1.0) if pecking else p.between(-0.25, 0.3), 0.08)
    for x, y, r in ((-0.7, -0.75, 0.4), (-0.2, -1.1, 0.48), (0.4, -0.95, 0.4)):
        head.fill(oval(x, y, r * 0.85, r * p.between(0.9, 1.3)), RED, 0.8)
    head.dot(0, 0, 1.0, coat)
    head.fill(limb((0.75, 0.75, 0.28), (0.8, p.between(1.1, 1.5), 0.32)), RED * 0.9, 0.8)
    head.fill(np.array([(0.75, -0.3), (1.85, 0.2), (0.7, 0.45)]), yellow, 0.7)
    head.fill(oval(0.4, 0.05, 0.4, 0.42), RED * 0.95)
    head.fill(oval(0.4, -0.1, 0.24, 0.24), yellow * 1.1)
    head.eye(0.42, -0.1, 0.16)


def squirrel(p: Pen, coat: RGB, other: RGB) -> None:
    """A bushy tail over the back, a pale belly, tufted ears; sits up with a nut or runs."""
    belly = (coat + 2 * WHITE) / 3
    brush = coat * 0.85
    if p.chance(0.7):
        curl = p.between(-0.1, 0.12)
        spine = spline([(-0.12, -0.06), (-0.36, -0.12), (-0.42, -0.45), (-0.34 + curl, -0.8), (-0.52 + curl, -0.95)], closed=False)
        haunch, chest, face = (-0.06, -0.14), (0.08, -0.45), (0.14, -p.between(0.58, 0.68))
    else:
        rise = p.between(0.1, 0.4)
        spine = spline([(-0.3, -0.2), (-0.5, -0.28), (-0.68, -0.3 - rise), (-0.85, -0.2 - rise)], closed=False)
        haunch, chest, face = (-0.2, -0.17), (0.2, -0.24), (0.36, -p.between(0.3, 0.42))
    plume = p.between(0.1, 0.15) * np.sin(np.linspace(0.35, 2.9, len(spine))) ** 0.6
    for (x, y), r in zip(spine, plume, strict=True):
        p.dot(x, y, r, brush)
    for (x, y), r in zip(spine, plume, strict=True):
        for angle in p.rng.uniform(0, 2 * np.pi, 4):
            c, s = np.cos(angle), np.sin(angle)
            p.line([(x + c * r * 0.3, y + s * r * 0.3), (x + c * r * 1.2, y + s * r * 1.2 - 0.02)], brush * p.between(0.75, 1.25), 0.012)
    upright = chest[1] < -0.4
    p.fill(oval(chest[0] + 0.02, chest[1] + 0.05, 0.03, 0.03), coat)
    if not upright:
        legs(p, coat * 0.7, [0.14, -0.14], 0.16, 0.028, 0.4)
    p.fill(limb((*haunch, 0.15), ((haunch[0] + chest[0]) / 2, (haunch[1] + chest[1]) / 2 - 0.02, 0.13), (*chest, 0.1), (*face, 0.08)), coat)
    if upright:
        p.fill(limb((0.07, -0.1, 0.06), (0.1, -0.28, 0.07), (0.14, -0.46, 0.05)), belly)
    p.fill(oval(haunch[0], haunch[1] + 0.02, 0.14, 0.125, -0.3), coat * 0.92, 0.75)
    p.fill(limb((haunch[0] + 0.02, -0.03, 0.035), (haunch[0] + 0.2, -0.025, 0.026)), coat * 0.8)
    head = p.at(*face, p.between(-0.25, 0.25), p.between(0.1, 0.125))
    for x in (0.05, -0.45):
        head.fill(
            spline([(x - 0.3, -0.6), (x - 0.2, -1.3), (x, -p.between(1.6, 2.0)), (x + 0.2, -1.2), (x + 0.3, -0.7)]),
            coat * (0.95 if x < 0 else 0.7),
            0.7,
        )
    head.dot(0, 0, 1.0, coat)
    head.fill(limb((0.3, 0.2, 0.7), (1.05, 0.3, 0.36)), coat)
    head.fill(limb((0.2, 0.65, 0.28), (1.0, 0.5, 0.2)), belly)
    head.dot(1.4, 0.2, 0.14, BLACK)
    head.eye(0.4, -0.2, 0.24)
    if upright:
        nut = (face[0] + 0.15, chest[1] + p.between(0.06, 0.14))
        if p.chance(0.75):
            p.fill(oval(*nut, 0.05, 0.06), np.array((134, 84, 40), float), 0.6)
            p.fill(oval(nut[0], nut[1] - 0.045, 0.055, 0.025), np.array((90, 60, 34), float))
        p.fill(
            limb((chest[0] + 0.0, chest[1] + 0.04, 0.05), (chest[0] + 0.06, chest[1] + 0.17, 0.035), (nut[0] - 0.02, nut[1] + 0.03, 0.026)),
            coat * 0.88,
            0.8,
        )
    else:
        legs(p, coat * 0.95, [0.22], 0.16, 0.03, 0.4)


def butterfly(p: Pen, coat: RGB, other: RGB) -> None:
    """Four patterned wings, seen from above more or less open or from the side, a thin body and two feelers."""
    rim = coat * 0.3 if p.chance(0.7) else other
    folded = p.chance(0.2)
    opened = p.between(0.5, 1.0)
    drop, tail = p.between(0.28, 0.42), p.between(0.0, 0.18)
    fore = np.array(
        [(0.02, -0.12), (0.2, -0.4), (0.52, -p.between(0.44, 0.56)), (0.6, -0.36), (p.between(0.46, 0.56), -0.08), (0.2, 0.02), (0.02, 0.0)]
    )
    hind = np.array([(0.02, 0.0), (0.25, -0.02), (0.44, 0.08), (0.42, drop), (0.22, drop + 0.08 + tail), (0.08, 0.2)])
    spots = [(p.between(0.3, 0.46), -p.between(0.2, 0.38), p.between(0.03, 0.075)) for _ in range(int(p.rng.integers(1, 4)))]
    low_spots = [(p.between(0.2, 0.34), p.between(0.1, 0.28), p.between(0.03, 0.06)) for _ in range(int(p.rng.integers(1, 3)))]
    mark = VIVID[p.rng.integers(len(VIVID))]
    eyed = p.chance(0.5)
    for side in (1.0,) if folded else (-1.0, 1.0):
        wing = p.at(0, 0, 0.0 if folded else side * p.between(-0.06, 0.06), (side * (1.0 if folded else opened), 1.0))
        for outline, marks, shade in ((hind, low_spots, 0.85), (fore, spots, 1.0)):
            wing.fill(spline(outline), rim, 0.7)
            middle = outline[:-1].mean(0) * 0.8
            wing.fill(spline((outline - middle) * 0.78 + middle), coat * shade)
            for x, y in outline[1:-1]:
                wing.line([(0.03, 0.0), (x * 0.5, y * 0.45), (x * 0.9, y * 0.9)], rim)
                wing.dot(x * 0.93, y * 0.92, 0.018, WHITE)
            for x, y, r in marks:
                wing.dot(x, y, r, mark)
                if eyed:
                    wing.dot(x, y, r * 0.5, BLACK)
    p.fill(limb((0, -0.17, 0.025), (0, 0.0, 0.04), (0, p.between(0.2, 0.32), 0.018)), BLACK * 1.6)
    p.dot(0, -0.2, 0.04, BLACK * 1.3)
    for side in (1.0, 0.5) if folded else (-1.0, 1.0):
        p.line([(0, -0.2), (side * 0.08, -0.36), (side * p.between(0.12, 0.22), -0.46)], BLACK, 0.012)
        p.dot(side * 0.17, -0.46, 0.014, BLACK)


def spider(p: Pen, coat: RGB, other: RGB) -> None:
    """Eight jointed legs around two round parts, slim or hairy, sometimes in its web."""
    if p.chance(0.3):
        silk = np.full(3, p.between(190, 245))
        ways = np.linspace(0, 2 * np.pi, 13)[:-1] + p.rng.normal(0, 0.06, 12)
        for angle in ways:
            p.line([(0, 0), (1.4 * np.cos(angle), 1.4 * np.sin(angle))], silk)
        for radius in np.arange(0.25, 1.3, 0.17):
            ring = np.stack([np.cos(ways), np.sin(ways)], 1) * radius
            p.line(np.vstack([ring, ring[:1]]), silk)
        p.mask[:] = 0  # silk is thin air: no fur and no shade on it
    thick = p.between(0.012, 0.032)
    reach = p.between(0.9, 1.25)
    hairy = thick > 0.022
    for side in (-1, 1):
        for angle in (-1.15, -0.4, 0.3, 1.0):
            a = angle + p.rng.normal(0, 0.12)
            knee = np.array((side * np.cos(a * 1.05), np.sin(a * 1.05))) * 0.3 * reach + (0, -0.1 - 0.06 * np.cos(a))
            bend = a + np.sign(a) * p.between(0.1, 0.35)
            tip = knee + np.array((side * np.cos(bend), np.sin(bend))) * 0.3 * reach
            joint, toe = (knee + tip) / 2 + np.array((side * 0.02, -0.02)), tip + np.array((side * 0.02, 0.03 * np.sign(a)))
            p.fill(limb((side * 0.05, -0.1, thick * 1.2), (*knee, thick * 1.25), (*joint, thick), (*toe, thick * 0.45)), coat * 0.85)
            p.fill(oval(knee[0], knee[1], thick * 1.5, thick * 1.5), other if p.chance(0.5) else coat * 0.6)
            for k in np.linspace(0.1, 0.9, 6) if hairy else ():
                hair = knee + (tip - knee) * k
                p.line(hair + np.array([(-0.035, -0.02), (0.035, 0.02)]), coat * 0.7)
    for side in (-1, 1):
        p.line([(side * 0.03, -0.2), (side * 0.06, -0.27), (side * 0.03, -0.32)], coat * 0.8, 0.025)
    plump = p.between(0.13, 0.2)
    p.fill(oval(0, 0.13, plump, plump * p.between(1.1, 1.45)), coat, 0.7)
    pattern = p.rng.integers(4)
    for k in range(3):
        y, r = 0.06 + 0.07 * k, plump * (0.34 - 0.08 * k)
        if pattern == 0:
            p.line([(-r * 2, y + 0.03), (0, y), (r * 2, y + 0.03)], other, 0.022)
        elif pattern == 1:
            p.dot(-r, y, r * 0.45, other)
            p.dot(r, y, r * 0.45, other)
        elif pattern == 2:
            p.dot(0, y, r * 0.8, other)
    p.fill(oval(0, -0.11, 0.1, 0.12), coat * 0.9, 0.7)
    for x, y, r in ((-0.03, -0.19, 0.018), (0.03, -0.19, 0.018), (-0.065, -0.17, 0.012), (0.065, -0.17, 0.012)):
        p.dot(x, y, r, BLACK)
        p.dot(x + 0.004, y - 0.005, r * 0.45, WHITE)
