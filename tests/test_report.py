"""The report page, from run folders written by code."""

import base64
import io
import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import jinja2
import numpy as np
import pytest
from helpers import tiny_prepared
from PIL import Image
from run_folders import CLASSES, ensemble_result, finished_run, guesses, run_with_model

import animalclf
from animalclf.cli import main
from animalclf.commands import compare
from animalclf.data import prepared_set
from animalclf.data.resize import stored_image
from animalclf.data.shards import write_shard
from animalclf.metrics import from_probabilities
from animalclf.report import data as report_data
from animalclf.report import plots, reference_results
from animalclf.report.leaderboard import leaderboard
from animalclf.report.page import write_report
from animalclf.report.render import ENVIRONMENT
from animalclf.report.section import SECTIONS, Content, register
from animalclf.report.sections.label_errors import likely_label_errors
from animalclf.report.sections.model_disagreement import disagreement
from animalclf.report.sections.throughput import waits_for_images
from animalclf.report.sections.top_losses import highest_losses
from animalclf.report.thumbnails import stored_images, thumbnails
from animalclf.rows import CalibrationBin, EpochRow, TrialEntry
from animalclf.runs import Run
from animalclf.tuning.conclusion import conclude
from animalclf.utils import storage

LABELS = np.arange(120) % 3
SECTIONS_OF_A_COMPARISON = {
    "calibration",
    "confusion_matrix",
    "data_health",
    "failed_trials",
    "label_errors",
    "leaderboard",
    "learning_curves",
    "model_disagreement",
    "per_class_metrics",
    "reproduction",
    "throughput",
    "top_losses",
}
# The classes of the reference notebook.
ANIMALS = ["cane", "cavallo", "elefante", "farfalla", "gallina", "gatto", "mucca", "pecora", "ragno", "scoiattolo"]
FLOWERS = ["daisy", "dandelion", "iris", "lily", "lotus", "orchid", "poppy", "rose", "sunflower", "tulip"]
FAILED = TrialEntry(slug="resnet18-s0", name="resnet18", seed=0, run="", state="failed", reason="no <weights>")
ODD_NAMES = ["<b>ape</b>", 'bée & "wasp"', "牛"]


def complete(run: Run, epochs: int = 12, **environment) -> Run:
    """Add to a run folder what the report shows and `finished_run` omits."""
    history = [
        EpochRow(
            n,
            seconds=10.0,
            train_loss=2 / n,
            train_accuracy=1 - 0.7 / n,
            val={"loss": 2.2 / n, "accuracy": 1 - 0.8 / n},
        )
        for n in range(1, epochs + 1)
    ]
    run.write_metrics(history)
    run.write_environment(**environment)
    if run.finished():
        run.write_result(
            {
                **run.read_result(),
                "epochs": epochs,
                "wait_fraction": 0.01,
                "seconds": 120.0,
                "precision": "fp32",
                "time": {"step": 90.0},
            }
        )
    return run


def comparison(folder, count=4, labels=LABELS, classes=CLASSES, **environment):
    generator, runs = np.random.default_rng(0), []
    for number in range(count):
        recipe, accuracy = ("vgg16", 0.9) if number % 2 else ("big_cnn", 0.6)
        probabilities = guesses(labels, accuracy, generator, len(classes))
        run = finished_run(
            folder / f"run{number}", probabilities, labels, sets=[f"seed={number // 2}"], recipe=recipe, classes=classes
        )
        runs.append(complete(run, **environment))
    return runs


def reference_sized(run, images=21_179):
    """The run, as if trained on this number of images."""
    run.write_result({**run.read_result(), "rows": {"train": images - 100, "val": 100, "test": 0}})
    return run


def page_of(result):
    return storage.read_bytes(result.report).decode()


