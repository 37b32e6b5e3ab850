"""Corrections of labels: the file that a person fills in, applied when images are prepared."""

import unicodedata
from pathlib import Path

import pandas as pd
import pytest

from animalclf import config as configuration
from animalclf.api.calls import overrides
from animalclf.data.prepared_set import Prepared
from animalclf.errors import UserError
from animalclf.prepare import sources
from animalclf.prepare.sources.corrections import COLUMNS, correct, corrections_text, decisions_hash
from animalclf.training.checks import open_or_prepare

FILES = pd.DataFrame(
    {
        "path": [f"{name}/{number}.jpg" for name in ("cat", "dog") for number in range(3)],
        "label": ["cat"] * 3 + ["dog"] * 3,
        "split": "",
    }
)
HEADER = "path,label,suggested,decision,score\n"


def corrected(tmp_path: Path, *lines: str, header: str = HEADER) -> tuple[dict[str, str], str]:
    """The labels by path, and the counts."""
    file = tmp_path / "labels.csv"
    file.write_text(header + "\n".join(lines) + "\n")
    files, record = correct(FILES, str(file), "photos")
    return dict(zip(files["path"], files["label"], strict=True)), corrections_text(record)


def test_decisions_change_the_labels_that_they_name(tmp_path):
    labels, text = corrected(
        tmp_path, "cat/0.jpg,cat,dog,relabel,-1", "dog/1.jpg,dog,cat,Drop ,-1", "cat/1.jpg,cat,dog,keep,-1",
        "dog/0.jpg,dog,cat,,-1",
    )  # fmt: skip
    assert labels == {
        "cat/0.jpg": "dog", "cat/1.jpg": "cat", "cat/2.jpg": "cat", "dog/0.jpg": "dog", "dog/2.jpg": "dog",
    }  # fmt: skip
    assert text == "labels.csv: 1 relabelled, 1 dropped, 1 kept, 1 without a decision"


def test_a_spreadsheet_with_semicolons_is_read(tmp_path):
    labels, _ = corrected(tmp_path, "cat/0.jpg;cat;dog;relabel", header="Path;Label;Suggested;Decision\n")
    assert labels["cat/0.jpg"] == "dog"


@pytest.mark.parametrize("editor", ["NFC", "NFD"])
def test_names_that_an_editor_rewrote_are_found(tmp_path, editor):
    files = FILES.assign(path=FILES["path"].str.replace("cat", "Bär"), label=FILES["label"].str.replace("cat", "Bär"))
    file = tmp_path / "labels.csv"
    lines = ["Bär\\0.jpg,Bär,dog,relabel", "dog\\1.jpg,dog,Bär,relabel", "Bär/1.jpg,Bär,dog,drop"]
    file.write_text(HEADER + unicodedata.normalize(editor, "\n".join(lines)) + "\n")
    corrected_files, record = correct(files, str(file), "photos")
    labels = dict(zip(corrected_files["path"], corrected_files["label"], strict=True))
    assert labels["Bär/0.jpg"] == "dog" and labels["dog/1.jpg"] == "Bär" and "Bär/1.jpg" not in labels
    assert {row["path"] for row in record["decisions"]} == {"Bär/0.jpg", "dog/1.jpg", "Bär/1.jpg"}


