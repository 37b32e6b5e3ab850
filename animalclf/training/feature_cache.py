"""Features of a frozen base, stored in the prepared set's folder: computed once for all trials, folds and later runs.

A file `features-<key>.npz` has the features of the images of one base. Its key is a hash of what they depend on: the
images and their stored form (the set's fingerprint), the base with its weights, how it sees an image, the number
format and the kind of device. `animalclf prepare --force` and removing the files clear the cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from filelock import FileLock

from animalclf.config import Config
from animalclf.data.disk_cache import cache_folder
from animalclf.data.prepared_set import Prepared
from animalclf.errors import UserError
from animalclf.models.classifier import Classifier
from animalclf.training.context import TrainContext
from animalclf.utils import storage
from animalclf.utils.arrays import READ_ERRORS
from animalclf.utils.console import show_line
from animalclf.utils.text import reason

FORMAT = 1
MAX_BYTES = 2**31  # of a file's features; larger ones are not stored
MAX_FILES = 8  # in a prepared set; the oldest go


@dataclass(frozen=True, eq=False)
class Features:
    """Features float32 (N, F) of the manifest rows `index`, int64 (N,), without repetition."""

    index: np.ndarray
    values: np.ndarray

    def position(self, rows: int) -> np.ndarray:
        """The index in `values` of each of `rows` manifest rows, int64 (rows,); -1 for rows without features."""
        position = np.full(rows, -1, np.int64)
        position[self.index] = np.arange(len(self.index))
        return position

    def concatenate(self, others: Features) -> Features:
        """These and the features of other rows."""
        index, values = (np.concatenate(pair) for pair in ((self.index, others.index), (self.values, others.values)))
        return Features(index, values)


@dataclass(frozen=True)
class FeatureCache:
    """The stored features of one base on one prepared set."""

    root: str
    key: str

    @property
    def url(self) -> str:
        return storage.join(self.root, f"features-{self.key}.npz")

    def lock(self) -> contextlib.AbstractContextManager[None]:
        """One process of this machine at a time."""
        return machine_lock(os.path.join(cache_folder(), f"features-{self.key}"))

    def read(self) -> Features | None:
        """The stored features. None if there are none, and, with a line that says so, if their file is damaged."""
        try:
            with np.load(io.BytesIO(storage.read_bytes(self.url)), allow_pickle=False) as arrays:
                features = Features(arrays["index"], arrays["values"])
            if features.index.dtype != np.int64 or features.values.shape[:1] != features.index.shape:
                raise ValueError("its arrays do not fit")
        except FileNotFoundError:
            return None
        except (UserError, *READ_ERRORS) as error:
            show_line(f"{self.url}: cannot be read ({reason(error)}); the features are computed again")
            return None
        return features

    def write(self, features: Features) -> None:
        """Store features. A folder that cannot be written costs a line, not the training."""
        if features.values.nbytes > MAX_BYTES:
            return
        content = io.BytesIO()
        np.savez(content, index=features.index, values=features.values)
        try:
            storage.write_bytes(self.url, content.getbuffer())
            self._remove_oldest()
        except (UserError, OSError) as error:
            show_line(f"the features are not stored: {error}")

    def _remove_oldest(self) -> None:
        fs, folder = storage.filesystem(self.root)
        fs.invalidate_cache()
        files = [path for path in fs.ls(folder, detail=False) if os.path.basename(path).startswith("features-")]
        if len(files) > MAX_FILES:
            for path in sorted(files, key=fs.modified)[:-MAX_FILES]:
                storage.remove(storage.join(self.root, os.path.basename(path)))


@contextlib.contextmanager
def machine_lock(path: str) -> Iterator[None]:
    """One process of this machine at a time, by the file `path`.lock: trials that start together compute once."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # without a lock they compute twice
            os.makedirs(os.path.dirname(path), exist_ok=True)
            stack.enter_context(FileLock(f"{path}.lock"))
        yield


def cache_of(context: TrainContext, model: Classifier) -> FeatureCache:
    """The cache of the features that `model` computes in this training."""
    facts = base_facts(context.prepared, context.config, model, model.base)
    return _cache(context.prepared, facts, "bf16" if context.bf16 else "fp32", context.ranks.device.type, model)


def stored_features(prepared: Prepared, config: Config, model: Classifier) -> Features | None:
    """The features that a training with this base has stored, in any number format; None if there are none."""
    facts = base_facts(prepared, config, model, model.base)
    for precision in ("fp32", "bf16"):
        for device in ("cpu", "cuda"):
            if features := _cache(prepared, facts, precision, device, model).read():
                return features
    return None


def base_facts(prepared: Prepared, config: Config, model: Classifier, base: torch.nn.Module) -> dict[str, object]:
    """What the outputs of `base`, the base of `model` or its first layers, depend on, but for the number format."""
    return {
        "format": FORMAT,
        "images": prepared.fingerprint,
        "architecture": [config.model.name, config.model.pool],
        "base": _hash(base),
        "pixels": [model.mean.flatten().tolist(), model.scale.flatten().tolist()],
        "size": [config.view_size, model.keep_shape],
        "torch": torch.__version__,
    }


def _cache(
    prepared: Prepared, facts: Mapping[str, object], precision: str, device: str, model: Classifier
) -> FeatureCache:
    content = {**facts, "precision": [precision, device, model.channels_last]}
    key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    return FeatureCache(prepared.root, key)


def _hash(module: torch.nn.Module) -> str:
    """SHA-256 of a module's tensors and their names."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
