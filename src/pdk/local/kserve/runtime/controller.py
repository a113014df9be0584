"""What KServe's controller does: brings every InferenceService to its spec, without losing a request.

A new revision must answer before requests go to it; then the old one is let drain. A revision that fails never gets any: the old one
goes on, and the status says why. What runs is known from the records and the launcher's run folders, so a restarted server finds its
predictors still answering.
"""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from pdk.errors import PdkError
from pdk.kit import process
from pdk.kit.changes import Steps
from pdk.kit.db import Database
from pdk.local.kserve.rules import rollout, scaling, status
from pdk.local.kserve.rules.kinds import ENDPOINTS, ISVC, POD, Json
from pdk.local.kserve.rules.rollout import Revision, Share
from pdk.local.kserve.runtime import replica as replicas
from pdk.local.kserve.runtime.fleet import DRAIN_S, TRIAL_S, Fleet
from pdk.local.kserve.runtime.records import Key, Records
from pdk.local.kserve.runtime.replica import LoadFailed, Place, Replica
from pdk.local.kserve.store import table
from pdk.words import KEEP_PREVIOUS_S, PODS, PREVIOUS, REQUEST_LOG_SAMPLE, STABLE

log = logging.getLogger(__name__)
POLL_S = 1.0  # at most until replicas are counted anew
SETTLE_S = 2.0  # for which a new revision must answer before the one before it may go; TRIAL_S once it has stopped answering


