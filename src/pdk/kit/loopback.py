"""Keeps a program's listeners on the loopback interface, whatever address it asks for. Standard library only.

What trains on several slots listens on every interface (the stores of torch.distributed, the sockets between a trial's
processes), and no setting of theirs changes that. So the kernel hands each ``bind`` and ``listen`` of the program to its init
(seccomp's user notifications): a stream socket that is to be bound to every address is bound to 127.0.0.1 instead.
Outgoing connections are not looked at.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import ipaddress
import os
import platform
import select
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

# architecture in seccomp's terms; numbers of bind, listen, seccomp
MACHINES = {"x86_64": (0xC000003E, 49, 50, 317), "aarch64": (0xC00000B7, 200, 201, 277)}
MACHINE = MACHINES.get(platform.machine())
PIDFD_GETFD = 438  # on every architecture
SET_MODE_FILTER, NEW_LISTENER = 1, 8
RECEIVE, SEND, STILL_VALID = 0xC0502100, 0xC0182101, 0x40082102
GO_ON = 1  # the kernel carries the call out as it stands
REQUEST, ANSWER = struct.Struct("=QIIiIQ6Q"), struct.Struct("=QqiI")
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, NOTIFY = 0x7FFF0000, 0x7FC00000
LOOPBACK, MAPPED = "127.0.0.1", "::ffff:127.0.0.1"

libc = ctypes.CDLL(None, use_errno=True)


class Filter(ctypes.Structure):
    """``struct sock_fprog``."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def syscall(number: int, *arguments: object) -> int:
    """Return a system call that libc has no name for.

    Raises:
        OSError: it failed.
    """
    result = int(libc.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def watch_own() -> int:
    """From now on the calls of this process and of what it becomes are held up until somebody answers at the descriptor returned.

    Raises:
        OSError: the kernel does not offer it, or not to this user.
    """
    if MACHINE is None:
        raise OSError(errno.ENOSYS, f"not known how to do it on {platform.machine()}")
    architecture, bind, listen, seccomp = MACHINE
    program = (
        (LOAD, 0, 0, 4), (JUMP_IF_EQUAL, 0, 4, architecture), (LOAD, 0, 0, 0), (JUMP_IF_EQUAL, 1, 0, bind),
        (JUMP_IF_EQUAL, 0, 1, listen), (RETURN, 0, 0, NOTIFY), (RETURN, 0, 0, ALLOW),
    )  # fmt: skip
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    return syscall(seccomp, SET_MODE_FILTER, NEW_LISTENER, ctypes.byref(Filter(len(program), code)))


def answer(listener: int) -> None:
    """Answer held calls until the last of the watched processes is gone."""
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    while not poll.poll()[0][1] & select.POLLHUP:
        request = bytearray(REQUEST.size)
        try:
            fcntl.ioctl(listener, RECEIVE, request)
            id_, pid, _, number, _, _, descriptor, address, length, *_ = REQUEST.unpack(request)
            error, flags = _decide(listener, id_, pid, number, (descriptor, address, length))
            fcntl.ioctl(listener, SEND, ANSWER.pack(id_, 0, -error, flags))
        except OSError as failure:
            if failure.errno not in (errno.ENOENT, errno.EINTR):  # the caller is gone
                raise


def _decide(listener: int, id_: int, pid: int, number: int, arguments: tuple[int, int, int]) -> tuple[int, int]:
    """Return the error number (0: done, as asked or on loopback) and flags of an answer."""
    descriptor, address, length = arguments
    assert MACHINE is not None
    binds = number == MACHINE[1]
    try:
        with _borrowed(pid, descriptor) as mine:
            fcntl.ioctl(listener, STILL_VALID, struct.pack("=Q", id_))  # else the pid is another process's by now
            if mine.type & 0xF != socket.SOCK_STREAM or mine.family not in (socket.AF_INET, socket.AF_INET6):
                return 0, GO_ON
            if binds:
                host, port = _address(mine.family, _memory(pid, address, min(length, 128)))
            else:
                host, port = mine.getsockname()[:2]
            bound = not binds and port  # and looked at then
            if bound or not host or not ipaddress.ip_address(host).is_unspecified:
                return 0, GO_ON
            if binds and mine.getsockname()[:2] == (_inside(mine), port) and port:
                return 0, 0  # done before: a signal had the caller ask again
            mine.bind((_inside(mine), port))
            return 0, 0 if binds else GO_ON
    except _Unreachable:
        return 0, GO_ON
    except OSError as failure:
        return failure.errno or errno.EPERM, 0
    except (ValueError, OverflowError, LookupError):  # an address that is none
        return errno.EFAULT, 0


def _inside(mine: socket.socket) -> str:
    if mine.family == socket.AF_INET:
        return LOOPBACK
    return "::1" if mine.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) else MAPPED


class _Unreachable(Exception):
    """The other process may not be looked into: nothing can be decided for it."""


@contextlib.contextmanager
def _reaching() -> Iterator[None]:
    try:
        yield
    except OSError as failure:
        if failure.errno not in (errno.EPERM, errno.EACCES, errno.ENOSYS):
            raise
        print(f"[pdk] ports that this program listens on may be open to the network: {failure}", file=sys.stderr, flush=True)
        raise _Unreachable from failure


def _borrowed(pid: int, descriptor: int) -> socket.socket:
    """Return the very socket of another process."""
    status = Path(f"/proc/{pid}/status").read_bytes()  # the caller may be a thread
    leader = next(int(line.split()[1]) for line in status.splitlines() if line.startswith(b"Tgid:"))
    process = os.pidfd_open(leader)
    try:
        with _reaching():
            borrowed = syscall(PIDFD_GETFD, process, descriptor & 0xFFFFFFFF, 0)
    finally:
        os.close(process)
    try:
        return socket.socket(fileno=borrowed)
    except OSError:  # no socket
        os.close(borrowed)
        raise


def _memory(pid: int, address: int, length: int) -> bytes:
    with _reaching():
        memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
    try:
        return os.pread(memory, length, address)
    finally:
        os.close(memory)


def _address(family: int, raw: bytes) -> tuple[str, int]:
    """Address and port of a ``struct sockaddr``; no address where it is none of the socket's family."""
    start, end = (4, 8) if family == socket.AF_INET else (8, 24)
    if len(raw) < end or int.from_bytes(raw[:2], "little") != family:
        return "", 0
    return str(ipaddress.ip_address(raw[start:end])), int.from_bytes(raw[2:4], "big")
