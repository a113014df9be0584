"""Where the time of a step goes: third-party imports, waiting for engines and git, and what is left is this project's own."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

IMPORTS, WAITING = "imports", "waiting"


def _age() -> float:
    """Seconds since this process was started, by the kernel's own count; 0 where there is none."""
    try:
        started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return 0.0
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started)


class Clock(threading.local):
    """Adds up what a thread spends on what; inside one another, only the innermost counts."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self._stack: list[str] = []
        self._since = time.monotonic()

    def _turn(self) -> None:
        now = time.monotonic()
        if self._stack:
            kind = self._stack[-1]
            self.spent[kind] = self.spent.get(kind, 0.0) + now - self._since
        self._since = now

    @contextlib.contextmanager
    def during(self, kind: str) -> Iterator[None]:
        """Count what is done inside as `kind`."""
        self._turn()
        self._stack.append(kind)
        try:
            yield
        finally:
            self._turn()
            self._stack.pop()

    def begin(self) -> None:
        """Call where a program's own work begins: all until here were imports."""
        self.spent[IMPORTS] = self.spent.get(IMPORTS, 0.0) + _age()

    def report(self) -> str:
        """``time: 14.2 s, of which imports 3.1 s, waiting 10.4 s, own 0.7 s``."""
        whole = _age()
        parts = {IMPORTS: self.spent.get(IMPORTS, 0.0), WAITING: self.spent.get(WAITING, 0.0)}
        parts["own"] = max(0.0, whole - sum(parts.values()))
        return f"time: {whole:.2f} s, of which " + ", ".join(f"{name} {seconds:.2f} s" for name, seconds in parts.items())


clock = Clock()


def leave(status: int) -> NoReturn:
    """End a program that has nothing left to clean up: taking the interpreter apart takes a second once torch is imported."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
