"""Checkpoints: tensors and plain data only, so that they load with `weights_only=True`; written whole or not at all."""

from __future__ import annotations

import io
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

import torch

from animalclf import config as configuration
from animalclf.config import Config
from animalclf.errors import UserError
from animalclf.models import build
from animalclf.models.classifier import Classifier
from animalclf.models.weights import load_state
from animalclf.runs import Run
from animalclf.utils import storage

FORMAT = 1


def packed(content: dict[str, Any]) -> memoryview:
    """Tensors and plain data as the content of a file that `load` reads; what happens to the tensors later does not
    change it."""
    sink = io.BytesIO()
    torch.save({"format": FORMAT, **content}, sink)
    return sink.getbuffer()


def deferred(content: dict[str, Any], device: torch.device) -> Callable[[str], None]:
    """A function, for any thread, that writes `content` as it is now to a file or bucket that it gets.

    On a GPU the tensors are copied there, in less than a millisecond. When the function is called they go to the host, on a stream of their own,
    beside the steps of the next epoch, and from there straight to the file: to pack them in memory first would hold Python's lock for a tenth of a
    second, in which no step is started.
    """
    if device.type != "cuda":
        data = packed(content)
        return lambda url: storage.write_bytes(url, data)
    copied, ready = _copied(content), torch.cuda.Event()
    ready.record()

    def write(url: str) -> None:
        stream = torch.cuda.Stream(device)
        stream.wait_event(ready)
        with torch.cuda.stream(stream), storage.writing(url) as file:
            torch.save({"format": FORMAT, **copied}, file)

    return write


def _copied(content: Any) -> Any:
    """Dictionaries and lists of tensors and plain data, with the tensors copied."""
    if isinstance(content, torch.Tensor):
        return content.detach().clone()
    if isinstance(content, dict):
        return {key: _copied(value) for key, value in content.items()}
    return [_copied(value) for value in content] if isinstance(content, list) else content


class Writer:
    """Does one epoch's writes after another's: at once from a CPU to a file system; while the next epoch trains to a bucket, which takes its time,
    and from a GPU, whose epochs are short. Leaving its context waits for what is being written."""

    def __init__(self, run: Run, device: torch.device) -> None:
        self.pool = ThreadPoolExecutor(1) if storage.is_remote(run.root) or device.type == "cuda" else None
        self.running: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.pool:
            self.pool.shutdown()

    def add(self, writes: Callable[[], None]) -> None:
        """Do `writes`, after those before. Raises UserError where these, or those before, cannot be done (a full disk,
        say)."""
        self.wait()
        if self.pool:
            self.running = self.pool.submit(writes)
        else:
            writes()

    def wait(self) -> None:
        """Until everything is written. Raises as `add`."""
        if self.running:
            running, self.running = self.running, None
            running.result()


def load(url: str, device: str | torch.device = "cpu") -> dict[str, Any]:
    """Read what `packed` made. Raises UserError where there is no checkpoint, or none of ours."""
    try:
        content = torch.load(io.BytesIO(storage.read_bytes(url)), map_location=device, weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"{url}: no checkpoint here") from error
    except (
        RuntimeError,
        EOFError,
        ValueError,
        TypeError,
        KeyError,
        torch.serialization.pickle.UnpicklingError,
    ) as error:
        raise UserError(f"{url}: not a readable checkpoint ({str(error).splitlines()[0]})") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{url}: not a checkpoint of this version of animalclf (format {FORMAT})")
    return content


@dataclass(frozen=True)
class ModelInfo:
    """What a checkpoint says of its model."""

    config: Config
    classes: list[str]
    epoch: int
    """Counted from 1."""
    prior: list[float]
    """The class priors that it was trained under."""


def load_model(run: str, device: str | torch.device = "cpu") -> tuple[Classifier, ModelInfo]:
    """The best model of a run folder (or of a checkpoint file) in evaluation mode on `device`, and its description.

    Raises UserError where the weights do not fit the architecture that the configuration names.
    """
    url = run if run.endswith(".pt") else Run(storage.absolute(run)).checkpoint("best")
    content = load(url, device)
    info = ModelInfo(
        configuration.from_dict(content["config"]), list(content["classes"]), content["epoch"], content["prior"]
    )
    model = build(info.config.model, len(info.classes), load_weights=False)
    load_state(model, content["model"], url)
    return model.to(device).eval(), info
