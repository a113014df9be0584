"""Log files as the servers hand them out: the end of one, or every line as it comes; secrets masked."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path

POLL_S = 0.1  # how late a followed line may be
CHUNK = 1 << 16
MASK = "********"


def tail(path: Path, lines: int, limit: int = 1 << 16) -> list[str]:
    """The last `lines` lines within the last `limit` bytes; empty where there is no file."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - limit))
            text = file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return []
    return text.splitlines()[-lines:]


async def follow(path: Path, ended: Callable[[], bool]) -> AsyncIterator[str]:
    """Every line of `path` from its beginning, waiting for more until `ended()` (asked before each read)."""
    rest, position = b"", 0
    while True:
        last = ended()
        try:
            with path.open("rb") as file:
                file.seek(position)
                while part := file.read(CHUNK):
                    position += len(part)
                    *whole, rest = (rest + part).split(b"\n")
                    for line in whole:
                        yield line.decode("utf-8", "replace").rstrip("\r")
        except FileNotFoundError:
            pass
        if last:
            if rest:
                yield rest.decode("utf-8", "replace")
            return
        await asyncio.sleep(POLL_S)


class Redactor:
    """Masks known secrets in text."""

    def __init__(self, *secrets: str) -> None:
        known = [re.escape(secret) for secret in secrets if len(secret) >= 6]
        self._pattern = re.compile("|".join(known)) if known else None

    def __call__(self, text: str) -> str:
        """The text without secrets."""
        return self._pattern.sub(MASK, text) if self._pattern else text