class Service:
    """One InferenceService."""

    def __init__(self, db: Database, key: Key, home: Path, domain: str, hide: Path) -> None:
        self.db, self.key, self.home, self.domain, self.hide = db, key, home, domain, hide
        self.records, self.demand = Records(db, key), scaling.Demand()
        self.fleets: dict[str, Fleet] = {}
        self.stable: Revision | None = None
        self.previous: Revision | None = None
        self._warm: dict[str, float] = {}  # until when a revision that gets no requests is kept
        self._settling: tuple[Revision, float] | None = None  # a revision that gets all requests, and since when
        self._starting: set[str] = set()
        self._told: dict[str, LoadFailed] = {}
        self._leaving: set[asyncio.Task[None]] = set()

    @property
    def folder(self) -> Path:
        """Return where its run folders are."""
        return self.home / "predictors" / self.key[0] / self.key[1]

    async def adopt(self) -> None:
        """Find the replicas that outlived an earlier server; end those that nothing routes to."""
        noted = self.records.routed()
        self.stable, self.previous = (self._revision(noted.get(name)) for name in (STABLE, PREVIOUS))
        isvc = self.records.isvc()
        latest = rollout.revision_of(isvc) if isvc else None
        known = {revision.name: revision for revision in (self.stable, self.previous, latest) if revision}
        routed = json.loads(noted.get(PODS) or "{}")
        for run in self.folder.glob("*"):
            if (handle := process.running(run)) is None:
                continue
            found = replicas.adopt(handle)
            if found and found.revision in known and run.name in routed:
                self._fleet(known[found.revision]).adopt(found)
                log.info("found %s still running as process %d", run.name, handle.pid)
            else:
                await process.stop(handle)
        present = {replica.pod for fleet in self.fleets.values() for replica in fleet.replicas}
        for pod in set(self.records.pods()) - present:
            await self.records.delete(POD, pod)

    def _revision(self, text: str | None) -> Revision | None:
        if not text:
            return None
        return rollout.revision_of({"metadata": {"name": self.key[1]}, "spec": {"predictor": json.loads(text)}})

    def _fleet(self, revision: Revision) -> Fleet:
        if revision.name not in self.fleets:
            self.fleets[revision.name] = Fleet(revision, self._start, self.db.changes, self._gone)
        return self.fleets[revision.name]

    async def _start(self, revision: Revision) -> Replica:
        """Bring up one replica, its pod on record."""
        isvc = self.records.isvc() or {"metadata": {}}
        await self._prune()
        pod = replicas.new_pod(revision.name)
        self._starting.add(pod)
        await self.records.pod(pod, "Pending", ready=False)
        sample = min(1.0, max(0.0, rollout.number_of(isvc, REQUEST_LOG_SAMPLE)))
        place = Place(self.folder / pod, self.home / "models", self.home / "requests" / self.key[0] / self.key[1], sample, self.hide)
        restarts = self.fleets[revision.name].failures if revision.name in self.fleets else 0
        made: Replica | None = None
        try:
            made = await replicas.bring_up(self.db.reader, self.key[0], revision, place)
            await self.records.pod(pod, "Running", ready=True, restarts=restarts)
        except LoadFailed as error:
            await self.records.pod(pod, "Failed", ready=False, reason=error.reason, restarts=restarts)
            raise
        except BaseException:  # nobody waits for it any more
            if made is not None:
                await asyncio.shield(process.stop(made.handle))
            await asyncio.shield(self.records.delete(POD, pod))
            raise
        finally:
            self._starting.discard(pod)
        return made

    async def _gone(self, replica: Replica) -> None:
        await self.records.delete(POD, replica.pod)

    async def _prune(self) -> None:
        """Forget the pods of this service that neither start nor serve nor drain."""
        for pod in self.records.pods():
            if pod not in self._starting and process.running(self.folder / pod) is None:
                await self.records.delete(POD, pod)
                shutil.rmtree(self.folder / pod, ignore_errors=True)

    async def step(self, isvc: Json) -> None:
        """Look at what is wanted and what there is, and go one step on."""
        latest = rollout.revision_of(isvc)
        self._leave_settling(latest)
        shares = rollout.wanted(isvc, self.stable)
        fleet = self._fleet(latest)
        answers = bool(fleet.ready) or fleet.asleep
        if shares != [Share(latest, 100)]:
            self._settling = None
        elif answers and self._has_settled(fleet):
            if self.stable is None or self.stable.name != latest.name:
                self.previous, self._settling = self.stable, None
                await self.records.event("InferenceServiceReady", f"InferenceService [{self.key[1]}] is Ready")
            self.stable = latest  # or how many replicas it has has changed
        routed = rollout.now(shares, self.stable, answers=answers)
        shared = [(share, self._fleet(share.revision)) for share in routed]
        kept = {latest.name, *([self.stable.name] if self.stable else [])}
        others = [found for name, found in self.fleets.items() if name in kept and found is not fleet]
        for other in others:
            other.retry = True
        fleet.retry = not any(other.ready for other in others)
        self._scale(isvc, [fleet, *others])
        wakes = any(found.served and found.failures <= 1 for _, found in shared)
        spare = [(Share(found.revision, 0), found) for found in others if found not in [one for _, one in shared]]
        answering = [(share, found.ready) for share, found in shared + spare]
        await self.records.route(answering, self.stable, self.previous, wakes=wakes)
        await self._retire(rollout.number_of(isvc, KEEP_PREVIOUS_S), kept)
        await self._report(isvc, fleet, shared)

    def _leave_settling(self, latest: Revision) -> None:
        """A revision that answered until another was asked for has been rolled out, however short that was."""
        if self._settling is not None and self._settling[0].name != latest.name:
            (held, began), self._settling = self._settling, None
            if (left := self.fleets[held.name]).ready and left.since <= began:
                self.previous, self.stable = self.stable, held

    def _has_settled(self, fleet: Fleet) -> bool:
        """Return whether a revision has answered all requests for a while, which begins with the first question here.

        Until then the one before stays, to take what the new one drops, or all where that dies.
        """
        if self.stable is None or self.stable.name == fleet.revision.name or fleet.asleep:
            return True
        if self._settling is None:
            self._settling = (fleet.revision, time.monotonic())
        needed = TRIAL_S if fleet.faltered else SETTLE_S
        return time.monotonic() - max(self._settling[1], fleet.since) >= needed

    def _scale(self, isvc: Json, fleets: Sequence[Fleet]) -> None:
        for fleet in fleets:
            if not fleet.served:
                fleet.scale(1)
                continue
            wanted = scaling.replicas(isvc, self.demand, len(fleet.replicas), fleet.changed, time.monotonic())
            fleet.scale(max(1, wanted) if fleet.failure else wanted)

    async def _retire(self, keep_s: float, kept: set[str]) -> None:
        """Drain revisions that get no requests any more, the one before after the seconds for which it is kept."""
        now = time.monotonic()
        for name in [name for name in self.fleets if name not in kept]:
            before = self.previous is not None and self.previous.name == name
            until = self._warm.setdefault(name, now + (keep_s if before else 0.0))
            if now >= until:
                self._warm.pop(name)
                task = asyncio.create_task(self.fleets.pop(name).close())
                self._leaving.add(task)
                task.add_done_callback(self._leaving.discard)
        for name in kept & self._warm.keys():
            del self._warm[name]

    async def _report(self, isvc: Json, fleet: Fleet, shared: Sequence[tuple[Share, Fleet]]) -> None:
        """Write the status; an event for what went wrong anew.

        Args:
            fleet: of the newest revision.
            shared: who gets requests at this moment.
        """
        error, name = fleet.failure, fleet.revision.name
        if error is not None and self._told.get(name) is not error:
            self._told[name] = error
            await self.records.event("InferenceServiceNotReady", f"{error.reason}: {error}", warning=True)
        others = any(found.ready for _, found in shared if found is not fleet)
        if error is not None and not fleet.replicas:
            content = status.failed(isvc, self.domain, name, error, serving=others)
        elif fleet.ready or fleet.asleep:
            content = status.ready(isvc, self.domain, sum(len(found.ready) for _, found in shared))
        else:
            content = status.progressing(isvc, self.domain, serving=others)
        if rollout.mode_of(isvc) == "Knative":
            shares = [share for share, _ in shared]
            status.add_revisions(content, name, self.stable, self.previous, shares, ready=fleet.served)
        await self.records.say(content)

    async def remove(self) -> None:
        """The InferenceService is gone: its route first, then its processes."""
        await self.records.delete(ENDPOINTS, f"{self.key[1]}-predictor")
        await asyncio.gather(*(fleet.close() for fleet in self.fleets.values()), *self._leaving)
        for run in self.folder.glob("*"):
            if handle := process.find(run):
                await process.stop(handle, grace_s=DRAIN_S)
        for pod in self.records.pods():
            await self.records.delete(POD, pod)
        shutil.rmtree(self.folder, ignore_errors=True)

    async def stop(self) -> None:
        """Look after nothing any more."""
        for task in self._leaving:
            task.cancel()
        await asyncio.gather(*(fleet.stop() for fleet in self.fleets.values()), *self._leaving, return_exceptions=True)


