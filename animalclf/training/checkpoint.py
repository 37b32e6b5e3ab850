"""Checkpoints: tensors and plain data only, so that they load with `weights_only=True`; written whole or not at all."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NotRequired, Self, TypedDict

import torch

from animalclf import config as configuration
from animalclf.config import Config
from animalclf.config.parsing import Tree
from animalclf.errors import UserError
from animalclf.models import build, fitted_heads
from animalclf.models.classifier import Classifier
from animalclf.models.weights import check_uncompressed, load_state
from animalclf.runs import Run, check_kind
from animalclf.training.optim import AverageState, OptimizerState
from animalclf.utils import storage
from animalclf.utils.text import reason

FORMAT = 1


class BestCheckpoint(TypedDict):
    """best.pt: the weights of the best epoch and what prediction needs in addition."""

    config: Tree
    classes: list[str]
    prior: list[float]
    """The class priors that the model was trained under."""
    epoch: int
    """Counted from 1."""
    metrics: Mapping[str, object]
    """The epoch's row of metrics.jsonl."""
    model: dict[str, torch.Tensor]


class LastCheckpoint(TypedDict):
    """last.pt: what a resume restores; frozen layers are in best.pt only."""

    config: Tree
    history: list[Mapping[str, Any]]
    """Rows of metrics.jsonl."""
    model: dict[str, torch.Tensor]
    optimizer: OptimizerState
    average: AverageState | None
    start: NotRequired[dict[str, torch.Tensor]]
    """The initial values of the weights that train, if they are used."""


def serialize(content: Mapping[str, object]) -> memoryview:
    """Tensors and plain data as the bytes of a file that `load` reads."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **content}, buffer)
    return buffer.getbuffer()


def snapshot(content: Mapping[str, object], device: torch.device) -> Callable[[str], None]:
    """Copy `content` now. Returns a function that writes the copy to a file or bucket by its URL, in any thread.

    On a GPU the tensors are cloned there, which takes less than a millisecond. The returned function copies them to the
    host on a separate stream, in parallel with the steps of the next epoch, and straight into the file: serializing
    in memory first would hold Python's lock for 0.1 s, in which no step starts.
    """
    if device.type != "cuda":
        data = serialize(content)
        return lambda url: storage.write_bytes(url, data)
    copy, ready = _clone(content), torch.cuda.Event()
    ready.record()

    def write(url: str) -> None:
        stream = torch.cuda.Stream(device)
        stream.wait_event(ready)
        with torch.cuda.stream(stream), storage.atomic_write(url) as file:
            torch.save({"format": FORMAT, **copy}, file)

    return write


def _clone(content: Any) -> Any:
    """Mappings and lists of tensors and plain data, with the tensors cloned."""
    if isinstance(content, torch.Tensor):
        return content.detach().clone()
    if isinstance(content, dict):
        return {key: _clone(value) for key, value in content.items()}
    return [_clone(value) for value in content] if isinstance(content, list) else content


class Writer:
    """Writes one epoch's files after another's: at once from a CPU to a file system; in a thread, while the next epoch
    trains, to a bucket, which is slow, and from a GPU, whose epochs are short. Leaving its context waits for the
    thread."""

    def __init__(self, run: Run, device: torch.device) -> None:
        self.pool = ThreadPoolExecutor(1) if storage.is_remote(run.root) or device.type == "cuda" else None
        self.running: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.pool:
            self.pool.shutdown()

    def add(self, write: Callable[[], None]) -> None:
        """Call `write` after the calls before it. Raises UserError if a write fails (disk full)."""
        self.wait()
        if self.pool:
            self.running = self.pool.submit(write)
        else:
            write()

    def wait(self) -> None:
        """Wait until everything is written. Raises as `add`."""
        if self.running:
            running, self.running = self.running, None
            running.result()


def load(url: str, device: str | torch.device = "cpu") -> Any:
    """The content of a checkpoint: a BestCheckpoint or a LastCheckpoint. Raises UserError if the file is missing,
    damaged, or no checkpoint of this package."""
    try:
        data = storage.read_own(url)
    except FileNotFoundError as error:
        remedy = "check the name of the run folder, and whether an epoch is finished"
        raise UserError(f"{url}: no checkpoint here; {remedy}") from error
    try:
        _check_archive(data)
        content = torch.load(io.BytesIO(data), map_location=device, weights_only=True)
    except Exception as error:  # unpickling raises errors of many types for damaged files
        raise UserError(
            f"{url}: not a readable checkpoint ({reason(error)}); restore the file, or train again"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(
            f"{url}: not a checkpoint of this version of animalclf (format {FORMAT}); restore the file, or train again"
        )
    return content


def _check_archive(data: bytes) -> None:
    """Raise ValueError for a checkpoint whose tensors differ from their checksums, which torch.load does not check, or
    are compressed."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        check_uncompressed(archive)
        if name := archive.testzip():
            raise ValueError(f"{name} differs from its checksum")


@dataclass(frozen=True)
class ModelInfo:
    """The description of a model in its checkpoint."""

    config: Config
    classes: list[str]
    epoch: int
    """Counted from 1."""
    prior: list[float]
    """The class priors that it was trained under."""
    temperature: float = 1.0
    """Of its probabilities."""


def load_model(run: str, device: str | torch.device = "cpu") -> tuple[Classifier, ModelInfo]:
    """The best model of a run folder (or of a checkpoint file) in evaluation mode on `device`, and its description. The
    model of a finished run has the temperature of its result.json; a checkpoint file alone is not calibrated.

    Raises UserError for a folder of another kind, without a checkpoint, and if the weights do not fit the architecture
    that the configuration names.
    """
    folder = None if run.endswith(".pt") else Run(storage.absolute(run))
    if folder:
        check_kind(folder)
    url = folder.checkpoint("best") if folder else run
    content: BestCheckpoint = load(url, device)
    info = ModelInfo(
        config=configuration.from_dict(content["config"]),
        classes=list(content["classes"]),
        epoch=content["epoch"],
        prior=content["prior"],
        temperature=(folder.result().temperature if folder and folder.finished() else None) or 1.0,
    )
    keep_shape = info.config.keeps_shape
    with torch.random.fork_rng(devices=()):  # initial weights are random: the caller's numbers stay the same
        model = build(info.config.model, len(info.classes), load_weights=False, keep_shape=keep_shape)
    if info.config.train.heads:
        model.head = fitted_heads.module_from(content["model"])
    load_state(model, content["model"], url)
    model.temperature = info.temperature
    return model.to(device).eval(), info
