"""Folder layouts: which folders are classes, which are splits, and which fit neither. Pure functions of the images'
paths."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from animalclf.errors import UserError
from animalclf.prepare.sources.roles import Role, is_neutral, role_of, split_name
from animalclf.utils.text import count_clause, count_text

MAX_SHOWN = 8  # folders in an error
KNOWN = "<class>/image.jpg, <split>/<class>/image.jpg or <class>/<split>/image.jpg"


@dataclass(frozen=True, eq=False)
class Layout:
    """What the folders mean. `images`: the labelled images, with the columns of the listing, label and split ("" if not
    given). `unlabelled`: the folder of images to predict, or None."""

    kind: str
    images: pd.DataFrame
    unlabelled: str | None = None


def read_layout(images: pd.DataFrame, data: str, *, splits: bool = True) -> Layout:
    """The layout of `images` (one row per image; column path, relative). Messages call the folder `data`. With `splits`
    False every top folder is a class. Raises UserError for images outside any folder, and for folders that are neither
    all classes nor all splits."""
    top = images["path"].str.partition("/")
    outside = images["path"][top[1] == ""]
    if len(outside):
        raise UserError(
            f"{data}: {count_clause(len(outside), 'image', 'are outside any class folder')}, such as "
            f"{outside.iloc[0]}; expected {KNOWN}. "
            "Move them into class folders, or name a CSV with the columns path and label"
        )
    class_folders = Layout("class folders", images.assign(label=top[0], split=""))
    if not splits:
        return class_folders
    folders = sorted(top[0].unique())
    roles = _split_roles(folders)
    if roles:
        return _split_first(images, top[0], roles, data)
    split_folders = [folder for folder in folders if role_of(folder)]
    if split_folders and len(folders) > 1:
        raise _layout_error(
            images, data, f"{_list_folders(split_folders)} has the name of a split, the other folders have not"
        )
    return _class_first(images, top, data) or class_folders


def deeper_root(paths: pd.Series) -> str | None:
    """The folder nearest to the root that holds two or more folders of images; None if that is the root, or if
    there is none."""
    prefix = ""
    while True:
        top = paths.str.partition("/")
        folders = top[0][top[1] == "/"].unique()
        if len(folders) != 1:
            return prefix.rstrip("/") or None if len(folders) else None
        prefix += f"{folders[0]}/"
        paths = top[2][top[1] == "/"]


def shared_folders(paths: pd.Series) -> list[str]:
    """The folders that every top folder has, if all have the same two or more: fold1/cat, fold1/dog, fold2/cat, ..."""
    top = paths.str.partition("/")
    second = top[2].str.partition("/")
    if (second[1] != "/").any():
        return []
    inner = second[0].groupby(top[0]).agg(frozenset)
    return sorted(inner.iloc[0]) if inner.nunique() == 1 and len(inner.iloc[0]) > 1 else []


def classes_in_names(paths: pd.Series) -> list[str]:
    """The classes that the file names begin with, as in cat.0.jpg and dog_12.jpg, if each has two images or more; empty
    if there are fewer than two, or if names have another form."""
    names = paths[paths.map(lambda path: role_of(path.partition("/")[0]) in (None, "train"))].str.rpartition("/")[2]
    words = names.str.extract(r"^([^\W\d]+(?:[ -][^\W\d]+)*)[ .-]*\(?\d+\)?\.\w+$", expand=False).str.rstrip("_")
    counts = words.value_counts()
    whole = len(names) > 0 and bool(words.notna().all()) and bool((counts > 1).all())
    return sorted(counts.index) if whole and len(counts) > 1 and not any(map(role_of, counts.index)) else []


def _split_roles(folders: Sequence[str]) -> dict[str, Role | None]:
    """The role of each folder if the folders are splits, None for those that are not; empty if they are classes.
    Folders are splits if two names differ in their role only: train and Test, seg_train and seg_test, but not
    bullet_train and pregnancy_test."""
    names = {folder: split_name(folder) for folder in folders}
    roles = defaultdict(set)
    for role, rest in names.values():
        if role and role != "predict":
            roles[rest].add(role)
    rests = {rest for rest, split_roles in roles.items() if len(split_roles) > 1}
    if not rests:
        return {}
    return {folder: name.role if name.rest in rests or not name.rest else None for folder, name in names.items()}


def _split_first(images: pd.DataFrame, top: pd.Series, roles: Mapping[str, Role | None], data: str) -> Layout:
    """<split>/<class>/image. The test folder and a folder of images to predict may have no class folders."""
    others = [folder for folder, role in roles.items() if role is None]
    if others:
        raise _layout_error(images, data, f"{_list_folders(others)} is not a split, the other folders are")
    label = pd.Series("", index=images.index, dtype=object)
    unlabelled = []
    for folder, role in roles.items():
        rows = top.index[top == folder]
        prefix, inner = _unwrap(images["path"][rows], folder, role)
        first = inner.str.partition("/")
        flat = first[1] == ""
        if flat.all() and role in ("test", "predict"):
            unlabelled.append(prefix)
        elif flat.any():
            raise _layout_error(
                images, data, f"{prefix}/ has images outside any class folder, such as {inner[flat].iloc[0]}"
            )
        else:
            label[rows] = first[0]
    if len(unlabelled) > 1:
        raise _layout_error(
            images, data, f"{_list_folders(unlabelled)} have no class folders; at most one folder may have none"
        )
    labelled = images.assign(label=label, split=top.map(dict(roles)))
    labelled = labelled[(label != "") & (labelled["split"] != "predict")].reset_index(drop=True)
    if not (labelled["split"] == "train").any():
        raise _layout_error(images, data, "there is no training split")
    return Layout("split folders", labelled, unlabelled[0] if unlabelled else None)


def _unwrap(paths: pd.Series, folder: str, role: Role | None) -> tuple[str, pd.Series]:
    """The folder that has the images or class folders of a split, and the paths relative to it:
    seg_train/seg_train/<class>, test/images/1.jpg."""
    prefix, inner = folder, paths.str.slice(len(folder) + 1)
    while True:
        first = inner.str.partition("/")
        names = first[0][first[1] == "/"].unique()
        if len(names) != 1 or (first[1] == "").any():
            return prefix, inner
        if split_name(names[0]).role != role and not is_neutral(names[0]):
            return prefix, inner
        prefix, inner = f"{prefix}/{names[0]}", first[2]


def _class_first(images: pd.DataFrame, top: pd.DataFrame, data: str) -> Layout | None:
    """<class>/<split>/image, or None if the second folders are not splits."""
    second = top[2].str.partition("/")
    inside = second[1] == "/"
    roles = {folder: role_of(folder) for folder in second[0][inside].unique()}
    split = second[0].where(inside).map(roles)
    if split.nunique() < 2:
        return None
    others = images["path"][split.isna() | (split == "predict")]
    if len(others):
        raise _layout_error(images, data, f"some classes have folders of splits, but {others.iloc[0]} is in none")
    return Layout("split folders", images.assign(label=top[0], split=split))


def _layout_error(images: pd.DataFrame, data: str, problem: str) -> UserError:
    """The error for an unknown layout: what was found, what is expected, and how to read all folders as classes."""
    top = images["path"].str.partition("/")
    second = top[2].str.partition("/")
    inner = second[0].where(second[1] == "/").groupby(top[0]).nunique()
    counts = zip(inner.index, top[0].value_counts().loc[inner.index], inner, strict=True)
    folder_texts = [
        f"{folder}/ ({count_text(count, 'image')}" + (f" in {count_text(folders, 'folder')})" if folders else ")")
        for folder, count, folders in counts
    ]
    more = f" and {len(folder_texts) - MAX_SHOWN:,} more" if len(folder_texts) > MAX_SHOWN else ""
    return UserError(
        f"{data}: {problem}. Found {', '.join(folder_texts[:MAX_SHOWN])}{more}; expected {KNOWN}. "
        "Move or rename folders, or read every top folder as a class with --set data.splits=none"
    )


def _list_folders(folders: Sequence[str]) -> str:
    return ", ".join(f"{folder}/" for folder in folders[:MAX_SHOWN])
