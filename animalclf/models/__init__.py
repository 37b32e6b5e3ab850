"""Models by name. Each carries its own preprocessing and works for any number of classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from animalclf.models.registry import MODELS, build

__all__ = ["MODELS", "build"]


def __getattr__(name: str) -> Any:
    """MODELS and build, at their first use: they import PyTorch, and the check of weights before Ray starts does not
    need it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from animalclf.models import registry

    return getattr(registry, name)