def test_a_comparison_has_every_section_and_its_metrics(tmp_path):
    runs = comparison(tmp_path)
    board = leaderboard(runs)
    result = write_report(runs, str(tmp_path), title="Comparison", board=board, failed=[FAILED])
    page = page_of(result)
    sections = re.findall(r'<section id="(.*?)"><h2>(.*?)</h2>', page)
    data = report_data.read(runs, board, (), [FAILED])
    ordered = sorted(SECTIONS.entries().values(), key=lambda section: section.order)
    assert sections == [(section.name, section.title) for section in ordered if section.when(data)]
    assert {name for name, _ in sections} >= SECTIONS_OF_A_COMPARISON
    assert {"Leaderboard", "Confusion matrix", "Per-class metrics", "Top losses", "Calibration", "Data health"} <= {
        title for _, title in sections
    }
    for row in board.rows:
        assert f"<b>{row['balanced_accuracy'].mean:.3f}</b>" in page
    assert "<b>vgg16</b> is best" in page and "no &lt;weights&gt;" in page
    best = max(
        (run for run in runs if run.root in board.rows[0].runs), key=lambda run: run.read_result()["balanced_accuracy"]
    )
    assert str(best.read_result()["val"]["confusion"][0][0]) in re.search(
        r'id="confusion_matrix">(.*?)</section>', page, re.S
    ).group(1)
    for url in result.plots:
        assert storage.read_bytes(url)[:4] == b"\x89PNG"
    assert result.bytes == len(page.encode())


def test_the_page_loads_nothing_and_escapes_names(tmp_path):
    runs = comparison(tmp_path, classes=ODD_NAMES)
    page = page_of(write_report(runs, str(tmp_path), title="<script>alert(1)</script>", board=leaderboard(runs)))
    assert "<b>ape</b>" not in page and "&lt;b&gt;ape&lt;/b&gt;" in page and "牛" in page and "<script" not in page
    loads = re.findall(r'(?:src|href)="([^"]*)"', page) + re.findall(r"url\(([^)]*)\)", page)
    assert loads and all(url.startswith(("#", "data:")) for url in loads)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))  # two plots with one id show each other's elements


def test_one_run_and_an_unfinished_one(tmp_path):
    run = comparison(tmp_path, 1)[0]
    page = page_of(write_report([run], run.root, title=run.config().name))
    low, high = run.read_result()["val"]["intervals"]["balanced_accuracy"]
    assert f"{100 * low:.1f} % to {100 * high:.1f} %" in page
    assert '<section id="metrics">' in page and '<section id="top_losses">' in page
    assert not any(word in page for word in ("disagree", "best run", "Leaderboard", "all models"))  # of several models
    board = leaderboard([run])
    result = write_report([run], run.root, title="x", board=board)
    assert not any("leaderboard" in plot for plot in result.plots)  # one point
    page = page_of(result)
    assert (
        f"{run.read_result()['val']['macro_f1']:.4f}" in page
        and f"{board.rows[0].parameters / 1e6:.1f} M" in page
        and "Leaderboard" not in page
    )
    storage.remove(run.url("result.json"))
    page = page_of(write_report([run], run.root, title="running"))
    assert (
        "No training has finished. 12 epochs have finished." in page
        and "--resume" in page
        and '<section id="learning_curves">' in page
    )
    assert not any(f'id="{name}"' in page for name in ("metrics", "leaderboard", "top_losses", "throughput"))
    storage.write_bytes(
        run.url("metrics.jsonl"), storage.read_bytes(run.url("metrics.jsonl")).partition(b"\n")[0] + b"\n"
    )
    assert "1 epoch has finished." in page_of(write_report([run], run.root, title="running"))
    storage.remove(run.url("metrics.jsonl"))
    assert "No epoch has finished" in page_of(write_report([run], run.root, title="started"))


