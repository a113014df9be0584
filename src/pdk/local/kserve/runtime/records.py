"""What the controller writes down: the status of an InferenceService, its pods, its events, and the Endpoints that the gateway follows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from pdk.kit.db import Database
from pdk.local.kserve.rules import objects, status
from pdk.local.kserve.rules.kinds import ENDPOINTS, ISVC, POD, ApiError, Json, Kind
from pdk.local.kserve.rules.rollout import Revision, Share
from pdk.local.kserve.store import table
from pdk.words import PODS, PREVIOUS, RELIED_ON, STABLE, WAKES, WEIGHTS

Key = tuple[str, str]  # namespace and name


class Records:
    """The records of one InferenceService."""

    def __init__(self, db: Database, key: Key) -> None:
        self.db, self.key = db, key

    def isvc(self) -> Json | None:
        """Return the InferenceService."""
        return table.get(self.db.reader, ISVC.resource, *self.key)

    async def delete(self, kind: Kind, name: str) -> None:
        """Remove an object, if it is there."""
        try:
            await self.db.write(partial(objects.delete, kind=kind, namespace=self.key[0], name=name))
        except ApiError as error:
            if error.code != 404:
                raise

    async def say(self, content: Json) -> None:
        """Write the status where it says something new."""
        present = self.isvc()
        if present is None:
            return
        content = status.keep_times(present.get("status") or {}, content)
        if present.get("status") == content:
            return

        def edit(body: Json) -> Json:
            return {**body, "status": content}

        try:
            await self.db.write(partial(objects.change, kind=ISVC, namespace=self.key[0], name=self.key[1], edit=edit, status=True))
        except ApiError as error:
            if error.code != 404:
                raise

    async def event(self, reason: str, message: str, *, warning: bool = False) -> None:
        """Tell those who describe the service."""
        if (isvc := self.isvc()) is not None:
            await self.db.write(partial(objects.record_event, about=isvc, reason=reason, message=message[:1024], warning=warning))

    async def pod(self, name: str, phase: str, *, ready: bool, reason: str = "", restarts: int = 0) -> None:
        """A predictor's process as a pod."""
        if (isvc := self.isvc()) is not None:
            body = status.pod(isvc, name, phase, ready=ready, reason=reason, restarts=restarts)
            await self.db.write(partial(objects.ensure, kind=POD, namespace=self.key[0], body=body))

    def pods(self) -> list[str]:
        """Return the names of this service's pods."""
        listed = table.listing(self.db.reader, POD.resource, self.key[0])
        return [body["metadata"]["name"] for body in listed if body["metadata"]["labels"][status.OF] == self.key[1]]

    def routed(self) -> Mapping[str, str]:
        """Return the annotations of the service's Endpoints: what was rolled out, and on which pods."""
        found = table.get(self.db.reader, ENDPOINTS.resource, self.key[0], f"{self.key[1]}-predictor") or {"metadata": {}}
        return dict(found["metadata"].get("annotations") or {})

    async def route(
        self, shares: Sequence[tuple[Share, Sequence[Any]]], stable: Revision | None, previous: Revision | None, *, wakes: bool
    ) -> None:
        """Point the service's Endpoints at replicas, with the weight of each.

        Args:
            shares: the replicas of each revision.
            stable: the one that was rolled out last; it takes what another one dropped, with a share or without.
            wakes: whether a request that finds no replica had better wait for one.
        """
        weights = {one.address: share.percent / len(replicas) for share, replicas in shares for one in replicas}
        relied_on = [one.address for share, replicas in shares for one in replicas if stable and share.revision.name == stable.name]
        subsets = [{"addresses": [{"ip": one.host}], "ports": [{"port": one.port}]} for _, replicas in shares for one in replicas]
        notes = {
            STABLE: json.dumps(stable.predictor, sort_keys=True) if stable else "",
            PREVIOUS: json.dumps(previous.predictor, sort_keys=True) if previous else "",
            PODS: json.dumps({one.pod: one.revision for _, replicas in shares for one in replicas}, sort_keys=True),
            WAKES: "true" if wakes else "",
            WEIGHTS: json.dumps(weights, sort_keys=True),
            RELIED_ON: json.dumps(relied_on),
        }
        body = {
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": {"name": f"{self.key[1]}-predictor", "labels": {status.OF: self.key[1]}, "annotations": notes},
            "subsets": subsets,
        }
        present = table.get(self.db.reader, ENDPOINTS.resource, self.key[0], f"{self.key[1]}-predictor")
        if present is None or present["subsets"] != subsets or present["metadata"].get("annotations") != notes:
            await self.db.write(partial(objects.ensure, kind=ENDPOINTS, namespace=self.key[0], body=body))
