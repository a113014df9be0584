"""Puts files that lie elsewhere: the server fetches them itself, where its operator lets it go (`pdk.kit.reach`)."""

from __future__ import annotations

import asyncio
from functools import partial
from urllib.parse import urljoin

from pdk.errors import NotSupported
from pdk.kit.reach import NotAllowed, Reach, public_socket, split
from pdk.local.pachyderm.rules.model import Refused
from pdk.local.pachyderm.runtime.uploads import Upload

PART = 1 << 20  # bytes that are fetched at once
REDIRECTS = 10  # that are followed
CONNECT_S, SILENT_S, TOTAL_S = 30.0, 60.0, 3600.0  # to connect, without a byte, for everything


async def fetch(upload: Upload, reach: Reach, path: str, url: str, *, recursive: bool) -> None:
    """Add what lies at `url` (http, https, s3) as `path`; with `recursive`, every object below an s3 URL under `path`.

    Raises:
        Refused: it cannot be had; in the engine's words where it has some.
        NotAllowed: the server does not go there.
    """
    scheme = split(url).scheme
    if scheme in ("http", "https"):
        await _web(upload, reach, path, url)
    elif scheme == "s3":
        reach.check_bucket(url)
        await asyncio.to_thread(partial(_s3, upload, reach, path, url, recursive=recursive))
    elif scheme in ("gs", "gcs", "azblob", "wasb", "file", "minio"):
        raise NotSupported(f"files by {scheme}:// are not supported locally; download them and put them, or give an http(s) or s3 URL")
    else:
        raise Refused(f"unrecognized object store: {scheme}")


async def _web(upload: Upload, reach: Reach, path: str, url: str) -> None:
    import aiohttp  # here and not above: it takes a while to import, and few servers ever need it

    at = url
    try:
        for _ in range(REDIRECTS):
            if (onward := await _one(upload, reach, path, at)) is None:
                return
            at = urljoin(at, onward)
            if split(at).scheme not in ("http", "https"):
                raise Refused(f'error retrieving content from "{url}": it leads to {at}, which is neither http nor https')
    except NotAllowed as error:
        raise NotAllowed(f'error retrieving content from "{url}": {error}') from None
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise Refused(f'error retrieving content from "{url}": {error or type(error).__name__}') from error
    raise Refused(f'error retrieving content from "{url}": it leads elsewhere more than {REDIRECTS} times')


async def _one(upload: Upload, reach: Reach, path: str, url: str) -> str | None:
    """Fetch one URL; returns where it leads to instead, if it does."""
    import aiohttp

    limits = aiohttp.ClientTimeout(total=TOTAL_S, connect=CONNECT_S, sock_read=SILENT_S)
    connector = aiohttp.TCPConnector() if reach.named(url) else aiohttp.TCPConnector(socket_factory=public_socket)
    async with aiohttp.ClientSession(connector=connector, timeout=limits) as session, session.get(url, allow_redirects=False) as answer:
        if answer.status in (301, 302, 303, 307, 308) and (onward := answer.headers.get("Location")):
            return onward
        if answer.status >= 400:
            raise Refused(f'error retrieving content from "{url}": {answer.status} {answer.reason}')
        upload.add(path, b"")
        size = 0
        async for part in answer.content.iter_chunked(PART):
            size += len(part)
            _check_size(reach, url, size)
            upload.add(path, part)
    return None


def _check_size(reach: Reach, url: str, size: int) -> None:
    if size > reach.limit:
        raise Refused(f'error retrieving content from "{url}": it has more than {reach.limit:,} bytes; download it and put the file')


def _s3(upload: Upload, reach: Reach, path: str, url: str, *, recursive: bool) -> None:
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    parts = split(url)
    bucket, key = parts.netloc, parts.path.lstrip("/")
    try:
        client = boto3.client("s3")
        keys = [key]
        if recursive:
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key)
            keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
            for name in keys:  # before the first byte: all or nothing
                reach.check_bucket(f"s3://{bucket}/{name}")
        for name in keys:
            target = f"{path.rstrip('/')}/{name[len(key) :].lstrip('/')}" if recursive else path
            found = client.get_object(Bucket=bucket, Key=name)
            _check_size(reach, f"s3://{bucket}/{name}", found["ContentLength"])
            upload.add(target, b"")
            for part in found["Body"].iter_chunks(PART):
                upload.add(target, part)
    except (BotoCoreError, ClientError) as error:
        raise Refused(f'error retrieving content from "{url}": {error}') from error
