"""The frame around a server process: logging, identity, health checks, tasks that live as long as it does."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import fcntl
import logging
import os
import signal
import sqlite3
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

from pdk.durable import write_whole
from pdk.errors import Conflict, PdkError
from pdk.kit.http1 import raise_limit

LOCK_S = 30.0  # a server that is told to stop lets predictors drain first


def run(name: str, start: Callable[[Path], None]) -> None:
    """Main function of a server: argv[1] is the state folder; an error becomes one line and exit code 1."""
    faulthandler.register(signal.SIGUSR1)  # the supervisor asks for it before it ends a server that answers no more
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    if len(sys.argv) != 2:
        sys.exit(f"usage: python -m pdk.local.{name} STATE")
    state = Path(sys.argv[1])
    raise_limit()
    os.umask(0o077)  # databases and logs hold what is nobody else's business
    try:
        with alone(state, name):
            start(state)
    except (OSError, PdkError) as error:
        sys.exit(f"{name}: {error}")
    except sqlite3.Error as error:
        sys.exit(f"{name}: the database in {state / name} cannot be used: {error}; bring it back from a backup")


@contextlib.contextmanager
def alone(state: Path, name: str) -> Iterator[None]:
    """One process of a server at a time for a state folder; waits a while for one that is just ending.

    Raises:
        Conflict: another one goes on running.
    """
    with (state / f"{name}.lock").open("a+") as file:
        deadline = time.monotonic() + LOCK_S
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    file.seek(0)
                    raise Conflict(f"another {name} server (process {file.read().strip()}) works in {state}; end it first") from None
                time.sleep(0.05)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def identity(home: Path) -> str:
    """Return an ID that a server keeps for good."""
    path = home / "id"
    if not path.exists() or not path.read_text():
        write_whole(path, uuid.uuid4().hex)
    return path.read_text()


def writable(folder: Path) -> str:
    """Return a health check: empty when the folder can be written and its disk has room."""
    space = os.statvfs(folder)
    free = space.f_bavail * space.f_frsize
    if not os.access(folder, os.W_OK):
        return f"{folder} cannot be written"
    return "" if free > 100 << 20 else f"{folder} has {free >> 20} MB left on its disk; make room"


@contextlib.asynccontextmanager
async def running(*works: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run `works` beside the body; the body's end cancels them, the failure of one ends the body."""
    current = asyncio.current_task()
    assert current is not None
    failed: list[BaseException] = []

    def watch(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            failed.append(error)
            current.cancel()

    tasks = [asyncio.create_task(work) for work in works]
    for task in tasks:
        task.add_done_callback(watch)
    try:
        yield
    except asyncio.CancelledError:
        if failed:
            raise failed[0] from None
        raise
    finally:
        for task in reversed(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
