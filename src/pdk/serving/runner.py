"""Runs a model's handler: one call at a time in a thread of its own, in order, several requests together where that is asked for."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pdk.errors import NotSupported, WireError
from pdk.serving.metrics import Metrics
from pdk.serving.model import Model

MAX_SKIPPED = 64  # batches that may go without waiting for company, after waiting brought none again and again


class Rejected(WireError):
    """A request that is answered with an error, and an HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Answer:
    """What the model made of a request, and how long that waited and took in seconds."""

    predictions: list[Any]
    queue_s: float
    handler_s: float


@dataclass(eq=False)
class Waiting:
    """A request that waits for the model."""

    instances: Sequence[Any]
    request_id: str
    explain: bool
    answer: asyncio.Future[Answer]
    loop: asyncio.AbstractEventLoop
    since: float = field(default_factory=time.perf_counter)

    def settle(self, result: Answer | Exception) -> None:
        """Hand the answer to who waits, from another thread."""
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits any more
            self.loop.call_soon_threadsafe(self._settle, result)

    def _settle(self, result: Answer | Exception) -> None:
        if self.answer.done():
            return
        if isinstance(result, Exception):
            self.answer.set_exception(result)
        else:
            self.answer.set_result(result)


def _meaning(error: BaseException) -> Exception:
    """Return what a handler's error means to who asked; what futures and loops take for their own comes as something else."""
    if isinstance(error, ValueError):
        return Rejected(400, str(error))
    if isinstance(error, NotSupported):
        return Rejected(501, str(error))
    if isinstance(error, Exception) and not isinstance(error, StopIteration | StopAsyncIteration | TimeoutError | asyncio.CancelledError):
        return error
    made = RuntimeError(f"{type(error).__name__}: {error}")
    made.__cause__ = error
    return made


class Runner:
    """The queue of one model, and the thread in which its handler runs: handlers are not made for more than one.

    The thread takes the next request itself, so that between two calls of the handler nothing waits for the event loop.

    Args:
        queue: requests that may wait; one more is refused, or memory would grow without bound.
    """

    def __init__(self, model: Model, metrics: Metrics, queue: int) -> None:
        self.model, self.metrics, self.limit = model, metrics, queue
        model.handler.watch(metrics.stages)
        self._queue: deque[Waiting] = deque()
        self._arrived = threading.Condition()
        self._skip, self._skipped = 0, 0
        threading.Thread(target=self._work, name="handler", daemon=True).start()

    async def submit(self, instances: Sequence[Any], request_id: str, *, explain: bool = False) -> Answer:
        """Return the predictions for the instances of a request, or the explanations of them.

        Raises:
            Rejected: too many wait (503), it took too long (504), or the handler says that the request is at fault (400).
        """
        if len(self._queue) >= self.limit:
            raise Rejected(503, f"{len(self._queue)} requests are waiting already; try again later")
        loop = asyncio.get_running_loop()
        one = Waiting(instances, request_id, explain, loop.create_future(), loop)
        with self._arrived:
            self._queue.append(one)
            self._arrived.notify()
        self.metrics.waiting.set(len(self._queue))
        late = loop.call_later(self.model.settings.timeout_s, one._settle, TimeoutError())  # noqa: SLF001 - no task for a timer
        try:
            return await one.answer
        except TimeoutError:
            raise Rejected(504, f"the model did not answer within {self.model.settings.timeout_s:g} s") from None
        finally:
            late.cancel()

    def _work(self) -> None:
        """The thread: for ever."""
        while True:
            if batch := self._collect():
                self._answer(batch)

    def _collect(self) -> list[Waiting]:
        """Return the next requests that are answered together: up to the model's batch size, none waits longer than its delay."""
        settings = self.model.settings
        with self._arrived:
            while not self._queue:
                self.metrics.waiting.set(0)
                self._arrived.wait()
            if settings.batch_size > 1:
                self._gather(settings.batch_size, self._queue[0].since + settings.batch_delay_s)
            batch, size = list[Waiting](), 0
            while self._queue and (not batch or (size + len(self._queue[0].instances) <= settings.batch_size and not batch[0].explain)):
                if batch and self._queue[0].explain:
                    break
                one = self._queue.popleft()
                if not one.answer.done():  # nobody waits for it any more
                    batch.append(one)
                    size += len(one.instances)
        return batch

    def _gather(self, size: int, deadline: float) -> None:
        """Wait for company, where it pays: after waits in vain the next batches go at once, ever more of them."""

        def present() -> int:
            return sum(len(one.instances) for one in self._queue)

        began = present()
        if began >= size:
            return
        if self._skipped < self._skip:
            self._skipped += 1
            return
        while (count := present()) < size and (left := deadline - time.perf_counter()) > 0:
            self._arrived.wait(left)
        self._skip = 0 if count > began else min(MAX_SKIPPED, self._skip * 2 or 1)
        self._skipped = 0

    def _answer(self, batch: list[Waiting]) -> None:
        """Have the handler answer requests, each alone where they fail together: one at fault must not spoil the others."""
        began = time.perf_counter()
        for one in batch:
            self.metrics.stages["queue"].observe(began - one.since)
        try:
            answers = self._handle(batch, self.model.explain if batch[0].explain else self.model.handle)
        except BaseException as error:  # noqa: BLE001 - the handler may raise anything, or call sys.exit
            if len(batch) > 1:
                for one in batch:
                    self._answer([one])
            else:
                batch[0].settle(_meaning(error))
            return
        ended = time.perf_counter()
        for one in batch:
            part, answers = answers[: len(one.instances)], answers[len(one.instances) :]
            one.settle(Answer(part, began - one.since, ended - began))

    def _handle(self, batch: list[Waiting], work: Callable[[list[Any], Any], Any]) -> list[Any]:
        instances = [instance for one in batch for instance in one.instances]
        ids = [one.request_id for one in batch for _ in one.instances]
        context = self.model.context
        context.request_ids = dict(enumerate(ids))
        context.batch_size = len(instances)
        self.metrics.batch.observe(len(instances))
        with self.metrics.stages["handler"].time():
            answer = work(instances, context)
        return self.model.checked(answer, len(instances))
