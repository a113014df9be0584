"""What creating, replacing, patching and deleting an object means."""

from __future__ import annotations

import base64
import copy
import re
import sqlite3
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from pdk.local.kserve.rules import shapes
from pdk.local.kserve.rules.kinds import (
    EVENT,
    GRAPH,
    ISVC,
    KINDS,
    NAMESPACE,
    SECRET,
    ApiError,
    Json,
    Kind,
    already_exists,
    bad_request,
    conflict,
    invalid,
    not_found,
)
from pdk.local.kserve.rules.validation import check_isvc
from pdk.local.kserve.store import table

Connection = sqlite3.Connection
BASE64 = re.compile(r"[A-Za-z0-9+/=]")
NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
NAME_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an "
    "alphanumeric character (e.g. 'example.com', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)


def now() -> str:
    """Return the time as objects carry it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def get(db: Connection, kind: Kind, namespace: str, name: str) -> Json:
    """Return an object.

    Raises:
        ApiError: 404.
    """
    found = table.get(db, kind.resource, namespace, name)
    if found is None:
        raise not_found(kind, name)
    return found


def prepare(kind: Kind, namespace: str, body: Any, *, strict: bool = False) -> Json:
    """Check what a client sent and fill in what it left out.

    Args:
        strict: refuse fields that are unknown, which are left out otherwise.

    Raises:
        ApiError: 400 or 422.
    """
    if not isinstance(body, dict):
        raise bad_request(f"the object provided is unrecognized (must be of type {kind.kind}): a JSON object is expected")
    made: Json = {"apiVersion": kind.api_version, "kind": kind.kind, **copy.deepcopy(body)}
    if made["kind"] != kind.kind or made["apiVersion"] != kind.api_version:
        raise bad_request(f"the object provided is a {made['apiVersion']} {made['kind']}, not a {kind.api_version} {kind.kind}")
    shapes.check(kind, made)
    meta = made["metadata"] = made.get("metadata") or {}
    if kind.namespaced:
        if meta.setdefault("namespace", namespace) != namespace:
            raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
    else:
        meta.pop("namespace", None)
    name = meta.get("name") or (f"{meta['generateName']}{uuid.uuid4().hex[:5]}" if meta.get("generateName") else "")
    if not name:
        raise invalid(kind, "", "metadata.name", "Required value: name or generateName is required", "FieldValueRequired")
    if not NAME.fullmatch(name) or len(name) > 253:
        raise invalid(kind, str(name), "metadata.name", f'Invalid value: "{name}": {NAME_RULE}')
    meta["name"] = name
    if kind is SECRET:
        _prepare_secret(made)
    if kind is ISVC:
        check_isvc(made, strict=strict)
    if kind is GRAPH:
        raise bad_request("an InferenceGraph is not supported locally; run it on a cluster, or have one handler call both models")
    return made


def _prepare_secret(body: Json) -> None:
    body["type"] = body.get("type") or "Opaque"
    data = body["data"] = {key: value or "" for key, value in (body.get("data") or {}).items()}
    for key, value in (body.pop("stringData", None) or {}).items():
        data[key] = base64.b64encode(value.encode()).decode()
    for value in data.values():
        try:
            base64.b64decode(value, validate=True)
        except ValueError as error:
            wrong = next((place for place, letter in enumerate(str(value)) if not BASE64.match(letter)), len(str(value)))
            what = f"illegal base64 data at input byte {wrong}"
            raise bad_request(f'Secret in version "v1" cannot be handled as a Secret: {what}') from error


def create(db: Connection, kind: Kind, namespace: str, body: Any, *, dry_run: bool = False, strict: bool = False) -> Json:
    """Store a new object.

    Raises:
        ApiError: 400, 404 (its namespace), 409 or 422.
    """
    made = prepare(kind, namespace, body, strict=strict)
    if kind.namespaced and table.get(db, NAMESPACE.resource, "", namespace) is None:
        raise not_found(NAMESPACE, namespace)
    meta = made["metadata"]
    if table.get(db, kind.resource, meta.get("namespace", ""), meta["name"]):
        raise already_exists(kind, meta["name"])
    meta.update(uid=str(uuid.uuid4()), creationTimestamp=now())
    if kind.status and kind.custom:
        meta["generation"] = 1
        made.pop("status", None)
    if kind is NAMESPACE:
        meta.setdefault("labels", {})["kubernetes.io/metadata.name"] = meta["name"]
        made["spec"], made["status"] = {"finalizers": ["kubernetes"]}, {"phase": "Active"}
    return made if dry_run else table.put(db, kind.resource, made, "ADDED")


def change(
    db: Connection,
    kind: Kind,
    namespace: str,
    name: str,
    edit: Callable[[Json], Any],
    *,
    status: bool = False,
    dry_run: bool = False,
    strict: bool = False,
) -> Json:
    """Replace an object by ``edit(object)``; with `status`, only its status.

    Raises:
        ApiError: 404, 409 (it was changed meanwhile), or what the edit is refused with.
    """
    old = get(db, kind, namespace, name)
    edited = edit(copy.deepcopy(old))
    if not isinstance(edited, dict):
        raise bad_request(f"the object provided is unrecognized (must be of type {kind.kind}): a JSON object is expected")
    shapes.check(kind, edited)
    edited["metadata"] = {"name": name, **(edited.get("metadata") or {})}
    if status:
        new = {**old, "status": edited.get("status") or {}}
        new["metadata"] = {**old["metadata"], "resourceVersion": edited["metadata"].get("resourceVersion")}
    else:
        new = prepare(kind, namespace, edited, strict=strict)
    if new["metadata"]["name"] != name:
        raise bad_request(f"the name of the object ({new['metadata']['name']}) does not match the name on the URL ({name})")
    given = new["metadata"].get("resourceVersion")
    if given and given != old["metadata"]["resourceVersion"]:
        raise conflict(kind, name)
    new["metadata"] |= {key: old["metadata"][key] for key in ("uid", "creationTimestamp")}
    if kind.status and not status and "status" in old:
        new["status"] = old["status"]
    if "generation" in old["metadata"]:
        same = new.get("spec") == old.get("spec")
        new["metadata"]["generation"] = old["metadata"]["generation"] + (0 if same else 1)
    new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
    if new == old or dry_run:
        return new
    return table.put(db, kind.resource, new, "MODIFIED")


def delete(db: Connection, kind: Kind, namespace: str, name: str, options: Json | None = None, *, dry_run: bool = False) -> Json:
    """Remove an object (a namespace with all in it); returns what it was.

    Raises:
        ApiError: 404, or 409 for a precondition that does not hold.
    """
    shapes.check_options(options or {})
    found = get(db, kind, namespace, name)
    wanted = ((options or {}).get("preconditions") or {}).get("uid")
    if wanted and wanted != found["metadata"]["uid"]:
        what = f"the UID in the precondition ({wanted}) does not match the UID in record ({found['metadata']['uid']})"
        full, more = (f"{kind.kind}.{kind.group}", {"group": kind.group}) if kind.group else (kind.kind, {})
        message = f'Operation cannot be fulfilled on {full} "{name}": {what}. The object might have been deleted and then recreated'
        raise ApiError(409, "Conflict", message, {"name": name, **more, "kind": kind.kind})
    if dry_run:
        return found
    if kind is NAMESPACE:
        for inner in KINDS:
            for entry in table.listing(db, inner.resource, name) if inner.namespaced else ():
                table.put(db, inner.resource, entry, "DELETED")
    return table.put(db, kind.resource, found, "DELETED")


def ensure(db: Connection, kind: Kind, namespace: str, body: Json) -> Json:
    """Create an object, or bring the present one to `body` where it differs."""
    name = body["metadata"]["name"]
    if table.get(db, kind.resource, namespace, name) is None:
        return create(db, kind, namespace, body)

    def edit(present: Json) -> Json:
        meta = {**present["metadata"], **{k: v for k, v in body["metadata"].items() if k in ("labels", "annotations")}}
        return {**present, **body, "metadata": meta}

    return change(db, kind, namespace, name, edit)


def record_event(db: Connection, about: Json, reason: str, message: str, *, warning: bool = False) -> None:
    """Tell those who describe an object what happened to it."""
    meta = about["metadata"]
    namespace = meta.get("namespace") or "default"
    stamp = now()
    body = {
        "metadata": {"name": f"{meta['name']}.{time.time_ns():x}"},
        "involvedObject": {
            "kind": about["kind"], "apiVersion": about["apiVersion"], "name": meta["name"], "namespace": namespace, "uid": meta["uid"],
        },
        "type": "Warning" if warning else "Normal",
        "reason": reason,
        "message": message,
        "source": {"component": "v1beta1Controllers"},
        "firstTimestamp": stamp,
        "lastTimestamp": stamp,
        "count": 1,
    }  # fmt: skip
    create(db, EVENT, namespace, body)
