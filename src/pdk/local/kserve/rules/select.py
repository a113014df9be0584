"""Label and field selectors, and the tables that `kubectl get` prints."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from pdk.local.kserve.rules.kinds import ISVC, RUNTIME, Json, Kind, bad_request

TERM = re.compile(
    r"(?P<not>!)?(?P<exists>[\w./-]+)$|(?P<key>[\w./-]+)\s*(?P<op>==|=|!=)\s*(?P<value>[\w.-]*)$|"
    r"(?P<set>[\w./-]+)\s+(?P<in>in|notin)\s*\((?P<values>[^)]*)\)$"
)
Test = Callable[[Json], bool]


def split_terms(text: str) -> list[str]:
    """Split at the commas outside parentheses."""
    return [part.strip() for part in re.split(r",(?![^(]*\))", text) if part.strip()]


def labels(text: str) -> Test:
    """Return the test that a label selector means.

    Raises:
        ApiError: 400 for what is none.
    """
    tests: list[Test] = []
    for term in split_terms(text):
        match = TERM.match(term)
        if match is None:
            raise bad_request(f"unable to parse requirement: {term!r}")
        tests.append(_label_test(match))
    return lambda body: all(test(body) for test in tests)


def _label_test(match: re.Match[str]) -> Test:
    def value_of(body: Json, key: str) -> str | None:
        found = (body["metadata"].get("labels") or {}).get(key)
        return None if found is None else str(found)

    if key := match["exists"]:
        return lambda body: (value_of(body, key) is None) == bool(match["not"])
    if key := match["key"]:
        return lambda body: (value_of(body, key) == match["value"]) == (match["op"] != "!=")
    key, values = match["set"], {value.strip() for value in match["values"].split(",")}
    return lambda body: (value_of(body, key) in values) == (match["in"] == "in")


def fields(text: str) -> Test:
    """Return the test that a field selector means (``metadata.name=x,involvedObject.kind!=Pod``)."""
    tests: list[Test] = []
    for term in split_terms(text):
        path, operator, value = re.split(r"(==|!=|=)", term, maxsplit=1) if "=" in term else ("", "", "")
        if not re.fullmatch(r"metadata\.(name|namespace)|involvedObject\.\w+|reason|type|status\.phase|spec\.nodeName", path):
            raise bad_request(f"field label not supported: {path or term}")
        tests.append(lambda body, p=path, o=operator, v=value: (str(dig(body, p)) == v) == (o != "!="))  # type: ignore[misc]
    return lambda body: all(test(body) for test in tests)


def dig(body: Any, path: str) -> Any:
    """Return the value at a dotted path; empty where there is none."""
    for part in path.split("."):
        body = body.get(part) if isinstance(body, dict) else None
    return "" if body is None else body


def age(stamp: str | None) -> str:
    """Return how long ago, as kubectl writes it: 92s, 2m7s, 15m, 3h, 5d."""
    if not stamp:
        return "<unknown>"
    seconds = max(0, int((datetime.now(UTC) - datetime.fromisoformat(stamp)).total_seconds()))
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return f"{minutes}m{seconds % 60}s" if seconds % 60 else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    if hours < 48:
        return f"{hours}h"
    return f"{days}d"


def _age(body: Json) -> str:
    return age(body["metadata"].get("creationTimestamp"))


def _condition(body: Json, kind: str) -> Any:
    return next((c.get("status") for c in dig(body, "status.conditions") or [] if c.get("type") == kind), "")


def _traffic(body: Json, field: str, *, previous: bool) -> Any:
    for entry in dig(body, "status.components.predictor.traffic") or []:
        if (entry.get("tag") == "prev") if previous else entry.get("latestRevision"):
            return entry.get(field)
    return None


Column = tuple[str, str, Callable[[Json], Any]]
NAME: Column = ("Name", "string", lambda body: body["metadata"]["name"])
AGE: Column = ("Age", "string", _age)
COLUMNS: dict[str, tuple[Column, ...]] = {
    "namespaces": (NAME, ("Status", "string", lambda b: dig(b, "status.phase")), AGE),
    "configmaps": (NAME, ("Data", "integer", lambda b: len(b.get("data") or {}) + len(b.get("binaryData") or {})), AGE),
    "secrets": (NAME, ("Type", "string", lambda b: b.get("type")), ("Data", "integer", lambda b: len(b.get("data") or {})), AGE),
    "serviceaccounts": (NAME, ("Secrets", "integer", lambda b: len(b.get("secrets") or [])), AGE),
    "pods": (
        NAME,
        ("Ready", "string", lambda b: f"{sum(c.get('ready', False) for c in dig(b, 'status.containerStatuses') or [])}/1"),
        ("Status", "string", lambda b: dig(b, "status.reason") or dig(b, "status.phase")),
        ("Restarts", "string", lambda b: str(max((c.get("restartCount", 0) for c in dig(b, "status.containerStatuses") or []), default=0))),
        AGE,
    ),
    "endpoints": (
        NAME,
        (
            "Endpoints",
            "string",
            lambda b: (
                ",".join(f"{a['ip']}:{p['port']}" for s in b.get("subsets") or [] for a in s["addresses"] for p in s["ports"]) or "<none>"
            ),
        ),
        AGE,
    ),
    "services": (NAME, ("Type", "string", lambda b: dig(b, "spec.type")), AGE),
    "events": (
        ("Last Seen", "string", lambda b: age(b.get("lastTimestamp"))),
        ("Type", "string", lambda b: b.get("type")),
        ("Reason", "string", lambda b: b.get("reason")),
        ("Object", "string", lambda b: f"{str(dig(b, 'involvedObject.kind')).lower()}/{dig(b, 'involvedObject.name')}"),
        ("Message", "string", lambda b: b.get("message")),
    ),
    ISVC.resource: (
        NAME,
        ("URL", "string", lambda b: dig(b, "status.url")),
        ("Ready", "string", lambda b: _condition(b, "Ready")),
        ("Prev", "integer", lambda b: _traffic(b, "percent", previous=True)),
        ("Latest", "integer", lambda b: _traffic(b, "percent", previous=False)),
        ("PrevRolledoutRevision", "string", lambda b: _traffic(b, "revisionName", previous=True)),
        ("LatestReadyRevision", "string", lambda b: _traffic(b, "revisionName", previous=False)),
        AGE,
    ),
    RUNTIME.resource: (
        NAME,
        ("Disabled", "boolean", lambda b: dig(b, "spec.disabled") or None),
        ("ModelType", "string", lambda b: next((f.get("name") for f in dig(b, "spec.supportedModelFormats") or []), "")),
        ("Containers", "string", lambda b: next((c.get("name") for c in dig(b, "spec.containers") or []), "")),
        AGE,
    ),
}


def table(kind: Kind, bodies: list[Json], version: str, *, include: str = "Metadata") -> Json:
    """Return the Table that `kubectl get` asks for; `include` says what of each object comes along."""
    columns = COLUMNS[kind.resource]
    rows = []
    for body in bodies:
        shown: Json = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": body["metadata"]}
        row: Json = {"cells": [cell(body) for _, _, cell in columns]}
        if include != "None":
            row["object"] = body if include == "Object" else shown
        rows.append(row)
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {"resourceVersion": version},
        "columnDefinitions": [
            {"name": name, "type": type_, "format": "name" if name == "Name" else "", "description": "", "priority": 0}
            for name, type_, _ in columns
        ],
        "rows": rows,
    }
