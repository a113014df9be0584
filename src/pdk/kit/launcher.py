"""Start one program in namespaces of its own and leave behind what became of it. Standard library only.

Run as ``python -I -S launcher.py RUN_DIR``; ``RUN_DIR/spec.json`` says what to start (`pdk.kit.spec.Spec`). The launcher
detaches itself, writes ``started.json`` (pid, start time), makes the namespaces, runs the program and at its end renames
``exit.json`` into place, so that a server that was restarted meanwhile learns the same as one that was not. The program has no way into
``RUN_DIR``: what it writes there would be believed.

Three processes: the *watcher* (in the host's PID namespace; its pid is the one on record), *init* (PID 1 inside, reaps
orphans) and the program. When the program ends, init ends, and the kernel kills whatever the program left running, other sessions
included. When the watcher is killed, init dies with it.

Without root the same is done inside a user namespace. ``/pfs`` and ``/run/determined`` do not exist on the host and could not be
made there, so the new root is an empty tmpfs into which every entry of the old one is bound.
"""

from __future__ import annotations

import ctypes
import grp
import json
import os
import pwd
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID = 0x00020000, 0x10000000, 0x20000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 24, 38
CAPABILITY_VERSION, CAPABILITIES = 0x20080522, 64
KEPT_FLAGS = {os.ST_NOSUID: MS_NOSUID, os.ST_NODEV: MS_NODEV, os.ST_NOEXEC: 8, os.ST_NOATIME: 1024, os.ST_NODIRATIME: 2048}
if hasattr(os, "ST_RELATIME"):
    KEPT_FLAGS[os.ST_RELATIME] = 1 << 21

libc = ctypes.CDLL(None, use_errno=True)
Execute = Callable[[list[str], dict[str, str]], NoReturn]


def check(result: int, what: str) -> None:
    """Raise OSError for a libc call that failed."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """Mount a file system, or bind a folder or file."""
    raw = [os.fsencode(value) if value is not None else None for value in (source, target, kind)]
    check(libc.mount(*raw, ctypes.c_ulong(flags), data.encode() if data else None), f"mount {source} on {target}")


def bind(source: str, target: str, *, read_only: bool = False) -> None:
    """Bind `source` (folder or file) with everything mounted below it onto the existing `target`."""
    mount(source, target, None, MS_BIND | MS_REC)
    if read_only:
        # an unprivileged remount must keep the flags that the mount has already
        present = os.statvfs(target).f_flag
        keep = sum(flag for bit, flag in KEPT_FLAGS.items() if present & bit)
        mount(source, target, None, MS_BIND | MS_REMOUNT | MS_RDONLY | keep)


def start_time(pid: int) -> int:
    """Return the kernel's start time of `pid` in clock ticks since boot: with the pid it names a process for good."""
    with open(f"/proc/{pid}/stat", "rb") as stat:
        return int(stat.read().rpartition(b")")[2].split()[19])


