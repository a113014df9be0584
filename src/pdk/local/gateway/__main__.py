"""Start the inference gateway alone: ``python -m pdk.local.gateway STATE``."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
from starlette.applications import Starlette
from starlette.routing import Route

from pdk.installation import Installation
from pdk.kit import main, web
from pdk.local.gateway.proxy import ANSWER_S, Proxy
from pdk.local.gateway.routes import Routes

METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"]


class Hosts:
    """The names that a Host header may carry: whatever lies below the services' domain."""

    def __init__(self, domain: str) -> None:
        self._suffix = f".{domain}"

    def __contains__(self, host: object) -> bool:
        return isinstance(host, str) and host.endswith(self._suffix)

    def __iter__(self) -> object:
        return iter(())

    def __len__(self) -> int:
        return 0


async def serve(installation: Installation) -> None:
    """Run until SIGTERM."""
    installation.folder("gateway")
    server = f"https://{installation.host}:{installation.ports.kserve}"
    routes = Routes(server, installation.secret(), str(installation.state / "kserve" / "ca.pem"), installation.domain)
    door = web.Door(installation.bind, installation.secret(), Hosts(installation.domain), form_types=True)  # type: ignore[arg-type]
    timeout = aiohttp.ClientTimeout(total=ANSWER_S, connect=2)
    async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False, connector=aiohttp.TCPConnector(limit=0)) as session:
        proxy = Proxy(routes, session)
        listed = [web.healthz({"routes": routes.status}), Route("/{path:path}", proxy.__call__, methods=METHODS)]
        app = web.Guard(Starlette(routes=listed), door, lambda _status, reason: {"error": reason})
        async with main.running(routes.run(), routes.report(), web.serve(app, installation.bind, installation.ports.gateway)):
            await web.until_signal()


def start(state: Path) -> None:
    """The process's main function."""
    asyncio.run(serve(Installation.load(state)))


if __name__ == "__main__":
    main.run("gateway", start)
