"""The model registry of a Determined."""

from __future__ import annotations

import contextlib

from determined.common import api
from determined.common.api import bindings

from pdk.engines.determined.connection import Connection, moment
from pdk.engines.records import Model, Version
from pdk.errors import Conflict, NotFound
from pdk.provenance import Provenance


class Registry(Connection):
    """The calls about models and their versions."""

    def ensure_model(self, name: str, description: str) -> None:
        """Create a model where it is missing."""
        try:
            self._call("model", lambda: self._sdk.get_model(name))
        except NotFound:
            with contextlib.suppress(Conflict):
                self._call("create the model", lambda: self._sdk.create_model(name, description=description))

    def models(self) -> list[Model]:
        """List all models."""
        found = self._call("models", lambda: bindings.get_GetModels(self._session)).models
        return [_model(entry) for entry in found]

    def model(self, name: str) -> Model:
        """Return one model."""
        return _model(self._call("model", lambda: bindings.get_GetModel(self._session, modelName=name)).model)

    def versions(self, model: str) -> list[Version]:
        """List a model's versions, newest first; empty where there is no such model."""
        return self._call("model versions", lambda: self._versions(model))

    def _versions(self, model: str) -> list[Version]:
        order, sort = bindings.v1OrderBy.DESC, bindings.v1GetModelVersionsRequestSortBy.VERSION
        try:
            found = bindings.get_GetModelVersions(self._session, modelName=model, orderBy=order, sortBy=sort).modelVersions
        except api.errors.NotFoundException:
            return []
        return [_version(model, entry) for entry in found]

    def register(self, model: str, name: str, checkpoint: str, provenance: Provenance, notes: str) -> Version:
        """Register a checkpoint as a version with a name; one of that name that exists already is returned as it is."""
        body = bindings.v1PostModelVersionRequest(
            checkpointUuid=checkpoint, modelName=model, name=name, metadata=provenance.to_json(), notes=notes
        )

        def register() -> Version:
            for present in self._versions(model):
                if present.name == name:
                    return present
            return _version(model, bindings.post_PostModelVersion(self._session, body=body, modelName=model).modelVersion)

        return self._call("register the version", register)


def _model(entry: bindings.v1Model) -> Model:
    return Model(entry.name, entry.description or "", entry.numVersions, moment(entry.creationTime))


def _version(model: str, entry: bindings.v1ModelVersion) -> Version:
    origin = Provenance.from_json(entry.metadata)
    return Version(entry.version, entry.name or "", entry.checkpoint.uuid, origin, model, moment(entry.creationTime))
