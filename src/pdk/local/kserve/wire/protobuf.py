"""Kubernetes' protobuf bodies: what `kubectl create configmap|secret|serviceaccount|namespace` sends and cannot send otherwise.

Source: k8s.io/apimachinery runtime.Unknown and k8s.io/api/core/v1 generated.proto (field numbers).
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

from pdk.local.kserve.rules.kinds import Json, bad_request, unsupported_media

MAGIC = b"k8s\0"
MEDIA = "application/vnd.kubernetes.protobuf"
TEXT, MAP, BYTES_MAP, REFERENCES = "text", "map", "bytes map", "references"
META = {1: ("name", TEXT), 2: ("generateName", TEXT), 3: ("namespace", TEXT), 11: ("labels", MAP), 12: ("annotations", MAP)}
FIELDS: dict[str, dict[int, tuple[str, str]]] = {
    "Namespace": {},
    "ConfigMap": {2: ("data", MAP), 3: ("binaryData", BYTES_MAP)},
    "Secret": {2: ("data", BYTES_MAP), 3: ("type", TEXT), 4: ("stringData", MAP)},
    "ServiceAccount": {2: ("secrets", REFERENCES), 3: ("imagePullSecrets", REFERENCES)},
    "DeleteOptions": {4: ("propagationPolicy", TEXT)},
}


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return value, at
        if shift > 63:
            raise ValueError("a number has too many bytes")


def _fields(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and content of the length-delimited fields; numbers are skipped."""
    at = 0
    while at < len(raw):
        key, at = _varint(raw, at)
        if key & 7 == 0:
            _, at = _varint(raw, at)
        elif key & 7 == 2:
            size, at = _varint(raw, at)
            if at + size > len(raw):
                raise ValueError("a field is longer than its message")
            yield key >> 3, raw[at : at + size]
            at += size
        else:
            raise ValueError(f"wire type {key & 7} is not expected here")


def _entry(raw: bytes) -> tuple[str, bytes]:
    parts = dict(_fields(raw))
    return parts.get(1, b"").decode(), parts.get(2, b"")


def _message(raw: bytes, fields: dict[int, tuple[str, str]]) -> Json:
    made: Json = {}
    for number, content in _fields(raw):
        if number not in fields:
            continue
        name, form = fields[number]
        if form == TEXT and content:
            made[name] = content.decode()
        elif form in (MAP, BYTES_MAP):
            key, value = _entry(content)
            made.setdefault(name, {})[key] = value.decode() if form == MAP else base64.b64encode(value).decode()
        elif form == REFERENCES:
            reference: dict[str, Any] = _message(content, {1: ("name" if name == "imagePullSecrets" else "kind", TEXT), 3: ("name", TEXT)})
            made.setdefault(name, []).append(reference)
    return made


def decode(raw: bytes) -> Json:
    """Return a protobuf body as the JSON that it stands for.

    Raises:
        ApiError: 415 for a kind that is not known here, 400 where it is broken.
    """
    if not raw.startswith(MAGIC):
        raise bad_request("the body does not begin as a Kubernetes protobuf message")
    try:
        unknown = dict(_fields(raw[4:]))
        type_meta = dict(_fields(unknown.get(1, b"")))
        api_version, kind = type_meta.get(1, b"").decode(), type_meta.get(2, b"").decode()
        content = unknown.get(2, b"")
        if kind not in FIELDS:
            raise unsupported_media("application/json", "application/yaml")
        made = {"apiVersion": api_version, "kind": kind, **_message(content, FIELDS[kind])}
        meta = dict(_fields(content)).get(1)
        if meta is not None and kind != "DeleteOptions":
            made["metadata"] = _message(meta, META)
    except (IndexError, ValueError) as error:
        raise bad_request(f"the protobuf body is broken: {error}") from error
    return made
