"""Forwards requests to predictors, and tries again where a rollout moved the route under a request."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import aiohttp
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from yarl import URL

from pdk.kit.web import TooLarge, host_of, read_body
from pdk.local.gateway.routes import Routes

HOP_BY_HOP = frozenset(
    ("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade")
) | {"content-length"}
ATTEMPTS = 5  # to find a predictor that takes a request
DROPPED = 2  # times that a request may be sent again after a predictor took it and went away: it may be what it died of
START_S = 60.0  # that a request waits for the first replica of a service that was scaled to zero
RETRY_S = 0.2  # between two of them
BODY_LIMIT = 64 << 20  # bytes that are kept to be sent again
ANSWER_S = 120.0  # until a predictor's answer is given up


class Proxy:
    """An ASGI endpoint. A prediction changes nothing, so it may be sent again when a predictor went away before it answered."""

    def __init__(self, routes: Routes, session: aiohttp.ClientSession) -> None:
        self.routes, self.session = routes, session

    async def __call__(self, request: Request) -> Response:
        """Answer one request."""
        host = host_of(request.headers.get("host", ""))
        try:
            body = await read_body(request, BODY_LIMIT)
        except TooLarge as error:
            return JSONResponse({"error": str(error)}, 413)
        target = self.routes.find(host)
        if target is None:
            return self._unknown(host)
        with target.opened():
            return await self._answer(request, host, body)

    async def _answer(self, request: Request, host: str, body: bytes) -> Response:
        """Have a predictor answer, another one where the first went away, and the first that comes where there is none."""
        attempts, dropped, deadline, lost = 0, 0, time.monotonic() + START_S, set[str]()
        problem = "it has no replica that is ready; kubectl describe isvc says why"
        while attempts < ATTEMPTS and time.monotonic() < deadline:
            target = self.routes.find(host)
            if target is None:
                return self._unknown(host)
            if (address := target.choose(lost)) is None:
                if not target.wakes:
                    break
                self.routes.wake()
            else:
                attempts += 1
                try:
                    return await self._forward(request, address, body)
                except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) as error:
                    problem = str(error)
                    lost.add(address)
                    dropped += not isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
                    if dropped > DROPPED:
                        break
                except TimeoutError:
                    return JSONResponse({"error": f"the predictor did not answer within {ANSWER_S:g} s"}, 504)
            await self.routes.wait_for_change(RETRY_S)
        return JSONResponse({"error": f"the predictor of {host} does not answer: {problem}"}, 503, {"retry-after": "1"})

    def _unknown(self, host: str) -> Response:
        hosts = ", ".join(sorted(name for name in self.routes.table if "-predictor." not in name)) or "none"
        form = f"send a header Host: NAME.NAMESPACE.{self.routes.domain} (known: {hosts})"
        return JSONResponse({"error": f"no InferenceService answers to the host {host!r}; {form}"}, 404)

    async def _forward(self, request: Request, address: str, body: bytes) -> Response:
        target = f"http://{address}{request.scope['raw_path'].decode()}"
        if request.url.query:
            target += f"?{request.url.query}"
        headers = [(key, value) for key, value in request.headers.items() if key not in HOP_BY_HOP]
        answer = await self.session.request(
            request.method, URL(target, encoded=True), headers=headers, data=body or None, allow_redirects=False
        )
        kept = {key.lower(): value for key, value in answer.headers.items() if key.lower() not in HOP_BY_HOP}
        if "Content-Length" in answer.headers and int(answer.headers["Content-Length"]) <= 1 << 20:
            async with answer:
                return Response(await answer.read(), answer.status, kept)
        return StreamingResponse(_stream(answer), answer.status, kept)


async def _stream(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    async with answer:
        async for part in answer.content.iter_any():
            yield part
