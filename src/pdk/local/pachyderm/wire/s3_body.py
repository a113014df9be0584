"""What S3 requests carry: their framing taken off, compared with the digests and signatures that came with it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import AsyncIterator

from starlette.requests import ClientDisconnect, Request

from pdk.local.pachyderm.wire.s3_common import S3Error
from pdk.local.pachyderm.wire.s3_signed import Seal

CHUNK = re.compile(rb"([0-9a-fA-F]+)(?:;chunk-signature=([0-9a-f]{64}))?(?:;[^\r\n]*)?\r\n")
CHUNK_HEAD = 4096  # bytes that the first line of a chunk may have
DIGEST = re.compile(r"[0-9a-f]{64}")


async def content(request: Request) -> AsyncIterator[bytes]:
    """Give the object that a request carries. It counts only once this has come to its end.

    Raises:
        S3Error: the connection broke off, the framing is wrong, or the body is another than the one that was signed or announced.
    """
    said, seal = request.headers.get("x-amz-content-sha256", ""), getattr(request.state, "seal", None)  # by which it was let in
    announced = said if DIGEST.fullmatch(said) else ""
    framed = said.startswith("STREAMING-") or "aws-chunked" in request.headers.get("content-encoding", "")
    if seal is not None and not announced and not said.startswith("STREAMING-AWS4-HMAC-SHA256-PAYLOAD"):
        raise S3Error("AccessDenied", "Sign the body too: x-amz-content-sha256 is its digest, or says that its chunks are signed", 403)
    digest, md5, wanted_md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False), request.headers.get("content-md5")
    try:
        async for part in _chunks(request, seal) if framed else request.stream():
            if announced:
                digest.update(part)
            if wanted_md5:
                md5.update(part)
            yield part
    except ClientDisconnect as error:
        raise S3Error("IncompleteBody") from error
    if announced and not hmac.compare_digest(announced, digest.hexdigest()):
        raise S3Error("XAmzContentSHA256Mismatch")
    if wanted_md5 and wanted_md5 != base64.b64encode(md5.digest()).decode():
        raise S3Error("BadDigest")


async def whole(request: Request, limit: int) -> bytes:
    """Return all that a request carries.

    Raises:
        S3Error: as `content`, or it has more than `limit` bytes.
    """
    parts, size = [], 0
    async for part in content(request):
        size += len(part)
        if size > limit:
            raise S3Error("MaxMessageLengthExceeded")
        parts.append(part)
    return b"".join(parts)


async def _chunks(request: Request, seal: Seal | None) -> AsyncIterator[bytes]:
    """Give the content of ``aws-chunked`` framing; each chunk signs itself and the one before it."""
    buffer, left, before = bytearray(), 0, seal.signature if seal else ""
    hashed, signed = hashlib.sha256(), b""

    def check() -> None:
        nonlocal before
        if seal is not None:
            before = seal.of_chunk(before, hashed.hexdigest())
            if not hmac.compare_digest(before.encode(), signed):
                raise S3Error("SignatureDoesNotMatch", "The signature of a chunk does not fit it", 403)

    async for part in request.stream():
        buffer += part
        while buffer:
            if left:
                taken = bytes(buffer[:left])
                del buffer[: len(taken)]
                left -= len(taken)
                if seal is not None:
                    hashed.update(taken)
                    if not left:
                        check()
                yield taken
                continue
            if buffer.startswith(b"\r\n"):
                del buffer[:2]
                continue
            match = CHUNK.match(buffer)
            if match is None:
                if len(buffer) > CHUNK_HEAD:
                    raise S3Error("InvalidRequest", "the body is not framed as aws-chunked")
                break
            left, signed, hashed = int(match[1], 16), match[2] or b"", hashlib.sha256()
            if not left:  # what follows are trailers
                check()
                return
            del buffer[: match.end()]
    raise S3Error("IncompleteBody")
