"""Pretrained weights: downloaded once per node with a checksum, from an installed package, or from a local or
s3:// file; always loaded with `weights_only=True`.

The functions import PyTorch themselves: `check` runs before Ray starts, and PyTorch takes seconds to import.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import posixpath
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, TypeVar

from filelock import FileLock

from animalclf import architectures
from animalclf.errors import UserError
from animalclf.models import embedded
from animalclf.utils import storage
from animalclf.utils.console import show_line
from animalclf.utils.text import reason

if TYPE_CHECKING:
    import torch
    from torch import nn

T = TypeVar("T")
MAX_NAMED = 6  # keys named in an error
SAVE_STATE = "torch.save(model.state_dict(), FILE)"
OBJECTS, KERAS, SAFETENSORS = (
    "it holds Python objects",
    "it is an HDF5 file, as Keras writes",
    "it is a safetensors file",
)
TORCHSCRIPT = "it is a TorchScript archive"
OTHER_KINDS = (OBJECTS, KERAS, SAFETENSORS, TORCHSCRIPT)
WRAPPERS = ("module.", "_orig_mod.")


def fetch(architecture: str, source: str) -> dict[str, torch.Tensor]:
    """The state dict of `source` ("imagenet", "embedded", or a path or URL), float32. Raises UserError with the
    remedy: how to get the file by hand."""
    import torch

    file, content = _content(architecture, source)
    try:
        if zipfile.is_zipfile(io.BytesIO(content)):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                check_uncompressed(archive)
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling raises errors of many types for damaged files
        cause, remedy = _cause(error, content), "get it again or remove it"
        if cause in OTHER_KINDS:
            remedy = f"save the tensors alone: {SAVE_STATE}"
        raise UserError(f"model.weights: {file}: not a readable file of weights ({cause}); {remedy}") from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(
            f"model.weights: {file}: not a state dict (names to tensors); it holds {_describe(state)}. "
            f"Save the state dict alone: {SAVE_STATE}"
        )
    if not state:
        raise UserError(f"model.weights: {file}: holds no tensors. Save the state dict: {SAVE_STATE}")
    state = _without_wrapper(state)
    return {name: value.float() if value.is_floating_point() else value for name, value in state.items()}


def _without_wrapper(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors under the names of the network itself: DataParallel and torch.compile put a prefix before all."""
    for prefix in WRAPPERS:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _cause(error: Exception, content: bytes) -> str:
    """Why `content` is no file of weights."""
    if not content:
        return "it is empty"
    if content.startswith(b"\x89HDF"):
        return KERAS
    if content[8:9] == b"{" and int.from_bytes(content[:8], "little") <= len(content) - 8:
        return SAFETENSORS
    if content.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS; get the file with: git lfs pull"
    if content.startswith(b"PK") and b"/constants.pkl" in content:
        return TORCHSCRIPT
    if content.lstrip()[:1] == b"<":
        return "it is a web page"
    is_pickle = content.startswith(b"\x80")  # of any protocol that Python writes, and no archive
    if isinstance(error, UnpicklingError) and (is_pickle or "global" in str(error).lower()):
        return OBJECTS
    return reason(error).partition(". ")[0]


def check_uncompressed(archive: zipfile.ZipFile) -> None:
    """Raise ValueError for a file of PyTorch's format with compressed tensors, which PyTorch does not write: they could
    fill the memory."""
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
        raise ValueError("it is compressed")


def _describe(content: object) -> str:
    """What a file that is no state dict holds: `a dict with the keys epoch, state_dict (a state dict)`."""
    if not isinstance(content, dict):
        return f"a {type(content).__name__}"
    keys = [f"{key} (a state dict)" if isinstance(value, dict) else str(key) for key, value in content.items()]
    return f"a dict with the keys {', '.join(keys[:MAX_NAMED])}{' ...' if len(keys) > MAX_NAMED else ''}"


def _tensors(state: Mapping[str, torch.Tensor]) -> str:
    """`26 tensors (0.weight (64, 3, 3, 3), ...)`."""
    names = [f"{name} {tuple(tensor.shape)}" for name, tensor in list(state.items())[:2]]
    return f"{len(state):,} tensors" + (f" ({', '.join(names)}, ...)" if names else "")


def _content(architecture: str, source: str) -> tuple[str, bytes]:
    """The name and the content of the file of `source`."""
    if source == "embedded":
        return str(embedded.find(architecture)), embedded.content(architecture)
    is_name = source == "imagenet" or architectures.ENTRY.fullmatch(source)
    file = str(_download(architecture, source)) if is_name else source
    return file, _fetch_remote(file) if storage.is_remote(file) else _read_source(
        file, lambda: storage.read_bytes(file)
    )


def check(architecture: str, source: str) -> None:
    """Raise UserError if `fetch` would for a known model, because the file does not exist or cannot be downloaded.
    Reads no file."""
    if source == "embedded":
        embedded.find(architecture)
    elif architecture.startswith(architectures.TIMM) and source == "imagenet":
        architectures.download_timm(architecture)
    elif source == "imagenet" or architectures.ENTRY.fullmatch(source):
        _download(architecture, source)
    else:
        if not architecture.startswith(("vgg16", *embedded.FILES, architectures.TIMM)):
            _pretrained(architecture, source)  # raises for a model that takes no pretrained weights
        _read_source(source, lambda: _version(source))


