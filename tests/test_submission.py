from pathlib import Path

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


@pytest.mark.parametrize(
    "text, message",
    [
        ("id,category\n1.jpeg,cane\n0.jpeg,gatto\n", None),
        ("id,category\n0.jpeg,cane\n", r"1 of its ids have no image \(1\.jpeg\)"),
        (
            "id,category\n0.jpeg,cane\n1.jpeg,cane\n2.jpeg,cane\n10.jpeg,cane\n",
            r"2 images are not in it \(2\.jpeg, 10\.jpeg\)",
        ),
        ("id,category\n0.jpeg,cane\n1.jpeg,cane\n1.jpeg,cane\n", r"1 ids occur more than once \(1\.jpeg\)"),
        ("id,category\n0.jpeg,cane\n1.jpeg,lupo\n", r"1 rows name no known class \(1\.jpeg: 'lupo'\)"),
        ("image,category\n0.jpeg,cane\n1.jpeg,cane\n", "header is image,category, the sample's is id,category"),
        ("id,category,more\n0.jpeg,cane,1\n1.jpeg,cane,1\n", "two columns"),
        ("", "not a CSV"),
    ],
)
def test_checked_against_a_sample(tmp_path, text, message):
    sample = csv(tmp_path, "sample.csv", "id,category\n0.jpeg,cane\n1.jpeg,cane\n")
    ours = csv(tmp_path, "ours.csv", text)
    if message is None:
        submission.check(ours, sample, CLASSES)
    else:
        with pytest.raises(UserError, match=message):
            submission.check(ours, sample, CLASSES)


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
    with pytest.raises(UserError, match=r"answers\.csv.*no image \(3\.jpeg\)"):
        submission.score(csv(tmp_path, "less.csv", "id,category\n0.jpeg,cane\n1.jpeg,cane\n2.jpeg,cane\n"), answers)


def test_the_table_of_predictions():
    import numpy as np

    probabilities = np.array([[0.5, 0.5], [0.2, 0.8]])
    table = predictions_table(["x/0.jpeg", "1.jpeg"], CLASSES, probabilities, ["ok", "empty file"], ["cane", "cane"])
    assert list(table.columns) == ["id", "path", "label", "predicted", "probability", "p_cane", "p_gatto", "status"]
    assert table["predicted"].tolist() == ["cane", "gatto"]  # of equals the first class
    assert table["probability"].tolist() == pytest.approx([0.5, 0.8]) and isinstance(table, pd.DataFrame)
    assert table["p_cane"].dtype == np.float32 and table["id"].tolist() == ["0.jpeg", "1.jpeg"]
