"""The chain from a prediction to the data that its model learned from, and from data to predictions: what ``pdk trace`` shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pdk.catalog import requests
from pdk.catalog.catalog import Catalog
from pdk.engines.records import Request, Version
from pdk.errors import NotFound, PdkError
from pdk.provenance import Data

Node = dict[str, Any]
SHOWN = 10  # files of a commit that are named


class Trace:
    """Looks things up, both ways.

    Args:
        catalog: whom to ask.
        answered: how many requests each model and version answered.
    """

    def __init__(self, catalog: Catalog, answered: Mapping[tuple[str, str], int]) -> None:
        self.catalog, self.answered = catalog, answered

    def version(self, model: str, version: Version) -> Node:
        """Return a model version: what it learned from, and where it serves."""
        known = version.provenance
        code = known.code
        return {
            "model": model,
            "version": version.name,
            "checkpoint": version.checkpoint,
            "experiment": known.experiment,
            "mode": known.mode or None,
            "parent": known.parent and known.parent.version,
            "job": known.job and asdict(known.job),
            "code": asdict(code) if code else {},
            "data": self.data(known.data) if known.data else None,
            "services": self.services(version.name),
            "predictions": self.answered.get((model, version.name), 0),
        }

    def data(self, data: Data) -> Node:
        """Return a data commit with its files."""
        made: Node = asdict(data)
        try:
            found = self.catalog.engines.pachyderm.glob(data.project, f"{data.repo}@{data.commit}:/**")
            files = [file.path for file in found if file.kind != "dir"]
        except PdkError as error:
            return {**made, "files": f"cannot be listed: {error}"}
        return {
            **made,
            "count": len(files),
            "files": [*files[:SHOWN], *([f"… and {len(files) - SHOWN:,} more"] if len(files) > SHOWN else [])],
        }

    def services(self, version: str) -> list[Node]:
        """Return the InferenceServices that serve a version."""
        return [
            {"service": f"{one.namespace}/{one.name}", "url": one.url}
            for one in self.catalog.services()
            if version and one.version == version
        ]

    def request(self, request: Request) -> Node:
        """Return a prediction: its model version, and so on."""
        made: Node = {
            "request": {
                "x-request-id": request.id, "time": request.time, "protocol": request.protocol, "code": request.code, "ms": request.ms,
                **request.bodies,
            }
        }  # fmt: skip
        for version in self.catalog.engines.determined.versions(request.model):
            if version.name == request.version:
                return {**made, **self.version(request.model, version)}
        data = Data("default", request.data_repo, request.data_commit)
        unregistered: Node = {"model": request.model, "version": request.version, "code": {"sha": request.code_sha}}
        return {**made, **unregistered, "data": self.data(data) if data.commit else None}

    def find(self, what: str) -> Sequence[Node]:
        """Return whatever `what` names: a model, MODEL@VERSION, a commit, or a request.

        Raises:
            NotFound: it names nothing that is known.
        """
        model, _, wanted = what.partition("@")
        versions = self.catalog.engines.determined.versions(model)
        if found := [self.version(model, version) for version in versions if wanted in ("", version.name)]:
            return found
        if found := [self.version(version.model, version) for version in self.catalog.versions_named(what)]:
            return found
        lines = (line for line in self.catalog.engines.log() if what in line)
        request = next((one for one in requests.read(lines) if one.id == what), None)
        if request is not None:
            return [self.request(request)]
        raise NotFound(f"{what!r} is no request in the log, no model or version in the registry, and no commit that a model learned from")
