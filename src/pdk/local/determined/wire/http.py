"""Requests and answers of the Determined API: who asks, what went wrong, in the engine's forms."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pdk.documents import Unreadable, read_json
from pdk.errors import AuthError, Conflict, NotFound, NotSupported, PdkError, UserError, WrongState
from pdk.kit.db import Database
from pdk.kit.web import TooLarge, defect, read_body
from pdk.local.determined.rules import experiments
from pdk.local.determined.rules.forms import Form
from pdk.local.determined.runtime.driver import Driver
from pdk.local.determined.wire.messages import Json, Messages

SALT = "GubPEmmotfiK9TMD6Zdw"  # the client's, see determined.common.api.authentication
SESSION_S = 7 * 24 * 3600  # as the engine's
BODY_LIMIT = 200 << 20  # bytes: a context of 95 MiB in base64 and some more
CODES: tuple[tuple[type[PdkError], int, int, str], ...] = (  # error, HTTP status, gRPC code, reason; the first that fits counts
    (NotFound, 404, 5, "NotFound"),
    (WrongState, 400, 9, "FailedPrecondition"),
    (Conflict, 409, 6, "AlreadyExists"),
    (NotSupported, 501, 12, "Unimplemented"),
    (UserError, 400, 3, "InvalidArgument"),
    (AuthError, 401, 16, "Unauthenticated"),
)
Handler = Callable[[Request], Awaitable[Any]]
F = TypeVar("F", bound=Form)


def error_body(status: int, message: str, code: int = 2, reason: str = "") -> object:
    """Return the engine's form of an error."""
    return {"error": {"code": code, "reason": reason or str(status), "error": message}}


class Tokens:
    """Session tokens, signed with the installation's secret so that they outlive the server."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def _derive(self, what: str) -> str:
        return hmac.new(self._secret.encode(), what.encode(), hashlib.sha256).hexdigest()

    def user(self) -> str:
        """Return a new session of the one user: its expiry (unix time), a random part, a signature."""
        content = f"{int(time.time() + SESSION_S)}.{secrets.token_hex(8)}"
        return f"{content}.{self._derive('user:' + content)}"

    def is_user(self, token: str) -> bool:
        """Return whether a token is a session of the user's, and has not expired."""
        content, _, signature = token.rpartition(".")
        expires = content.partition(".")[0]
        signed = hmac.compare_digest(signature.encode(), self._derive("user:" + content).encode())
        return signed and int(expires) > time.time()

    def trial(self, trial: experiments.Trial) -> str:
        """Return the token of a trial's processes."""
        return self._derive(f"trial:{trial.task}")

    def right_password(self, given: str, *, hashed: bool) -> bool:
        """Return whether a login's password is the installation's secret."""
        wanted = hashlib.sha512((SALT + self._secret).encode()).hexdigest() if hashed else self._secret
        return hmac.compare_digest(given.encode(), wanted.encode())


@dataclass(frozen=True)
class Frame:
    """Wraps handlers: checks the token, renders the answer and errors."""

    tokens: Tokens
    trial_of: Callable[[str], str | None]  # the task of the trial whose session token it is
    ended: Callable[[str], bool]  # whether a user's token was logged out

    def route(self, method: str, path: str, handler: Handler, *, public: bool = False) -> Route:
        """Return a Starlette route."""

        async def answer(request: Request) -> Response:
            try:
                if not public:
                    self.admit(request)
                result = await handler(request)
                return result if isinstance(result, Response) else JSONResponse(result)
            except PdkError as error:
                status, code, reason = next(((s, c, r) for kind, s, c, r in CODES if isinstance(error, kind)), (500, 13, "Internal"))
                return JSONResponse(error_body(status, str(error), code, reason), status)
            except Exception as error:  # noqa: BLE001 - it is logged
                return JSONResponse(error_body(500, defect(request, error), 13, "Internal"), 500)

        return Route(path, answer, methods=[method])

    def rest(self) -> Route:
        """For every path of the API that no other route knows."""

        async def refuse(request: Request) -> Json:
            raise NotSupported(
                f"{request.method} {request.url.path} is not offered by the local server; docs/compatibility.md says what is"
            )

        answer = self.route("GET", "/api/v1/{rest:path}", refuse)
        return Route(answer.path, answer.endpoint, methods=["GET", "POST", "PUT", "PATCH", "DELETE"])

    def admit(self, request: Request) -> None:
        """Raise AuthError unless the request carries the user's token or that of a trial."""
        token = bearer(request)
        if self.tokens.is_user(token):
            if not self.ended(token):
                return
        elif self.trial_of(token) is not None:
            return
        raise AuthError("invalid or expired credentials: log in again (DET_USER and DET_PASS are in `pdk env`)")


def bearer(request: Request) -> str:
    """Return the token of a request; empty where it has none."""
    given = request.headers.get("authorization") or request.headers.get("grpc-metadata-x-allocation-token") or ""
    return given.removeprefix("Bearer ").strip()


class Handlers:
    """What every group of calls has at hand."""

    def __init__(self, db: Database, frame: Frame) -> None:
        self.db, self.frame = db, frame
        self.messages = Messages(db.reader)


class Driven(Handlers):
    """The same, for calls that also look at what runs."""

    def __init__(self, db: Database, frame: Frame, driver: Driver) -> None:
        super().__init__(db, frame)
        self.driver = driver


async def body(request: Request) -> dict[str, Any]:
    """Return the request's JSON object; empty where there is none.

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
        content = read_json(raw)
    except Unreadable as error:
        raise UserError(f"the request's body cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"the request's body is a {type(content).__name__}; an object is expected")
    return content


async def read(request: Request, kind: type[F]) -> F:
    """Return the request's JSON object as a form; numbers may be texts, as in the engine's JSON.

    Raises:
        UserError: it does not fit, naming the field.
    """
    given = {key: value for key, value in (await body(request)).items() if value is not None}
    try:
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        raise UserError(f"the request's body does not fit: {error}") from error
