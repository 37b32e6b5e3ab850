"""Properties that hold for any input, checked by hypothesis: 200 examples each, 10,000 by `make test-long`."""

from __future__ import annotations

import csv
import io
import os
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml
from hypothesis import assume, example, given
from hypothesis import strategies as st

from animalclf import config as configuration
from animalclf.config import Augment, Data
from animalclf.config.keys import RENAMED, Key, keys
from animalclf.data.augment import numpy_form, torch_form
from animalclf.data.sampler import SamplingPlan
from animalclf.errors import UserError
from animalclf.inference import submission
from animalclf.inference.submission import natural_key
from animalclf.prepare import sources
from animalclf.prepare.sources.listing import is_hidden, list_images
from animalclf.prepare.sources.table_file import SEPARATORS
from animalclf.prepare.split import split
from animalclf.prepare.task import read_files
from animalclf.utils import storage
from animalclf.utils.file_names import as_text, is_text

# --------------------------------------------------------------------------------------------------------------- split


@st.composite
def manifests(draw: st.DrawFn) -> pd.DataFrame:
    """Readable and unreadable images of up to 5 classes in groups of duplicates, which may cross classes. Each class
    has a few single images: without them almost all manifests would be refused, as classes too small to split."""
    rows = draw(
        st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 40), st.booleans()), min_size=1, max_size=40)
    )
    singles = draw(st.integers(2, 5))
    rows += [
        (label, 100 + 10 * number + single, True)
        for number, label in enumerate(sorted({label for label, _, _ in rows}))
        for single in range(singles)
    ]
    return pd.DataFrame(
        {
            "label": [label for label, _, _ in rows],
            "group": [group if ok else 1000 + number for number, (_, group, ok) in enumerate(rows)],
            "status": ["ok" if ok else "damaged" for _, _, ok in rows],
            "split": "",
            "sha256": [f"{number:064x}" for number in range(len(rows))],
        }
    )


@st.composite
def split_settings(draw: st.DrawFn) -> Data:
    seed = draw(st.integers(0, 2**40))
    if draw(st.booleans()):
        folds = draw(st.integers(2, 5))
        return Data(folds=folds, fold=draw(st.integers(0, folds - 1)), split_seed=seed)
    return Data(val=draw(st.floats(0, 0.5)), test=draw(st.floats(0, 0.4)), split_seed=seed)


def split_of(table: pd.DataFrame, settings: Data) -> np.ndarray:
    assume((table["status"] == "ok").any())
    try:
        return split(table, settings)
    except UserError:
        assume(False)
        raise


@given(manifests(), split_settings())
def test_a_split_keeps_groups_whole_and_the_fractions_of_every_class(table: pd.DataFrame, settings: Data) -> None:
    result = split_of(table, settings)
    ok = (table["status"] == "ok").to_numpy()
    assert (result[~ok] == "").all() and set(result[ok]) <= {"train", "val", "test"}
    assert (table[ok].assign(split=result[ok]).groupby("group")["split"].nunique() == 1).all()
    fractions = {"val": 1 / settings.folds if settings.folds else settings.val, "test": settings.test}
    group_label = table[ok].groupby("group")["label"].agg(lambda labels: Counter(sorted(labels)).most_common(1)[0][0])
    stratum = table["group"].map(group_label)
    for name in stratum[ok].unique():
        members = ok & (stratum == name).to_numpy()
        largest = table[members].groupby("group").size().max()
        for part, fraction in fractions.items():
            assert abs((result[members] == part).sum() - fraction * members.sum()) <= largest + 1, (name, part)


@given(manifests(), split_settings(), st.integers(0, 2**32))
def test_a_split_does_not_depend_on_the_order_of_the_listing(table: pd.DataFrame, settings: Data, seed: int) -> None:
    result = split_of(table, settings)
    order = np.random.default_rng(seed).permutation(len(table))
    assert list(split(table.iloc[order].reset_index(drop=True), settings)) == list(result[order])


