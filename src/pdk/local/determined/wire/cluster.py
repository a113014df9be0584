"""The cluster as users of the API see it: who they are, where they are, what it offers."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from pdk.errors import AuthError, NotSupported
from pdk.kit import peers
from pdk.kit.db import Database
from pdk.local.determined.rules import experiments, sessions, storage, workspaces
from pdk.local.determined.rules.forms import Form, Number
from pdk.local.determined.runtime.driver import Driver
from pdk.local.determined.wire.http import SESSION_S, Driven, Frame, bearer, read
from pdk.local.determined.wire.messages import USER, VERSION, Json, stamp
from pdk.local.determined.wire.queries import page


class Login(Form, frozen=True):
    """Who wants a session."""

    username: str = ""
    password: str = ""
    is_hashed: bool = False


class Shown(Form, frozen=True):
    """What a TensorBoard is to show."""

    experiment_ids: list[Number] = []
    trial_ids: list[Number] = []


class Cluster(Driven):
    """The handlers."""

    def __init__(self, db: Database, frame: Frame, driver: Driver, cluster: str, *, blank_login: bool) -> None:
        super().__init__(db, frame, driver)
        self.cluster, self.blank_login = cluster, blank_login

    def routes(self) -> list[Route]:
        """Return all routes, with the paths of the API."""
        api, route = "/api/v1", self.frame.route
        return [
            route("GET", "/info", self.info, public=True),
            route("GET", f"{api}/master", self.master, public=True),
            route("GET", f"{api}/master/config", self.config),
            route("POST", f"{api}/auth/login", self.login, public=True),
            route("POST", f"{api}/auth/logout", self.logout),
            route("GET", f"{api}/me", self.me),
            route("GET", f"{api}/users", self.users),
            route("GET", f"{api}/agents", self.agents),
            route("GET", f"{api}/tasks", self.tasks),
            route("GET", f"{api}/resource-pools", self.pools),
            route("GET", f"{api}/job-queues-v2", self.jobs),
            route("POST", f"{api}/tensorboards", self.tensorboard),
        ]

    async def logout(self, request: Request) -> Json:
        await self.db.write(partial(sessions.end, token=bearer(request), life_s=SESSION_S))
        return {}

    async def info(self, _request: Request) -> Json:
        return {"version": VERSION, "cluster_id": self.cluster, "cluster_name": "pdk", "master_id": self.cluster}

    async def master(self, _request: Request) -> Json:
        return {
            "version": VERSION, "clusterId": self.cluster, "clusterName": "pdk", "masterId": self.cluster,
            "hasCustomLogo": False, "strictJobQueueControl": False,
        }  # fmt: skip

    async def config(self, _request: Request) -> Json:
        kept = storage.complete({}, self.driver.checkpoints, [])
        return {"config": {"checkpoint_storage": kept, "resource_pools": [{"pool_name": "default"}]}}

    async def login(self, request: Request) -> Any:
        given = await read(request, Login)
        blank = self.blank_login and not given.password and peers.of_scope(request.scope)
        known = given.username in (USER["username"], "admin")
        if not known or not (blank or self.frame.tokens.right_password(given.password, hashed=given.is_hashed)):
            raise AuthError("invalid credentials; `pdk env` prints user and password")
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

    async def pools(self, request: Request) -> Json:
        kind, count = f"TYPE_{self.driver.slots[0].kind.upper()}", len(self.driver.slots)
        pool = {
            "name": "default", "description": "the slots of this machine", "type": "RESOURCE_POOL_TYPE_STATIC", "numAgents": 1,
            "slotsAvailable": count, "slotsUsed": self.driver.used, "slotType": kind, "slotsPerAgent": count,
            "auxContainerCapacity": 0, "auxContainerCapacityPerAgent": 0, "auxContainersRunning": 0, "defaultAuxPool": True,
            "defaultComputePool": True, "preemptible": True, "minAgents": 0, "maxAgents": 0, "cpuContainerCapacity": 0,
            "cpuContainersRunning": 0, "containerStartupScript": "", "imageId": "", "instanceType": "", "location": "on-prem",
            "masterCertName": "", "masterUrl": "", "schedulerFittingPolicy": "FITTING_POLICY_BEST",
            "schedulerType": "SCHEDULER_TYPE_PRIORITY", "startupScript": "", "defaultCpuPool": True, "defaultGpuPool": True, "details": {},
            "clusterName": "", "resourceManagerName": "local", "resourceManagerMetadata": {},
        }  # fmt: skip
        return page([pool], request.query_params, dict, "resourcePools")

    async def jobs(self, request: Request) -> Json:
        pool = request.query_params.get("resourcePool") or "default"
        everything = experiments.listing(self.db.reader) if pool == "default" else []
        found = [entry for entry in everything if entry.state not in experiments.TERMINAL]
        found.sort(key=lambda entry: (entry.config.resources.priority, entry.id))
        if request.query_params.get("orderBy") == "ORDER_BY_DESC":
            found.reverse()
        return page(found, request.query_params, self._job, "jobs")

    def _job(self, found: experiments.Experiment) -> Json:
        resources, project = found.config.resources, workspaces.project(self.db.reader, found.project)
        trials = experiments.trials(self.db.reader, found.id)
        held = sum(len(trial.slots) for trial in trials if trial.id in self.driver.running)
        wanted = sum(resources.slots_per_trial for trial in trials if trial.ended is None)
        return {
            "full": {
                "summary": {"state": f"STATE_{'SCHEDULED' if held else 'QUEUED'}", "jobsAhead": -1 if held else 0},
                "type": "TYPE_EXPERIMENT", "submissionTime": stamp(found.started), "username": USER["username"], "userId": USER["id"],
                "resourcePool": "default", "isPreemptible": True, "requestedSlots": wanted, "allocatedSlots": held, "name": found.name,
                "entityId": str(found.id), "priority": resources.priority, "weight": resources.weight, "jobId": found.job_id,
                "progress": found.progress, "workspaceId": project.workspace,
            }
        }  # fmt: skip

    async def tasks(self, _request: Request) -> Json:
        return {"allocationIdToSummary": {}}

    async def tensorboard(self, request: Request) -> Json:
        shown = await read(request, Shown)
        wanted = [*shown.experiment_ids, *(experiments.trial(self.db.reader, id_).experiment for id_ in shown.trial_ids)]
        found = [experiments.get(self.db.reader, id_) for id_ in wanted]
        places = {entry.id: storage.events(entry.config, self.cluster, entry.id) for entry in found}
        option = "--logdir" if len(places) < 2 else "--logdir_spec"
        value = ",".join(places.values() if len(places) < 2 else [f"{id_}:{place}" for id_, place in places.items()])
        raise NotSupported(f"the local server starts no TensorBoard; use: tensorboard {option} {value}")
