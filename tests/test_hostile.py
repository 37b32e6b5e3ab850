"""Files that are made to run code, to read or write elsewhere, or to fill the memory: an answer in one line."""

from __future__ import annotations

import contextlib
import os
import pickle
import stat
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from animalclf import config as configuration
from animalclf.config import Data
from animalclf.data.prepared_set import open_prepared
from animalclf.data.run_images import prepared_root
from animalclf.data.shards import read_shard, write_shard
from animalclf.errors import UserError
from animalclf.inference import submission
from animalclf.inference.evaluate import _data_name, _slug
from animalclf.inference.prior_shift import parse_prior
from animalclf.models import weights
from animalclf.prepare import sources
from animalclf.prepare.job import _enlargement
from animalclf.prepare.sources.listing import list_images
from animalclf.prepare.task import MAX_FILE_BYTES, _contents, read_files
from animalclf.training import checkpoint, checks
from animalclf.tuning import comparison_dir
from animalclf.utils import storage
from tests.helpers import tiny_prepared
from tests.run_folders import finished_run


class Payload:
    """Makes a folder where it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (self.folder,)


@pytest.fixture
def ran(tmp_path: Path) -> Iterator[Path]:
    """A folder that exists if code of a file ran."""
    folder = tmp_path / "ran"
    yield folder
    assert not folder.exists()


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        action()
    text = str(caught.value)
    assert "\n" not in text and len(text) < 1500
    return text


# ------------------------------------------------------------------------------------------------------- code in files


def test_checkpoints_and_weights_run_no_code(tmp_path: Path, ran: Path) -> None:
    run = finished_run(tmp_path / "run", np.eye(3), np.arange(3))
    os.makedirs(tmp_path / "run" / "checkpoints")
    for content in ({"format": 1, "model": Payload(ran)}, Payload(ran)):
        torch.save(content, run.checkpoint("best"))
        assert "not a readable checkpoint" in refusal(lambda: checkpoint.load_model(run.root))
        torch.save(content, tmp_path / "weights.pt")
        text = refusal(lambda: weights.fetch("vgg16", str(tmp_path / "weights.pt")))
        assert "it holds Python objects" in text
    for path in (run.checkpoint("best"), str(tmp_path / "weights.pt")):
        Path(path).write_bytes(pickle.dumps(Payload(ran)))
    assert refusal(lambda: checkpoint.load_model(run.root))
    assert refusal(lambda: weights.fetch("vgg16", str(tmp_path / "weights.pt")))


def test_a_compressed_checkpoint_is_not_unpacked(tmp_path: Path) -> None:
    """PyTorch compresses nothing: 1 MB could become 1 GB."""
    torch.save({"format": 1, "model": {"0.weight": torch.zeros(10**6)}}, tmp_path / "plain.pt")
    with zipfile.ZipFile(tmp_path / "plain.pt") as plain:
        with zipfile.ZipFile(tmp_path / "packed.pt", "w", zipfile.ZIP_DEFLATED) as packed:
            for entry in plain.infolist():
                packed.writestr(entry.filename, plain.read(entry))
    assert checkpoint.load(str(tmp_path / "plain.pt"))
    assert "compressed" in refusal(lambda: checkpoint.load(str(tmp_path / "packed.pt")))
    assert "compressed" in refusal(lambda: weights.fetch("vgg16", str(tmp_path / "packed.pt")))


def test_pickled_objects_in_parquet_are_not_unpickled(tmp_path: Path, ran: Path) -> None:
    pytest.importorskip("ray.data")  # registers the type
    from ray.data.extensions import ArrowPythonObjectArray

    column = ArrowPythonObjectArray.from_objects([Payload(ran)])
    assert type(column.type).__module__.startswith("ray.")
    (tmp_path / "a.jpg").write_bytes(b"image")
    files = {
        "table.parquet": pa.table({"path": ["a.jpg"], "label": column}),
        "nested.parquet": pa.table({"path": ["a.jpg"], "label": pa.StructArray.from_arrays([column], ["x"])}),
        "shard.parquet": pa.table({"index": [0], "image": column}),
        "index.parquet": pa.table({"index": column, "image": pa.array([bytes(12)], pa.binary(12))}),
    }
    for name, table in files.items():
        pq.write_table(table, tmp_path / name)
        assert "type of a library" in refusal(lambda name=name: storage.read_table(str(tmp_path / name)))
        assert "type of a library" in refusal(lambda name=name: read_shard(str(tmp_path / name), 2))
    assert "type of a library" in refusal(lambda: sources.find(str(tmp_path / "table.parquet"), Data()))
    with contextlib.suppress(Exception):
        pq.read_table(tmp_path / "table.parquet").to_pandas()
    assert ran.exists()  # what happens without the check
    ran.rmdir()


def test_yaml_makes_plain_values_only(tmp_path: Path, ran: Path) -> None:
    tag = f"!!python/object/apply:os.mkdir ['{ran}']"
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"name: {tag}\n")
    assert "could not determine a constructor" in refusal(lambda: configuration.load(str(recipe)))
    assert "could not determine a constructor" in refusal(lambda: configuration.parse_sets([f"name={tag}"]))
    run = finished_run(tmp_path / "run", np.eye(3), np.arange(3))
    Path(run.url("config.yaml")).write_text(f"name: {tag}\n")
    assert refusal(run.config)
    assert refusal(lambda: parse_prior(str(recipe), ["a", "b"]))
    (tmp_path / comparison_dir.PLAN).write_text(f"trials: {tag}\n")
    assert refusal(lambda: comparison_dir.open_folder(str(tmp_path), resume=True))


def test_aliases_of_aliases_do_not_fill_the_memory(tmp_path: Path) -> None:
    """The text of 30 lines has 10^30 values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    recipe = tmp_path / "recipe.yaml"
    for text, message in (
        ("\n".join(lines), "more than 1,000,000 values"),
        ("name: &a [*a]", "an alias of itself"),
        ("name: " + "[" * 100_000, "recursion"),
        ("x: " + "y" * 5_000_000, "5,000,003 characters"),
    ):
        recipe.write_text(text)
        assert message in refusal(lambda: configuration.load(str(recipe)))


