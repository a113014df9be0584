"""Which predictors answer for which host: kept up to date by watching Endpoints in the Kubernetes API.

In return the gateway tells that API how many requests are open for each service, which decides how many replicas it has.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import ssl
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from pdk.words import OPEN_REQUESTS, RELIED_ON, WAKES, WEIGHTS

log = logging.getLogger(__name__)
RETRY_S = 0.5  # until the Kubernetes API is asked again after a failure
REPORT_S = 0.5  # between two reports of how many requests are open


@dataclass
class Target:
    """One service: its predictors with their shares of the requests, those that have proved good, and how many requests are open."""

    service: str
    weights: dict[str, float] = field(default_factory=dict)
    relied_on: frozenset[str] = frozenset()
    wakes: bool = False
    open: int = 0
    most: int = 0  # since the last report

    def choose(self, lost: Collection[str] = ()) -> str | None:
        """Return an address; None where no replica runs.

        Args:
            lost: who went away with this request. It goes to one that is relied on then, else to any that it has not met.
        """
        left = {address: weight for address, weight in self.weights.items() if address not in lost} or self.weights
        if lost and (known := left.keys() & self.relied_on):
            left = dict.fromkeys(known, 1.0)
        elif not any(left.values()):
            left = dict.fromkeys(left, 1.0)
        return random.choices(list(left), list(left.values()))[0] if left else None  # noqa: S311 - a share, not a secret

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """While a request is open."""
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            yield
        finally:
            self.open -= 1


class Routes:
    """Host name → address of a predictor.

    Args:
        server: the Kubernetes API's URL.
        token: its bearer token.
        authority: file of the certificate authority that it trusts; asked for again when it is missing at first.
    """

    def __init__(self, server: str, token: str, authority: str, domain: str) -> None:
        self.server, self.token, self.authority, self.domain = server, token, authority, domain
        self.table: dict[str, Target] = {}
        self.connected = False
        self._changed, self._waiting = asyncio.Event(), asyncio.Event()

    def find(self, host: str) -> Target | None:
        """Return the service of a Host header's name: NAME.NAMESPACE.DOMAIN, or NAME-predictor.NAMESPACE.DOMAIN."""
        return self.table.get(host)

    def wake(self) -> None:
        """A request waits for a service without replicas: do not wait to report that."""
        self._waiting.set()

    async def report(self) -> None:
        """Until cancelled: tell how many requests are open, while any are."""
        while True:
            with contextlib.suppress(aiohttp.ClientError, OSError):
                await self._report()
            await asyncio.sleep(RETRY_S)

    async def _report(self) -> None:
        told = set[str]()
        async with self._session() as session:
            while True:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._waiting.wait(), REPORT_S)
                self._waiting.clear()
                counts = {target.service: target.most for target in self.table.values()}
                for target in self.table.values():
                    target.most = target.open
                busy = {name for name, count in counts.items() if count}
                if busy or told:
                    async with session.post(self.server + OPEN_REQUESTS, json=counts):
                        told = busy

    def _session(self) -> aiohttp.ClientSession:
        """Connections to the Kubernetes API."""
        connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=self.authority))
        timeout = aiohttp.ClientTimeout(total=None, connect=5)
        return aiohttp.ClientSession(headers={"Authorization": f"Bearer {self.token}"}, timeout=timeout, connector=connector)

    async def wait_for_change(self, timeout_s: float) -> None:
        """Until the table changes, or the time is over."""
        try:
            await asyncio.wait_for(self._changed.wait(), timeout_s)
        except TimeoutError:
            return

    def status(self) -> str:
        """For /healthz: empty when the routes are up to date."""
        return "" if self.connected else f"the Kubernetes API at {self.server} does not answer; the last known routes are used"

    async def run(self) -> None:
        """Until cancelled: list, then watch, again and again."""
        while True:
            try:
                await self._follow()
            except (aiohttp.ClientError, OSError, ValueError, KeyError) as error:
                if self.connected:
                    log.warning("watching routes: %r", error)
                self.connected = False
            await asyncio.sleep(RETRY_S)

    async def _follow(self) -> None:
        url = f"{self.server}/api/v1/endpoints"
        async with self._session() as session:
            async with session.get(url) as answer:
                answer.raise_for_status()
                listed = await answer.json()
            self._replace(listed["items"])
            self.connected = True
            version = listed["metadata"]["resourceVersion"]
            async with session.get(url, params={"watch": "true", "resourceVersion": version}) as answer:
                async for line in answer.content:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        return
                    self._apply(event["type"], event["object"])

    def _names(self, body: dict[str, Any]) -> tuple[str, str]:
        name, namespace = body["metadata"]["name"], body["metadata"]["namespace"]
        return f"{name.removesuffix('-predictor')}.{namespace}.{self.domain}", f"{name}.{namespace}.{self.domain}"

    def _replace(self, bodies: list[dict[str, Any]]) -> None:
        present = {name for body in bodies for name in self._names(body)}
        for name in self.table.keys() - present:
            del self.table[name]
        for body in bodies:
            self._apply("ADDED", body)

    def _apply(self, kind: str, body: dict[str, Any]) -> None:
        short, long = self._names(body)
        if kind == "DELETED":
            self.table.pop(short, None)
            self.table.pop(long, None)
        else:
            name = body["metadata"]["name"].removesuffix("-predictor")
            target = self.table.setdefault(short, Target(f"{body['metadata']['namespace']}/{name}"))
            self.table[long] = target
            addresses = [f"{one['addresses'][0]['ip']}:{one['ports'][0]['port']}" for one in body.get("subsets") or []]
            notes = body["metadata"].get("annotations") or {}
            weights = json.loads(notes.get(WEIGHTS) or "{}")
            target.relied_on = frozenset(json.loads(notes.get(RELIED_ON) or "[]"))
            target.wakes = notes.get(WAKES) == "true"
            target.weights = {address: float(weights.get(address, 1.0)) for address in addresses}
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
