"""Hyperparameters of a search: their forms checked, sampled, laid out as a grid.

Sampling is the engine's to the bit (numpy's Mersenne Twister, parameters by name): the same seed makes the same trials on a cluster.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from pdk.errors import UserError

Hparams = dict[str, Any]
KEYS: dict[str, tuple[frozenset[str], frozenset[str]]] = {  # type → required and optional keys beside it
    "const": (frozenset({"val"}), frozenset()),
    "int": (frozenset({"minval", "maxval"}), frozenset({"count"})),
    "double": (frozenset({"minval", "maxval"}), frozenset({"count"})),
    "log": (frozenset({"minval", "maxval", "base"}), frozenset({"count"})),
    "categorical": (frozenset({"vals"}), frozenset()),
}
GRID_LIMIT = 1_000_000  # points


class Random:
    """The engine's generator: numpy's legacy `RandomState`, 32 bits at a time."""

    def __init__(self, seed: int) -> None:
        self._state = np.random.RandomState(seed % 2**32)

    def bits(self) -> int:
        """32 bits."""
        return int(self._state.randint(0, 2**32, dtype=np.uint32))

    def below(self, count: int) -> int:
        """Return a whole number from 0 up to `count`, exclusive."""
        limit = count - 1
        mask = (1 << limit.bit_length()) - 1
        while limit:
            value = self.bits() & mask
            if value <= limit:
                return value
        return 0

    def uniform(self, low: float, high: float) -> float:
        """Return a number from `low` up to `high`."""
        return low + (high - low) * (((self.bits() >> 5) * 67108864 + (self.bits() >> 6)) / 9007199254740992)


def is_range(value: Any) -> bool:
    """Return whether a value of a config is the description of a hyperparameter (and not a constant or a mapping of others)."""
    return isinstance(value, Mapping) and isinstance(value.get("type"), str)


def check(hparams: Mapping[str, Any], *, grid: bool, path: str = "hyperparameters") -> None:
    """Refuse what cannot be sampled, or laid out as a grid.

    Raises:
        UserError: naming the field and the reason.
    """
    for name, value in hparams.items():
        if is_range(value):
            _check_one(value, f"{path}.{name}", grid=grid)
        elif isinstance(value, Mapping):
            check(value, grid=grid, path=f"{path}.{name}")


def normal(hparams: Mapping[str, Any]) -> Hparams:
    """Return the same with constants spelled out, as the engine shows them."""
    made: Hparams = {}
    for name, value in hparams.items():
        if is_range(value):
            made[name] = value
        else:
            made[name] = normal(value) if isinstance(value, Mapping) else {"type": "const", "val": value}
    return made


def _check_one(value: Mapping[str, Any], path: str, *, grid: bool) -> None:
    kind = value["type"]
    if kind not in KEYS:
        raise _refusal(path, f"type {kind!r} is none of {', '.join(sorted(KEYS))}")
    required, optional = KEYS[kind]
    given = set(value) - {"type"}
    if missing := sorted(required - given):
        raise _refusal(path, f"{missing[0]} is required for type {kind}")
    if unknown := sorted(given - required - optional):
        raise _refusal(path, f"{unknown[0]!r} is no key of type {kind}")
    if kind == "categorical":
        if not isinstance(value["vals"], list) or not value["vals"]:
            raise _refusal(path, f"vals: a list with at least one value is expected, not {value['vals']!r}")
        return
    if kind == "const":
        return
    for key in required:
        number = value[key]
        if isinstance(number, bool) or not isinstance(number, int if kind == "int" else int | float) or not math.isfinite(number):
            raise _refusal(path, f"{key}: a {'whole ' if kind == 'int' else ''}number is expected, not {number!r}")
    if value["minval"] > value["maxval"] or (value["minval"] == value["maxval"] and kind != "int"):
        raise _refusal(path, f"minval {value['minval']} is not less than maxval {value['maxval']}")
    if kind == "log" and value["base"] <= 0:
        raise _refusal(path, f"base: a positive number is expected, not {value['base']!r}")
    count = value.get("count")
    if count is None and grid:
        raise _refusal(path, "count is required for searcher grid: the number of points on this axis")
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
        raise _refusal(path, f"count: a positive whole number is expected, not {count!r}")


def _refusal(path: str, why: str) -> UserError:
    return UserError(f"invalid experiment configuration: {path}: {why}")


def sample(hparams: Mapping[str, Any], random: Random) -> Hparams:
    """Return one value for each."""
    return {name: _sample_one(hparams[name], random) for name in sorted(hparams)}


def _sample_one(value: Any, random: Random) -> Any:
    if not isinstance(value, Mapping):
        return value
    if not is_range(value):
        return sample(value, random)
    kind = value["type"]
    if kind == "const":
        return value["val"]
    if kind == "categorical":
        return value["vals"][random.below(len(value["vals"]))]
    low, high = value["minval"], value["maxval"]
    if kind == "int":
        return low + random.below(high - low + 1)
    drawn = random.uniform(low, high)
    return drawn if kind == "double" else float(value["base"]) ** drawn


def grid_size(hparams: Mapping[str, Any]) -> int:
    """Return how many points a grid has."""
    return math.prod(len(points) for _, points in _axes(hparams, ()))


def grid(hparams: Mapping[str, Any]) -> list[Hparams]:
    """Return every combination of the points on all axes, the first name's changing slowest."""
    axes, found = list(_axes(hparams, ())), []
    for values in itertools.product(*(points for _, points in axes)):
        point: Hparams = {}
        for (route, _), value in zip(axes, values, strict=True):
            inner = point
            for key in route[:-1]:
                inner = inner.setdefault(key, {})
            inner[route[-1]] = value
        found.append(point)
    return found


def _axes(hparams: Mapping[str, Any], route: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], list[Any]]]:
    for name in sorted(hparams):
        value, here = hparams[name], (*route, name)
        if isinstance(value, Mapping) and not is_range(value) and value:
            yield from _axes(value, here)
        else:
            yield here, _points(value)


def _points(value: Any) -> list[Any]:
    if not is_range(value):
        return [value]
    kind = value["type"]
    if kind == "const":
        return [value["val"]]
    if kind == "categorical":
        return list(value["vals"])
    low, high, count = value["minval"], value["maxval"], value["count"]
    if kind == "int":
        count = min(count, high - low + 1)
    spread = [(low + high) / 2] if count == 1 else [low + number * (high - low) / (count - 1) for number in range(count)]
    if kind == "int":
        return [
            math.floor(point + 0.5) if point >= 0 else math.ceil(point - 0.5) for point in spread
        ]  # halves away from zero, as Go rounds
    return spread if kind == "double" else [float(value["base"]) ** point for point in spread]
