"""The cluster as users of the API see it: who they are, where they are, what it offers."""

from __future__ import annotations

import time
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from pdk.errors import NotSupported
from pdk.local.determined.service import experiments, storage
from pdk.local.determined.service.driver import Driver
from pdk.local.determined.wire.http import Frame, Handlers, body, error_body
from pdk.local.determined.wire.messages import USER, VERSION, Json, page, stamp
from pdk.local.kit.db import Database


class Cluster(Handlers):
    """The handlers."""

    def __init__(self, db: Database, frame: Frame, driver: Driver, cluster: str, *, blank_login: bool) -> None:
        super().__init__(db, frame)
        self.driver, self.cluster, self.blank_login = driver, cluster, blank_login

    def routes(self) -> list[Route]:
        """All of them, with the paths of the API."""
        api, route = "/api/v1", self.frame.route
        return [
            route("GET", "/info", self.info, public=True),
            route("GET", f"{api}/master", self.master, public=True),
            route("POST", f"{api}/auth/login", self.login, public=True),
            route("POST", f"{api}/auth/logout", self.nothing),
            route("GET", f"{api}/me", self.me),
            route("GET", f"{api}/users", self.users),
            route("GET", f"{api}/agents", self.agents),
            route("GET", f"{api}/tasks", self.tasks),
            route("POST", f"{api}/tensorboards", self.tensorboard),
        ]

    async def nothing(self, _request: Request) -> Json:
        return {}

    async def info(self, _request: Request) -> Json:
        return {"version": VERSION, "cluster_id": self.cluster, "cluster_name": "pdk", "master_id": self.cluster}

    async def master(self, _request: Request) -> Json:
        return {
            "version": VERSION, "clusterId": self.cluster, "clusterName": "pdk", "masterId": self.cluster,
            "hasCustomLogo": False, "strictJobQueueControl": False,
        }  # fmt: skip

    async def login(self, request: Request) -> Any:
        given = await body(request)
        password = str(given.get("password") or "")
        blank = self.blank_login and not password
        known = given.get("username") in (USER["username"], "admin")
        if not known or not (blank or self.frame.tokens.right_password(password, hashed=bool(given.get("isHashed")))):
            return JSONResponse(error_body(403, "invalid credentials; `pdk env` prints user and password", 7, "PermissionDenied"), 403)
        return {"token": self.frame.tokens.user(), "user": USER}

    async def me(self, _request: Request) -> Json:
        return {"user": USER}

    async def users(self, request: Request) -> Json:
        return page([USER], request.query_params, dict, "users")

    async def agents(self, _request: Request) -> Json:
        slots = {
            str(device.id): {
                "id": str(device.id), "enabled": True, "draining": False,
                "device": {"id": device.id, "brand": device.brand, "uuid": "", "type": f"TYPE_{device.kind.upper()}"},
            }
            for device in self.driver.slots
        }  # fmt: skip
        agent = {
            "id": "local", "slotStats": {"brandStats": {}, "typeStats": {}}, "slots": slots, "containers": {}, "enabled": True,
            "resourcePools": ["default"], "draining": False, "addresses": ["127.0.0.1"], "version": VERSION,
            "registeredTime": stamp(time.time()),
        }  # fmt: skip
        return {"agents": [agent]}

    async def tasks(self, _request: Request) -> Json:
        return {"allocationIdToSummary": {}}

    async def tensorboard(self, request: Request) -> Json:
        given = await body(request)
        wanted = [int(id_) for id_ in given.get("experimentIds") or ()]
        wanted += [experiments.trial(self.db.reader, int(id_)).experiment for id_ in given.get("trialIds") or ()]
        found = [experiments.get(self.db.reader, id_) for id_ in wanted]
        places = {entry.id: storage.events(entry.config, self.cluster, entry.id) for entry in found}
        option = "--logdir" if len(places) < 2 else "--logdir_spec"
        value = ",".join(places.values() if len(places) < 2 else [f"{id_}:{place}" for id_, place in places.items()])
        raise NotSupported(f"the local server starts no TensorBoard; use: tensorboard {option} {value}")
