"""What KServe's controller does: for every InferenceService one predictor process, replaced without losing a request.

A new revision must answer before the route moves to it; then the old one is let drain. A revision that fails never gets
traffic: the old one goes on, and the status says why. What runs is known from the pods on record and the launcher's run folders,
so a restarted server finds its predictors still answering.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from pdk.local.kit import process
from pdk.local.kit.db import Database
from pdk.local.kserve.service import objects as service
from pdk.local.kserve.service import predictor as predictors
from pdk.local.kserve.service import status
from pdk.local.kserve.service.kinds import ENDPOINTS, ISVC, POD, ApiError, Json
from pdk.local.kserve.service.predictor import LoadFailed, Predictor
from pdk.local.kserve.store import objects

log = logging.getLogger(__name__)
DRAIN_DELAY_S = 1.0  # between moving the route and ending the old revision: the gateway hears of the move within milliseconds
DRAIN_S = 30.0  # that open requests get then, as Kubernetes' grace period
RESTART_S = (0.0, 1.0, 5.0, 15.0, 60.0)  # pauses before a predictor that died is started again
Key = tuple[str, str]  # namespace and name


class Controller:
    """Drives all InferenceServices towards their specs.

    Args:
        home: folder for run folders and downloaded models.
        domain: InferenceServices answer to NAME.NAMESPACE.<domain>.
        hide: the installation's state folder, which no handler may see.
    """

    def __init__(self, db: Database, home: Path, domain: str, hide: Path) -> None:
        self.db, self.home, self.domain, self.hide = db, home, domain, hide
        self.active: dict[Key, Predictor] = {}
        self._failed: dict[Key, str] = {}
        self._deaths: dict[Key, int] = {}
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        self._retiring: set[asyncio.Task[None]] = set()

    def folder(self, key: Key) -> Path:
        """Where an InferenceService's run folders are."""
        return self.home / "predictors" / key[0] / key[1]

    def pod_log(self, namespace: str, pod: str) -> tuple[Path, Callable[[], bool]]:
        """A predictor's log, and whether there will be no more of it."""
        run = self.folder((namespace, pod.rpartition("-predictor-")[0])) / pod

        def ended() -> bool:
            handle = process.find(run)
            return handle is None or process.status(handle) is not None

        return run / "log", ended

    async def run(self) -> None:
        """Until cancelled; then every predictor is ended, for the next start to bring up again."""
        await self._adopt_all()
        try:
            async for _ in self.db.changes.watch():
                for body in objects.listing(self.db.reader, ISVC.resource):
                    key = (body["metadata"]["namespace"], body["metadata"]["name"])
                    if key not in self._tasks:
                        task = asyncio.create_task(self._manage(key), name=f"isvc {key[0]}/{key[1]}")
                        self._tasks[key] = task
                        task.add_done_callback(partial(self._done, key))
        finally:
            await asyncio.shield(self._stop_all())

    def _done(self, key: Key, task: asyncio.Task[None]) -> None:
        self._tasks.pop(key, None)
        if not task.cancelled() and (error := task.exception()):
            log.error("isvc %s/%s", *key, exc_info=error)
        self.db.changes.notify()

    async def _stop_all(self) -> None:
        tasks = [*self._tasks.values(), *self._retiring]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        running = [handle for run in self.home.glob("predictors/*/*/*") if (handle := process.find(run))]
        await asyncio.gather(*(process.stop(handle) for handle in running), return_exceptions=True)
        for handle in running:
            (handle.run_dir / "started.json").unlink(missing_ok=True)

    async def _adopt_all(self) -> None:
        """Find the predictors that outlived an earlier server; end those that nothing routes to."""
        for run in self.home.glob("predictors/*/*/*"):
            key = (run.parent.parent.name, run.parent.name)
            handle = process.find(run)
            if handle is None or process.status(handle) is not None:
                continue
            routed = objects.get(self.db.reader, ENDPOINTS.resource, key[0], f"{key[1]}-predictor")
            found = predictors.adopt(handle)
            wanted = objects.get(self.db.reader, ISVC.resource, *key)
            if found and wanted and routed and routed["metadata"].get("annotations", {}).get("pdk/pod") == run.name:
                self.active[key] = found
                log.info("found %s still running as process %d", run.name, handle.pid)
            else:
                await process.stop(handle)
        for pod in objects.listing(self.db.reader, POD.resource):
            if pod["metadata"]["name"] not in {found.pod for found in self.active.values()}:
                await self._delete(POD, pod["metadata"]["namespace"], pod["metadata"]["name"])

    async def _manage(self, key: Key) -> None:
        """One InferenceService, until it is deleted."""
        async for _ in self.db.changes.watch(poll_s=1.0):
            isvc = objects.get(self.db.reader, ISVC.resource, *key)
            if isvc is None:
                await self._remove(key)
                return
            wanted, present = predictors.revision_of(isvc), self.active.get(key)
            if present and process.status(present.handle) is not None:
                await self._died(key, present)
                present = None
            if present and present.revision == wanted:
                await self._say(key, status.ready(isvc, self.domain))
                continue
            if self._failed.get(key) == wanted and present:
                continue  # the old revision serves; only a new spec helps
            pause = RESTART_S[min(self._deaths.get(key, 0), len(RESTART_S) - 1)]
            await self._sleep_unless_changed(key, wanted, pause)
            await self._roll(key)

    async def _sleep_unless_changed(self, key: Key, revision: str, pause: float) -> None:
        until = time.monotonic() + pause
        async for _ in self.db.changes.watch(poll_s=0.5):
            isvc = objects.get(self.db.reader, ISVC.resource, *key)
            if time.monotonic() >= until or isvc is None or predictors.revision_of(isvc) != revision:
                return

    async def _roll(self, key: Key) -> None:
        """Bring up what the spec asks for and move the route to it."""
        isvc = objects.get(self.db.reader, ISVC.resource, *key)
        if isvc is None:
            return
        pod, old = predictors.new_pod(isvc), self.active.get(key)
        await self._say(key, status.progressing(isvc, self.domain, serving=old is not None))
        await self._prune(key, keep={old.pod} if old else set())
        await self._put_pod(isvc, pod, "Pending", ready=False)
        try:
            new = await predictors.bring_up(self.db.reader, isvc, self.folder(key) / pod, self.home / "models", self.hide)
        except LoadFailed as error:
            await self._fail(key, isvc, pod, error, serving=old is not None)
            return
        except Exception as error:  # the service must say why, whatever went wrong; the log has the rest
            log.exception("isvc %s/%s", *key)
            await self._fail(key, isvc, pod, LoadFailed("ModelLoadFailed", f"{type(error).__name__}: {error}"), serving=old is not None)
            return
        self._failed.pop(key, None)
        self._deaths.pop(key, None)
        await self._put_pod(isvc, pod, "Running", ready=True)
        await self._route(isvc, new)
        self.active[key] = new
        if objects.get(self.db.reader, ISVC.resource, *key) is not None:
            await self._say(key, status.ready(isvc, self.domain))  # of the spec that was loaded; a newer one is looked at next
            await self._event(isvc, "InferenceServiceReady", f"InferenceService [{key[1]}] is Ready")
        if old is not None:
            task = asyncio.create_task(self._retire(key, old))
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)

    async def _fail(self, key: Key, isvc: Json, pod: str, error: LoadFailed, *, serving: bool) -> None:
        self._failed[key] = predictors.revision_of(isvc)
        self._deaths[key] = self._deaths.get(key, 0) + 1
        await self._say(key, status.failed(isvc, self.domain, pod, error, serving=serving))
        await self._put_pod(isvc, pod, "Failed", ready=False, reason=error.reason)
        await self._event(isvc, "InferenceServiceNotReady", f"{error.reason}: {error}", warning=True)

    async def _prune(self, key: Key, keep: set[str]) -> None:
        """Forget the pods of this service that neither serve nor drain."""
        draining = {run.name for run in self.folder(key).glob("*") if (handle := process.find(run)) and process.status(handle) is None}
        for body in objects.listing(self.db.reader, POD.resource, key[0]):
            pod = body["metadata"]["name"]
            if body["metadata"]["labels"]["serving.kserve.io/inferenceservice"] == key[1] and pod not in keep | draining:
                await self._delete(POD, key[0], pod)
                shutil.rmtree(self.folder(key) / pod, ignore_errors=True)

    async def _retire(self, key: Key, old: Predictor) -> None:
        await asyncio.sleep(DRAIN_DELAY_S)
        await process.stop(old.handle, grace_s=DRAIN_S)
        await self._delete(POD, key[0], old.pod)
        shutil.rmtree(old.handle.run_dir, ignore_errors=True)

    async def _died(self, key: Key, present: Predictor) -> None:
        """A predictor that served has ended: it is started again."""
        self._deaths[key] = self._deaths.get(key, 0) + 1
        del self.active[key]
        ended = process.status(present.handle)
        isvc = objects.get(self.db.reader, ISVC.resource, *key)
        if isvc is not None and ended is not None:
            error = LoadFailed("RuntimeUnhealthy", f"the predictor ended: {ended.reason()}", ended.code)
            await self._say(key, status.failed(isvc, self.domain, present.pod, error, serving=False))
            await self._event(isvc, "InferenceServiceNotReady", str(error), warning=True)

    async def _remove(self, key: Key) -> None:
        """The InferenceService is gone: its route first, then its processes."""
        await self._delete(ENDPOINTS, key[0], f"{key[1]}-predictor")
        self.active.pop(key, None)
        for run in self.folder(key).glob("*"):
            if handle := process.find(run):
                await process.stop(handle, grace_s=DRAIN_S)
        await self._prune(key, keep=set())
        shutil.rmtree(self.folder(key), ignore_errors=True)

    # records

    async def _delete(self, kind: Any, namespace: str, name: str) -> None:
        try:
            await self.db.write(partial(service.delete, kind=kind, namespace=namespace, name=name))
        except ApiError as error:
            if error.code != 404:
                raise

    async def _say(self, key: Key, content: Json) -> None:
        """Write the status where it says something new."""
        present = objects.get(self.db.reader, ISVC.resource, *key)
        if present is None:
            return
        content = status.keep_times(present.get("status") or {}, content)
        if present.get("status") == content:
            return

        def edit(body: Json) -> Json:
            return {**body, "status": content}

        await self.db.write(partial(service.change, kind=ISVC, namespace=key[0], name=key[1], edit=edit, status=True))

    async def _event(self, isvc: Json, reason: str, message: str, *, warning: bool = False) -> None:
        await self.db.write(partial(service.record_event, about=isvc, reason=reason, message=message[:1024], warning=warning))

    async def _put_pod(self, isvc: Json, pod: str, phase: str, *, ready: bool, reason: str = "") -> None:
        namespace, name = isvc["metadata"]["namespace"], isvc["metadata"]["name"]
        restarts = self._deaths.get((namespace, name), 0)
        body = status.pod(isvc, pod, phase, ready=ready, reason=reason, restarts=restarts)
        await self.db.write(partial(service.ensure, kind=POD, namespace=namespace, body=body))

    async def _route(self, isvc: Json, new: Predictor) -> None:
        """Point the service's Endpoints, which the gateway watches, at a revision."""
        body = {
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": {
                "name": f"{isvc['metadata']['name']}-predictor",
                "labels": {"serving.kserve.io/inferenceservice": isvc["metadata"]["name"]},
                "annotations": {"pdk/pod": new.pod},
            },
            "subsets": [{"addresses": [{"ip": new.host}], "ports": [{"port": new.port}]}],
        }
        await self.db.write(partial(service.ensure, kind=ENDPOINTS, namespace=isvc["metadata"]["namespace"], body=body))
