"""The shape that objects must have before a rule looks into them: which of their parts are objects, lists and texts."""

from __future__ import annotations

from typing import Any

import msgspec

from pdk.local.kserve.rules.kinds import CONFIG_MAP, ISVC, SECRET, SERVICE_ACCOUNT, Json, Kind, bad_request, invalid


class Shape(msgspec.Struct, rename="camel"):
    """Parts of an object; others are not looked at."""


class Owner(Shape):
    """What an object belongs to."""

    kind: str = ""
    name: str = ""


class Meta(Shape):
    """An object's metadata."""

    name: str | None = None
    generate_name: str | None = None
    namespace: str | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    resource_version: str | None = None
    uid: str | None = None
    finalizers: list[str] | None = None
    owner_references: list[Owner] | None = None


class Object(Shape):
    """Any object."""

    api_version: str = ""
    kind: str = ""
    metadata: Meta | None = None
    status: dict[str, Any] | None = None


class Secret(Object):
    """A Secret."""

    type: str | None = None
    data: dict[str, str | None] | None = None
    string_data: dict[str, str] | None = None


class ConfigMap(Object):
    """A ConfigMap."""

    data: dict[str, str] | None = None
    binary_data: dict[str, str] | None = None


class Reference(Shape):
    """Another object of the namespace."""

    name: str


class ServiceAccount(Object):
    """A ServiceAccount."""

    secrets: list[Reference] | None = None
    image_pull_secrets: list[Reference] | None = None


class Variable(Shape):
    """A variable of a container."""

    name: str
    value: str | None = None


class ModelFormat(Shape):
    """The form that a model is in."""

    name: str | None = None
    version: str | None = None


class Resources(Shape):
    """What a container asks for."""

    requests: dict[str, str | int | float] | None = None
    limits: dict[str, str | int | float] | None = None


class Model(Shape):
    """What an InferenceService serves."""

    storage_uri: str | None = None
    model_format: ModelFormat | None = None
    runtime: str | None = None
    protocol_version: str | None = None
    env: list[Variable] | None = None
    resources: Resources | None = None
    args: list[str] | None = None


class Predictor(Shape):
    """The predictor of an InferenceService."""

    model: Model | None = None
    pytorch: Model | None = None
    service_account_name: str | None = None
    containers: list[dict[str, Any]] | None = None
    scale_metric: str | None = None


class Preconditions(Shape):
    """What must hold of an object that is to be deleted."""

    uid: str | None = None


class DeleteOptions(Shape):
    """How an object is to be deleted."""

    preconditions: Preconditions | None = None


SHAPES: dict[str, type[Shape]] = {
    SECRET.kind: Secret,
    CONFIG_MAP.kind: ConfigMap,
    SERVICE_ACCOUNT.kind: ServiceAccount,
}


def check(kind: Kind, body: Json) -> None:
    """Refuse an object whose parts are not of the form that its kind has.

    Raises:
        ApiError: 400, naming the part.
    """
    if said := _wrong(body, SHAPES.get(kind.kind, Object)):
        raise bad_request(f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: {said}')


def check_predictor(name: str, predictor: Json) -> None:
    """Refuse the predictor of an InferenceService `name` that is not of its form.

    Raises:
        ApiError: 422, naming the part.
    """
    if said := _wrong(predictor, Predictor):
        raise invalid(ISVC, name, "spec.predictor", f"Invalid value: {said}")


def check_options(body: Any) -> None:
    """Refuse options of a deletion that are not of their form.

    Raises:
        ApiError: 400, naming the part.
    """
    if said := _wrong(body, DeleteOptions):
        raise bad_request(f"DeleteOptions cannot be read: {said}")


def _wrong(body: Any, shape: type[Shape]) -> str:
    try:
        msgspec.convert(body, shape)
    except msgspec.ValidationError as error:
        return str(error)
    return ""
