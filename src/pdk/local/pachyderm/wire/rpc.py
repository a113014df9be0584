"""The gRPC server: every method of the schema to its handler, every error of ours to a code."""

from __future__ import annotations

import hmac
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import grpc

from pdk.errors import AuthError, Conflict, EngineError, NotFound, NotSupported, PdkError, TemporaryError, UserError
from pdk.local.pachyderm.service import repos
from pdk.local.pachyderm.service.model import Refused
from pdk.local.pachyderm.wire.schema import Method, Schema
from pdk.settings import is_loopback

log = logging.getLogger(__name__)
MESSAGE_LIMIT = 20 << 20  # bytes, as the engine's
OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_LIMIT),
    ("grpc.max_send_message_length", MESSAGE_LIMIT),
    # pachctl pings every 20 s; the defaults would take that for an attack and end long `logs -f` calls
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.so_reuseport", 0),
)
CODES: tuple[tuple[type[PdkError], grpc.StatusCode], ...] = (  # the first that fits counts
    (repos.StillInUse, grpc.StatusCode.FAILED_PRECONDITION),
    (repos.Circle, grpc.StatusCode.INTERNAL),
    (Refused, grpc.StatusCode.UNKNOWN),
    (NotFound, grpc.StatusCode.NOT_FOUND),
    (Conflict, grpc.StatusCode.ALREADY_EXISTS),
    (NotSupported, grpc.StatusCode.UNIMPLEMENTED),
    (UserError, grpc.StatusCode.INVALID_ARGUMENT),
    (AuthError, grpc.StatusCode.UNAUTHENTICATED),
    (TemporaryError, grpc.StatusCode.UNAVAILABLE),
    (EngineError, grpc.StatusCode.INTERNAL),
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


def code_of(error: PdkError) -> grpc.StatusCode:
    """The gRPC code of an error of ours."""
    return next((code for kind, code in CODES if isinstance(error, kind)), grpc.StatusCode.UNKNOWN)


class Calls:
    """Wraps handlers: checks the token where one is required, turns errors into codes."""

    def __init__(self, bind: str, token: str) -> None:
        self.required = None if is_loopback(bind) else token.encode()

    def admit(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """Raise AuthError unless the caller may come in."""
        if self.required is None:
            return
        given = next((value for key, value in context.invocation_metadata() or () if key == "authn-token"), "")
        if not hmac.compare_digest(str(given).encode(), self.required):
            raise AuthError("no authentication token (try logging in)")

    async def refuse(self, context: grpc.aio.ServicerContext[Any, Any], error: BaseException, path: str) -> None:
        """End the call with the error's code and words."""
        if isinstance(error, PdkError):
            await context.abort(code_of(error), str(error))
        log.error("%s", path, exc_info=error)
        await context.abort(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}; the server's log has the details")

    def unary(self, path: str, handler: Callable[[Any], Any]) -> Callable[..., Any]:
        """A method with one answer."""

        async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            try:
                self.admit(context)
                return await handler(request)
            except Exception as error:
                await self.refuse(context, error, path)

        return call

    def stream(self, path: str, handler: Callable[[Any], AsyncIterator[Any]]) -> Callable[..., Any]:
        """A method with a stream of answers."""

        async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
            try:
                self.admit(context)
                async for answer in handler(request):
                    yield answer
            except Exception as error:
                await self.refuse(context, error, path)

        return call


def missing(method: Method) -> Callable[..., Any]:
    """The handler of a method that is not offered."""

    async def refuse(*_: Any) -> Any:
        raise NotSupported(
            f"{method.path.rpartition('/')[2]} is not offered by the local Pachyderm server; docs/compatibility.md lists what is"
        )

    async def refuse_stream(*_: Any) -> AsyncIterator[Any]:
        await refuse()
        yield

    return refuse_stream if method.kind.endswith("_stream") else refuse


def generic_handlers(schema: Schema, services: Mapping[str, Sequence[object]], calls: Calls) -> list[grpc.GenericRpcHandler]:
    """GRPC handlers for every method of the schema; `services` maps ``pfs_v2.API`` to the objects with its methods."""
    table: dict[str, dict[str, Any]] = {}
    for path, method in schema.methods.items():
        service, _, name = path[1:].partition("/")
        handler = next((found for part in services.get(service, ()) if (found := getattr(part, name, None))), None)
        if handler is None and service == "auth_v2.API" and not method.kind.endswith("_stream"):
            handler = getattr(services[service][0], "WhoAmI")  # noqa: B009 - every auth call answers the same
        wrap = calls.stream if method.kind.endswith("_stream") else calls.unary
        make = getattr(grpc, f"{method.kind}_rpc_method_handler")
        table.setdefault(service, {})[name] = make(
            wrap(path, handler or missing(method)),
            request_deserializer=schema[method.request].FromString,
            response_serializer=schema[method.response].SerializeToString,
        )
    return [grpc.method_handlers_generic_handler(service, methods) for service, methods in table.items()]


def project_exists(db: Any) -> Callable[[str], bool]:
    """Looks a project up by name."""

    def exists(name: str) -> bool:
        try:
            repos.project(db, name)
        except NotFound:
            return False
        return True

    return exists
