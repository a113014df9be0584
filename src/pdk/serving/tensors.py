"""Requests and answers of the Open Inference protocol (V2) as a handler's instances and predictions, and back.

A handler answers a list of instances. A tensor's first dimension counts them: each instance is one entry of the only input, or a
mapping of the inputs' entries by name. An entry is a number or a text where the tensor has one dimension, else a numpy array.

Tensors travel in JSON, or as binary data behind the JSON header (the protocol's binary extension, as KServe and Triton speak it):
numbers little-endian in C order, texts each with its length before it in four bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pdk.errors import UserError

TYPES = {  # of the protocol → numpy's
    "BOOL": "bool", "UINT8": "<u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8", "INT8": "<i1", "INT16": "<i2", "INT32": "<i4",
    "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip
NAMES = {np.dtype(value): key for key, value in TYPES.items()}
MAX_ELEMENTS = 1 << 26  # of a tensor
HEADER_LENGTH = "inference-header-content-length"


@dataclass(frozen=True)
class Tensor:
    """A named tensor; BYTES are an array of objects."""

    name: str
    array: Any

    @property
    def datatype(self) -> str:
        """As the protocol names it."""
        return NAMES.get(self.array.dtype, "BYTES")

    def rows(self) -> Sequence[Any]:
        """Return its entries along the first dimension."""
        return self.array.tolist() if self.array.ndim == 1 else list(self.array)

    def binary(self) -> bytes:
        """Return its content as the binary extension spells it."""
        if self.datatype != "BYTES":
            return bytes(np.ascontiguousarray(self.array).tobytes())
        raw = (value if isinstance(value, bytes) else str(value).encode() for value in self.array.ravel())
        return b"".join(len(value).to_bytes(4, "little") + value for value in raw)

    def values(self) -> list[Any]:
        """Return its content for JSON, flat."""
        flat = self.array.ravel().tolist()
        return [value.decode(errors="replace") if isinstance(value, bytes) else value for value in flat]


@dataclass
class Parts:
    """The binary data of a request, handed out in order."""

    content: memoryview = field(default_factory=lambda: memoryview(b""))

    def take(self, size: Any, name: str) -> bytes:
        """Return the next `size` bytes.

        Raises:
            UserError: so many are not left.
        """
        if not isinstance(size, int) or isinstance(size, bool) or size < 0 or size > len(self.content):
            raise UserError(f"input {name!r}: binary_data_size is {size!r}, and {len(self.content):,} bytes are left in the request")
        taken, self.content = bytes(self.content[:size]), self.content[size:]
        return taken


def split(body: bytes, header_length: str | None) -> tuple[bytes, Parts]:
    """Return the JSON of a V2 request as it came, and the binary data behind it.

    Raises:
        UserError: it is shorter than the header says.
    """
    if header_length is None:
        return body, Parts()
    if not header_length.isdecimal() or int(header_length) > len(body):
        raise UserError(f"{HEADER_LENGTH} is {header_length!r}, and the request has {len(body):,} bytes")
    return body[: int(header_length)], Parts(memoryview(body)[int(header_length) :])


def inputs_of(request: Mapping[str, Any], parts: Parts | None = None) -> list[Tensor]:
    """Return the input tensors of a V2 inference request in JSON.

    Raises:
        UserError: naming what is wrong with it.
    """
    inputs = request.get("inputs")
    if not isinstance(inputs, list) or not inputs:
        raise UserError('"inputs": a list with at least one tensor is expected')
    parts = parts or Parts()
    made = [_tensor(entry, parts) for entry in inputs]
    if len(parts.content):
        raise UserError(f"{len(parts.content):,} bytes of binary data belong to no input")
    return made


def instances_of(inputs: Sequence[Tensor]) -> list[Any]:
    """Return the instances that input tensors hold.

    Raises:
        UserError: two have the same name, or their first dimensions differ.
    """
    named = {tensor.name: tensor.rows() for tensor in inputs}
    if len(named) != len(inputs):
        raise UserError('"inputs": two tensors have the same name')
    counts = {name: len(values) for name, values in named.items()}
    if len(set(counts.values())) != 1:
        raise UserError(f'"inputs": the tensors have different first dimensions: {counts}')
    if len(named) == 1:
        return list(next(iter(named.values())))
    return [dict(zip(named, row, strict=True)) for row in zip(*named.values(), strict=True)]


def _tensor(entry: Any, parts: Parts) -> Tensor:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
        raise UserError('"inputs": every tensor needs a name, a shape, a datatype and data')
    name, kind = entry["name"], entry.get("datatype")
    shape = checked_shape(name, entry.get("shape"))
    parameters = entry.get("parameters")
    if isinstance(parameters, Mapping) and "binary_data_size" in parameters:
        return from_binary(name, kind, shape, parts.take(parameters["binary_data_size"], name))
    data = entry.get("data")
    if not isinstance(data, list):
        raise UserError(f"input {name!r}: data must be a list")
    if kind == "BYTES":
        return texts(name, shape, _flat(data), str)
    return numbers(name, kind, shape, data)


def checked_shape(name: str, shape: Any) -> list[int]:
    """Return a tensor's shape.

    Raises:
        UserError: it is not a tensor, or one of more elements than are taken.
    """
    if not isinstance(shape, list) or not shape or not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in shape):
        raise UserError(f"input {name!r}: the shape must be a list of positive whole numbers, not {shape!r}")
    if len(shape) > 32 or math.prod(shape) > MAX_ELEMENTS:
        raise UserError(f"input {name!r}: shape {shape} has more than {MAX_ELEMENTS:,} elements, or more than 32 dimensions")
    return shape


def numbers(name: str, kind: Any, shape: Sequence[int], data: Any) -> Tensor:
    """Return a tensor of numbers out of (nested) lists.

    Raises:
        UserError: they do not make one.
    """
    try:
        return Tensor(name, np.asarray(data, dtype=_dtype(name, kind)).reshape(shape))
    except (ValueError, TypeError, OverflowError) as error:
        raise UserError(f"input {name!r}: the data do not make a {kind} tensor of shape {list(shape)}: {error}") from error


def texts(name: str, shape: Sequence[int], values: Sequence[Any], kind: type) -> Tensor:
    """Return a tensor of BYTES.

    Raises:
        UserError: they are too many, too few, or none.
    """
    if len(values) != math.prod(shape) or not all(isinstance(value, kind) for value in values):
        raise UserError(f"input {name!r}: shape {list(shape)} of BYTES needs {math.prod(shape)} texts")
    array: Any = np.empty(len(values), dtype=object)
    array[:] = values
    return Tensor(name, array.reshape(shape))


def from_binary(name: str, kind: Any, shape: Sequence[int], raw: bytes) -> Tensor:
    """Return a tensor out of its binary form.

    Raises:
        UserError: its size does not fit its shape.
    """
    if kind == "BYTES":
        values, at = [], 0
        while at < len(raw):
            size = int.from_bytes(raw[at : at + 4], "little")
            if len(raw) - at < 4 + size:
                raise UserError(f"input {name!r}: its binary data end within a text")
            values.append(raw[at + 4 : at + 4 + size])
            at += 4 + size
        return texts(name, shape, values, bytes)
    dtype = _dtype(name, kind)
    if len(raw) != math.prod(shape) * dtype.itemsize:
        wanted = math.prod(shape) * dtype.itemsize
        raise UserError(f"input {name!r}: a {kind} tensor of shape {list(shape)} has {wanted:,} bytes, not {len(raw):,}")
    return Tensor(name, np.frombuffer(bytearray(raw), dtype).reshape(shape))


def _dtype(name: str, kind: Any) -> Any:
    if not isinstance(kind, str) or kind not in TYPES:
        raise UserError(f"input {name!r}: datatype {kind!r} is none of {', '.join([*TYPES, 'BYTES'])}")
    return np.dtype(TYPES[kind])


def _flat(data: Sequence[Any]) -> list[Any]:
    return [value for entry in data for value in (_flat(entry) if isinstance(entry, list) else [entry])]


def outputs_of(predictions: Sequence[Any]) -> list[Tensor]:
    """Predictions as V2 output tensors: one, or one for each key where every prediction is a mapping with the same keys.

    What makes no tensor (texts, ragged lists, mappings inside) becomes BYTES, JSON where it is no text.
    """
    first = predictions[0]
    if isinstance(first, Mapping) and all(isinstance(entry, Mapping) and entry.keys() == first.keys() for entry in predictions):
        return [_output(str(key), [entry[key] for entry in predictions]) for key in first]
    return [_output("predictions", list(predictions))]


def _output(name: str, values: list[Any]) -> Tensor:
    try:
        array = np.asarray(values)
    except ValueError:
        array = np.empty(0, dtype=object)
    if array.dtype in NAMES and len(array) == len(values):
        return Tensor(name, array)
    made: Any = np.empty(len(values), dtype=object)
    made[:] = [value if isinstance(value, str | bytes) else json.dumps(value) for value in values]
    return Tensor(name, made)


def chosen(outputs: Sequence[Tensor], wanted: Iterable[str]) -> list[Tensor]:
    """Return those that a request names, in its order; all where it names none.

    Raises:
        UserError: it names one that the model does not have.
    """
    known = {tensor.name: tensor for tensor in outputs}
    names = list(wanted)
    if unknown := set(names) - set(known):
        raise UserError(f"the model has no output {min(unknown)!r}; it has {', '.join(known)}")
    return [known[name] for name in names] if names else list(outputs)


def answer(request: Mapping[str, Any], outputs: Sequence[Tensor], head: Mapping[str, Any]) -> tuple[bytes, int | None]:
    """Return the body of a V2 answer, and where it holds binary data the length of the JSON before them.

    Raises:
        UserError: the request asks for an output that the model does not have.
    """
    asked = {str(entry.get("name")): entry for entry in request.get("outputs") or () if isinstance(entry, Mapping)}
    every = bool(_parameters(request).get("binary_data_output"))
    listed, raw = list[dict[str, Any]](), list[bytes]()
    for tensor in chosen(outputs, asked):
        made: dict[str, Any] = {"name": tensor.name, "shape": list(tensor.array.shape), "datatype": tensor.datatype}
        if _parameters(asked.get(tensor.name, {})).get("binary_data", every):
            raw.append(tensor.binary())
            made["parameters"] = {"binary_data_size": len(raw[-1])}
        else:
            made["data"] = tensor.values()
        listed.append(made)
    try:
        header = json.dumps({**head, "outputs": listed}, allow_nan=False).encode()
    except ValueError as error:
        raise TypeError(f"the model's answer cannot be sent as JSON, ask for binary data: {error}") from error
    return header + b"".join(raw), len(header) if raw else None


def _parameters(of: Mapping[str, Any]) -> Mapping[str, Any]:
    found = of.get("parameters")
    return found if isinstance(found, Mapping) else {}
