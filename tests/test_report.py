"""The report page, from run folders made by code."""

import argparse
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from helpers import tiny_prepared
from validated import CLASSES, finished_run, guesses

from animalclf.cli import main
from animalclf.commands import compare
from animalclf.data import prepared_set
from animalclf.report import mistakes
from animalclf.report.leaderboard import leaderboard
from animalclf.report.page import SECTIONS, write_report
from animalclf.runs import Run
from animalclf.utils import storage

LABELS = np.arange(120) % 3
ODD = ["<b>ape</b>", 'bée & "wasp"', "牛"]


def complete(run: Run, epochs: int = 12, **environment) -> Run:
    """What `finished_run` leaves out of a run folder and the report shows."""
    history = [
        {"epoch": n, "seconds": 10.0, "train_loss": 2 / n, "train_accuracy": 1 - 0.7 / n, "val_loss": 2.2 / n, "val_accuracy": 1 - 0.8 / n}
        for n in range(1, epochs + 1)
    ]
    run.write_metrics(history)
    run.write_environment(**environment)
    if run.finished():
        run.write_result({**run.result(), "wait_share": 0.01, "seconds": 120.0, "precision": "fp32", "time": {"step": 90.0}})
    return run


def comparison(folder, count=4, pictures=LABELS, classes=CLASSES, **environment):
    generator, runs = np.random.default_rng(0), []
    for number in range(count):
        recipe, share = ("vgg16", 0.9) if number % 2 else ("big_cnn", 0.6)
        chances = guesses(pictures, share, generator, len(classes))
        run = finished_run(folder / f"run{number}", chances, pictures, sets=[f"seed={number // 2}"], recipe=recipe, classes=classes)
        runs.append(complete(run, **environment))
    return runs


def page_of(found):
    return storage.read_bytes(found["report"]).decode()


def test_a_comparison_has_every_section_and_its_figures(tmp_path):
    runs = comparison(tmp_path)
    board = leaderboard(runs)
    found = write_report(runs, str(tmp_path), title="Comparison", board=board, failed=[{"name": "resnet18", "seed": 0, "reason": "no <weights>"}])
    page = page_of(found)
    for name, heading in SECTIONS.items():
        assert f'<section id="{name}"><h2>{heading}</h2>' in page
    for row in board["rows"]:
        assert f"<b>{row['balanced_accuracy']['mean']:.3f}</b>" in page
    assert "<b>vgg16</b> is best" in page and "no &lt;weights&gt;" in page
    assert "0.9178" in page and "0.1825" in page  # the seed's own figures for VGG16 and the CNN after 10 epochs
    assert f"{1 - 0.8 / 10:.4f}" in page  # ours beside them
    best = max((run for run in runs if run.root in board["rows"][0]["runs"]), key=lambda run: run.result()["balanced_accuracy"])
    assert str(best.result()["val"]["confusion"][0][0]) in re.search(r'id="confusion">(.*?)</section>', page, re.S).group(1)
    for url in found["plots"]:
        assert storage.read_bytes(url)[:4] == b"\x89PNG"
    assert found["bytes"] == len(page.encode())


def test_the_page_stands_alone_and_escapes_what_users_named(tmp_path):
    runs = comparison(tmp_path, classes=ODD)
    page = page_of(write_report(runs, str(tmp_path), title="<script>alert(1)</script>", board=leaderboard(runs)))
    assert "<b>ape</b>" not in page and "&lt;b&gt;ape&lt;/b&gt;" in page and "牛" in page and "<script" not in page
    loads = re.findall(r'(?:src|href)="([^"]*)"', page) + re.findall(r"url\(([^)]*)\)", page)
    assert loads and all(url.startswith(("#", "data:")) for url in loads)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))  # two plots that share a name would draw each other's parts


def test_one_run_and_an_unfinished_one(tmp_path):
    run = comparison(tmp_path, 1)[0]
    page = page_of(write_report([run], run.root, title=run.config().name))
    low, high = run.result()["val"]["intervals"]["balanced_accuracy"]
    assert f"{low:.1%} to {high:.1%}" in page
    assert '<section id="mistakes">' in page and not any(word in page for word in ("disagree", "best run", "Who wins"))  # there is no other model
    storage.remove(run.url("result.json"))
    page = page_of(write_report([run], run.root, title="running"))
    assert "No training has ended yet; 12 epochs" in page and "--resume" in page and '<section id="curves">' in page
    assert "mistakes" not in page
    storage.remove(run.url("metrics.jsonl"))
    assert "No epoch has ended yet" in page_of(write_report([run], run.root, title="begun"))


def test_pictures_come_from_the_prepared_set(tmp_path):
    prepared = tiny_prepared(tmp_path / "set")
    rows = prepared.rows("val")
    chances = np.full((len(rows), 3), 0.01, np.float32)
    chances[np.arange(len(rows)), (prepared.labels[rows] + (np.arange(len(rows)) < 4)) % 3] = 0.98  # the first four are wrong
    paths = list(prepared.manifest["path"].iloc[rows])
    run = finished_run(tmp_path / "run", chances, prepared.labels[rows], classes=prepared.classes, paths=paths)
    complete(run, prepared=prepared.root)
    page = page_of(write_report([run], run.root, title="x"))
    shown = re.search(r'id="mistakes">(.*?)</section>', page, re.S).group(1)
    assert shown.count("data:image/jpeg;base64,") == 4 and all(path in shown for path in paths[:4]) and paths[4] not in shown
    assert re.search(r'id="labels">(.*?)</section>', page, re.S).group(1).count("<img") == 4
    storage.remove(f"{prepared.root}/{prepared_set.INFO}")
    page = page_of(write_report([run], run.root, title="x"))
    assert "cannot be shown" in page and "no prepared set here" in page