def test_a_rewritten_name_of_two_images_is_of_neither(tmp_path):
    files = pd.DataFrame({"path": ["cat/a\\b.jpg", "cat/a/b.jpg", "dog/0.jpg"], "label": ["cat", "cat", "dog"]})
    file = tmp_path / "labels.csv"
    file.write_text(HEADER + "cat\\a\\b.jpg,cat,dog,relabel\n")
    with pytest.raises(UserError, match="names none of the 3 images"):
        correct(files, str(file), "photos")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["cat/0.jpg,cat,dog,", "dog/0.jpg,dog,cat,"], "no decision is filled in; write keep, relabel or drop"),
        (["cat/0.jpg,cat,dog,yes"], "line 2: another decision than keep, relabel, drop: 'yes'"),
        (["cat/0.jpg,cat,,relabel"], "line 2: relabel, but there is no class in the column suggested"),
        (["cat/0.jpg,cat,cat,relabel"], "line 2: relabel to the label that it has; write keep"),
        (["cat/0.jpg,cat,dgo,relabel"], r"line 2: no class 'dgo' in photos \(did you mean 'dog'\?\)"),
        (["cat/0.jpg,cat,dog,relabel", "c/9.jpg,cat,dog,drop"], "line 3: no such image in photos: 'c/9.jpg'; remove"),
        (["a/9.jpg,a,b,drop"], "none of the 6 images of photos.*another data set"),
        (["cat/0.jpg,dog,cat,keep"], "line 2: the label is 'dog', but the image's is 'cat' in photos"),
        (["cat/0.jpg,cat,dog,relabel", "cat/0.jpg,cat,dog,drop"], "line 2, 3: different decisions for one image"),
        ([f"dog/{number}.jpg,dog,cat,drop" for number in range(3)], "no image is left in class 'dog'"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path, lines, message):
    with pytest.raises(UserError, match=message):
        corrected(tmp_path, *lines)


def test_a_table_without_the_columns_is_refused(tmp_path):
    with pytest.raises(UserError, match="has no column 'suggested', 'decision'; corrections are"):
        corrected(tmp_path, "cat/0.jpg,cat", header="path,label\n")


def test_a_folder_is_no_file_of_corrections(tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path}: cannot be read: Is a directory"):
        correct(FILES, str(tmp_path), "photos")


def test_the_same_decision_twice_counts_once(tmp_path):
    _, text = corrected(tmp_path, "cat/0.jpg,cat,dog,drop", "cat/0.jpg,cat,,drop")
    assert text == "labels.csv: 1 dropped"


def test_decisions_change_the_fingerprint_of_the_inputs_and_the_place_of_the_file_does_not(tmp_path):
    for path in FILES["path"]:
        file = tmp_path / "photos" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"not read")

    def listing(name: str, decision: str) -> tuple[sources.Source, str]:
        (tmp_path / name).write_text(HEADER + f"cat/0.jpg,cat,dog,{decision},-1\ndog/0.jpg,dog,cat,keep,-1\n")
        settings = {"data.corrections": str(tmp_path / name)} if decision else {}
        config = configuration.load("quick", settings).data
        source = sources.find(str(tmp_path / "photos"), config)
        return source, sources.inputs_hash(source, config)

    (source, relabelled), (_, moved), (plain, uncorrected), (_, kept) = (
        listing(name, decision)
        for name, decision in (("a.csv", "relabel"), ("b.csv", "relabel"), ("c.csv", ""), ("d.csv", "keep"))
    )
    assert relabelled == moved and len({relabelled, uncorrected, kept}) == 3
    assert source.files["label"].tolist().count("dog") == 4 and plain.corrections is None
    evaluated = sources.find(
        str(tmp_path / "photos"),
        configuration.load("quick", {"data.corrections": str(tmp_path / "missing.csv")}).data,
        classes=["cat", "dog"],
    )
    assert evaluated.corrections is None


@pytest.mark.parametrize("column", COLUMNS)
def test_the_hash_of_decisions_is_of_every_column(column):
    decision = {"path": "a.jpg", "label": "cat", "suggested": "dog", "decision": "relabel"}
    assert decisions_hash({"decisions": [decision]}) != decisions_hash({"decisions": [{**decision, column: "other"}]})


def test_corrections_of_a_prepared_set_are_refused(tiny_set: Prepared):
    settings = overrides({"data.stored_size": 80, "model.input_size": 76}, 0, corrections="labels.csv")
    assert settings["data.corrections"] == str(Path("labels.csv").absolute())
    with pytest.raises(UserError, match="is prepared without corrections, which are applied to the images"):
        open_or_prepare(tiny_set.root, configuration.load("big_cnn", settings), "unused", settings)
