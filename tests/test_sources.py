import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import s3_server
from PIL import Image

from animalclf.config import Data
from animalclf.errors import UserError
from animalclf.prepare import sources
from animalclf.prepare.sources import SOURCES, Location, Source, SourceReader
from animalclf.prepare.task import read_files
from animalclf.utils import storage


def jpeg(seed=0):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 16, 3), np.uint8)).save(file, "JPEG")
    return file.getvalue()


def tree(root, *paths, content=None):
    for number, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content or jpeg(number))
    return str(root)


def find(root, **options):
    return sources.find(str(root), Data(), **options)


def test_class_folders_of_every_spelling(tmp_path):
    tree(
        tmp_path,
        "cane/a.jpg",
        "cane/deep/er/b.JPEG",
        "gatto nero/c d.PNG",
        "Füchse/ö.webp",
        "gatto nero/e.tiff",
        "cane/notes.txt",
        "cane/.hidden.jpg",
    )
    tree(tmp_path, "__MACOSX/cane/._a.jpg", ".git/x.jpg", "cane/Thumbs.db")
    source = find(tmp_path)
    hidden = [".git", "__MACOSX", "cane/.hidden.jpg", "cane/Thumbs.db"]
    assert source.kind == "class folders" and source.ignored == ["cane/notes.txt", *hidden]
    rows = source.files
    assert list(rows["path"]) == sorted(
        ["cane/a.jpg", "cane/deep/er/b.JPEG", "gatto nero/c d.PNG", "Füchse/ö.webp", "gatto nero/e.tiff"]
    )
    assert dict(zip(rows["path"], rows["label"], strict=True))["cane/deep/er/b.JPEG"] == "cane"
    assert (
        set(rows["label"]) == {"cane", "gatto nero", "Füchse"}
        and (rows["bytes"] > 0).all()
        and (rows["split"] == "").all()
    )


def test_images_with_any_ending_are_read_by_their_content(tmp_path):
    names = ["a.jfif", "b.jpe", "c.JPG_large", "d.jpg?size=large", "e", "f.0001", "g.jpg "]
    tree(tmp_path, *(f"{folder}/{name}" for folder in ("cane", "gatto") for name in names))
    for kind in ("PPM", "AVIF", "BMP", "JPEG2000", "WEBP", "TIFF", "GIF", "PNG"):
        file = io.BytesIO()
        Image.fromarray(np.full((9, 9, 3), 7, np.uint8)).save(file, kind)
        tree(tmp_path, f"cane/{kind}.file", f"cane/x.{kind.lower()}x", content=file.getvalue())
    source = find(tmp_path)
    assert len(source.files) == 2 * len(names) + 16 and not source.ignored


def test_files_that_are_not_images_are_counted_and_images_that_cannot_be_read_are_listed(tmp_path):
    tree(tmp_path, "cane/1.jpg", "gatto/2.jpg", "cane/half.heic", "cane/x.NEF", "gatto/y.jxl", "gatto/z.svg")
    tree(tmp_path, "cane/unnamed", content=b"\0\0\0\x18ftypheic" + bytes(60))
    text = ["cane/BMW", "cane/P1 plan", "gatto/a.csv", "gatto/b.json", "gatto/readme"]
    tree(tmp_path, *text, content=b"BM and P1 are names")
    tree(tmp_path, "gatto/table.bin", content=b"\x28\0\0\0" + bytes(90))
    tree(tmp_path, "gatto/clip.MP4", "cane/Icon\r", "cane/.DS_Store")
    (tmp_path / "gatto" / "empty").touch()
    source = find(tmp_path)
    unreadable = ["cane/half.heic", "cane/unnamed", "cane/x.NEF", "gatto/y.jxl", "gatto/z.svg"]
    assert list(source.files["path"]) == sorted(["cane/1.jpg", "gatto/2.jpg", *unreadable])
    others = sorted([*text, "gatto/table.bin", "gatto/clip.MP4", "gatto/empty"])
    assert source.ignored == [*others, "cane/.DS_Store", "cane/Icon\\x0d"]
    assert [text for text in source.warnings if "1 videos are not used, such as gatto/clip.MP4" in text]


