"""The Ray Data edge of prediction: pictures are read and decoded by tasks on any node, classified by a few copies of the model, gathered here."""

from __future__ import annotations

import atexit
import math
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import ray
import ray.data
import torch
from ray.util.annotations import RayDeprecationWarning
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from animalclf import config as configuration
from animalclf.config import Config
from animalclf.data import decode
from animalclf.data.augment import evaluation_view
from animalclf.data.execution import data_context
from animalclf.errors import UserError
from animalclf.inference import prior_shift as priors
from animalclf.inference import submission
from animalclf.inference.evaluate import bf16, chances_of
from animalclf.models.classifier import Classifier
from animalclf.prepare import sources
from animalclf.prepare.task import read_files
from animalclf.training import checkpoint
from animalclf.utils import storage
from animalclf.utils.console import console

Block = dict[str, np.ndarray]


def predict(
    run: str,
    data: str,
    out: str,
    *,
    prior: str = "train",
    batch_size: int = 64,
    workers: int = 0,
    device: str = "auto",
    sample_submission: str | None = None,
    limit: int = 0,
    flips: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Classify the pictures of `data` (a folder, or a competition folder's test pictures) with the best model of the run folder `run`.

    Writes `predictions.parquet` (see submission.predictions_table) and `submission.csv` into `out`. `prior`: see prior.parse_prior. `workers`: copies
    of the model, 0 = one a GPU, or one a node. `limit`: only the first so many pictures. `flips`: the mean over each picture and its mirror image.
    A picture that cannot be read gets a row all the same: the prior as its probabilities, the prior's most likely class, the reason as its status;
    it is listed under "unreadable".

    Returns what was done, as plain data ("ignored": files that are no pictures by their names). Raises UserError, before any long work, for
    whatever the user can mend.
    """
    started = time.perf_counter()
    model, about = checkpoint.load_model(run)  # here and not in the workers, so that a checkpoint that does not fit stops everything at once
    classes, settings = list(about["classes"]), configuration.from_dict(about["config"])
    wanted = priors.parse_prior(prior, classes, about["prior"])
    source = sources.find(data, settings.data, labelled=False)
    paths = list(source.files["path"])[: limit or None]
    ids = submission.ids_of(paths)
    columns: Sequence[str] = submission.COLUMNS
    if sample_submission:
        sample = submission.read(sample_submission)
        submission.same_ids(ids, sample.iloc[:, 0], sample_submission)
        columns = list(sample.columns)
    targets = {name: storage.join(storage.absolute(out), name + suffix) for name, suffix in (("predictions", ".parquet"), ("submission", ".csv"))}
    probe = storage.join(storage.absolute(out), ".writable")
    storage.write_bytes(probe, b"")  # a place that cannot be written shows now, not after the work
    storage.remove(probe)
    chances, status = classify(
        model, settings, source.root, paths, batch_size=batch_size, workers=workers, device=device, flips=flips, progress=progress
    )
    readable = np.array([reason == submission.OK for reason in status])
    corrected, shares = priors.apply(chances[readable], about["prior"], wanted)
    chances[readable], chances[~readable] = corrected, shares
    table = submission.predictions_table(paths, classes, chances, status)
    storage.write_table(targets["predictions"], table)
    submission.write(targets["submission"], ids, table["predicted"].tolist(), columns)
    if sample_submission:
        submission.check(targets["submission"], sample_submission, classes)
    seconds = time.perf_counter() - started
    return {
        "run": storage.absolute(run),
        "data": source.root,
        "pictures": len(paths),
        "ignored": source.ignored,
        "unreadable": submission.unreadable(paths, status),
        "prior": prior,
        "prior_shares": dict(zip(classes, shares.tolist(), strict=True)),
        "predicted": {name: int((table["predicted"] == name).sum()) for name in classes},
        "seconds": seconds,
        "pictures_per_s": len(paths) / seconds,
        **targets,
    }


def classify(
    model: Classifier,
    settings: Config,
    root: str,
    paths: Sequence[str],
    *,
    batch_size: int,
    workers: int = 0,
    device: str = "auto",
    flips: bool = False,
    progress: bool = True,
) -> tuple[np.ndarray, list[str]]:
    """Class probabilities float32 (N, C) of the pictures `paths` below `root`, in their order, and each one's status: "ok", or why it could not
    be read (its probabilities then mean nothing). The pictures are decoded and resized exactly as `prepare` and the evaluation do it. `flips`: the
    mean over each picture and its mirror image.

    Raises UserError where the cluster has too little for `workers` or `device` ("auto", "cpu", "cuda"), a node cannot see `root`, or the
    model gives no numbers.
    """
    from animalclf.cluster import at_most, ensure_ray, gpus
    from animalclf.training.resources import Workers, preflight

    if batch_size < 1 or device not in ("auto", "cpu", "cuda"):
        raise UserError(f"batch size {batch_size}, device {device!r}: a batch has at least 1 picture, a device is auto, cpu or cuda")
    ensure_ray(workers or 1)
    use_gpu = device == "cuda" or (device == "auto" and at_most().get("GPU", 0) > 0)
    copies = workers or min(max(gpus(), 1) if use_gpu else len(cpus_of_nodes()), math.ceil(len(paths) / batch_size))
    found = preflight(Workers.fixed(copies), use_gpu, [root])
    if progress:
        kind = "GPU" if use_gpu else "CPU"
        console.print(
            f"{len(paths):,} pictures of {root} with {settings.name} on {copies} {kind} worker{'s' if copies > 1 else ''} ({found})", soft_wrap=True
        )
    chances, status = np.zeros((len(paths), model.classes), np.float32), np.full(len(paths), "", object)
    columns = (TextColumn("classifying"), BarColumn(bar_width=24), TextColumn("{task.fields[speed]}"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not (progress and console.is_terminal)) as bar:
        line, started, done = bar.add_task("", total=len(paths), speed=""), time.perf_counter(), 0
        for block in _execute(model, settings, root, list(paths), batch_size, copies, use_gpu, flips):
            chances[block["index"]], status[block["index"]] = block["chances"], block["status"]
            done += len(block["index"])
            bar.update(line, completed=done, speed=f"{done:,}/{len(paths):,}  {done / (time.perf_counter() - started):,.0f} pictures/s")
    if done != len(paths) or (status == "").any():
        raise RuntimeError(f"{done} rows for {len(paths)} pictures, {(status == '').sum()} without one: this is a bug, please report it")
    if not np.isfinite(chances).all():
        raise UserError("the model gives values that are not numbers: its training diverged; train it again with a lower optim.lr")
    return chances, status.tolist()


def _execute(
    model: Classifier, settings: Config, root: str, paths: list[str], batch_size: int, copies: int, use_gpu: bool, flips: bool
) -> Iterator[Block]:
    """Blocks with the columns index, chances, status; one block a batch, as they get ready. A batch always has the same pictures, so that the
    figures do not depend on the timing. Batches lost with a copy that died are done again; Ray's own restarts would go on for ever where a batch
    is too large for the memory."""
    shared, weights = ray.put(paths), ray.put(model)
    left, deaths = set(range(math.ceil(len(paths) / batch_size))), 0
    while left:
        try:
            for block in _pass(shared, weights, settings, root, sorted(left), batch_size, copies, use_gpu, flips):
                failures = [text for text in block["failed"] if text]
                if failures:
                    raise UserError(failures[0])
                left.discard(int(block["index"][0]) // batch_size)
                yield block
        except ray.exceptions.RayActorError as error:
            deaths += 1
            if deaths > settings.train.max_failures:
                raise UserError(f"a copy of the model died {deaths} times, probably out of memory; try a smaller --batch-size") from error


def _pass(
    shared: ray.ObjectRef, weights: ray.ObjectRef, settings: Config, root: str, batches: list[int], batch_size: int, copies: int, use_gpu: bool,
    flips: bool,
) -> Iterator[Block]:  # fmt: skip
    """One execution over the batches with these numbers."""
    data_context()

    def read(block: Block) -> Block:
        start = batches[int(block["id"][0])] * batch_size
        return _pictures(root, ray.get(shared)[start : start + batch_size], start, settings)

    cpus = cpus_of_nodes()
    here = math.ceil(copies / len(cpus))
    # A copy on CPUs claims those that its threads use, so that the copies spread over the nodes, and leaves one on every node to the readers.
    wants = {"num_gpus": 1, "num_cpus": 0} if use_gpu else {"num_cpus": max(1, (min(cpus) - 1) // here)}
    dataset = ray.data.range(len(batches), override_num_blocks=len(batches)).map_batches(read, batch_size=None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RayDeprecationWarning)  # of ray_remote_args_fn, which Ray 2.64 takes away
        dataset = dataset.map_batches(
            _Copy,
            fn_constructor_args=(weights, settings, use_gpu, here, flips),
            batch_size=None,
            compute=ray.data.ActorPoolStrategy(size=copies),
            # Such a function also keeps Ray Data from fusing the stages: the next pictures are decoded while the model works.
            ray_remote_args_fn=lambda: {"max_restarts": 0, "max_task_retries": 0},
            **wants,
        )
    yield from dataset.iter_batches(batch_size=None, batch_format="numpy")


def cpus_of_nodes() -> list[int]:
    """The CPUs of each living node that has any."""
    found = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    return [number for number in found if number] or [1]


def _pictures(root: str, paths: Sequence[str], start: int, settings: Config) -> Block:
    """In a task: the pictures as the model wants them, uint8 (N, input, input, 3), black where one cannot be read; `failed` tells why the whole
    prediction must stop (a UserError's text, which would come wrapped out of a task)."""
    import cv2

    cv2.setNumThreads(1)  # the tasks are the parallelism
    size, failed = settings.data.stored_size, ""
    stored, status = np.zeros((len(paths), size, size, 3), np.uint8), [submission.OK] * len(paths)
    try:
        contents = read_files(root, paths)
    except UserError as error:
        contents, failed = [], str(error)
    for row, (path, content) in enumerate(zip(paths, contents, strict=not failed)):
        if isinstance(content, str):
            status[row] = content
            continue
        try:
            stored[row] = decode.resize(decode.decode(content, name=path, max_pixels=settings.data.max_pixels).image, size)
        except decode.BadPicture as error:
            status[row] = str(error)
    return {
        "index": np.arange(start, start + len(paths)),
        "image": evaluation_view(stored, settings.model.input_size),
        "status": np.array(status, object),
        "failed": np.full(len(paths), failed, object),
    }


class _Copy:
    """One copy of the model, in an actor of its own."""

    def __init__(self, weights: ray.ObjectRef, settings: Config, use_gpu: bool, copies_here: int, flips: bool) -> None:
        from animalclf.training.distributed import set_up_cpu

        # Now and then Ray 2.60 waits for ever where it takes its own parts down at the end of such a process, which would stay, with the model.
        atexit.register(os._exit, 0)
        set_up_cpu(0, copies_here)
        self.device = torch.device("cuda" if use_gpu else "cpu")
        self.model = ray.get(weights).to(self.device).eval()
        self.bf16, self.flips = bf16(settings, self.device), flips

    def __call__(self, block: Block) -> Block:
        index = block["index"]
        batch = {"image": block.pop("image"), "label": index, "index": index}
        _, chances = chances_of(self.model, iter([batch]), self.device, self.bf16, self.flips)
        return {**block, "chances": chances}
