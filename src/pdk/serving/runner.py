"""Runs a model's handler: one call at a time, requests in order, several together where that is asked for."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from pdk.serving.metrics import Metrics
from pdk.serving.model import Model

log = logging.getLogger(__name__)


class Refused(Exception):
    """A request that is answered with an error, and an HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Waiting:
    """A request that waits for the model."""

    instances: Sequence[Any]
    request_id: str
    answer: asyncio.Future[list[Any]]
    since: float = field(default_factory=time.perf_counter)


class Runner:
    """The queue of one model, and the thread in which its handler runs: handlers are not made for more than one.

    Args:
        queue: requests that may wait; one more is refused, or memory would grow without bound.
    """

    def __init__(self, model: Model, metrics: Metrics, queue: int) -> None:
        self.model, self.metrics, self.limit = model, metrics, queue
        model.handler.watch(metrics.stages)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="handler")
        self._queue: deque[Waiting] = deque()
        self._running: asyncio.Task[None] | None = None

    async def submit(self, instances: Sequence[Any], request_id: str) -> list[Any]:
        """The predictions for the instances of a request.

        Raises:
            Refused: too many wait (503), it took too long (504), or the handler says that the request is at fault (400).
        """
        if len(self._queue) >= self.limit:
            raise Refused(503, f"{len(self._queue)} requests are waiting already; try again later")
        one = Waiting(instances, request_id, asyncio.get_running_loop().create_future())
        self._queue.append(one)
        self.metrics.waiting.set(len(self._queue))
        if self._running is None:
            self._running = asyncio.create_task(self._work(), name="handler")
        try:
            async with asyncio.timeout(self.model.settings.timeout_s):
                return await one.answer
        except TimeoutError:
            raise Refused(504, f"the model did not answer within {self.model.settings.timeout_s:g} s") from None
        finally:
            if one in self._queue:  # nobody waits for it any more
                self._queue.remove(one)

    async def _work(self) -> None:
        """Until the queue is empty."""
        try:
            while self._queue:
                batch = await self._collect()
                self.metrics.waiting.set(len(self._queue))
                if batch:
                    await self._answer(batch)
        finally:
            self._running = None

    async def _collect(self) -> list[Waiting]:
        """The next requests that are answered together: up to the model's batch size, none waits longer than its delay."""
        if self.model.settings.batch_size > 1:
            deadline = self._queue[0].since + self.model.settings.batch_delay_s
            while self._queue and sum(len(one.instances) for one in self._queue) < self.model.settings.batch_size:
                left = deadline - time.perf_counter()
                if left <= 0:
                    break
                await asyncio.sleep(min(left, 0.001))
        batch = list[Waiting]()
        size = 0
        while self._queue and (not batch or size + len(self._queue[0].instances) <= self.model.settings.batch_size):
            batch.append(self._queue.popleft())
            size += len(batch[-1].instances)
        return batch

    async def _answer(self, batch: list[Waiting]) -> None:
        """Have the handler answer requests, each alone where they fail together: one at fault must not spoil the others."""
        loop, began = asyncio.get_running_loop(), time.perf_counter()
        for one in batch:
            self.metrics.stages["queue"].observe(began - one.since)
        try:
            answers = await loop.run_in_executor(self._thread, self._handle, batch)
        except Exception as error:  # noqa: BLE001 - the handler may raise anything
            if len(batch) > 1:
                for one in batch:
                    await self._answer([one])
            elif not batch[0].answer.done():
                batch[0].answer.set_exception(Refused(400, str(error)) if isinstance(error, ValueError) else error)
            return
        for one in batch:
            part, answers = answers[: len(one.instances)], answers[len(one.instances) :]
            if not one.answer.done():
                one.answer.set_result(part)

    def _handle(self, batch: list[Waiting]) -> list[Any]:
        instances = [instance for one in batch for instance in one.instances]
        ids = [one.request_id for one in batch for _ in one.instances]
        context = self.model.context
        context.request_ids = dict(enumerate(ids))
        context.batch_size = len(instances)
        self.metrics.batch.observe(len(instances))
        with self.metrics.stages["handler"].time():
            answer = self.model.handle(instances, context)
        if not isinstance(answer, list) or len(answer) != len(instances):
            raise TypeError(
                f"the handler answered {len(instances)} instances with {type(answer).__name__} instead of a list of that length"
            )
        return answer
