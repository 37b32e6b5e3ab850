"""Pretrained weights: downloaded once a node and checked, or from a local or s3:// file; always loaded with `weights_only=True`."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
import torchvision
from torch import nn

from animalclf import storage
from animalclf.errors import UserError


def fetch(architecture: str, source: str) -> dict[str, torch.Tensor]:
    """The state dict that `source` names ("imagenet", or a path or URL), float32. Raises UserError that says how to get the file by hand."""
    if source == "imagenet":
        return _download(architecture)
    try:
        content = storage.read_bytes(source)
    except FileNotFoundError as error:
        raise UserError(f"model.weights: {source}: no such file; give the path of a state dict, imagenet, or none") from error
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, ValueError, torch.serialization.pickle.UnpicklingError) as error:
        raise UserError(f"model.weights: {source}: not a readable file of weights ({str(error).splitlines()[0]})") from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(f"model.weights: {source}: holds no state dict (names to tensors)")
    return {name: value.float() if value.is_floating_point() else value for name, value in state.items()}


def check(architecture: str, source: str) -> None:
    """Raise UserError where `fetch` would, without reading a file: it exists, or the download is in the cache or can be made."""
    if source == "imagenet":
        if not torchvision_file(architecture).exists():
            _download(architecture)
    elif not storage.exists(source):
        raise UserError(f"model.weights: {source}: no such file; give the path of a state dict, imagenet, or none")


def torchvision_file(architecture: str) -> Path:
    """Where the download of an architecture's ImageNet weights is kept on this machine."""
    return Path(torch.hub.get_dir()) / "checkpoints" / _choice(architecture).url.rpartition("/")[2]


def put(module: nn.Module, state: dict[str, torch.Tensor], source: str) -> None:
    """Load `state` into `module`. Raises UserError naming the first tensors that are missing, unexpected or of another shape."""
    own = module.state_dict()
    # num_batches_tracked is only a counter; files saved without it are complete.
    wrong = [f"{name} missing" for name in own if name not in state and not name.endswith("num_batches_tracked")]
    wrong += [f"{name} unexpected" for name in state if name not in own]
    wrong += [
        f"{name} is {tuple(state[name].shape)}, not {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    if wrong:
        raise UserError(f"model.weights: {source}: does not fit this architecture: {', '.join(wrong[:3])}{' ...' if len(wrong) > 3 else ''}")
    module.load_state_dict(state, strict=False)


def _choice(architecture: str) -> torchvision.models.WeightsEnum:
    """For VGG16 the original Oxford weights, which Keras has too (the seed's); for others torchvision's best."""
    architecture = "vgg16" if architecture == "vgg16_pooled" else architecture
    choices = torchvision.models.get_model_weights(architecture)
    return choices.IMAGENET1K_FEATURES if architecture == "vgg16" else choices.DEFAULT


def _download(architecture: str) -> dict[str, torch.Tensor]:
    choice, folder = _choice(architecture), torchvision_file(architecture).parent
    try:
        with _one_at_a_time(architecture):
            state = torch.hub.load_state_dict_from_url(choice.url, map_location="cpu", check_hash=True, weights_only=True, progress=False)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"model.weights: the ImageNet weights could not be downloaded ({error}). Get {choice.url} on a machine with access and put it into "
            f"{folder} on every node, or name the file with --set model.weights=PATH, or train without with --set model.weights=none"
        ) from error
    if architecture == "vgg16":
        return {name: value for name, value in state.items() if name.startswith("features.")}
    return dict(state)


@contextlib.contextmanager
def _one_at_a_time(name: str) -> Iterator[None]:
    """Several ranks on a node: the first downloads, the others then find the file."""
    if os.name != "posix":
        yield
        return
    import fcntl

    with open(os.path.join(tempfile.gettempdir(), f"animalclf-weights-{name}.lock"), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