def test_only_files_with_unknown_endings_are_opened(tmp_path, monkeypatch):
    tree(tmp_path, "a/1.jpg", "b/2.PNG", "b/3", "b/notes.txt", "a/4.heic")
    opened = []
    read_heads = storage.read_heads
    monkeypatch.setattr(
        storage, "read_heads", lambda url, paths, size: opened.extend(paths) or read_heads(url, paths, size)
    )
    assert len(find(tmp_path).files) == 4 and opened == ["b/3"]


def test_ids_of_a_table_find_images_with_any_ending(tmp_path):
    tree(tmp_path, "train/x1.JPG_large", "train/x2", "train/x3.jfif")
    (tmp_path / "labels.csv").write_text("path,label\nx1,a\nx2,b\nx3,b\n")
    assert list(find(tmp_path / "labels.csv").files["path"]) == ["train/x1.JPG_large", "train/x2", "train/x3.jfif"]


def test_images_to_predict_in_folders_of_splits(tmp_path):
    tree(tmp_path, "train/a/1.jpg", "train/b/2.jpg", "val/a/3.jpg", "val/b/4.jpg")
    source = find(tmp_path, labelled=False)
    assert len(source.files) == 4 and "(train/, val/): all images are classified" in source.warnings[0]
    tree(tmp_path, "test/images/5.jpg", "test/images/6.jpg")
    source = find(tmp_path, labelled=False)
    assert source.root == f"{tmp_path}/test/images" and list(source.files["path"]) == ["5.jpg", "6.jpg"]
    assert "only the images of test/images/ are classified" in source.warnings[0]


def test_a_link_to_a_parent_folder_ends(tmp_path):
    tree(tmp_path, "a/1.jpg", "b/2.jpg")
    os.symlink(tmp_path, tmp_path / "a" / "loop")
    os.symlink(tmp_path / "nowhere.jpg", tmp_path / "b" / "dead.jpg")
    source = find(tmp_path)
    assert list(source.files["path"]) == ["a/1.jpg", "b/2.jpg", "b/dead.jpg"]
    loop = (
        "1 link leads to a folder that is read already, such as a/loop to the folder itself; its images are used once"
    )
    assert source.warnings == [loop]


def test_of_a_folder_and_a_link_to_it_the_folder_is_read(tmp_path):
    tree(tmp_path, "dog/1.jpg", "wolf/2.jpg")
    os.symlink("wolf", tmp_path / "a_link")
    os.symlink("dog", tmp_path / "z_link")
    listing = sources.listing.list_images(str(tmp_path))
    assert list(listing.images["path"]) == ["dog/1.jpg", "wolf/2.jpg"]
    (warning,) = sources.listing.link_warning(listing)
    assert warning.startswith("2 links lead to a folder that is read already, such as a_link to wolf/")


def test_names_that_are_not_text_are_used_with_escapes(tmp_path):
    folder = os.fsencode(tmp_path)
    for path in (b"/caf\xe9/1.jpg", b"/b/\xff.jpg", b"/b/a\nb.jpg", b"/b/\\xff", b"/b/c/\xff/2.jpg"):
        os.makedirs(os.path.dirname(folder + path), exist_ok=True)
        with open(folder + path, "wb") as file:
            file.write(jpeg())
    source = find(tmp_path)
    escaped = [r"b/\xff", r"b/\xff.jpg", r"b/a\x0ab.jpg", r"b/c/\xff/2.jpg", r"caf\xe9/1.jpg"]
    assert list(source.files["path"]) == escaped and set(source.files["label"]) == {"b", r"caf\xe9"}
    assert read_files(str(tmp_path), escaped) == [jpeg()] * 5
    assert source.warnings[-1].startswith("4 names are not UTF-8 text") and source.warnings[-1].endswith("escapes")


def test_a_name_that_equals_the_escaped_name_of_another_file_is_used(tmp_path):
    tree(tmp_path, "a/1.jpg", r"b/\xff.jpg", content=jpeg())
    with open(os.fsencode(tmp_path / "b") + b"/\xff.jpg", "wb") as file:
        file.write(b"another")
    source = find(tmp_path)
    assert list(source.files["path"]) == ["a/1.jpg", r"b/\xff.jpg"] and source.ignored == [r"b/\xff.jpg"]
    assert read_files(str(tmp_path), [r"b/\xff.jpg"]) == [jpeg()]


