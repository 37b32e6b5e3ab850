"""report.html: one file that opens offline, of one run or of many; its plots are also PNG files beside it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from animalclf.errors import UserError
from animalclf.report import data as report_data
from animalclf.report import plots
from animalclf.report.data import ReportData
from animalclf.report.render import render, script
from animalclf.report.section import SECTIONS, Content, Section
from animalclf.report.thumbnails import thumbnails
from animalclf.rows import EnsembleResult, Leaderboard, ReportResult, TrialEntry
from animalclf.runs import Run
from animalclf.utils import storage
from animalclf.utils.console import show_line
from animalclf.utils.leftovers import remove_leftovers


def write_report(
    runs: Sequence[Run],
    out: str,
    *,
    title: str,
    board: Leaderboard | None = None,
    ensembles: Sequence[EnsembleResult] = (),
    failed: Sequence[TrialEntry] = (),
    reference: bool = False,
) -> ReportResult:
    """Write `out`/report.html and its plots as `out`/report/*.png. `runs`: run folders, finished or not, in the order
    to show; `board`: what leaderboard() returned; `ensembles`: what ensemble() returned; `failed`: failed trials of a
    comparison; `reference`: show the reference results of the recipes for any images.

    A section is shown if its condition holds (see section.py): an unfinished training has learning curves and no
    confusion matrix. One that needs a missing or damaged file, such as predictions/val.parquet, is left out, with a
    line. Raises UserError naming another file that a run folder lacks.
    """
    data = report_data.read(runs, board, ensembles, failed, reference)
    ordered = sorted(SECTIONS.entries().values(), key=lambda section: section.order)
    parts = _contents(ordered, data)
    pngs = {f"{name}.png": plots.png(figure) for _, content in parts for name, figure in content.plots.items()}
    html = _page(title, data, parts).encode()
    url = storage.join(out, "report.html")
    remove_leftovers(out, "report.html.*.tmp")
    remove_leftovers(storage.join(out, "report"))
    storage.write_bytes(url, html)
    for name, png in pngs.items():
        storage.write_bytes(storage.join(out, "report", name), png)
    return ReportResult(report=url, plots=[storage.join(out, "report", name) for name in pngs], bytes=len(html))


def _contents(sections: Sequence[Section], data: ReportData) -> list[tuple[Section, Content]]:
    """The sections that the report shows. Those that need a missing or damaged file are named with it in a line."""
    parts, missing = [], dict[str, list[str]]()
    for section in sections:
        try:
            if section.when(data):
                parts.append((section, section.gather(data)))
        except UserError as error:
            missing.setdefault(str(error), []).append(section.title)
    for reason, titles in missing.items():
        show_line(f"report without {', '.join(titles)}: {reason}")
    return parts


def _page(title: str, data: ReportData, parts: Sequence[tuple[Section, Content]]) -> str:
    paths = [path for _, content in parts for path in content.images]
    images = thumbnails(data.prepared, paths) if data.prepared else {}
    sections = [(section, _body(section, content, images)) for section, content in parts]
    written = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    scripts = [script(content.script) for _, content in parts if content.script]
    return render("page.html", scripts, title=title, written=written, sections=sections, **_summary(data))


def _body(section: Section, content: Content, images: Mapping[str, str]) -> Markup:
    # matplotlib escapes the texts of a figure.
    svgs = {
        name: Markup(f'<figure class="wide">{plots.svg(figure, name)}</figure>')
        for name, figure in content.plots.items()
    }
    return Markup(render(f"{section.name}.html", **content.values, plots=svgs, thumbnails=images))


def _summary(data: ReportData) -> Mapping[str, object]:
    """The variables of summary.html: the best run, or the two best rows of the leaderboard and the test of their
    difference."""
    leaders = data.rows[:2]
    names = {row.recipe for row in leaders}
    return {
        "best": data.best[0] if data.best else None,
        "leaders": leaders,
        "pair": next((pair for pair in data.pairs if {pair.better, pair.worse} == names), None),
        "epochs": sum(len(record.history) for record in data.runs),
    }
