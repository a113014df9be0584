"""Starts the worker processes, and starts them again when they die. It holds the listening sockets and is never in a request's way.

While a worker is away connections wait in its socket's backlog, or go to the model's other workers. A model whose workers die again
and again is stopped, and with it the server: whoever runs it (Kubernetes, `pdk up`, a user) sees the reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import socket
import sys
import tempfile
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from prometheus_client import multiprocess

from pdk.environment import environment_with
from pdk.errors import UserError
from pdk.serving.plan import Plan
from pdk.settings import Serving

log = logging.getLogger(__name__)
PAUSES_S = (0.0, 0.2, 1.0, 3.0)  # before a worker that died is started again

# glibc gives memory back to the system after every request otherwise, and page faults cost a third of the throughput
ALLOCATOR = {"MALLOC_TRIM_THRESHOLD_": "268435456", "MALLOC_MMAP_THRESHOLD_": "268435456", "MALLOC_TOP_PAD_": "67108864"}


def reason(code: int) -> str:
    """Return what an exit status says."""
    if code >= 0:
        return f"it ended with code {code}"
    name = signal.Signals(-code).name
    return f"it was killed by {name}" + (", perhaps for want of memory" if -code == signal.SIGKILL else "")


@dataclass
class Group:
    """The workers of one model.

    Args:
        plan: what each is told, except its own report socket.
        sock: what they accept on.
        model: the model's name, once one has said it.
        answering: how many workers answer at this moment.
    """

    plan: Plan
    sock: socket.socket
    count: int
    model: str = ""
    answering: int = 0
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    deaths: deque[float] = field(default_factory=lambda: deque(maxlen=Serving.crash_limit))


class Supervisor:
    """Runs groups of workers.

    Args:
        metrics: folder in which workers keep their counts together; None where there is one worker.
        changed: told whether every model answers, whenever a worker came or went.
    """

    def __init__(self, groups: Sequence[Group], metrics: Path | None, changed: Callable[[bool], None]) -> None:
        self.groups, self.metrics, self._changed = groups, metrics, changed
        self._running = set[asyncio.subprocess.Process]()
        self._ending = asyncio.Event()

    async def run(self, front: Callable[[], Awaitable[None]], stop: asyncio.Event) -> None:
        """Until `stop` is set and every worker has ended its requests and itself.

        Args:
            front: awaited once every model answers; it returns after `stop` is set.

        Raises:
            UserError: a model cannot be served, or its workers die again and again.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                for group in self.groups:
                    for _ in range(group.count):
                        tasks.create_task(self._keep(group))
                waiting = (asyncio.ensure_future(self._answering()), asyncio.ensure_future(stop.wait()))
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                if not stop.is_set():
                    await front()
                for task in waiting:
                    task.cancel()
                self._end()
        except ExceptionGroup as problems:
            raise problems.exceptions[0] from None

    def _count(self, group: Group, difference: int) -> None:
        group.answering += difference
        self._changed(all(one.answering for one in self.groups))

    async def _answering(self) -> None:
        for group in self.groups:
            await group.ready.wait()

    def _end(self) -> None:
        self._ending.set()
        for group in self.groups:
            group.sock.close()
        for process in self._running:
            if process.returncode is None:
                process.terminate()

    async def _keep(self, group: Group) -> None:
        """One worker of a group, again and again."""
        served = False
        while not self._ending.is_set():
            code, said = await self._run(group)
            if self._ending.is_set():
                return
            if "error" in said:
                raise UserError(said["error"])
            what = f"the worker of {group.model or Path(group.plan.archive).name}: {reason(code)}"
            served = served or bool(said)
            if not served:
                raise UserError(f"{what} before it answered; its last lines above say why")
            group.deaths.append(time.monotonic())
            recent = [at for at in group.deaths if at > time.monotonic() - Serving.crash_window_s]
            if len(recent) >= Serving.crash_limit:
                often = f"for the {len(recent)}th time within {Serving.crash_window_s:g} s"
                raise UserError(f"{what}, {often}; the server stops. Its last lines above say why")
            pause = PAUSES_S[min(len(recent), len(PAUSES_S)) - 1]
            log.warning("%s; it is started again in %g s", what, pause)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), pause)

    async def _run(self, group: Group) -> tuple[int, dict[str, str]]:
        """One life of a worker: its exit status, and what it said."""
        with tempfile.TemporaryDirectory(prefix="pdk-serving-", ignore_cleanup_errors=True) as scratch:
            return await self._live(group, scratch)

    async def _live(self, group: Group, scratch: str) -> tuple[int, dict[str, str]]:
        ours, theirs = socket.socketpair()
        plan = replace(group.plan, listen=group.sock.fileno(), report=theirs.fileno(), scratch=scratch)
        shared = {"PROMETHEUS_MULTIPROC_DIR": str(self.metrics)} if self.metrics else {}
        environment = environment_with({"OMP_NUM_THREADS": str(plan.threads), **shared}, defaults=ALLOCATOR)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "pdk.serving.worker", plan.to_json(), pass_fds=(plan.listen, plan.report), env=environment,
            stdin=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        theirs.close()
        self._running.add(process)
        if self._ending.is_set():  # while it was being started
            process.terminate()
        reader, writer = await asyncio.open_connection(sock=ours)
        try:
            said = json.loads(await reader.readline() or b"{}")
            if "model" in said:
                group.model = said["model"]
                group.ready.set()
                self._count(group, 1)
            try:
                return await process.wait(), said
            finally:
                if "model" in said:
                    self._count(group, -1)
        except asyncio.CancelledError:
            if process.returncode is None:
                process.terminate()
            await process.wait()
            raise
        finally:
            writer.close()
            self._running.discard(process)
            if self.metrics:
                multiprocess.mark_process_dead(process.pid, str(self.metrics))  # type: ignore[no-untyped-call]