def test_a_folder_whose_path_is_not_utf_8_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"/\\xff: the path is not UTF-8 text; rename"):
        find(tmp_path / os.fsdecode(b"\xff"))


def test_split_folders(tmp_path):
    tree(tmp_path, "train/a/1.jpg", "train/b/2.jpg", "validation/a/3.jpg", "test/b/4.jpg")
    source = find(tmp_path)
    assert list(source.files["split"]) == ["test", "train", "train", "val"] and list(source.files["label"]) == [
        "b",
        "a",
        "b",
        "a",
    ]


@pytest.mark.parametrize("deeper", ["", "train_images/"])
def test_the_competition_folder(tmp_path, deeper):
    test = "test_images/" if deeper else ""
    tree(
        tmp_path,
        f"train_images/{deeper}cane/1.jpeg",
        f"train_images/{deeper}ragno/2.jpeg",
        f"test_images/{test}0.jpeg",
        f"test_images/{test}10.jpeg",
    )
    (tmp_path / "sample.csv").write_text("id,category\n0.jpeg,cane\n10.jpeg,cane\n")
    source = find(tmp_path)
    assert (
        source.kind == "kaggle"
        and list(source.files["path"]) == ["cane/1.jpeg", "ragno/2.jpeg"]
        and list(source.files["label"]) == ["cane", "ragno"]
    )
    assert source.root == str(tmp_path / f"train_images/{deeper}").rstrip("/") and source.sample_submission == str(
        tmp_path / "sample.csv"
    )
    unlabelled = find(tmp_path, labelled=False)
    assert list(unlabelled.files["path"]) == ["0.jpeg", "10.jpeg"] and unlabelled.sample_submission == str(
        tmp_path / "sample.csv"
    )


def test_an_unlabelled_folder(tmp_path):
    tree(tmp_path, "x.jpg", "deep/y.png")
    assert list(find(tmp_path, labelled=False).files["path"]) == ["deep/y.png", "x.jpg"]


@pytest.mark.parametrize(
    "paths, message",
    [
        ([], "no such folder"),
        (["a/readme.md"], "no images found .*1 other files, such as a/readme.md"),
        (["a/1.jpg", "2.jpg"], "1 image is outside any class folder, such as 2.jpg"),
        (["a/1.jpg", "a/2.jpg"], "only one class, 'a'"),
        (
            ["a/1.jpg", "coco.json"],
            "only one class.*if coco.json has the classes.*write them as a CSV with the columns",
        ),
        (["train2017/1.jpg", "val2017/2.jpg", "notes/coco.json"], "if notes/coco.json has the classes"),
        (["a/1.jpg", "b/2.jpg", "c/x.txt"], "class folders without images: c"),
        (["test_images/1.jpg"], "no images in train_images"),
    ],
)
def test_wrong_layouts_are_explained(tmp_path, paths, message):
    root = tmp_path / "data"
    tree(root, *paths)
    with pytest.raises(UserError, match=message):
        find(root)


def test_a_prepared_set_is_not_a_source(tmp_path):
    tree(tmp_path, "sets/a/dataset.json", "sets/a/manifest.parquet", "sets/a/shard-00000.parquet")
    for _ in range(2):
        for labelled in (True, False):
            with pytest.raises(UserError, match="is a prepared set, not the images; `train`, `compare` and `evaluate`"):
                find(tmp_path / "sets" / "a", labelled=labelled)
            with pytest.raises(UserError, match=r"sets: holds prepared sets; name one: .*sets/a$"):
                find(tmp_path / "sets", labelled=labelled)
        tree(tmp_path, "sets/a/near_duplicates.png")
    tree(tmp_path, "photos/cat/1.jpg", "photos/dog/2.jpg", "photos/dataset.json", "photos/manifest.parquet")
    assert len(find(tmp_path / "photos").files) == 2


