"""`explain`: each image's class, its probability and a heat map of what speaks for it, as PNG files, table and page."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from animalclf.config import Data
from animalclf.data.decode import UnreadableImage
from animalclf.explain.page import MAX_SHOWN, Entry, page
from animalclf.inference.explanation import Explanation
from animalclf.inference.images import decoded_image
from animalclf.inference.model import Model
from animalclf.predictions import OK
from animalclf.prepare import sources
from animalclf.prepare.task import read_files
from animalclf.rows import ExplainResult, Unreadable
from animalclf.utils import storage
from animalclf.utils.console import show_line
from animalclf.utils.file_names import skipped_text
from animalclf.utils.leftovers import remove_leftovers
from animalclf.utils.progress import ProgressLine
from animalclf.utils.writable import check_writable

PAGE, INDEX = "explain.html", "index.csv"
MAX_STEM, MAX_CLASS = 36, 18  # characters in a file's name, which has at most 255 bytes


@dataclass(frozen=True)
class ImageFile:
    """An image by its path within the folder that the user named."""

    root: str
    path: str

    @property
    def url(self) -> str:
        return storage.join(self.root, self.path)


def explain(
    run: str,
    images: Sequence[str],
    out: str | None = None,
    *,
    class_name: str | None = None,
    views: str = "none",
    limit: int = 0,
) -> ExplainResult:
    """Explain `images` (files, folders, s3:// URLs) by the best model of the run folder `run`, for `class_name` or for
    the predicted class of each. `limit`: only the first N images, 0 for all.

    Writes a PNG file for each image, index.csv and explain.html into `out` (default: RUN/explain). An unreadable image
    is named in the table. Raises UserError, before any long work, for what the user can fix.
    """
    started = time.perf_counter()
    model = Model(run)
    model.explain([], class_name, views)  # refuses unknown classes and views, and networks without maps
    files = _files(images, model, limit)
    target = storage.absolute(out) if out else storage.join(model.run, "explain")
    check_writable(target)
    remove_leftovers(target)
    rows: list[tuple[str, str, str, float | None, str, str]] = []
    entries: list[Entry] = []
    unreadable: list[Unreadable] = []
    for number, (file, answer) in enumerate(_explanations(model, files, class_name, views), start=1):
        if isinstance(answer, str):
            unreadable.append(Unreadable(path=file.url, reason=answer))
            rows.append((file.url, "", "", None, "", answer))
            continue
        name = file_name(number, file.path, answer)
        storage.write_bytes(storage.join(target, name), answer.png())
        rows.append((file.url, name, answer.class_name, answer.probability, answer.predicted, OK))
        if len(entries) < MAX_SHOWN:
            entries.append(Entry.of(file.path, answer))
    table = pd.DataFrame(rows, columns=["path", "file", "class", "probability", "predicted", "status"])
    storage.write_bytes(storage.join(target, INDEX), table.to_csv(index=False).encode())
    html = page(model, entries, [(item.path, item.reason) for item in unreadable], len(files))
    storage.write_bytes(storage.join(target, PAGE), html.encode())
    return ExplainResult(
        run=model.run,
        folder=target,
        images=len(files) - len(unreadable),
        unreadable=unreadable,
        views=None if views == "none" else views,
        seconds=time.perf_counter() - started,
        page=storage.join(target, PAGE),
        index=storage.join(target, INDEX),
    )


def _files(images: Sequence[str], model: Model, limit: int) -> list[ImageFile]:
    files: list[ImageFile] = []
    for data in images:
        source = sources.find(data, model.config.data, labelled=False)
        for note in filter(None, [*source.warnings, skipped_text(source.ignored)]):
            show_line(note)
        files += [ImageFile(source.root, path) for path in source.files["path"]]
    return files[:limit] if limit else files


def _explanations(
    model: Model, files: Sequence[ImageFile], class_name: str | None, views: str
) -> Iterator[tuple[ImageFile, Explanation | str]]:
    """Each file with its explanation, or with the reason why it is unreadable."""
    with ProgressLine() as line:
        line.update("explaining", 0, len(files))
        for done, file in enumerate(files, start=1):
            pixels = _pixels(file, model.config.data)
            yield file, pixels if isinstance(pixels, str) else model.explain(pixels, class_name, views)[0]
            line.update("explaining", done, len(files))


def _pixels(file: ImageFile, data: Data) -> np.ndarray | str:
    """uint8 (H, W, 3), or why there are none."""
    (content,) = read_files(file.root, [file.path])
    if isinstance(content, str):
        return content
    try:
        return decoded_image(content, file.path, data)
    except UnreadableImage as error:
        return str(error)


def file_name(number: int, path: str, explanation: Explanation) -> str:
    """The name of an image's PNG file: its number, name, class and probability, without characters that a file system
    or a URL may not take."""
    stem = path.rpartition("/")[2].rpartition(".")[0] or path
    words = [_safe(stem)[:MAX_STEM], _safe(explanation.class_name)[:MAX_CLASS], f"{explanation.probability:.2f}"]
    return "-".join([f"{number:04d}", *words]) + ".png"


def _safe(text: str) -> str:
    return re.sub(r"[^\w.]+", "_", text)
