"""Requests that hold only while an object is, or is no longer, what the client knows of it (RFC 9110, section 13)."""

from __future__ import annotations

from email.utils import parsedate_to_datetime

from starlette.datastructures import Headers

from pdk.local.pachyderm.wire.s3_common import S3Error

WRITES = ("if-match", "if-none-match")  # of a put, which is not offered


def unchanged(headers: Headers, tag: str, modified: float, prefix: str = "") -> bool:
    """Whether a client has an object already, so that 304 is its answer.

    Args:
        tag: the object's ETag.
        modified: unix time of its last change.
        prefix: of the headers' names: ``x-amz-copy-source-`` for the source of a copy.

    Raises:
        S3Error: 412, it is not what the client expects.
    """
    if (wanted := headers.get(f"{prefix}if-match")) is not None:
        if not _names(wanted, tag):
            raise S3Error("PreconditionFailed")
    elif (since := _time(headers.get(f"{prefix}if-unmodified-since"))) is not None and int(modified) > since:
        raise S3Error("PreconditionFailed")
    if (known := headers.get(f"{prefix}if-none-match")) is not None:
        return _names(known, tag)
    since = _time(headers.get(f"{prefix}if-modified-since"))
    return since is not None and int(modified) <= since


def same_range(headers: Headers, tag: str, modified: float) -> bool:
    """Whether a part is worth something to a client: its ``If-Range``, if it has one, names the object as it is."""
    wanted = headers.get("if-range")
    if wanted is None:
        return True
    return wanted.strip() == tag if wanted.strip().startswith(('"', "W/")) else _time(wanted) == int(modified)


def _names(tags: str, tag: str) -> bool:
    return any(one.strip().removeprefix("W/") in ("*", tag) for one in tags.split(","))


def _time(text: str | None) -> float | None:
    """Unix time; None for what is not a time of HTTP, which counts as not said."""
    try:
        return parsedate_to_datetime(text).timestamp() if text else None
    except (TypeError, ValueError, OverflowError):
        return None