# -------------------------------------------------------------------------------------------------------- sampling plan


@given(
    rows=st.integers(1, 300),
    classes=st.integers(1, 6),
    batch_size=st.integers(1, 320),
    world_size=st.integers(1, 9),
    epoch=st.integers(0, 1000),
    seed=st.integers(0, 2**40),
    balance=st.sampled_from(["none", "class_weights", "sampling"]),
)
def test_every_row_is_seen_once_an_epoch_in_equal_steps_on_all_ranks(
    rows, classes, batch_size, world_size, epoch, seed, balance
) -> None:
    labels = np.random.default_rng(seed).integers(0, classes, 2 * rows)
    train, val = np.arange(rows) * 2, np.arange(rows) * 2 + 1
    plan = SamplingPlan({"train": train, "val": val}, labels, batch_size, balance, Augment(), 32, seed)
    for phase, expected in (("train", train), ("val", val)):
        ranks = [plan.batch_rows(phase, epoch, rank, world_size) for rank in range(world_size)]
        assert {len(batches) for batches in ranks} == {plan.steps(phase)}
        sizes = np.array([[len(batch) for batch in batches] for batches in ranks])
        assert np.array_equal(sizes.sum(0), plan.step_sizes(phase)) and sizes.sum(0).max() <= batch_size
        assert np.ptp(sizes.sum(0)) <= 1 and np.ptp(sizes, axis=0).max() <= 1
        seen_rows = np.concatenate([batch for batches in ranks for batch in batches])
        if phase == "train" and balance == "sampling":
            counts = np.bincount(labels[seen_rows], minlength=classes)[np.unique(labels[train])]
            assert np.ptp(counts) <= 1 and len(seen_rows) == rows
        else:
            assert sorted(seen_rows) == sorted(expected)
        together = [np.concatenate(step) for step in zip(*ranks, strict=True)]
        alone = plan.batch_rows(phase, epoch, 0, 1)
        assert all(np.array_equal(a, b) for a, b in zip(together, alone, strict=True))


# -------------------------------------------------------------------------------------------------------- configuration

PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(
        ["auto", "none", "jpeg", "data", "device", "bf16", "cosine", "adamw", "loss", "1e-3", ".inf", "off"]
    ),
)
VALUES = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)
NAMES = st.sampled_from(
    [*keys(), "data", "model", "augment", "optim.lrr", "data.near_copies", "x.y", "seed.x", "", "."]
)


def usual_values(key: Key) -> st.SearchStrategy[tuple[str, object]]:
    """Values of the key's type and range, most of which are accepted."""
    low, high = (
        next((key.limits[name] for name in pair if name in key.limits), None) for pair in (("gt", "ge"), ("lt", "le"))
    )
    if key.choices:
        values: st.SearchStrategy[object] = st.sampled_from(key.choices)
    elif isinstance(key.default, bool):
        values = st.booleans()
    elif isinstance(key.default, int):
        values = st.integers(None if low is None else int(low), None if high is None else int(high))
    elif isinstance(key.default, float):
        values = st.floats(low, high)
    else:
        values = st.text(max_size=8) if isinstance(key.default, str) else st.just(key.default)
    return st.tuples(st.just(key.name), values)


USUAL = st.lists(st.sampled_from(list(keys().values())).flatmap(usual_values), max_size=4).map(dict)


def is_named(error: str, settings: Iterable[str]) -> bool:
    """Whether an error of one line names one of the keys, or the group where its unknown part begins."""
    names = [name for key in settings for name in (key, RENAMED.get(key, key), key.partition(".")[0])]
    return "\n" not in error and any(name in error for name in names)


