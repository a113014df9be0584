"""A bucket of S3."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pdk.errors import NotFound, TemporaryError, UserError


@dataclass(frozen=True)
class S3Bucket:
    """A bucket of S3; credentials and endpoint as boto3 finds them."""

    bucket: str

    @property
    def uri(self) -> str:
        """Return the URI that KServe reads it by."""
        return f"s3://{self.bucket}"

    @contextmanager
    def _client(self) -> Iterator[Any]:
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError  # noqa: A004 - not Python's own

        try:
            yield boto3.client("s3")
        except ClientError as error:
            status = int(error.response["ResponseMetadata"].get("HTTPStatusCode") or 500)
            kind = TemporaryError if status >= 500 or status == 429 else NotFound if status == 404 else UserError
            raise kind(f"the bucket {self.bucket!r} cannot be used: {error}") from error
        except (ConnectionError, HTTPClientError) as error:
            raise TemporaryError(f"the store of the bucket {self.bucket!r} does not answer: {error}") from error
        except BotoCoreError as error:
            raise UserError(f"the bucket {self.bucket!r} cannot be used: {error}") from error

    def check(self) -> None:
        """Look whether the bucket is there and may be used."""
        with self._client() as client:
            client.head_bucket(Bucket=self.bucket)

    def exists(self, key: str) -> bool:
        """Say whether there is an object of exactly this key."""
        try:
            with self._client() as client:
                client.head_object(Bucket=self.bucket, Key=key)
        except NotFound:
            return False
        return True

    def put(self, key: str, source: Path) -> None:
        """Write an object; a large one in parts."""
        from boto3.exceptions import S3UploadFailedError

        try:
            with self._client() as client:
                client.upload_file(str(source), self.bucket, key)
        except S3UploadFailedError as error:  # boto3 wraps what the service said
            raise UserError(f"{key} cannot be put into the bucket {self.bucket!r}: {error}") from error
