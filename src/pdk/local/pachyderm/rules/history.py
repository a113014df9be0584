"""Taking commits out of history, and searching it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from pdk.local.pachyderm.rules import commits, repos
from pdk.local.pachyderm.rules.model import SPEC, Commit, Refused, clean_path
from pdk.local.pachyderm.store import tree

Connection = sqlite3.Connection


def depending_sets(db: Connection, id_: str) -> list[str]:
    """Global IDs of commits that were computed from commits with this ID, directly or not, and have another ID."""
    found: set[str] = set()
    pending = [id_]
    while pending:
        rows = db.execute(
            "SELECT DISTINCT d.id FROM commits c JOIN commit_provenance p ON p.upstream = c.pk JOIN commits d ON d.pk = p.commit_pk "
            "WHERE c.id = ?",
            (pending.pop(),),
        ).fetchall()
        new = {row[0] for row in rows} - found - {id_}
        found |= new
        pending += new
    return sorted(found)


def _removable(db: Connection, id_: str) -> list[Commit]:
    if dependent := depending_sets(db, id_):
        spelled = ", ".join(f'id:"{name}"' for name in dependent)
        raise Refused(f'commit set "id:\\"{id_}\\"" cannot be dropped because it has subvenant commit sets: [{spelled}]')
    found = commits.in_set(db, id_)
    for commit in found:
        if commit.repo.type == SPEC and commit.origin == "USER":
            raise Refused(f"cannot squash commit {commit.ref} because it updated a pipeline")
    return found


def _squash(db: Connection, found: list[Commit]) -> None:
    """Remove commits, given causes first, that all have children."""
    for commit in found:
        if not commits.children(db, commit.pk):
            raise Refused(
                f"cannot squash a commit that has no children as that would cause data loss, use the drop operation instead: {commit.ref}"
            )
    _remove(db, found)


def _drop(db: Connection, found: list[Commit]) -> None:
    """Remove commits, given causes first, of which none has children."""
    for commit in found:
        if commits.children(db, commit.pk):
            raise Refused(f"cannot drop a commit that has children: {commit.ref}")
    _remove(db, found)


def squash(db: Connection, id_: str) -> None:
    """Take the commits with a global ID out of history; what they changed lives on in their children.

    Raises:
        Refused: something without children would be lost, or was computed from them; in the engine's words.
    """
    _squash(db, _removable(db, id_))


def drop(db: Connection, id_: str) -> None:
    """Take the newest commits, those with a global ID, away with all that they changed.

    Raises:
        Refused: one of them has children, or something was computed from them; in the engine's words.
    """
    _drop(db, _removable(db, id_))


def below(db: Connection, commit: Commit) -> list[Commit]:
    """Return the commit and everything that was computed from it, causes first."""
    found, pending = {commit.pk: commit}, [commit.pk]
    while pending:
        for other in commits.subvenance(db, pending.pop()):
            if other.pk not in found:
                found[other.pk] = other
                pending.append(other.pk)
    return [found[pk] for pk in sorted(found)]


def _taken_out(db: Connection, commit: Commit, what: str, *, recursive: bool) -> list[Commit]:
    found = below(db, commit)
    if len(found) > 1 and not recursive:
        raise Refused(f"cannot {what} commit ({commit.ref}) with subvenance without recursive")
    return found


def squash_one(db: Connection, commit: Commit, *, recursive: bool) -> None:
    """Like `squash`, for one commit and (with `recursive`) what was computed from it."""
    _squash(db, _taken_out(db, commit, "squash", recursive=recursive))


def drop_one(db: Connection, commit: Commit, *, recursive: bool) -> None:
    """Like `drop`, for one commit and (with `recursive`) what was computed from it."""
    _drop(db, _taken_out(db, commit, "drop", recursive=recursive))


def _remove(db: Connection, found: list[Commit]) -> None:
    """Remove commits, given causes first, from the last one on."""
    for commit in reversed(found):
        _remove_one(db, commit)


def _remove_one(db: Connection, commit: Commit) -> None:
    for child in commits.children(db, commit.pk):
        if child.finished is None:
            raise Refused(f"cannot squash until child commit {child.ref} is finished")
    db.execute("UPDATE commits SET parent = ? WHERE parent = ?", (commit.parent, commit.pk))
    headless = [branch for branch in repos.list_branches(db, commit.repo) if branch.head == commit.pk]
    db.execute("UPDATE branch SET head = ? WHERE head = ?", (commit.parent, commit.pk))
    db.execute("DELETE FROM commit_provenance WHERE commit_pk = ?1 OR upstream = ?1", (commit.pk,))
    db.execute("DELETE FROM commits WHERE pk = ?", (commit.pk,))
    commits.forget_tip(db, commit)
    if commit.parent is None and headless:
        first, *others = headless
        commits.make_empty(db, first, commits.new_id())
        for other in others:
            db.execute("UPDATE branch SET head = ? WHERE pk = ?", (repos.branch_by_pk(db, first.pk).head, other.pk))


def touching(db: Connection, start: Commit, path: str) -> Iterator[tuple[Commit, bool]]:
    """`start` and its ancestors, newest first, each with whether it changed what is at `path`."""
    spelled = clean_path(path)
    for commit in commits.ancestors(db, start):
        before = commits.view(db, commits.by_pk(db, commit.parent)) if commit.parent is not None else tree.View(())
        now = commits.view(db, commit)
        yield commit, any(tree.get(db, before, form) != tree.get(db, now, form) for form in (spelled, spelled.rstrip("/") + "/"))
