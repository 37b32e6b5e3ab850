"""The problems of a prepared set's images: found and described in one place, for every command that uses the set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd
from rich.text import Text

from animalclf.data.decode import SINGLE_COLOUR
from animalclf.data.prepared_set import INFO, MANIFEST, Prepared
from animalclf.prepare.manifest import MAX_LISTED, contradictory_groups, suffix_counts
from animalclf.prepare.sources.class_names import similar_names
from animalclf.prepare.split import straddling_groups
from animalclf.rows import DataProblems, Unreadable
from animalclf.utils import storage
from animalclf.utils.console import console

MAX_GROUP = 4  # images named of a group of duplicates


def find_problems(prepared: Prepared) -> DataProblems:
    """The problems of the images of a prepared set, from its manifest and dataset.json."""
    manifest, info = prepared.manifest, prepared.info
    ok = manifest[manifest["status"] == "ok"]
    divided = ok[ok["group"].isin(straddling_groups(manifest))].groupby("group") if "group" in ok else ()
    contradictory = contradictory_groups(manifest) if "group" in ok else ()
    return DataProblems(
        unreadable=[Unreadable(path=file["path"], reason=file["reason"]) for file in info.get("unreadable", ())],
        skipped=_skipped_counts(prepared),
        contradictory=[_by_path(rows, "label") for rows in contradictory],
        across_splits=[_by_path(rows, "split") for _, rows in divided],
        single_colour=ok.loc[ok["note"].str.contains(SINGLE_COLOUR), "path"].tolist() if "note" in ok else [],
        similar_classes=similar_names(prepared.classes),
    )


def show_problems(prepared: Prepared) -> DataProblems:
    """Print the problems of a prepared set, or nothing if there are none, and return them."""
    problems = find_problems(prepared)
    for line in problem_lines(problems, prepared):
        console.print(line, soft_wrap=True)
    return problems


def problem_lines(problems: DataProblems, prepared: Prepared) -> list[Text]:
    """The problems for people: a title for each kind, and below it its first images."""
    info_url, manifest_url = storage.join(prepared.root, INFO), storage.join(prepared.root, MANIFEST)
    unreadable = [f"{image.path}: {image.reason}" for image in problems.unreadable]
    return [
        *_warning(f"unreadable files, skipped: {len(unreadable):,}", unreadable, info_url),
        *_skipped_line(problems, prepared),
        *_warning(
            f"duplicates with different labels: {_groups(problems.contradictory)}; correct the labels",
            _group_lines(problems.contradictory),
            manifest_url,
        ),
        *_warning(
            f"duplicates in different splits, as the data gives them: {_groups(problems.across_splits)}; "
            "scores may be too high; drop the training images among them with --set data.given_split_duplicates=drop",
            _group_lines(problems.across_splits),
            manifest_url,
        ),
        *_warning(
            f"images of a single colour: {len(problems.single_colour):,}; check that they are images",
            problems.single_colour,
            manifest_url,
        ),
        *_warning(
            f"class names that differ in case only: {len(problems.similar_classes):,}; "
            "if they are one class, give them one name",
            [", ".join(map(repr, names)) for names in problems.similar_classes],
            info_url,
        ),
    ]


def _skipped_counts(prepared: Prepared) -> dict[str, int]:
    """The number of skipped files by extension, the most frequent first."""
    ignored = prepared.info.get("ignored")
    if not ignored:
        return {}
    suffixes = ignored.get("suffixes") or suffix_counts(ignored["examples"])
    others = ignored["files"] - sum(suffixes.values())  # sets of older versions have examples only
    return {**suffixes, "others": others} if others else suffixes


def _skipped_line(problems: DataProblems, prepared: Prepared) -> list[Text]:
    if not problems.skipped:
        return []
    count, example = sum(problems.skipped.values()), prepared.info["ignored"]["examples"][0]
    suffixes = ", ".join(f"{suffix}: {files:,}" for suffix, files in problems.skipped.items())
    files = "1 file that is not an image" if count == 1 else f"{count:,} files that are not images"
    return [Text(f"skipped: {files} ({suffixes}), such as {example}", overflow="fold")]


def _by_path(rows: pd.DataFrame, column: str) -> dict[str, str]:
    return dict(zip(rows["path"], rows[column], strict=True))


def _groups(groups: Sequence[object]) -> str:
    return f"{len(groups):,} group{'' if len(groups) == 1 else 's'}"


def _group_lines(groups: Iterable[Mapping[str, str]]) -> list[str]:
    """Each group as a line: a.jpg (cat) = b.jpg (dog)."""
    lines = []
    for group in groups:
        first = " = ".join(f"{path} ({value})" for path, value in list(group.items())[:MAX_GROUP])
        lines.append(first + (f" and {len(group) - MAX_GROUP} more" if len(group) > MAX_GROUP else ""))
    return lines


def _warning(title: str, lines: Sequence[str], url: str) -> list[Text]:
    """The title and the first of the lines; if there are more, the file `url` that has them all. Nothing without
    lines."""
    if not lines:
        return []
    more = [f"and {len(lines) - MAX_LISTED:,} more, see {url}"] if len(lines) > MAX_LISTED else []
    title_text = Text(f"\n{title}", style="bold yellow")
    return [title_text, *(Text(f"  {line}", overflow="fold") for line in [*lines[:MAX_LISTED], *more])]