def torchvision_file(architecture: str, source: str = "imagenet") -> Path:
    """The path of an architecture's downloaded weights of torchvision on this machine."""
    return _folder() / posixpath.basename(_pretrained(architecture, source).url)


def load_state(module: nn.Module, state: dict[str, torch.Tensor], origin: str) -> None:
    """Load `state`, read from `origin`, into `module`; on the meta device only check it. Raises UserError naming the
    first tensors that are missing, unexpected or of another shape."""
    expected = module.state_dict()
    # num_batches_tracked is only a counter, which some files do not have.
    faults = [f"{name} missing" for name in expected if name not in state and not name.endswith("num_batches_tracked")]
    faults += [f"{name} unexpected" for name in state if name not in expected]
    faults += [
        f"{name} is {tuple(state[name].shape)}, not {tuple(expected[name].shape)}"
        for name in expected
        if name in state and state[name].shape != expected[name].shape
    ]
    if faults:
        listing = f"{', '.join(faults[:3])}{f' and {len(faults) - 3} more' if len(faults) > 3 else ''}"
        raise UserError(
            f"{origin}: does not fit this architecture: {listing}. The file holds {_tensors(state)}, "
            f"the architecture has {_tensors(expected)}"
        )
    if not any(tensor.is_meta for tensor in expected.values()):
        module.load_state_dict(state, strict=False)


def load_pretrained(module: nn.Module, state: dict[str, torch.Tensor], source: str) -> None:
    """Load the tensors `state` of the pretrained weights `source`. Raises UserError as `load_state` does, and for
    values that are not finite."""
    floats = {name: value for name, value in state.items() if value.is_floating_point() and not value.is_meta}
    not_finite = [name for name, value in floats.items() if not value.isfinite().all()]
    if not_finite:
        raise UserError(f"model.weights: {source}: {not_finite[0]} has NaN or infinite values; get other weights")
    load_state(module, state, f"model.weights: {source}")


def _pretrained(architecture: str, source: str) -> architectures.Pretrained:
    if architecture in embedded.FILES:
        raise UserError(f"model.weights: there are no pretrained weights for {architecture} to download; use embedded")
    return architectures.pretrained(architecture, source)


def _folder() -> Path:
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints"


def _download(architecture: str, source: str) -> Path:
    """The file of an architecture's weights of torchvision. An existing file needs neither a network nor a writable
    folder. A licence that restricts their use is printed before a download."""
    path, pretrained = torchvision_file(architecture, source), _pretrained(architecture, source)
    url = pretrained.url
    if path.exists():
        return path
    if pretrained.licence:
        show_line(pretrained.licence)
    import torch

    try:
        # PyTorch prints to standard output, which is for results.
        with _lock(path), contextlib.redirect_stdout(sys.stderr or io.StringIO()):
            if not path.exists():  # another rank of this node may have downloaded it
                torch.hub.load_state_dict_from_url(
                    url, map_location="cpu", check_hash=True, weights_only=True, progress=False
                )
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        raise UserError(
            f"model.weights: the ImageNet weights could not be downloaded ({error}). Get {url} on a machine with "
            f"access and put it into {path.parent} on every node, or name the file with --set model.weights=PATH, or "
            "train without it with --set model.weights=none"
        ) from error
    return path


def _fetch_remote(url: str) -> bytes:
    """The content of a remote file, fetched once per node for each version of the file."""
    version = _read_source(url, lambda: _version(url))
    path = _folder() / f"{version[:16]}-{posixpath.basename(url)}"
    try:
        with _lock(path):
            if not path.exists():
                storage.write_bytes(str(path), _read_source(url, lambda: storage.read_bytes(url)))
            return path.read_bytes()
    except OSError as error:
        raise UserError(
            f"model.weights: {path}: cannot be written ({error}); "
            "set the environment variable TORCH_HOME to another folder"
        ) from error


def _version(source: str) -> str:
    """Hex digits that change with the file (in a bucket: with its ETag). Raises FileNotFoundError, and UserError for a
    folder."""
    fs, path = storage.filesystem(source)
    fs.invalidate_cache()
    if fs.info(path)["type"] == "directory":
        raise UserError(f"model.weights: {source}: a folder; give the path of a state dict")
    return str(fs.ukey(path))


def _read_source(source: str, action: Callable[[], T]) -> T:
    """The result of `action`, which reads `source`. Raises UserError if it cannot be read."""
    try:
        return storage.with_retries(source, action)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(
            f"model.weights: {source}: no such file; give the path of a state dict, imagenet, or none"
        ) from error
    except (IsADirectoryError, PermissionError) as error:
        raise UserError(
            f"model.weights: {source}: cannot be read ({error.strerror}); give the path of a state dict"
        ) from error


def _lock(file: Path) -> FileLock:
    """A lock on `file` for one process of this machine at a time: a file with the suffix .lock in its folder."""
    file.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{file}.lock")
