"""Requests and answers of the Open Inference protocol (V2) as a handler's instances and predictions, and back.

A handler answers a list of instances. A tensor's first dimension counts them: each instance is one entry of the only input, or a
mapping of the inputs' entries by name.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pdk.errors import UserError

TYPES = {  # of the protocol → numpy's
    "BOOL": "bool", "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64", "INT8": "int8", "INT16": "int16",
    "INT32": "int32", "INT64": "int64", "FP16": "float16", "FP32": "float32", "FP64": "float64",
}  # fmt: skip
NAMES = {np.dtype(value): key for key, value in TYPES.items()}
MAX_ELEMENTS = 1 << 26


def instances_of(request: Mapping[str, Any]) -> list[Any]:
    """The instances of a V2 inference request.

    Raises:
        UserError: naming what is wrong with it.
    """
    inputs = request.get("inputs")
    if not isinstance(inputs, list) or not inputs:
        raise UserError('"inputs": a list with at least one tensor is expected')
    named = dict(_tensor(entry) for entry in inputs)
    if len(named) != len(inputs):
        raise UserError('"inputs": two tensors have the same name')
    counts = {name: len(values) for name, values in named.items()}
    if len(set(counts.values())) != 1:
        raise UserError(f'"inputs": the tensors have different first dimensions: {counts}')
    if len(named) == 1:
        return next(iter(named.values()))
    return [dict(zip(named, row, strict=True)) for row in zip(*named.values(), strict=True)]


def _tensor(entry: Any) -> tuple[str, list[Any]]:
    """A tensor's name and its entries along the first dimension: lists of numbers, or texts."""
    if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
        raise UserError('"inputs": every tensor needs a name, a shape, a datatype and data')
    name, shape, kind, data = entry["name"], entry.get("shape"), entry.get("datatype"), entry.get("data")
    if not isinstance(shape, list) or not shape or not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in shape):
        raise UserError(f"input {name!r}: the shape must be a list of positive whole numbers, not {shape!r}")
    if math.prod(shape) > MAX_ELEMENTS:
        raise UserError(f"input {name!r}: shape {shape} has more than {MAX_ELEMENTS:,} elements")
    if not isinstance(data, list):
        raise UserError(f"input {name!r}: data must be a list")
    if kind == "BYTES":
        texts = _flat(data)
        if len(texts) != math.prod(shape) or not all(isinstance(text, str) for text in texts):
            raise UserError(f"input {name!r}: shape {shape} of BYTES needs {math.prod(shape)} texts")
        rows = np.array(texts, dtype=object).reshape(shape)
        return name, [row if isinstance(row, str) else row.tolist() for row in rows]
    if kind not in TYPES:
        raise UserError(f"input {name!r}: datatype {kind!r} is none of {', '.join([*TYPES, 'BYTES'])}")
    try:
        array = np.asarray(data, dtype=TYPES[kind])
        return name, array.reshape(shape).tolist()
    except (ValueError, TypeError, OverflowError) as error:
        raise UserError(f"input {name!r}: the data do not make a {kind} tensor of shape {shape}: {error}") from error


def _flat(data: Sequence[Any]) -> list[Any]:
    return [value for entry in data for value in (_flat(entry) if isinstance(entry, list) else [entry])]


def outputs_of(predictions: Sequence[Any]) -> list[dict[str, Any]]:
    """Predictions as V2 output tensors: one, or one for each key where every prediction is a mapping with the same keys.

    What makes no tensor (texts, ragged lists, mappings inside) becomes BYTES, JSON where it is no text.
    """
    first = predictions[0]
    if isinstance(first, Mapping) and all(isinstance(entry, Mapping) and entry.keys() == first.keys() for entry in predictions):
        return [_output(str(key), [entry[key] for entry in predictions]) for key in first]
    return [_output("predictions", list(predictions))]


def _output(name: str, values: list[Any]) -> dict[str, Any]:
    try:
        array = np.asarray(values)
    except ValueError:
        array = np.empty(0, dtype=object)
    if array.dtype in NAMES and len(array) == len(values):
        return {"name": name, "shape": list(array.shape), "datatype": NAMES[array.dtype], "data": array.ravel().tolist()}
    texts = [value if isinstance(value, str) else json.dumps(value) for value in values]
    return {"name": name, "shape": [len(texts)], "datatype": "BYTES", "data": texts}
