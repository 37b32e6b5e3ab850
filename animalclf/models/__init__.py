"""Models by name. Each carries its own preprocessing and works for any number of classes."""

from animalclf.models.registry import MODELS, build

__all__ = ["MODELS", "build"]
