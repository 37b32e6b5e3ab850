"""The prepare job end to end on small generated images: what is stored, reported and refused, and what a failure leaves
behind."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import shutil
import signal
import socket
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
import s3_server
from helpers import held_by_another_process, tiny_prepared
from PIL import Image
from rich.console import Console

from animalclf import config as configuration
from animalclf.config import Data
from animalclf.data.decode import decode
from animalclf.data.prepared_set import Prepared
from animalclf.data.resize import resize
from animalclf.data.shards import read_shard
from animalclf.errors import UserError
from animalclf.folder_lock import LockHolder
from animalclf.prepare import job, output_dir, sources, task
from animalclf.prepare.job import prepare
from animalclf.prepare.manifest import differences
from animalclf.prepare.summary import summary
from animalclf.utils import storage

CONFIG = Data(stored_size=24, val=0.25)


def jpeg(seed: int, quality: int = 95) -> bytes:
    """An image with structure at all scales, so that different seeds are no near-duplicates."""
    generator = np.random.default_rng(seed)
    image = np.full((30, 40, 3), 128.0)
    for side in (1, 2, 5, 10):
        image += np.kron(generator.normal(0, 25, (30 // side, 40 // side, 3)), np.ones((side, side, 1)))
    file = io.BytesIO()
    Image.fromarray(image.clip(0, 255).astype(np.uint8)).resize((80, 60), Image.Resampling.BICUBIC).save(
        file, "JPEG", quality=quality
    )
    return file.getvalue()


def write_photos(root: Path, counts: dict[str, int]) -> Path:
    seed = 0
    for label, count in counts.items():
        (root / label).mkdir(parents=True)
        for number in range(count):
            seed += 1
            (root / label / f"{number:03d}.jpg").write_bytes(jpeg(seed))
    return root


@pytest.fixture()
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos", {"cat": 40, "dog [big]": 30, "élan": 10})


def images_of(prepared: Prepared) -> dict[str, np.ndarray]:
    """Stored image by path."""
    shards = [read_shard(path, prepared.stored_size) for path in prepared.shard_paths()]
    stored = {}
    for number, row in enumerate(records(prepared).values()):
        if row["status"] == "ok":
            images, index = shards[row["shard"]]
            assert index[row["row"]] == number
            stored[row["path"]] = images[row["row"]]
    return stored


def records(prepared: Prepared) -> dict[str, dict[Any, Any]]:
    """Manifest row by path."""
    return {row["path"]: dict(row) for row in prepared.manifest.to_dict("records")}


def shown(prepared: Prepared) -> str:
    sink = io.StringIO()
    Console(width=80, file=sink, color_system=None).print(summary(prepared))
    return sink.getvalue()


@pytest.mark.ray
def test_images_are_stored_as_decode_and_resize_return_them(ray_local: None, photos: Path, tmp_path: Path) -> None:
    prepared = prepare(str(photos), str(tmp_path / "out"), CONFIG, progress=False)
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
        assert np.array_equal(image, resize(decode((photos / path).read_bytes()).image, 24))
    assert {
        name: str(manifest[name].dtype)
        for name in ("width", "height", "bytes", "group", "duplicate_confidence", "shard", "row")
    } == {
        "width": "int32",
        "height": "int32",
        "bytes": "int64",
        "group": "int64",
        "duplicate_confidence": "float32",
        "shard": "int32",
        "row": "int32",
    }
    text = shown(prepared)
    assert "dog [big]" in text and "4.0 times" in text and max(map(len, text.splitlines())) <= 80


@pytest.mark.ray
def test_unreadable_files_are_skipped_with_their_reasons(
    ray_local: None, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "cat" / "000.jpg").write_bytes(b"")
    (photos / "cat" / "001.jpg").write_bytes(jpeg(500)[:900])
    (photos / "cat" / "notes.txt").write_text("no image")
    (photos / "élan" / "page.jpg").write_text("<!DOCTYPE html><html><body>not found</body></html>")
    with pytest.raises(
        UserError,
        match=r"(?s)3 of 81 files \(3.7 %\) are unreadable.*data.max_unreadable=0.04.*cat/000.jpg: .*cat/001.jpg: ",
    ) as caught:
        prepare(str(photos), str(tmp_path / "strict"), replace(CONFIG, max_unreadable=0.01), progress=False)
    assert "page.jpg" in str(caught.value) and not (tmp_path / "strict").exists()

    monkeypatch.setattr(job, "MIN_CHUNK_IMAGES", 1)
    monkeypatch.setattr(job, "MAX_CHUNK_IMAGES", 3)  # a chunk may have unreadable files only
    synced: list[list[str]] = []
    monkeypatch.setattr(job.storage, "sync_files", lambda paths: synced.append(sorted(map(os.path.basename, paths))))
    prepared = prepare(str(photos), str(tmp_path / "out"), CONFIG, progress=False)
    shards = sorted(shard["file"] for shard in prepared.info["shards"])
    assert synced[-1] == shards == sorted(itertools.chain.from_iterable(synced[:-1]))  # as written, and all at the end
    unreadable = prepared.manifest[prepared.manifest["status"] != "ok"]
    assert list(unreadable["path"]) == ["cat/000.jpg", "cat/001.jpg", "élan/page.jpg"]
    assert (unreadable["split"] == "").all() and (unreadable["shard"] == -1).all() and (unreadable["row"] == -1).all()
    assert prepared.info["unreadable"] == [{"path": row.path, "reason": row.status} for row in unreadable.itertuples()]
    assert len(images_of(prepared)) == prepared.info["ok"] == 78
    text = shown(prepared)
    assert "skipped: 1 file that is not an image (.txt: 1), such as cat/notes.txt" in text.replace("\n", " ")
    assert "unreadable files, skipped: 3" in text and "cat/000.jpg: empty" in text


@pytest.mark.ray
def test_duplicates_share_a_group_and_a_split_and_contradictions_are_reported(
    ray_local: None, photos: Path, tmp_path: Path
) -> None:
    shutil.copy(photos / "cat" / "003.jpg", photos / "cat" / "again.jpg")
    shutil.copy(photos / "cat" / "004.jpg", photos / "dog [big]" / "wrong.jpg")
    image = Image.open(photos / "élan" / "002.jpg")
    image.resize((160, 120), Image.Resampling.BICUBIC).save(photos / "élan" / "larger.jpg", quality=80)
    prepared = prepare(str(photos), str(tmp_path / "out"), CONFIG, progress=False)
    rows = records(prepared)
    for a, b, how in (
        ("cat/003.jpg", "cat/again.jpg", "identical"),
        ("cat/004.jpg", "dog [big]/wrong.jpg", "identical"),
        ("élan/002.jpg", "élan/larger.jpg", "near"),
    ):
        first, second = rows[a], rows[b]
        assert first["group"] == second["group"] and first["split"] == second["split"]
        assert (first["duplicate_of"], first["duplicate_kind"]) == ("", "")
        assert (second["duplicate_of"], second["duplicate_kind"]) == (a, how)
        assert second["duplicate_confidence"] > 0.5 and np.isnan(first["duplicate_confidence"])
    assert prepared.info["duplicates"] == {
        "identical": 2,
        "near": 1,
        "groups": 3,
        "contradictory": 1,
        "across_splits": 0,
    }
    assert storage.read_bytes(f"{prepared.root}/near_duplicates.png").startswith(b"\x89PNG")
    text = " ".join(shown(prepared).split())
    assert (
        "cat/004.jpg (cat) = dog [big]/wrong.jpg (dog [big])" in text
        and "identical: 2, near-duplicates: 1, groups: 3" in text
    )

    plain = prepare(str(photos), str(tmp_path / "plain"), replace(CONFIG, near_duplicates=False), progress=False)
    assert plain.info["duplicates"]["near"] == 0 and plain.info["duplicates"]["identical"] == 2
    assert not (tmp_path / "plain" / "near_duplicates.png").exists()


@pytest.mark.ray
def test_a_rerun_returns_the_set_and_a_change_is_refused(
    ray_local: None, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = str(tmp_path / "out")
    first = prepare(str(photos), out, CONFIG, progress=False)
    with monkeypatch.context() as patch:
        patch.setattr(job, "measure_all", lambda *_: pytest.fail("the images were read again"))
        again = prepare(str(photos), out, CONFIG, progress=False)
    assert again.info == first.info and again.manifest.equals(first.manifest)

    (photos / "cat" / "new.jpg").write_bytes(jpeg(900))
    (photos / "cat" / "000.jpg").unlink()
    with pytest.raises(UserError, match=r"data.val: 0.25 -> 0.5; images added: 1; images removed: 1\).*--force"):
        prepare(str(photos), out, replace(CONFIG, val=0.5), progress=False)
    assert storage.read_json(f"{out}/dataset.json") == first.info
    forced = prepare(str(photos), out, CONFIG, force=True, progress=False)
    assert forced.fingerprint != first.fingerprint and "cat/new.jpg" in set(forced.manifest["path"])

    os.remove(forced.shard_paths()[0])
    with pytest.raises(UserError, match=r"damaged, shard-00000.parquet is missing"):
        prepare(str(photos), out, CONFIG, progress=False)


@pytest.mark.ray
def test_the_same_images_elsewhere_get_the_same_split(
    ray_local: None, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepare(str(photos), str(tmp_path / "a"), CONFIG, progress=False)
    shutil.move(photos, tmp_path / "moved")
    monkeypatch.setattr(job, "MIN_CHUNK_IMAGES", 5)
    monkeypatch.setattr(job, "MAX_CHUNK_IMAGES", 7)
    second = prepare(str(tmp_path / "moved"), str(tmp_path / "b"), CONFIG, progress=False)
    assert len(second.info["shards"]) > len(first.info["shards"])
    assert first.fingerprint == second.fingerprint
    assert first.manifest.drop(columns=["shard", "row"]).equals(second.manifest.drop(columns=["shard", "row"]))
    other = prepare(str(tmp_path / "moved"), str(tmp_path / "c"), replace(CONFIG, split_seed=1), progress=False)
    assert not other.manifest["split"].equals(first.manifest["split"]) and other.fingerprint != first.fingerprint


@pytest.mark.ray
def test_an_interrupted_run_leaves_nothing_and_the_next_one_succeeds(
    ray_local: None, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    for function in ("check_readable", "add_groups", "describe"):
        with monkeypatch.context() as patch:
            patch.setattr(job, function, interrupt)
            with pytest.raises(KeyboardInterrupt):
                prepare(str(photos), str(out), CONFIG, progress=False)
        assert not out.exists()
    # A killed process leaves shards, a manifest, a half-written file and its lock, but no dataset.json.
    out.mkdir()
    lock = LockHolder(socket.gethostname(), 2**22 + 1, 0.0)  # no process has this number
    (out / "running.json").write_text(json.dumps(lock.to_dict()))
    for name in ("shard-00000.parquet", "shard-09999.parquet", "manifest.parquet", "shard-00001.parquet.0a1b.tmp"):
        (out / name).write_bytes(b"half")
    prepared = prepare(str(photos), str(out), CONFIG, progress=False)
    expected = {"dataset.json", "manifest.parquet", *(shard["file"] for shard in prepared.info["shards"])}
    assert set(os.listdir(out)) - {"near_duplicates.png"} == expected and len(images_of(prepared)) == 80


@pytest.mark.ray
def test_a_killed_tasks_temporary_file_is_removed(
    ray_local: None, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray retries the task; the temporary file of the first attempt remains."""
    check = job.check_readable

    def leave_file_and_check(*arguments: object) -> None:
        (tmp_path / "out" / "shard-00000.parquet.0a1b2c3d.tmp").write_bytes(b"half")
        check(*arguments)

    monkeypatch.setattr(job, "check_readable", leave_file_and_check)
    prepared = prepare(str(photos), str(tmp_path / "out"), CONFIG, progress=False)
    assert not [name for name in os.listdir(prepared.root) if name.endswith(".tmp")] and len(images_of(prepared)) == 80


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.ray
def test_a_task_that_cannot_write_stops_the_job_with_its_reason(
    ray_local: None, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    reserve = output_dir.reserve

    def reserve_and_block(folder: str, size: int) -> None:
        reserve(folder, size)
        for number in range(20):
            (out / f"shard-{number:05d}.parquet" / "in the way").mkdir(parents=True)

    monkeypatch.setattr(output_dir, "reserve", reserve_and_block)
    with pytest.raises(UserError, match=r"shard-000\d\d.parquet: cannot be written"):
        prepare(str(photos), str(out), CONFIG, progress=False)
    assert not (out / "dataset.json").exists()


@pytest.mark.ray
def test_limit_samples_in_proportion_to_the_classes(ray_local: None, photos: Path, tmp_path: Path) -> None:
    prepared = prepare(str(photos), str(tmp_path / "out"), CONFIG, limit=16, progress=False)
    assert prepared.manifest["label"].value_counts().to_dict() == {"cat": 8, "dog [big]": 6, "élan": 2}
    with pytest.raises(UserError, match=r"data.limit: 16 -> 0"):
        prepare(str(photos), str(tmp_path / "out"), CONFIG, progress=False)


@pytest.mark.ray
def test_a_class_without_a_readable_image_is_named(ray_local: None, photos: Path, tmp_path: Path) -> None:
    (photos / "gone").mkdir()
    (photos / "gone" / "a.jpg").write_bytes(b"not an image")
    with pytest.raises(UserError, match=r"(?s)no readable image in class 'gone'.*gone/a.jpg: "):
        prepare(str(photos), str(tmp_path / "out"), CONFIG, progress=False)


def test_other_files_in_out_are_not_removed(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.doc").write_text("mine")
    (tmp_path / "out" / "shard-00000.parquet").write_text("of an earlier run")
    with pytest.raises(UserError, match=r"holds other files \(thesis.doc\)"):
        prepare(str(photos), str(tmp_path / "out"), CONFIG, progress=False)
    assert sorted(os.listdir(tmp_path / "out")) == ["shard-00000.parquet", "thesis.doc"]


def test_an_out_inside_the_image_folder_is_refused(photos: Path) -> None:
    with pytest.raises(UserError, match="is inside the image folder"):
        prepare(str(photos), str(photos / "prepared"), CONFIG, progress=False)
    assert not (photos / "prepared").exists()


def test_what_another_command_has_written_meanwhile_is_kept(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with held_by_another_process(tmp_path / "out") as other:

        def wait(seconds: float) -> None:
            (tmp_path / "out" / "submission.csv").touch()
            other.communicate(timeout=30)

        monkeypatch.setattr(output_dir, "time", SimpleNamespace(sleep=wait))
        with pytest.raises(UserError, match=r"holds other files \(submission.csv\)"):
            prepare(str(photos), str(tmp_path / "out"), CONFIG, progress=False)
    assert os.listdir(tmp_path / "out") == ["submission.csv"]


@pytest.mark.parametrize("finished", [True, False])
def test_a_process_that_prepares_in_the_same_folder_is_waited_for(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], finished: bool
) -> None:
    """If it ends with the same set, nothing is left to prepare."""
    out, existing = str(tmp_path / "out"), []
    monkeypatch.setattr(job, "_open_existing", lambda *_: existing[0] if existing else None)
    monkeypatch.setattr(job, "measure_all", interrupt)
    with held_by_another_process(out) as other:

        def wait(seconds: float) -> None:
            existing.extend(["the set of the other process"] if finished else [])
            other.communicate(timeout=30)

        monkeypatch.setattr(output_dir, "time", SimpleNamespace(sleep=wait))
        with pytest.raises(KeyboardInterrupt) if not finished else contextlib.nullcontext():
            assert prepare(str(photos), out, CONFIG, progress=False) == "the set of the other process"
    assert f"{out}: process {other.pid} on " in (printed := capsys.readouterr().err) and "waiting for it" in printed
    assert not os.path.exists(out)


def test_an_unwritable_or_full_out_is_refused_before_the_work(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "measure_all", lambda *_: pytest.fail("the work began"))
    (tmp_path / "file").write_text("in the way")
    for out in ("file", "file/out"):
        with pytest.raises(UserError, match="cannot be written"):
            prepare(str(photos), str(tmp_path / out), CONFIG, progress=False)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(UserError, match="free space, choose another folder, or store smaller images"):
        prepare(str(photos), str(tmp_path / "out"), CONFIG, progress=False)
    assert not (tmp_path / "out").exists()


def test_a_file_that_vanishes_or_is_not_permitted_is_unreadable(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "cat" / "folder.jpg").mkdir()  # reading it fails as a file without permission does, also for root
    paths = ["cat/001.jpg", "cat/vanished.jpg", "cat/folder.jpg", "cat/002.jpg"]
    chunk = pd.DataFrame({"index": [5, 6, 7, 8], "path": paths, "bytes": 10, "shard": 3})
    monkeypatch.setattr(task, "READ_FILES", 1)
    (tmp_path / "out").mkdir()
    columns = task.measure(chunk, task.Job(str(photos), str(tmp_path / "out"), 16, 10**6))
    assert list(columns["status"]) == ["ok", "file not found", "cannot be read: is a directory", "ok"]
    assert list(columns["shard"]) == [3, -1, -1, 3] and list(columns["row"]) == [0, -1, -1, 1]
    images, index = read_shard(str(tmp_path / "out" / "shard-00003.parquet"), 16)
    assert list(index) == [5, 8] and np.array_equal(
        images[1], resize(decode((photos / "cat" / "002.jpg").read_bytes()).image, 16)
    )


def test_the_signature_does_not_depend_on_how_the_image_is_stored(photos: Path, tmp_path: Path) -> None:
    chunk = pd.DataFrame({"index": [0, 1], "path": ["cat/001.jpg", "cat/002.jpg"], "bytes": 10, "shard": 0})
    jobs = [
        task.Job(str(photos), str(tmp_path), size, 10**6, resize=mode)
        for size, mode in ((16, "squash"), (128, "squash"), (96, "keep"))
    ]
    first, *others = (np.stack(list(task.measure(chunk, job)["signature"])) for job in jobs)
    assert all(np.array_equal(first, other) for other in others), "the near-duplicates, and so the splits, would differ"


def test_an_io_error_of_the_image_folder_is_not_reported_as_the_shards(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(root: str, paths: list[str]) -> list[bytes | str]:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(task, "read_files", fail)
    chunk = pd.DataFrame({"index": [0], "path": ["cat/001.jpg"], "bytes": 10, "shard": 0})
    columns = task.measure(chunk, task.Job(str(photos), str(tmp_path), 16, 10**6))
    assert (
        list(columns) == ["error"]
        and f"{photos}: cannot be read" in columns["error"][0]
        and os.listdir(tmp_path) == ["photos"]
    )


def test_a_folder_that_is_not_visible_on_a_node_is_named(tmp_path: Path) -> None:
    chunk = pd.DataFrame({"index": [0], "path": ["a.jpg"], "bytes": 1, "shard": 0})
    columns = task.measure(chunk, task.Job(str(tmp_path / "absent"), str(tmp_path), 16, 10**6))
    assert list(columns) == ["error"] and "absent: not visible on node" in columns["error"][0]


@pytest.fixture()
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """A local S3 with a bucket `photos`; yields the environment that reaches it."""
    with s3_server.running() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        storage.filesystem("s3://photos")[0].clear_instance_cache()
        storage.filesystem("s3://photos")[0].makedirs("photos", exist_ok=True)
        yield server.environment
    storage.filesystem("s3://photos")[0].clear_instance_cache()


@pytest.mark.ray
def test_s3_end_to_end_and_a_rerun_does_not_touch_ray(s3: dict[str, str], tmp_path: Path) -> None:
    root = write_photos(tmp_path / "photos", {"cat": 12, "dog [big]": 8})
    for path in sorted(root.rglob("*.jpg")):
        storage.write_bytes(f"s3://photos/set/{path.relative_to(root)}", path.read_bytes())
    # In a subprocess: the workers of the tests' Ray were started without this S3 in their environment.
    script = textwrap.dedent("""
        import json, sys
        from animalclf.config import Data
        from animalclf.prepare.job import prepare
        config = Data(stored_size=16, val=0.25)
        if "first" in sys.argv:
            from animalclf.cluster import start_local
            start_local(2, object_store_memory=128 * 2**20)
        prepared = prepare("s3://photos/set", "s3://photos/prepared/a", config)
        print(json.dumps({"ok": prepared.info["ok"], "fingerprint": prepared.fingerprint, "ray": "ray" in sys.modules}))
    """)
    answers = []
    for argument in ("first", "second"):
        environment = {**os.environ, **s3, "RAY_AUTH_MODE": "disabled"}
        process = subprocess.run(
            [sys.executable, "-c", script, argument], env=environment, capture_output=True, text=True, timeout=300
        )
        assert process.returncode == 0, process.stderr
        answers.append(json.loads(process.stdout.splitlines()[-1]))
        assert ("preparing 20 images in 2 classes" in process.stderr) == (argument == "first")
    assert answers[0] == {**answers[1], "ray": True} and answers[1]["ok"] == 20 and not answers[1]["ray"]
    images, index = read_shard("s3://photos/prepared/a/shard-00000.parquet", 16)
    assert images.shape[1:] == (16, 16, 3) and set(index) <= set(range(20))


def test_a_network_failure_is_an_error_and_no_unreadable_image(
    s3: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.write_bytes("s3://photos/set/a.jpg", jpeg(1))
    monkeypatch.setattr(task, "RETRIES", 0)
    chunk = pd.DataFrame({"index": [0, 1], "path": ["a.jpg", "vanished.jpg"], "bytes": 1000, "shard": 0})
    job = task.Job("s3://photos/set", str(tmp_path), 16, 10**6)
    assert list(task.measure(chunk, job)["status"]) == ["ok", "file not found"]
    storage.filesystem("s3://photos")[0].clear_instance_cache()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    columns = task.measure(chunk, job)
    assert (
        list(columns) == ["error"] and "s3://photos/set/a.jpg: cannot be read after 1 attempts" in columns["error"][0]
    )


def test_ctrl_c_waits_for_the_end_of_an_import_and_is_not_lost():
    from animalclf.utils.interrupts import delayed_interrupt

    ran = []
    with pytest.raises(KeyboardInterrupt), delayed_interrupt():
        signal.raise_signal(signal.SIGINT)
        ran.append("the import")
    assert ran == ["the import"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with delayed_interrupt():
        ran.append("another")
    assert ran == ["the import", "another"]


def test_where_ctrl_c_is_ignored_it_stays_ignored():
    from animalclf.utils.interrupts import delayed_interrupt

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in a background job of a shell
    try:
        with delayed_interrupt():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_changed_split_column_is_named_as_the_difference_of_a_prepared_set(tmp_path: Path) -> None:
    prepared = tiny_prepared(tmp_path / "set", (4, 4, 4))
    manifest = prepared.manifest.assign(bytes=1)
    given_splits = np.where(manifest["split"] == "train", "val", "train")
    files = manifest.assign(split=given_splits)[["path", "label", "bytes", "split"]]
    source = sources.Source(str(prepared.info["source"]), files, "table")
    text = differences(
        replace(prepared, manifest=manifest), source, configuration.data_from_dict(prepared.info["config"])
    )
    assert text == "given splits: none -> train, val; images given another split: 12"


def test_the_imbalance_of_equal_classes_is_not_shown(tmp_path: Path) -> None:
    for name, counts in (("equal", (8, 8)), ("unequal", (16, 8))):
        prepared = tiny_prepared(tmp_path / name, counts)
        images = {
            "width": 40,
            "height": 40,
            "note": "",
            "group": range(sum(counts)),
            "duplicate_kind": "",
            "sha256": "",
        }
        classes = dict(zip(prepared.classes, counts, strict=True))
        duplicates = {"identical": 0, "near": 0, "groups": 0, "contradictory": 0, "across_splits": 0}
        info = {"counts": {"train": classes, "val": dict.fromkeys(classes, 0), "test": dict.fromkeys(classes, 0)}}
        totals = {"ok": sum(counts), "images": sum(counts), "duplicates": duplicates, "seconds": 1.0, "unreadable": []}
        prepared = replace(
            prepared, info={**prepared.info, **info, **totals}, manifest=prepared.manifest.assign(**images)
        )
        assert ("the largest class has" in shown(prepared)) == (name == "unequal")