def test_thumbnails_come_from_the_prepared_set(tmp_path):
    prepared = tiny_prepared(tmp_path / "set")
    rows = prepared.rows("val")
    predicted = (prepared.labels[rows] + (np.arange(len(rows)) < 4)) % 3  # the first four are wrong
    probabilities = np.full((len(rows), 3), 0.01, np.float32)
    probabilities[np.arange(len(rows)), predicted] = 0.98
    paths = list(prepared.manifest["path"].iloc[rows])
    run = finished_run(tmp_path / "run", probabilities, prepared.labels[rows], classes=prepared.classes, paths=paths)
    complete(run, prepared=prepared.root)
    page = page_of(write_report([run], run.root, title="x"))
    top_losses = re.search(r'id="top_losses">(.*?)</section>', page, re.S).group(1)
    assert top_losses.count("data:image/jpeg;base64,") == 4  # not the images that are right and certain
    shown = re.findall(r"loss ([\d.]+)<.*?class=\"soft\">(.*?)<", top_losses, re.S)
    assert shown == [("4.61", path) for path in paths[:4]]
    assert re.search(r'id="label_errors">(.*?)</section>', page, re.S).group(1).count("<img") == 4
    storage.remove(f"{prepared.root}/{prepared_set.INFO}")
    page = page_of(write_report([run], run.root, title="x"))
    assert "cannot be shown" in page and "not a prepared set" in page


def section_of(page, name):
    return re.search(rf'id="{name}">(.*?)</section>', page, re.S).group(1)


def test_top_losses_have_heat_maps_of_the_predicted_class(tmp_path):
    prepared = tiny_prepared(tmp_path / "set", size=80)
    run = run_with_model(tmp_path / "run", prepared)
    section = section_of(page_of(write_report([run], run.root, title="x")), "top_losses")
    uris = re.findall(r'src="(data:[^"]*)" alt="heat map"', section)
    assert len(uris) == 4 and "what speaks for the predicted class" in section
    (path, predicted), *_ = zip(*(run.predictions("val")[name] for name in ("path", "predicted")), strict=True)
    image = stored_images(prepared, [path])[path]
    (explanation,) = animalclf.load(run.root, device="cpu").explain(image, predicted)
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(uris[0].partition(",")[2]))))
    assert np.abs(shown.astype(int) - explanation.overlay).mean() < 8  # JPEG
    storage.remove(run.checkpoint("best"))
    section = section_of(page_of(write_report([run], run.root, title="x")), "top_losses")
    assert section.count("<img") == 4 and "There are no heat maps: the run folder has no model." in section
    shutil.rmtree(prepared.root)
    assert "<img" not in section_of(page_of(write_report([run], run.root, title="x")), "top_losses")


def test_top_losses_are_sorted_and_label_errors_need_all_models(tmp_path):
    labels = np.array([0, 0, 1, 2])
    first = np.array([[0.05, 0.9, 0.05], [0.4, 0.6, 0.0], [0.0, 1.0, 0.0], [0.97, 0.0, 0.03]], np.float32)
    second = np.array([[0.1, 0.8, 0.1], [0.9, 0.1, 0.0], [0.0, 1.0, 0.0], [0.9, 0.0, 0.1]], np.float32)
    tables = [
        finished_run(tmp_path / str(number), probabilities, labels).predictions("val")
        for number, probabilities in enumerate((first, second))
    ]
    losses = highest_losses(tables[0], 3)
    assert losses["path"].tolist() == ["cow/3.jpg", "ape/0.jpg", "ape/1.jpg"]
    assert losses["loss"].tolist() == pytest.approx(-np.log([0.03, 0.05, 0.4]), abs=1e-6)
    label_errors = likely_label_errors(tables, 9)
    assert label_errors["path"].tolist() == ["cow/3.jpg", "ape/0.jpg"]
    assert label_errors["label_probability"].tolist() == pytest.approx([0.065, 0.075], abs=1e-6)
    counts, differ = disagreement(*tables, 9)
    assert counts == {"both": 1, "first": 0, "second": 1, "neither": 2} and differ["path"].tolist() == ["ape/1.jpg"]


def test_thumbnails_have_no_padding(tmp_path):
    prepared = tiny_prepared(tmp_path / "set", size=160)
    canvas = stored_image(np.full((40, 160, 3), 40, np.uint8), 160, "keep")  # 128 of 160 rows are padding
    write_shard(prepared.shard_paths()[0], [(0, canvas)], "pixels")
    path = prepared.manifest["path"].iloc[0]
    manifest = prepared.manifest.assign(shard=0, row=0)
    sizes = {}
    for mode in ("keep", "squash"):
        info = {**prepared.info, "config": {"resize": mode}}
        uri = thumbnails(prepared_set.Prepared(prepared.root, info, manifest), [path])[path]
        sizes[mode] = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).size
    assert sizes == {"keep": (112, 22), "squash": (112, 112)}


