"""A finished run as a folder for use elsewhere: the model in one or more formats, labels, a script and a model card."""

from __future__ import annotations

import importlib.util
import json
import tempfile
import time
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from animalclf.data.run_images import prepared_set_of
from animalclf.errors import UserError
from animalclf.export.card import model_card
from animalclf.export.formats import FORMATS, Exporting, Format
from animalclf.rows import ExportCheck, ExportResult
from animalclf.runs import Run, open_finished
from animalclf.training import checkpoint
from animalclf.utils import storage
from animalclf.utils.console import show_line
from animalclf.utils.text import count_text
from animalclf.utils.writable import check_writable

FILES = 200  # that the check makes by default
LABELS, SCRIPT, CARD = "labels.json", "predict_onnx.py", "README.md"


def export(run: str, formats: Sequence[str], out: str | None = None, check: int = 0) -> ExportResult:
    """Write the best model of the finished run folder in the `formats` (names of FORMATS) to `out` (default:
    RUN/export). With `check` images, compare the ONNX files with `predict` first; weights of 8 bits are compared
    in any case, if the prepared set of the run is there.

    Raises UserError for an unknown format, a package that is not installed, a training that has not finished, a network
    that cannot be exported, an ONNX file whose probabilities differ, and a README.md that no export wrote.
    """
    started = time.perf_counter()
    chosen = {name: FORMATS.get(name) for name in formats}
    _check_installed(chosen, bool(check))
    folder = open_finished(run)
    target = storage.absolute(out) if out else folder.url("export")
    check_writable(target)
    _check_replaceable(target)
    model, info = checkpoint.load_model(folder.root)
    exporting = Exporting(model, info)
    contents = {form.file: form.write(exporting) for form in chosen.values()}
    contents[LABELS] = json.dumps(info.classes, ensure_ascii=False, indent=1).encode()
    onnx_files = [name for name in contents if name.endswith(".onnx")]
    if onnx_files:
        script = resources.files("animalclf.export") / "templates" / SCRIPT
        contents[SCRIPT] = script.read_text().replace('"model.onnx"', f'"{onnx_files[0]}"').encode()
    count = _check_count(folder, chosen.values(), check) if onnx_files else 0
    if count:
        show_line(f"checking {' and '.join(onnx_files)} with {count_text(count, 'image')}")
    checks = _checked(folder, contents, onnx_files, count) if count else None
    sizes = {name: _size(len(content)) for name, content in contents.items()}
    contents[CARD] = model_card(folder, info, sizes, checks or []).encode()
    for name, content in contents.items():
        storage.write_bytes(storage.join(target, name), content)
    for name in sorted({SCRIPT, *(form.file for form in FORMATS.entries().values())} - set(contents)):
        if storage.exists(storage.join(target, name)):
            show_line(f"{name} is of an earlier export, and the model card does not name it; remove it")
    return ExportResult(
        run=folder.root,
        folder=target,
        files={name: len(content) for name, content in contents.items()},
        checks=checks,
        seconds=time.perf_counter() - started,
    )


def _check_replaceable(target: str) -> None:
    """Raise UserError if the folder has a README.md that no export wrote."""
    card = storage.join(target, CARD)
    if storage.exists(card) and b"\ntags: [image-classification, animalclf" not in storage.read_bytes(card):
        raise UserError(f"{card}: is not the model card of an export and would be replaced; choose another --out")


def _check_installed(chosen: dict[str, Format], check: bool) -> None:
    for name, form in chosen.items():
        packages = form.packages + (("onnxruntime",) if check and form.file.endswith(".onnx") else ())
        missing = [package for package in packages if not importlib.util.find_spec(package)]
        if missing:
            raise UserError(
                f"--to {name}: {', '.join(missing)} is not installed; install it with: pip install 'animalclf[export]'"
            )


def _check_count(folder: Run, forms: Iterable[Format], check: int) -> int:
    """The files that the check makes: `check`, and for a format that loses accuracy some without being asked to."""
    if check or all(form.exact for form in forms):
        return check
    try:
        prepared_set_of(folder)
    except UserError as error:
        show_line(f"the accuracy of weights of 8 bits is not measured: {error}")
        return 0
    return FILES


def _checked(folder: Run, contents: dict[str, bytes], onnx_files: Sequence[str], count: int) -> list[ExportCheck]:
    """The checks of the ONNX files. Raises UserError if a file that should be exact is not."""
    from animalclf.export.check import TOLERANCE, check

    exact = [form.file for form in FORMATS.entries().values() if form.exact]
    with tempfile.TemporaryDirectory() as temporary:
        for name, content in contents.items():
            Path(temporary, name).write_bytes(content)
        checks = check(folder, Path(temporary), onnx_files, count)
    for row in checks:
        if row.file in exact and row.largest_difference > TOLERANCE:
            raise UserError(
                f"{row.file}: probabilities differ from those of predict by up to {row.largest_difference:.4f} on "
                f"{row.files:,} files (limit {TOLERANCE:g}); nothing was written. Please report it with the recipe"
            )
    return checks


def table(result: ExportResult) -> list[RenderableType]:
    """An export for people: its files, and the checks."""
    files = Table(show_header=False)
    files.add_column()
    files.add_column(justify="right")
    for name, size in result.files.items():
        files.add_row(Text(name), _size(size))
    renderables: list[RenderableType] = [Text(f"export: {result.folder}"), files]
    for row in result.checks or ():
        renderables.append(
            Text(
                f"{row.file} against predict: the same class for {row.same_class:,} of {row.files:,} files of many "
                f"sizes and modes; probabilities differ by at most {row.largest_difference:.1e} (from the same "
                f"decoded pixels: {row.largest_of_pixels:.1e}); accuracy {row.accuracy:.3f} on "
                f"{count_text(row.images, f'{row.split} image')} of the prepared set (predict: "
                f"{row.accuracy_of_predict:.3f})"
            )
        )
    return renderables


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1e5 else f"{count / 1e3:,.1f} KB"
