"""Model stores: where archives are put, and the URI that KServe reads them from.

What is put is named by the digest of what it is made from (`pdk.flow.deploy.archive.digest_of`), so a step that is run again finds what
it made before instead of making it twice. A URI is handed out only when it can be read.

A bucket store is one module with a `Bucket`, and one line in `BUCKETS`; what is kept in it, and in which order, is said once, in
`BucketStore`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pdk.errors import UserError
from pdk.stores.azure import AzureContainer
from pdk.stores.gcs import GcsBucket
from pdk.stores.s3 import S3Bucket

Files = Mapping[str, Path]  # path below a model's folder → file that holds the content


class Store(Protocol):
    """Where models are put. An implementation raises PdkError only."""

    def find(self, *, model: str, digest: str) -> str | None:
        """Return the URI of a model's folder with this digest, if it was put before."""

    def check(self) -> None:
        """Raise PdkError, with the reason, where the store cannot be used."""

    def put(self, *, model: str, files: Files, digest: str) -> str:
        """Keep a model's files; returns the URI of the folder."""


class Bucket(Protocol):
    """What a cloud's object store must offer. An implementation raises PdkError only: TemporaryError where nobody answers."""

    @property
    def uri(self) -> str:
        """Return the URI below which KServe reads what is put, without a slash at its end."""

    def check(self) -> None:
        """Raise PdkError, with the reason, where the bucket is missing or may not be used."""

    def exists(self, key: str) -> bool:
        """Say whether there is an object of exactly this key."""

    def put(self, key: str, source: Path) -> None:
        """Write an object, whole or not at all; one that is there is replaced."""


@dataclass(frozen=True)
class BucketStore:
    """Models in a bucket, each archive under ``MODEL/DIGEST``, so that what a service reads never changes.

    The archive comes last: where it is, everything is.
    """

    bucket: Bucket

    def __str__(self) -> str:
        return self.bucket.uri

    def find(self, *, model: str, digest: str) -> str | None:
        """Return the URI of the folder, where its archive is there."""
        folder = folder_of(model, digest)
        return f"{self.bucket.uri}/{folder}" if self.bucket.exists(f"{folder}/{archive_of(model)}") else None

    def check(self) -> None:
        """Look whether the bucket is there and may be used."""
        self.bucket.check()

    def put(self, *, model: str, files: Files, digest: str) -> str:
        """Upload everything, the archive last."""
        folder = folder_of(model, digest)
        for path, source in sorted(files.items(), key=lambda pair: pair[0] == archive_of(model)):
            self.bucket.put(f"{folder}/{path}", source)
        return f"{self.bucket.uri}/{folder}"


def folder_of(model: str, digest: str) -> str:
    """Return the folder of an archive in a store."""
    return f"{model}/{digest[:16]}"


def archive_of(model: str) -> str:
    """Return the path of an archive in its folder, where the serving runtime looks for it."""
    return f"model-store/{model}.mar"


BUCKETS: Mapping[str, Callable[[str, Path | None], Bucket]] = {  # by the name that --cloud-model-host takes
    "aws": lambda bucket, _: S3Bucket(bucket),
    "gcp": GcsBucket,
    "azure": lambda bucket, _: AzureContainer(bucket),
}


def bucket_of(host: str, bucket: str, google_credentials: Path | None = None) -> BucketStore:
    """Return the store in a bucket of a cloud.

    Args:
        host: one of `BUCKETS`.
        google_credentials: key file of a Google service account; without it as Google's library finds them.

    Raises:
        UserError: there is no cloud of that name.
    """
    if host not in BUCKETS:
        raise UserError(f"there is no model host {host!r}; known are {', '.join(BUCKETS)}")
    return BucketStore(BUCKETS[host](bucket, google_credentials))
