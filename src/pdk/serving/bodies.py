"""What a request brings: its bytes within limits, and the instances of a V1 prediction in one of their forms."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from starlette.datastructures import Headers
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from pdk.serving.runner import Rejected
from pdk.settings import Serving

MAX_PARTS = 1000  # of a form
RAW = ("image/", "audio/", "video/")
UNNAMED = ("application/octet-stream", "text/plain")  # what clients say who were not told: JSON where it looks like it


async def read(request: Request, settings: Serving) -> bytes:
    """Return the whole body.

    Raises:
        Rejected: it is too large (413), comes too slowly (408), or does not come whole (400).
    """
    try:
        async with asyncio.timeout(settings.receive_s):
            first = await request.receive()  # mostly all of it
            if first.get("more_body"):
                return await _read_on(request, first, settings.body_limit)
    except TimeoutError:
        raise Rejected(408, f"the request did not arrive within {settings.receive_s:g} s") from None
    if first["type"] != "http.request":
        raise Rejected(400, "the connection was closed before the request was whole")
    return _within(bytes(first.get("body", b"")), settings.body_limit)


async def _read_on(request: Request, first: Mapping[str, Any], limit: int) -> bytes:
    parts, size, message = list[bytes](), 0, first
    while True:
        if message["type"] != "http.request":
            raise Rejected(400, "the connection was closed before the request was whole")
        parts.append(_within(message.get("body", b""), limit - size))
        size += len(parts[-1])
        if not message.get("more_body"):
            return b"".join(parts)
        message = await request.receive()


def _within(part: bytes, limit: int) -> bytes:
    if len(part) > limit:
        raise Rejected(413, f"the request is larger than {Serving.body_limit:,} bytes")
    return part


def parse(body: bytes) -> dict[str, Any]:
    """Return the JSON object of a request.

    Raises:
        Rejected: it is not a JSON object.
    """
    try:
        made = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Rejected(400, f"Unrecognized request format: {error}") from error
    if not isinstance(made, dict):
        raise Rejected(400, f"Expected a JSON object, not {type(made).__name__}")
    return made


async def instances(headers: Headers, body: bytes) -> list[Any]:
    """Return the instances of a V1 request: ``{"instances": […]}``, parts of a form, or one picture (or the like) as it is.

    Parts of a form become one instance, a mapping of their names; where each name comes several times, so many. A body that is no
    JSON, by its content type or where that says little by its first letter, becomes one instance under the names ``data`` and
    ``body``, as TorchServe's handlers look for it.

    Raises:
        Rejected: 400, with what is wrong.
    """
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _parts(headers, body)
    if kind.startswith(RAW) or (kind in UNNAMED and not body.lstrip().startswith(b"{")):
        return [{"data": body, "body": body}]
    content = parse(body)
    if "instances" not in content:
        raise Rejected(400, 'Expected a JSON object with the key "instances"')
    found = content["instances"]
    if not isinstance(found, list) or not found:
        raise Rejected(400, 'Expected "instances" to be a list with at least one element')
    return found


async def _parts(headers: Headers, body: bytes) -> list[Mapping[str, bytes | str]]:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield body
        yield b""

    parser = MultiPartParser(headers, stream(), max_files=MAX_PARTS, max_fields=MAX_PARTS, max_part_size=len(body) + 1)
    opened = parser._files_to_close_on_error  # noqa: SLF001 - the parser itself closes them after some errors only
    named: dict[str, list[bytes | str]] = {}
    try:
        form = await parser.parse()
        for name, value in form.multi_items():
            named.setdefault(name, []).append(value if isinstance(value, str) else await value.read())
        if len(opened) > sum(not isinstance(value, str) for _, value in form.multi_items()):
            raise Rejected(400, "the form ends within a part")
    except (MultiPartException, KeyError, UnicodeDecodeError, ValueError) as error:
        raise Rejected(400, f"the form cannot be read: {getattr(error, 'message', error)}") from error
    finally:
        for file in opened:
            file.close()
    counts = {name: len(values) for name, values in named.items()}
    if len(set(counts.values())) != 1:
        raise Rejected(400, f"every part must come equally often, once for each instance: {counts or 'the form is empty'}")
    return [dict(zip(named, row, strict=True)) for row in zip(*named.values(), strict=True)]
