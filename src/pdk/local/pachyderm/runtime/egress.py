"""Copies what a job wrote to an object store or a folder."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pdk.errors import UserError
from pdk.kit.db import Database
from pdk.kit.reach import Reach, folder_of
from pdk.local.pachyderm.store.blobs import BlobStore
from pdk.local.pachyderm.store.locations import find

TRIES = 5  # of a copy, before the job fails
PAUSE_S = 1.0  # before the second try; doubles from then on


async def send(db: Database, blobs: BlobStore, reach: Reach, job: int, url: str) -> None:
    """Copy every file of a job's output to `url`, as often as it takes up to `TRIES` times.

    Raises:
        NotAllowed: the operator did not name that place.
        UserError: it could not be done.
    """
    allowed = reach.target(url)
    for attempt in range(1, TRIES + 1):
        try:
            await asyncio.to_thread(_send, db, blobs, job, url, allowed)
        except Exception as error:  # three libraries' own
            if attempt == TRIES:
                raise UserError(
                    f"egress to {url} failed {TRIES} times; the last time: {error}; the job's output is not committed"
                ) from error
            await asyncio.sleep(PAUSE_S * 2 ** (attempt - 1))
        else:
            return


def _send(db: Database, blobs: BlobStore, job: int, url: str, allowed: str) -> None:
    put = _target(url, allowed)
    with db.own_reader() as reader:
        sql = "SELECT f.path, f.hash FROM datum d JOIN result_file f ON f.result = d.result WHERE d.job = ? ORDER BY f.path"
        for row in reader.execute(sql, (job,)).fetchall():
            blob = find(reader, row["hash"])
            if blob is None:
                raise UserError(f"the content of {row['path']} is missing from the store; run `pdk fsck`")
            put(row["path"].lstrip("/"), blobs.read(blob))


def _target(url: str, allowed: str) -> Callable[[str, Iterator[bytes]], None]:
    """Return a function that writes one file (path below the URL, content).

    Args:
        allowed: the URL that the operator named, at or above `url`.
    """
    parts = urlsplit(url)
    prefix = parts.path.strip("/")
    if parts.scheme == "file":
        root = folder_of(allowed)
        return _folder(root.resolve(strict=True), folder_of(url).relative_to(root).parts)
    if parts.scheme == "s3":
        import boto3

        client = boto3.client("s3")
        return _uploaded(lambda key, file: client.upload_fileobj(file, parts.netloc, key), prefix)
    from google.cloud import storage

    bucket = storage.Client().bucket(parts.netloc)
    return _uploaded(lambda key, file: bucket.blob(key).upload_from_file(file), prefix)


def _folder(root: Path, below: Sequence[str]) -> Callable[[str, Iterator[bytes]], None]:
    """Write below the operator's folder without following links: who runs jobs may have left some there."""

    def put(path: str, content: Iterator[bytes]) -> None:
        *folders, name = [*below, *path.split("/")]
        with contextlib.ExitStack() as stack:
            at = _enter(stack, str(root), None)
            for part in folders:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, dir_fd=at)
                at = _enter(stack, part, at)
            temporary = f".{name}.{secrets.token_hex(4)}"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            with os.fdopen(os.open(temporary, flags, 0o644, dir_fd=at), "wb") as file:
                file.writelines(content)
            os.replace(temporary, name, src_dir_fd=at, dst_dir_fd=at)

    return put


def _enter(stack: contextlib.ExitStack, folder: str, above: int | None) -> int:
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
    stack.callback(os.close, descriptor)
    return descriptor


def _uploaded(upload: Callable[[str, Any], object], prefix: str) -> Callable[[str, Iterator[bytes]], None]:
    def put(path: str, content: Iterator[bytes]) -> None:
        with tempfile.TemporaryFile() as file:
            for part in content:
                file.write(part)
            file.seek(0)
            upload(f"{prefix}/{path}" if prefix else path, file)

    return put
