"""A bucket of Google Cloud Storage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pdk.errors import TemporaryError, UserError


@dataclass(frozen=True)
class GcsBucket:
    """A bucket of GCS.

    Args:
        bucket: its name.
        credentials: key file of a service account; without it as Google's library finds them.
    """

    bucket: str
    credentials: Path | None = None

    @property
    def uri(self) -> str:
        """Return the URI that KServe reads it by."""
        return f"gs://{self.bucket}"

    @contextmanager
    def _bucket(self) -> Iterator[Any]:
        from google.api_core.exceptions import GoogleAPIError, RetryError, ServerError
        from google.auth.exceptions import GoogleAuthError, TransportError
        from google.cloud import storage

        key = self.credentials
        if key and not key.is_file():
            raise UserError(f"the key file {key} is not there; mount it into the job, or leave --google-application-credentials out")
        try:
            client = storage.Client.from_service_account_json(str(key)) if key else storage.Client()
            yield client.bucket(self.bucket)
        except (ServerError, RetryError, TransportError, OSError) as error:
            raise TemporaryError(f"the store of the bucket {self.bucket!r} does not answer: {error}") from error
        except (GoogleAPIError, GoogleAuthError) as error:
            raise UserError(f"the bucket {self.bucket!r} cannot be used: {error}") from error

    def check(self) -> None:
        """Look whether the bucket is there and may be used."""
        with self._bucket() as bucket:
            if not bucket.exists():
                raise UserError(f"there is no bucket {self.bucket!r}")

    def exists(self, key: str) -> bool:
        """Say whether there is an object of exactly this key."""
        with self._bucket() as bucket:
            return bool(bucket.blob(key).exists())

    def put(self, key: str, source: Path) -> None:
        """Write an object."""
        from google.cloud.storage.retry import DEFAULT_RETRY  # writing the same content again does no harm

        with source.open("rb") as file, self._bucket() as bucket:
            blob, size = bucket.blob(key), source.stat().st_size
            blob.upload_from_file(file, size=size, content_type="application/octet-stream", retry=DEFAULT_RETRY)
