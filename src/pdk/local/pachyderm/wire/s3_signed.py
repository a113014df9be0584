"""Signatures of S3 requests (AWS Signature Version 4): that the sender has the secret, when it was signed, and the key of its chunks'."""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request

from pdk.local.pachyderm.wire.s3_common import S3Error

CREDENTIAL = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/,]+)/(\d{8})/([^/]+)/s3/aws4_request, ?SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})"
)
WINDOW_S = 15 * 60  # that a clock may be wrong, and a captured request be sent again: as S3's
NOTHING = hashlib.sha256().hexdigest()


@dataclass(frozen=True)
class Seal:
    """A signature that was right, and what signs the chunks of the body that came with it."""

    signature: str
    date: str
    scope: str
    sign: Callable[[str], str]

    def of_chunk(self, before: str, digest: str) -> str:
        """Return the signature of a chunk with a digest, after the one whose signature is `before`."""
        return self.sign(f"AWS4-HMAC-SHA256-PAYLOAD\n{self.date}\n{self.scope}\n{before}\n{NOTHING}\n{digest}")


def verify(request: Request, secret: str, now: float | None = None) -> Seal:
    """Return the signature of a request.

    Raises:
        S3Error: there is none, it is another one's, too old, or does not fit the request.
    """
    match = CREDENTIAL.fullmatch(request.headers.get("authorization", ""))
    if match is None:
        raise S3Error("AccessDenied", "Sign the request (AWS4-HMAC-SHA256) with the installation's secret as both keys", 403)
    if not hmac.compare_digest(match[1], secret):
        raise S3Error("InvalidAccessKeyId", "The access key is not the installation's secret", 403)
    signed, date = match[4].split(";"), request.headers.get("x-amz-date", "")
    if missing := {"host", "x-amz-date", "x-amz-content-sha256"} - set(signed):
        raise S3Error("AccessDenied", f"The header {min(missing)} is not signed", 403)
    sign, canonical, scope = _signer(request, secret, match[3], signed)
    seal = Seal(match[5], date, scope, sign)
    if not hmac.compare_digest(match[5], sign(canonical)):
        raise S3Error("SignatureDoesNotMatch", "The signature does not fit the request and the secret", 403)
    try:
        made = datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise S3Error("AccessDenied", f"x-amz-date is {date!r}: a time as 20260131T120000Z is expected", 403) from None
    if abs((time.time() if now is None else now) - made) > WINDOW_S or not date.startswith(match[2]):
        raise S3Error("RequestTimeTooSkewed")
    return seal


def _signer(request: Request, secret: str, region: str, signed: list[str]) -> tuple[Callable[[str], str], str, str]:
    """Return what signs a text with the key of this request's day, the text that the request is signed by, and the key's scope."""
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    signer: Any = S3SigV4Auth(Credentials(secret, secret), "s3", region)
    headers = {name: request.headers.get(name, "") for name in signed}
    path = request.scope.get("raw_path", b"").decode()
    query = request.scope["query_string"].decode()
    rebuilt = AWSRequest(request.method, f"http://{headers.get('host', '')}{path}" + (f"?{query}" if query else ""), headers)
    rebuilt.context["timestamp"] = request.headers.get("x-amz-date", "")
    rebuilt.context["payload_signing_enabled"] = True

    def sign(text: str) -> str:
        return str(signer.signature(text, rebuilt))

    return sign, str(signer.string_to_sign(rebuilt, signer.canonical_request(rebuilt))), str(signer.credential_scope(rebuilt))
