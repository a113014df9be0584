"""S3 requests off loopback: signed by botocore, sent again later, with another body, in chunks whose order or content changed."""

import asyncio
import hashlib
import hmac
import time
from datetime import UTC, datetime

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from starlette.requests import Request

from pdk.local.pachyderm.wire.s3_body import content
from pdk.local.pachyderm.wire.s3_common import S3Error
from pdk.local.pachyderm.wire.s3_signed import verify

SECRET, URL = "the-secret", "http://localhost:30600/master.repo/a%20key?partNumber=1"
BODY = b"what the owner sends" * 1000


def signed(said=None, *, at=None, secret=SECRET, **headers):
    """The headers of a request as botocore signs it, and the signature; `said` of its body in place of its digest."""
    stamp = datetime.fromtimestamp(time.time() if at is None else at, UTC).strftime("%Y%m%dT%H%M%SZ")
    said = said or hashlib.sha256(BODY).hexdigest()
    request = AWSRequest("PUT", URL, {"host": "localhost:30600", "x-amz-date": stamp, "x-amz-content-sha256": said, **headers})
    request.context.update(timestamp=stamp, payload_signing_enabled=True)
    signer = S3SigV4Auth(Credentials(secret, secret), "s3", "us-east-1")
    signature = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
    signer._inject_signature_to_request(request, signature)
    return dict(request.headers.items()), signature


def received(headers, *parts):
    """The request as a server sees it."""
    messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts] + [{"type": "http.request", "body": b""}]

    async def receive():
        return messages.pop(0)

    scope = {
        "type": "http", "method": "PUT", "path": "/master.repo/a key", "raw_path": b"/master.repo/a%20key", "query_string": b"partNumber=1",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()], "state": {},
    }  # fmt: skip
    return Request(scope, receive)


def taken(request, **more):
    """What a server takes of it."""
    request.state.seal = verify(request, SECRET, **more)

    async def read():
        return b"".join([part async for part in content(request)])

    return asyncio.run(read())


def code(request, **more):
    with pytest.raises(S3Error) as refused:
        taken(request, **more)
    return refused.value.code


def test_what_was_signed_is_taken():
    assert taken(received(signed()[0], BODY[:7], BODY[7:])) == BODY


def test_a_captured_request_is_worth_nothing_with_another_body_or_later():
    headers, _ = signed()
    assert code(received(headers, b"evil")) == "XAmzContentSHA256Mismatch"
    assert code(received(headers, BODY + b"more")) == "XAmzContentSHA256Mismatch"
    assert taken(received(headers, BODY), now=time.time() + 600) == BODY
    for shift in (16 * 60, -16 * 60, 25 * 365 * 24 * 3600):
        assert code(received(headers, BODY), now=time.time() + shift) == "RequestTimeTooSkewed"
    assert taken(received(signed(at=1_000_000_000)[0], BODY), now=1_000_000_000) == BODY
    assert code(received(signed(at=1_000_000_000)[0], BODY)) == "RequestTimeTooSkewed"


def test_what_is_not_signed_is_refused():
    assert code(received(signed(secret="another")[0], BODY)) == "InvalidAccessKeyId"
    headers, _ = signed()
    assert code(received({**headers, "x-amz-content-sha256": hashlib.sha256(b"evil").hexdigest()}, b"evil")) == "SignatureDoesNotMatch"
    assert code(received({name: value for name, value in headers.items() if name != "Authorization"}, BODY)) == "AccessDenied"
    less = headers["Authorization"].replace("x-amz-content-sha256;", "")
    assert code(received({**headers, "Authorization": less}, BODY)) == "AccessDenied"
    for said in ("UNSIGNED-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"):
        assert code(received(signed(said)[0], BODY)) == "AccessDenied"


def in_chunks(chunks):
    """Headers and framed body of a request whose chunks are signed, each after the one before it, as the protocol says."""
    headers, before = signed("STREAMING-AWS4-HMAC-SHA256-PAYLOAD", **{"content-encoding": "aws-chunked"})
    stamp = headers["x-amz-date"]
    key = f"AWS4{SECRET}".encode()
    for part in (stamp[:8], "us-east-1", "s3", "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    framed, empty = [], hashlib.sha256().hexdigest()
    for chunk in (*chunks, b""):
        scope = f"{stamp[:8]}/us-east-1/s3/aws4_request"
        text = "\n".join(["AWS4-HMAC-SHA256-PAYLOAD", stamp, scope, before, empty, hashlib.sha256(chunk).hexdigest()])
        before = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
        framed.append(b"%x;chunk-signature=%s\r\n" % (len(chunk), before.encode()) + chunk + b"\r\n")
    return headers, framed


def test_signed_chunks_are_taken_whole_and_in_their_order_alone():
    chunks = [b"a" * 70_000, b"b" * 65_536, b"c"]
    headers, framed = in_chunks(chunks)
    assert taken(received(headers, *framed)) == b"".join(chunks)
    body = b"".join(framed)
    assert taken(received(headers, *(body[at : at + 1000] for at in range(0, len(body), 1000)))) == b"".join(chunks)
    for wrong in (
        body.replace(b"aaa", b"aaX", 1),  # another content
        b"".join([framed[1], framed[0], *framed[2:]]),  # another order
        b"".join([framed[0], framed[2], framed[3]]),  # one left out
        b"".join(framed[:2]) + framed[3],  # the rest cut off, with the end's own signature
    ):
        assert code(received(headers, wrong)) == "SignatureDoesNotMatch"
    assert code(received(headers, *framed[:2])) == "IncompleteBody"