@pytest.mark.parametrize(
    "setting",
    [
        "train.epochs=0x" + "f" * 5000,
        "train.epochs=" + "9" * 100_000,
        "x" * 100_000 + "=1",
        "optim.schedule=" + "y" * 100_000,
    ],
)
def test_a_long_value_is_not_repeated_in_full(setting: str) -> None:
    refusal(lambda: configuration.load("demo", configuration.parse_sets([setting])))


def test_many_wrong_keys_are_counted() -> None:
    text = refusal(lambda: configuration.from_dict({f"wrong{number}": 1 for number in range(10_000)}))
    assert "and 9,980 more" in text


# ------------------------------------------------------------------------------------ paths and addresses that lead out


@pytest.mark.parametrize(
    "url",
    [
        "reference::http://host/refs.json",
        "reference://refs.json",
        "simplecache::https://host/a",
        "https://host/a::file:///etc",
        "ftp://host/a",
        "python://a",
    ],
)
def test_only_known_addresses_are_opened(url: str) -> None:
    """fsspec has file systems that render templates of files, which may hold code."""
    assert "not supported" in refusal(lambda: weights.check("vgg16", url))
    assert "not supported" in refusal(lambda: storage.read_bytes(url))


@pytest.mark.parametrize(
    "file", ["../shard-00000.parquet", "/etc/shard.parquet", "s3://b/x.parquet", "..", "a\\b.parquet"]
)
def test_shards_of_a_prepared_set_are_in_its_folder(tmp_path: Path, file: str) -> None:
    prepared = tiny_prepared(tmp_path / "set")
    info = storage.read_json(f"{prepared.root}/dataset.json")
    info["shards"][0]["file"] = file
    storage.write_json(f"{prepared.root}/dataset.json", info)
    assert "dataset.json is damaged (shards.0.file" in refusal(lambda: open_prepared(prepared.root))