class Controller:
    """Drives all InferenceServices towards their specs.

    Args:
        home: folder for run folders, downloaded models and request logs.
        domain: InferenceServices answer to NAME.NAMESPACE.<domain>.
        hide: the installation's state folder, which no handler may see.
    """

    def __init__(self, db: Database, home: Path, domain: str, hide: Path) -> None:
        self.db, self.home, self.domain, self.hide = db, home, domain, hide
        self.services: dict[Key, Service] = {}
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        self.steps = Steps(db.changes, self._look)

    def pod_log(self, namespace: str, pod: str) -> tuple[Path, Callable[[], bool]]:
        """Return a predictor's log, and whether there will be no more of it."""
        run = self.home / "predictors" / namespace / pod.rpartition("-predictor-")[0] / pod

        return run / "log", lambda: process.running(run) is None

    def report(self, key: Key, count: float) -> None:
        """The gateway says how many requests of a service are open."""
        if (found := self.services.get(key)) is not None:
            waking = count > 0 and not any(fleet.replicas for fleet in found.fleets.values())
            found.demand.report(time.monotonic(), count)
            if waking:
                self.db.changes.notify()

    async def run(self) -> None:
        """Until cancelled; then every predictor is ended, for the next start to bring up again."""
        await self._end_orphans()
        try:
            await self.steps.run()
        finally:
            await asyncio.shield(self._stop_all())

    async def _look(self) -> None:
        """Begin to manage what is new."""
        for body in table.listing(self.db.reader, ISVC.resource):
            key = (body["metadata"]["namespace"], body["metadata"]["name"])
            if key not in self._tasks:
                task = asyncio.create_task(self._manage(key), name=f"isvc {key[0]}/{key[1]}")
                self._tasks[key] = task
                task.add_done_callback(partial(self._done, key))

    def _done(self, key: Key, task: asyncio.Task[None]) -> None:
        self._tasks.pop(key, None)
        if not task.cancelled() and (error := task.exception()):
            log.error("isvc %s/%s", *key, exc_info=error)
        self.db.changes.notify()

    async def _manage(self, key: Key) -> None:
        """One InferenceService, until it is deleted."""
        found = self.services[key] = Service(self.db, key, self.home, self.domain, self.hide)
        try:
            await found.adopt()
            async for _ in self.db.changes.watch(poll_s=POLL_S):
                isvc = found.records.isvc()
                if isvc is None:
                    await found.remove()
                    return
                await found.step(isvc)
        except Exception:
            await asyncio.sleep(POLL_S)  # before it is looked at anew
            raise
        finally:
            del self.services[key]
            await asyncio.shield(found.stop())

    async def _end_orphans(self) -> None:
        """End what runs for services that were deleted while no server ran."""
        for run in self.home.glob("predictors/*/*/*"):
            try:
                await self._end_orphan(run)
            except (OSError, ValueError, PdkError):
                log.exception("%s", run)

    async def _end_orphan(self, run: Path) -> None:
        if table.get(self.db.reader, ISVC.resource, run.parent.parent.name, run.parent.name) is None:
            if handle := process.find(run):
                await process.stop(handle)
            await Records(self.db, (run.parent.parent.name, run.parent.name)).delete(POD, run.name)
            shutil.rmtree(run, ignore_errors=True)

    async def _stop_all(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        running = [handle for run in self.home.glob("predictors/*/*/*") if (handle := process.find(run))]
        await asyncio.gather(*(process.stop(handle) for handle in running), return_exceptions=True)
        for handle in running:
            (handle.run_dir / "started.json").unlink(missing_ok=True)
