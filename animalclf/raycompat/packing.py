"""The package of a job's folder, as Ray packs it, to check its size before the job is sent."""

from __future__ import annotations

from pathlib import Path

from animalclf.raycompat.patches import patch

EXCLUDED = [".git", ".venv", "venv", "__pycache__"]  # as Ray does


@patch(
    ("2.56", "2.58", "2.60"),
    {
        "ray._private.runtime_env.packaging:create_package": (
            "module_path",
            "target_path",
            "include_gitignore",
            "include_parent_dir",
            "excludes",
            "logger",
        )
    },
    shared=True,
)
def pack_folder(folder: str, package: Path) -> Path:
    """Write `folder`, without the files that .gitignore and .rayignore exclude, into the zip file `package`, as Ray
    does when it sends the job. Returns `package`.

    It saves no time: a folder that is too large is refused at once, with the names of its largest files, and not after
    minutes.
    """
    from ray._private.runtime_env.packaging import create_package

    create_package(str(Path(folder).resolve()), package, include_gitignore=True, excludes=EXCLUDED)
    return package
