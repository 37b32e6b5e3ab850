"""Segmentation masks beside images: files of pixels that belong to an image, and are none to learn from. Pure functions
of paths."""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from animalclf.prepare.sources.roles import is_neutral

_FOLDER = re.compile(
    r"(?i)masks?|annotations?|labels?|trimaps?|segmentations?|segmentation[ _-]?masks?|ground[ _-]?truths?|gt"
)
_SUFFIX = re.compile(r"(?i)(.+?)[ _-](?:masks?|segmentation|trimap|gt)(?:[ _-]?\d+)?")


def find_masks(paths: Sequence[str]) -> list[str]:
    """Those of the image files `paths` that are masks of others, sorted. Either a mask is beside its image: 1.png and
    1_mask.png. Or it is in a folder of masks beside one of images: masks/1.png and images/1.png, but not mask/1.png and
    no_mask/1.png, which may be classes."""
    candidates = [path for path in paths if _SUFFIX.fullmatch(_stem(path)) or any(_mask_folders(path))]
    if not candidates:
        return []
    beside = {posixpath.splitext(path)[0] for path in paths}
    images = {(prefix, _stem(path)) for path in paths for prefix in _neutral_parents(path)}
    masks = {path for path in candidates if _is_beside(path, beside)}
    total, paired = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for path in candidates:
        suffixed = _SUFFIX.fullmatch(_stem(path))
        stems = {_stem(path), suffixed[1] if suffixed else ""}
        for prefix, folder in _mask_folders(path):
            total[prefix, folder] += 1
            paired[prefix, folder] += any((prefix, stem) in images for stem in stems)
    folders = {folder for folder, count in paired.items() if 2 * count > total[folder]}
    return sorted(masks | {path for path in candidates if not folders.isdisjoint(_mask_folders(path))})


def mask_warning(masks: Sequence[str]) -> list[str]:
    """A warning if there are masks."""
    if not masks:
        return []
    count = "1 image is a mask" if len(masks) == 1 else f"{len(masks):,} images are masks"
    return [f"{count} of another image, by their names, such as {masks[0]}; masks are not used"]


def _stem(path: str) -> str:
    return posixpath.splitext(posixpath.basename(path))[0]


def _mask_folders(path: str) -> Iterator[tuple[str, str]]:
    """The folders of `path` that have the name of a folder of masks: parent and name."""
    parts = path.split("/")[:-1]
    return (("/".join(parts[:depth]), part) for depth, part in enumerate(parts) if _FOLDER.fullmatch(part))


def _neutral_parents(path: str) -> Iterator[str]:
    """The parents of those folders of `path` whose names are no class's, as images/."""
    parts = path.split("/")[:-1]
    return ("/".join(parts[:depth]) for depth, part in enumerate(parts) if is_neutral(part))


def _is_beside(path: str, stems: set[str]) -> bool:
    """Whether the folder of `path` has the image of which it is the mask."""
    match = _SUFFIX.fullmatch(posixpath.splitext(path)[0])
    return match is not None and match[1] in stems
