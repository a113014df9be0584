"""Reads YAML and JSON that others wrote, as the engines read them, and writes YAML that is read back as it was.

Pachyderm, Determined and Kubernetes turn YAML into JSON with one Go library (sigs.k8s.io/yaml over go-yaml 2), and so does this module:
``1e-4`` is a number, ``2026-01-31``, ``9:30`` and ``1.0.0`` are texts, ``0o17``, ``017`` and ``0x0f`` are 15, ``y`` and ``off`` are true
and false, keys become texts, tags of one's own have no meaning. What JSON cannot hold is refused: ``.inf``, ``.nan``, a key that is null.

What is read is bounded, whoever wrote it: `DEPTH` levels, and `EXPANDED` characters once aliases are written out.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Iterator
from typing import Any

import yaml

from pdk.errors import UserError

DEPTH = 200  # levels of mappings and lists within each other
EXPANDED = 1 << 20  # characters and entries that a document's aliases may add to it: a few hundred bytes of them could make gigabytes

_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
}
_INTEGER = re.compile(r"[-+]?(?:0[xX](?P<hex>[0-9a-fA-F]+)|0[bB](?P<bin>[01]+)|0[oO]?(?P<oct>[0-7]+)|(?P<dec>0|[1-9][0-9]*))")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_BASES = {"hex": 16, "bin": 2, "oct": 8, "dec": 10}
_TAG = "tag:yaml.org,2002:"


class Unreadable(UserError):
    """A document is not what it should be, or larger than it may be."""


def read_json(raw: bytes | str) -> Any:
    """Return a JSON value.

    Raises:
        Unreadable: it is not JSON (``NaN`` and ``Infinity`` are not), or has more than `DEPTH` levels.
    """
    try:
        value = json.loads(raw, parse_constant=_no_constant)
    except RecursionError:
        raise Unreadable(f"it has more than {DEPTH} levels of lists and objects") from None
    except ValueError as error:
        raise Unreadable(f"it is not JSON: {error}") from error
    text = raw.encode() if isinstance(raw, str) else raw
    if text.count(b"[") + text.count(b"{") > DEPTH:
        _check_depth(value)
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f'{name} is no JSON; send the text "{name}"')


def _check_depth(value: Any) -> None:
    level, depth = [value], 0
    while level := [
        inner
        for entry in level
        if isinstance(entry, dict | list)
        for inner in (entry.values() if isinstance(entry, dict) else entry)
        if isinstance(inner, dict | list)
    ]:
        depth += 1
        if depth >= DEPTH:
            raise Unreadable(f"it has more than {DEPTH} levels of lists and objects")


def read_yaml(text: bytes | str) -> Any:
    """Return the value of a YAML document; None for one that is empty.

    Raises:
        Unreadable: it is not one document of YAML, holds what JSON cannot, or is larger than it may be.
    """
    found = read_all_yaml(text)
    if len(found) > 1:
        raise Unreadable(f"it holds {len(found)} YAML documents, one is expected")
    return found[0] if found else None


def read_all_yaml(text: bytes | str) -> list[Any]:
    """Return the values of the YAML documents of a text.

    Raises:
        Unreadable: as `read_yaml`.
    """
    try:
        return list(_documents(yaml.parse(text, Loader=yaml.CSafeLoader)))
    except (yaml.YAMLError, UnicodeError) as error:
        raise Unreadable(f"it is not YAML: {' '.join(str(error).split())}") from error


def write_yaml(value: Any) -> str:
    """Return a value as YAML in the order of its keys, which `read_yaml` and the engines read back as it is."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def scalar(text: str) -> Any:
    """Return what a plain scalar means."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "+-.0123456789":
        return text
    bare = text.replace("_", "")
    if match := _INTEGER.fullmatch(bare):
        base = match.lastgroup or "dec"
        number = int(match[base], _BASES[base])
        number = -number if bare[0] == "-" else number
        return number if -(2**63) <= number < 2**64 else float(number)
    return float(bare) if _FLOAT.fullmatch(bare) else text


class _Dumper(yaml.CSafeDumper):
    """Quotes every text that engines would read as something else, beside those that YAML 1.1 takes for more than a text."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write out what stands twice."""
        del data
        return True


