"""Protobuf classes and method table of the Pachyderm API, from the cache that `reflect` fills once per SDK version."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import tempfile
from base64 import b64decode
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, duration_pb2, empty_pb2, message_factory, timestamp_pb2, wrappers_pb2

from pdk.errors import EngineError

log = logging.getLogger(__name__)
FORMAT = 2  # of the cache file; raise it when `reflect` changes
GOOGLE = (any_pb2, duration_pb2, empty_pb2, timestamp_pb2, wrappers_pb2)


@dataclass(frozen=True)
class Method:
    """One gRPC method: its kind as `grpc` spells it (``unary_stream`` …) and message names."""

    path: str
    kind: str
    request: str
    response: str


class Schema:
    """Message classes by full name (``schema["pfs_v2.RepoInfo"]``) and `methods` by path."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.methods = {path: Method(path, **method) for path, method in content["methods"].items()}
        self._pool = descriptor_pool.DescriptorPool()
        for module in GOOGLE:
            self._pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
        self._load([descriptor_pb2.FileDescriptorProto.FromString(b64decode(file)) for file in content["files"]])
        self._classes: dict[str, Any] = {}

    def _load(self, files: list[descriptor_pb2.FileDescriptorProto]) -> None:
        google = [module.DESCRIPTOR.name for module in GOOGLE]
        waiting = {file.package: file for file in files}
        done: set[str] = set()
        while waiting:
            for package, file in list(waiting.items()):
                used = {field.type_name.lstrip(".").partition(".")[0] for message in file.message_type for field in message.field}
                used = {name for name in used if name in waiting or name in done} - {package}
                if used <= done:
                    file.dependency.extend(google + sorted(f"pdk/{name}.proto" for name in used))
                    self._pool.Add(file)
                    done.add(package)
                    del waiting[package]
                    break
            else:
                raise EngineError(f"the packages {sorted(waiting)} of pachyderm_sdk depend on each other in a circle")

    def __getitem__(self, name: str) -> Any:
        if name not in self._classes:
            self._classes[name] = message_factory.GetMessageClass(self._pool.FindMessageTypeByName(name))
        return self._classes[name]

    def number(self, enum: str, member: str) -> int:
        """Return the number of an enum's member, both spelled as in the SDK (``pps_v2.JobState``, ``JOB_RUNNING``)."""
        return int(self._enum(enum).values_by_name[member].number)

    def member(self, enum: str, number: int) -> str:
        """Return the name of an enum's member."""
        return str(self._enum(enum).values_by_number[number].name)

    def _enum(self, enum: str) -> Any:
        package, _, name = enum.rpartition(".")
        return self._pool.FindEnumTypeByName(f"{package}.{name}Scope.{name}")


def load(cache: Path) -> Schema:
    """Return the schema of the installed SDK; `cache` is a folder that may be empty.

    Raises:
        EngineError: pachyderm-sdk is missing or does not look as expected.
    """
    try:
        version = metadata.version("pachyderm-sdk")
    except metadata.PackageNotFoundError as error:
        raise EngineError("pachyderm-sdk is not installed, so the Pachyderm API is not known; run `make setup`") from error
    file = cache / f"pachyderm-sdk-{version}-{FORMAT}.json"
    try:
        return Schema(json.loads(file.read_text()))
    except FileNotFoundError:
        pass
    except (ValueError, LookupError, TypeError) as error:
        log.warning("%s cannot be read (%r) and is made anew", file, error)
    _reflect(cache, version, file)
    return Schema(json.loads(file.read_text()))


def _reflect(cache: Path, version: str, file: Path) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=cache, delete=False) as temporary:
        command = [sys.executable, "-P", "-m", "pdk.local.pachyderm.wire.reflect", temporary.name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EngineError(f"pachyderm-sdk {version} could not be read as a specification: {done.stderr.strip()[-500:]}")
    Path(temporary.name).rename(file)
