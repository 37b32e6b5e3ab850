from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from animalclf.errors import UserError
from animalclf.inference import submission
from animalclf.predictions import predictions_table

CLASSES = ["cane", "gatto"]


def csv(folder, name, text):
    path = folder / name
    path.write_text(text)
    return str(path)


def test_rows_are_in_the_order_of_their_numbers(tmp_path):
    url = str(tmp_path / "new" / "submission.csv")
    submission.write(url, ["10.jpeg", "9.jpeg", "a,b.jpeg", "100.jpeg"], ["cane", "gatto", "cane", "cane"])
    assert Path(url).read_text() == 'id,category\n9.jpeg,gatto\n10.jpeg,cane\n100.jpeg,cane\n"a,b.jpeg",cane\n'
    assert list(submission.read(url)["id"]) == ["9.jpeg", "10.jpeg", "100.jpeg", "a,b.jpeg"]


def test_an_id_is_a_file_name_or_where_names_repeat_a_path():
    assert submission.image_ids(["x/y/0.jpeg", "1.jpeg"]) == ["0.jpeg", "1.jpeg"]
    assert submission.image_ids(["x/0.jpeg", "y/0.jpeg", "1.jpeg"]) == ["x/0.jpeg", "y/0.jpeg", "1.jpeg"]
    with pytest.raises(UserError, match=r"more than once \(0\.jpeg\)"):
        submission.write("never-written.csv", ["0.jpeg", "0.jpeg"], ["cane", "cane"])


IDS = ["x/0.jpeg", "x/1.jpeg", "y/10.jpeg"]


def written(folder, sample, probabilities=((0.75, 0.25), (0.125, 0.875), (0.5, 0.5))):
    """The submission for IDS in the form of the text `sample`."""
    table = predictions_table(IDS, CLASSES, np.array(probabilities), ["ok"] * 3)
    form = submission.form_like(csv(folder, "sample.csv", sample), submission.image_ids(IDS), CLASSES)
    submission.write_form(str(folder / "out.csv"), form, table)
    return (folder / "out.csv").read_text()


@pytest.mark.parametrize(
    "ids", [("10.jpeg", "0.jpeg", "1.jpeg"), ("10", "0", "1")], ids=["with suffix", "without suffix"]
)
def test_the_submission_has_the_ids_columns_and_order_of_the_sample(tmp_path, ids):
    sample = "image,breed\n" + "".join(f"{name},cane\n" for name in ids)
    assert written(tmp_path, sample) == f"image,breed\n{ids[0]},cane\n{ids[1]},cane\n{ids[2]},gatto\n"
    sample = "id,gatto,cane\n" + "".join(f"{name},0.5,0.5\n" for name in ids)
    expected = f"id,gatto,cane\n{ids[0]},0.5,0.5\n{ids[1]},0.25,0.75\n{ids[2]},0.875,0.125\n"
    assert written(tmp_path, sample) == expected


def test_decimal_commas_of_the_sample_are_those_of_the_submission(tmp_path):
    rows = "".join(f"{name};0,5;0,5\n" for name in ("0", "1", "10"))
    assert written(tmp_path, f"id;gatto;cane\n{rows}") == "id;gatto;cane\n0;0,25;0,75\n1;0,875;0,125\n10;0,5;0,5\n"
    quoted = "".join(f'{name},"0,5","0,5"\n' for name in ("0", "1", "10"))
    assert written(tmp_path, f"id,gatto,cane\n{quoted}").splitlines()[1] == '0,"0,25","0,75"'
    assert written(tmp_path, "id;gatto;cane\n0;0;1\n1;0;1\n10;0;1\n").splitlines()[1] == "0;0.25;0.75"
    assert written(tmp_path, "id;gatto;cane\n0;0,5;n.a.\n1;0;1\n10;0;1\n").splitlines()[1] == "0;0,25;0,75"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_sample_of_any_separator_encoding_and_letter_case(tmp_path, separator, encoding):
    ids = [Path(name).name.upper() for name in IDS]
    sample = "Bild,Rasse\n" + "".join(f"{name},cane\n" for name in ids)
    (tmp_path / "sample.csv").write_text(sample.replace(",", separator), encoding=encoding)
    form = submission.form_like(str(tmp_path / "sample.csv"), submission.image_ids(IDS), CLASSES)
    table = predictions_table(IDS, CLASSES, np.array([(0.75, 0.25), (0.125, 0.875), (0.5, 0.5)]), ["ok"] * 3)
    submission.write_form(str(tmp_path / "submission.csv"), form, table)
    expected = f"Bild,Rasse\n{ids[0]},cane\n{ids[1]},gatto\n{ids[2]},cane\n".replace(",", separator)
    assert (tmp_path / "submission.csv").read_text() == expected


def test_ids_that_differ_in_case_only_are_not_mixed_up(tmp_path):
    sample = csv(tmp_path, "sample.csv", "id,category\nA.jpg,x\na.jpg,x\n")
    assert submission.form_like(sample, ["a.jpg", "A.jpg"]).rows == [1, 0]
    with pytest.raises(UserError, match="other ids than the images'"):
        submission.form_like(sample, ["a.jpg", "a.JPG"])


def test_without_a_sample_rows_are_in_the_order_of_their_numbers():
    form = submission.form_like(None, ["10.jpeg", "9.jpeg"])
    assert form == submission.Form(["id", "category"], ["9.jpeg", "10.jpeg"], [1, 0])


