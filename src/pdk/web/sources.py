"""Reads what the page shows from the three engines, by their own protocols."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable
from typing import Any, TypeVar

import aiohttp

from pdk.engines.versioned import Versioned
from pdk.errors import EngineError, NotFound
from pdk.settings import Installation, is_loopback

T = TypeVar("T")
LOG_LINES = 500  # of a log that a page shows: its end
CALL_S = 10.0


class Sources:
    """The engines of one installation."""

    def __init__(self, installation: Installation, session: aiohttp.ClientSession) -> None:
        self.installation, self.session = installation, session
        self._token = ""

    async def pachyderm(self, ask: Callable[[Versioned], T]) -> T:
        """Ask Pachyderm something."""
        found = self.installation
        token = "" if is_loopback(found.bind) else found.secret()

        def work() -> T:
            return ask(Versioned(found.host, found.ports.pachyderm, token))

        return await asyncio.to_thread(work)

    async def determined(self, path: str, *, stream: bool = False) -> Any:
        """``GET`` from Determined's REST API; with `stream` the answer is one JSON object a line.

        Raises:
            NotFound, EngineError: with the engine's words.
        """
        address = f"http://{self.installation.host}:{self.installation.ports.determined}"
        if not self._token:
            body = {"username": "determined", "password": self.installation.secret()}
            self._token = (await self._json("POST", f"{address}/api/v1/auth/login", json=body))["token"]
        return await self._json("GET", f"{address}{path}", headers={"Authorization": f"Bearer {self._token}"}, stream=stream)

    async def kubernetes(self, path: str) -> Any:
        """``GET`` from the Kubernetes API."""
        found = self.installation
        context = ssl.create_default_context(cafile=str(found.state / "kserve" / "ca.pem"))
        headers = {"Authorization": f"Bearer {found.secret()}"}
        return await self._json("GET", f"https://{found.host}:{found.ports.kserve}{path}", headers=headers, ssl=context)

    async def _json(self, method: str, url: str, *, stream: bool = False, **more: Any) -> Any:
        try:
            async with self.session.request(method, url, timeout=aiohttp.ClientTimeout(total=CALL_S), **more) as answer:
                text = await answer.text()
                if answer.status == 404:
                    raise NotFound(f"{url} is not there")
                if answer.status >= 400:
                    raise EngineError(f"{url} answered {answer.status}: {text[:200]}")
        except (aiohttp.ClientError, TimeoutError) as error:
            raise EngineError(f"{url} does not answer: {error or type(error).__name__}") from error
        return [json.loads(line) for line in text.splitlines() if line.strip()] if stream else json.loads(text)
