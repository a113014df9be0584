"""What a trial's metrics come to: for each group and metric count, sum, mean, least, greatest and last value."""

from __future__ import annotations

import json
import math
import sqlite3
from typing import Any

Connection = sqlite3.Connection
GROUPS = {"training": "avg_metrics", "validation": "validation_metrics"}  # others keep their names
KINDS = {"integer": "number", "real": "number", "text": "string", "true": "boolean", "false": "boolean"}  # as SQLite → as the engine
NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}  # as clients send what JSON has no numbers for
VALUES = (
    "WITH v AS (SELECT m.grp, m.steps, j.key, j.type, j.value, j.type = 'text' AND j.value IN ('NaN', 'Infinity', '-Infinity') AS odd "
    "FROM metric m, json_each(m.metrics) j WHERE m.trial = ?) "
)
NUMBERS = (
    VALUES + "SELECT grp, key, count(*) AS count, total(value) AS sum, min(CASE WHEN odd THEN NULL ELSE value END) AS least, "
    "max(CASE WHEN odd THEN NULL ELSE value END) AS greatest, group_concat(DISTINCT CASE WHEN odd THEN value END) AS odds "
    "FROM v WHERE odd OR type IN ('integer', 'real') GROUP BY grp, key"
)
LAST = VALUES + "SELECT grp, key, type, odd, value, max(steps) FROM v GROUP BY grp, key"


def summary(db: Connection, trial: int) -> dict[str, dict[str, Any]]:
    """By group and metric, in the engine's names."""
    found: dict[str, dict[str, Any]] = {}
    for row in db.execute(LAST, (trial,)).fetchall():
        kind = "number" if row["odd"] else KINDS.get(row["type"], row["type"])
        entry = {"type": kind, "last": _plain(row["type"], row["value"])}
        found.setdefault(GROUPS.get(row["grp"], row["grp"]), {})[row["key"]] = entry
    for row in db.execute(NUMBERS, (trial,)).fetchall():
        entry = found[GROUPS.get(row["grp"], row["grp"])][row["key"]]
        if entry["type"] == "number":
            entry.update(_numbers(row))
    return found


def _numbers(row: sqlite3.Row) -> dict[str, Any]:
    odd = [NOT_FINITE[name] for name in (row["odds"] or "").split(",") if name]
    values = [value for value in (row["least"], row["greatest"]) if value is not None] + odd
    sum_ = row["sum"] + sum(odd)
    if any(map(math.isnan, values)):
        least = greatest = math.nan
    else:
        least, greatest = min(values), max(values)
    made = {"sum": sum_, "mean": sum_ / row["count"], "min": least, "max": greatest}
    return {"count": row["count"], **{key: _number(value) for key, value in made.items()}}


def _number(value: float) -> float | str:
    if math.isnan(value):
        return "NaN"
    return value if math.isfinite(value) else ("Infinity" if value > 0 else "-Infinity")


def _plain(kind: str, value: Any) -> Any:
    if kind in ("object", "array"):
        return json.loads(value)
    return bool(value) if kind in ("true", "false") else value
