"""Running programs that outlive the server that started them: jobs, trials and predictors.

`start` hands a program to the launcher and returns a `Handle` (a run folder, pid and start time). A server stores the handle
before it waits on it; after a restart `find` gives it back from the run folder, and `wait` works as if nothing had happened, for
the launcher leaves the exit status in the folder.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from pdk.errors import EngineError
from pdk.kit import foreign, launcher
from pdk.kit.spec import Bind, Spec

LOST = 137  # exit code of a program that was killed together with its watcher

NAMESPACE_HELP = (
    "this user may not make mount and PID namespaces, so jobs cannot get a /pfs of their own. Allow it with "
    "`sudo sysctl -w kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0` "
    "(whichever of the two your kernel has), or run as root."
)


@dataclass(frozen=True)
class Handle:
    """A started program; `pid` is its watcher's, `run_dir` the server's own: the program sees nothing of it."""

    run_dir: Path
    pid: int
    start_time: int
    boot: str

    @property
    def log(self) -> Path:
        """Return the program's standard output and error."""
        return self.run_dir / "log"


@dataclass(frozen=True)
class Exit:
    """How a program ended: shell-style code (128 + signal), unix times, peak memory in bytes.

    `oom_kills` counts the processes that the kernel killed for want of memory meanwhile, on all of the machine.
    """

    code: int
    began: float = 0.0
    ended: float = 0.0
    peak_bytes: int = 0
    oom_kills: int = 0

    def reason(self) -> str:
        """Return the end in words."""
        if self.code == 0:
            return "it ended well"
        if self.code == LOST and self.oom_kills:
            return f"it was killed by the kernel for want of memory (it had used up to {self.peak_bytes / 2**20:,.0f} MiB)"
        if self.oom_kills:
            return f"it exited with code {self.code}, after the kernel had killed a process for want of memory"
        if self.code == LOST:
            return "it was killed (signal 9: by somebody, or by the kernel for want of memory)"
        names = {number.value: number.name for number in signal.Signals}
        if self.code - 128 in names:
            return f"it was ended by signal {self.code - 128} ({names[self.code - 128]})"
        return f"it exited with code {self.code}"


def base_environment(python: Path | None = None) -> dict[str, str]:
    """Return the environment that every program starts from: nothing of the server's own, `python` first on PATH."""
    python = python or Path(sys.executable)
    return {
        "PATH": f"{python.parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/tmp",
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
    }


def _visible() -> list[Bind]:
    """Return what every program needs to see although /tmp is private: the interpreter and this package, where they live in /tmp."""
    package = Path(__file__).resolve().parents[2]
    checkout = package.parent
    places = {Path(sys.prefix), Path(sys.base_prefix), checkout if (checkout / "pyproject.toml").exists() else package}
    others = {Path(entry) for entry in sys.path if Path(entry).name == "site-packages"}  # which a .pth file may have added
    places |= {other for other in others if not any(other.is_relative_to(place) for place in places)}
    return [Bind(place, str(place)) for place in sorted(places) if place.is_relative_to("/tmp")]


async def launch(run_dir: Path) -> None:
    """Run the launcher; returns once the program is on record, or the launcher failed."""
    command = [sys.executable, "-I", "-S", str(Path(launcher.__file__)), str(run_dir)]
    process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.DEVNULL, start_new_session=True)
    try:
        await asyncio.shield(process.wait())
    except asyncio.CancelledError:
        await process.wait()
        raise


async def start(run_dir: Path, spec: Spec, launch: Callable[[Path], Awaitable[None]] = launch) -> Handle:
    """Start a program; returns once it is on record.

    Args:
        launch: another way to run the launcher.

    Raises:
        EngineError: the launcher itself failed.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    for stale in ("started.json", "exit.json"):
        (run_dir / stale).unlink(missing_ok=True)
    binds = [*_visible(), *spec.binds]
    content = {
        "argv": list(spec.argv),
        "env": dict(spec.env),
        "cwd": spec.cwd,
        "stdin": str(spec.stdin) if spec.stdin else None,
        "hide": [str(path) for path in spec.hide],
        "user": spec.user,
        "loopback": spec.loopback,
        "binds": [{"source": str(b.source), "target": b.target, "read_only": b.read_only} for b in binds],
    }
    descriptor = os.open(run_dir / "spec.json", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)  # the environment holds secrets
    with os.fdopen(descriptor, "w") as file:
        json.dump(content, file)
    try:
        await launch(run_dir)
    except asyncio.CancelledError:  # what is being started must not be left without an owner
        if handle := find(run_dir):
            await stop(handle)
        raise
    handle = find(run_dir)
    if handle is None:
        raise EngineError(f"the launcher could not start {spec.argv[0]!r}; see {run_dir}/log")
    return handle


def find(run_dir: Path) -> Handle | None:
    """Return the handle of what was started in `run_dir`, if anything was."""
    match foreign.note(run_dir / "started.json"):
        case {"pid": int(pid), "start_time": int(start_time), "boot": str(boot)} if pid > 0:
            return Handle(run_dir, pid, start_time, boot)
    return None


def running(run_dir: Path) -> Handle | None:
    """Return the handle of what runs in `run_dir`, if anything does."""
    handle = find(run_dir)
    return handle if handle is not None and status(handle) is None else None


def from_another_boot(handle: Handle) -> bool:
    """Return whether the machine went down after a program was started."""
    return handle.boot != launcher.boot_id()


def alive(handle: Handle) -> bool:
    """Return whether the very process of `handle` still runs (not a later one with its pid, not a zombie)."""
    if from_another_boot(handle):
        return False
    try:
        stat = Path(f"/proc/{handle.pid}/stat").read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat[0] not in (b"Z", b"X") and int(stat[19]) == handle.start_time


def status(handle: Handle) -> Exit | None:
    """Return how it ended, or None while it runs."""
    running = alive(handle)  # before the file is read: the file is written before the process ends
    match foreign.note(handle.run_dir / "exit.json"):
        case {"code": int(code), "began": float(began), "ended": float(ended), "peak_bytes": int(peak), "oom_kills": int(kills)}:
            return Exit(code, began, ended, peak, kills)
    return None if running else Exit(LOST)


async def wait(handle: Handle) -> Exit:
    """Wait for the end of a program, child of this process or not."""
    while (ended := status(handle)) is None:
        try:
            descriptor = os.pidfd_open(handle.pid)
        except ProcessLookupError:
            continue
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        try:
            loop.add_reader(descriptor, done.set)
            await done.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
    return ended


async def stop(handle: Handle, grace_s: float = 5.0) -> Exit:
    """End a program: SIGTERM, and after `grace_s` seconds SIGKILL for everything it started. Repeating it does no harm."""
    for number, patience in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 30.0)):
        if (ended := status(handle)) is not None:
            return ended
        try:
            os.kill(handle.pid, number)
            return await asyncio.wait_for(wait(handle), patience)
        except ProcessLookupError:
            continue
        except TimeoutError:
            continue
    raise EngineError(f"process {handle.pid} does not end, not even by SIGKILL")


async def namespaces_work(scratch: Path) -> bool:
    """Return whether the launcher can do its work for this user on this machine."""
    ended = await wait(await start(scratch, Spec(["true"], base_environment())))
    return ended.code == 0
