"""Dog, cat, horse, elephant, cow and sheep, seen from the side."""

from __future__ import annotations

import numpy as np

from animalclf.data.drawing.pen import BLACK, COATS, HORN, PINK, RGB, VIVID, WHITE, Pen, legs, limb, oval, spline


def dog(p: Pen, coat: RGB, other: RGB) -> None:
    """Hanging ears, a long muzzle with a black nose, a wagging tail; stands or sits."""
    ear = coat * 0.6 if p.chance(0.6) else other * 0.85
    if p.chance(0.35):
        p.fill(limb((-0.2, -0.08, 0.05), (-0.42, -0.06, 0.04), (-0.55, -p.between(0.1, 0.35), 0.02)), coat * 0.85)
        legs(p, coat * 0.72, [0.1], 0.4, 0.045, 0.06)
        body = limb((-0.16, -0.16, 0.17), (0.0, -0.36, 0.17), (0.12, -0.55, 0.12))
        p.fill(body, coat)
        p.fill(oval(-0.13, -0.15, 0.17, 0.15, -0.5), coat * 0.93)
        p.fill(oval(0.0, -0.03, 0.12, 0.04), coat * 0.9)
        legs(p, coat, [0.17], 0.42, 0.045, 0.05)
        neck = (0.17, -0.72)
    else:
        low, swing, length = p.between(0.36, 0.48), p.between(0.05, 0.4), p.between(0.24, 0.36)
        legs(p, coat * 0.7, [-length + 0.04, length - 0.08], low, 0.042, swing)
        lift = p.between(-0.35, 0.15)
        p.fill(limb((-length, -low - 0.12, 0.05), (-length - 0.15, -low - 0.1 + lift / 2, 0.04), (-length - 0.22, -low - 0.1 + lift, 0.015)), coat)
        body = limb((-length, -low - 0.04, 0.12), (0, -low - 0.03, 0.12), (length, -low - 0.05, 0.16))
        p.fill(body, coat)
        legs(p, coat, [-length - 0.02, length], low, 0.045, swing)
        neck = (length + p.between(0.1, 0.18), -low - p.between(0.18, 0.34))
        p.fill(limb((length, -low - 0.08, 0.13), (*neck, 0.1)), coat)
    if p.chance(0.5):
        p.patches(body, other, int(p.rng.integers(1, 5)), 0.09)
    if p.chance(0.5):
        p.line([(neck[0] - 0.12, neck[1] + 0.08), (neck[0], neck[1] + 0.16), (neck[0] + 0.1, neck[1] + 0.14)], VIVID[p.rng.integers(6)], 0.035)
    head = p.at(*neck, p.between(-0.35, 0.4), p.between(0.115, 0.145))
    snout = p.between(1.3, 2.0)
    droop = p.between(0.7, 1.5)
    head.fill(spline([(0.2, -0.75), (0.7, -0.5), (0.6, droop * 0.8), (0.2, droop * 0.7)]), ear * 0.8)
    if p.chance(0.4):
        head.fill(limb((snout * 0.75, 0.6, 0.2), (snout * 0.8, 1.1, 0.2)), PINK)
    head.dot(0, 0, 1.0, coat)
    head.fill(limb((0.3, 0.25, 0.65), (snout * 0.6, 0.3, 0.45), (snout, 0.3, 0.36)), coat if p.chance(0.6) else (coat + other) / 2)
    head.dot(snout + 0.2, 0.08, 0.24, BLACK)
    head.line([(snout + 0.15, 0.5), (snout * 0.7, 0.62), (0.7, 0.5)], coat * 0.4, 0.08)
    head.eye(0.5, -0.25, 0.17)
    head.fill(spline([(-0.65, -0.75), (0.0, -0.8), (0.2, 0.1), (-0.15, droop), (-0.65, droop * 0.9), (-0.85, 0.1)]), ear, 0.7)