@given(st.dictionaries(NAMES, VALUES, max_size=4) | USUAL)
@example({"name": {"\n": None}})
@example({"data": {"\n": 1}, "data.\n": 2})
def test_a_setting_works_and_survives_yaml_or_is_refused_by_name(settings) -> None:
    try:
        config = configuration.load("demo", settings)
    except UserError as error:
        assert is_named(str(error), settings)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "recipe.yaml")
        path.write_text(configuration.to_yaml(config), encoding="utf-8")
        again = configuration.load(str(path))
    assert again == config and configuration.to_yaml(again) == configuration.to_yaml(config)


@given(NAMES, st.text(max_size=20) | VALUES.map(lambda value: yaml.safe_dump(value, default_flow_style=True)))
def test_any_text_after_set_is_a_value_or_is_refused_in_one_line(key, text) -> None:
    try:
        configuration.load("demo", configuration.parse_sets([f"{key}={text}"]))
    except UserError as error:
        # Without the text, which may contain the key; or with it, because a letter may be a part of the key.
        assert is_named(str(error).replace(text, ""), [key]) or (key not in text and is_named(str(error), [key]))


# ----------------------------------------------------------------------------------------------------------- submission

IDS = st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="/"), min_size=1, max_size=8)


@given(st.lists(IDS, min_size=1, max_size=12, unique=True), st.integers(0, 2**32), st.booleans())
def test_a_submission_has_every_id_once_in_the_order_of_the_sample(ids, seed, with_sample) -> None:
    generator = np.random.default_rng(seed)
    predicted = [("cat", "dog, of it")[number] for number in generator.integers(0, 2, len(ids))]
    order = [ids[number] for number in generator.permutation(len(ids))] if with_sample else sorted(ids, key=natural_key)
    header = ["image id", "class, of it"] if with_sample else ["id", "category"]
    with tempfile.TemporaryDirectory() as folder:
        sample, out = os.path.join(folder, "sample.csv"), os.path.join(folder, "submission.csv")
        pd.DataFrame({header[0]: order, header[1]: "cat"}).to_csv(sample, index=False)
        form = submission.form_like(sample if with_sample else None, ids, ["cat", "dog, of it"])
        submission.write_form(out, form, pd.DataFrame({"predicted": predicted}))
        table = submission.read(out)
    assert list(table.columns) == header and list(table.iloc[:, 0]) == order
    assert dict(zip(table.iloc[:, 0], table.iloc[:, 1], strict=True)) == dict(zip(ids, predicted, strict=True))


# --------------------------------------------------------------------------------------------------------- augmentation


@st.composite
def augmentations(draw: st.DrawFn) -> Augment:
    unit = st.floats(0, 1)
    pair = st.tuples(st.floats(0.3, 2), st.floats(0.3, 2)).map(lambda values: tuple(sorted(values)))
    crop = st.tuples(st.floats(0.1, 1), st.floats(0.1, 1)).map(lambda values: tuple(sorted(values)))
    return Augment(
        rotation=draw(st.floats(0, 180)),
        shift=draw(st.floats(0, 0.9)),
        zoom=draw(pair),
        flip=draw(st.booleans()),
        crop=draw(crop),
        brightness=draw(unit),
        contrast=draw(unit),
        saturation=draw(unit),
        trivial=draw(st.booleans()),
        erase=draw(unit),
        blur=draw(st.sampled_from([0, 0, 0.5, 3])),
    )


@given(augmentations(), st.integers(0, 2**40), st.integers(0, 200), st.sampled_from([(32, 32), (40, 32), (33, 32)]))
def test_the_numpy_and_torch_forms_of_augmentation_agree(spec, seed, epoch, sizes) -> None:
    stored, size = sizes
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:stored, :stored] / stored
    waves = np.stack([np.sin(a * x + b * y + c) for a, b, c in generator.uniform(0, 5, (6, 3))], -1)
    images = (127.5 + 127.5 * waves).astype(np.uint8).reshape(stored, stored, 2, 3).transpose(2, 0, 1, 3).copy()
    index = generator.integers(0, 2**40, 2)
    on_host = numpy_form.augment_batch(images, index, spec, seed, epoch, size).astype(int)
    on_device = torch_form.augment_batch(torch.from_numpy(images), index, spec, seed, epoch, size).numpy()
    assert on_host.shape == on_device.shape == (2, size, size, 3)
    difference = np.abs(on_host - on_device)
    assert difference.mean() < 2 and np.quantile(difference, 0.98) <= 16


