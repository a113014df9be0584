"""The S3 gateway's writes: put, copy, delete, multipart uploads, buckets. Every write is a commit, or goes into the branch's open one."""

from __future__ import annotations

import hashlib
import time
from functools import partial
from urllib.parse import parse_qsl, unquote
from xml.etree import ElementTree as ET

from starlette.requests import Request
from starlette.responses import Response

from pdk.errors import Conflict, NotFound
from pdk.kit.db import Connection, Database
from pdk.local.pachyderm.rules import branches, commits, files, multipart, repos
from pdk.local.pachyderm.rules.model import BranchRef, Commit, CommitRef, Refused, check_path
from pdk.local.pachyderm.runtime.uploads import Upload, blob_of
from pdk.local.pachyderm.store import tree
from pdk.local.pachyderm.store.blobs import BlobStore
from pdk.local.pachyderm.store.incoming import Incoming
from pdk.local.pachyderm.wire.s3_body import content, whole
from pdk.local.pachyderm.wire.s3_common import (
    NAMESPACE,
    S3Error,
    commit_of_version,
    element,
    etag,
    parse_bucket,
    parse_xml,
    timestamp,
    whole_number,
    xml,
)
from pdk.local.pachyderm.wire.s3_conditions import WRITES, unchanged

PART_MINIMUM = 5 << 20  # bytes of every part but the last
PART_LIMIT = 10_000  # parts of an upload, as S3's
XML_LIMIT = 4 << 20  # bytes of a request's XML


