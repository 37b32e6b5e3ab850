"""The edge to Ray Serve: start replicas of a run's model, send them images, stop them.

Only this process talks to clients, so Ray Serve starts no proxy: a request is accepted once, and lives here until some
replica has answered it.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import math
import os
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from ray import serve
from ray.exceptions import RayActorError

from animalclf.cluster import ensure_ray, silence_ray
from animalclf.cluster_size import cpus_per_node, max_resources
from animalclf.errors import UserError
from animalclf.raycompat.patches import OWN_RAY_VARIABLE
from animalclf.serving.answers import Scored
from animalclf.serving.limits import Refused
from animalclf.serving.uploads import Upload
from animalclf.training.resources import Workers, preflight

ATTEMPTS = 4  # of an image whose replica dies: a file that kills replicas must not kill one after another
PAUSE_SECONDS = 0.2  # before another attempt
QUIET = {"log_level": "ERROR", "enable_access_log": False}


@dataclass(frozen=True)
class Replicas:
    """Their number, from `minimum` to `maximum` as the load requires."""

    minimum: int
    maximum: int

    @classmethod
    def parse(cls, text: str) -> Replicas:
        """`2`, or `1:4`. Raises UserError for anything else."""
        match = re.fullmatch(r"([1-9]\d{0,3})(?::([1-9]\d{0,3}))?", text.strip())
        minimum, maximum = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if minimum > maximum:
            raise UserError(
                f"--replicas {text}: write a number, as in --replicas 2, or minimum and maximum, as in --replicas 1:4"
            )
        return cls(minimum, maximum)

    def scaling(self, ongoing: int) -> dict[str, Any]:
        """The arguments of Ray Serve. `ongoing`: images of a replica from which on another one starts."""
        if self.minimum == self.maximum:
            return {"num_replicas": self.minimum}
        limits = {"min_replicas": self.minimum, "max_replicas": self.maximum, "initial_replicas": self.minimum}
        times = {"upscale_delay_s": 3, "downscale_delay_s": 60, "look_back_period_s": 5, "metrics_interval_s": 1}
        return {"autoscaling_config": {**limits, **times, "target_ongoing_requests": ongoing}}


def connect(replicas: Replicas, run: str) -> str:
    """Join or start a Ray, and start Ray Serve there. Returns a text of the cluster's resources. Raises
    UserError if it has no room for the replicas, or a node does not see the run folder."""
    ensure_ray(min(replicas.maximum, os.cpu_count() or 1))
    cluster, kind = preflight(Workers.fixed(0), [run]), _kind()
    if replicas.minimum > max_resources().get(kind, 0):
        raise UserError(f"--replicas {replicas.minimum}: each takes a {kind}, and the cluster has {cluster}")
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    serve.start(proxy_location="Disabled", logging_config=QUIET)
    silence_ray()
    return cluster


def _kind() -> str:
    """The resource that each replica takes one of."""
    return "GPU" if max_resources().get("GPU", 0) else "CPU"


class Deployment:
    """Replicas of the model of the run folder `run`, as the Ray Serve application `name`."""

    def __init__(self, run: str, name: str, replicas: Replicas) -> None:
        """Start the replicas, and wait until the first ones are ready. Needs `connect`."""
        from animalclf.serving.replica import MAX_BATCH, Replica  # imports PyTorch, which `connect` should not wait for

        kind, self.name, self.is_alone = _kind(), name, not serve.status().applications
        deployment = serve.deployment(
            Replica,
            name="model",
            max_ongoing_requests=2 * MAX_BATCH,
            ray_actor_options={f"num_{kind.lower()}s": 1},
            health_check_period_s=2,
            graceful_shutdown_timeout_s=5,
            logging_config=QUIET,
            **replicas.scaling(MAX_BATCH // 2),
        )
        per_node = math.ceil(replicas.maximum / len(cpus_per_node()))
        try:
            self.handle = serve.run(deployment.bind(run, kind == "GPU", per_node), name=name, route_prefix=None)
        except BaseException:
            self.stop()
            raise

    async def classify(self, upload: Upload, explain: bool) -> Scored:
        return await persistent(lambda: self.handle.remote(upload, explain))

    def stop(self) -> None:
        """End the replicas; on a cluster also Ray Serve, if no other application uses it or has used it."""
        own_ray = os.environ.get(OWN_RAY_VARIABLE)  # which ends with this process
        if not own_ray and self.is_alone and set(serve.status().applications) <= {self.name}:
            with contextlib.redirect_stdout(io.StringIO()):  # Ray prints that a controller has died, which is the aim
                serve.shutdown()
        else:
            serve.delete(self.name)


async def persistent(send: Callable[[], Awaitable[Scored]]) -> Scored:
    """The result of `send`, which is called again if the replica that has the image dies. Raises Refused after ATTEMPTS
    calls."""
    for attempt in range(ATTEMPTS):
        await asyncio.sleep(PAUSE_SECONDS * attempt)
        try:
            return await send()
        except RayActorError:
            continue
    raise Refused(503, f"the replicas that had this image died {ATTEMPTS} times; look at the logs of Ray")
