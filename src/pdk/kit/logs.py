"""Log files as the servers hand them out: the end of one, or every line as it comes; secrets masked."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from pathlib import Path

POLL_S = 0.1  # how late a followed line may be
CHUNK = 1 << 16  # bytes of a log that are read at once
LINE = 1 << 16  # bytes of a line that are shown
CUT = " … (the rest of this line is left out)"
MASK = "********"


def tail(path: Path, lines: int, limit: int = 1 << 16) -> list[str]:
    """Return the last `lines` lines within the last `limit` bytes; empty where there is no file."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - limit))
            text = file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return []
    return text.splitlines()[-lines:]


class Looks:
    """Looks every now and then at what changes by itself, once for all who wait for it."""

    def __init__(self) -> None:
        self._waited: dict[Hashable, tuple[Callable[[], Hashable], Hashable, asyncio.Event]] = {}
        self._looking: asyncio.Task[None] | None = None

    async def change(self, key: Hashable, look: Callable[[], Hashable], seen: Hashable) -> None:
        """Wait until what `look` returns is no longer `seen`; all who name the same `key` look for the same."""
        while look() == seen:
            _, _, changed = self._waited.setdefault(key, (look, seen, asyncio.Event()))
            if self._looking is None or self._looking.done():
                self._looking = asyncio.create_task(self._look())
            await changed.wait()

    async def _look(self) -> None:
        while self._waited:
            began = time.monotonic()
            for key, (look, seen, changed) in list(self._waited.items()):
                try:
                    same = look() == seen
                except Exception:  # noqa: BLE001 - those who wait look themselves, and raise it where it belongs
                    same = False
                if not same:
                    del self._waited[key]
                    changed.set()
            # with very much to look at, it must not be the only thing that the server does
            await asyncio.sleep(max(POLL_S, 10 * (time.monotonic() - began)))


LOOKS = Looks()


class Lines:
    """Makes lines of what comes in parts; of a line that is too long the beginning."""

    def __init__(self) -> None:
        self._rest, self._cut = b"", False

    def add(self, part: bytes) -> list[str]:
        """Take a part; the lines that it completes."""
        first, *more = part.split(b"\n")
        self._go_on(first)
        found = []
        for piece in more:
            found += self.end(always=True)
            self._go_on(piece)
        return found

    def _go_on(self, piece: bytes) -> None:
        room = LINE - len(self._rest)
        self._rest += piece[:room]
        self._cut = self._cut or len(piece) > room

    def end(self, *, always: bool = False) -> list[str]:
        """Take what there is for a line, an empty one only where that is wanted."""
        line, cut = self._rest, self._cut
        self._rest, self._cut = b"", False
        return [line.decode("utf-8", "replace").rstrip("\r") + CUT * cut] if line or always else []


async def follow(path: Path, ended: Callable[[], bool]) -> AsyncIterator[str]:
    """Give every line of `path` from its beginning, waiting for more until `ended()` (asked before each read)."""
    lines, position = Lines(), 0

    def state() -> tuple[int, bool]:
        return path.stat().st_size if path.exists() else 0, ended()

    while True:
        last = ended()
        try:
            with path.open("rb") as file:
                file.seek(position)
                while part := file.read(CHUNK):
                    position += len(part)
                    for line in lines.add(part):
                        yield line
                    await asyncio.sleep(0)  # a long log is no reason to answer nobody else
        except FileNotFoundError:
            pass
        if last:
            for line in lines.end():
                yield line
            return
        await LOOKS.change(path, state, (position, False))


async def follow_all(
    key: Hashable, files: Callable[[], Sequence[tuple[str, Path]]], over: Callable[[], bool]
) -> AsyncIterator[tuple[str, str]]:
    """Give every line of logs that programs write one after the other, with each log's name, until `over()`.

    Args:
        key: says which logs these are; those who name the same key follow the same.
        files: name and path of each log that there is by now; a program has ended when ``exit.json`` stands beside its log.
    """
    read: set[Path] = set()

    def state() -> tuple[int, bool]:
        return len(files()), over()

    while True:
        seen = (len(found := files()), over())
        for name, path in found:
            if path not in read:
                read.add(path)
                async for line in follow(path, lambda p=path: over() or (p.parent / "exit.json").exists()):  # type: ignore[misc]
                    yield name, line
        if seen[1]:
            return
        await LOOKS.change(key, state, seen)


class Redactor:
    """Masks known secrets in text."""

    def __init__(self, *secrets: str) -> None:
        known = [re.escape(secret) for secret in secrets if len(secret) >= 6]
        self._pattern = re.compile("|".join(known)) if known else None

    def __call__(self, text: str) -> str:
        """Return the text without secrets."""
        return self._pattern.sub(MASK, text) if self._pattern else text
