"""Submit a job, and show its log until it ends."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from animalclf.errors import ExitCode
from animalclf.submit.checks import check_job, option_of, packed_size
from animalclf.submit.connection import connect
from animalclf.submit.log import STOPPED, follow
from animalclf.utils.console import show_line


def submit(
    job: str,
    arguments: Sequence[str],
    *,
    address: str | None = None,
    folder: str = ".",
    env: dict[str, str] | None = None,
    wait: bool = True,
) -> int:
    """Run `python -m ray_jobs.<job> <arguments>` on the cluster whose dashboard is at `address` (default:
    RAY_API_SERVER_ADDRESS, or this machine's port 8265, where `ray dashboard cluster.yaml` puts it). `folder`, without
    what .gitignore and .rayignore name, becomes the job's working directory; `env`: variables of the job.

    The log goes to standard output. Returns the job's exit status: 0 only if it fully succeeded, 130 if it was
    stopped; with `wait=False` 0 as soon as it is submitted. Raises UserError for a cluster that cannot be reached,
    refuses the token or runs another Ray, for an unknown job, for arguments that would lose the results, and for a
    folder that packs too large.
    """
    check_job(job, arguments, folder, env or {})
    client = connect(address)
    packed = packed_size(folder)
    entrypoint = shlex.join(["python", "-m", f"ray_jobs.{job}", *arguments])
    runtime_env: dict[str, object] = {"working_dir": str(Path(folder).resolve())}
    if env:
        runtime_env["env_vars"] = dict(env)
    job_id = client.submit_job(entrypoint=entrypoint, runtime_env=runtime_env, metadata={"job": f"animalclf {job}"})
    size = "" if packed is None else f" ({packed / 1e6:.2g} MB)"
    show_line(f"job {job_id}{size}: {entrypoint}")
    if not wait:
        show_line(f"follow it with: animalclf submit --follow {job_id}")
        return 0
    code = follow(client, job_id)
    out = option_of(arguments, "--out")
    if out and code not in (STOPPED, ExitCode.USER_ERROR):  # the job's own error has the remedy
        show_line(f"{'results' if code in (0, 3) else 'partial results'}: {out}")
    if code not in (0, ExitCode.USER_ERROR) and job in ("train", "compare") and out:
        show_line("continue it with the same command and --resume")
    return code
