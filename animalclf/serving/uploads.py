"""The images of a request: the files of a multipart form, or base64 in JSON. Neither paths nor addresses are read."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import AsyncIterator
from typing import NamedTuple

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from animalclf.serving.limits import Limits, Refused

MAX_NAME = 255  # characters of a file name that the answer repeats
FORMATS = 'send the files as multipart/form-data, or JSON {"images": ["<base64>", ...]}'


class Upload(NamedTuple):
    """An image file; `name` is for the answer only."""

    name: str
    content: bytes


async def read_uploads(headers: Headers, stream: AsyncIterator[bytes], limits: Limits) -> list[Upload]:
    """The images of a request whose body is the (limited) `stream`, one or more. Raises Refused."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        uploads = await _files(headers, stream, limits)
    elif kind == "application/json":
        uploads = await asyncio.to_thread(_decoded, b"".join([chunk async for chunk in stream]))
    else:
        raise Refused(415, FORMATS)
    if not uploads:
        raise Refused(400, f"no images; {FORMATS}")
    if len(uploads) > limits.max_images:
        raise Refused(413, f"{len(uploads):,} images in one request; send at most {limits.max_images}")
    return uploads


async def _files(headers: Headers, stream: AsyncIterator[bytes], limits: Limits) -> list[Upload]:
    parser = MultiPartParser(headers, stream, max_files=limits.max_images)  # type: ignore[arg-type]
    parser.spool_max_size = limits.max_upload + 1  # files stay in memory, which `limited` bounds
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError) as error:  # KeyError: no boundary
        reason = error.message if isinstance(error, MultiPartException) else "the header names no boundary"
        raise Refused(400, f"not a multipart form: {reason}") from None
    except UnicodeError:  # of codecs such as `undefined`
        raise Refused(400, "not a multipart form: a name is no text of its charset; send UTF-8") from None
    files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
    uploads = [Upload(_name(file.filename or f"image {n}"), await file.read()) for n, file in enumerate(files)]
    await form.close()
    return uploads


def _name(text: str) -> str:
    """The first MAX_NAME characters, with question marks for those that no answer can have: single surrogates."""
    return text[:MAX_NAME].encode(errors="replace").decode()


def _decoded(body: bytes) -> list[Upload]:
    try:
        images = json.loads(body)["images"]
    except (ValueError, KeyError, TypeError, RecursionError):
        images = None
    if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
        raise Refused(400, f"not JSON of that form; {FORMATS}")
    uploads = []
    for number, image in enumerate(images):
        try:
            uploads.append(Upload(f"image {number}", base64.b64decode("".join(image.split()), validate=True)))
        except (binascii.Error, ValueError):
            raise Refused(400, f"image {number}: not base64 (paths and addresses are not read)") from None
    return uploads