def test_a_single_epoch_has_no_learning_curve(tmp_path):
    first, second = comparison(tmp_path, 2)
    complete(first, epochs=1)
    assert 'id="learning_curves"' not in page_of(write_report([first], first.root, title="x"))
    page = page_of(write_report([first, second], str(tmp_path), title="x"))
    section = re.search(r'id="learning_curves">(.*?)</section>', page, re.S).group(1)
    assert "One epoch only, no curve: big_cnn, seed 0." in section and ">vgg16</text>" in section
    assert ">big_cnn</text>" not in section


NASTY = "<script>alert('x')</script> & \"q\""


class Parsed(HTMLParser):
    """The elements of a page and its text, as a browser reads them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags, self.attributes, self.text = set(), set(), ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attributes}

    def handle_data(self, data):
        self.text += data


def test_names_from_users_are_text_in_every_section(tmp_path):
    """Each name has a number, so that the page shows which are missing or became elements."""
    name = [f"{number}{NASTY}" for number in range(12)]
    prepared = tiny_prepared(tmp_path / "set")
    info = storage.read_json(f"{prepared.root}/{prepared_set.INFO}")
    manifest = prepared.manifest.assign(group=0, duplicate_kind="identical")
    manifest.loc[0, "path"] = name[0]
    storage.write_table(f"{prepared.root}/{prepared_set.MANIFEST}", manifest)
    duplicates = {"identical": 1, "near": 0, "groups": 1, "across_splits": 0, "contradictory": 1}
    info |= {
        "unreadable": [{"path": name[1], "reason": name[2]}],
        "source": name[3],
        "duplicates": duplicates,
        "counts": {"train": {"class0": 1}},
    }
    storage.write_json(f"{prepared.root}/{prepared_set.INFO}", info)
    classes, runs = [name[4], "b", "c"], []
    for number, recipe in enumerate(("big_cnn", "vgg16")):
        probabilities = guesses(LABELS, 0.6, np.random.default_rng(number))
        paths = [f"{name[5]}/{image}.jpg" for image in range(len(LABELS))]
        sets = [f"name={json.dumps(name[6 + number])}"]
        run = finished_run(
            tmp_path / str(number), probabilities, LABELS, recipe=recipe, classes=classes, paths=paths, sets=sets
        )
        runs.append(complete(run, prepared=prepared.root, command=name[8]))
    ensemble, failed = ensemble_result(runs[0], runs, name[9]), [replace(FAILED, name=name[10])]
    result = write_report(
        runs, str(tmp_path), title=name[11], board=leaderboard(runs), failed=failed, ensembles=[ensemble]
    )
    page = page_of(result)
    parsed = Parsed(page)
    assert not [text for text in name if text not in parsed.text]
    assert not parsed.tags & {"script", "iframe", "object", "form"}
    assert not [attribute for attribute in parsed.attributes if attribute.startswith("on") or attribute == "q"]
    assert "&lt;script&gt;" in page and "&amp;lt;" not in page  # escaped, and once


def test_the_page_may_load_and_run_nothing(tmp_path):
    run = comparison(tmp_path, 1)[0]
    page = page_of(write_report([run], run.root, title="x"))
    policy = re.search(r'<meta http-equiv="Content-Security-Policy"\s+content="(.*?)">', page).group(1)
    assert "default-src 'none'" in policy and "img-src data:" in policy and "script-src" not in policy


def test_a_section_is_a_function_and_a_template(tmp_path, monkeypatch):
    monkeypatch.setattr(
        ENVIRONMENT,
        "loader",
        jinja2.ChoiceLoader([ENVIRONMENT.loader, jinja2.DictLoader({"x_test_section.html": "<p>{{ word }}</p>"})]),
    )
    run = comparison(tmp_path, 1)[0]
    try:
        register("x_test_section", title="Extra", order=65, when=lambda data: len(data.runs) == 1)(
            lambda data: Content({"word": f"<{data.runs[0].label}>"})
        )
        page = page_of(write_report([run], run.root, title="x"))
        names = re.findall(r'<section id="(.*?)">', page)
        assert names[names.index("x_test_section") - 1] == "per_class_metrics"
        assert "<p>&lt;big_cnn, seed 0&gt;</p>" in page and '<a href="#x_test_section">Extra' in page
        assert 'id="x_test_section"' not in page_of(write_report([run, run], run.root, title="x"))  # its condition
        with pytest.raises(ValueError, match="report section 'calibration' is registered twice"):
            register("calibration", title="Calibration", order=1)(lambda data: Content())
        SECTIONS.unregister("x_test_section")
        register("x_test_section", title="Extra", order=1)(lambda data: Content())
        with pytest.raises(jinja2.UndefinedError, match="'word' is undefined"):
            write_report([run], run.root, title="x")
    finally:
        SECTIONS.unregister("x_test_section")


def test_many_classes_have_confused_pairs_and_a_legible_plot(tmp_path):
    classes = [f"class{number}" for number in range(151)]
    labels = np.arange(410) % 41
    probabilities = np.eye(41, dtype=np.float32)[np.where(labels == 3, 5, labels)]  # class3 is predicted as class5
    run = complete(finished_run(tmp_path / "run", probabilities, labels, classes=classes[:41]))
    page = page_of(write_report([run], run.root, title="x"))
    section = re.search(r'id="confusion_matrix">(.*?)</section>', page, re.S).group(1)
    assert re.findall(r"<td[^>]*>(.*?)</td>", section) == ["class3", "class5", "10", "100.0 %"]
    assert "The 2 classes of the most confused pairs" in section
    guessing = comparison(tmp_path / "guessing", 1, np.arange(604) % 151, classes)[0]
    result = write_report([guessing], guessing.root, title="x")
    (plot,) = (url for url in result.plots if "confusion" in url)
    assert max(Image.open(io.BytesIO(storage.read_bytes(plot))).size) < 1500  # px
    section = re.search(r'id="confusion_matrix">(.*?)</section>', page_of(result), re.S).group(1)
    assert section.count("<tr><td>") == 30 and "<svg" in section


@pytest.mark.parametrize("classes, shown", [(ANIMALS, True), (ANIMALS[::-1], True), (FLOWERS, False)])
def test_reference_results_are_shown_for_the_classes_of_the_reference(tmp_path, classes, shown):
    labels = np.arange(100) % 10
    runs = [reference_sized(run) for run in comparison(tmp_path, 2, labels, classes)]
    page = page_of(write_report(runs, str(tmp_path), title="Comparison", board=leaderboard(runs)))
    texts = ['id="reference_results"', "reference notebook", "<td>0.1825</td>", "<td>0.9178</td>", "about 0.84"]
    assert [text in page for text in texts] == [shown] * len(texts)
    forced = page_of(write_report(runs, str(tmp_path), title="Comparison", board=leaderboard(runs), reference=True))
    assert all(text in forced for text in texts)
    assert f"{1 - 0.8 / 10:.4f}" in re.search(r'id="reference_results">(.*?)</section>', forced, re.S).group(1)


def test_reference_results_are_not_shown_beside_other_images_of_the_same_classes(tmp_path):
    (run,) = comparison(tmp_path, 1, np.arange(100) % 10, ANIMALS)
    for images, shown in (
        (600, False),
        (20_000, False),
        (21_170, True),
    ):  # the demo's, a larger demo's, the reference's
        reference_sized(run, images)
        assert ("reference notebook" in page_of(write_report([run], run.root, title="x"))) == shown


def test_reference_points_do_not_stretch_the_epochs(tmp_path):
    big_cnn, vgg16 = ([EpochRow(n, val={"loss": 1.0, "accuracy": 0.5}) for n in range(1, last + 1)] for last in (4, 12))
    points = [EpochRow(n, val={"loss": 0.5, "accuracy": 0.25}) for n in (10, 30)]
    figure = plots.learning_curves([("big_cnn", big_cnn), ("vgg16", vgg16)], {"big_cnn": points, "vgg16": points})
    crosses = [line for line in figure.axes[0].lines if line.get_marker() == "x"]
    assert [list(line.get_xdata()) for line in crosses] == [[], [10]]


def test_neighbours_of_few_images_are_joined_in_the_reliability_diagram():
    rows = [(1, 0.1, 0.0), (3, 0.2, 1.0), (9, 0.5, 1 / 3), (20, 0.8, 0.75), (2, 1.0, 0.5)]
    joined = plots.joined_bins([CalibrationBin(images=n, confidence=c, accuracy=a) for n, c, a in rows])
    assert [row.images for row in joined] == [13, 20, 2]
    assert [row.accuracy for row in joined] == pytest.approx([6 / 13, 0.75, 0.5])
    assert [row.confidence for row in joined] == pytest.approx([5.2 / 13, 0.8, 1.0])
    assert [row.images for row in plots.joined_bins([CalibrationBin(images=4, confidence=1.0, accuracy=1.0)])] == [4]
    assert not plots.joined_bins([])


@pytest.mark.parametrize("letters", [3, 30, 60])
def test_a_legend_is_inside_its_plot(letters):
    names = [f"{letter * letters} {number}" for number, letter in enumerate("WMQ")]
    labels = np.arange(len(CLASSES))
    evaluation = from_probabilities(np.eye(len(CLASSES), dtype=np.float32), labels, CLASSES)
    histories = [(name, [EpochRow(1, val={"loss": 1.0, "accuracy": 0.5})]) for name in names]
    calibration = plots.calibration([(name, evaluation) for name in names])
    for figure in (calibration, plots.learning_curves(histories, {})):
        figure.canvas.draw()
        (legend,) = figure.legends
        box = legend.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= figure.bbox.width and len(legend.get_texts()) >= len(names)


def test_seconds_of_the_features_are_shown_if_a_run_has_computed_some(tmp_path):
    plain, frozen = comparison(tmp_path, 2)
    section = re.compile(r'id="throughput">(.*?)</section>', re.S)
    assert "base features" not in section.search(page_of(write_report([plain], plain.root, title="x"))).group(1)
    frozen.write_result({**frozen.read_result(), "time": {"step": 5.0, "features": 27.0}})
    text = section.search(page_of(write_report([plain, frozen], str(tmp_path), title="x"))).group(1)
    assert text.count("<th>base features</th>") == 1 and text.count("<td>27 s</td>") == 1


@pytest.mark.parametrize(
    "recipe, seconds, wait, advised",
    [
        ("big_cnn", 900.0, 0.2, True),
        ("big_cnn", 900.0, 0.01, False),
        ("big_cnn", 11.0, 0.9, False),
        ("vgg16_pooled", 900.0, 0.2, False),  # on cached features
    ],
)
def test_advice_on_data_loading_is_given_where_it_helps(tmp_path, recipe, seconds, wait, advised):
    run = finished_run(tmp_path / "run", guesses(LABELS, 0.9, np.random.default_rng(0)), LABELS, recipe=recipe)
    run.write_result({**run.read_result(), "seconds": seconds, "wait_fraction": wait})
    (record,) = report_data.read([run]).runs
    assert waits_for_images(record) == advised


def test_duplicates_are_counted_without_their_originals(tmp_path):
    prepared = tiny_prepared(tmp_path / "set")
    info = storage.read_json(f"{prepared.root}/{prepared_set.INFO}")
    duplicates = {"identical": 0, "near": 2, "groups": 2, "across_splits": 0, "contradictory": 1}
    storage.write_json(f"{prepared.root}/{prepared_set.INFO}", info | {"duplicates": duplicates})
    run = complete(comparison(tmp_path, 1)[0], prepared=prepared.root)
    page = " ".join(page_of(write_report([run], run.root, title="x")).split())
    assert "Duplicates of another image: 0 identical, 2 near. Groups of duplicates with their originals: 2, of" in page


def test_an_unfinished_run_has_the_classes_of_its_prepared_set(tmp_path, monkeypatch):
    prepared = tiny_prepared(tmp_path / "set")
    run = complete(comparison(tmp_path, 1, np.arange(100) % 10, ANIMALS)[0], prepared=prepared.root)
    storage.remove(run.url("result.json"))
    monkeypatch.setattr(reference_results, "MAX_DEVIATION", 1.0)  # any number of images
    assert "reference" not in page_of(write_report([run], run.root, title="x"))
    tiny_prepared(tmp_path / "set", (2,) * len(ANIMALS), names=ANIMALS)
    assert 'id="reference_results"' in page_of(write_report([run], run.root, title="x"))


def test_the_flag_for_reference_results(tmp_path, capsys):
    runs = comparison(tmp_path, 1, np.arange(100) % 10, FLOWERS)
    assert main(["report", runs[0].root, "--json"]) == 0
    assert "reference notebook" not in storage.read_bytes(f"{runs[0].root}/report.html").decode()
    assert main(["report", runs[0].root, "--reference", "--json"]) == 0
    assert "reference notebook" in storage.read_bytes(f"{runs[0].root}/report.html").decode()
    other = finished_run(tmp_path / "other", guesses(LABELS, 0.9, np.random.default_rng(0)), LABELS, recipe="resnet18")
    capsys.readouterr()
    assert main(["report", other.root, "--reference"]) == 2
    errors = " ".join(capsys.readouterr().err.split())
    assert "no reference results of resnet18" in errors and "big_cnn, vgg16, vgg16_notebook" in errors


def test_brackets_and_colons_in_a_path_are_printed_as_they_are(tmp_path, capsys):
    run = finished_run(tmp_path / "[red] :dog:", guesses(LABELS, 0.9, np.random.default_rng(0)), LABELS)
    assert main(["report", run.root]) == 0
    assert main(["report", f"{run.root}/[bold]"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == [f"writing the report of {run.root}", f"report: {run.root}/report.html"]
    assert lines[3].startswith(f"error: {run.root}/[bold]: no run in this folder")


def test_the_page_of_ten_runs_on_many_images_is_small(tmp_path):
    runs = comparison(tmp_path, 10, np.arange(4000) % 10, [f"class{n}" for n in range(10)])
    result = write_report(runs, str(tmp_path), title="Comparison", board=leaderboard(runs))
    assert result.bytes < 5_000_000


# Reports script errors and elements that overflow the window to the surrounding page.
PROBE = """<script>
const errors = [];
window.onerror = (text) => errors.push(text);
addEventListener('load', () => {
  const elements = [...document.querySelectorAll('main > *, section > *')];
  const wide = elements.filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.tagName);
  const scroll = document.documentElement.scrollWidth;
  const hidden = query =>
    Math.max(...[...document.querySelectorAll(query)].map(box => box.scrollWidth - box.clientWidth));
  const tables = hidden('#throughput .wide, #leaderboard .wide'), plot = hidden('#leaderboard figure');
  parent.postMessage(JSON.stringify({errors, wide, inner: innerWidth, scroll, tables, plot}), '*');
});
</script>"""
CHROMIUM_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--allow-file-access-from-files",
    "--virtual-time-budget=4000",
    "--window-size=1600,1000",
    "--dump-dom",
]


def browse(folder, width):
    """What the page probed.html in `folder` posts, in a window of `width` pixels. Skips without a browser."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
    if not chromium:
        pytest.skip("no Chromium on this machine")
    # A narrow window is a frame in a wide one: headless Chromium has no windows below 500 px.
    frame = f'<iframe src="probed.html" style="width:{width}px;height:900px;border:0"></iframe>'
    listen = "<script>addEventListener('message',e=>{document.title=e.data})</script>"
    (folder / "frame.html").write_text(f"<!doctype html><title></title>{listen}{frame}")
    command = [chromium, *CHROMIUM_FLAGS, f"--user-data-dir={folder}/profile", f"file://{folder}/frame.html"]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    return json.loads(re.search(r"<title>(.*?)</title>", dom).group(1).replace("&quot;", '"'))


