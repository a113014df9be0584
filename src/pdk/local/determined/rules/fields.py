"""Sections of a config as tables of their fields: what each may hold, and what stands where it is not given."""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from pdk.errors import UserError

TEXT, WHOLE, NUMBER, FLAG = "a text", "a whole number", "a number", "true or false"
LIST, TEXTS, MAPPING, ANY = "a list", "a list of texts", "a mapping", "a value"


@dataclass(frozen=True)
class Field:
    """What a field may hold: its kind, between `low` and `high`, or one of `choices`."""

    kind: str = ANY
    default: Any = None
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[str, ...] = ()

    def check(self, where: str, value: Any) -> None:
        """Refuse another value; null means unset, and is none.

        Raises:
            UserError: naming the field, the value and what is expected.
        """
        if value is None:
            return
        if self.choices:
            if value not in self.choices:
                raise refusal(where, f"{value!r} is none of {', '.join(self.choices)}")
        elif not _is(self.kind, value):
            raise refusal(where, f"{self.kind} is expected, not {value!r}")
        elif self.kind in (WHOLE, NUMBER) and not self.low <= value <= self.high:
            limits = f"of at least {self.low:g}" if self.high == math.inf else f"from {self.low:g} to {self.high:g}"
            raise refusal(where, f"{self.kind} {limits} is expected, not {value!r}")


def _is(kind: str, value: Any) -> bool:
    if kind == WHOLE:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind == NUMBER:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if kind == TEXTS:
        return isinstance(value, list) and all(isinstance(entry, str) for entry in value)
    types = {TEXT: str, FLAG: bool, LIST: list, MAPPING: Mapping, ANY: object}
    return isinstance(value, types[kind])


def refusal(where: str, why: str) -> UserError:
    """Return the error for a field."""
    return UserError(f"invalid experiment configuration: {where}: {why}")


def check(where: str, given: Any, fields: Mapping[str, Field], required: Collection[str] = ()) -> None:
    """Check a section.

    Raises:
        UserError: for a field that is unknown, missing or holds something else.
    """
    prefix = f"{where}." if where else ""
    for key, value in given.items():
        if key not in fields:
            raise refusal(f"{prefix}{key}", f"unknown field {key!r}")
        fields[key].check(f"{prefix}{key}", value)
    for key in required:
        if given.get(key) is None:
            raise refusal(f"{prefix}{key}", f"is required: {fields[key].kind}")


def complete(given: Mapping[str, Any], fields: Mapping[str, Field]) -> dict[str, Any]:
    """Return all fields of a section, those not given with what stands for them."""
    return {key: copy.deepcopy(field.default if given.get(key) is None else given[key]) for key, field in fields.items()}
