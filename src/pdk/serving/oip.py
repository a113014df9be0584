"""The messages of the Open Inference protocol's gRPC service, built for protobuf's C parser from a table.

Source of names, numbers and types: the protocol's specification (kserve/open-inference-protocol, grpc_predict_v2).
"""

from __future__ import annotations

from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"
Field = descriptor_pb2.FieldDescriptorProto
NUMBERS = ("bool", "int32", "int64", "uint32", "uint64", "float", "double", "string", "bytes")
KINDS = {name: getattr(Field, f"TYPE_{name.upper()}") for name in NUMBERS}
PARAMETERS = "{InferParameter} parameters"
# message → its fields in the order of their numbers, from 1; [x] repeated, {X} a map from texts, ?x of the message's one choice
TABLE = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "bool live",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "bool ready",
    "ModelReadyRequest": "string name, string version",
    "ModelReadyResponse": "bool ready",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "string name, string version, [string] extensions",
    "ModelMetadataRequest": "string name, string version",
    "TensorMetadata": "string name, string datatype, [int64] shape",
    "ModelMetadataResponse": "string name, [string] versions, string platform, [TensorMetadata] inputs, [TensorMetadata] outputs",
    "InferParameter": "?bool bool_param, ?int64 int64_param, ?string string_param",
    "InferTensorContents": "[bool] bool_contents, [int32] int_contents, [int64] int64_contents, [uint32] uint_contents, "
    "[uint64] uint64_contents, [float] fp32_contents, [double] fp64_contents, [bytes] bytes_contents",
    "InferInputTensor": f"string name, string datatype, [int64] shape, {PARAMETERS}, InferTensorContents contents",
    "InferRequestedOutputTensor": f"string name, {PARAMETERS}",
    "ModelInferRequest": f"string model_name, string model_version, string id, {PARAMETERS}, [InferInputTensor] inputs, "
    "[InferRequestedOutputTensor] outputs, [bytes] raw_input_contents",
    "InferOutputTensor": f"string name, string datatype, [int64] shape, {PARAMETERS}, InferTensorContents contents",
    "ModelInferResponse": f"string model_name, string model_version, string id, {PARAMETERS}, [InferOutputTensor] outputs, "
    "[bytes] raw_output_contents",
}


@cache
def messages() -> dict[str, Any]:
    """Return the message classes by name."""
    file = descriptor_pb2.FileDescriptorProto(name="pdk/open_inference.proto", package=PACKAGE, syntax="proto3")
    for name, spelled in TABLE.items():
        message = file.message_type.add(name=name)
        for number, part in enumerate(filter(None, spelled.split(", ")), 1):
            _add(message, number, part)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in TABLE}


def _add(message: Any, number: int, spelled: str) -> None:
    kind, name = spelled.split(" ")
    field = message.field.add(name=name, number=number, label=Field.LABEL_REPEATED if kind[0] in "[{" else Field.LABEL_OPTIONAL)
    if kind[0] == "?":
        if not message.oneof_decl:
            message.oneof_decl.add(name="choice")
        field.oneof_index = 0
    if kind[0] == "{":
        entry = message.nested_type.add(name=f"{name.title()}Entry")
        entry.options.map_entry = True
        _add(entry, 1, "string key")
        _add(entry, 2, f"{kind[1:-1]} value")
        field.type, field.type_name = Field.TYPE_MESSAGE, f".{PACKAGE}.{message.name}.{entry.name}"
        return
    inner = kind.strip("[]?")
    if inner in KINDS:
        field.type = KINDS[inner]
    else:
        field.type, field.type_name = Field.TYPE_MESSAGE, f".{PACKAGE}.{inner}"
