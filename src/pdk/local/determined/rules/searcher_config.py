"""The searcher section of a config: checked, completed with the engine's defaults, older forms translated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pdk.local.determined.rules import hyperparameters
from pdk.local.determined.rules.fields import WHOLE, Field, check, refusal
from pdk.local.determined.rules.fields import complete as fill
from pdk.local.determined.rules.searchers import SEARCHERS
from pdk.local.determined.rules.searchers.base import COMMON

UNITS = ("batches", "epochs", "records")
ALIASES = {"asha": "async_halving", "adaptive_simple": "adaptive_asha", "adaptive": "adaptive_asha", "sync_halving": "async_halving"}
DROPPED = {"budget", "train_stragglers", "stop_once"}  # of searchers that are no more


def complete(given: Mapping[str, Any], hparams: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """Return a searcher section with all its fields; what was changed is added to `notes`.

    Raises:
        UserError: naming the field and the reason.
    """
    found = {key: value for key, value in given.items() if value is not None}
    name = found.get("name")
    COMMON["name"].check("searcher.name", name)
    if name in ALIASES:
        found["name"] = ALIASES[name]
        notes.append(f"searcher.name: {name!r} was read as {found['name']!r}")
    if found.get("name") not in SEARCHERS:
        raise refusal("searcher.name", f"{name!r} is none of {', '.join(sorted(SEARCHERS))}")
    kind = SEARCHERS[found["name"]]
    for key in sorted(DROPPED & found.keys()):
        del found[key]
        notes.append(f"searcher.{key} was left out: Determined 0.38 stops trials as they report, and has no such setting")
    _length(found, notes)
    check("searcher", found, kind.fields, required=("metric", *kind.required))
    if found.keys() >= {"source_checkpoint_uuid", "source_trial_id"}:
        raise refusal("searcher.source_trial_id", "cannot be given together with source_checkpoint_uuid")
    for count in found.get("bracket_rungs", ()):
        Field(WHOLE, low=1).check("searcher.bracket_rungs", count)
    hyperparameters.check(hparams, grid=kind.lays_out)
    if kind.lays_out and (size := hyperparameters.grid_size(hparams)) > hyperparameters.GRID_LIMIT:
        limit = hyperparameters.GRID_LIMIT
        raise refusal("searcher.name", f"the grid has {size:,} points, more than {limit:,}; give the axes smaller counts")
    content = fill(found, kind.fields)
    return {key: value for key, value in content.items() if key not in ("max_length", "unit") or value is not None}


def _length(found: dict[str, Any], notes: list[str]) -> None:
    """Older configs say how long a trial trains; searchers with rungs had their lengths from it."""
    length = found.get("max_length")
    if length is None:
        return
    unit = found.pop("unit", None)
    if isinstance(length, int) and not isinstance(length, bool):
        unit = unit or "batches"
        if unit not in UNITS:
            raise refusal("searcher.unit", f"{unit!r} is none of {', '.join(UNITS)}")
        notes.append(f"searcher.max_length: {length} was read as {length} {unit}")
        found["max_length"] = length = {unit: length}
    if not isinstance(length, dict) or len(length) != 1 or next(iter(length)) not in UNITS:
        raise refusal("searcher.max_length", f"one of {', '.join(UNITS)} with a number is expected, not {length!r}")
    unit, value = next(iter(length.items()))
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise refusal("searcher.max_length", f"a positive whole number is expected, not {value!r}")
    if "max_time" in SEARCHERS[found["name"]].fields and "max_time" not in found and "time_metric" not in found:
        found["max_time"], found["time_metric"] = value, unit
        notes.append(f"searcher.max_length was read as max_time: {value}, time_metric: {unit}")
    notes.append("searcher.max_length is deprecated by Determined 0.38: it still works; new code sets max_length in Trainer.fit")