def test_ids_are_paths_where_names_are_equal(tmp_path):
    sample = csv(tmp_path, "sample.csv", "id,category\nb/1,x\na/1,x\n")
    assert submission.form_like(sample, ["a/1.jpg", "b/1.jpg"]).rows == [1, 0]


@pytest.mark.parametrize(
    "text, message",
    [
        ("id,category\n0,cane\n1,cane\n", r"1 image is not in it \(10\)"),
        ("id,category\n0,cane\n1,cane\n2,cane\n10,cane\n", r"1 of its ids without an image \(2\)"),
        ("id,category\n0,cane\n1,cane\n1,cane\n", r"1 ids occur more than once \(1\)"),
        ("id,cane,lupo\n0,0,0\n1,0,0\n10,0,0\n", "no column for gatto; columns that are no class: lupo"),
        ("id;gatto;cane\n0;0,5;0.5\n1;0;1\n10;0;1\n", r"decimal point \(0\.5\) and with a comma \(0,5\)"),
        ("id\n0\n1\n10\n", "two columns"),
        ("", "not a CSV"),
    ],
)
def test_a_sample_that_does_not_fit_is_refused(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        written(tmp_path, text)


def test_a_sample_that_is_not_there_or_not_text(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        submission.read(str(tmp_path / "sample.csv"))
    (tmp_path / "odd.csv").write_bytes(b"id,category\n\xff\xfe,cane\n")
    with pytest.raises(UserError, match="UTF-8"):
        submission.read(str(tmp_path / "odd.csv"))


def test_a_class_called_na_stays_text_and_a_byte_order_mark_is_no_part_of_the_header(tmp_path):
    (tmp_path / "a.csv").write_text("id,category\n1.jpeg,NA\n", encoding="utf-8-sig")
    table = submission.read(str(tmp_path / "a.csv"))
    assert list(table.columns) == ["id", "category"] and list(table["category"]) == ["NA"]


def test_score_by_hand(tmp_path):
    answers = csv(tmp_path, "answers.csv", "id,category\n0.jpeg,cane\n1.jpeg,cane\n2.jpeg,cane\n3.jpeg,gatto\n")
    ours = csv(tmp_path, "ours.csv", "id,category\n3.jpeg,gatto\n2.jpeg,lupo\n1.jpeg,cane\n0.jpeg,cane\n")
    score = submission.score(ours, answers)
    assert (
        score["rows"] == 4
        and score["accuracy"] == 0.75
        and score["balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    )
    with pytest.raises(UserError, match=r"answers\.csv.*without an image \(3\.jpeg\)"):
        submission.score(csv(tmp_path, "less.csv", "id,category\n0.jpeg,cane\n1.jpeg,cane\n2.jpeg,cane\n"), answers)


def test_the_table_of_predictions():
    probabilities = np.array([[0.5, 0.5], [0.2, 0.8]])
    table = predictions_table(["x/0.jpeg", "1.jpeg"], CLASSES, probabilities, ["ok", "empty file"], ["cane", "cane"])
    assert list(table.columns) == ["id", "path", "label", "predicted", "probability", "p_cane", "p_gatto", "status"]
    assert table["predicted"].tolist() == ["cane", "gatto"]  # of equals the first class
    assert table["probability"].tolist() == pytest.approx([0.5, 0.8]) and isinstance(table, pd.DataFrame)
    assert table["p_cane"].dtype == np.float32 and table["id"].tolist() == ["0.jpeg", "1.jpeg"]


def test_ids_of_the_sample_may_have_a_folder_that_the_images_have_not(tmp_path):
    sample = "id,label\n" + "".join(f"test/{Path(name).name},cane\n" for name in sorted(IDS))
    lines = written(tmp_path, sample).splitlines()
    assert [line.partition(",")[0] for line in lines[1:]] == [f"test/{Path(name).name}" for name in sorted(IDS)]


@pytest.mark.parametrize("value, noted", [("0.5", True), ("0", True), ("cane", False), ("", False)])
def test_values_of_the_sample_that_are_no_classes_are_noted(tmp_path, value, noted):
    ids = submission.image_ids(IDS)
    sample = csv(tmp_path, "sample.csv", "id,label\n" + "".join(f"{name},{value}\n" for name in ids))
    note = submission.form_like(sample, ids, CLASSES).note
    assert bool(note) == noted and (not noted or f"'label' has values such as '{value}', which are no classes" in note)


def test_an_archive_in_place_of_a_sample_is_named(tmp_path):
    (tmp_path / "sample.csv").write_bytes(b"PK\3\4" + bytes(30))
    with pytest.raises(UserError, match=r"a workbook or an archive, not a CSV file; .*unpack the archive"):
        submission.read(str(tmp_path / "sample.csv"))


@pytest.mark.parametrize("end", ["", ";"])
def test_a_separator_at_the_end_of_a_sample_adds_no_column(tmp_path, end):
    sample = csv(tmp_path, "s.csv", f"id;cane;gatto;\n0;0,5;0,5{end}\n")
    form = submission.form_like(sample, ["0.jpg"], CLASSES)
    assert form.columns == ["id", "cane", "gatto"] and form.classes == CLASSES
    labels = csv(tmp_path, "labels.csv", f"id;category;\n0;cane{end}\n")
    assert submission.form_like(labels, ["0.jpg"], CLASSES).columns == ["id", "category"]