@pytest.mark.parametrize("width", [390, 1000, 1440])
def test_in_a_browser_nothing_fails_or_overflows(tmp_path, width):
    runs = comparison(tmp_path, classes=["a-very-long-class-name-without-any-spaces-in-it", *ODD_NAMES[1:]])
    times = dict.fromkeys(("features", "step", "validate", "checkpoint", "augment"), 754.0)
    runs[0].write_result({**runs[0].read_result(), "time": times, "seconds": 3754.0, "images_per_s": 12345.0})
    page = page_of(write_report(runs, str(tmp_path), title="Comparison", board=leaderboard(runs)))
    (tmp_path / "probed.html").write_text(page.replace("<head>", f"<head>{PROBE}"))
    findings = browse(tmp_path, width)
    assert findings["errors"] == [] and findings["wide"] == []
    assert findings["inner"] == width and findings["scroll"] <= width
    assert width < 1000 or not findings["tables"], "tables of the leaderboard or of times need a scroll bar"
    assert not findings["plot"], "the plot of the leaderboard needs a scroll bar"


def test_a_comparison_folder_has_leaderboard_ensembles_and_report(tmp_path, capsys):
    runs = comparison(tmp_path / "trials")
    trials = [
        TrialEntry(slug=os.path.basename(run.root), name="x", seed=0, run=run.root, state="finished") for run in runs
    ]
    answer = compare.show(conclude(trials, str(tmp_path)))
    content = answer.content
    assert answer.exit_code == 0 and [row["kind"] for row in content["leaderboard"]].count("model") == 2
    assert {ensemble["method"] for ensemble in content["ensembles"]} == {"vote", "mean", "weighted"}
    assert all(len(ensemble["members"]) == 2 for ensemble in content["ensembles"])  # the best seed of each recipe
    files = {path.name for path in tmp_path.iterdir()}
    assert files >= {"leaderboard.csv", "leaderboard.json", "leaderboard.md", "report.html"}
    trials.append(replace(FAILED, reason="out of memory"))
    storage.write_json(str(tmp_path / "summary.json"), {"trials": [trial.to_dict() for trial in trials]})
    assert main(["report", str(tmp_path), "--json"]) == 0
    page = storage.read_bytes(json.loads(capsys.readouterr().out.splitlines()[-1])["report"]).decode()
    assert "out of memory" in page and all(ensemble["name"] in page for ensemble in content["ensembles"])
    shutil.rmtree(trials[0].run)
    assert main(["report", str(tmp_path)]) == 2
    assert "the run folder of a finished trial is missing" in " ".join(capsys.readouterr().err.split())


def test_runs_on_other_images_are_refused(tmp_path, capsys):
    first, second = (
        finished_run(tmp_path / name, guesses(LABELS[:n], 0.9, np.random.default_rng(0)), LABELS[:n])
        for name, n in (("a", 120), ("b", 90))
    )
    assert main(["report", first.root, second.root, "--out", str(tmp_path / "both")]) == 2
    assert main(["report", first.root, second.root]) == 2
    errors = " ".join(capsys.readouterr().err.split())
    assert "other images" in errors and "--out: name a folder" in errors and not (tmp_path / "both").exists()


def test_a_history_without_the_last_epochs_is_named(tmp_path, capsys):
    run = finished_run(tmp_path / "run", guesses(LABELS, 0.9, np.random.default_rng(0)), LABELS)
    history = tmp_path / "run" / "metrics.jsonl"
    history.write_text("".join(history.read_text().splitlines(keepends=True)[:2]))
    assert main(["report", run.root]) == 2
    assert f"{history}: has 2 of the run's 3 epochs; restore the file" in " ".join(capsys.readouterr().err.split())
