"""A trained model behind HTTP: serve."""

from __future__ import annotations

from typing import TYPE_CHECKING

from animalclf.api.calls import PathLike, path_text, public

if TYPE_CHECKING:
    from animalclf.serving.server import Server


@public
def serve(
    run: PathLike,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    replicas: int | str = 1,
    max_upload: str = "20MB",
    token: str | None = None,
    token_file: PathLike | None = None,
) -> Server:
    """Answer HTTP requests with the best model of the finished run folder `run`, by Ray Serve, until `.stop()`.

    `host`, `port`: where (0: any free port). "127.0.0.1" is reached from this machine only, "0.0.0.0" from all
    networks, without encryption. `replicas`: of the model, "1:4" for as many as the load requires. `max_upload`: the
    largest request. `token`: what clients send as `Authorization: Bearer TOKEN`; without it, that of the `token_file`,
    of the environment variable ANIMALCLF_SERVE_TOKEN, or a new one.

    Returns the running server with `url` and `token`; `.wait()` blocks until Ctrl-C. As a context manager it ends with
    its block.
    """
    from animalclf.serving.serve import start

    return start(
        str(run),
        host=host,
        port=port,
        replicas=str(replicas),
        max_upload=max_upload,
        token=token,
        token_file=path_text(token_file),
    )
