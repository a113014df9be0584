"""Branches that follow another branch of their repo once enough has come together there.

The conditions are the engine's (2.12.2): data grown by `size`, a number of `commits`, time passed (`rate_limit_spec`, a cron spec); `all`
of those given, or else any. `cron_spec` moves the branch at every tick instead.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Mapping
from typing import Any

from pdk.local.pachyderm.rules import repos, schedules
from pdk.local.pachyderm.rules.model import Branch, BranchRef, Commit, Refused, check_name

Connection = sqlite3.Connection
SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kKmMgGtTpP]?)(?:i?[bB])?")
POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}


def size_bytes(text: str) -> float | None:
    """``10M`` in bytes, in powers of 1000 as the engine reads it; None for what is no size."""
    match = SIZE.fullmatch(text)
    return float(match[1]) * 1000 ** POWERS[match[2].lower()] if match else None


def check(db: Connection, ref: BranchRef, trigger: Mapping[str, Any]) -> None:
    """Raise Refused for a trigger that can never work."""
    if not trigger.get("branch"):
        raise Refused("triggers must specify a branch to trigger on")
    check_name("", trigger["branch"])
    if trigger.get("size") and size_bytes(trigger["size"]) is None:
        raise Refused(f"invalid trigger size: {trigger['size']!r} is no size; write a number of bytes, or 100K, 10M, 2G")
    if int(trigger.get("commits") or 0) < 0:
        raise Refused("can't trigger on a negative number of commits")
    for key in ("rate_limit_spec", "cron_spec"):
        if trigger.get(key):
            schedules.parse(trigger[key])
    followed = {branch.name: branch.trigger for branch in repos.list_branches(db, ref.repo)}
    name: str | None = trigger["branch"]
    while name:
        if name == ref.name:
            raise Refused("triggers cannot form a loop")
        above = followed.get(name)
        name = above["branch"] if above else None


def due(db: Connection, commit: Commit) -> list[Branch]:
    """Return the branches that the newly finished head of a branch moves, nearest first."""
    moved: list[Branch] = []
    branches = repos.list_branches(db, commit.repo)
    pending = [branch.name for branch in branches if branch.head == commit.pk]
    while pending:
        name = pending.pop()
        for branch in branches:
            if branch.trigger and branch.trigger["branch"] == name and branch not in moved and met(db, branch, commit):
                moved.append(branch)
                pending.append(branch.name)
    return moved


def met(db: Connection, branch: Branch, commit: Commit) -> bool:
    """Return whether `branch` should move to `commit`."""
    trigger = branch.trigger or {}
    old = db.execute("SELECT pk, size, finishing FROM commits WHERE pk = ?", (branch.head,)).fetchone()
    conditions: list[bool] = []
    if size := size_bytes(trigger.get("size") or ""):
        conditions.append(commit.size - (old["size"] if old else 0) >= size)
    if trigger.get("rate_limit_spec"):
        following = schedules.parse(trigger["rate_limit_spec"])((old["finishing"] if old else None) or 0.0)
        conditions.append(following is not None and following < (commit.finishing or 0.0))
    if wanted := int(trigger.get("commits") or 0):
        conditions.append(_commits_since(db, commit, old["pk"] if old else None, wanted) >= wanted)
    return (all(conditions) if trigger.get("all") else any(conditions)) and bool(conditions or not trigger.get("cron_spec"))


def _commits_since(db: Connection, commit: Commit, old: int | None, limit: int) -> int:
    """How many commits lie between `old` and `commit`, counted up to `limit`; the empty commits that the server makes do not count."""
    count, pk = 0, commit.pk
    while count < limit and pk is not None and pk != old:
        row = db.execute("SELECT parent, origin FROM commits WHERE pk = ?", (pk,)).fetchone()
        if row["parent"] is None and row["origin"] == "AUTO":
            break
        count, pk = count + 1, row["parent"]
    return count
