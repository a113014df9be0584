"""Derive protobuf descriptors from `pachyderm_sdk`, so that the SDK stays the specification.

The SDK's messages are betterproto dataclasses, pure Python and slow. Their field metadata (number, type, group) says all that a
descriptor needs; from descriptors `google.protobuf` makes classes whose parser is C. The SDK takes a second to import, so this
runs once for each version of it, in a process of its own; `schema.load` reads the result.

Run as ``python -m pdk.local.pachyderm.wire.reflect FILE``.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
import typing
from base64 import b64encode
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import betterproto
from google.protobuf import descriptor_pb2

PACKAGES = ("pfs", "pps", "auth", "admin", "version", "transaction", "taskapi")
GOOGLE = "betterproto.lib.google.protobuf"
SCALARS = {
    "string": "STRING", "bytes": "BYTES", "bool": "BOOL", "double": "DOUBLE", "float": "FLOAT", "int32": "INT32", "int64": "INT64",
    "uint32": "UINT32", "uint64": "UINT64", "sint32": "SINT32", "sint64": "SINT64", "fixed32": "FIXED32", "fixed64": "FIXED64",
    "sfixed32": "SFIXED32", "sfixed64": "SFIXED64", "enum": "ENUM", "message": "MESSAGE",
}  # fmt: skip
Field = descriptor_pb2.FieldDescriptorProto
JSON_NAMES = {("Egress", "url"): "URL", ("AddFileUrlSource", "url"): "URL"}  # spelling that the SDK does not keep


class Owner:
    """Put in the place of `Message.SerializeToString`: the stubs hand over the bare function, which has forgotten its class."""

    def __get__(self, _instance: object, owner: type) -> type:
        return owner


class Recorder:
    """Stands in for a gRPC channel: the SDK's stubs tell it every method's path, kind and types."""

    def __init__(self) -> None:
        self.methods: dict[str, dict[str, str]] = {}
        self.roots: list[type] = []

    def __getattr__(self, kind: str) -> Any:
        def record(path: str, *, request_serializer: type, response_deserializer: Any) -> None:
            request, response = request_serializer, response_deserializer.__self__
            self.methods[path] = {"kind": kind, "request": full_name(request), "response": full_name(response)}
            self.roots += [request, response]

        return record


def package_of(module: str) -> str:
    """``pachyderm_sdk.api.pfs`` → ``pfs_v2``."""
    name = module.rsplit(".", 1)[1]
    return f"{name}_v2" if name in ("pfs", "pps", "auth", "admin", "version", "transaction") else name + "pb"


def full_name(cls: type) -> str:
    """Return the message's protobuf name."""
    if cls.__module__ == GOOGLE:
        return f"google.protobuf.{cls.__name__}"
    scope = f"{cls.__name__}Scope." if issubclass(cls, betterproto.Enum) else ""
    return f"{package_of(cls.__module__)}.{scope}{cls.__name__}"


class Builder:
    """Collects the messages and enums that the given roots reach."""

    def __init__(self) -> None:
        self.files: dict[str, descriptor_pb2.FileDescriptorProto] = {}
        self.seen: set[str] = set()

    def file(self, module: str) -> descriptor_pb2.FileDescriptorProto:
        """Return the file of a module's package."""
        package = package_of(module)
        if package not in self.files:
            self.files[package] = descriptor_pb2.FileDescriptorProto(name="pdk_pachyderm.proto", package=package, syntax="proto3")
        return self.files[package]

    def add(self, cls: Any) -> str:
        """Add a message or enum with all that it refers to; returns its full name."""
        name = full_name(cls)
        if cls.__module__ == GOOGLE or name in self.seen:
            return name
        self.seen.add(name)
        if issubclass(cls, betterproto.Enum):
            # protobuf scopes an enum's values to what holds the enum, the SDK to the enum: so each gets a message around it
            enum = self.file(cls.__module__).message_type.add(name=f"{cls.__name__}Scope").enum_type.add(name=cls.__name__)
            for member in cls:
                enum.value.add(name=member.name, number=member.value)
            return name
        message = descriptor_pb2.DescriptorProto(name=cls.__name__)
        hints = typing.get_type_hints(cls, vars(sys.modules[cls.__module__]))
        for field in dataclasses.fields(cls):
            self.add_field(message, field.name, field.metadata["betterproto"], hints[field.name])
        self.file(cls.__module__).message_type.add().CopyFrom(message)
        return name

    def add_field(self, message: descriptor_pb2.DescriptorProto, name: str, meta: Any, hint: Any) -> None:
        """Add a field from its betterproto metadata and type hint."""
        field = message.field.add(name=name.rstrip("_"), number=meta.number, label=Field.LABEL_OPTIONAL)
        if (message.name, name) in JSON_NAMES:
            field.json_name = JSON_NAMES[message.name, name]
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if meta.proto_type == "map":
            entry = message.nested_type.add(name="".join(part.title() for part in name.split("_")) + "Entry")
            entry.options.map_entry = True
            for number, (part, kind, type_) in enumerate(zip(("key", "value"), meta.map_types, arguments, strict=True), 1):
                self.set_type(entry.field.add(name=part, number=number, label=Field.LABEL_OPTIONAL), kind, type_, None)
            field.label, field.type, field.type_name = Field.LABEL_REPEATED, Field.TYPE_MESSAGE, entry.name
            return
        if origin is list:
            field.label = Field.LABEL_REPEATED
        inner = next((a for a in arguments if a is not type(None)), hint) if origin in (list, typing.Union) else hint
        self.set_type(field, meta.proto_type, inner, meta.wraps)
        if meta.group:
            groups = [oneof.name for oneof in message.oneof_decl]
            if meta.group not in groups:
                message.oneof_decl.add(name=meta.group)
                groups.append(meta.group)
            field.oneof_index = groups.index(meta.group)

    def set_type(self, field: Field, kind: str, hint: Any, wraps: str | None) -> None:
        """Fill in a field's type."""
        field.type = getattr(Field, "TYPE_" + SCALARS[kind])
        if wraps:
            field.type_name = f".google.protobuf.{wraps.title()}Value"
        elif hint is datetime:
            field.type_name = ".google.protobuf.Timestamp"
        elif hint is timedelta:
            field.type_name = ".google.protobuf.Duration"
        elif kind in ("message", "enum"):
            field.type_name = "." + self.add(hint)


def reflect() -> dict[str, Any]:
    """Return all packages as one file per package, and the methods by path."""
    channel, builder = Recorder(), Builder()
    betterproto.Message.SerializeToString = Owner()  # this process does nothing else
    for name in PACKAGES:
        module = importlib.import_module(f"pachyderm_sdk.api.{name}")
        for attribute in vars(module).copy().values():
            if isinstance(attribute, type) and attribute.__module__ == module.__name__:
                if attribute.__name__ == "ApiStub":
                    attribute(channel)
                elif issubclass(attribute, betterproto.Message | betterproto.Enum):
                    builder.add(attribute)
    for root in channel.roots:
        builder.add(root)
    merged = []
    for package, file in builder.files.items():
        file.name = f"pdk/{package}.proto"
        merged.append(b64encode(file.SerializeToString()).decode())
    return {"files": merged, "methods": channel.methods}


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(reflect()))
