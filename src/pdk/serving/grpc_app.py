"""The Open Inference protocol (V2) over gRPC."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from pdk.errors import UserError
from pdk.serving import http, tensors
from pdk.serving.app import Protocol, request_id
from pdk.serving.oip import SERVICE, messages
from pdk.serving.runner import Rejected

CODES = {400: grpc.StatusCode.INVALID_ARGUMENT, 404: grpc.StatusCode.NOT_FOUND, 501: grpc.StatusCode.UNIMPLEMENTED,
         503: grpc.StatusCode.UNAVAILABLE, 504: grpc.StatusCode.DEADLINE_EXCEEDED}  # fmt: skip
CONTENTS = {  # the field of InferTensorContents for a datatype
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents", "INT64": "int64_contents",
    "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents", "UINT64": "uint64_contents",
    "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip


def _inputs(request: Any) -> list[tensors.Tensor]:
    """Return the input tensors of a ModelInfer request.

    Raises:
        UserError: naming what is wrong with it.
    """
    if not request.inputs:
        raise UserError("inputs: at least one tensor is expected")
    raw = list(request.raw_input_contents)
    if raw and len(raw) != len(request.inputs):
        raise UserError(f"raw_input_contents has {len(raw)} entries for {len(request.inputs)} inputs")
    return [_tensor(entry, raw[number] if raw else None) for number, entry in enumerate(request.inputs)]


def _tensor(entry: Any, raw: bytes | None) -> tensors.Tensor:
    shape = tensors.checked_shape(entry.name, list(entry.shape))
    if raw is not None:
        return tensors.from_binary(entry.name, entry.datatype, shape, raw)
    field = CONTENTS.get(entry.datatype)
    if field is None:
        raise UserError(f"input {entry.name!r}: datatype {entry.datatype!r} cannot be sent in contents; send raw_input_contents")
    values = list(getattr(entry.contents, field))
    if entry.datatype == "BYTES":
        return tensors.texts(entry.name, shape, values, bytes)
    return tensors.numbers(entry.name, entry.datatype, shape, values)


class Service:
    """The calls."""

    def __init__(self, protocol: Protocol) -> None:
        self.protocol, self.messages = protocol, messages()

    def handlers(self) -> Any:
        """For grpc's server."""
        calls: dict[str, Callable[[Any, Any], Awaitable[Any]]] = {
            "ServerLive": self.live, "ServerReady": self.ready, "ModelReady": self.model_ready, "ServerMetadata": self.server,
            "ModelMetadata": self.metadata, "ModelInfer": self.infer,
        }  # fmt: skip
        made = {
            name: grpc.unary_unary_rpc_method_handler(
                call,
                request_deserializer=self.messages[f"{name}Request"].FromString,
                response_serializer=self.messages[f"{name}Response"].SerializeToString,
            )
            for name, call in calls.items()
        }
        return grpc.method_handlers_generic_handler(SERVICE, made)

    async def live(self, _request: Any, _context: Any) -> Any:
        """The process answers."""
        return self.messages["ServerLiveResponse"](live=True)

    async def ready(self, _request: Any, _context: Any) -> Any:
        """The model answers."""
        return self.messages["ServerReadyResponse"](ready=self.protocol.ready)

    async def model_ready(self, request: Any, context: Any) -> Any:
        """The model answers."""
        await self._check(request.name, request.version, context)
        return self.messages["ModelReadyResponse"](ready=self.protocol.ready)

    async def server(self, _request: Any, _context: Any) -> Any:
        """Return who answers."""
        return self.messages["ServerMetadataResponse"](**http.described())

    async def metadata(self, request: Any, context: Any) -> Any:
        """Return what is served."""
        await self._check(request.name, request.version, context)
        return self.messages["ModelMetadataResponse"](**self.protocol.description())

    async def _check(self, name: str, wanted: str, context: Any) -> None:
        try:
            self.protocol.check(name, wanted)
        except Rejected as error:
            await context.abort(CODES[error.status], str(error))

    async def infer(self, request: Any, context: Any) -> Any:
        """Return a prediction: counted, timed, noted, with where it comes from in the initial metadata."""
        given = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        headers = {**self.protocol.headers, "x-request-id": request_id(given.get("x-request-id") or request.id)}
        await context.send_initial_metadata(tuple(headers.items()))
        began, code, said = time.perf_counter(), 500, b""
        try:
            self.protocol.check(request.model_name, request.model_version)
            made = await self.protocol.runner.submit(tensors.instances_of(_inputs(request)), headers["x-request-id"])
            outputs = tensors.chosen(tensors.outputs_of(made.predictions), (entry.name for entry in request.outputs))
            answer = self._answer(request.id or headers["x-request-id"], outputs, raw=bool(request.raw_input_contents))
            code = 200
        except (UserError, Rejected) as error:
            code = error.status if isinstance(error, Rejected) else 400
            said = str(error).encode()
        except Exception as error:  # noqa: BLE001 - the handler may raise anything
            said = f"{type(error).__name__}: {error}".encode()
        finally:
            seconds = time.perf_counter() - began
            self.protocol.metrics.answered("v2-grpc", code, seconds)
            self.protocol.requests.note(headers, "v2-grpc", code, seconds, b"", said)
        if code != 200:
            await context.abort(CODES.get(code, grpc.StatusCode.INTERNAL), said.decode())
        return answer

    def _answer(self, id_: str, outputs: list[tensors.Tensor], *, raw: bool) -> Any:
        """Return the answer, in the form in which the request came; FP16 has no other than raw."""
        model = self.protocol.model
        made = self.messages["ModelInferResponse"](model_name=model.name, model_version=model.version, id=id_)
        raw = raw or any(tensor.datatype not in CONTENTS for tensor in outputs)
        for tensor in outputs:
            entry = made.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=list(tensor.array.shape))
            if raw:
                made.raw_output_contents.append(tensor.binary())
                continue
            values = tensor.array.ravel().tolist()
            if tensor.datatype == "BYTES":
                values = [value if isinstance(value, bytes) else str(value).encode() for value in values]
            getattr(entry.contents, CONTENTS[tensor.datatype]).extend(values)
        return made


@contextlib.asynccontextmanager
async def running(protocol: Protocol, address: str) -> AsyncIterator[None]:
    """Give a server; several workers may share the port."""
    options = (("grpc.so_reuseport", 1), ("grpc.max_receive_message_length", protocol.settings.body_limit))
    server = grpc.aio.server(options=options)
    server.add_generic_rpc_handlers((Service(protocol).handlers(),))
    server.add_insecure_port(address)
    await server.start()
    try:
        yield
    finally:
        await server.stop(protocol.settings.drain_s)
