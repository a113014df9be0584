"""Which checkpoints are kept: an experiment's best, each trial's best and latest, and whatever a model version or a trial starts from.

A checkpoint that goes is marked in the transaction that decides it; its files are removed after it (`Sweeper`), if need be after the next
start.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from pdk.errors import UserError
from pdk.local.determined.rules import searchers, sections
from pdk.local.determined.rules.fields import WHOLE, Field, check, complete
from pdk.local.determined.rules.forms import Form, Number, given

Connection = sqlite3.Connection
FIELDS = {
    "save_experiment_best": Field(WHOLE, 0, low=0),
    "save_trial_best": Field(WHOLE, 1, low=0),
    "save_trial_latest": Field(WHOLE, 1, low=0),
}
DELETED, PARTIALLY_DELETED = "STATE_DELETED", "STATE_PARTIALLY_DELETED"


class Policy(Form, frozen=True):
    """How many checkpoints of each kind are to be kept; None leaves a number alone."""

    save_experiment_best: Number | None = None
    save_trial_best: Number | None = None
    save_trial_latest: Number | None = None


def policy(storage: Mapping[str, Any]) -> dict[str, int]:
    """Return how many of each kind a ``checkpoint_storage`` section keeps.

    Raises:
        UserError: a number that is none.
    """
    found = {key: storage[key] for key in FIELDS if key in storage}
    check("checkpoint_storage", found, FIELDS)
    return complete(found, FIELDS)


def apply(db: Connection, experiment: int) -> None:
    """Mark what an experiment's policy does not keep."""
    config = sections.config(_content(db, experiment))
    _mark(db, unwanted(db, experiment, config.searcher, config.checkpoint_storage))


def unwanted(db: Connection, experiment: int, searcher: sections.Searcher, keep: sections.Storage) -> list[str]:
    """Return the checkpoints that a policy does not keep."""
    sign = 1 if searcher.smaller_is_better else -1
    rows = db.execute(
        "SELECT c.uuid, c.trial, c.steps, m.metrics FROM checkpoint c JOIN trial t ON c.trial = t.id "
        "LEFT JOIN metric m ON m.trial = c.trial AND m.grp = 'validation' AND m.steps = c.steps "
        f"WHERE t.experiment = ? AND c.state != '{DELETED}' ORDER BY c.reported",
        (experiment,),
    ).fetchall()
    best: list[tuple[float, str]] = []
    of_trial: dict[int, list[tuple[float, str]]] = defaultdict(list)
    latest: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for row in rows:
        latest[row["trial"]].append((-row["steps"], row["uuid"]))
        value = searchers.number_of(json.loads(row["metrics"] or "{}"), searcher.metric)
        if value is not None:
            best.append((sign * value, row["uuid"]))
            of_trial[row["trial"]].append((sign * value, row["uuid"]))
    kept = {uuid for _, uuid in sorted(best)[: keep.save_experiment_best]}
    for ranked, count in ((of_trial, keep.save_trial_best), (latest, keep.save_trial_latest)):
        kept.update(uuid for pairs in ranked.values() for _, uuid in sorted(pairs)[:count])
    kept |= _in_use(db)
    return [row["uuid"] for row in rows if row["uuid"] not in kept]


def delete(db: Connection, uuids: Iterable[str]) -> None:
    """Mark checkpoints as deleted because a user says so.

    Raises:
        UserError: a model version has one of them.
    """
    wanted = list(uuids)
    check_unregistered(db, wanted)
    _mark(db, wanted)


def check_unregistered(db: Connection, uuids: Iterable[str]) -> None:
    """Refuse to take away what model versions stand on.

    Raises:
        UserError: a version has one of them.
    """
    registered = {row[0] for row in db.execute("SELECT checkpoint FROM version").fetchall()}
    if used := sorted(registered.intersection(uuids)):
        raise UserError(
            f"these checkpoints are in the model registry and cannot be deleted: {', '.join(used)}; delete their versions first"
        )


def unswept(db: Connection) -> dict[int, list[str]]:
    """Return the checkpoints whose files can go, by experiment."""
    found: dict[int, list[str]] = defaultdict(list)
    sql = f"SELECT t.experiment, c.uuid FROM checkpoint c JOIN trial t ON c.trial = t.id WHERE c.state = '{DELETED}' AND c.swept = 0"
    for experiment, uuid in db.execute(sql).fetchall():
        found[experiment].append(uuid)
    return found


def reduce(db: Connection, left: Mapping[str, Mapping[str, int]]) -> None:
    """Record what is left of checkpoints (bytes by path) after files were removed."""
    for uuid, resources in left.items():
        before = json.loads(db.execute("SELECT resources FROM checkpoint WHERE uuid = ?", (uuid,)).fetchone()[0])
        if resources and before.keys() <= resources.keys():
            continue  # nothing matched
        state = PARTIALLY_DELETED if resources else DELETED
        sql = "UPDATE checkpoint SET state = ?, swept = ?, resources = ? WHERE uuid = ?"
        db.execute(sql, (state, not resources, json.dumps(resources), uuid))


def change(db: Connection, experiment: int, wanted: Policy) -> None:
    """Give an experiment another policy, which is applied at once."""
    content = _content(db, experiment)
    content["checkpoint_storage"].update(policy({**content["checkpoint_storage"], **given(wanted)}))
    db.execute("UPDATE experiment SET config = ? WHERE id = ?", (json.dumps(content), experiment))
    apply(db, experiment)


def _content(db: Connection, experiment: int) -> dict[str, Any]:
    return dict(json.loads(db.execute("SELECT config FROM experiment WHERE id = ?", (experiment,)).fetchone()[0]))


def _in_use(db: Connection) -> set[str]:
    """Return what a version or an unfinished trial needs."""
    rows = db.execute("SELECT checkpoint FROM version UNION SELECT warm_start FROM trial WHERE warm_start IS NOT NULL").fetchall()
    return {row[0] for row in rows}


def _mark(db: Connection, uuids: Iterable[str]) -> None:
    db.executemany("UPDATE checkpoint SET state = ? WHERE uuid = ?", [(DELETED, uuid) for uuid in uuids])
