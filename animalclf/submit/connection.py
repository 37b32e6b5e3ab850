"""A client for the cluster: its dashboard's address, its token, and the version of its Ray."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from animalclf.cluster import silence_ray
from animalclf.errors import UserError
from animalclf.raycompat.auth_token import WHERE, read_token

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

DASHBOARD = "http://127.0.0.1:8265"


def connect(address: str | None) -> JobSubmissionClient:
    """A client for the cluster at `address`. Raises UserError if no dashboard answers, the token is missing or wrong,
    or another Ray runs there."""
    import ray
    import requests
    from ray.job_submission import JobSubmissionClient

    silence_ray()
    address = (address or os.environ.get("RAY_API_SERVER_ADDRESS") or DASHBOARD).rstrip("/")
    if not address.startswith(("http://", "https://")):
        raise UserError(f"--address {address}: give the dashboard's address, such as {DASHBOARD}")
    headers: dict[str, str] = {}
    try:
        headers = _authorization(address)
        version = str(requests.get(f"{address}/api/version", headers=headers, timeout=20).json()["ray_version"])
    except (requests.exceptions.RequestException, ValueError, KeyError) as error:
        raise UserError(
            f"{address}: no Ray dashboard answers there ({first_line(error)}). For a cluster of `ray up`, leave "
            "`ray dashboard cluster.yaml` running in another terminal; otherwise give --address"
        ) from error
    if version != ray.__version__:
        raise UserError(
            f"{address}: the cluster runs Ray {version}, this environment Ray {ray.__version__}; install the same "
            "(constraints.txt)"
        )
    os.environ["RAY_API_SERVER_ADDRESS"] = address  # Ray lets it override the argument
    return JobSubmissionClient(address, headers=headers)


def _authorization(address: str) -> dict[str, str]:
    """Headers with the token if the cluster requires one; a cluster that requires none never gets it. Raises
    UserError for a missing or wrong token, requests' errors if no dashboard answers."""
    import requests

    token, headers = read_token(), {}
    response = requests.get(f"{address}/api/jobs/", timeout=20)
    if response.status_code == 401 and token:
        headers = {"Authorization": f"Bearer {token}"}
        response = requests.get(f"{address}/api/jobs/", headers=headers, timeout=20)
    if response.status_code in (401, 403):
        state = "has another" if token else "requires a"
        raise UserError(
            f"{address}: the cluster {state} token; {WHERE} (cluster.yaml mounts yours at the cluster's start)"
        )
    response.raise_for_status()
    return headers


def first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