def _text(dumper: _Dumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar(f"{_TAG}str", value, style=None if isinstance(scalar(value), str) else '"')


_Dumper.add_representer(str, _text)


class _Open:
    """A list or mapping whose end has not been read yet."""

    def __init__(self, made: list[Any] | dict[str, Any], anchor: str | None) -> None:
        self.made, self.anchor, self.size = made, anchor, 1
        self.key: str | None = None


def _documents(events: Iterator[Any]) -> Iterator[Any]:
    for event in events:
        if isinstance(event, yaml.DocumentStartEvent):
            yield _Document().read(events)


class _Document:
    """Builds the value of one document from its events, without recursion."""

    def __init__(self) -> None:
        self.open: list[_Open] = []
        self.anchors: dict[str, tuple[Any, int]] = {}
        self.added = 0  # by aliases
        self.value: Any = None

    def read(self, events: Iterator[Any]) -> Any:
        """Return the value, having read to the document's end."""
        for event in events:
            if isinstance(event, yaml.DocumentEndEvent):
                break
            if isinstance(event, yaml.SequenceStartEvent | yaml.MappingStartEvent):
                if len(self.open) >= DEPTH:
                    raise Unreadable(f"it has more than {DEPTH} levels of lists and mappings")
                if event.anchor:
                    self.anchors.pop(event.anchor, None)  # it is not known before its end: a value cannot hold itself
                self.open.append(_Open([] if isinstance(event, yaml.SequenceStartEvent) else {}, event.anchor))
            elif isinstance(event, yaml.CollectionEndEvent):
                done = self.open.pop()
                self._add(event, done.made, done.size, done.anchor)
            elif isinstance(event, yaml.AliasEvent):
                if event.anchor not in self.anchors:
                    raise Unreadable(f"{_at(event)}: the anchor &{event.anchor} is not defined before *{event.anchor}")
                value, size = self.anchors[event.anchor]
                self.added += size
                if self.added > EXPANDED:
                    raise Unreadable(f"its aliases stand for more than {EXPANDED:,} characters; write out what is meant")
                self._add(event, value, size, None)
            elif isinstance(event, yaml.ScalarEvent):
                self._add(event, _scalar(event), 1 + len(event.value), event.anchor)
        return self.value

    def _add(self, event: Any, value: Any, size: int, anchor: str | None) -> None:
        if anchor:
            self.anchors[anchor] = value, size
        if not self.open:
            self.value = value
            return
        top = self.open[-1]
        top.size += size
        if isinstance(top.made, list):
            top.made.append(value)
        elif top.key is None:
            top.key = _key(event, value)
        else:
            key, top.key = top.key, None
            if key == _MERGE:
                _merge(event, top.made, value)
            else:
                top.made[key] = value


_MERGE = "\0<<"  # no text of a document: NUL is not YAML


def _merge(event: Any, into: dict[str, Any], given: Any) -> None:
    for mapping in given if isinstance(given, list) else [given]:
        if not isinstance(mapping, dict):
            raise Unreadable(f"{_at(event)}: << takes a mapping or a list of mappings")
        for key, value in mapping.items():
            into.setdefault(key, value)


def _key(event: Any, value: Any) -> str:
    if isinstance(event, yaml.ScalarEvent) and event.value == "<<" and event.implicit[0]:
        return _MERGE
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    raise Unreadable(f"{_at(event)}: {value!r} cannot be the key of a mapping")


def _scalar(event: Any) -> Any:
    tag = (event.tag or "").removeprefix(_TAG)
    if tag == "binary":
        try:
            return base64.b64decode("".join(event.value.split()), validate=True).decode()
        except ValueError as error:
            raise Unreadable(f"{_at(event)}: !!binary holds no text in base64: {error}") from error
    if tag == "str" or (not event.implicit[0] and not event.tag):
        return event.value
    value = scalar(event.value)
    if isinstance(value, float) and not math.isfinite(value):
        raise Unreadable(f"{_at(event)}: {event.value} is no value of JSON; leave the field out, or write a number")
    return value


def _at(event: Any) -> str:
    return f"line {event.start_mark.line + 1}"
