"""Keeps a `zygote` at hand: trials that need nothing of their own before they start are forked from it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil

from pdk.kit import process

log = logging.getLogger(__name__)
IDLE_S = 600.0  # after which it is let go
MEMORY = 2 << 30  # bytes that must be available before one is started
READY_S = 120.0  # until the process that trials are forked from counts as not starting
COMMAND = (sys.executable, "-P", "-m", "pdk.local.determined.runtime.zygote")
# variables that libraries read when they are imported: a trial that sets one needs a process of its own
READ_AT_IMPORT = (
    "ATEN", "CUDA", "GLOO", "HIP", "HSA", "KMP_", "LD_", "MALLOC", "MKL_", "NCCL", "NUMEXPR", "NVIDIA", "OMP_", "OPENBLAS", "PYTHON",
    "PYTORCH", "ROCR", "TF_", "TORCH",
)  # fmt: skip


def suits(environment: Mapping[str, str]) -> bool:
    """Return whether variables may be set after the imports."""
    return not any(name.startswith(READ_AT_IMPORT) for name in environment)


class Zygote:
    """At most one, started when it is first needed.

    Args:
        environment: what it and its trials start from.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = dict(environment)
        self._process: asyncio.subprocess.Process | None = None
        self._lock = asyncio.Lock()
        self._idle: asyncio.TimerHandle | None = None

    async def launch(self, run_dir: Path) -> None:
        """Start the trial of a run folder; from a fresh process where that cannot be done."""
        task = asyncio.create_task(self._launch(run_dir))
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:  # an answer that nobody has read would be taken for the next one's
            await task
            raise

    async def _launch(self, run_dir: Path) -> None:
        async with self._lock:
            try:
                if await self._started():
                    await self._say(run_dir)
            except (OSError, TimeoutError) as error:
                log.warning("no trial can be forked from a warm process: %s", error or type(error).__name__)
                await self.stop()
        if process.find(run_dir) is None:
            await process.launch(run_dir)

    async def _started(self) -> bool:
        if self._process is not None and self._process.returncode is None:
            return True
        if psutil.virtual_memory().available < MEMORY:
            return False
        self._process = await asyncio.create_subprocess_exec(
            *COMMAND,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=self.environment, cwd="/", start_new_session=True,
        )  # fmt: skip
        await self._answer("ready")
        return True

    async def _say(self, run_dir: Path) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(f"{run_dir}\n".encode())
        await self._process.stdin.drain()
        await self._answer("started")
        if self._idle is not None:
            self._idle.cancel()
        self._idle = asyncio.get_running_loop().call_later(IDLE_S, self._let_go)

    async def _answer(self, expected: str) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        async with asyncio.timeout(READY_S):
            answer = (await self._process.stdout.readline()).decode().strip()
        if answer != expected:
            raise OSError(f"it said {answer!r} instead of {expected!r}")

    def _let_go(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()  # its end: trials that it became go on

    async def stop(self) -> None:
        """End it, not its trials."""
        if self._idle is not None:
            self._idle.cancel()
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        self._process = None
