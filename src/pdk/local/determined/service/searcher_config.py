"""The searcher section of a config: checked, completed with the engine's defaults, older forms translated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pdk.errors import UserError
from pdk.local.determined.service import hyperparameters, searchers

UNITS = ("batches", "epochs", "records")
COMMON: dict[str, Any] = {"metric": None, "smaller_is_better": True, "source_checkpoint_uuid": None, "source_trial_id": None}
LENGTH = {"max_length": None, "unit": None}  # deprecated in 0.38, and read all the same
STOPPING = {"max_trials": None, "divisor": 4.0, "max_concurrent_trials": 16, "max_time": None, "time_metric": None, "stop_once": None}
FIELDS: dict[str, dict[str, Any]] = {  # of each searcher, with defaults
    "single": {**COMMON, **LENGTH},
    "random": {**COMMON, **LENGTH, "max_trials": None, "max_concurrent_trials": 16},
    "grid": {**COMMON, **LENGTH, "max_concurrent_trials": 16},
    "async_halving": {**COMMON, **LENGTH, **STOPPING, "num_rungs": None},
    "adaptive_asha": {**COMMON, **LENGTH, **STOPPING, "bracket_rungs": [], "mode": "standard", "max_rungs": 5},
}
ALIASES = {"asha": "async_halving", "adaptive_simple": "adaptive_asha", "adaptive": "adaptive_asha", "sync_halving": "async_halving"}
DROPPED = {"budget", "train_stragglers", "stop_once"}  # of searchers that are no more
COUNTS = ("max_trials", "max_time", "max_rungs", "num_rungs")  # at least 1
WITH_RUNGS = frozenset({"async_halving", "adaptive_asha"})


def refusal(field: str, why: str) -> UserError:
    """The error for a field."""
    return UserError(f"invalid experiment configuration: searcher.{field}: {why}")


def complete(given: Mapping[str, Any], hparams: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """A searcher section with all its fields; what was changed is added to `notes`.

    Raises:
        UserError: naming the field and the reason.
    """
    name = given.get("name")
    if name is None:
        raise UserError("invalid experiment configuration: searcher.name is required")
    found = {key: value for key, value in given.items() if value is not None}
    if name in ALIASES:
        found["name"] = ALIASES[name]
        notes.append(f"searcher.name: {name!r} was read as {found['name']!r}")
    if not isinstance(found["name"], str) or found["name"] not in FIELDS:
        raise refusal("name", f"{name!r} is none of {', '.join(sorted(FIELDS))}")
    fields = FIELDS[found["name"]]
    for key in sorted(DROPPED & found.keys()):
        del found[key]
        notes.append(f"searcher.{key} was left out: Determined 0.38 stops trials as they report, and has no such setting")
    if unknown := sorted(found.keys() - fields.keys() - {"name"}):
        raise refusal(unknown[0], f"unknown field of searcher {found['name']!r}")
    if not isinstance(found.get("metric"), str) or not found["metric"]:
        raise refusal("metric", "the name of a validation metric is required")
    _length(found, notes)
    complete_ = {**{key: value for key, value in fields.items() if value is not None}, **found}
    _check(complete_)
    if complete_["name"] in WITH_RUNGS:
        _check_rungs(complete_)
    hyperparameters.check(hparams, grid=complete_["name"] == "grid")
    if complete_["name"] == "grid" and (size := hyperparameters.grid_size(hparams)) > hyperparameters.GRID_LIMIT:
        raise refusal("name", f"the grid has {size:,} points, more than {hyperparameters.GRID_LIMIT:,}; give the axes smaller counts")
    return complete_


def _length(found: dict[str, Any], notes: list[str]) -> None:
    """Older configs say how long a trial trains; searchers with rungs had their lengths from it."""
    length = found.get("max_length")
    if length is None:
        return
    unit = found.pop("unit", None)
    if isinstance(length, int) and not isinstance(length, bool):
        unit = unit or "batches"
        if unit not in UNITS:
            raise refusal("unit", f"{unit!r} is none of {', '.join(UNITS)}")
        notes.append(f"searcher.max_length: {length} was read as {length} {unit}")
        found["max_length"] = length = {unit: length}
    if not isinstance(length, dict) or len(length) != 1 or next(iter(length)) not in UNITS:
        raise refusal("max_length", f"one of {', '.join(UNITS)} with a number is expected, not {length!r}")
    unit, value = next(iter(length.items()))
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise refusal("max_length", f"a positive whole number is expected, not {value!r}")
    if found["name"] in WITH_RUNGS and "max_time" not in found and "time_metric" not in found:
        found["max_time"], found["time_metric"] = value, unit
        notes.append(f"searcher.max_length was read as max_time: {value}, time_metric: {unit}")
    notes.append("searcher.max_length is deprecated by Determined 0.38: it still works; new code sets max_length in Trainer.fit")


def _check(found: Mapping[str, Any]) -> None:
    for key in (*COUNTS, "max_concurrent_trials"):
        value, least = found.get(key), 1 if key in COUNTS else 0
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            raise refusal(key, f"a whole number of at least {least} is expected, not {value!r}")
    if "max_trials" in FIELDS[found["name"]] and found.get("max_trials") is None:
        raise refusal("max_trials", f"is required for searcher {found['name']!r}")
    if not isinstance(found["smaller_is_better"], bool):
        raise refusal("smaller_is_better", f"true or false is expected, not {found['smaller_is_better']!r}")
    for key in ("time_metric", "source_checkpoint_uuid"):
        if key in found and not isinstance(found[key], str):
            raise refusal(key, f"a text is expected, not {found[key]!r}")


def _check_rungs(found: Mapping[str, Any]) -> None:
    for key in ("max_time", "time_metric"):
        if found.get(key) is None:
            raise refusal(key, f"is required for searcher {found['name']!r} (with the other one of max_time and time_metric)")
    divisor = found["divisor"]
    if isinstance(divisor, bool) or not isinstance(divisor, int | float) or divisor <= 1:
        raise refusal("divisor", f"a number greater than 1 is expected, not {divisor!r}")
    if found["name"] == "async_halving":
        if found.get("num_rungs") is None:
            raise refusal("num_rungs", "is required for searcher 'async_halving'")
        return
    if found["mode"] not in searchers.MODES:
        raise refusal("mode", f"{found['mode']!r} is none of {', '.join(searchers.MODES)}")
    wanted = found["bracket_rungs"]
    if not isinstance(wanted, list) or not all(isinstance(count, int) and not isinstance(count, bool) and count > 0 for count in wanted):
        raise refusal("bracket_rungs", f"a list of positive whole numbers is expected, not {wanted!r}")