def boot_id() -> str:
    """Names this boot of the machine: a pid on record means nothing in another one."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def oom_kills() -> int:
    """Return how many processes the kernel has killed for want of memory since boot."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def leave(run_dir: Path, name: str, content: dict[str, object]) -> None:
    """Write a file of the run folder so that it is seen either whole or not at all."""
    temporary = run_dir / f".{name}"
    with temporary.open("w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(run_dir / name)


def enter_namespaces() -> None:
    """Leave the host's PID namespace (for children only), as a user of a namespace of its own where that is needed for it."""
    flags = CLONE_NEWPID
    uid, gid = os.getuid(), os.getgid()
    if uid != 0:
        flags |= CLONE_NEWUSER
    check(libc.unshare(flags), "unshare")
    if uid != 0:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")


def mirror(old: str, new: str, opened: set[str]) -> None:
    """Fill the empty folder `new` with what `old` holds; folders in `opened` become real ones that can take new entries."""
    for name in os.listdir(old):
        source, target = os.path.join(old, name), os.path.join(new, name)
        if os.path.islink(source):
            os.symlink(os.readlink(source), target)
        elif source in opened:
            os.mkdir(target)
            if source not in ("/tmp", "/proc"):
                mirror(source, target, opened)
        elif os.path.isdir(source):
            os.mkdir(target)
            bind(source, target)
        else:
            open(target, "wb").close()
            bind(source, target)


def new_root(run_dir: Path, binds: list[dict[str, object]], hide: list[str]) -> None:
    """Build the program's root in `run_dir`/root and make it the root.

    Binds that hold a folder of `hide` come first, then those folders become empty, then the other binds are made.
    """
    root = str(run_dir / "root")
    os.makedirs(root, exist_ok=True)
    mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    opened = {"/", "/tmp", "/proc"}
    for entry in binds:
        target = str(entry["target"])
        if not os.path.exists(target):
            parent = os.path.dirname(target)
            while parent not in opened:
                opened.add(parent)
                parent = os.path.dirname(parent)
    mirror("/", root, opened)
    os.chmod(root + "/tmp", 0o1777)
    around = [entry for entry in binds if any(path.startswith(str(entry["target"]).rstrip("/") + "/") for path in hide)]
    make_binds(root, around, [])
    for path in hide:
        if os.path.isdir(root + path):
            mount("tmpfs", root + path, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    make_binds(root, [entry for entry in binds if entry not in around], hide)
    os.mkdir(root + "/.old")
    check(libc.pivot_root(os.fsencode(root), os.fsencode(root + "/.old")), "pivot_root")
    os.chdir("/")


def make_binds(root: str, binds: list[dict[str, object]], hide: list[str]) -> None:
    """Bind each entry's source to its target below `root`; a folder of `hide` in a source is empty there too."""
    for entry in binds:
        source, target = str(entry["source"]), root + str(entry["target"])
        if os.path.isdir(source):
            os.makedirs(target, exist_ok=True)
        elif not os.path.exists(target):
            os.makedirs(os.path.dirname(target), exist_ok=True)
            open(target, "wb").close()
        bind(source, target, read_only=bool(entry.get("read_only")))
        for path in hide:
            inner = target + path.removeprefix(source.rstrip("/"))
            if path.startswith(source.rstrip("/") + "/") and os.path.isdir(inner):
                mount("tmpfs", inner, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")


def finish_root() -> None:
    """Inside the PID namespace: its own /proc, then let go of the old root."""
    try:
        mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | 8)
    except OSError:  # inside a container whose /proc is masked: the host's view is the best there is
        bind("/.old/proc", "/proc")
    check(libc.umount2(b"/.old", MNT_DETACH), "umount /.old")
    os.rmdir("/.old")


def become(user: str) -> None:
    """Be another user from here on; nothing happens where there is no such user, or where this one may not."""
    name, _, group = user.partition(":")
    if not name or os.getuid() != 0:
        return
    try:
        entry = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
        gid = (int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid) if group else entry.pw_gid
    except KeyError:
        return
    if os.path.isdir("/pfs/out"):
        os.chown("/pfs/out", entry.pw_uid, gid)
    os.setgroups([])
    os.setgid(gid)
    os.setuid(entry.pw_uid)


def drop_rights() -> None:
    """As an ordinary user's program: let go of the rights over the new namespaces, by which it could undo what hides folders from it.

    A program that is executed loses them by that; one that is forked from a warm process would keep them.
    """
    if os.getuid() == 0:
        return
    for number in range(CAPABILITIES):
        libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)  # refused for numbers that the kernel does not know
    check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
    none = (ctypes.c_uint32 * 6)()
    check(libc.capset((ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0), none), "capset")


def be_watched(channel: socket.socket) -> None:
    """As the program, before it is one: have init decide where it listens."""
    from pdk.kit import loopback

    try:
        listener = loopback.watch_own()
    except OSError as error:
        print(f"[pdk] ports that this program listens on may be open to the network: {error}", file=sys.stderr, flush=True)
        return
    socket.send_fds(channel, [b"."], [listener])
    os.close(listener)


def watch_listeners(channel: socket.socket) -> None:
    """As init: answer for `be_watched`, in a thread. Signals are still blocked, so that they come to the main one."""
    from pdk.kit import loopback

    _, descriptors, _, _ = socket.recv_fds(channel, 1, 1)
    for listener in descriptors:
        threading.Thread(target=loopback.answer, args=(listener,), daemon=True).start()


def run_program(spec: dict[str, object], stdin: int | None, execute: Execute) -> int:
    """As PID 1: start the program, reap everything, return the program's wait status."""
    ours, its = socket.socketpair()
    child = os.fork()
    if child == 0:
        ours.close()
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.umask(0o022)  # the server's own is stricter
        environment = {str(k): str(v) for k, v in dict(spec["env"]).items()}  # type: ignore[call-overload]
        argv = [str(word) for word in spec["argv"]]  # type: ignore[attr-defined]
        try:
            if stdin is not None:
                os.dup2(stdin, 0)
            os.chdir(str(spec["cwd"]))
            become(str(spec.get("user") or ""))
            if spec.get("loopback"):
                be_watched(its)
            drop_rights()
            its.close()
            execute(argv, environment)
        except OSError as error:
            print(f"cannot start {argv[0]!r} in {spec['cwd']}: {error.strerror}", file=sys.stderr, flush=True)
            os._exit(127 if isinstance(error, FileNotFoundError) else 126)

    its.close()
    if spec.get("loopback"):
        watch_listeners(ours)

    def forward(number: int, _frame: object) -> None:
        os.kill(child, number)

    signal.signal(signal.SIGTERM, forward)
    signal.signal(signal.SIGINT, forward)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    while True:
        pid, status = os.wait()
        if pid == child:
            return status


def be_init(run_dir: Path, spec: dict[str, object], execute: Execute) -> NoReturn:
    """As PID 1: build the root, run the program, exit as it did."""
    try:
        check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL), "prctl")
        check(libc.unshare(CLONE_NEWNS), "unshare")  # not in the watcher: its view of the run folder must stay as it is
        mount("none", "/", None, MS_REC | MS_PRIVATE)
        stdin = os.open(str(spec["stdin"]), os.O_RDONLY) if spec.get("stdin") else None  # before the run folder is out of sight
        new_root(run_dir, list(spec["binds"]), list(spec.get("hide") or ()))  # type: ignore[call-overload]
        finish_root()
        status = run_program(spec, stdin, execute)
    except OSError as error:
        print(f"the program could not be started: {error}", file=sys.stderr, flush=True)
        os._exit(126)
    os._exit(os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))


