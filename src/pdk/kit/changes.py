"""Waiting inside one event loop until something that was written makes a condition true."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

log = logging.getLogger(__name__)
AGAIN_S = 1.0  # after which a step that failed is taken once more


class Changes:
    """Told of every write (`notify`); wakes those who wait (`watch`), who then look again."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def notify(self) -> None:
        """Something changed: wake everybody who waits now."""
        self._event.set()
        self._event = asyncio.Event()

    def next(self) -> asyncio.Event:
        """Set at the next change."""
        return self._event

    async def watch(self, poll_s: float | None = None) -> AsyncIterator[None]:
        """Yield at once, then after every change (and every `poll_s` seconds); no change between two looks is missed."""
        while True:
            event = self._event
            yield
            try:
                await asyncio.wait_for(event.wait(), poll_s)
            except TimeoutError:
                continue


class Steps:
    """Takes a step after every change. One that fails ends nothing: it is in the log once, and in /healthz until a step succeeds."""

    def __init__(self, changes: Changes, step: Callable[[], Awaitable[None]]) -> None:
        self.changes, self.step, self.failure = changes, step, ""

    async def run(self) -> None:
        """Until cancelled."""
        async for _ in self.changes.watch():
            try:
                await self.step()
                self.failure = ""
            except Exception as error:  # a row that cannot be read, a full disk: the server must go on answering
                if (failure := f"{type(error).__name__}: {error}") != self.failure:
                    log.exception("a step failed; it is tried again")
                self.failure = failure
                await asyncio.sleep(AGAIN_S)
                self.changes.notify()

    def health(self) -> str:
        """Say what failed, for /healthz; empty where nothing did."""
        return f"{self.failure}; the server's log has the rest" if self.failure else ""
