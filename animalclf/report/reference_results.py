"""Published results that come with a recipe, in recipes/reference/<recipe>.yaml: those of the reference notebook."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from importlib import resources

import yaml

from animalclf.rows import EpochRow, Row

MAX_DEVIATION = 0.01  # fraction of the images: some are unreadable


@dataclass(frozen=True, kw_only=True)
class ReferenceResults(Row):
    """Results of a recipe on `images` labelled images of `classes`."""

    classes: list[str]
    images: int
    validation: str
    """What the validation metrics were computed on."""
    epochs: list[EpochRow] = field(metadata={"row": EpochRow})
    final: Mapping[str, str]
    """Title -> value of each final metric."""

    def are_of(self, classes: Collection[str], images: int) -> bool:
        """Whether `images` images of `classes` are those of the reference. Their number tells other sets of the same
        classes apart: drawn ones, samples, and runs with `--limit`."""
        return set(classes) == set(self.classes) and abs(images - self.images) <= MAX_DEVIATION * self.images


def recipes_with_reference() -> list[str]:
    """The names of the recipes that have reference results."""
    files = resources.files("animalclf.recipes").joinpath("reference").iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


@functools.cache
def reference_results(recipe: str) -> ReferenceResults | None:
    """The reference results of the recipe of this name; None if it has none."""
    if recipe not in recipes_with_reference():
        return None
    file = resources.files("animalclf.recipes").joinpath("reference", f"{recipe}.yaml")
    return ReferenceResults.from_dict(yaml.safe_load(file.read_text(encoding="utf-8")))
