"""The answer for one image, as JSON."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np


@dataclass(frozen=True, eq=False)
class Scored:
    """What a replica returns for an image file: `probabilities` float32 (C,), or the reason why it is unreadable."""

    probabilities: np.ndarray | None = None
    error: str = ""
    known_score: float | None = None
    """0 or more if the image shows one of the classes; None if the run has no such score."""
    heat_map: bytes = b""
    """A JPEG file of what speaks for the class, if it was asked for."""
    heat_map_error: str = ""
    """Why there is none."""


Answer = TypedDict(
    "Answer",
    {
        "name": str,
        "class": str,
        "confidence": float,
        "probabilities": dict[str, float],
        "known": bool,
        "known_score": float,
        "heat_map": str,
        "heat_map_error": str,
        "error": str,
    },
    total=False,
)
"""`name` and either `error`, or `class`, its probability `confidence`, and the probabilities of the most probable
classes, the highest first; `known` and `known_score` (see features/known.py), if the run has the score; if it was asked
for, `heat_map` (a data URI) or `heat_map_error`."""


def image_answer(name: str, scored: Scored, classes: Sequence[str], top: int) -> Answer:
    if scored.probabilities is None:
        return {"name": name, "error": scored.error}
    # Of equal probabilities the first class is predicted, as in the table of `predict`.
    order = np.argsort(-scored.probabilities, kind="stable")[:top]
    probabilities = {classes[number]: float(scored.probabilities[number]) for number in order}
    best = classes[order[0]]
    answer: Answer = {
        "name": name,
        "class": best,
        "confidence": probabilities[best],
        "probabilities": probabilities,
    }
    if scored.known_score is not None:
        answer["known"], answer["known_score"] = scored.known_score >= 0, scored.known_score
    if scored.heat_map:
        answer["heat_map"] = "data:image/jpeg;base64," + base64.b64encode(scored.heat_map).decode()
    if scored.heat_map_error:
        answer["heat_map_error"] = scored.heat_map_error
    return answer
