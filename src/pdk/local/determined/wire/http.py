"""Requests and answers of the Determined API: who asks, what went wrong, in the engine's forms."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pdk.errors import AuthError, Conflict, NotFound, NotSupported, PdkError, UserError
from pdk.local.determined.service import experiments
from pdk.local.determined.wire.messages import Messages
from pdk.local.kit.db import Database
from pdk.local.kit.web import TooLarge, read_body

log = logging.getLogger(__name__)
SALT = "GubPEmmotfiK9TMD6Zdw"  # the client's, see determined.common.api.authentication
BODY_LIMIT = 200 << 20  # bytes: a context of 95 MiB in base64 and some more
CODES: tuple[tuple[type[PdkError], int, int, str], ...] = (  # error, HTTP status, gRPC code, reason; the first that fits counts
    (NotFound, 404, 5, "NotFound"),
    (Conflict, 409, 6, "AlreadyExists"),
    (NotSupported, 400, 3, "InvalidArgument"),
    (UserError, 400, 3, "InvalidArgument"),
    (AuthError, 401, 16, "Unauthenticated"),
)
Handler = Callable[[Request], Awaitable[Any]]


def error_body(status: int, message: str, code: int = 2, reason: str = "") -> object:
    """The engine's form of an error."""
    return {"error": {"code": code, "reason": reason or str(status), "error": message}}


class Tokens:
    """Session tokens, derived from the installation's secret so that they outlive the server."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def _derive(self, what: str) -> str:
        return hmac.new(self._secret.encode(), what.encode(), hashlib.sha256).hexdigest()

    def user(self) -> str:
        """The token of the one user."""
        return self._derive("user")

    def trial(self, trial: experiments.Trial) -> str:
        """The token of a trial's processes."""
        return self._derive(f"trial:{trial.task}")

    def right_password(self, given: str, *, hashed: bool) -> bool:
        """Whether a login's password is the installation's secret."""
        wanted = hashlib.sha512((SALT + self._secret).encode()).hexdigest() if hashed else self._secret
        return hmac.compare_digest(given.encode(), wanted.encode())


@dataclass(frozen=True)
class Frame:
    """Wraps handlers: checks the token, renders the answer and errors."""

    tokens: Tokens
    trial_of: Callable[[str], str | None]  # the expected session token of the trial that a request's path names, if any

    def route(self, method: str, path: str, handler: Handler, *, public: bool = False) -> Route:
        """A Starlette route."""

        async def answer(request: Request) -> Response:
            try:
                if not public:
                    self.admit(request)
                result = await handler(request)
            except PdkError as error:
                status, code, reason = next(((s, c, r) for kind, s, c, r in CODES if isinstance(error, kind)), (500, 13, "Internal"))
                return JSONResponse(error_body(status, str(error), code, reason), status)
            except (ValueError, KeyError, TypeError) as error:
                if not isinstance(error, ValueError):
                    log.exception("%s %s", request.method, request.url.path)
                what = f"the request could not be read: {type(error).__name__}: {error}"
                return JSONResponse(error_body(400, what, 3, "InvalidArgument"), 400)
            return result if isinstance(result, Response) else JSONResponse(result)

        return Route(path, answer, methods=[method])

    def admit(self, request: Request) -> None:
        """Raise AuthError unless the request carries the user's token or that of a trial."""
        given = request.headers.get("authorization") or request.headers.get("grpc-metadata-x-allocation-token") or ""
        token = given.removeprefix("Bearer ").strip()
        if hmac.compare_digest(token.encode(), self.tokens.user().encode()):
            return
        if self.trial_of(token) is not None:
            return
        raise AuthError("invalid or expired credentials: log in again (DET_USER and DET_PASS are in `pdk env`)")


class Handlers:
    """What every group of calls has at hand."""

    def __init__(self, db: Database, frame: Frame) -> None:
        self.db, self.frame = db, frame
        self.messages = Messages(db.reader)


async def body(request: Request) -> dict[str, Any]:
    """The request's JSON object; empty where there is none.

    Raises:
        UserError: something else.
    """
    try:
        raw = await read_body(request, BODY_LIMIT)
    except TooLarge as error:
        raise UserError(f"{error}; leave files out of the context with a .detignore file") from error
    if not raw.strip():
        return {}
    try:
        content = json.loads(raw)
    except ValueError as error:
        raise UserError(f"the request's body is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"the request's body is a {type(content).__name__}; an object is expected")
    return content


def number(request: Request, name: str = "id") -> int:
    """A numeric part of the path.

    Raises:
        NotFound: it is not a number.
    """
    value = request.path_params[name]
    if not value.isdecimal():
        raise NotFound(f"{value!r} is not a number")
    return int(value)
