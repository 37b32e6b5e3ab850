"""Checks of a job before it is sent: its name, arguments and variables, and the size of the code."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from animalclf.cluster import silence_ray
from animalclf.errors import UserError
from animalclf.utils import storage
from animalclf.utils.redact import SECRET_VARIABLES, is_secret, redact, redact_arguments, redact_command

MAX_PACKED = 10 * 2**20  # bytes; code alone takes less than a tenth of it
WRITERS = ("prepare", "train", "compare", "demo")  # their default --out is in the job's copy of the code
FLAGS = ("--address", "--folder", "--env", "--no-wait", "--follow")  # of submit itself, before the job's name


def check_job(job: str, arguments: Sequence[str], folder: str, env: dict[str, str]) -> None:
    if not jobs(folder):
        raise UserError(
            f"{folder}: there is no ray_jobs/ here; run this from the top of the repository, or name it with --folder"
        )
    if job not in jobs(folder):
        raise UserError(f"unknown job {job!r}; jobs: {', '.join(jobs(folder))}")
    for flag in (argument.partition("=")[0] for argument in arguments):
        if flag in FLAGS:
            raise UserError(
                f"{flag}: a flag of submit, not of {job}; write it before the job's name: "
                f"animalclf submit {flag} ... {job}"
            )
    if "--help" not in arguments and "-h" not in arguments:
        _check_outputs(job, arguments)
    for name, value in env.items():
        if name in SECRET_VARIABLES or is_secret(name, value):
            raise UserError(
                f"--env {name}: everybody who sees the dashboard could read it; give the machines a role, or a file "
                "~/.aws/credentials"
            )
    shown = redact_arguments(arguments)
    if shown != list(arguments):
        raise UserError(
            f"{' '.join(shown)}: everybody who sees the dashboard could read what --notify and --notify-command have; "
            "`animalclf submit` returns when the job ends: notify after it"
        )
    for text in (*arguments, *(f"--env {name}={value}" for name, value in env.items())):
        name, _, value = text.partition("=")
        if redact(text) != text or is_secret(name, value):
            raise UserError(
                f"{redact_command(text)}: has a secret (***), and everybody who sees the dashboard could read it; "
                "give the machines a role or a file with credentials, and leave it out"
            )


def packed_size(folder: str = ".") -> int | None:
    """Bytes that `folder` sends; None if that is not known before it is sent (see raycompat/packing.py). Raises
    UserError, naming the largest files, if that is more than code can be."""
    from animalclf.raycompat.packing import pack_folder

    silence_ray()
    with tempfile.TemporaryDirectory() as scratch:
        package = pack_folder(folder, Path(scratch) / "package.zip")
        if package is None:
            return None
        size = package.stat().st_size
        if size > MAX_PACKED:
            with zipfile.ZipFile(package) as content:
                largest = sorted(content.infolist(), key=lambda entry: -entry.compress_size)[:3]
            names = ", ".join(f"{entry.filename} ({entry.compress_size / 1e6:.0f} MB)" for entry in largest)
            raise UserError(
                f"{folder}: packs to {size / 1e6:.0f} MB, more than code can be; add other files to .rayignore: {names}"
            )
    return size


def jobs(folder: str = ".") -> list[str]:
    """The jobs that the code in `folder` has: its ray_jobs/*.py."""
    names = [path.stem for path in Path(folder, "ray_jobs").glob("*.py")]
    return sorted(name for name in names if name not in ("__init__", "submit"))


def _check_outputs(job: str, arguments: Sequence[str]) -> None:
    """Raises UserError if the job would write into its own working directory."""
    required = () if job not in WRITERS else ("--data", "--out") if job == "demo" else ("--out",)
    missing = [option for option in required if not option_of(arguments, option)]
    remedy = "use s3://bucket/..., or the absolute path of a folder that all machines share"
    if missing:
        raise UserError(
            f"{job} needs {' and '.join(missing)} on a cluster: the folder that the job runs in is removed after it; "
            f"{remedy}"
        )
    for option in dict.fromkeys(("--out", *required)):
        output = option_of(arguments, option)
        if output and not storage.is_remote(output) and not output.removeprefix("file://").startswith(("/", "~")):
            raise UserError(
                f"{option} {output}: a relative path is in the folder that the job runs in, which is removed after it; "
                f"{remedy}"
            )


def option_of(arguments: Sequence[str], name: str) -> str | None:
    for position, argument in enumerate(arguments):
        if argument == name and position + 1 < len(arguments):
            return arguments[position + 1]
        if argument.startswith(f"{name}="):
            return argument.partition("=")[2]
    return None
