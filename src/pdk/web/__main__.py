"""Start the page alone: ``python -m pdk.web STATE``."""

from __future__ import annotations

import asyncio
from pathlib import Path

from starlette.applications import Starlette

from pdk.installation import Installation, is_loopback
from pdk.kit import main, web
from pdk.web.app import routes
from pdk.web.sources import Sources


async def serve(installation: Installation) -> None:
    """Run until SIGTERM."""
    installation.folder("web")
    origins, always = web.origins_of(installation), not is_loopback(installation.bind)
    door = web.Door(installation.bind, installation.secret(), origins=origins, pages=True, always=always)
    app = web.Guard(Starlette(routes=[web.healthz({}), *routes(Sources(installation))]), door, lambda _status, reason: {"error": reason})
    async with main.running(web.serve(app, installation.bind, installation.ports.web)):
        await web.until_signal()


def start(state: Path) -> None:
    """The process's main function."""
    asyncio.run(serve(Installation.load(state)))


if __name__ == "__main__":
    main.run("web", start)
