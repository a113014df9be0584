"""A bucket of Google Cloud Storage: every model under its own digest, so that what a service reads never changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pdk.errors import TemporaryError, UserError


@dataclass(frozen=True)
class GcsStore:
    """Models in a bucket; `credentials` is a service account's key file, without it the environment's own identity counts."""

    bucket: str
    credentials: Path | None = None

    @contextmanager
    def _bucket(self) -> Iterator[Any]:
        from google.api_core.exceptions import GoogleAPIError, RetryError, ServerError
        from google.auth.exceptions import GoogleAuthError, TransportError
        from google.cloud import storage

        try:
            key = self.credentials
            client = storage.Client.from_service_account_json(str(key)) if key else storage.Client()
            yield client.bucket(self.bucket)
        except FileNotFoundError as error:
            raise UserError(f"the key file {self.credentials} is not there: {error}") from error
        except (ServerError, RetryError, TransportError, OSError) as error:
            raise TemporaryError(f"the store of the bucket {self.bucket!r} does not answer: {error}") from error
        except (GoogleAPIError, GoogleAuthError) as error:
            raise UserError(f"the bucket {self.bucket!r} cannot be used: {error}") from error

    def _prefix(self, model: str, digest: str) -> str:
        return f"{model}/{digest[:16]}"

    def check(self) -> None:
        """Look whether the bucket is there and may be used."""
        with self._bucket() as bucket:
            if not bucket.exists():
                raise UserError(f"there is no bucket {self.bucket!r}")

    def find(self, *, model: str, digest: str) -> str | None:
        """The folder, where its archive is there under its exact name: that is uploaded last."""
        prefix = self._prefix(model, digest)
        with self._bucket() as bucket:
            there = bucket.blob(f"{prefix}/model-store/{model}.mar").exists()
        return f"gs://{self.bucket}/{prefix}" if there else None

    def put(self, *, model: str, files: Mapping[str, bytes], digest: str) -> str:
        """Upload everything, the archive last."""
        prefix = self._prefix(model, digest)
        from google.cloud.storage.retry import DEFAULT_RETRY  # writing the same content again does no harm

        with self._bucket() as bucket:
            for path, content in sorted(files.items(), key=lambda pair: pair[0].endswith(".mar")):
                bucket.blob(f"{prefix}/{path}").upload_from_string(content, content_type="application/octet-stream", retry=DEFAULT_RETRY)
        return f"gs://{self.bucket}/{prefix}"
