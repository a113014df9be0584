"""Where a server goes for those who call it: over the web to public addresses, and wherever its operator allowed.

A server can reach what its callers cannot: this machine's own ports, a private network, the metadata service of a cloud, and buckets
and folders by the rights of whoever started it. So every other place has to be named by ``pdk up --allow-url`` or ``--allow-egress``.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from pdk.errors import AuthError, UserError

WEB_PORTS = {"http": 80, "https": 443}
AddressInfo = tuple[int, int, int, str, tuple[Any, ...]]  # as `socket.getaddrinfo` gives them
FETCHED, SENT = ("http", "https", "s3"), ("s3", "gs", "file")  # the schemes that may be allowed
NAT64 = ipaddress.ip_network("64:ff9b::/96")


class NotAllowed(AuthError):
    """The operator did not allow that place."""


def split(url: str) -> SplitResult:
    """Split a URL.

    Raises:
        UserError: it is not one.
    """
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises where it is no number
    except ValueError as error:
        raise UserError(f"{url!r} is not a URL: {error}") from None
    return parts


def check_allowance(option: str, url: str, schemes: Iterable[str]) -> str:
    """Check what an operator allows: a URL below which everything is.

    Raises:
        UserError: it is not of that form.
    """
    parts, forms = split(url), ", ".join(f"{scheme}://…" for scheme in schemes)
    if (
        parts.scheme not in schemes
        or bool(parts.hostname) == (parts.scheme == "file")
        or parts.query
        or parts.fragment
        or "@" in parts.netloc
    ):
        raise UserError(f"{option} {url}: a host, bucket or folder is expected, as one of {forms}")
    if parts.scheme == "file" and not folder_of(url).is_dir():
        raise UserError(f"{option} {url}: there is no such folder")
    return url


def folder_of(url: str) -> Path:
    """Return the folder that a file URL names."""
    return Path(unquote(split(url).path))


def covers(allowed: str, url: str) -> bool:
    """Tell whether a URL lies at or below an allowed one."""
    one, other = split(allowed), split(url)
    if (one.scheme, one.hostname, _port(one)) != (other.scheme, other.hostname, _port(other)):
        return False
    base = [part for part in unquote(one.path).split("/") if part]
    path = [part for part in unquote(other.path).split("/") if part]
    return ".." not in path and path[: len(base)] == base


def _port(parts: SplitResult) -> int | None:
    return parts.port or WEB_PORTS.get(parts.scheme)


def meant(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return the IP address that one leads to: the address of version 4 where it wraps one."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    if ip in NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None) or ip


def is_public(address: str) -> bool:
    """Tell whether an IP address belongs to the internet, also where it wraps an address of version 4."""
    ip = meant(address)
    return ip.is_global and not ip.is_multicast


@dataclass(frozen=True)
class Reach:
    """What the operator allowed.

    Args:
        fetched: URLs below which files may be fetched, beside all public web addresses.
        sent: URLs below which a job's output may be copied.
        limit: bytes that one fetched file may have.
    """

    fetched: tuple[str, ...] = ()
    sent: tuple[str, ...] = ()
    limit: int = 16 << 30  # a larger one is better put by a client, which can go on where it stopped

    def named(self, url: str) -> bool:
        """Tell whether the operator named the place of a URL to be fetched."""
        return any(covers(allowed, url) for allowed in self.fetched)

    def check_bucket(self, url: str) -> None:
        """Check that an s3 URL may be fetched, which takes the operator's own keys.

        Raises:
            NotAllowed: the operator did not name its bucket.
        """
        if not self.named(url):
            raise NotAllowed(
                f"{url} is not fetched: the server would do so with the keys of whoever started it; download the file and put it, or start "
                f"`pdk up` with --allow-url s3://{split(url).hostname}"
            )

    def target(self, url: str) -> str:
        """Return the place that the operator named, at or above a URL that a job's output is to be copied to.

        Raises:
            NotAllowed: there is none.
        """
        url = "gs" + url.removeprefix("gcs") if url.startswith("gcs://") else url
        for allowed in self.sent:
            if covers(allowed, url):
                return allowed
        raise NotAllowed(f"egress to {url} is not allowed here; start `pdk up` with --allow-egress {url}, or with a place above it")


def public_socket(info: AddressInfo) -> socket.socket:
    """Make the socket for a connection; for aiohttp, which asks for one when it knows the address that it is going to connect to.

    Raises:
        NotAllowed: the address is one of this machine or of a private network.
    """
    family, kind, protocol, _, address = info
    if not is_public(str(address[0])):
        raise NotAllowed(
            f"it leads to {address[0]}, which is not an address of the internet, so nothing is fetched from there; name the place by "
            "`pdk up --allow-url http://HOST:PORT` if that is meant"
        )
    return socket.socket(family, kind, protocol)
