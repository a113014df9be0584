"""A bucket of S3: every model under its own digest, so that what a service reads never changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pdk.errors import TemporaryError, UserError


@dataclass(frozen=True)
class S3Store:
    """Models in a bucket; credentials and endpoint as boto3 finds them."""

    bucket: str

    @contextmanager
    def _client(self) -> Iterator[Any]:
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError  # noqa: A004 - not Python's own

        try:
            yield boto3.client("s3")
        except ClientError as error:
            status = int(error.response["ResponseMetadata"].get("HTTPStatusCode") or 500)
            kind = TemporaryError if status >= 500 or status == 429 else UserError
            raise kind(f"the bucket {self.bucket!r} cannot be used: {error}") from error
        except (ConnectionError, HTTPClientError) as error:
            raise TemporaryError(f"the store of the bucket {self.bucket!r} does not answer: {error}") from error
        except BotoCoreError as error:
            raise UserError(f"the bucket {self.bucket!r} cannot be used: {error}") from error

    def _prefix(self, model: str, digest: str) -> str:
        return f"{model}/{digest[:16]}"

    def check(self) -> None:
        """Look whether the bucket is there and may be used."""
        with self._client() as client:
            client.head_bucket(Bucket=self.bucket)

    def find(self, *, model: str, digest: str) -> str | None:
        """The folder, where its archive is there under its exact key: that is uploaded last."""
        from botocore.exceptions import ClientError

        prefix = self._prefix(model, digest)
        with self._client() as client:
            try:
                client.head_object(Bucket=self.bucket, Key=f"{prefix}/model-store/{model}.mar")
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
                    raise
                return None
        return f"s3://{self.bucket}/{prefix}"

    def put(self, *, model: str, files: Mapping[str, bytes], digest: str) -> str:
        """Upload everything, the archive last."""
        prefix = self._prefix(model, digest)
        with self._client() as client:
            for path, content in sorted(files.items(), key=lambda pair: pair[0].endswith(".mar")):
                client.put_object(Bucket=self.bucket, Key=f"{prefix}/{path}", Body=content)
        return f"s3://{self.bucket}/{prefix}"
