"""The page's HTTP side: every page as HTML and, with ``.json`` at its end, as JSON. Nothing can be changed here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path

import jinja2
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from pdk.errors import NotFound, PdkError
from pdk.web.pages import MENU, PAGES, Page
from pdk.web.sources import Sources

Build = Callable[[Sources, Mapping[str, str]], Awaitable[Page]]
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
HERE = Path(__file__).parent / "templates"
TEMPLATES = jinja2.Environment(loader=jinja2.FileSystemLoader(HERE), autoescape=True, undefined=jinja2.StrictUndefined)


def routes(sources: Sources) -> list[Route]:
    """For Starlette; the JSON twins first, for a page's last part may hold anything."""
    found = [Route("/style.css", _style)]
    for path, build in PAGES.items():
        twin = "/index.json" if path == "/" else f"{path}.json"
        found.append(Route(twin, partial(_answer, sources=sources, build=build, as_json=True)))
    for path, build in PAGES.items():
        found.append(Route(path, partial(_answer, sources=sources, build=build, as_json=False)))
    return found


async def _style(_: Request) -> Response:
    return Response((HERE / "style.css").read_text(), media_type="text/css", headers=HEADERS)


async def _answer(request: Request, sources: Sources, build: Build, *, as_json: bool) -> Response:
    status = 200
    try:
        page = await build(sources, request.path_params)
    except PdkError as error:
        status = 404 if isinstance(error, NotFound) else 502
        page = {"title": "Something is wrong", "sections": [], "error": str(error)}
    if as_json:
        return JSONResponse(page, status, HEADERS)
    twin = "/index.json" if request.url.path == "/" else f"{request.url.path}.json"
    html = TEMPLATES.get_template("page.html").render(page=page, menu=MENU, twin=twin)
    return HTMLResponse(html, status, HEADERS)
