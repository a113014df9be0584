"""Waiting inside one event loop until something that was written makes a condition true."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator


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