def test_a_run_folder_names_no_server(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run", np.eye(3), np.arange(3))
    run.write_environment(prepared="https://host/set")
    assert "https://host/set" in refusal(lambda: prepared_root(run))


@pytest.mark.parametrize("slug", ["../../x", "/etc", "..", "", 5, None, ["a"]])
def test_the_trials_of_a_comparison_are_in_its_folder(tmp_path: Path, slug: object) -> None:
    trials = {"trials": [{"slug": slug, "name": "a", "seed": 0, "run": "x"}]}
    storage.write_json(str(tmp_path / comparison_dir.SUMMARY), trials)
    assert "is not the slug of a trial" in refusal(lambda: comparison_dir.read_comparison(str(tmp_path)))
    storage.write_json(str(tmp_path / comparison_dir.PLAN), trials)  # JSON is YAML
    assert "is not the slug of a trial" in refusal(lambda: comparison_dir.open_folder(str(tmp_path), resume=True))


def test_rows_of_a_table_that_lead_out_of_its_folder_have_paths_below_a_common_root(tmp_path: Path) -> None:
    for name in ("in/a.jpg", "other/b.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"image")
    (tmp_path / "in" / "t.csv").write_text("path,label\na.jpg,x\n../other/b.jpg,y\n")
    source = sources.find(str(tmp_path / "in" / "t.csv"), Data())
    assert source.root == str(tmp_path) and list(source.files["path"]) == ["in/a.jpg", "other/b.jpg"]
    (tmp_path / "in" / "t.csv").write_text("path,label\na.jpg,x\n../in/a.jpg,y\n")
    assert "1 row names the same image as an earlier row: line 3" in refusal(
        lambda: sources.find(str(tmp_path / "in" / "t.csv"), Data())
    )


def test_links_are_followed_and_those_that_lead_out_are_named(tmp_path: Path) -> None:
    for name in ("photos/cat/1.jpg", "photos/dog/2.jpg", "elsewhere/3.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"image")
    photos = tmp_path / "photos"
    assert not sources.find(str(photos), Data()).warnings
    (photos / "cat" / "same.jpg").symlink_to(photos / "cat" / "1.jpg")
    (photos / "cat" / "out.jpg").symlink_to(tmp_path / "elsewhere" / "3.jpg")
    (photos / "fox").symlink_to(tmp_path / "elsewhere")
    (photos / "cat" / "loop.jpg").symlink_to("loop.jpg")
    (photos / "cat" / "nothing.jpg").symlink_to(tmp_path / "nothing.jpg")
    (photos / "dog" / "up").symlink_to(photos)
    source = sources.find(str(photos), Data())
    paths = ["cat/1.jpg", "cat/loop.jpg", "cat/nothing.jpg", "cat/out.jpg", "cat/same.jpg", "dog/2.jpg", "fox/3.jpg"]
    assert list(source.files["path"]) == paths
    assert source.warnings == [
        f"2 links lead out of the folder, such as cat/out.jpg to {tmp_path}/elsewhere/3.jpg; what they lead to is used",
        "1 link leads to a folder that is read already, such as dog/up to the folder itself; its images are used once",
    ]
    contents = dict(zip(paths, read_files(str(photos), paths), strict=True))
    assert contents["cat/out.jpg"] == b"image" and "too many levels" in str(contents["cat/loop.jpg"])
    assert contents["cat/nothing.jpg"] == "a link to a file that does not exist"


def test_pipes_devices_and_giant_files_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    os.mkfifo(tmp_path / "cat" / "pipe.jpg")
    os.mkfifo(tmp_path / "cat" / "pipe")
    (tmp_path / "cat" / "zero.jpg").symlink_to("/dev/zero")
    with open(tmp_path / "cat" / "giant.jpg", "wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)  # sparse
    listed = list(list_images(str(tmp_path)).images["path"])
    assert listed == ["cat/giant.jpg", "cat/pipe.jpg", "cat/zero.jpg"]
    files = list_images(str(tmp_path)).images
    assert not _enlargement(files, str(tmp_path), Data())  # the plan line of prepare, which reads a few headers
    reasons = read_files(str(tmp_path), listed)
    assert "too large: 1,073,741,825 bytes" in str(reasons[0])
    assert all("not a file, but a pipe, a socket or a device" in str(reason) for reason in reasons[1:])
    assert stat.S_ISFIFO(os.stat(tmp_path / "cat" / "pipe.jpg").st_mode)


def test_a_file_that_is_too_large_by_its_listing_is_not_requested(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"image")
    files = pd.DataFrame({"path": ["giant.jpg", "a.jpg"], "bytes": [MAX_FILE_BYTES + 1, 5]})
    assert list(_contents(str(tmp_path), files)) == ["too large: 1,073,741,825 bytes (limit 1,073,741,824)", b"image"]
    assert list(_contents("memory://bucket", files[:1])) == ["too large: 1,073,741,825 bytes (limit 1,073,741,824)"]


def test_names_of_255_bytes(tmp_path: Path) -> None:
    name = "é" * 125 + ".jpg"
    (tmp_path / ("ü" * 127)).mkdir()
    (tmp_path / ("ü" * 127) / name).write_bytes(b"image")
    assert read_files(str(tmp_path), list(list_images(str(tmp_path)).images["path"])) == [b"image"]
    evaluation = f"evaluate-{_data_name('猫' * 200)}-test-{_slug('x=0.1,' * 99)}-multi-transport.parquet.01234567.tmp"
    assert len(evaluation.encode()) <= 255
    assert "is not the name of a run" in refusal(lambda: checks.check_name("a" * 255))


def test_a_shard_with_fewer_rows_than_its_footer_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = str(tmp_path / "shard.parquet")
    write_shard(shard, [(number, np.zeros((4, 4, 3), np.uint8)) for number in range(3)])
    read = pq.ParquetFile.read_row_group
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", lambda *args, **kwargs: read(*args, **kwargs).slice(1))
    assert "shard.parquet: not a readable shard of 4 px (2 of 3 rows)" in refusal(lambda: read_shard(shard, 4))


def test_a_sample_submission_decides_no_path(tmp_path: Path) -> None:
    sample = tmp_path / "sample.csv"
    pd.DataFrame({"id": ["../../etc/x", "1"], "category": "cat"}).to_csv(sample, index=False)
    assert "without an image (../../etc/x)" in refusal(lambda: submission.form_like(str(sample), ["1.jpg", "2.jpg"]))
    sample.write_text('id,category\n"1\n2.jpg",cat\n')
    assert r"without an image (1\n2.jpg)" in refusal(lambda: submission.form_like(str(sample), ["1.jpg"]))
    sample.write_text('id,"cate\ngory",more\n1.jpg,cat,\n')
    assert r"this has id, cate\ngory, more" in refusal(lambda: submission.read(str(sample)))
    sample.write_text('id,category\n"' + "x" * 10**6 + '",cat\n')
    assert refusal(lambda: submission.form_like(str(sample), ["1.jpg"]))