def cat(p: Pen, coat: RGB, other: RGB) -> None:
    """A round face with pointed ears and whiskers, a long tail; stands, sits or lies; often striped."""
    pose = p.rng.integers(3)
    if pose == 0:
        length, low, swing = p.between(0.24, 0.32), p.between(0.28, 0.36), p.between(0.05, 0.3)
        tip = p.between(0.3, 0.62)
        p.fill(
            limb((-length, -low - 0.08, 0.05), (-length - 0.22, -low - tip / 2, 0.04), (-length - p.between(0.0, 0.4), -low - tip, 0.035)),
            coat * 0.92,
        )
        legs(p, coat * 0.7, [-length + 0.06, length - 0.05], low, 0.04, swing)
        body = limb((-length, -low - 0.03, 0.12), (0, -low - p.between(0.0, 0.1), 0.11), (length, -low - 0.05, 0.11))
        p.fill(body, coat)
        legs(p, coat, [-length, length + 0.01], low, 0.042, swing)
        face = (length + 0.1, -low - p.between(0.12, 0.3))
    elif pose == 1:
        side = p.between(0.2, 0.4)
        p.fill(limb((-0.1, -0.06, 0.05), (-0.32, -0.05, 0.05), (-side - 0.1, -0.25, 0.04), (-side, -p.between(0.35, 0.55), 0.03)), coat * 0.85)
        body = spline([(-0.09, -0.6), (0.1, -0.6), (0.2, -0.3), (0.24, -0.04), (0.0, 0.0), (-0.24, -0.04), (-0.2, -0.3)])
        p.fill(body, coat)
        p.fill(spline([(-0.05, -0.55), (0.05, -0.55), (0.1, -0.35), (0.0, -0.15), (-0.1, -0.35)]), other)
        for x in (-0.07, 0.07):
            p.fill(limb((x, -0.33, 0.05), (x, -0.05, 0.045)), coat, 0.7)
            p.fill(oval(x, -0.03, 0.06, 0.035), other)
        face = (p.between(-0.06, 0.06), -0.7)
    else:
        p.fill(limb((-0.35, -0.08, 0.06), (-0.6, -0.06, 0.05), (-0.55, -p.between(0.06, 0.3), 0.035)), coat * 0.85)
        body = spline([(-0.45, -0.05), (-0.42, -0.25), (-0.15, -0.32), (0.2, -0.28), (0.36, -0.1), (0.3, 0.0), (0.0, 0.0), (-0.3, 0.0)])
        p.fill(body, coat)
        p.fill(limb((0.2, -0.05, 0.045), (0.46, -0.03, 0.04)), coat * 0.92)
        face = (0.28, -p.between(0.3, 0.4))
    if p.chance(0.55):
        middle = body.mean(0)
        for x in np.linspace(body[:, 0].min() + 0.1, body[:, 0].max() - 0.12, 6):
            top = body[np.abs(body[:, 0] - x) < 0.06, 1].min()
            p.line([(x, top + 0.015), (x + 0.02, (top + middle[1]) / 2), (x - 0.01, middle[1])], coat * 0.55, 0.025)
    head = p.at(*face, p.between(-0.3, 0.3), p.between(0.13, 0.17))
    for side in (-1, 1):
        head.fill(np.array([(side * 1.0, -0.1), (side * 0.95, -1.45), (side * 0.1, -0.75)]), coat, 0.75)
        head.fill(np.array([(side * 0.88, -0.45), (side * 0.86, -1.15), (side * 0.35, -0.8)]), PINK * 0.9)
    head.fill(oval(0, 0, 1.12, 0.95), coat)
    iris = np.array([(150, 190, 70), (220, 180, 50), (110, 170, 210)], float)[p.rng.integers(3)]
    turn = p.between(-0.2, 0.2)
    for side in (-1, 1):
        head.fill(oval(side * 0.3 + turn, 0.4, 0.34, 0.26), (other + WHITE) / 2)
        head.fill(oval(side * 0.45 + turn, -0.12, 0.25, 0.22), iris, 0.4)
        head.fill(oval(side * 0.45 + turn, -0.12, p.between(0.07, 0.15), 0.2), BLACK)
        for y in (0.3, 0.5):
            head.line([(side * 0.5 + turn, 0.4), (side * 1.1, y), (side * 1.6, y * 1.4 - 0.2)], WHITE if coat.mean() < 150 else coat * 0.5)
    head.fill(np.array([(turn - 0.15, 0.15), (turn + 0.15, 0.15), (turn, 0.34)]), PINK * 0.8)


