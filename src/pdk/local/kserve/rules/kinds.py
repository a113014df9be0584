"""The kinds that the server knows, and the errors of the Kubernetes API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pdk.errors import WireError

Json = dict[str, Any]
KSERVE = "serving.kserve.io"


@dataclass(frozen=True)
class Kind:
    """One kind of object."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True
    short: tuple[str, ...] = ()
    status: bool = False  # whether .status is a subresource
    categories: tuple[str, ...] = ()

    @property
    def api_version(self) -> str:
        """As objects carry it."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource(self) -> str:
        """``inferenceservices.serving.kserve.io``; the plural alone in the core group."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def custom(self) -> bool:
        """Return whether it is defined by KServe rather than by Kubernetes."""
        return bool(self.group)


NAMESPACE = Kind("", "v1", "Namespace", "namespaces", namespaced=False, short=("ns",), status=True)
CONFIG_MAP = Kind("", "v1", "ConfigMap", "configmaps", short=("cm",))
SECRET = Kind("", "v1", "Secret", "secrets")
SERVICE_ACCOUNT = Kind("", "v1", "ServiceAccount", "serviceaccounts", short=("sa",))
EVENT = Kind("", "v1", "Event", "events", short=("ev",))
POD = Kind("", "v1", "Pod", "pods", short=("po",), categories=("all",))
ENDPOINTS = Kind("", "v1", "Endpoints", "endpoints", short=("ep",))
SERVICE = Kind("", "v1", "Service", "services", short=("svc",), categories=("all",))
ISVC = Kind(KSERVE, "v1beta1", "InferenceService", "inferenceservices", short=("isvc",), status=True)
RUNTIME = Kind(KSERVE, "v1alpha1", "ClusterServingRuntime", "clusterservingruntimes", namespaced=False)
GRAPH = Kind(KSERVE, "v1alpha1", "InferenceGraph", "inferencegraphs", short=("ig",), status=True)
KINDS = (NAMESPACE, CONFIG_MAP, SECRET, SERVICE_ACCOUNT, EVENT, POD, ENDPOINTS, SERVICE, ISVC, RUNTIME, GRAPH)
MADE_HERE = (POD, ENDPOINTS)  # what only the server itself makes


class ApiError(WireError):
    """An answer of kind Status."""

    def __init__(self, code: int, reason: str, message: str, details: Json | None = None) -> None:
        super().__init__(message)
        self.code, self.reason, self.details = code, reason, details

    def status(self) -> Json:
        """As JSON."""
        body: Json = {
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": str(self), "reason": self.reason,
            "code": self.code,
        }  # fmt: skip
        if self.details is not None:
            body["details"] = self.details
        return body


def details(kind: Kind, name: str, **more: Any) -> Json:
    """Return what a Status says of the object that it is about."""
    group = {"group": kind.group} if kind.group else {}
    return {"name": name, **group, "kind": kind.plural, **more}


def not_found(kind: Kind, name: str) -> ApiError:
    """404."""
    return ApiError(404, "NotFound", f'{kind.resource} "{name}" not found', details(kind, name))


def already_exists(kind: Kind, name: str) -> ApiError:
    """409 for a create."""
    return ApiError(409, "AlreadyExists", f'{kind.resource} "{name}" already exists', details(kind, name))


def conflict(kind: Kind, name: str) -> ApiError:
    """409 for a write on an old version."""
    what = "the object has been modified; please apply your changes to the latest version and try again"
    return ApiError(409, "Conflict", f'Operation cannot be fulfilled on {kind.resource} "{name}": {what}', details(kind, name))


def bad_request(message: str) -> ApiError:
    """400."""
    return ApiError(400, "BadRequest", message)


def invalid(kind: Kind, name: str, field: str, message: str, reason: str = "FieldValueInvalid") -> ApiError:
    """422 for one field."""
    full = f"{kind.kind}.{kind.group}" if kind.group else kind.kind
    cause = {"reason": reason, "message": message, "field": field}
    return ApiError(
        422, "Invalid", f'{full} "{name}" is invalid: {field}: {message}',
        {"name": name, **({"group": kind.group} if kind.group else {}), "kind": kind.kind, "causes": [cause]},
    )  # fmt: skip


def unsupported_media(*accepted: str) -> ApiError:
    """415."""
    message = f"the body of the request was in an unknown format - accepted media types include: {', '.join(accepted)}"
    return ApiError(415, "UnsupportedMediaType", message)
