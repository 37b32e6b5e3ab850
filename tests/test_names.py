"""Names with brackets, blanks, patterns, control characters, HTML and other scripts, in folders and buckets."""

import pytest
import s3_server
import s3fs

from animalclf.config import Data
from animalclf.prepare import output_dir, sources, task
from animalclf.utils import storage

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
    files, _ = sources.listing.list_files(root)
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
