"""Names with brackets, blanks, patterns, control characters, HTML and other scripts, in folders and buckets."""

import csv
import io
import itertools

import numpy as np
import pytest
import s3_server
import s3fs
from PIL import Image

from animalclf.cli import main
from animalclf.config import Data
from animalclf.errors import UserError
from animalclf.prepare import output_dir, sources, task
from animalclf.utils import storage
from animalclf.utils.file_names import skipped_text
from animalclf.utils.text import count_clause, count_text
from animalclf.utils.writable import check_writable

ODD_NAMES = [
    "[v1]",
    "a b",
    "what?",
    "*",
    "100%",
    "%20",
    "c#1",
    "x+y",
    "a::b",
    "{b}",
    "~",
    "'\"",
    "$HOME",
    "a;b&c",
    "é\u202f\u200d",
]


@pytest.fixture(scope="module")
def bucket():
    with s3_server.running() as running, pytest.MonkeyPatch.context() as monkeypatch:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        storage.filesystem("s3://odd")[0].makedirs("odd", exist_ok=True)
        yield "s3://odd"
        s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(params=["folder", "bucket"])
def root(request, tmp_path):
    return request.getfixturevalue("bucket") + "/root" if request.param == "bucket" else str(tmp_path / "root")


@pytest.mark.parametrize("name", ODD_NAMES)
def test_files_and_folders_of_odd_names(root, name):
    folder = storage.join(root, name, f"in {name}")
    for file in (name, f"shard-{name}.parquet", "other"):
        storage.write_bytes(storage.join(folder, file), file.encode())
    assert storage.exists(folder) and storage.read_bytes(storage.join(folder, name)) == name.encode()
    assert sorted(output_dir.file_names(folder)) == sorted({name, f"shard-{name}.parquet", "other"})
    assert task.read_files(folder, [name, "other"]) == [name.encode(), b"other"]
    assert storage.read_heads(folder, [name, "other"], 1) == [name.encode()[:1], b"o"]
    files = sources.listing.list_files(root).files
    assert sorted(file.path for file in files if f"in {name}" in file.path)[0].startswith(f"{name}/in {name}/")
    output_dir.clear(folder)
    storage.remove(storage.join(folder, name))
    assert output_dir.file_names(folder) == ["other"]
    storage.remove(storage.join(root, name))
    assert not storage.exists(folder)


def test_keys_with_empty_parts(bucket):
    keys = [f"{name}//{number}.jpg" for name in ("cat", "dog") for number in range(3)]
    keys += ["cat/plain.jpg", "dog/deep/er/1.jpg", "fox/a//b.jpg", "fox/1.jpg"]
    for key in keys:
        storage.write_bytes(f"{bucket}/double/{key}", b"image")
    source = sources.find(f"{bucket}/double", Data())
    assert sorted(source.files["path"]) == sorted(keys)
    assert dict(zip(source.files["path"], source.files["label"], strict=True))["cat//1.jpg"] == "cat"
    assert task.read_files(f"{bucket}/double", ["cat//1.jpg"]) == [b"image"]


CLASSES = ["[old]", "<b>x&amp;", "\u732b\u3000\u5199\u771f", "a b?#%+*"]
FILES = [
    "Screenshot 1.23.45\u202fPM.jpg",
    "\U0001f468\u200d\U0001f469.jpg",
    "v\u00a013.05.jpg",
    "[1].jpg",
    "%20#?.jpg",
    "=1+1.jpg",
]
TINY = ["--recipe", "resnet18", "--set", "model.input_size=32", "--set", "data.stored_size=36"]
TINY += ["--set", "model.weights=none", "--set", "train.epochs=1", "--set", "optim.warmup_epochs=0"]


def jpeg(seed):
    file = io.BytesIO()
    small = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8))
    small.resize((80, 60), Image.Resampling.BICUBIC).save(file, "JPEG")
    return file.getvalue()


@pytest.mark.ray
def test_odd_names_go_through_every_command(tmp_path, ray_local, capsys):
    base = str(tmp_path / "chain")
    data, run = storage.join(base, "in [v1] *?"), storage.join(base, "runs [x] %20#", "a+b [v1]")
    for number, (name, file) in enumerate(itertools.product(CLASSES, FILES)):
        storage.write_bytes(storage.join(data, name, file), jpeg(number))
    new, out = storage.join(base, "new [1]"), storage.join(base, "out [v1]")
    for number, file in enumerate(FILES):
        storage.write_bytes(storage.join(new, file), jpeg(100 + number))
    assert main(["prepare", "--data", data, "--out", storage.join(base, "set [v1]", "p"), *TINY]) == 0
    assert main(["train", "--data", storage.join(base, "set [v1]", "p"), "--out", run, *TINY, "--local"]) == 0
    assert main(["predict", run, "--data", new, "--out", out]) == 0
    assert main(["evaluate", run, "--data", data]) == 0
    assert main(["report", run]) == 0
    printed = capsys.readouterr().err
    assert all(name in printed for name in CLASSES) and "in [v1] *?" in printed
    rows = list(csv.reader(io.StringIO(storage.read_bytes(f"{out}/submission.csv").decode())))
    assert sorted(row[0] for row in rows[1:]) == sorted(FILES) and {row[1] for row in rows[1:]} <= set(CLASSES)
    page = storage.read_bytes(f"{run}/report.html").decode()
    assert "[old]" in page and "\u732b\u3000\u5199\u771f" in page and "<b>x&amp;" not in page


def test_skipped_files_are_named_and_archives_with_what_to_do():
    assert skipped_text([]) == ""
    assert skipped_text(["a.txt"]) == "skipped: 1 file that is not an image, such as a.txt"
    text = skipped_text(["a.txt", "x/more.ZIP"])
    assert text == "skipped: 2 files that are not images, such as x/more.ZIP; unpack it"


def test_the_check_of_a_folder_leaves_none_behind(tmp_path):
    check_writable(str(tmp_path / "a" / "b"))
    assert not list(tmp_path.iterdir())
    (tmp_path / "a").mkdir()
    check_writable(str(tmp_path / "a" / "b"))
    assert [path.name for path in tmp_path.rglob("*")] == ["a"]


@pytest.mark.parametrize(
    ("number", "clause", "text"),
    [
        (1, "have no label", "1 row has no label"),
        (1, "are outside", "1 row is outside"),
        (1, "name the same", "1 row names the same"),
        (2000, "have no label", "2,000 rows have no label"),
    ],
)
def test_a_sentence_agrees_with_its_number(number, clause, text):
    assert count_clause(number, "row", clause) == text
    assert [count_text(count, "class") for count in (1, 2)] == ["1 class", "2 classes"]


@pytest.mark.parametrize("folder", ["file", "file/below", "file/further/below"])
def test_a_file_in_the_place_of_a_folder_is_named(tmp_path, folder):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=f"{tmp_path / 'file'}: cannot be written, a file is there; change --out"):
        check_writable(str(tmp_path / folder))


def test_a_remote_file_in_the_place_of_a_folder_is_named_whole():
    with pytest.raises(UserError, match=r"^memory://bucket/file: cannot be written, a file is there"):
        with storage._write_errors("memory://bucket/file/a.csv"):
            raise NotADirectoryError


def test_a_file_that_another_process_removes_meanwhile(tmp_path, monkeypatch):
    file = tmp_path / "a.tmp"
    file.touch()

    def removed_before(path):
        file.unlink()
        raise FileNotFoundError(path)

    monkeypatch.setattr(storage.os, "remove", removed_before)
    storage.remove(str(file))
    assert not file.exists()
