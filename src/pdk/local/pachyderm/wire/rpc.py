"""The gRPC server: every method of the schema to its handler, every error of ours to a code."""

from __future__ import annotations

import hmac
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from pdk.errors import AuthError, Conflict, EngineError, NotFound, NotSupported, PdkError, TemporaryError, UserError
from pdk.installation import is_loopback
from pdk.kit.grpc_server import Code, Method, Status
from pdk.kit.http2_stream import Stream
from pdk.kit.web import STRANGER
from pdk.local.pachyderm.rules import repos
from pdk.local.pachyderm.rules.model import Refused
from pdk.local.pachyderm.wire import schema
from pdk.local.pachyderm.wire.schema import Schema

log = logging.getLogger(__name__)
CODES: tuple[tuple[type[PdkError], Code], ...] = (  # the first that fits counts
    (repos.StillInUse, Code.FAILED_PRECONDITION),
    (repos.Circle, Code.INTERNAL),
    (Refused, Code.UNKNOWN),
    (NotFound, Code.NOT_FOUND),
    (Conflict, Code.ALREADY_EXISTS),
    (NotSupported, Code.UNIMPLEMENTED),
    (UserError, Code.INVALID_ARGUMENT),
    (AuthError, Code.UNAUTHENTICATED),
    (TemporaryError, Code.UNAVAILABLE),
    (EngineError, Code.INTERNAL),
)


class Cluster:
    """``admin_v2``, ``versionpb_v2``, ``auth_v2`` and ``transaction_v2``: who this is, and that authentication is off."""

    def __init__(self, schema: Schema, identity: str, project_exists: Callable[[str], bool]) -> None:
        self.schema, self.identity, self.project_exists = schema, identity, project_exists

    async def InspectCluster(self, request: Any) -> Any:
        info = self.schema["admin_v2.ClusterInfo"](id=self.identity, deployment_id=self.identity, warnings_ok=True)
        name = request.current_project.name
        if name and not self.project_exists(name):
            info.warnings.append(f'WARNING: Could not inspect project "{name}": error getting project "{name}": project "{name}" not found')
        return info

    async def GetVersion(self, request: Any) -> Any:
        return self.schema["version_v2.Version"](major=2, minor=12, micro=2)

    async def WhoAmI(self, request: Any) -> Any:
        raise NotSupported("the auth service is not activated")

    async def ListTransaction(self, request: Any) -> Any:
        return self.schema["transaction_v2.TransactionInfos"]()


def code_of(error: PdkError) -> Code:
    """Return the gRPC code of an error of ours."""
    return next((code for kind, code in CODES if isinstance(error, kind)), Code.UNKNOWN)


def explain(error: Exception, path: str) -> Status:
    """Return the code and words of an error; what nobody expected goes to the log."""
    if isinstance(error, PdkError):
        return Status(code_of(error), str(error))
    log.error("%s", path, exc_info=error)
    return Status(Code.INTERNAL, f"{type(error).__name__}: {error}; the server's log has the details")


def admission(bind: str, token: str) -> Callable[[Stream], None]:
    """Return what checks the token of a call; on loopback, of those that another user of this machine makes."""
    required, own = token.encode(), is_loopback(bind)

    def admit(stream: Stream) -> None:
        if own and stream.connection.trusted:
            return
        if not hmac.compare_digest(stream.headers.get("authn-token", "").encode(), required):
            raise AuthError("no authentication token (try logging in)" if not own else f"no authentication token: {STRANGER}")

    return admit


def missing(method: schema.Method) -> Callable[..., Any]:
    """Return the handler of a method that is not offered."""

    async def refuse(*_: Any) -> Any:
        raise NotSupported(
            f"{method.path.rpartition('/')[2]} is not offered by the local Pachyderm server; docs/compatibility.md lists what is"
        )

    async def refuse_stream(*_: Any) -> AsyncIterator[Any]:
        await refuse()
        yield

    return refuse_stream if method.kind.endswith("_stream") else refuse


def methods(api: Schema, services: Mapping[str, Sequence[object]]) -> dict[str, Method]:
    """Return every method of the schema by its path; `services` maps ``pfs_v2.API`` to the objects that have its methods."""
    table = {}
    for path, method in api.methods.items():
        service, _, name = path[1:].partition("/")
        handler = next((found for part in services.get(service, ()) if (found := getattr(part, name, None))), None)
        if handler is None and service == "auth_v2.API" and not method.kind.endswith("_stream"):
            handler = getattr(services[service][0], "WhoAmI")  # noqa: B009 - every auth call answers the same
        decode, encode = api[method.request].FromString, api[method.response].SerializeToString
        streams_in, _, streams_out = (part == "stream" for part in method.kind.partition("_"))
        table[path] = Method(handler or missing(method), decode, encode, streams_in=streams_in, streams_out=streams_out)
    return table


def project_exists(db: Any) -> Callable[[str], bool]:
    """Looks a project up by name."""

    def exists(name: str) -> bool:
        try:
            repos.project(db, name)
        except NotFound:
            return False
        return True

    return exists
