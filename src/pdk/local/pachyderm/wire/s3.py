"""The S3 gateway: commits and branches as buckets."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from xml.etree import ElementTree as ET

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pdk.errors import PdkError
from pdk.kit import peers
from pdk.kit.db import Database
from pdk.local.pachyderm.rules import commits
from pdk.local.pachyderm.rules.model import Commit, CommitRef
from pdk.local.pachyderm.store.blobs import BlobStore
from pdk.local.pachyderm.wire.s3_common import S3Error, commit_of_version, element, parse_bucket, xml
from pdk.local.pachyderm.wire.s3_read import Reads
from pdk.local.pachyderm.wire.s3_signed import verify
from pdk.local.pachyderm.wire.s3_write import Writes

NOT_OFFERED = frozenset(
    """accelerate acl analytics cors encryption inventory lifecycle logging metrics notification object-lock policy policyStatus
    publicAccessBlock replication requestPayment tagging website versions legal-hold retention torrent restore select""".split()  # noqa: SIM905
)


def refusal_body(status: int, reason: str) -> object:
    """Return the body of a refusal by the door."""
    return {"status": status, "error": reason}


class Gateway:
    """The HTTP side; what the repos hold comes from the same database as the gRPC side.

    Args:
        required: whether requests must be signed with the installation's secret; those of another user of this machine must in any case.
        buckets: names that stand for commits; where given, there are no other buckets, and nothing can be written.
    """

    def __init__(
        self, db: Database, blobs: BlobStore, secret: str, *, required: bool, buckets: Mapping[str, CommitRef] | None = None
    ) -> None:
        self.db, self.secret, self.required, self.names = db, secret, required, buckets
        self.reads, self.writes = Reads(db, blobs), Writes(db, blobs)

    def routes(self) -> list[Route]:
        """For Starlette."""
        everything = ["GET", "HEAD", "PUT", "POST", "DELETE"]
        return [
            Route("/", self.answer, methods=everything),
            Route("/{bucket}", self.answer, methods=everything),
            Route("/{bucket}/{key:path}", self.answer, methods=everything),
        ]

    async def answer(self, request: Request) -> Response:
        """Any request."""
        try:
            self._admit(request)
            return await self._route(request, request.path_params.get("bucket") or "", request.path_params.get("key") or "")
        except S3Error as error:
            return _refusal(request, error)
        except PdkError as error:
            return _refusal(request, S3Error("InternalError", str(error)))

    async def _route(self, request: Request, bucket: str, key: str) -> Response:
        query = request.query_params
        if NOT_OFFERED & query.keys():
            raise S3Error("NotImplemented")
        if self.names is not None and request.method not in ("GET", "HEAD"):
            raise S3Error("NotImplemented", "a job's S3 inputs can only be read")
        if request.method in ("GET", "HEAD"):
            if not bucket:
                return self.reads.buckets(self.names)
            ref = self._named(bucket)
            if "uploads" in query or "uploadId" in query:
                return self.writes.list_uploads(bucket) if not key else self.writes.list_parts(request, bucket, key)
            if key and (version := query.get("versionId", "null")) != "null":
                return await self.reads.object(request, commit_of_version(self.db.reader, ref, version), key)
            commit = self._commit(ref)
            return await self.reads.object(request, commit, key) if key else self.reads.bucket(request, bucket, commit)
        return await self.writes.answer(request, bucket, key)

    def _named(self, bucket: str) -> CommitRef:
        if self.names is None:
            return parse_bucket(bucket)
        if bucket not in self.names:
            raise S3Error("NoSuchBucket", f"The job's buckets are {', '.join(self.names)}")
        return self.names[bucket]

    def _commit(self, ref: CommitRef) -> Commit:
        try:
            return commits.resolve(self.db.reader, ref)
        except PdkError as error:
            raise S3Error("NoSuchBucket", f"The specified bucket does not exist: {error}") from error

    def _admit(self, request: Request) -> None:
        if not self.required and peers.of_scope(request.scope):
            return
        request.state.seal = verify(request, self.secret)


def _refusal(request: Request, error: S3Error) -> Response:
    root, name = ET.Element("Error"), str(uuid.uuid4())
    for tag, text in (("Code", error.code), ("Message", str(error)), ("Resource", request.url.path), ("RequestId", name)):
        element(root, tag, text)
    return xml(root, error.status, {"x-amz-request-id": name, "x-amz-id-2": name})
