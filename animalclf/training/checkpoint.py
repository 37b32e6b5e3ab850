"""Checkpoints: tensors and plain data only, so that they load with `weights_only=True`; written whole or not at all."""

from __future__ import annotations

import io
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

from animalclf import config as configuration
from animalclf.errors import UserError
from animalclf.models import build
from animalclf.models.classifier import Classifier
from animalclf.models.weights import load_state
from animalclf.runs import Run
from animalclf.utils import storage

FORMAT = 1


def packed(content: dict[str, Any]) -> memoryview:
    """Tensors and plain data as the content of a file that `load` reads; what happens to the tensors later does not change it."""
    sink = io.BytesIO()
    torch.save({"format": FORMAT, **content}, sink)
    return sink.getbuffer()


class Writer:
    """Does one epoch's writes after another's: at once on a file system; to a bucket, which takes its time, while the next epoch trains."""

    def __init__(self, run: Run) -> None:
        self.pool = ThreadPoolExecutor(1) if storage.is_remote(run.root) else None
        self.running: Future[None] | None = None

    def add(self, writes: Callable[[], None]) -> None:
        """Do `writes`, after those before. Raises UserError where these, or those before, cannot be done (a full disk, say)."""
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
    except (RuntimeError, EOFError, ValueError, TypeError, KeyError, torch.serialization.pickle.UnpicklingError) as error:
        raise UserError(f"{url}: not a readable checkpoint ({str(error).splitlines()[0]})") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{url}: not a checkpoint of this version of animalclf (format {FORMAT})")
    return content


def load_model(run: str, device: str | torch.device = "cpu") -> tuple[Classifier, dict[str, Any]]:
    """The best model of a run folder (or of a checkpoint file) in evaluation mode on `device`, and what is known of it:
    config (dict), classes, epoch, metrics, prior (the class shares it was trained under).

    Raises UserError where the weights do not fit the architecture that the configuration names.
    """
    url = run if run.endswith(".pt") else Run(storage.absolute(run)).checkpoint("best")
    content = load(url, device)
    model = build(configuration.from_dict(content["config"]).model, len(content["classes"]), load_weights=False)
    load_state(model, content["model"], url)
    return model.to(device).eval(), {key: value for key, value in content.items() if key != "model"}
