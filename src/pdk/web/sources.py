"""The page's way to the catalogue: its calls wait for engines, so each has a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from pdk.catalog import Catalog, engines_of
from pdk.installation import Installation

T = TypeVar("T")
LOG_LINES = 500  # of a log that a page shows: its end


class Sources:
    """The engines of one installation."""

    def __init__(self, installation: Installation) -> None:
        self._catalog = Catalog(engines_of(installation))

    async def ask(self, question: Callable[[Catalog], T]) -> T:
        """Ask the catalogue something.

        Raises:
            PdkError: with the engine's words.
        """
        return await asyncio.to_thread(question, self._catalog)
