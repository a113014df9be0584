"""The replicas of one revision: as many as wanted, started again when they die, drained when they go."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import shutil
import time
from collections.abc import Awaitable, Callable

from pdk.kit import process
from pdk.kit.changes import Changes
from pdk.local.kserve.rules.rollout import Revision
from pdk.local.kserve.runtime.replica import LoadFailed, Replica

log = logging.getLogger(__name__)
DRAIN_DELAY_S = 1.0  # between taking a replica off the route and ending it: the gateway hears of it within milliseconds
DRAIN_S = 30.0  # that open requests get then, as Kubernetes' grace period
RESTART_S = (0.0, 1.0, 5.0, 15.0, 60.0)  # pauses before a replica that died or did not start is started again
TRIAL_S = 10.0  # a replica that answered for less than that was not good; where another revision serves, it is not started again
POLL_S = 0.25  # between two looks at what predictors do
Start = Callable[[Revision], Awaitable[Replica]]


class Fleet:
    """Replicas of a revision.

    Args:
        start: brings one up.
        changes: told whenever replicas came or went.
        gone: told of a pod that has ended.

    `scale` says how many are wanted; `retry` whether a revision that cannot start is tried again.
    """

    def __init__(self, revision: Revision, start: Start, changes: Changes, gone: Callable[[Replica], Awaitable[None]]) -> None:
        self.revision, self.retry = revision, True
        self._wanted, self._woken = 0, asyncio.Event()
        self.replicas: list[Replica] = []
        self.served = False  # whether one ever answered
        self.failure: LoadFailed | None = None
        self.failures = 0
        self.changed = time.monotonic()
        self._start, self._changes, self._gone = start, changes, gone
        self._since: dict[str, float] = {}  # since when the replicas that answer have done so without a break
        self._stood: float | None = None  # seconds for which the replica that stopped answering last had answered
        self._leaving: set[asyncio.Task[None]] = set()
        loops = (self._again(self._watch, asyncio.Event()), self._again(self._fill, self._woken))
        self._tasks = [asyncio.create_task(loop, name=f"fleet {revision.name}") for loop in loops]

    def adopt(self, found: Replica) -> None:
        """Take in a replica that an earlier server left running."""
        self._join(found, since=0.0)
        self._wanted = len(self.replicas)

    def _join(self, replica: Replica, since: float) -> None:
        self.replicas.append(replica)
        self._since[replica.pod] = since
        self.served = True

    def scale(self, wanted: int) -> None:
        """Have so many replicas."""
        if wanted != self._wanted:
            self._wanted = wanted
            self._woken.set()

    @property
    def ready(self) -> list[Replica]:
        """Return the replicas that answer at this moment: a runtime takes its ready file away while it has no worker."""
        return [replica for replica in self.replicas if replica.answers]

    @property
    def since(self) -> float:
        """Since when (`time.monotonic`) at least one replica has answered without a break; infinity where none does."""
        return min(self._since.values(), default=math.inf)

    @property
    def faltered(self) -> bool:
        """Return whether a replica stopped answering before it had shown that it is good."""
        return self._stood is not None and self._stood <= TRIAL_S

    @property
    def asleep(self) -> bool:
        """Return whether it has no replicas because none is needed."""
        return self.served and self.failure is None and not self.replicas

    @property
    def given_up(self) -> bool:
        """Return whether it failed and is not tried again: no replica of it has shown that it is good."""
        good = (self._stood or 0.0) > TRIAL_S or time.monotonic() - self.since > TRIAL_S
        return self.failure is not None and not self.retry and not good

    async def _again(self, look: Callable[[], Awaitable[None]], woken: asyncio.Event) -> None:
        """Until cancelled: every now and then, and when woken."""
        while True:
            try:
                await look()
            except Exception:  # a full disk, say: the next look may find it mended
                log.exception("revision %s", self.revision.name)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(woken.wait(), POLL_S)
            woken.clear()

    async def _watch(self) -> None:
        """Note who answers, and who has ended; while another replica is being brought up too."""
        ready, now = {replica.pod for replica in self.ready}, time.monotonic()
        if ready != self._since.keys():
            if lost := self._since.keys() - ready:
                self._stood = max(now - self._since[pod] for pod in lost)
            self._since = {pod: self._since.get(pod, now) for pod in ready}
            self._changes.notify()
        ends = [(replica, ended) for replica in self.replicas if (ended := process.status(replica.handle)) is not None]
        for replica, ended in ends:
            self.replicas.remove(replica)
            self.failures += 1
            self.failure = LoadFailed("RuntimeUnhealthy", f"the predictor ended: {ended.reason()}", ended.code)
            self._told()
            self._woken.set()
        if self.failure and len(self._since) >= self._wanted and now - max(self._since.values(), default=now) > TRIAL_S:
            self._mended()
        for replica, _ in ends:
            await self._gone(replica)

    async def _fill(self) -> None:
        """Have as many replicas as are wanted."""
        if len(self.replicas) < self._wanted and not self.given_up:
            await self._add()
        while len(self.replicas) > self._wanted:
            self._leave(self.replicas.pop())
            self._told()

    async def _add(self) -> None:
        if self.failures:
            await asyncio.sleep(RESTART_S[min(self.failures - 1, len(RESTART_S) - 1)])
        before = self.failures
        try:
            self._join(await self._start(self.revision), since=time.monotonic())
        except LoadFailed as error:
            self.failure, self.failures = error, self.failures + 1
        except Exception as error:  # the service must say why, whatever went wrong; the log has the rest
            log.exception("revision %s", self.revision.name)
            self.failure, self.failures = LoadFailed("ModelLoadFailed", f"{type(error).__name__}: {error}"), self.failures + 1
        else:
            if self.failures == before:  # else another died meanwhile: what it died of may be these requests
                self._mended()
        self._told()

    def _mended(self) -> None:
        self.failure, self.failures = None, 0

    def _told(self) -> None:
        self.changed = time.monotonic()
        self._changes.notify()

    def _leave(self, replica: Replica) -> None:
        self._since.pop(replica.pod, None)

        async def drain() -> None:
            await asyncio.sleep(DRAIN_DELAY_S)
            await process.stop(replica.handle, grace_s=DRAIN_S)
            await self._gone(replica)
            shutil.rmtree(replica.handle.run_dir, ignore_errors=True)

        task = asyncio.create_task(drain(), name=f"drain {replica.pod}")
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def stop(self) -> None:
        """Start and watch no more; what runs goes on."""
        for task in (*self._tasks, *self._leaving):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._leaving, return_exceptions=True)

    async def close(self) -> None:
        """Drain all replicas, and wait until they have ended."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for replica in self.replicas:
            self._leave(replica)
        self.replicas = []
        await asyncio.gather(*self._leaving, return_exceptions=True)