class Writes:
    """Answers to PUT, POST and DELETE."""

    def __init__(self, db: Database, blobs: BlobStore) -> None:
        self.db, self.blobs = db, blobs

    async def answer(self, request: Request, bucket: str, key: str) -> Response:
        """Any request that changes something."""
        query, method = request.query_params, request.method
        if not bucket:
            raise S3Error("MethodNotAllowed")
        if not key:
            return await self._bucket(request, bucket)
        ref = self._target(bucket)
        try:
            check_path(key)
        except Refused as error:
            raise S3Error("InvalidFilePath", str(error)) from error
        if method == "PUT" and any(name in request.headers for name in WRITES):
            raise S3Error("NotImplemented", "writes with If-Match or If-None-Match are not offered")
        if method == "PUT" and "uploadId" in query and "x-amz-copy-source" in request.headers:
            raise S3Error("NotImplemented", "a part is not copied from another object; send its bytes, or copy the object as a whole")
        if method == "PUT" and "uploadId" in query:
            return await self._put_part(request, bucket, key)
        if method == "PUT" and key.endswith("/"):
            return await self._put_folder(request)
        if method == "PUT":
            return await (self._copy(request, ref, key) if "x-amz-copy-source" in request.headers else self._put(request, ref, key))
        if method == "POST" and "uploads" in query:
            return await self._begin(bucket, key)
        if method == "POST" and "uploadId" in query:
            return await self._complete(request, bucket, ref, key)
        if method == "DELETE" and "uploadId" in query:
            return await self._abort(request, bucket, key)
        if method == "DELETE":
            if "versionId" in query:
                raise S3Error("NotImplemented")
            await self._delete(ref, [key])
            return Response(status_code=204)
        raise S3Error("NotImplemented")

    def _target(self, bucket: str) -> CommitRef:
        """Return where writes to a bucket go.

        Raises:
            S3Error: nothing can be written there.
        """
        ref = parse_bucket(bucket)
        try:
            if not ref.branch:
                commits.resolve(self.db.reader, ref)
                return ref
            branch = repos.branch(self.db.reader, BranchRef(ref.repo, ref.branch))
        except NotFound as error:
            raise S3Error("NoSuchBucket") from error
        if repos.upstream(self.db.reader, branch.pk):
            raise S3Error("WriteToOutputBranch")
        return ref

    # buckets

    async def _bucket(self, request: Request, bucket: str) -> Response:
        if request.method == "POST" and "delete" in request.query_params:
            return await self._delete_many(request, self._target(bucket))
        ref = parse_bucket(bucket)
        if request.method == "PUT" and "versioning" in request.query_params:
            status = parse_xml(await whole(request, XML_LIMIT)).findtext("Status")
            if status != "Enabled":
                raise S3Error("NotImplemented", "every bucket keeps its versions: they are the branch's commits")
            return Response()
        if request.method == "PUT":
            return await self._create_bucket(ref)
        if request.method == "DELETE":
            return await self._delete_bucket(ref)
        raise S3Error("NotImplemented")

    async def _create_bucket(self, ref: CommitRef) -> Response:
        branch = BranchRef(ref.repo, ref.branch or "master")

        def work(db: Connection) -> None:
            try:
                repos.create_repo(db, ref.repo)
            except Conflict:
                if repos.find_branch(db, branch):
                    raise
            branches.create(db, branch)

        try:
            await self.db.write(work)
        except Conflict as error:
            raise S3Error("BucketAlreadyOwnedByYou") from error
        except Refused as error:
            raise S3Error("InvalidBucketName", str(error)) from error
        return Response()

    async def _delete_bucket(self, ref: CommitRef) -> Response:
        branch = BranchRef(ref.repo, ref.branch or "master")

        def work(db: Connection) -> None:
            found = repos.branch(db, branch)
            if found.head is not None and tree.root(db, commits.view(db, commits.by_pk(db, found.head))).files:
                raise S3Error("BucketNotEmpty")
            repos.delete_branch(db, branch, force=False)
            if not repos.list_branches(db, ref.repo):
                repos.delete_repo(db, ref.repo)

        try:
            await self.db.write(work)
        except NotFound as error:
            raise S3Error("NoSuchBucket") from error
        return Response(status_code=204)

    # objects

    async def _put(self, request: Request, ref: CommitRef, key: str) -> Response:
        with Upload(self.db, self.blobs) as upload:
            upload.replace(key, b"")
            async for part in content(request):
                upload.add(key, part)
            return self._written(await upload.commit(ref), key)

    async def _put_folder(self, request: Request) -> Response:
        """Clients mark empty folders by empty objects; folders here are those of their files."""
        async for part in content(request):
            if part:
                raise S3Error("InvalidFilePath", "a key that ends in '/' stands for a folder and has no content")
        return Response(headers={"ETag": f'"{hashlib.md5(usedforsecurity=False).hexdigest()}"'})

    def _written(self, commit: Commit, key: str) -> Response:
        return Response(headers={"ETag": etag(files.inspect(self.db.reader, commit, key)), "x-amz-version-id": commit.id})

    async def _copy(self, request: Request, ref: CommitRef, key: str) -> Response:
        path, _, query = request.headers["x-amz-copy-source"].partition("?")
        bucket, _, source_key = unquote(path).lstrip("/").partition("/")
        source, version = parse_bucket(bucket), dict(parse_qsl(query)).get("versionId", "null")
        known = version != "null"
        try:
            commit = commit_of_version(self.db.reader, source, version) if known else commits.resolve(self.db.reader, source)
            entry = files.inspect(self.db.reader, commit, source_key)
        except NotFound as error:
            raise S3Error("NoSuchKey") from error
        if entry.kind != tree.FILE:
            raise S3Error("NoSuchKey")
        if unchanged(request.headers, etag(entry), commit.finished or commit.started, "x-amz-copy-source-"):
            raise S3Error("PreconditionFailed")
        if source == ref and source_key == key and not known:
            raise S3Error("InvalidRequest", "source and destination are the same")
        with Upload(self.db, self.blobs) as upload:
            upload.change(files.Copy(key, commit.ref, source_key))
            made = await upload.commit(ref)
        root = ET.Element("CopyObjectResult", xmlns=NAMESPACE)
        element(root, "LastModified", timestamp(commit.finished))
        element(root, "ETag", etag(entry))
        return xml(root, headers={"x-amz-version-id": made.id})

    async def _delete(self, ref: CommitRef, keys: list[str]) -> None:
        with Upload(self.db, self.blobs) as upload:
            for key in keys:
                upload.delete(key.rstrip("/"))
            await upload.commit(ref)

    async def _delete_many(self, request: Request, ref: CommitRef) -> Response:
        asked = parse_xml(await whole(request, XML_LIMIT))
        keys = [node.findtext("Key") or "" for node in asked.findall("Object")]
        root, good = ET.Element("DeleteResult", xmlns=NAMESPACE), []
        for key in keys:
            try:
                check_path(key)
                good.append(key)
            except Refused as error:
                refused = element(root, "Error")
                for tag, text in (("Key", key), ("Code", "InvalidFilePath"), ("Message", str(error))):
                    element(refused, tag, text)
        if good:
            await self._delete(ref, good)
        if asked.findtext("Quiet") != "true":
            for key in good:
                element(element(root, "Deleted"), "Key", key)
        return xml(root)

    # multipart uploads

    async def _begin(self, bucket: str, key: str) -> Response:
        id_ = await self.db.write(partial(multipart.begin, bucket=bucket, key=key))
        root = ET.Element("InitiateMultipartUploadResult", xmlns=NAMESPACE)
        for tag, text in (("Bucket", bucket), ("Key", key), ("UploadId", id_)):
            element(root, tag, text)
        return xml(root)

    def _upload(self, request: Request, bucket: str, key: str) -> str:
        id_ = request.query_params["uploadId"]
        if not multipart.is_under_way(self.db.reader, id_, bucket, key):
            raise S3Error("NoSuchUpload")
        return id_

    async def _put_part(self, request: Request, bucket: str, key: str) -> Response:
        id_ = self._upload(request, bucket, key)
        number = whole_number(request.query_params.get("partNumber"), -1, PART_LIMIT + 1)
        if not 0 <= number <= PART_LIMIT:
            raise S3Error("InvalidArgument", f"partNumber must be a number up to {PART_LIMIT}")
        hashed = hashlib.md5(usedforsecurity=False)
        with Incoming(self.blobs, self.db.reader) as incoming:
            async for part in content(request):
                hashed.update(part)
                incoming.feed(part)
            name, size = incoming.end()
            await incoming.save()
            made = multipart.Part(number, name, size, hashed.hexdigest(), time.time())

            def work(db: Connection) -> None:
                incoming.insert(db)
                multipart.put(db, id_, made)

            await self.db.write(work)
        return Response(headers={"ETag": f'"{hashed.hexdigest()}"'})

    async def _complete(self, request: Request, bucket: str, ref: CommitRef, key: str) -> Response:
        id_ = self._upload(request, bucket, key)
        asked = parse_xml(await whole(request, XML_LIMIT)).findall("Part")
        numbers = [whole_number(node.findtext("PartNumber"), -1, PART_LIMIT) for node in asked]
        if not numbers:
            raise S3Error("MalformedXML")
        if numbers != sorted(set(numbers)):
            raise S3Error("InvalidPartOrder")
        parts = {part.number: part for part in multipart.parts(self.db.reader, id_)}
        for node, number in zip(asked, numbers, strict=True):
            if number not in parts or parts[number].md5 != (node.findtext("ETag") or "").strip('"'):
                raise S3Error("InvalidPart")
        if any(parts[number].size < PART_MINIMUM for number in numbers[:-1]):
            raise S3Error("EntityTooSmall")
        with Upload(self.db, self.blobs) as upload:
            upload.replace(key, b"")
            for number in numbers:
                for piece in self.blobs.read(blob_of(self.db.reader, parts[number].hash, key)):
                    upload.add(key, piece)
            commit = await upload.commit(ref)
        await self.db.write(partial(multipart.forget, id_=id_))
        root = ET.Element("CompleteMultipartUploadResult", xmlns=NAMESPACE)
        entry = files.inspect(self.db.reader, commit, key)
        for tag, text in (("Location", "PACHYDERM"), ("Bucket", bucket), ("Key", key), ("ETag", etag(entry))):
            element(root, tag, text)
        return xml(root, headers={"x-amz-version-id": commit.id})

    async def _abort(self, request: Request, bucket: str, key: str) -> Response:
        await self.db.write(partial(multipart.forget, id_=self._upload(request, bucket, key)))
        return Response(status_code=204)

    def list_uploads(self, bucket: str) -> Response:
        """Return the uploads of a bucket that are under way."""
        root = ET.Element("ListMultipartUploadsResult", xmlns=NAMESPACE)
        element(root, "Bucket", bucket)
        element(root, "IsTruncated", "false")
        for found in multipart.listing(self.db.reader, bucket):
            upload = element(root, "Upload")
            for tag, text in (("Key", found.key), ("UploadId", found.id), ("Initiated", timestamp(found.started))):
                element(upload, tag, text)
        return xml(root)

    def list_parts(self, request: Request, bucket: str, key: str) -> Response:
        """Return the parts of an upload."""
        id_ = self._upload(request, bucket, key)
        marker = whole_number(request.query_params.get("part-number-marker"), 0, PART_LIMIT)
        limit = whole_number(request.query_params.get("max-parts"), 1000, 1000)
        parts = multipart.parts(self.db.reader, id_, after=marker, limit=limit + 1)
        root = ET.Element("ListPartsResult", xmlns=NAMESPACE)
        for tag, text in (("Bucket", bucket), ("Key", key), ("UploadId", id_), ("IsTruncated", str(len(parts) > limit).lower())):
            element(root, tag, text)
        if len(parts) > limit:
            element(root, "NextPartNumberMarker", str(parts[limit - 1].number))
        for part in parts[:limit]:
            listed = element(root, "Part")
            values = {"PartNumber": str(part.number), "ETag": f'"{part.md5}"', "Size": str(part.size)}
            for tag, text in (values | {"LastModified": timestamp(part.stored)}).items():
                element(listed, tag, text)
        return xml(root)
