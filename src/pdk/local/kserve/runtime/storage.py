"""The storage initializer: brings a model store to disk, exactly the objects under its prefix, once for the same content."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import sqlite3
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pdk.durable import sync
from pdk.errors import TemporaryError, UserError
from pdk.local.kserve.rules.kinds import SECRET, SERVICE_ACCOUNT, Json
from pdk.local.kserve.store import table

ANNOTATION = "serving.kserve.io/"


@dataclass(frozen=True)
class S3Access:
    """How to reach a bucket; without keys requests are not signed."""

    endpoint: str | None = None
    access_key: str | None = None
    secret_key: str | None = None
    region: str = "us-east-1"


def access_for(db: sqlite3.Connection, namespace: str, account: str) -> S3Access:
    """Return the S3 credentials that a service account carries, as KServe finds them (annotations on the secret).

    Raises:
        UserError: the service account does not exist.
    """
    found = table.get(db, SERVICE_ACCOUNT.resource, namespace, account)
    if found is None:
        raise UserError(f"the service account {account!r} does not exist in namespace {namespace!r}; create it with `kubectl create sa`")
    for reference in found.get("secrets") or []:
        secret = table.get(db, SECRET.resource, namespace, str(reference.get("name")))
        if secret and "AWS_SECRET_ACCESS_KEY" in (secret.get("data") or {}):
            return _access(secret)
    return S3Access()


def _access(secret: Json) -> S3Access:
    data = {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}
    notes = {key.removeprefix(ANNOTATION): value for key, value in (secret["metadata"].get("annotations") or {}).items()}
    endpoint = notes.get("s3-endpoint")
    if endpoint and "://" not in endpoint:
        endpoint = f"{'http' if notes.get('s3-usehttps') == '0' else 'https'}://{endpoint}"
    return S3Access(endpoint, data.get("AWS_ACCESS_KEY_ID"), data.get("AWS_SECRET_ACCESS_KEY"), notes.get("s3-region") or "us-east-1")


def fetch(uri: str, cache: Path, access: S3Access) -> Path:
    """Return the folder that holds what `uri` names; its content never changes.

    Raises:
        UserError: the scheme is not offered, the bucket cannot be read, or nothing is there.
        TemporaryError: nobody answers at the store, or it answers with a failure of its own.
    """
    parts = urlsplit(uri)
    if parts.scheme != "s3":
        raise UserError(f"storageUri {uri!r}: the local server reads s3:// only")
    if not parts.netloc:
        raise UserError(f"storageUri {uri!r} names no bucket")
    import boto3
    import botocore
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError  # noqa: A004 - not Python's own

    signature = {} if access.access_key else {"signature_version": botocore.UNSIGNED}
    config = Config(s3={"addressing_style": "path"}, retries={"max_attempts": 3}, connect_timeout=5, read_timeout=60, **signature)
    client = boto3.client(
        "s3", endpoint_url=access.endpoint, region_name=access.region, config=config,
        aws_access_key_id=access.access_key, aws_secret_access_key=access.secret_key,
    )  # fmt: skip
    prefix = parts.path.strip("/") + "/" if parts.path.strip("/") else ""
    try:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=parts.netloc, Prefix=prefix)
        listed = sorted((entry["Key"], entry["ETag"], entry["Size"]) for page in pages for entry in page.get("Contents", []))
        if not listed:
            raise UserError(f"there is nothing at {uri}; is the commit finished, and the path right?")
        target = cache / hashlib.sha256(json.dumps(listed).encode()).hexdigest()[:32]
        if target.exists():
            return target
        cache.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=cache, prefix=".incoming-"))
        try:
            for key, _tag, size in listed:
                path = scratch / _inside(key[len(prefix) :])
                path.parent.mkdir(parents=True, exist_ok=True)
                client.download_file(parts.netloc, key, str(path))
                if path.stat().st_size != size:
                    raise TemporaryError(f"{uri}: {key} arrived with {path.stat().st_size} bytes instead of {size}")
            scratch.chmod(0o755)
            _make_durable(scratch)  # what has the name of its content must be that content, also after the machine went down
            os.rename(scratch, target)  # noqa: PTH104 - two downloads of the same content may race; either may win
        except OSError:
            if not target.exists():
                raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except (ConnectionError, HTTPClientError) as error:
        raise TemporaryError(f"{uri} cannot be read: {error}") from error
    except ClientError as error:
        status = int(error.response["ResponseMetadata"].get("HTTPStatusCode") or 500)
        kind = TemporaryError if status >= 500 or status == 429 else UserError
        raise kind(f"{uri} cannot be read: {error}") from error
    except BotoCoreError as error:
        raise UserError(f"{uri} cannot be read: {error}") from error
    return target


def _make_durable(folder: Path) -> None:
    for place, _, names in os.walk(folder):
        for path in (Path(place), *(Path(place) / name for name in names)):
            sync(path)


def _inside(key: str) -> str:
    """Return a key as a relative path.

    Raises:
        UserError: it would leave the folder.
    """
    if key.startswith("/") or any(part in ("", ".", "..") for part in key.split("/")):
        raise UserError(f"the model store holds the key {key!r}, which is no plain path")
    return key
