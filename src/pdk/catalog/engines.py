"""The engines that a catalogue asks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

from pdk.catalog.requests import lines_of
from pdk.installation import Installation, is_loopback

if TYPE_CHECKING:
    from pdk.engines.determined import Determined
    from pdk.engines.kserve import KServe
    from pdk.engines.pachyderm import Pachyderm

T = TypeVar("T")
PATIENCE_S = 5.0  # how long a face waits for an engine that does not answer: somebody is looking


class Engines:
    """Three engines and a request log, each reached for when it is first asked, so that one that is away keeps nobody from the others.

    Args:
        pachyderm: connects to it.
        determined: connects to it.
        kserve: connects to it.
        log: gives the lines of the request log.
    """

    def __init__(
        self,
        pachyderm: Callable[[], Pachyderm],
        determined: Callable[[], Determined],
        kserve: Callable[[], KServe],
        log: Callable[[], Iterable[str]],
    ) -> None:
        self._pachyderm, self._determined, self._kserve, self.log = pachyderm, determined, kserve, log
        self._lock, self._connected = threading.Lock(), dict[str, object]()

    def _connect(self, name: str, connect: Callable[[], T]) -> T:
        with self._lock:
            if name not in self._connected:
                self._connected[name] = connect()
            return self._connected[name]  # type: ignore[return-value] # what `connect` gave under this name

    @property
    def pachyderm(self) -> Pachyderm:
        """Return the Pachyderm."""
        return self._connect("pachyderm", self._pachyderm)

    @property
    def determined(self) -> Determined:
        """Return the Determined."""
        return self._connect("determined", self._determined)

    @property
    def kserve(self) -> KServe:
        """Return the Kubernetes."""
        return self._connect("kserve", self._kserve)


def engines_of(installation: Installation) -> Engines:
    """Return the engines of a `pdk up`."""
    secret, ports, host = installation.secret(), installation.ports, installation.host
    token = "" if is_loopback(installation.bind) else secret

    def pachyderm() -> Pachyderm:
        from pdk.engines.pachyderm import Pachyderm  # here and not above: the SDKs take a while to import

        return Pachyderm(host, ports.pachyderm, token)

    def determined() -> Determined:
        from pdk.engines.determined import Determined

        return Determined(f"http://{host}:{ports.determined}", "determined", secret, PATIENCE_S)

    def kserve() -> KServe:
        from pdk.engines.kserve import KServe

        return KServe(installation.kubeconfig, PATIENCE_S)

    return Engines(pachyderm, determined, kserve, lambda: lines_of(installation.state / "kserve" / "requests"))
