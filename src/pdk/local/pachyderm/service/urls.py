"""Puts files that lie elsewhere: the server fetches them itself."""

from __future__ import annotations

import asyncio
from functools import partial
from urllib.parse import urlsplit

from pdk.errors import NotSupported
from pdk.local.pachyderm.service.model import Refused
from pdk.local.pachyderm.service.uploads import Upload

PART = 1 << 20


async def fetch(upload: Upload, path: str, url: str, *, recursive: bool) -> None:
    """Add what lies at `url` (http, https, s3) as `path`; with `recursive`, every object below an s3 URL under `path`.

    Raises:
        Refused: it cannot be had; in the engine's words where it has some.
    """
    scheme = urlsplit(url).scheme
    if scheme in ("http", "https"):
        await _web(upload, path, url)
    elif scheme == "s3":
        await asyncio.to_thread(partial(_s3, upload, path, url, recursive=recursive))
    elif scheme in ("gs", "gcs", "azblob", "wasb", "file", "minio"):
        raise NotSupported(f"files by {scheme}:// are not supported locally; download them and put them, or give an http(s) or s3 URL")
    else:
        raise Refused(f"unrecognized object store: {scheme}")


async def _web(upload: Upload, path: str, url: str) -> None:
    import aiohttp  # here and not above: it takes a while to import, and few servers ever need it

    try:
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            if answer.status >= 400:
                raise Refused(f'error retrieving content from "{url}": {answer.status} {answer.reason}')
            upload.add(path, b"")
            async for part in answer.content.iter_chunked(PART):
                upload.add(path, part)
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise Refused(f'error retrieving content from "{url}": {error}') from error


def _s3(upload: Upload, path: str, url: str, *, recursive: bool) -> None:
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    parts = urlsplit(url)
    bucket, key = parts.netloc, parts.path.lstrip("/")
    try:
        client = boto3.client("s3")
        keys = [key]
        if recursive:
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key)
            keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
        for name in keys:
            target = f"{path.rstrip('/')}/{name[len(key) :].lstrip('/')}" if recursive else path
            upload.add(target, b"")
            for part in client.get_object(Bucket=bucket, Key=name)["Body"].iter_chunks(PART):
                upload.add(target, part)
    except (BotoCoreError, ClientError) as error:
        raise Refused(f'error retrieving content from "{url}": {error}') from error
