"""`serve`: a finished run behind HTTP. What the user can fix is checked before Ray starts."""

from __future__ import annotations

import importlib.util
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from animalclf.errors import UserError
from animalclf.runs import Run, open_finished
from animalclf.utils.console import show_line
from animalclf.utils.registry import check_workers_know

if TYPE_CHECKING:
    from animalclf.serving.server import Server
    from animalclf.training.checkpoint import ModelInfo

PACKAGES = ("fastapi", "starlette", "uvicorn", "python_multipart")  # fastapi: Ray Serve imports it


def start(
    run: str, *, host: str, port: int, replicas: str, max_upload: str, token: str | None, token_file: str | None
) -> Server:
    """See animalclf.serve. Raises UserError, before any long work, for what the user can fix."""
    missing = [package for package in PACKAGES if not importlib.util.find_spec(package)]
    if missing:
        raise UserError(f"{', '.join(missing)} is not installed; install it with: pip install 'animalclf[serve]'")
    from animalclf.serving import server
    from animalclf.serving.app import Service, build_app
    from animalclf.serving.deployment import Deployment, Replicas, connect
    from animalclf.serving.limits import Limits, parse_size

    number, limits = Replicas.parse(replicas), Limits(max_upload=parse_size(max_upload))
    secret = server.find_token(token, token_file)
    folder = open_finished(run)
    check_workers_know(folder.config(), ["model"])
    listener = server.listen(host, port)
    try:
        if not server.is_private(listener):
            show_line(
                f"--host {host}: other machines reach the server without encryption; put a proxy with TLS before it"
            )
        with ThreadPoolExecutor(1) as pool:  # PyTorch is imported while Ray starts
            loading = pool.submit(_check_model, folder.root)
            cluster = connect(number, folder.root)
            info = loading.result()
        name, count = f"animalclf-{socket.gethostname()}-{listener.getsockname()[1]}", number.minimum
        show_line(f"starting {count} replica{'s' * (count > 1)} of {info.config.name} ({cluster})")
        deployment = Deployment(folder.root, name, number)
        app = build_app(Service(deployment.classify, info.classes, secret.value, limits))
        return server.Server(folder.root, listener, app, secret, deployment.stop)
    except BaseException:
        listener.close()
        raise


def _check_model(run: str) -> ModelInfo:
    """The description of the model. Raises UserError, before replicas load it, if it cannot be loaded."""
    from animalclf.features.known_file import read_scorer
    from animalclf.inference.known import scorer_or_reason
    from animalclf.training import checkpoint

    model, info = checkpoint.load_model(run)
    scorer, reason = scorer_or_reason(Run(run), model, info)  # stores that of an old run, for the replicas
    if scorer and not read_scorer(Run(run)):
        reason = f"{run}: its score cannot be written there for the replicas"
    if reason:
        show_line(f"answers without `known`: {reason}")
    return info