def watch(run_dir: Path, spec: dict[str, object], execute: Execute) -> None:
    """As the watcher: make namespaces, run init, leave the exit status."""
    began, killed = time.time(), oom_kills()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])
    enter_namespaces()
    init = os.fork()
    if init == 0:
        be_init(run_dir, spec, execute)

    def forward(number: int, _frame: object) -> None:
        os.kill(init, number)

    signal.signal(signal.SIGTERM, forward)
    signal.signal(signal.SIGINT, forward)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    _, status = os.waitpid(init, 0)
    code = os.waitstatus_to_exitcode(status)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    end = {"code": code if code >= 0 else 128 - code, "began": began, "ended": time.time(), "peak_bytes": peak}
    leave(run_dir, "exit.json", {**end, "oom_kills": oom_kills() - killed})


def launch(run_dir: Path, execute: Execute) -> None:
    """Detach, say who is running, then watch.

    Args:
        execute: becomes the program (argv, environment); called in its process, the last one.
    """
    spec = json.loads((run_dir / "spec.json").read_text())
    ready, say_ready = os.pipe()
    if os.fork():
        os.close(say_ready)
        os.read(ready, 1)  # returns when the watcher is on record, or gone
        os._exit(0)
    os.setsid()
    log = os.open(run_dir / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    leave(run_dir, "started.json", {"pid": os.getpid(), "start_time": start_time(os.getpid()), "boot": boot_id()})
    os.close(ready)
    os.close(say_ready)
    try:
        watch(run_dir, spec, execute)
    except OSError as error:
        print(f"the program could not be started: {error}", file=sys.stderr, flush=True)
        leave(run_dir, "exit.json", {"code": 126, "began": time.time(), "ended": time.time(), "peak_bytes": 0, "oom_kills": 0})


def execute_program(argv: list[str], environment: dict[str, str]) -> NoReturn:
    """Replace this process."""
    os.execvpe(argv[0], argv, environment)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    launch(Path(sys.argv[1]), execute_program)
