"""The ASGI application: GET / is the page, GET /healthz for load balancers, POST /predict classifies images. Starlette
without Ray."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from animalclf.serving.answers import Scored, image_answer
from animalclf.serving.limits import Limits, Refused, UploadMemory, limited
from animalclf.serving.page import CONTENT_SECURITY_POLICY, page
from animalclf.serving.uploads import Upload, read_uploads
from animalclf.utils.console import show_error

HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
TOP = 5  # classes in the answer for an image


@dataclass(frozen=True)
class Service:
    """What the application serves. `classify` gives the probabilities of an image file, with a heat map or without, or
    the reason why it is unreadable."""

    classify: Callable[[Upload, bool], Awaitable[Scored]]
    classes: Sequence[str]
    token: str
    limits: Limits


def build_app(service: Service) -> Starlette:
    memory = UploadMemory(service.limits)

    async def predict(request: Request) -> Response:
        check_token(request, service.token)
        top, explain = _top(request), _explain(request)
        with memory.reserve() as reserve:
            async with aclosing(request.stream()) as stream:
                chunks = limited(stream, request.headers.get("content-length"), service.limits, reserve)
                uploads = await read_uploads(request.headers, chunks, service.limits)
            try:
                async with asyncio.timeout(service.limits.answer_seconds):
                    scored = await asyncio.gather(*(service.classify(upload, explain) for upload in uploads))
            except TimeoutError:
                raise Refused(504, f"no answer within {service.limits.answer_seconds:g} s; try again") from None
        images = [
            image_answer(upload.name, row, service.classes, top) for upload, row in zip(uploads, scored, strict=True)
        ]
        if len(images) == 1 and "error" in images[0]:
            return _answer({"error": f"{images[0]['name']}: {images[0]['error']}", "images": images}, 422)
        return _answer({"images": images})

    return Starlette(
        routes=[
            Route("/", lambda request: HTMLResponse(page(), headers=HEADERS)),
            Route("/healthz", lambda request: _answer({"status": "ok"})),
            Route("/predict", predict, methods=["POST"]),
        ],
        exception_handlers={Refused: _refused, HTTPException: _not_found, ClientDisconnect: _gone, Exception: _failed},
    )


def check_token(request: Request, token: str) -> None:
    """Raise Refused unless the request has the header `Authorization: Bearer TOKEN`."""
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    # In constant time, so that answers do not tell how much of a guess is right.
    if not hmac.compare_digest(given.strip().encode(), token.encode()) or scheme.lower() != "bearer":
        raise Refused(401, "the token is missing or wrong; send the header Authorization: Bearer TOKEN")


def _top(request: Request) -> int:
    text = request.query_params.get("top", str(TOP))
    if not (text.isascii() and text.isdigit() and 0 < len(text) < 7 and int(text)):
        raise Refused(400, f"top: a number of classes from 1 on, not {text[:20]!r}")
    return int(text)


def _explain(request: Request) -> bool:
    text = request.query_params.get("explain", "0")
    if text not in ("0", "1"):
        raise Refused(400, f"explain: 0, or 1 for heat maps, not {text[:20]!r}")
    return text == "1"


def _answer(content: object, status: int = 200, **headers: str) -> Response:
    return JSONResponse(content, status, {**HEADERS, **headers})


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    headers = {401: {"WWW-Authenticate": "Bearer"}, 408: {"Connection": "close"}, 503: {"Retry-After": "1"}}
    return _answer({"error": str(error)}, error.status, **headers.get(error.status, {}))


async def _not_found(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    text = f"{error.detail}: there are GET /, GET /healthz and POST /predict"
    return _answer({"error": text}, error.status_code, **(error.headers or {}))


async def _gone(request: Request, error: Exception) -> Response:
    return _answer({"error": "the client has gone"}, 400)


async def _failed(request: Request, error: Exception) -> Response:
    show_error(f"{request.url.path}: {type(error).__name__}: {error}"[:500])
    return _answer({"error": "an error of the server; its console has the reason"}, 500)