def horse(p: Pen, coat: RGB, other: RGB) -> None:
    """Long legs, a long neck with a mane, a long head, a flowing tail; stands, gallops or grazes."""
    mane = p.rng.choice([0.35, 0.55]) * coat if p.chance(0.7) else HORN * 0.95
    low, length, swing = p.between(0.46, 0.54), p.between(0.27, 0.34), float(p.rng.choice([0.06, 0.2, 0.6]))
    legs(p, coat * 0.68, [-length + 0.06, length - 0.06], low, 0.034, swing, BLACK * 1.5)
    back = -low - 0.12
    flow = p.between(0.02, 0.25)
    p.fill(limb((-length - 0.08, back, 0.03), (-length - 0.14 - flow, back + 0.1, 0.06), (-length - 0.14 - flow, back + 0.45 - flow, 0.025)), mane)
    body = limb((-length, -low - 0.05, 0.14), (0.0, -low - 0.03, 0.13), (length, -low - 0.05, 0.14))
    p.fill(body, coat)
    if p.chance(0.25):
        p.patches(body, other, int(p.rng.integers(2, 5)), 0.1)
    legs(p, coat, [-length - 0.02, length + 0.01], low, 0.037, swing, BLACK * 1.5)
    graze = swing < 0.3 and p.chance(0.3)
    angle = p.between(0.55, 0.8) if graze else -p.between(0.7, 1.15)
    reach = p.between(0.36, 0.46)
    root = np.array((length + 0.04, -low - 0.08))
    poll = root + reach * np.array((np.cos(angle), np.sin(angle)))
    way = np.array((np.sin(angle), -np.cos(angle)))  # from the neck's middle to its crest
    p.fill(limb((*root, 0.13), (*(root + poll) / 2, 0.095), (*poll, 0.07)), coat)
    crest = [root - 0.06 + way * 0.1, (root + poll) / 2 + way * 0.08, poll + way * 0.07]
    for k in np.linspace(0, 1, 9):
        x, y = crest[0] + (crest[2] - crest[0]) * k
        p.fill(limb((x, y, 0.025), (x - 0.03, y + 0.06, 0.03), (x - 0.05 + p.rng.normal(0, 0.02), y + p.between(0.09, 0.16), 0.008)), mane)
    head = p.at(float(poll[0]), float(poll[1]), p.between(0.9, 1.2) if graze else p.between(0.35, 0.9), 0.085)
    for x in (-0.25, 0.2):
        head.fill(np.array([(x - 0.25, -0.6), (x - 0.1, -1.7), (x + 0.3, -0.7)]), coat * 0.85)
    head.fill(limb((0.0, 0.0, 0.95), (1.5, 0.15, 0.65), (2.9, 0.2, 0.5)), coat)
    if p.chance(0.5):
        head.fill(limb((0.6, -0.55, 0.1), (2.6, -0.2, 0.13)), WHITE)
    head.fill(oval(3.0, 0.25, 0.45, 0.5), coat * 0.6)
    head.dot(3.15, 0.05, 0.1, BLACK)
    head.eye(0.65, -0.3, 0.17)
    head.fill(limb((-0.4, -0.8, 0.25), (0.2, -0.7, 0.25), (0.5, -0.2, 0.08)), mane)


