"""What clients ask before anything else: groups, resources, version, OpenAPI."""

from __future__ import annotations

from pdk.local.kserve.rules.kinds import KINDS, Json, Kind

VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
VERSION: Json = {
    "major": "1", "minor": "34", "gitVersion": "v1.34.4+pdk", "gitCommit": "", "gitTreeState": "", "buildDate": "1970-01-01T00:00:00Z",
    "goVersion": "", "compiler": "", "platform": "linux/amd64",
}  # fmt: skip


def versions() -> dict[str, list[Kind]]:
    """Kinds by group and version."""
    found: dict[str, list[Kind]] = {}
    for kind in KINDS:
        found.setdefault(kind.api_version, []).append(kind)
    return found


def core_versions(address: str) -> Json:
    """GET /api."""
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    }


def groups() -> list[Json]:
    """Return the groups beside the core one."""
    by_group: dict[str, list[str]] = {}
    for kind in KINDS:
        if kind.group and kind.version not in by_group.setdefault(kind.group, []):
            by_group[kind.group].append(kind.version)
    made = []
    for group, names in by_group.items():
        listed = [{"groupVersion": f"{group}/{name}", "version": name} for name in names]
        made.append({"name": group, "versions": listed, "preferredVersion": listed[0]})
    return made


def resources(api_version: str) -> Json:
    """GET /api/v1 or /apis/GROUP/VERSION."""
    listed = []
    for kind in versions()[api_version]:
        entry: Json = {
            "name": kind.plural,
            "singularName": kind.kind.lower(),
            "namespaced": kind.namespaced,
            "kind": kind.kind,
            "verbs": VERBS,
        }
        if kind.short:
            entry["shortNames"] = list(kind.short)
        if kind.categories:
            entry["categories"] = list(kind.categories)
        listed.append(entry)
        subresources = (["status"] if kind.status else []) + (["log"] if kind.plural == "pods" else [])
        for name in subresources:
            verbs = ["get"] if name == "log" else ["get", "patch", "update"]
            listed.append(
                {"name": f"{kind.plural}/{name}", "singularName": "", "namespaced": kind.namespaced, "kind": kind.kind, "verbs": verbs}
            )
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version, "resources": listed}


def path_of(api_version: str) -> str:
    """``api/v1`` or ``apis/GROUP/VERSION``."""
    return f"apis/{api_version}" if "/" in api_version else f"api/{api_version}"


def openapi_index() -> Json:
    """GET /openapi/v3."""
    return {"paths": {path_of(v): {"serverRelativeURL": f"/openapi/v3/{path_of(v)}?hash=1"} for v in versions()}}


def openapi(api_version: str) -> Json:
    """Return the smallest document by which kubectl sees that this server checks fields itself and honours dry runs."""
    paths, schemas = {}, {}
    for kind in versions()[api_version]:
        gvk = {"group": kind.group, "version": kind.version, "kind": kind.kind}
        scope = "/namespaces/{namespace}" if kind.namespaced else ""
        parameters = [{"name": "fieldValidation", "in": "query"}, {"name": "dryRun", "in": "query"}]
        patch = {"x-kubernetes-action": "patch", "x-kubernetes-group-version-kind": gvk, "parameters": parameters}
        paths[f"/{path_of(api_version)}{scope}/{kind.plural}/{{name}}"] = {"patch": patch}
        properties = {"metadata": {"type": "object"}, "spec": {"type": "object"}, "status": {"type": "object"}}
        schemas[kind.kind] = {"type": "object", "x-kubernetes-group-version-kind": [gvk], "properties": properties}
    return {"openapi": "3.0.0", "info": {"title": "pdk", "version": "1"}, "paths": paths, "components": {"schemas": schemas}}
