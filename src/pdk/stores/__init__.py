"""Model stores: where archives are put, and the URI that KServe reads them from.

What is put is named by the digest of what it is made from (`pdk.flow.deploy.archive.digest_of`), so a step that is run again finds what
it made before instead of making it twice. A URI is handed out only when it can be read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol


class Store(Protocol):
    """The seam. An implementation raises PdkError only."""

    def find(self, *, model: str, digest: str) -> str | None:
        """The URI of a model's folder with this digest, if it was put before."""

    def check(self) -> None:
        """Raise PdkError, with the reason, where the store cannot be used."""

    def put(self, *, model: str, files: Mapping[str, bytes], digest: str) -> str:
        """Keep a model's files (path below its folder → content); returns the URI of the folder."""


def bucket_of(host: str, bucket: str, google_credentials: Path | None = None) -> Store:
    """A bucket on ``aws`` or ``gcp``, as ``--cloud-model-host`` names them."""
    from pdk.stores.gcs import GcsStore
    from pdk.stores.s3 import S3Store

    return S3Store(bucket) if host == "aws" else GcsStore(bucket, google_credentials)