def elephant(p: Pen, coat: RGB, other: RGB) -> None:
    """A heavy body on columns, big ears, a trunk in any curl, tusks."""
    low, length, swing = p.between(0.32, 0.4), p.between(0.24, 0.3), p.between(0.03, 0.2)
    nail = coat * 0.75 + HORN * 0.22
    legs(p, coat * 0.7, [-length + 0.1, length - 0.08], low, 0.075, swing, nail * 0.7)
    p.line([(-length - 0.2, -low - 0.2), (-length - 0.27, -low), (-length - 0.25, -low + 0.15)], coat * 0.6, 0.022)
    p.fill(
        spline(
            [(-length - 0.22, -low), (-length - 0.18, -low - 0.3), (0.0, -low - 0.44), (length, -low - 0.36), (length + 0.1, -low), (0, -low + 0.08)]
        ),
        coat,
    )
    legs(p, coat * 0.97, [-length - 0.06, length - 0.02], low + 0.04, 0.082, swing, nail)
    head = p.at(length + p.between(0.1, 0.18), -low - p.between(0.26, 0.36), p.between(-0.25, 0.25), 0.17)
    curl = p.rng.integers(4)
    ends = ([(1.5, 1.9), (1.6, 3.0)], [(1.4, 2.0), (0.8, 2.7)], [(2.2, 0.9), (2.7, -0.6)], [(1.6, 1.8), (2.6, 2.0)])[curl]
    (x1, y1), (x2, y2) = ends
    if p.chance(0.8):
        tusk = p.between(0.8, 1.5)
        head.fill(limb((0.75, 0.8, 0.16), (1.0 + tusk * 0.5, 1.1, 0.12), (1.0 + tusk, 0.8, 0.03)), HORN * 1.08, 0.7)
    head.fill(limb((0.4, 0.1, 0.75), (1.05, 0.75, 0.5), (x1 + p.rng.normal(0, 0.15), y1, 0.33), (x2 + p.rng.normal(0, 0.2), y2, 0.2)), coat)
    head.fill(oval(0.1, -0.1, 1.1, 1.05), coat)
    for k in (0.35, 0.55, 0.75):
        x, y = 1.05 + (x1 - 1.05) * k, 0.75 + (y1 - 0.75) * k
        head.line([(x - 0.3, y + 0.1), (x + 0.3, y - 0.12)], coat * 0.7)
    head.eye(0.65, -0.15, 0.13)
    flap = p.between(0.8, 1.3)
    ear = [(0.1, -0.9), (-0.6, -1.3), (-1.3 * flap, -0.9), (-1.5 * flap, 0.3), (-0.9 * flap, 1.4), (-0.3, 0.9), (0.15, 0.2)]
    head.fill(spline(ear), coat * 0.86, 0.6)
    head.fill(spline(np.array(ear) * 0.72 + (-0.12, 0.0)), coat * 0.75 + PINK * 0.12)


def cow(p: Pen, coat: RGB, other: RGB) -> None:
    """A boxy patched body with an udder, horns, ears sideways, a pink muzzle; stands or grazes."""
    low, length, swing = p.between(0.34, 0.42), p.between(0.33, 0.4), p.between(0.03, 0.22)
    legs(p, coat * 0.7, [-length + 0.1, length - 0.1], low, 0.045, swing, BLACK * 1.6)
    p.line([(-length - 0.08, -low - 0.26), (-length - 0.15, -low - 0.05), (-length - 0.12, -low + 0.14)], coat * 0.8, 0.022)
    p.fill(oval(-length - 0.12, -low + 0.16, 0.03, 0.06), coat * 0.45)
    p.fill(oval(-length + 0.2, -low + 0.06, 0.1, 0.08), PINK)
    for x in (0.15, 0.24):
        p.fill(limb((-length + x, -low + 0.1, 0.018), (-length + x, -low + 0.16, 0.014)), PINK * 0.9)
    body = spline(
        [
            (-length - 0.1, -low - 0.05),
            (-length - 0.08, -low - 0.3),
            (0, -low - 0.3),
            (length, -low - 0.33),
            (length + 0.1, -low - 0.1),
            (length - 0.05, -low + 0.04),
            (0, -low + 0.07),
        ]
    )
    p.fill(body, coat)
    if p.chance(0.8):
        p.patches(body, other, int(p.rng.integers(3, 7)), 0.13)
    legs(p, coat * 0.95, [-length, length - 0.02], low, 0.05, swing, BLACK * 1.6)
    graze = p.chance(0.3)
    face = (length + p.between(0.24, 0.3), -low + 0.05 if graze else -low - p.between(0.22, 0.42))
    p.fill(limb((length - 0.02, -low - 0.17, 0.15), (*face, 0.1)), coat)
    head = p.at(*face, p.between(0.6, 1.0) if graze else p.between(0.1, 0.6), 0.115)
    head.fill(limb((-0.2, -0.6, 0.2), (0.1, -1.3, 0.15), (0.7, -1.6, 0.03)), HORN * 0.8)
    head.fill(limb((0.0, -0.1, 0.85), (1.0, 0.15, 0.72), (1.75, 0.25, 0.55)), other if p.chance(0.4) else coat)
    if p.chance(0.5):
        head.fill(limb((0.2, -0.65, 0.12), (1.5, -0.15, 0.15)), WHITE)
    head.fill(oval(1.95, 0.3, 0.5, 0.62, 0.1), PINK * 0.95, 0.8)
    head.fill(oval(2.15, 0.1, 0.1, 0.15), PINK * 0.4)
    head.line([(2.25, 0.55), (1.9, 0.7), (1.6, 0.65)], PINK * 0.5)
    head.eye(0.5, -0.3, 0.16)
    head.fill(limb((-0.5, -0.65, 0.2), (-0.5, -1.2, 0.16), (-0.05, -1.75, 0.03)), HORN, 0.7)
    head.fill(limb((-0.5, -0.3, 0.2), (-1.0, -0.35, 0.28), (-1.5, -0.05, 0.1)), coat * 0.75, 0.8)


