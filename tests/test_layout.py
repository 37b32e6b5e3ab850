"""Folder layouts and tables as people have them: splits in any spelling and in either order, or a refusal with the
layout found."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from animalclf import config as configuration
from animalclf.config import Data
from animalclf.errors import UserError
from animalclf.prepare import sources
from animalclf.prepare.sources import Source
from animalclf.prepare.sources.layout import deeper_root, read_layout
from animalclf.prepare.sources.listing import list_images
from animalclf.prepare.sources.masks import find_masks, mask_warning
from animalclf.prepare.sources.roles import role_of, split_name


def layout(*paths: str, splits: bool = True) -> dict[str, tuple[str, str]]:
    """Label and split by path."""
    images = read_layout(pd.DataFrame({"path": sorted(paths)}), "photos", splits=splits).images
    return dict(zip(images["path"], zip(images["label"], images["split"], strict=True), strict=True))


def refusal(*paths: str) -> str:
    with pytest.raises(UserError) as caught:
        layout(*paths)
    return str(caught.value)


def write(root: Path, *paths: str) -> str:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(path.encode())
    return str(root)


def find(root: Path | str, **settings: str) -> Source:
    return sources.find(str(root), Data(**settings))


@pytest.mark.parametrize(
    ("role", "names"),
    [
        (
            "train",
            "train Train TRAINING training_set "
            "train_images trainset train-data Train2017 01_train Train_Images ｔｒａｉｎ",
        ),
        ("val", "val Valid validation VAL_SET dev validate val2017 eval valid_images"),
        ("test", "test Test testing test_set TestSet test-images test1"),
        ("predict", "pred prediction unlabeled"),
        (None, "cat trains testament value device training_shoes train_station contest 2017 images data 猫 élan"),
    ],
)
def test_a_name_is_a_split_in_any_spelling(role: str | None, names: str) -> None:
    assert {name: role_of(name) for name in names.split()} == dict.fromkeys(names.split(), role)


def test_a_prefixed_name_has_a_role_and_a_rest() -> None:
    assert split_name("seg_train") == ("train", ("seg",)) and split_name("SegTest") == ("test", ("seg",))
    assert split_name("pregnancy test") == ("test", ("pregnancy",)) and split_name("test train") == (None, ())


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("train", "val", "test"),
        ("Train", "Valid", "Test"),
        ("training_set", "validation_set", "test_set"),
        ("seg_train", "seg_dev", "seg_test"),
        ("seg_train/seg_train", "seg_val/seg_val", "seg_test/seg_test"),
        ("train/images", "VALIDATION/images", "testing/images"),
        ("animals-train", "animals-val", "animals-test"),
    ],
)
def test_split_folders_of_class_folders(train: str, val: str, test: str) -> None:
    assert layout(f"{train}/a/1.jpg", f"{train}/b/x/2.jpg", f"{val}/a/3.jpg", f"{test}/b/4.jpg") == {
        f"{train}/a/1.jpg": ("a", "train"),
        f"{train}/b/x/2.jpg": ("b", "train"),
        f"{val}/a/3.jpg": ("a", "val"),
        f"{test}/b/4.jpg": ("b", "test"),
    }


@pytest.mark.parametrize(("train", "val"), [("train", "val"), ("Training", "VALIDATION"), ("train_set", "valid")])
def test_class_folders_of_split_folders(train: str, val: str) -> None:
    assert layout(f"a/{train}/1.jpg", f"b/{train}/2.jpg", f"b/{val}/deep/3.jpg") == {
        f"a/{train}/1.jpg": ("a", "train"),
        f"b/{train}/2.jpg": ("b", "train"),
        f"b/{val}/deep/3.jpg": ("b", "val"),
    }


@pytest.mark.parametrize("test", ["test", "Test", "test/images", "test_set/test_set"])
def test_a_flat_test_folder_is_unlabelled(tmp_path: Path, test: str) -> None:
    source = find(write(tmp_path, "train/a/1.jpg", "train/b/2.jpg", f"{test}/3.jpg", f"{test}/4.jpg"))
    assert list(source.files["path"]) == ["train/a/1.jpg", "train/b/2.jpg"] and set(source.files["split"]) == {"train"}
    assert source.test == str(tmp_path / test) and source.kind == "split folders"
    assert source.warnings == [f"{test}/ has no class folders; its images are not used for training"]


def test_images_to_predict_beside_labelled_splits_are_unlabelled(tmp_path: Path) -> None:
    paths = [f"seg_{name}/seg_{name}/{label}/1.jpg" for name in ("train", "test") for label in ("sea", "street")]
    source = find(write(tmp_path, *paths, "seg_pred/seg_pred/10.jpg"))
    assert list(source.files["path"]) == sorted(paths) and source.test == str(tmp_path / "seg_pred" / "seg_pred")


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["train/a/1.jpg", "train/b/2.jpg", "val/a/3.jpg", "plots/x.png"], "plots/ is not a split"),
        (["Train/a/1.jpg", "Train/b/2.jpg", "cats/3.jpg"], "Train/ has the name of a split"),
        (["train/1.jpg", "test/2.jpg"], "train/ has images outside any class folder, such as 1.jpg"),
        (
            ["train/a/1.jpg", "train/b/2.jpg", "train/3.jpg", "test/a/1.jpg"],
            "train/ has images outside .* such as 3.jpg",
        ),
        (["train/a/1.jpg", "train/b/2.jpg", "val/3.jpg"], "val/ has images outside any class folder"),
        (["val/a/1.jpg", "test/b/2.jpg"], "there is no training split"),
        (
            ["train/a/1.jpg", "test/2.jpg", "pred/3.jpg"],
            "test/, pred/ have no class folders|pred/, test/ have no class",
        ),
        (["a/train/1.jpg", "a/val/2.jpg", "b/3.jpg"], "some classes have folders of splits, but b/3.jpg is in none"),
        (["a/train/1.jpg", "a/val/2.jpg", "b/train/3.jpg", "b/raw/4.jpg"], "but b/raw/4.jpg is in none"),
    ],
)
def test_a_layout_that_fits_nothing_is_refused_with_what_was_found(paths: Sequence[str], message: str) -> None:
    text = refusal(*paths)
    assert re.search(message, text), text
    for folder in {path.split("/")[0] for path in paths}:
        assert f"{folder}/ (" in text
    assert "--set data.splits=none" in text and "<split>/<class>/image.jpg" in text


def test_splits_ignore_splits_anew_what_folders_or_a_table_give(tmp_path: Path) -> None:
    root = write(tmp_path, "train/a/1.png", "train/b/2.png", "val/a/3.png", "val/b/4.png", "test/5.png")
    source = find(root, splits="ignore")
    assert list(source.files["label"]) == ["a", "b", "a", "b"] and set(source.files["split"]) == {""}
    assert source.test == f"{root}/test"
    table = "path,label,Split\ntrain/a/1.png,a,train\nval/b/4.png,b,val\n"
    (tmp_path / "t.csv").write_text(table)
    assert list(find(f"{root}/t.csv").files["split"]) == ["train", "val"]
    assert list(find(f"{root}/t.csv", splits="ignore").files["split"]) == ["", ""]


def test_splits_none_reads_every_top_folder_as_a_class(tmp_path: Path) -> None:
    root = write(tmp_path, "train/1.jpg", "test/2.jpg", "bus/3.jpg")
    with pytest.raises(UserError, match="bus/ is not a split"):
        find(root)
    source = find(root, splits="none")
    assert list(source.files["label"]) == ["bus", "test", "train"] and set(source.files["split"]) == {""}


@pytest.mark.parametrize(
    "names",
    [
        ["bullet_train", "pregnancy_test"],
        ["train_station", "testament"],
        ["cat", "dog"],
        ["seg_a", "seg_b"],
        ["dev board", "x"],
    ],
)
def test_class_names_that_contain_a_splits_name_are_classes(names: Sequence[str]) -> None:
    paths = [f"{name}/{number}.jpg" for number, name in enumerate(names)]
    assert layout(*paths) == {path: (path.split("/")[0], "") for path in paths}


@pytest.mark.parametrize("above", ["archive/raw-img", "train", "a/b/c"])
def test_one_folder_too_high_names_the_folder_to_take(tmp_path: Path, above: str) -> None:
    root = write(tmp_path / "photos", f"{above}/cat/1.jpg", f"{above}/dog/2.jpg")
    with pytest.raises(UserError) as caught:
        find(root)
    assert f"{root}/{above} has two or more folders of images" in str(caught.value)


def test_the_deeper_root_is_the_nearest_folder_with_two_folders() -> None:
    assert deeper_root(pd.Series(["a/cover.jpg", "a/b/x/1.jpg", "a/b/y/2.jpg"])) == "a/b"
    assert deeper_root(pd.Series(["x/1.jpg", "y/2.jpg"])) is None and deeper_root(pd.Series(["x/1.jpg"])) is None


def test_a_validation_folder_beside_train_images_is_a_split(tmp_path: Path) -> None:
    paths = [f"{split}_images/{label}/1.jpg" for split in ("train", "val") for label in "ab"]
    source = find(write(tmp_path, *paths))
    assert source.kind == "split folders" and list(source.files["split"]) == ["train", "train", "val", "val"]


def test_system_folders_do_not_exist(tmp_path: Path) -> None:
    system = ["@eaDir", "$RECYCLE.BIN", "lost+found", "System Volume Information", "#recycle", "__MACOSX"]
    source = find(
        write(tmp_path, "cat/1.jpg", "dog/2.jpg", "cat/@eaDir/1.jpg/thumb.jpg", *(f"{name}/3.jpg" for name in system))
    )
    assert list(source.files["path"]) == ["cat/1.jpg", "dog/2.jpg"]


@pytest.mark.parametrize(
    "name",
    ["at 1.23.45\u202fPM.jpg", "\u732b\u3000\u5199\u771f.jpg", "\U0001f468\u200d\U0001f469.jpg", "v\u00a013.jpg"],
)
def test_names_of_any_text_are_used(tmp_path: Path, name: str) -> None:
    assert list(find(write(tmp_path, f"cat/{name}", "dog/2.jpg")).files["path"]) == [f"cat/{name}", "dog/2.jpg"]


def test_class_names_that_differ_invisibly_are_refused(tmp_path: Path) -> None:
    for number, name in enumerate(("cat ", unicodedata.normalize("NFD", "élan"))):
        root = write(tmp_path / str(number), f"{name}/1.jpg", f"{unicodedata.normalize('NFC', name).strip()}/2.jpg")
        with pytest.raises(UserError, match="differ only in spaces at the ends or in their Unicode form"):
            find(root)


def test_fingerprints_are_those_of_versions_without_the_key() -> None:
    assert not {"splits", "given_split_duplicates"} & json.loads(configuration.hashed_json(Data())).keys()
    assert json.loads(configuration.hashed_json(Data(splits="none")))["splits"] == "none"


# --------------------------------------------------------------------------------------------------------------- tables


def table(root: Path, text: str, encoding: str = "utf-8", name: str = "labels.csv") -> str:
    write(root, "pics/a.jpg", "pics/b.jpg", "pics/c.jpg")
    (root / name).write_bytes(text.encode(encoding))
    return str(root / name)


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_any_separator_and_unicode_encoding(tmp_path: Path, separator: str, encoding: str) -> None:
    rows = ("path", "label"), ("pics/a.jpg", "élan"), ("pics/b.jpg", "y")
    text = "".join(separator.join(row) + "\r\n" for row in rows)
    assert list(find(table(tmp_path, text, encoding)).files["label"]) == ["élan", "y"]


def test_backslashes_are_read_as_slashes(tmp_path: Path) -> None:
    source = find(table(tmp_path, "path,label\npics\\a.jpg,x\npics\\b.jpg,y\n"))
    assert list(source.files["path"]) == ["pics/a.jpg", "pics/b.jpg"] and source.root == str(tmp_path)


def test_splits_in_any_spelling_and_others_are_refused(tmp_path: Path) -> None:
    text = "path,label,split\npics/a.jpg,x,Training\npics/b.jpg,y,DEV\npics/c.jpg,y,test_set\n"
    assert list(find(table(tmp_path, text)).files["split"]) == ["train", "val", "test"]
    with pytest.raises(
        UserError, match=r"2 rows have a value other than .* line 2, 3; write train, val or test instead of '0', '1'"
    ):
        find(table(tmp_path, "path,label,split\npics/a.jpg,x,0\npics/b.jpg,y,1\n"))


def test_ids_without_folder_and_suffix_are_looked_up(tmp_path: Path) -> None:
    write(tmp_path, "train/0a1.jpg", "train/0b2.JPG", "test/ff.jpg")
    (tmp_path / "labels.csv").write_text("id,breed\n0a1,pug\n0b2,boxer\n")
    source = find(tmp_path / "labels.csv", path_column="id", label_column="breed")
    assert list(source.files["path"]) == ["train/0a1.jpg", "train/0b2.JPG"] and list(source.files["label"]) == [
        "pug",
        "boxer",
    ]
    write(tmp_path, "test/0a1.jpg")
    with pytest.raises(UserError, match=r"0a1 names several images, such as .*test/0a1.jpg and .*train/0a1.jpg"):
        find(tmp_path / "labels.csv", path_column="id", label_column="breed")


def test_a_table_without_a_header_line_is_explained(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="add a first line with the names of the columns: path,label"):
        find(table(tmp_path, "pics/a.jpg,x\npics/b.jpg,y\n"))


def test_a_table_with_other_case_or_blanks_in_its_header(tmp_path: Path) -> None:
    for header in ("Path,LABEL", "path, label", " PATH ,Label"):
        assert list(find(table(tmp_path, f"{header}\npics/a.jpg,x\npics/b.jpg,y\n")).files["label"]) == ["x", "y"]
    with pytest.raises(UserError, match="has no column 'path', only 'PATH', 'Path', 'label'"):
        find(table(tmp_path, "PATH,Path,label\npics/a.jpg,pics/a.jpg,x\n"))


def test_a_separator_that_the_first_line_states(tmp_path: Path) -> None:
    assert list(find(table(tmp_path, "sep=;\r\npath;label\r\npics/a.jpg;x,1\r\npics/b.jpg;y\r\n")).files["label"]) == [
        "x,1",
        "y",
    ]


@pytest.mark.parametrize("content", [b"PK\3\4" + bytes(99), b"\xd0\xcf\x11\xe0" + bytes(99)])
def test_a_workbook_named_csv_is_explained(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(UserError, match="is a workbook or an archive, not a CSV file; save the sheet as CSV"):
        find(tmp_path / "labels.csv")


@pytest.mark.parametrize("label", ["label", "MEL"])
def test_one_column_per_class_is_explained(tmp_path: Path, label: str) -> None:
    path = table(tmp_path, "path,MEL,NV,age\npics/a.jpg,1.0,0.0,5\npics/b.jpg,0,1,7\n")
    with pytest.raises(UserError, match=r"has one column per class \('MEL', 'NV'\); add a column with the class"):
        find(path, label_column=label)
    both = table(tmp_path, "path,label,MEL,NV\npics/a.jpg,x,1,0\npics/b.jpg,y,0,1\n")
    assert list(find(both).files["label"]) == ["x", "y"]


def test_ids_in_another_case_are_looked_up(tmp_path: Path) -> None:
    source = find(table(tmp_path, "path,label\nA.JPG,x\nimages\\b.Jpg,y\n"))
    assert list(source.files["path"]) == ["pics/a.jpg", "pics/b.jpg"]
    write(tmp_path, "pics/A.jpg")
    with pytest.raises(UserError, match="names several images"):
        find(tmp_path / "labels.csv")


def test_a_file_that_is_no_table_is_explained(tmp_path: Path) -> None:
    write(tmp_path, "labels.xlsx")
    with pytest.raises(UserError, match="is a file; name a folder of images, or a table"):
        find(tmp_path / "labels.xlsx")


def test_classes_below_folders_of_another_meaning_are_noticed(tmp_path: Path) -> None:
    write(tmp_path, *(f"{fold}/{name}/1.jpg" for fold in ("fold1", "fold2") for name in ("cat", "dog")))
    (warning,) = find(tmp_path).warnings
    assert warning.startswith("all class folders have the same folders (cat, dog); if those are the classes, name one")
    write(tmp_path, "fold2/2.jpg")
    assert not find(tmp_path).warnings


@pytest.mark.parametrize("column", ["path", "label"])
def test_control_characters_in_a_table_are_refused(tmp_path: Path, column: str) -> None:
    row = {"path": "pics/a.jpg", "label": "x"}
    row[column] += "\nb"
    quoted = '"{path}","{label}"'.format(**row)
    with pytest.raises(UserError, match=rf"1 row has a line break or a control character in the {column}: line 2"):
        find(table(tmp_path, f"path,label\n{quoted}\npics/b.jpg,y\n"))


MASKS = {
    "in folders": ("a/images/1.png", "a/masks/1.png", "b/images/2.png", "b/masks/2_mask.png"),
    "beside the images": ("a/1 (1).png", "a/1 (1)_mask.png", "a/1 (1)_mask_1.png", "b/2.png"),
    "in a tree of their own": (
        "images/a/1.jpg",
        "images/b/2.jpg",
        "annotations/trimaps/1.png",
        "annotations/trimaps/2.png",
    ),
}


@pytest.mark.parametrize("where", MASKS)
def test_masks_of_images_are_no_images(tmp_path: Path, where: str) -> None:
    write(tmp_path, *MASKS[where])
    listing = list_images(str(tmp_path))
    images = [path for path in MASKS[where] if "mask" not in path and "trimap" not in path]
    assert list(listing.images["path"]) == images and sorted(listing.masks) == sorted({*MASKS[where]} - {*images})
    (warning,) = mask_warning(listing.masks)
    assert "of another image, by their names, such as" in warning


@pytest.mark.parametrize(
    "paths",
    [
        ("mask/1.jpg", "no_mask/1.jpg"),  # classes
        ("masks/1.jpg", "images/2.jpg"),  # other names
        ("gas_mask.jpg", "dust_mask.jpg"),
        ("labels/images/1.jpg", "labels/masks/2.jpg"),
    ],
)
def test_images_that_are_no_masks_stay(paths: Sequence[str]) -> None:
    assert not find_masks(paths)


@pytest.mark.parametrize(
    ("paths", "end"),
    [
        (
            ("train/cat.0.jpg", "train/cat.1.jpg", "train/dog.0.jpg", "train/dog.1.jpg", "test1/1.jpg"),
            "names (cat, dog)",
        ),
        (("images/Great_Dane_1.jpg", "images/Great_Dane_2.jpg", "images/pug_1.jpg", "images/pug_2.jpg"), "Dane, pug)"),
        (("train/1.jpg", "test/2.jpg", "train.csv", "sample_submission.csv"), "if train.csv has the classes"),
        (("img/1.jpg", "a.zip", "labels.tsv"), "if labels.tsv has the classes of the images, name it instead"),
    ],
)
def test_where_the_classes_may_be_is_named(tmp_path: Path, paths: Sequence[str], end: str) -> None:
    with pytest.raises(UserError, match=re.escape(end)):
        find(write(tmp_path, *paths))


def test_an_archive_among_files_without_images_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"2 other files, such as b\.zip; unpack it"):
        find(write(tmp_path, "a.txt", "b.zip"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "# exported\npath,label\npics/a.jpg,x\n",
            "line 2 has 2 values, the first line has 1 names; remove lines above",
        ),
        ("path,label\npics/a.jpg,x,y\n", "line 2 has 3 values, the first line has 2 names"),
        ("#\n#\npath,label\npics/a.jpg,x\n", "line 3 has 2 values, the lines above have 1; remove lines above"),
        ("path,label\npics/a.jpg,x\npics/b.jpg,y,z\n", "line 3 has 3 values, the lines above have 2"),
        ("path,label\nhttps://a.org/1.jpg,x\n", r"1 row has the address of a web page as path: line 2; download"),
        (f"path,label\n{'1 ' * 9999},x\n", r"1 of 1 file missing, such as .{200,400}…; paths are relative"),
    ],
)
def test_rows_that_are_no_paths_and_labels_are_explained(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        find(table(tmp_path, text))
    assert len(str(caught.value)) < 1000


def test_a_table_of_image_bytes_is_explained(tmp_path: Path) -> None:
    pd.DataFrame({"path": [{"bytes": b"\xff\xd8", "path": "a.jpg"}] * 2, "label": ["x", "y"]}).to_parquet(
        tmp_path / "train.parquet"
    )
    with pytest.raises(UserError, match=r"the column 'path' holds no text; write paths of image files into it$"):
        find(tmp_path / "train.parquet")


def test_a_separator_at_the_end_of_every_line_is_no_column(tmp_path: Path) -> None:
    source = find(table(tmp_path, "path,label\npics/a.jpg,x,\npics/b.jpg,y,\n"))
    assert list(source.files["label"]) == ["x", "y"]


def test_blanks_around_the_names_of_columns_do_not_matter(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"one column per class \('cat', 'dog'\)"):
        find(table(tmp_path, "path, cat, dog\npics/a.jpg, 1, 0\npics/b.jpg, 0, 1\n"))
