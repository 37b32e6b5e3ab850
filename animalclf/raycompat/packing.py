"""How large the folder is that a job is sent, before it is sent: packed as Ray packs it."""

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
def pack(folder: str, package: Path) -> Path:
    """Write `folder`, without what .gitignore and .rayignore name, into the zip file `package`, as Ray does when it sends the job; returns
    `package`. It earns no time: a folder with data in it is refused at once, with the names of its largest files, and not after minutes."""
    from ray._private.runtime_env.packaging import create_package

    create_package(str(Path(folder).resolve()), package, include_gitignore=True, excludes=EXCLUDED)
    return package
