"""The ten classes: how each is drawn and the coats it may have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from animalclf.data.drawing.others import butterfly, hen, spider, squirrel
from animalclf.data.drawing.pen import COATS, RGB, VIVID, Pen
from animalclf.data.drawing.quadrupeds import cat, cow, dog, elephant, horse, sheep


@dataclass(frozen=True)
class Animal:
    """How one class is drawn: its function, its usual coats (shared between classes), whether it is near the lens and turns freely."""

    draw: Callable[[Pen, RGB, RGB], None]
    coats: tuple[str, ...]
    small: bool = False


ANIMALS = {
    "cane": Animal(dog, ("white", "cream", "tan", "ginger", "brown", "dark", "black", "grey")),
    "cavallo": Animal(horse, ("white", "tan", "ginger", "brown", "dark", "black", "grey")),
    "elefante": Animal(elephant, ("grey", "slate", "tan", "brown", "grey")),
    "farfalla": Animal(butterfly, ("vivid", "vivid", "vivid", "white", "brown", "ginger"), small=True),
    "gallina": Animal(hen, ("white", "cream", "ginger", "brown", "dark", "black", "grey")),
    "gatto": Animal(cat, ("white", "cream", "ginger", "brown", "black", "grey", "slate")),
    "mucca": Animal(cow, ("white", "white", "cream", "ginger", "brown", "black")),
    "pecora": Animal(sheep, ("white", "white", "cream", "tan", "brown", "dark", "grey")),
    "ragno": Animal(spider, ("black", "dark", "brown", "ginger", "tan", "slate", "cream"), small=True),
    "scoiattolo": Animal(squirrel, ("ginger", "brown", "dark", "grey", "black", "tan")),
}


def coat_colour(name: str, rng: np.random.Generator) -> RGB:
    """A coat of that name with some chance in its lightness and hue, float (3,)."""
    base = VIVID[rng.integers(len(VIVID))] if name == "vivid" else np.array(COATS[name], float)
    return np.clip(base * rng.uniform(0.85, 1.12) + rng.normal(0, 6, 3), 12, 250)


def draw_animal(name: str, image: np.ndarray, matrix: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw an animal of class `name` on `image` uint8 (H, W, 3); `matrix` (2, 3) maps its units to pixels. Returns its mask uint8 (H, W)."""
    animal = ANIMALS[name]
    mask = np.zeros(image.shape[:2], np.uint8)
    coat = coat_colour(str(rng.choice(animal.coats)), rng)
    other = coat_colour(str(rng.choice(animal.coats)), rng)
    if abs(other - coat).sum() < 90:  # markings must be seen
        other = coat_colour("white" if coat.mean() < 130 else "dark", rng)
    animal.draw(Pen(image, mask, matrix, rng), coat, other)
    return mask
