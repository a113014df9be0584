"""Patches: JSON merge patch (RFC 7386), JSON patch (RFC 6902) and the part of strategic merge that the core kinds here need."""

from __future__ import annotations

import copy
from typing import Any

import jsonpatch

from pdk.local.kserve.rules.kinds import ApiError, Json, Kind, bad_request, unsupported_media

MERGE, JSON_PATCH, STRATEGIC = "application/merge-patch+json", "application/json-patch+json", "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"
BY_NAME = ("secrets", "imagePullSecrets")  # lists of a ServiceAccount that merge by the key `name`


def apply(kind: Kind, body: Json, patch: Any, media: str) -> Json:
    """Return a patched copy of `body`.

    Raises:
        ApiError: 400, 415 or 422, as a Kubernetes API server answers.
    """
    if media == JSON_PATCH:
        if not isinstance(patch, list):
            raise bad_request("error decoding patch: a list of operations is expected")
        try:
            return dict(jsonpatch.JsonPatch(patch).apply(copy.deepcopy(body)))
        except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException, LookupError, TypeError, ValueError, AttributeError) as error:
            raise ApiError(422, "Invalid", "the server rejected our request due to an error in our request", {}) from error
    if media == STRATEGIC and not kind.custom:
        return dict(_strategic(body, _mapping(patch)))
    if media == MERGE:
        return dict(_merge(body, _mapping(patch)))
    raise unsupported_media(JSON_PATCH, MERGE, *(() if kind.custom else (STRATEGIC,)))


def _mapping(patch: Any) -> Json:
    if not isinstance(patch, dict):
        raise bad_request(f"error decoding patch: json: cannot unmarshal {type(patch).__name__} into a map")
    return patch


def _merge(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merge(result.get(key), value)
    return result


def _strategic(target: Any, patch: Any, key: str = "") -> Any:
    if isinstance(patch, list) and key in BY_NAME:
        if not all(isinstance(entry, dict) and isinstance(entry.get("name"), str) for entry in patch):
            raise bad_request(f"error decoding patch: map: map[] does not contain declared merge key: name (in {key})")
        merged = {entry["name"]: entry for entry in target or []}
        for entry in patch:
            if entry.get("$patch") == "delete":
                merged.pop(entry["name"], None)
            else:
                merged[entry["name"]] = {**merged.get(entry["name"], {}), **entry}
        return list(merged.values())
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(target) if isinstance(target, dict) and patch.get("$patch") != "replace" else {}
    for name, value in patch.items():
        if name.startswith("$"):
            continue
        if value is None:
            result.pop(name, None)
        else:
            result[name] = _strategic(result.get(name), value, name)
    return result
