"""report.html: one file that opens offline, of one run or of many; the same plots lie beside it as PNG files."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from html import escape as esc
from importlib import resources
from typing import Any

import pandas as pd

from animalclf import config as configuration
from animalclf.data.prepared_set import Prepared
from animalclf.report import mistakes, pictures, plots, sections
from animalclf.runs import Run
from animalclf.utils import storage

SHOWN = 18  # pictures in a gallery
NO_PICTURES = "There are none."
# id -> heading, in the order of the page
SECTIONS = {
    "leaderboard": "Who wins",
    "curves": "Learning curves",
    "confusion": "What is taken for what",
    "classes": "Class by class",
    "disagreement": "Where two models disagree",
    "mistakes": "The most confident mistakes",
    "labels": "Likely wrong labels",
    "calibration": "Is it as sure as it is right",
    "data": "Data health",
    "speed": "Time and throughput",
    "reproduce": "Configuration and commands",
}


def write_report(
    runs: Sequence[Run],
    out: str,
    *,
    title: str,
    board: dict[str, Any] | None = None,
    ensembles: Sequence[dict[str, Any]] = (),
    failed: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """Write `out`/report.html and its plots as `out`/report/*.png. `runs`: run folders, finished or not, in the order to show; `board`: what
    leaderboard() gave; `ensembles`: what ensemble() gave; `failed`: trials of a comparison, with "name", "seed" and "reason".

    Returns {"report", "plots", "bytes"}. What a run lacks (an unfinished training, pictures that are gone) is said in its place; sections that need
    a finished run, or two, are left out where there is none.
    """
    about = [_facts(run) for run in runs]
    done = [one for one in about if one["result"]]
    best = _best(done, board)  # the best run of each recipe, the best recipe first
    prepared = pictures.prepared_of(about[0]["environment"].get("prepared", ""))
    files: dict[str, bytes] = {}

    def plot(name: str, make: Any, *arguments: Any) -> str:
        figure = plots.drawn(make, *arguments)
        files[f"{name}.png"] = plots.png(figure)
        return f"<figure>{plots.svg(figure, name)}</figure>"

    found = [(one["label"], one["result"]["val"]) for one in best if "val" in one["result"]]
    histories = [(one["config"].name, one["config"].model.name, one["history"]) for one in about if one["history"]]
    parts: dict[str, str] = {}
    if board:
        parts["leaderboard"] = plot("leaderboard", plots.leaderboard, board["rows"]) + sections.leaderboard(board)
    elif found:
        parts["leaderboard"] = sections.one_result(found[0][1])
    parts["leaderboard"] = parts.get("leaderboard", "<p>No training has ended yet, so there is nothing to rank.</p>") + _failures(failed)
    curves = plot("learning_curves", plots.learning_curves, histories) if histories else "<p>No epoch has ended yet.</p>"
    seed = sections.seed_comparison(histories)
    parts["curves"] = curves + (f"<h2>Beside the seed's own table</h2>{seed}" if seed else "")
    for number, (label, val) in enumerate(found):
        drawing = plot(f"confusion-{number + 1}-{_slug(label)}", plots.confusion, label, val)
        parts["confusion"] = parts.get("confusion", "") + f"<h3>{esc(label)}</h3>" + (sections.confusion(val) or drawing)
        fold = " open" if number == 0 else ""
        listed = f"<details{fold}><summary>{esc(label)}</summary>{sections.per_class(val)}</details>"
        parts["classes"] = parts.get("classes", "") + listed
    parts |= _galleries(best, prepared, len(done) > 1)
    if found:
        judged = [*found, *((one["name"], one["val"]) for one in ensembles)]
        parts["calibration"] = plot("calibration", plots.calibration, judged) + (
            '<p class="soft">On the dotted line a model is right as often as it says. The larger a mark, the more pictures.</p>'
        )
    parts["data"] = sections.health(prepared) if isinstance(prepared, Prepared) else f"<p>{esc(prepared)}</p>"
    if done:
        parts["speed"] = sections.speed([(one["label"], one["result"]) for one in done])
    parts["reproduce"] = _reproduce(about, prepared)

    storage.write_bytes(storage.join(out, "report.html"), html := _page(title, _answer(best, board, about), parts, len(about) > 1).encode())
    for name, content in files.items():
        storage.write_bytes(storage.join(out, "report", name), content)
    return {"report": storage.join(out, "report.html"), "plots": [storage.join(out, "report", name) for name in files], "bytes": len(html)}


def _facts(run: Run) -> dict[str, Any]:
    config, finished = run.config(), run.finished()
    return {
        "run": run,
        "config": config,
        "label": f"{config.name}, seed {config.seed}",
        "environment": run.environment(),
        "history": run.metrics(),
        "result": run.result() if finished else None,
    }


def _best(done: list[dict[str, Any]], board: dict[str, Any] | None) -> list[dict[str, Any]]:
    score = {id(one): one["result"].get("balanced_accuracy", 0.0) for one in done}
    ranked = sorted(done, key=lambda one: -score[id(one)])
    groups = [set(row["runs"]) for row in board["rows"] if row["kind"] == "model"] if board else []
    if not groups:
        return ranked
    return [next(one for one in ranked if one["run"].root in group) for group in groups if any(one["run"].root in group for one in ranked)]


def _answer(best: list[dict[str, Any]], board: dict[str, Any] | None, about: list[dict[str, Any]]) -> str:
    """The whole page in a sentence or two."""
    if not best:
        epochs = sum(len(one["history"]) for one in about)
        return f"No training has ended yet; {epochs} epochs so far. An unfinished training goes on with the same command and <code>--resume</code>."
    if not board or len(board["rows"]) < 2:
        val = best[0]["result"].get("val")
        if not val:
            return "Trained without validation pictures, so its worth is not known."
        low, high = val["intervals"]["balanced_accuracy"]
        return (
            f"<b>{esc(best[0]['config'].name)}</b> recognises {val['balanced_accuracy']:.1%} of the pictures of the average class "
            f"(95 % interval {low:.1%} to {high:.1%}, {val['rows']:,} validation pictures)."
        )
    first, second = board["rows"][:2]
    pair = next((p for p in board["pairs"] if {p["a"], p["b"]} == {first["recipe"], second["recipe"]}), None)
    real = "" if pair is None else "; the difference is real" if pair["real"] else "; the difference may be chance"
    return (
        f"<b>{esc(first['recipe'])}</b> is best with a balanced accuracy of {first['balanced_accuracy']['mean']:.3f}, before {esc(second['recipe'])} "
        f"with {second['balanced_accuracy']['mean']:.3f}{real} (p = {pair['p']:.2g})."
        if pair
        else f"<b>{esc(first['recipe'])}</b> is best."
    )


def _failures(failed: Sequence[dict[str, Any]]) -> str:
    rows = [[esc(one["name"]), str(one.get("seed", "")), f'<span class="text">{esc(one["reason"])}</span>'] for one in failed]
    return "<h3>Trials that failed</h3>" + sections.rows_table(["trial", "seed", "why"], rows) if rows else ""


def _galleries(best: list[dict[str, Any]], prepared: Prepared | str, several: bool) -> dict[str, str]:
    """The sections that show pictures, of the best run of each recipe. `several`: there are more runs than one."""
    judged = [one for one in best if "val" in one["result"]]
    tables = [one["run"].predictions("val").sort_values("path", ignore_index=True) for one in judged]
    if not tables:
        return {}
    wrong = mistakes.confident_mistakes(tables[0], SHOWN)
    doubted = mistakes.likely_wrong_labels(tables, SHOWN)
    counts, differ = mistakes.disagreement(tables[0], tables[1], SHOWN) if len(tables) > 1 else ({}, pd.DataFrame({"path": []}))
    paths = [str(path) for part in (wrong, doubted, differ) for path in part["path"]]
    images = pictures.thumbnails(prepared, paths) if isinstance(prepared, Prepared) else {}
    gone = "" if images or not paths else '<p class="soft">The pictures themselves cannot be shown: the prepared set is gone.</p>'

    def said(row: Any) -> str:
        return f"<b>{esc(str(row.predicted))}</b> {row.probability:.0%}, labelled {esc(str(row.label))}"

    name, sure = esc(judged[0]["label"]), "All models agree" if len(judged) > 1 else "The model decides"
    shown = {
        "mistakes": f'<p class="soft">Of {name}{", the best run" if several else ""}.</p>{gone}'
        + (sections.gallery(wrong, images, said) if len(wrong) else f"<p>{NO_PICTURES}</p>"),
        "labels": f'<p class="soft">{sure}, and surely, on another class than the label. Look before you change anything.</p>'
        + (sections.gallery(doubted, images, said) if len(doubted) else f"<p>{NO_PICTURES}</p>"),
    }
    if counts:
        one, two = esc(judged[0]["config"].name), esc(judged[1]["config"].name)
        rows = [["both are right", f"{counts['both']:,}"], [f"only {one}", f"{counts['first']:,}"], [f"only {two}", f"{counts['second']:,}"],
                ["neither", f"{counts['neither']:,}"]]  # fmt: skip
        shown["disagreement"] = sections.rows_table([f"{one} and {two}", "pictures"], rows) + sections.gallery(
            differ,
            images,
            lambda row: f"{one}: <b>{esc(str(row.predicted))}</b><br>{two}: <b>{esc(str(row.other))}</b><br>labelled {esc(str(row.label))}",
        )
    return shown


def _reproduce(about: list[dict[str, Any]], prepared: Prepared | str) -> str:
    text = ""
    if isinstance(prepared, Prepared):
        source = esc(str(prepared.info.get("source")))
        text += f"<p>Pictures: {source}, prepared in {esc(prepared.root)}, fingerprint <code>{esc(prepared.fingerprint[:16])}</code>.</p>"
    for command in dict.fromkeys(str(one["environment"].get("command", "")) for one in about):
        text += f"<pre>{esc(command)}</pre>"
    for one in about:
        environment = one["environment"]
        versions = ", ".join(f"{name} {version}" for name, version in environment.get("versions", {}).items())
        facts = (
            f"git commit {environment.get('git_commit') or 'unknown'}; Python {environment.get('python')}; {versions}; {environment.get('platform')}"
        )
        text += (
            f"<details><summary>{esc(one['label'])}: {esc(one['run'].root)}</summary><p class='soft'>{esc(facts)}</p>"
            f"<pre>{esc(configuration.to_yaml(one['config']))}</pre></details>"
        )
    return text


def _page(title: str, answer: str, parts: dict[str, str], several: bool) -> str:
    style = resources.files("animalclf.report").joinpath("page.css").read_text()
    headings = SECTIONS | ({} if several else {"leaderboard": "How good it is"})
    there = [(name, heading) for name, heading in headings.items() if parts.get(name)]
    links = "".join(f'<a href="#{name}">{heading}</a>' for name, heading in there)
    body = "".join(f'<section id="{name}"><h2>{heading}</h2>{parts[name]}</section>' for name, heading in there)
    made = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{esc(title)}</title><style>{style}</style></head><body><main>"
        f'<header id="summary"><h1>{esc(title)}</h1><p class="answer">{answer}</p><p class="soft">animalclf, {made}</p><nav>{links}</nav></header>'
        f"{body}</main></body></html>\n"
    )


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-").lower()[:40]
