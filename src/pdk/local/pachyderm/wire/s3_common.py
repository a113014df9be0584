"""What the S3 gateway's reads and writes share: names, errors, XML."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from xml.etree import ElementTree as ET

from starlette.responses import Response

from pdk.errors import PdkError, WireError
from pdk.kit.db import Connection
from pdk.local.pachyderm.rules import commits, repos
from pdk.local.pachyderm.rules.model import COMMIT_ID, Commit, CommitRef, RepoRef
from pdk.local.pachyderm.store import tree
from pdk.local.pachyderm.wire.convert import shown_hash

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
CODES = {  # code → status and message, as the engine's gateway has them
    "BadDigest": (400, "The Content-MD5 you specified did not match what we received."),
    "BucketAlreadyOwnedByYou": (409, "The bucket you tried to create already exists, and you own it."),
    "BucketNotEmpty": (409, "The bucket you tried to delete is not empty."),
    "EntityTooSmall": (
        400,
        (
            "Your proposed upload is smaller than the minimum allowed object size. "
            "Each part must be at least 5 MB in size, except the last part."
        ),
    ),
    "IncompleteBody": (400, "You did not provide the number of bytes specified by the Content-Length HTTP header."),
    "InvalidArgument": (400, "Invalid Argument"),
    "InvalidBucketName": (400, "The specified bucket is not valid."),
    "InvalidDelimiter": (400, "The delimiter you specified is invalid. It must be '' or '/'."),
    "InvalidFilePath": (400, "Invalid file path"),
    "InvalidPart": (
        400,
        (
            "One or more of the specified parts could not be found. The part might not have been uploaded, "
            "or the specified entity tag might not have matched the part's entity tag."
        ),
    ),
    "InvalidPartOrder": (
        400,
        "The list of parts was not in ascending order. Parts list must be specified in order by part number.",
    ),
    "InvalidRange": (416, "The requested range is not satisfiable"),
    "InvalidRequest": (400, "Invalid Request"),
    "MalformedXML": (
        400,
        "The XML you provided was not well-formed or would not validate against S3's published schema.",
    ),
    "MethodNotAllowed": (405, "The specified method is not allowed against this resource."),
    "NoSuchBucket": (404, "The specified bucket does not exist."),
    "NoSuchKey": (404, "The specified key does not exist."),
    "NoSuchUpload": (
        404,
        (
            "The specified multipart upload does not exist. The upload ID might be invalid, "
            "or the multipart upload might have been aborted or completed."
        ),
    ),
    "MaxMessageLengthExceeded": (400, "Your request was too big."),
    "RequestTimeTooSkewed": (403, "The difference between the request time and the server's time is too large."),
    "XAmzContentSHA256Mismatch": (400, "The provided 'x-amz-content-sha256' header does not match what was computed."),
    "NoSuchVersion": (404, "The specified version does not exist."),
    "PreconditionFailed": (412, "At least one of the pre-conditions you specified did not hold"),
    "NotImplemented": (501, "This functionality is not implemented."),
    "WriteToOutputBranch": (400, "You cannot write to an output branch"),
}


class S3Error(WireError):
    """An answer in S3's form."""

    def __init__(self, code: str, message: str = "", status: int = 0) -> None:
        known = CODES.get(code, (500, code))
        super().__init__(message or known[1])
        self.status, self.code = status or known[0], code


def parse_bucket(name: str) -> CommitRef:
    """``[[COMMIT.]branch.]repo[.project]``, as the engine reads it: two parts are branch and repo, a project needs the branch before it.

    Raises:
        S3Error: it is not of that form.
    """
    parts = name.split(".")
    commit = parts.pop(0) if COMMIT_ID.fullmatch(parts[0]) else ""
    if len(parts) not in (1, 2, 3) or not all(parts):
        raise S3Error("NoSuchBucket", f"The bucket name {name!r} is not of the form commit.branch.repo.project")
    branch = parts.pop(0) if len(parts) > 1 else "master"
    return CommitRef(RepoRef(parts[1] if len(parts) == 2 else repos.DEFAULT_PROJECT, parts[0]), commit, branch)


def commit_of_version(db: Connection, bucket: CommitRef, version: str) -> Commit:
    """Return the commit that an object's version is: versions are named by the commits that wrote them.

    Raises:
        S3Error: the bucket's repo has no such commit.
    """
    if not COMMIT_ID.fullmatch(version):
        raise S3Error("NoSuchVersion")
    try:
        return commits.resolve(db, CommitRef(bucket.repo, version, bucket.branch))
    except PdkError as error:
        raise S3Error("NoSuchVersion") from error


def xml(root: ET.Element, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return an XML answer."""
    return Response(ET.tostring(root, encoding="utf-8", xml_declaration=True), status, headers, media_type="application/xml")


def element(parent: ET.Element, name: str, text: str | None = None) -> ET.Element:
    """Return a child with text."""
    child = ET.SubElement(parent, name)
    child.text = text
    return child


def timestamp(seconds: float | None) -> str:
    """As S3 writes times."""
    return datetime.fromtimestamp(seconds or 0, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def etag(entry: tree.Entry) -> str:
    """Return an object's ETag."""
    return f'"{shown_hash(entry).hex()}"'


def whole_number(text: str | None, default: int, limit: int) -> int:
    """Return a number of a query, at most `limit`.

    Raises:
        S3Error: it is not a whole number.
    """
    if text is None:
        return default
    if not text.isdecimal():
        raise S3Error("InvalidArgument", f"{text!r} is not a whole number")
    return min(int(text), limit)


UNSAFE_XML = re.compile(r"<!(?:DOCTYPE|ENTITY)")


def parse_xml(body: bytes) -> ET.Element:
    """Return the root of a request's XML, its namespace removed.

    Raises:
        S3Error: it is not well-formed, not in UTF-8 (in others a declaration could hide), or declares entities.
    """
    try:
        text = body.decode("utf-8-sig")
        if "\0" in text or UNSAFE_XML.search(text):  # the parser takes text with NULs between its letters for UTF-16
            raise S3Error("MalformedXML")
        root = ET.fromstring(text)  # noqa: S314 - declarations were refused above
    except (UnicodeDecodeError, ET.ParseError, ValueError, RecursionError):
        raise S3Error("MalformedXML") from None
    for node in root.iter():
        node.tag = node.tag.rpartition("}")[2]
    return root
