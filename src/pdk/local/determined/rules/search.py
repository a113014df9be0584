"""A search on record: its searcher's decisions made true in the database."""

from __future__ import annotations

import json
import sqlite3
import time
import uuid
from collections.abc import Mapping
from typing import Any

from pdk.errors import UserError
from pdk.local.determined.rules import sections
from pdk.local.determined.rules.searchers import Action, Counted, Create, Searcher, draws, make

Connection = sqlite3.Connection


def begin(db: Connection, experiment: int) -> None:
    """Make an experiment's first trials."""
    searcher = _load(db, experiment)
    _carry_out(db, experiment, searcher, searcher.begin())


def reopen(db: Connection, experiment: int, numbers: list[int]) -> None:
    """Trials that had ended are to run again, the only one of its search with what its config says now."""
    searcher = _load(db, experiment)
    assert isinstance(searcher, Counted), searcher.name  # `continuation` asks for no other
    _carry_out(db, experiment, searcher, searcher.reopen(numbers))
    if searcher.one_trial:
        hparams = next(draws(searcher.hparams, searcher.seed, sampled=True)).hparams
        db.execute("UPDATE trial SET hparams = ? WHERE experiment = ?", (json.dumps(hparams), experiment))


def validated(db: Connection, trial: int, metrics: Mapping[str, Any]) -> None:
    """A trial reported validation metrics: it may be stopped, and another one made. Without what the searcher needs, the search fails."""
    row = db.execute("SELECT experiment, number, stopped FROM trial WHERE id = ?", (trial,)).fetchone()
    if row["stopped"]:
        return  # it saves itself and ends; nothing more is decided about it
    searcher = _load(db, row["experiment"])
    try:
        actions = searcher.validated(row["number"], metrics)
    except UserError as error:
        db.execute("UPDATE trial SET reason = ? WHERE id = ?", (str(error), trial))
        sql = "UPDATE experiment SET state = 'STOPPING_ERROR' WHERE id = ? AND state IN ('ACTIVE', 'PAUSED')"
        db.execute(sql, (row["experiment"],))
        return
    _carry_out(db, row["experiment"], searcher, actions)


def exited(db: Connection, experiment: int, number: int, early: str) -> str:
    """A trial has ended for good; the state that this puts its experiment into, empty while the search goes on."""
    searcher = _load(db, experiment)
    _carry_out(db, experiment, searcher, searcher.exited(number, early))
    return searcher.verdict


def set_progress(db: Connection, trial: int, progress: float) -> None:
    """A trial says how far it is, from 0 to 1."""
    db.execute("UPDATE trial SET progress = ? WHERE id = ?", (min(max(progress, 0.0), 1.0), trial))
    experiment = db.execute("SELECT experiment FROM trial WHERE id = ?", (trial,)).fetchone()[0]
    trained = dict(db.execute("SELECT number, progress FROM trial WHERE experiment = ?", (experiment,)).fetchall())
    db.execute("UPDATE experiment SET progress = ? WHERE id = ?", (_load(db, experiment).progress(trained), experiment))


def _load(db: Connection, experiment: int) -> Searcher:
    row = db.execute("SELECT config, search FROM experiment WHERE id = ?", (experiment,)).fetchone()
    config, state = sections.config(json.loads(row["config"])), json.loads(row["search"]) if row["search"] else None
    return make(config.searcher.content, config.hyperparameters, config.reproducibility.experiment_seed, state)


def _carry_out(db: Connection, experiment: int, searcher: Searcher, actions: list[Action]) -> None:
    row = db.execute("SELECT state, config FROM experiment WHERE id = ?", (experiment,)).fetchone()
    if row["state"] not in ("ACTIVE", "PAUSED"):  # it is being stopped: nothing new
        actions = [action for action in actions if not isinstance(action, Create)]
    warm_start = sections.config(json.loads(row["config"])).searcher.source_checkpoint_uuid
    for action in actions:
        if isinstance(action, Create):
            task = f"{experiment}.{uuid.uuid4()}"
            values = (experiment, row["state"], json.dumps(action.hparams), action.seed, task, warm_start, time.time(), action.number)
            db.execute(
                "INSERT INTO trial (experiment, state, hparams, seed, task, warm_start, started, number) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                values,
            )
        else:
            db.execute("UPDATE trial SET stopped = 1 WHERE experiment = ? AND number = ?", (experiment, action.number))
    db.execute("UPDATE experiment SET search = ? WHERE id = ?", (json.dumps(searcher.state), experiment))