def sheep(p: Pen, coat: RGB, other: RGB) -> None:
    """A cloud of wool on thin legs, a smooth face with flat ears; stands or grazes."""
    skin = p.rng.choice([COATS["black"], COATS["dark"], COATS["cream"], COATS["tan"]]).astype(float) * p.between(0.9, 1.1)
    low, swing = p.between(0.24, 0.32), p.between(0.03, 0.2)
    rx, ry = p.between(0.34, 0.42), p.between(0.22, 0.27)
    legs(p, skin * 0.75, [-rx * 0.5, rx * 0.65], low, 0.03, swing, BLACK)
    middle = (0.0, -low - ry * 0.7)
    legs(p, skin, [-rx * 0.68, rx * 0.45], low, 0.033, swing, BLACK)
    curls = int(p.rng.integers(11, 17))
    t = np.arange(curls) * (2 * np.pi / curls) + p.between(0, 1)
    places = np.stack([middle[0] + rx * np.cos(t), middle[1] + ry * np.sin(t)], 1) + p.rng.normal(0, 0.012, (curls, 2))
    p.dot(-rx - 0.07, middle[1] + 0.02, 0.07, coat * 0.92)
    p.fill(oval(*middle, rx * 1.05, ry * 1.05), coat)
    for x, y in places:
        p.fill(oval(x, y, p.between(0.075, 0.11), p.between(0.075, 0.1)), coat * (0.9 if y > middle[1] else 1.0))
    p.fill(oval(*middle, rx * 0.98, ry * 0.95), coat)
    for _ in range(14):
        a, r = p.between(0, 2 * np.pi), np.sqrt(p.between(0, 0.8))
        x, y, s = middle[0] + rx * r * np.cos(a), middle[1] + ry * r * np.sin(a), p.between(0.03, 0.05)
        p.line([(x - s, y), (x - s * 0.5, y + s), (x + s * 0.6, y + s * 0.6), (x + s * 0.5, y - s * 0.4)], coat * 0.78, 0.012)
    graze = p.chance(0.35)
    face = (rx + p.between(0.08, 0.14), -low * 0.55 if graze else middle[1] - p.between(0.05, 0.25))
    p.fill(limb((rx * 0.7, middle[1], 0.14), (*face, 0.1)), coat)
    head = p.at(*face, p.between(0.7, 1.1) if graze else p.between(0.2, 0.7), 0.1)
    head.fill(limb((0.3, 0.5, 0.15), (-0.3, 1.0, 0.24), (-0.6, 1.4, 0.08)), skin * 0.7)
    head.fill(limb((0.0, 0.0, 0.8), (0.8, 0.15, 0.62), (1.5, 0.25, 0.42)), skin)
    head.line([(1.85, 0.3), (1.6, 0.5), (1.3, 0.45)], skin * 0.5)
    head.dot(1.75, 0.1, 0.09, BLACK)
    head.fill(oval(0.55, -0.25, 0.2, 0.17), WHITE)
    head.eye(0.58, -0.23, 0.13)
    head.fill(limb((-0.2, -0.2, 0.18), (-0.8, 0.15, 0.27), (-1.25, 0.5, 0.1)), skin * 0.85, 0.7)
    for x in (-0.45, 0.0, 0.3):
        head.dot(x, -0.72 - p.between(0, 0.1), 0.42, coat)
