"""Whose a connection is: the user that the kernel has on record for the socket at its other end.

On loopback the owner of an installation needs no credential, as with the engines' own clients in their default set-up. Any other user of
the machine can open a connection too, so every connection is looked up in the kernel's socket table (sock_diag(7), or
``/proc/net/tcp`` where that is not to be had), by the addresses and ports of both its ends.

A socket that nobody holds any more (its process closed it, or ended) belongs to root in that table; it has no inode then, and is a
stranger's here.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Address = tuple[str, int]
SOCK_DIAG, BY_FAMILY, REQUEST = 4, 20, 1  # NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST (linux/sock_diag.h, linux/netlink.h)
HEAD = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
ASKED = struct.Struct("=BBBBI")  # inet_diag_req_v2: family, protocol, extensions, padding, states; then the socket
ENDS = struct.Struct("!HH16s16s")  # inet_diag_sockid: its port, the other one, its address, the other one; then interface and cookie
ANY = b"\0\0\0\0" + b"\xff" * 8  # no interface, no cookie
UID_AT = HEAD.size + 4 + ENDS.size + len(ANY) + 12  # inet_diag_msg: 4 bytes, the socket, expires, rqueue, wqueue, then uid and inode
WAIT_S = 1.0  # for the kernel's answer, which comes at once
KNOWN = "pdk.trusted"  # in an ASGI scope, which servers fill and no request does
TRUSTED = frozenset({0, os.geteuid()})  # root can do everything anyway


def trusted(client: Address | None, server: Address | None) -> bool:
    """Say whether a connection comes from this process's own user, or from root; False where that cannot be found out."""
    return client is not None and server is not None and owner(client, server) in TRUSTED


def of_scope(scope: Any) -> bool:
    """Say the same of the connection that an ASGI request came by; the kernel is asked once for each request, whoever wants to know."""
    if KNOWN not in scope:
        scope[KNOWN] = trusted(scope.get("client"), scope.get("server"))
    return bool(scope[KNOWN])


def owner(client: Address, server: Address) -> int | None:
    """Return the user ID of whoever holds the client's end of a connection; None where nobody does, or it cannot be found out."""
    try:
        return _asked(client, server)
    except OSError:  # a kernel, or a sandbox, without sock_diag
        return _listed(client, server)


def _packed(address: str) -> tuple[int, bytes]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return family, socket.inet_pton(family, address.partition("%")[0]).ljust(16, b"\0")


def _asked(client: Address, server: Address) -> int | None:
    (family, own), (_, other) = _packed(client[0]), _packed(server[0])
    asked = ASKED.pack(family, socket.IPPROTO_TCP, 0, 0, 0xFFFFFFFF) + ENDS.pack(client[1], server[1], own, other) + ANY
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, SOCK_DIAG) as netlink:
        netlink.settimeout(WAIT_S)
        netlink.send(HEAD.pack(HEAD.size + len(asked), BY_FAMILY, REQUEST, 1, 0) + asked)
        answer = netlink.recv(4096)
    _, kind, _, _, _ = HEAD.unpack_from(answer)
    if kind != BY_FAMILY:  # an error: there is no such socket
        return None
    uid, inode = struct.unpack_from("=II", answer, UID_AT)
    return int(uid) if inode else None


def _listed(client: Address, server: Address) -> int | None:
    with contextlib.suppress(OSError):
        table = Path("/proc/net/tcp6" if ":" in client[0] else "/proc/net/tcp").read_text().splitlines()
        return _in_table(table[1:], f"{_hex(client)} {_hex(server)}")
    return None


def _in_table(lines: Iterable[str], ends: str) -> int | None:
    for line in lines:
        fields = line.split()
        if " ".join(fields[1:3]) == ends:
            return int(fields[7]) if fields[9] != "0" else None
    return None


def _hex(address: Address) -> str:
    """Return an address as ``/proc/net/tcp`` spells it: words of four bytes in the machine's order."""
    family, packed = _packed(address[0])
    size = 16 if family == socket.AF_INET6 else 4
    words = struct.unpack(f"={size // 4}I", packed[:size])
    return "".join(f"{word:08X}" for word in words) + f":{address[1]:04X}"