def test_mistakes_are_ordered_and_labels_doubted_only_where_all_agree(tmp_path):
    labels = np.array([0, 0, 1, 2])
    first = np.array([[0.05, 0.9, 0.05], [0.4, 0.6, 0.0], [0.0, 1.0, 0.0], [0.97, 0.0, 0.03]], np.float32)
    second = np.array([[0.1, 0.8, 0.1], [0.9, 0.1, 0.0], [0.0, 1.0, 0.0], [0.9, 0.0, 0.1]], np.float32)
    one, two = (finished_run(tmp_path / str(n), chances, labels).predictions("val") for n, chances in enumerate((first, second)))
    assert mistakes.confident_mistakes(one, 2)["path"].tolist() == ["cow/3.jpg", "ape/0.jpg"]
    doubted = mistakes.likely_wrong_labels([one, two], 9)
    assert doubted["path"].tolist() == ["cow/3.jpg", "ape/0.jpg"] and doubted["given"].tolist() == pytest.approx([0.065, 0.075], abs=1e-6)
    counts, differ = mistakes.disagreement(one, two, 9)
    assert counts == {"both": 1, "first": 0, "second": 1, "neither": 2} and differ["path"].tolist() == ["ape/1.jpg"]


def test_ten_runs_on_many_pictures_stay_small(tmp_path):
    runs = comparison(tmp_path, 10, np.arange(4000) % 10, [f"class{n}" for n in range(10)])
    found = write_report(runs, str(tmp_path), title="Comparison", board=leaderboard(runs))
    assert found["bytes"] < 5_000_000


@pytest.mark.parametrize("width", [390, 1440])
def test_in_a_browser_nothing_fails_or_overflows(tmp_path, width):
    chromium = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
    if not chromium:
        pytest.skip("no Chromium on this machine")
    runs = comparison(tmp_path, classes=["a-very-long-class-name-without-any-spaces-in-it", *ODD[1:]])
    page = page_of(write_report(runs, str(tmp_path), title="Comparison", board=leaderboard(runs)))
    # A narrow window is a frame in a wide one: headless Chromium has no windows below 500 px.
    probe = """<script>const said=[];window.onerror=(text)=>said.push(text);addEventListener('load',()=>{const page=document.documentElement;
      const wide=[...document.querySelectorAll('main > *, section > *')].filter(e=>e.getBoundingClientRect().right>innerWidth+1).map(e=>e.tagName);
      parent.postMessage(JSON.stringify({said,wide,inner:innerWidth,scroll:page.scrollWidth}),'*')})</script>"""
    (tmp_path / "probed.html").write_text(page.replace("<head>", f"<head>{probe}"))
    frame = f'<iframe src="probed.html" style="width:{width}px;height:900px;border:0"></iframe>'
    listen = "<script>addEventListener('message',e=>{document.title=e.data})</script>"
    (tmp_path / "frame.html").write_text(f"<!doctype html><title></title>{listen}{frame}")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    flags += ["--disable-component-update", "--disable-sync", "--allow-file-access-from-files", "--virtual-time-budget=4000"]
    command = [chromium, *flags, f"--user-data-dir={tmp_path}/profile", "--window-size=1600,1000", "--dump-dom", f"file://{tmp_path}/frame.html"]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    told = json.loads(re.search(r"<title>(.*?)</title>", dom).group(1).replace("&quot;", '"'))
    assert told["said"] == [] and told["wide"] == [] and told["inner"] == width and told["scroll"] <= width


def test_after_a_comparison_leaderboard_ensembles_and_report_lie_in_its_folder(tmp_path, capsys):
    runs = comparison(tmp_path / "trials")
    arguments = argparse.Namespace(predict=None, prior="train", sample_submission=None)
    found = compare.conclude(runs, [], str(tmp_path), arguments)
    assert found["exit_code"] == 0 and [row["kind"] for row in found["leaderboard"]].count("model") == 2
    assert {made["method"] for made in found["ensembles"]} == {"vote", "mean", "weighted"}
    assert all(len(made["members"]) == 2 for made in found["ensembles"])  # the best seed of each recipe
    assert {"leaderboard.csv", "leaderboard.json", "leaderboard.md", "report.html"} <= {path.name for path in tmp_path.iterdir()}
    trials = [{"run": run.root, "state": "finished"} for run in runs] + [{"name": "x", "seed": 0, "state": "failed", "reason": "it broke"}]
    storage.write_json(str(tmp_path / "summary.json"), {"trials": trials})
    assert main(["report", str(tmp_path), "--json"]) == 0
    page = page_of(json.loads(capsys.readouterr().out.splitlines()[-1]))
    assert "it broke" in page and all(made["name"] in page for made in found["ensembles"])


def test_runs_that_cannot_be_set_side_by_side_are_refused(tmp_path, capsys):
    one, other = (
        finished_run(tmp_path / name, guesses(LABELS[:n], 0.9, np.random.default_rng(0)), LABELS[:n]) for name, n in (("a", 120), ("b", 90))
    )
    assert main(["report", one.root, other.root, "--out", str(tmp_path / "both")]) == 2
    assert main(["report", one.root, other.root]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "other pictures" in said and "--out: name a folder" in said and not (tmp_path / "both").exists()
