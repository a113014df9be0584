"""An experiment that has ended goes on: what did not complete is run again from its last checkpoint."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping
from typing import Any

from pdk.errors import UserError, WrongState
from pdk.local.determined.rules import experiments, retention, search, searchers
from pdk.local.determined.rules.config import merge
from pdk.local.determined.rules.sections import Config

Connection = sqlite3.Connection
FORBIDDEN = ("project", "workspace")
KEPT = ("checkpoint_storage", "bind_mounts")  # but for how many checkpoints are kept


def go_on(db: Connection, id_: int, override: Mapping[str, Any], fill: Callable[[Mapping[str, Any]], Config]) -> experiments.Experiment:
    """Open an ended experiment again.

    Args:
        override: settings for a single trial to go on with.
        fill: checks and completes a config.

    Raises:
        UserError: its searcher cannot go on, or not with that.
        WrongState: it has not ended, or nothing is left to do.
    """
    found = experiments.get(db, id_)
    name = found.config.searcher.name
    kind = searchers.kind_of(name)
    if not issubclass(kind, searchers.Counted):
        raise UserError(f"experiment {id_}: a search with {name!r} cannot be continued; fork it to search anew")
    if not kind.one_trial and override:
        raise UserError(f"experiment {id_}: only a searcher 'single' can be continued with another config, not {name!r}")
    for key in FORBIDDEN:
        if override.get(key):
            raise UserError(f"{key} cannot be changed when an experiment is continued; move it first (det experiment move)")
    for key in KEPT:
        if set(override.get(key) or ()) - set(retention.FIELDS):
            raise UserError(f"{key} cannot be changed when an experiment is continued: its checkpoints are where it says")
    config = fill(merge(found.config.content, override)) if override else found.config
    if config.searcher.name != name:
        raise UserError(f"experiment {id_}: it must keep its searcher {name!r}, not become {config.searcher.name!r}")
    if found.state not in experiments.TERMINAL:
        raise WrongState(f"experiment {id_} is in the non terminal state {found.state}; wait for its end, or kill it")
    again = [trial for trial in experiments.trials(db, id_) if kind.one_trial or trial.state != "COMPLETED"]
    if found.state == "COMPLETED" and not again:
        raise WrongState(f"experiment {id_} is COMPLETED with all its trials; there is nothing to continue")
    sql = "UPDATE experiment SET state = 'ACTIVE', ended = NULL, progress = 0, config = ? WHERE id = ?"
    db.execute(sql, (json.dumps(config.content), id_))
    for trial in again:
        db.execute(
            "UPDATE trial SET state = 'ACTIVE', ended = NULL, restarts = 0, acknowledged = 0, early_exit = '', stopped = 0, preempted = 0, "
            "progress = 0, reason = '' WHERE id = ?",
            (trial.id,),
        )
    search.reopen(db, id_, [trial.number for trial in again])
    return experiments.get(db, id_)
