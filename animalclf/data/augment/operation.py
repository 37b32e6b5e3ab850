"""Augmentation operations: the parts of an operation, its random numbers, and the registry."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np

from animalclf.config import Augment, Config
from animalclf.utils.registry import Registry

if TYPE_CHECKING:
    import torch

AnyT = TypeVar("AnyT")


@dataclass(frozen=True)
class Stream:
    """The random numbers of an operation: `draws` numbers per image, which no other operation uses.

    Operations may share a stream, with the same number of draws and disjoint `columns` of them.
    """

    name: str
    """At most 8 ASCII letters. It separates the operations' numbers."""
    draws: int
    columns: tuple[int, ...] = ()
    """Default: all."""

    def __post_init__(self) -> None:
        if len(self.name) > 8 or not self.name.isascii():
            raise ValueError(f"random stream {self.name!r}: at most 8 ASCII letters")
        if not self.columns:
            object.__setattr__(self, "columns", tuple(range(self.draws)))

    def overlaps(self, other: Stream) -> bool:
        """True if numbers of the two streams are not independent."""
        return self.name == other.name and (
            self.draws != other.draws or not set(self.columns).isdisjoint(other.columns)
        )


@dataclass(frozen=True, eq=False)
class Samples:
    """The images of a batch in an epoch: everything that an operation's parameters depend on."""

    augment: Augment
    seed: int
    epoch: int
    index: np.ndarray
    """Manifest rows, int64 (N,)."""
    size: int
    """Side in pixels of the view, which is square."""

    def uniform(self, stream: Stream) -> np.ndarray:
        """The stream's random numbers in [0, 1), float64 (N, columns)."""
        seed = self.seed ^ int.from_bytes(stream.name.encode())
        return uniform(seed, self.epoch, self.index, stream.draws)[:, list(stream.columns)]


class Operation(ABC):
    """An operation, with its parts of the view. The parts of all operations are composed, so that each image is warped
    once and its pixel values are mapped once; a part that is None changes nothing.

    An operation that needs more than a warp, a colour map and a box (a filter over neighbouring pixels) defines
    `parameters` and the two forms `apply_numpy` and `apply_torch`, which run last, on whole batches.
    """

    order: ClassVar[int] = 100
    """Operations are composed by ascending order, then in the order of their registration."""
    stream: ClassVar[Stream | None] = None
    """Its random numbers, for `samples.uniform`."""

    @abstractmethod
    def is_active(self, augment: Augment) -> bool:
        """True if the settings turn this operation on."""

    def warp(self, samples: Samples) -> np.ndarray | None:
        """float64 (N, 2, 3): from a pixel (x, y, 1) of the warped square to the position (x, y) in the square before,
        both of `samples.size` pixels. Pixel centres are whole numbers."""
        return None

    def colour_factors(self, samples: Samples) -> np.ndarray | None:
        """float64 (N, 3): factors of brightness, contrast and saturation, multiplied over all operations."""
        return None

    def colour_table(self, samples: Samples) -> np.ndarray | None:
        """uint8 (N, 256): the new value of each value, after the factors."""
        return None

    def erased_box(self, samples: Samples) -> np.ndarray | None:
        """int64 (N, 4): left, top, right, bottom (exclusive) of a box that is painted grey; empty = none."""
        return None

    def parameters(self, samples: Samples) -> np.ndarray | None:
        """(N, ...), float32 or int64: the parameters of each image for the two forms below."""
        return None

    def apply_numpy(self, images: np.ndarray, parameters: np.ndarray) -> np.ndarray:
        """uint8 (N, S, S, 3) to uint8 (N, S, S, 3). May change `images` in place."""
        raise NotImplementedError(f"{type(self).__name__} has parameters but no NumPy form")

    def apply_torch(self, images: torch.Tensor, parameters: torch.Tensor) -> torch.Tensor:
        """As `apply_numpy`, with both tensors on the training device. Import torch in the function: input tasks load
        this module without it."""
        raise NotImplementedError(f"{type(self).__name__} has parameters but no torch form")


class OperationRegistry(Registry[type[Operation]]):
    """The registry of operations, each with separate random numbers."""

    def register(self, name: str) -> Callable[[AnyT], AnyT]:
        """As Registry.register. Raises ValueError also for an operation whose random stream overlaps another's."""

        def add(operation: Any) -> Any:
            for other_name, other in self._entries.items():
                if operation.stream and other.stream and operation.stream.overlaps(other.stream):
                    raise ValueError(
                        f"augmentation operations {other_name!r} and {name!r} use the same random numbers; "
                        f"give {name!r} a stream of another name than {operation.stream.name!r}"
                    )
            return super(OperationRegistry, self).register(name)(operation)

        return add

    def used_by(self, config: Config) -> list[str]:
        """The names of the operations that the settings turn on."""
        return [name for name, operation in self.entries().items() if operation().is_active(config.augment)]


OPERATIONS = OperationRegistry("augmentation operation", package="animalclf.data.augment.operations", in_workers=True)


def active_operations(augment: Augment) -> list[Operation]:
    """The operations that the settings turn on, in the order in which they are composed."""
    operations = [operation() for operation in OPERATIONS.entries().values()]
    active = [operation for operation in operations if operation.is_active(augment)]
    return sorted(active, key=lambda operation: operation.order)


def uniform(seed: int, epoch: int, index: np.ndarray, draws: int) -> np.ndarray:
    """Random numbers in [0, 1), float64 (N, draws), each a pure function of (seed, epoch, index, draw): the SplitMix64
    mixing function (Steele, Lea, Flood 2014) over a counter. An image gets the same numbers in any batch, on any
    worker, in any order."""
    with np.errstate(over="ignore"):
        key = _mix(_mix(np.array(seed & (2**64 - 1), np.uint64)) + np.uint64(epoch))
        counter = index.astype(np.uint64)[:, None] * np.uint64(draws) + np.arange(draws, dtype=np.uint64)
        return (_mix(counter ^ key) >> np.uint64(11)) * 2.0**-53


def _mix(z: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        z = z + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))
