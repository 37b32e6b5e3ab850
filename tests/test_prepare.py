"""The prepare job, end to end on small pictures made by code: what is stored, what is said, what is refused, and what is left after a failure."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rich.console import Console

from animalclf.config import Data
from animalclf.data.decode import decode, resize
from animalclf.data.prepared_set import Prepared, read_shard
from animalclf.errors import UserError
from animalclf.prepare import job, output_dir, task
from animalclf.prepare import manifest as tables
from animalclf.prepare.job import prepare
from animalclf.prepare.summary import summary
from animalclf.utils import storage

CONFIG = Data(stored_size=24, val=0.25)


def jpeg(seed: int, quality: int = 95) -> bytes:
    """A picture with structure at all scales, so that different seeds are no near-copies."""
    generator = np.random.default_rng(seed)
    image = np.full((30, 40, 3), 128.0)
    for side in (1, 2, 5, 10):
        image += np.kron(generator.normal(0, 25, (30 // side, 40 // side, 3)), np.ones((side, side, 1)))
    sink = io.BytesIO()
    Image.fromarray(image.clip(0, 255).astype(np.uint8)).resize((80, 60), Image.Resampling.BICUBIC).save(
        sink, "JPEG", quality=quality
    )
    return sink.getvalue()


def write_pictures(root: Path, counts: dict[str, int]) -> Path:
    seed = 0
    for label, count in counts.items():
        (root / label).mkdir(parents=True)
        for number in range(count):
            seed += 1
            (root / label / f"{number:03d}.jpg").write_bytes(jpeg(seed))
    return root


@pytest.fixture()
def pictures(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "photos", {"cat": 40, "dog [big]": 30, "élan": 10})


def images_of(prepared: Prepared) -> dict[str, np.ndarray]:
    """Path -> stored picture."""
    shards = [read_shard(path, prepared.stored_size) for path in prepared.shard_paths()]
    found = {}
    for number, row in enumerate(records(prepared).values()):
        if row["status"] == "ok":
            images, index = shards[row["shard"]]
            assert index[row["row"]] == number
            found[row["path"]] = images[row["row"]]
    return found


def records(prepared: Prepared) -> dict[str, dict[Any, Any]]:
    """Path -> manifest row."""
    return {row["path"]: dict(row) for row in prepared.manifest.to_dict("records")}


def shown(prepared: Prepared) -> str:
    sink = io.StringIO()
    Console(width=80, file=sink, color_system=None).print(summary(prepared))
    return sink.getvalue()


@pytest.mark.ray
def test_every_picture_is_stored_as_decode_and_resize_make_it(ray_local: None, pictures: Path, tmp_path: Path) -> None:
    prepared = prepare(str(pictures), str(tmp_path / "out"), CONFIG, progress=False)
    manifest = prepared.manifest
    assert prepared.classes == ["cat", "dog [big]", "élan"]
    assert list(manifest["path"]) == sorted(manifest["path"]) and (manifest["status"] == "ok").all()
    assert prepared.info["counts"] == {
        "train": {"cat": 30, "dog [big]": 23, "élan": 8},
        "val": {"cat": 10, "dog [big]": 7, "élan": 2},
        "test": {"cat": 0, "dog [big]": 0, "élan": 0},
    }
    assert set(manifest["width"]) == {80} and set(manifest["height"]) == {60}
    stored = images_of(prepared)
    assert len(stored) == 80 and sum(shard["rows"] for shard in prepared.info["shards"]) == 80
    for path, image in stored.items():
        assert np.array_equal(image, resize(decode((pictures / path).read_bytes()).image, 24))
    assert {
        name: str(manifest[name].dtype)
        for name in ("width", "height", "bytes", "group", "copy_confidence", "shard", "row")
    } == {
        "width": "int32",
        "height": "int32",
        "bytes": "int64",
        "group": "int64",
        "copy_confidence": "float32",
        "shard": "int32",
        "row": "int32",
    }
    text = shown(prepared)
    assert "dog [big]" in text and "4.0 times" in text and max(map(len, text.splitlines())) <= 80


@pytest.mark.ray
def test_bad_files_are_set_aside_with_their_reasons(
    ray_local: None, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pictures / "cat" / "000.jpg").write_bytes(b"")
    (pictures / "cat" / "001.jpg").write_bytes(jpeg(500)[:900])
    (pictures / "cat" / "notes.txt").write_text("no picture")
    (pictures / "élan" / "page.jpg").write_text("<!DOCTYPE html><html><body>not found</body></html>")
    with pytest.raises(
        UserError,
        match=r"(?s)3 of 81 files \(3.7%\) cannot be used.*data.max_unreadable=0.04.*cat/000.jpg: .*cat/001.jpg: ",
    ) as caught:
        prepare(str(pictures), str(tmp_path / "strict"), replace(CONFIG, max_unreadable=0.01), progress=False)
    assert "page.jpg" in str(caught.value) and not os.listdir(tmp_path / "strict")

    monkeypatch.setattr(job, "CHUNK_IMAGES", (1, 3))  # small chunks: one of them may hold bad files only
    prepared = prepare(str(pictures), str(tmp_path / "out"), CONFIG, progress=False)
    bad = prepared.manifest[prepared.manifest["status"] != "ok"]
    assert list(bad["path"]) == ["cat/000.jpg", "cat/001.jpg", "élan/page.jpg"]
    assert (bad["split"] == "").all() and (bad["shard"] == -1).all() and (bad["row"] == -1).all()
    assert prepared.info["bad"] == [{"path": row.path, "reason": row.status} for row in bad.itertuples()]
    assert len(images_of(prepared)) == prepared.info["ok"] == 78
    text = shown(prepared)
    assert "1 files that are no pictures, such as cat/notes.txt" in text
    assert "unreadable files, skipped: 3" in text and "cat/000.jpg: empty" in text


@pytest.mark.ray
def test_copies_share_a_group_on_one_side_and_contradictions_are_reported(
    ray_local: None, pictures: Path, tmp_path: Path
) -> None:
    shutil.copy(pictures / "cat" / "003.jpg", pictures / "cat" / "again.jpg")
    shutil.copy(pictures / "cat" / "004.jpg", pictures / "dog [big]" / "wrong.jpg")
    image = Image.open(pictures / "élan" / "002.jpg")
    image.resize((160, 120), Image.Resampling.BICUBIC).save(pictures / "élan" / "larger.jpg", quality=80)
    prepared = prepare(str(pictures), str(tmp_path / "out"), CONFIG, progress=False)
    rows = records(prepared)
    for a, b, how in (
        ("cat/003.jpg", "cat/again.jpg", "identical"),
        ("cat/004.jpg", "dog [big]/wrong.jpg", "identical"),
        ("élan/002.jpg", "élan/larger.jpg", "near"),
    ):
        first, second = rows[a], rows[b]
        assert first["group"] == second["group"] and first["split"] == second["split"]
        assert (first["copy_of"], first["copy_how"]) == ("", "")
        assert (second["copy_of"], second["copy_how"]) == (a, how)
        assert second["copy_confidence"] > 0.5 and np.isnan(first["copy_confidence"])
    assert prepared.info["copies"] == {"identical": 2, "near": 1, "groups": 3, "contradictory": 1, "across_splits": 0}
    assert storage.read_bytes(f"{prepared.root}/copies.png").startswith(b"\x89PNG")
    text = " ".join(shown(prepared).split())
    assert "cat/004.jpg (cat) = dog [big]/wrong.jpg (dog [big])" in text and "2 identical, 1 near; groups: 3" in text

    plain = prepare(str(pictures), str(tmp_path / "plain"), replace(CONFIG, near_duplicates=False), progress=False)
    assert plain.info["copies"]["near"] == 0 and plain.info["copies"]["identical"] == 2
    assert not (tmp_path / "plain" / "copies.png").exists()


@pytest.mark.ray
def test_a_rerun_returns_the_set_and_a_change_is_refused(
    ray_local: None, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = str(tmp_path / "out")
    first = prepare(str(pictures), out, CONFIG, progress=False)
    with monkeypatch.context() as patch:
        patch.setattr(job, "_read", lambda *_: pytest.fail("the pictures were read again"))
        again = prepare(str(pictures), out, CONFIG, progress=False)
    assert again.info == first.info and again.manifest.equals(first.manifest)

    (pictures / "cat" / "new.jpg").write_bytes(jpeg(900))
    (pictures / "cat" / "000.jpg").unlink()
    with pytest.raises(UserError, match=r"data.val: 0.25 -> 0.5; pictures added: 1; pictures removed: 1\).*--force"):
        prepare(str(pictures), out, replace(CONFIG, val=0.5), progress=False)
    assert storage.read_json(f"{out}/dataset.json") == first.info
    forced = prepare(str(pictures), out, CONFIG, force=True, progress=False)
    assert forced.fingerprint != first.fingerprint and "cat/new.jpg" in set(forced.manifest["path"])

    os.remove(forced.shard_paths()[0])
    with pytest.raises(UserError, match=r"damaged, shard-00000.parquet is missing"):
        prepare(str(pictures), out, CONFIG, progress=False)


@pytest.mark.ray
def test_the_same_pictures_elsewhere_get_the_same_split(
    ray_local: None, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepare(str(pictures), str(tmp_path / "a"), CONFIG, progress=False)
    shutil.move(pictures, tmp_path / "moved")
    monkeypatch.setattr(job, "CHUNK_IMAGES", (5, 7))
    second = prepare(str(tmp_path / "moved"), str(tmp_path / "b"), CONFIG, progress=False)
    assert len(second.info["shards"]) > len(first.info["shards"])
    assert first.fingerprint == second.fingerprint
    assert first.manifest.drop(columns=["shard", "row"]).equals(second.manifest.drop(columns=["shard", "row"]))
    other = prepare(str(tmp_path / "moved"), str(tmp_path / "c"), replace(CONFIG, split_seed=1), progress=False)
    assert not other.manifest["split"].equals(first.manifest["split"]) and other.fingerprint != first.fingerprint


@pytest.mark.ray
def test_an_interrupted_run_leaves_nothing_and_the_next_one_succeeds(
    ray_local: None, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    for place in ("check_readable", "add_groups", "describe"):
        with monkeypatch.context() as patch:
            patch.setattr(tables, place, interrupt)
            with pytest.raises(KeyboardInterrupt):
                prepare(str(pictures), str(out), CONFIG, progress=False)
        assert os.listdir(out) == []
    # What a killed process leaves: shards, a manifest, a half-written file; and no dataset.json
    for name in ("shard-00000.parquet", "shard-09999.parquet", "manifest.parquet", "shard-00001.parquet.0a1b.tmp"):
        (out / name).write_bytes(b"half")
    prepared = prepare(str(pictures), str(out), CONFIG, progress=False)
    expected = {"dataset.json", "manifest.parquet", *(shard["file"] for shard in prepared.info["shards"])}
    assert set(os.listdir(out)) - {"copies.png"} == expected and len(images_of(prepared)) == 80


@pytest.mark.ray
def test_what_a_killed_task_left_is_no_part_of_the_set(
    ray_local: None, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task is done again, and the file that it was about to write stays behind."""
    check = tables.check_readable

    def after_the_tasks(*arguments: object) -> None:
        (tmp_path / "out" / "shard-00000.parquet.0a1b2c3d.tmp").write_bytes(b"half")
        check(*arguments)

    monkeypatch.setattr(tables, "check_readable", after_the_tasks)
    prepared = prepare(str(pictures), str(tmp_path / "out"), CONFIG, progress=False)
    assert not [name for name in os.listdir(prepared.root) if name.endswith(".tmp")] and len(images_of(prepared)) == 80


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.ray
def test_a_task_that_cannot_write_stops_the_job_with_its_reason(
    ray_local: None, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    make_room = output_dir.make_room

    def make_room_and_block(folder: str, size: int) -> None:
        make_room(folder, size)
        for number in range(20):
            (out / f"shard-{number:05d}.parquet" / "in the way").mkdir(parents=True)

    monkeypatch.setattr(output_dir, "make_room", make_room_and_block)
    with pytest.raises(UserError, match=r"shard-000\d\d.parquet: cannot be written"):
        prepare(str(pictures), str(out), CONFIG, progress=False)
    assert not (out / "dataset.json").exists()


@pytest.mark.ray
def test_limit_takes_so_many_in_proportion(ray_local: None, pictures: Path, tmp_path: Path) -> None:
    prepared = prepare(str(pictures), str(tmp_path / "out"), CONFIG, limit=16, progress=False)
    assert prepared.manifest["label"].value_counts().to_dict() == {"cat": 8, "dog [big]": 6, "élan": 2}
    with pytest.raises(UserError, match=r"data.limit: 16 -> 0"):
        prepare(str(pictures), str(tmp_path / "out"), CONFIG, progress=False)


@pytest.mark.ray
def test_a_class_without_a_readable_picture_is_named(ray_local: None, pictures: Path, tmp_path: Path) -> None:
    (pictures / "gone").mkdir()
    (pictures / "gone" / "a.jpg").write_bytes(b"not a picture")
    with pytest.raises(UserError, match=r"(?s)no readable picture in class 'gone'.*gone/a.jpg: "):
        prepare(str(pictures), str(tmp_path / "out"), CONFIG, progress=False)


def test_other_files_in_out_are_left_alone(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.doc").write_text("mine")
    (tmp_path / "out" / "shard-00000.parquet").write_text("left over")
    with pytest.raises(UserError, match=r"holds other files \(thesis.doc\)"):
        prepare(str(pictures), str(tmp_path / "out"), CONFIG, progress=False)
    assert sorted(os.listdir(tmp_path / "out")) == ["shard-00000.parquet", "thesis.doc"]


def test_an_out_within_the_pictures_is_refused(pictures: Path) -> None:
    with pytest.raises(UserError, match="lies within the pictures"):
        prepare(str(pictures), str(pictures / "prepared"), CONFIG, progress=False)
    assert not (pictures / "prepared").exists()


def test_an_unwritable_or_full_out_is_refused_before_the_work(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "_read", lambda *_: pytest.fail("the work began"))
    (tmp_path / "file").write_text("in the way")
    for out in ("file", "file/out"):
        with pytest.raises(UserError, match="cannot be written"):
            prepare(str(pictures), str(tmp_path / out), CONFIG, progress=False)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(UserError, match="free space, choose another place, or store them smaller"):
        prepare(str(pictures), str(tmp_path / "out"), CONFIG, progress=False)


def test_a_file_that_vanishes_or_is_closed_is_a_bad_file(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pictures / "cat" / "folder.jpg").mkdir()  # reading it fails as a closed file does, also for root
    paths = ["cat/001.jpg", "cat/vanished.jpg", "cat/folder.jpg", "cat/002.jpg"]
    chunk = pd.DataFrame({"index": [5, 6, 7, 8], "path": paths, "bytes": 10, "shard": 3})
    monkeypatch.setattr(task, "READ_FILES", 1)
    (tmp_path / "out").mkdir()
    found = task.measure(chunk, task.Job(str(pictures), str(tmp_path / "out"), 16, 10**6))
    assert list(found["status"]) == ["ok", "not there any more", "cannot be read: is a directory", "ok"]
    assert list(found["shard"]) == [3, -1, -1, 3] and list(found["row"]) == [0, -1, -1, 1]
    images, index = read_shard(str(tmp_path / "out" / "shard-00003.parquet"), 16)
    assert list(index) == [5, 8] and np.array_equal(
        images[1], resize(decode((pictures / "cat" / "002.jpg").read_bytes()).image, 16)
    )


def test_a_disk_that_fails_while_pictures_are_read_is_not_taken_for_the_shards(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(root: str, paths: list[str]) -> list[bytes | str]:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(task, "read_files", fail)
    chunk = pd.DataFrame({"index": [0], "path": ["cat/001.jpg"], "bytes": 10, "shard": 0})
    found = task.measure(chunk, task.Job(str(pictures), str(tmp_path), 16, 10**6))
    assert (
        list(found) == ["failed"]
        and f"{pictures}: cannot be read" in found["failed"][0]
        and os.listdir(tmp_path) == ["photos"]
    )


def test_a_folder_that_a_node_does_not_see_is_named(tmp_path: Path) -> None:
    chunk = pd.DataFrame({"index": [0], "path": ["a.jpg"], "bytes": 1, "shard": 0})
    found = task.measure(chunk, task.Job(str(tmp_path / "absent"), str(tmp_path), 16, 10**6))
    assert list(found) == ["failed"] and "absent: not visible on node" in found["failed"][0]


@pytest.fixture()
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """A local S3 with a bucket `photos`; yields the environment that reaches it."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    variables = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    storage.filesystem("s3://photos")[0].clear_instance_cache()
    storage.filesystem("s3://photos")[0].makedirs("photos", exist_ok=True)
    yield variables
    server.stop()
    storage.filesystem("s3://photos")[0].clear_instance_cache()


@pytest.mark.ray
def test_s3_end_to_end_and_a_rerun_does_not_touch_ray(s3: dict[str, str], tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "photos", {"cat": 12, "dog [big]": 8})
    for path in sorted(root.rglob("*.jpg")):
        storage.write_bytes(f"s3://photos/set/{path.relative_to(root)}", path.read_bytes())
    # In a process of its own: the workers of the tests' Ray were started without this S3 in their environment.
    script = textwrap.dedent("""
        import json, sys
        from animalclf.config import Data
        from animalclf.prepare.job import prepare
        config = Data(stored_size=16, val=0.25)
        if "first" in sys.argv:
            import ray
            ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=128 * 2**20)
        found = prepare("s3://photos/set", "s3://photos/prepared/a", config)
        print(json.dumps({"ok": found.info["ok"], "fingerprint": found.fingerprint, "ray": "ray" in sys.modules}))
    """)
    answers = []
    for argument in ("first", "second"):
        environment = {**os.environ, **s3, "RAY_AUTH_MODE": "disabled"}
        done = subprocess.run(
            [sys.executable, "-c", script, argument], env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        answers.append(json.loads(done.stdout.splitlines()[-1]))
        assert ("preparing 20 pictures of 2 classes" in done.stderr) == (argument == "first")
    assert answers[0] == {**answers[1], "ray": True} and answers[1]["ok"] == 20 and not answers[1]["ray"]
    images, index = read_shard("s3://photos/prepared/a/shard-00000.parquet", 16)
    assert images.shape[1:] == (16, 16, 3) and set(index) <= set(range(20))


def test_a_network_that_fails_is_an_error_and_no_bad_picture(
    s3: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.write_bytes("s3://photos/set/a.jpg", jpeg(1))
    monkeypatch.setattr(task, "RETRIES", 0)
    chunk = pd.DataFrame({"index": [0, 1], "path": ["a.jpg", "vanished.jpg"], "bytes": 1000, "shard": 0})
    job = task.Job("s3://photos/set", str(tmp_path), 16, 10**6)
    assert list(task.measure(chunk, job)["status"]) == ["ok", "not there any more"]
    storage.filesystem("s3://photos")[0].clear_instance_cache()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    found = task.measure(chunk, job)
    assert list(found) == ["failed"] and "s3://photos/set/a.jpg: cannot be read after 1 attempts" in found["failed"][0]


def test_ctrl_c_waits_for_the_end_of_an_import_and_is_not_lost():
    from animalclf.utils.interrupts import delayed_interrupt

    done = []
    with pytest.raises(KeyboardInterrupt), delayed_interrupt():
        signal.raise_signal(signal.SIGINT)
        done.append("the import")
    assert done == ["the import"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with delayed_interrupt():
        done.append("another")
    assert done == ["the import", "another"]


def test_where_ctrl_c_is_ignored_it_stays_ignored():
    from animalclf.utils.interrupts import delayed_interrupt

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in a background job of a shell
    try:
        with delayed_interrupt():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