def test_empty_folder_and_archive(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no images found"):
        find(tmp_path / "empty")
    (tmp_path / "archive.zip").write_bytes(b"PK")
    with pytest.raises(UserError, match="unpack it"):
        find(tmp_path / "archive.zip")


def table(tmp_path, text, encoding="utf-8", name="labels.csv"):
    tree(tmp_path, "pics/a.jpg", "pics/b.jpg", "pics/c.jpg")
    (tmp_path / name).write_bytes(text.encode(encoding))
    return str(tmp_path / name)


def test_tables(tmp_path):
    path = table(tmp_path, "\ufeffpath,label,split\npics/b.jpg,x,train\npics/a.jpg,y,valid\npics/c.jpg,x,\n")
    source = sources.find(path, Data())
    assert list(source.files["path"]) == ["pics/a.jpg", "pics/b.jpg", "pics/c.jpg"] and source.root == str(tmp_path)
    assert list(source.files["label"]) == ["y", "x", "x"] and list(source.files["split"]) == ["val", "train", ""]
    frame = pd.DataFrame({"file": [str(tmp_path / "pics" / f"{n}.jpg") for n in "ab"], "kind": ["001", "NA"]})
    frame.to_parquet(tmp_path / "t.parquet")
    source = sources.find(str(tmp_path / "t.parquet"), Data(path_column="file", label_column="kind"))
    assert list(source.files["label"]) == ["001", "NA"]
    assert [os.path.join(source.root, p) for p in source.files["path"]] == list(frame["file"])


@pytest.mark.parametrize(
    "text, message",
    [
        ("file,label\npics/a.jpg,x\n", "no column 'path', only 'file', 'label'.*data.path_column"),
        ("path,labels\npics/a.jpg,x\n", "did you mean 'labels'"),
        ("path,label\npics/a.jpg,x\npics/z.jpg,y\n", "1 of 2 files missing, such as .*z.jpg"),
        ("path,label\npics/a.jpg,x\npics/a.jpg,x\n", "1 row names the same image as an earlier row.*line 3"),
        ("path,label\npics/a.jpg,x\npics/b.jpg,\n", "1 row has no label: line 3"),
        ("path,label\n,x\npics/b.jpg,y\n", "1 row has no path: line 2"),
        ("path,label\npics/a.jpg,x\n\ufeffpath,label\npics/b.jpg,y\n", "1 row repeats the header: line 3; remove"),
        (
            "path,label,split\npics/a.jpg,x,train\npics/b.jpg,y,holdout\n",
            "other than train, val, test in the column .split.: line 3",
        ),
        ("path,label\npics/a.jpg,x\npics/b.jpg,x\n", "only one class, 'x'"),
        ("", "cannot be read as a table"),
        ("'path','label'\n'pics/a.jpg','x'\n", "names in single quotes, .* write names and values in double quotes"),
        ('{"path": "pics/a.jpg", "label": "x"}\n{"path": "pics/b.jpg", "label": "y"}\n', "is JSON, not a CSV file"),
        ('[\n {"path": "pics/a.jpg", "label": "x"}]', "is JSON, not a CSV file; save it as CSV"),
    ],
)
def test_wrong_tables_name_the_row(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        sources.find(table(tmp_path, text), Data())


def test_an_image_may_have_the_name_of_the_column(tmp_path):
    file = table(tmp_path, "path,label\npath,x\npics/b.jpg,label\n")
    (tmp_path / "path").write_bytes((tmp_path / "pics" / "a.jpg").read_bytes())
    files = sources.find(file, Data()).files
    assert sorted(zip(files["path"], files["label"], strict=True)) == [("path", "x"), ("pics/b.jpg", "label")]


def test_unknown_encoding(tmp_path):
    path = table(tmp_path, "path,label\npics/a.jpg,übel\npics/b.jpg,gut\n", "latin-1")
    with pytest.raises(UserError, match="not UTF-8"):
        sources.find(path, Data())
    with pytest.raises(UserError, match="no such table"):
        sources.find(str(tmp_path / "other.csv"), Data())


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="counts this process's threads in /proc")
def test_reading_a_parquet_table_leaves_no_thread_behind():
    """An Arrow thread that outlives the command can abort it after its work is done."""
    code = """
import io, os, pandas as pd
from animalclf.prepare.task import read_files
from animalclf.utils import storage
file = io.BytesIO()
pd.DataFrame({"label": ["cat", "dog"] * 500}).to_parquet(file)
before = len(os.listdir("/proc/self/task"))
table = storage.parse_parquet(file.getvalue())
print(len(table), len(os.listdir("/proc/self/task")) - before)
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == [
        "1000",
        "0",
    ]


def test_the_inputs_hash_changes_with_any_file_or_setting(tmp_path):
    tree(tmp_path, "a/1.jpg", "b/2.jpg")
    first = sources.inputs_hash(find(tmp_path), Data())
    assert first == sources.inputs_hash(find(tmp_path), Data())
    assert first != sources.inputs_hash(find(tmp_path), Data(val=0.3))
    os.utime(tmp_path / "a" / "1.jpg", ns=(1, 1))
    assert first != sources.inputs_hash(find(tmp_path), Data())


@pytest.fixture
def bucket(monkeypatch):
    """The client of a local S3 server with a bucket `photos`."""
    import boto3
    import s3fs

    with s3_server.running() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        client = boto3.client("s3")
        client.create_bucket(Bucket="photos")
        yield client
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_bucket_like_a_folder(bucket, tmp_path):
    for name in ("set/a/1.jpg", "set/b b/ü.PNG", "set/b b/notes.txt"):
        bucket.put_object(Bucket="photos", Key=name, Body=jpeg())
    source = sources.find("s3://photos/set/", Data())
    assert (
        source.root == "s3://photos/set"
        and list(source.files["path"]) == ["a/1.jpg", "b b/ü.PNG"]
        and list(source.files["label"]) == ["a", "b b"]
    )
    assert source.ignored == ["b b/notes.txt"] and source.files["stamp"].nunique() >= 1
    bucket.put_object(
        Bucket="photos", Key="labels.csv", Body=b"path,label\nset/a/1.jpg,x\ns3://photos/set/b b/\xc3\xbc.PNG,y\n"
    )
    assert list(sources.find("s3://photos/labels.csv", Data()).files["label"]) == ["x", "y"]
    before = sources.inputs_hash(source, Data())
    bucket.put_object(Bucket="photos", Key="set/a/1.jpg", Body=jpeg(5))
    assert before != sources.inputs_hash(sources.find("s3://photos/set/", Data()), Data())


def test_bucket_errors_are_explained(bucket, monkeypatch):
    import s3fs

    with pytest.raises(UserError, match="no such"):
        sources.find("s3://nowhere/set", Data())
    with pytest.raises(UserError, match="no such folder"):
        sources.find("s3://photos/nothing", Data())
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(UserError, match="cannot be reached"):
        sources.find("s3://photos/set", Data())
    with pytest.raises(UserError, match="not supported"):
        sources.find("bogus://photos/set", Data())


def test_a_registered_kind_of_source_needs_no_other_edit(tmp_path):
    class Lines(SourceReader):
        """A file with one line "path label" per image."""

        priority = 70

        def matches(self, location: Location) -> bool:
            return location.url.endswith(".x_test_source")

        def read(self, location: Location) -> Source:
            rows = [line.split() for line in Path(location.url).read_text().splitlines()]
            files = pd.DataFrame(rows, columns=["path", "label"]).assign(split="", bytes=0, stamp="")
            return Source(os.path.dirname(location.url), files, "x_test_source", whole_folder=False)

    tree(tmp_path, "a/1.jpg", "b/2.jpg")
    listing = tmp_path / "labels.x_test_source"
    listing.write_text("a/1.jpg cat\nb/2.jpg dog\n")
    with pytest.raises(UserError, match="is a file; name a folder"):
        find(listing)
    SOURCES.register("x_test_source")(Lines)
    try:
        source = find(listing)
        assert source.kind == "x_test_source" and list(source.files["label"]) == ["cat", "dog"]
        assert find(tmp_path).kind == "class folders"
    finally:
        SOURCES.unregister("x_test_source")