# --------------------------------------------------------------------------------------------------------------- names

# What a Linux file system allows: any bytes but "/" and NUL, at most 255 of them.
FILE_NAMES = st.one_of(
    st.text(st.characters(exclude_categories=("Cs",), exclude_characters="/\0"), min_size=1, max_size=20),
    st.binary(min_size=1, max_size=20).map(lambda raw: os.fsdecode(raw.replace(b"/", b"_").replace(b"\0", b"_"))),
    st.sampled_from(
        ["a" * 240, "Ä" * 100, "e\u0301", "\u202f", "a b", "#", "%20", "[old]", "{x}", "*", "~", "-", "a,b", "'\""]
    ),
).filter(lambda name: name not in (".", ".."))


@given(st.lists(st.tuples(FILE_NAMES, FILE_NAMES), min_size=1, max_size=6, unique=True))
def test_a_listing_has_every_image_under_its_own_name_and_reads_it(names) -> None:
    assume(len({(as_text(directory), as_text(name)) for directory, name in names}) == len(names))
    with tempfile.TemporaryDirectory() as folder:
        expected = {}
        for directory, name in names:
            path = os.path.join(folder, directory, f"{name}.jpg")
            os.makedirs(os.path.dirname(path), exist_ok=True)
            Path(path).write_bytes(os.fsencode(f"image {path}"))
            if not is_hidden(directory) and not is_hidden(f"{name}.jpg"):
                expected[as_text(f"{directory}/{name}.jpg")] = os.fsencode(f"image {path}")
        listing = list_images(folder)
        paths = list(listing.images["path"])
        assert paths == sorted(expected) and all(map(is_text, [*paths, *listing.ignored]))
        assert dict(zip(paths, read_files(folder, paths), strict=True)) == expected
        assert [storage.read_bytes(f"{folder}/{path}") for path in paths] == [expected[path] for path in paths]
        sink = io.BytesIO()
        listing.images.to_parquet(sink)
        assert list(pd.read_parquet(io.BytesIO(sink.getvalue()))["path"]) == paths


# --------------------------------------------------------------------------------------------------------------- tables

CELLS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",), exclude_characters="\0\r"), max_size=8)
NAME_PARTS = st.text(
    st.characters(exclude_categories=("Cs", "Cc", "Zs", "Zl", "Zp"), exclude_characters="/\\."), min_size=1, max_size=8
)


@given(
    rows=st.lists(
        st.tuples(NAME_PARTS, st.sampled_from(["cat", "dog", "a, b", 'say "moo"', "ü;x"]), CELLS),
        min_size=2,
        max_size=8,
        unique_by=lambda row: row[0],
    ),
    separator=st.sampled_from(SEPARATORS),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    terminator=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    order=st.permutations(["path", "label", "comment"]),
)
def test_a_table_in_any_dialect_of_the_csv_module_is_read(
    rows, separator, encoding, terminator, quoting, order
) -> None:
    assume(len({label for _, label, _ in rows}) > 1)
    with tempfile.TemporaryDirectory() as folder:
        sink = io.StringIO()
        writer = csv.DictWriter(sink, order, delimiter=separator, lineterminator=terminator, quoting=quoting)
        writer.writeheader()
        for name, label, comment in rows:
            Path(folder, f"{name}.jpg").write_bytes(b"image")
            writer.writerow({"path": f"{name}.jpg", "label": label, "comment": comment})
        table = Path(folder, "table.csv")
        table.write_bytes(sink.getvalue().encode(encoding))
        files = sources.find(str(table), Data()).files
    assert dict(zip(files["path"], files["label"], strict=True)) == {f"{name}.jpg": label for name, label, _ in rows}
