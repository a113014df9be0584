"""Which predictor answers for which host: kept up to date by watching Endpoints in the Kubernetes API."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from typing import Any

import aiohttp

log = logging.getLogger(__name__)
RETRY_S = 0.5


class Routes:
    """Host name → address of a predictor.

    Args:
        server: the Kubernetes API's URL.
        token: its bearer token.
        authority: file of the certificate authority that it trusts; asked for again when it is missing at first.
    """

    def __init__(self, server: str, token: str, authority: str, domain: str) -> None:
        self.server, self.token, self.authority, self.domain = server, token, authority, domain
        self.table: dict[str, str] = {}
        self.connected = False
        self._changed = asyncio.Event()

    def find(self, host: str) -> str | None:
        """The address for a Host header's name: NAME.NAMESPACE.DOMAIN, or NAME-predictor.NAMESPACE.DOMAIN."""
        return self.table.get(host)

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
        context = ssl.create_default_context(cafile=self.authority)
        headers = {"Authorization": f"Bearer {self.token}"}
        url = f"{self.server}/api/v1/endpoints"
        timeout = aiohttp.ClientTimeout(total=None, connect=5)
        async with aiohttp.ClientSession(headers=headers, timeout=timeout, connector=aiohttp.TCPConnector(ssl=context)) as session:
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
        self.table.clear()
        for body in bodies:
            self._apply("ADDED", body)

    def _apply(self, kind: str, body: dict[str, Any]) -> None:
        subsets = body.get("subsets") or []
        for host in self._names(body):
            if kind == "DELETED" or not subsets:
                self.table.pop(host, None)
            else:
                self.table[host] = f"{subsets[0]['addresses'][0]['ip']}:{subsets[0]['ports'][0]['port']}"
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
