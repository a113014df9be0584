"""Making branches and moving them."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping, Sequence
from typing import Any

from pdk.local.pachyderm.rules import commits, repos, schedules, triggers
from pdk.local.pachyderm.rules.model import Branch, BranchRef, CommitRef, Refused

Connection = sqlite3.Connection


def create(
    db: Connection,
    ref: BranchRef,
    head: CommitRef | None = None,
    sources: Sequence[BranchRef] = (),
    trigger: Mapping[str, Any] | None = None,
) -> Branch:
    """Make a branch, or change one: where it points, what it is computed from, what it follows. What is computed from it follows.

    A branch that is made without a head gets an empty commit, as the engine does it.

    Raises:
        Refused: what is asked for makes no sense, in the engine's words.
    """
    if trigger is not None:
        if sources:
            raise Refused("a branch cannot have both provenance and a trigger")
        triggers.check(db, ref, trigger)
    branch = bare(db, ref)
    before = branch.head
    target = commits.resolve(db, head) if head and (head.id or head.branch) else None
    if target is not None and target.repo != ref.repo:
        raise Refused(f"branch {ref} cannot point to a commit of another repo ({target.ref})")
    former = {source.pk for source in repos.upstream(db, branch.pk)}
    if sources:
        for source in sources:
            if source.repo == ref.repo:
                raise Refused(f"repo {ref.repo} cannot be in the provenance of its own branch")
        repos.set_provenance(db, branch, [ensure(db, source) for source in sources])
    elif former:
        repos.set_provenance(db, branch, [])
    if trigger is not None:
        db.execute("UPDATE branch SET trigger_spec = ? WHERE pk = ?", (json.dumps(trigger), branch.pk))
    if target is not None:
        db.execute("UPDATE branch SET head = ? WHERE pk = ?", (target.pk, branch.pk))
    branch = repos.branch(db, ref)
    now = {source.pk for source in repos.upstream(db, branch.pk)}
    if now and now != former:
        commits.check_structure(db, branch)
        commits.propagate(db, branch, commits.open_output(db, branch, commits.new_id()).id)
    elif branch.head is None:
        commits.make_empty(db, branch, commits.new_id())
        commits.propagate(db, branch, commits.by_pk(db, repos.branch(db, ref).head or 0).id)
    elif branch.head != before:
        commits.propagate(db, branch, commits.new_id())
    return repos.branch(db, ref)


def bare(db: Connection, ref: BranchRef) -> Branch:
    """Return the branch; made, without a head, when missing."""
    return repos.find_branch(db, ref) or repos.insert_branch(db, ref)


def ensure(db: Connection, ref: BranchRef) -> Branch:
    """Return the branch; made, with an empty commit, when missing."""
    branch = bare(db, ref)
    if branch.head is None:
        commits.make_empty(db, branch, commits.new_id())
    return repos.branch(db, ref)


def next_ticks(db: Connection) -> dict[int, float]:
    """Of every branch that moves by the clock (``cron_spec``), the unix time of its next move."""
    found: dict[int, float] = {}
    for row in db.execute("SELECT pk, trigger_spec, head, created FROM branch WHERE trigger_spec IS NOT NULL").fetchall():
        if spec := json.loads(row["trigger_spec"]).get("cron_spec"):
            head = db.execute("SELECT finishing FROM commits WHERE pk = ?", (row["head"],)).fetchone()
            tick = schedules.parse(spec)(max(row["created"], (head and head[0]) or 0.0))
            if tick is not None:
                found[row["pk"]] = tick
    return found


def tick(db: Connection, pk: int) -> None:
    """Move a branch by the clock to where the branch that it follows is."""
    branch = repos.branch_by_pk(db, pk)
    followed = repos.find_branch(db, BranchRef(branch.repo, (branch.trigger or {}).get("branch", "")))
    if followed is None or followed.head is None or followed.head == branch.head:
        db.execute("UPDATE branch SET created = ? WHERE pk = ?", (time.time(), pk))  # nothing to do until the next tick
        return
    db.execute("UPDATE branch SET head = ? WHERE pk = ?", (followed.head, pk))
    commits.propagate(db, repos.branch_by_pk(db, pk), commits.new_id())
