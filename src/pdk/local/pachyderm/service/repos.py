"""Projects, repos and branches. Every function works inside the caller's transaction."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable

from pdk.errors import Conflict, NotFound
from pdk.local.pachyderm.service.model import COMMIT_ID, USER, Branch, BranchRef, RepoRef, check_name, check_project_name

Connection = sqlite3.Connection
DEFAULT_PROJECT = "default"


def create_project(db: Connection, name: str, description: str, *, update: bool) -> None:
    """Make a project, or with `update` change its description."""
    check_project_name(name)
    exists = db.execute("SELECT 1 FROM project WHERE name = ?", (name,)).fetchone()
    if exists and not update:
        raise Conflict(f'project "{name}" already exists')
    if exists:
        db.execute("UPDATE project SET description = ? WHERE name = ?", (description, name))
    else:
        db.execute("INSERT INTO project VALUES (?, ?, ?)", (name, description, time.time()))


def project(db: Connection, name: str) -> sqlite3.Row:
    """The project's row."""
    row: sqlite3.Row | None = db.execute("SELECT * FROM project WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise NotFound(f'project "{name}" not found')
    return row


def delete_project(db: Connection, name: str, *, force: bool) -> None:
    """Remove an empty project; with `force` its repos go too."""
    project(db, name)
    if db.execute("SELECT 1 FROM pipeline WHERE project = ?", (name,)).fetchone():
        raise Conflict(f"project {name!r} still has pipelines, so it cannot be deleted; delete them first")
    for row in db.execute("SELECT name, type FROM repo WHERE project = ?", (name,)).fetchall():
        if not force:
            raise Conflict(f"project {name!r} still has repos, so it cannot be deleted; delete them first, or use --force")
        delete_repo(db, RepoRef(name, *row))
    db.execute("DELETE FROM project WHERE name = ?", (name,))


def repo_pk(db: Connection, ref: RepoRef) -> int:
    """The repo's key.

    Raises:
        NotFound: in the engine's words.
    """
    row = db.execute("SELECT pk FROM repo WHERE project = ? AND name = ? AND type = ?", (ref.project, ref.name, ref.type)).fetchone()
    if row is None:
        raise NotFound(f"repo {ref} not found")
    return int(row[0])


def repo_by_pk(db: Connection, pk: int) -> RepoRef:
    """The name of a repo."""
    return RepoRef(*db.execute("SELECT project, name, type FROM repo WHERE pk = ?", (pk,)).fetchone())


def create_repo(db: Connection, ref: RepoRef, description: str = "", *, update: bool = False) -> None:
    """Make a repo, or with `update` change its description."""
    check_name("repo", ref.name)
    project(db, ref.project)
    try:
        pk = repo_pk(db, ref)
    except NotFound:
        db.execute(
            "INSERT INTO repo (project, name, type, description, created) VALUES (?, ?, ?, ?, ?)",
            (ref.project, ref.name, ref.type, description, time.time()),
        )
        return
    if not update:
        raise Conflict(f"repo {ref} already exists")
    db.execute("UPDATE repo SET description = ? WHERE pk = ?", (description, pk))


def list_repos(db: Connection, projects: Iterable[str], type_: str) -> list[sqlite3.Row]:
    """Repos of the given projects (of all where none is given), newest first."""
    wanted = set(projects)
    sql = "SELECT * FROM repo WHERE (?1 = '' OR type = ?1) ORDER BY created DESC, pk DESC"
    return [row for row in db.execute(sql, (type_,)) if not wanted or row["project"] in wanted]


def delete_repo(db: Connection, ref: RepoRef) -> bool:
    """Remove a repo with its branches and commits; False where there was none.

    Raises:
        Conflict: another branch is computed from this repo.
    """
    try:
        pk = repo_pk(db, ref)
    except NotFound:
        return False
    downstream = db.execute(
        "SELECT r.project, r.name FROM branch_provenance p JOIN branch u ON p.upstream = u.pk JOIN branch b ON p.branch = b.pk "
        "JOIN repo r ON b.repo = r.pk WHERE u.repo = ? AND b.repo != ?",
        (pk, pk),
    ).fetchone()
    if downstream:
        raise Conflict(f"repo {ref} cannot be deleted: {downstream[0]}/{downstream[1]} is computed from it; delete that pipeline first")
    if ref.type == USER and db.execute("SELECT 1 FROM pipeline WHERE project = ? AND name = ?", (ref.project, ref.name)).fetchone():
        raise Conflict(f"repo {ref} is the output of a pipeline; delete the pipeline instead")
    db.execute("DELETE FROM commit_provenance WHERE commit_pk IN (SELECT pk FROM commits WHERE repo = ?)", (pk,))
    db.execute("DELETE FROM commit_provenance WHERE upstream IN (SELECT pk FROM commits WHERE repo = ?)", (pk,))
    db.execute("DELETE FROM branch_provenance WHERE branch IN (SELECT pk FROM branch WHERE repo = ?)", (pk,))
    db.execute("UPDATE branch SET head = NULL WHERE repo = ?", (pk,))
    db.execute("UPDATE commits SET parent = NULL WHERE repo = ?", (pk,))
    db.execute("DELETE FROM file WHERE lineage IN (SELECT lineage FROM commits WHERE repo = ?)", (pk,))
    db.execute("DELETE FROM repo WHERE pk = ?", (pk,))
    return True


def _branch(db: Connection, row: sqlite3.Row) -> Branch:
    return Branch(row["pk"], repo_by_pk(db, row["repo"]), row["name"], row["head"], row["created"])


def find_branch(db: Connection, ref: BranchRef) -> Branch | None:
    """The branch, or None; the repo must exist."""
    row = db.execute("SELECT * FROM branch WHERE repo = ? AND name = ?", (repo_pk(db, ref.repo), ref.name)).fetchone()
    return _branch(db, row) if row else None


def branch(db: Connection, ref: BranchRef) -> Branch:
    """The branch.

    Raises:
        NotFound: in the engine's words.
    """
    found = find_branch(db, ref)
    if found is None:
        raise NotFound(f'branch "{ref.name}" not found in repo {ref.repo}')
    return found


def branch_by_pk(db: Connection, pk: int) -> Branch:
    """A branch by its key."""
    return _branch(db, db.execute("SELECT * FROM branch WHERE pk = ?", (pk,)).fetchone())


def list_branches(db: Connection, ref: RepoRef) -> list[Branch]:
    """All branches of a repo, newest first."""
    rows = db.execute("SELECT * FROM branch WHERE repo = ? ORDER BY created DESC, pk DESC", (repo_pk(db, ref),)).fetchall()
    return [_branch(db, row) for row in rows]


def insert_branch(db: Connection, ref: BranchRef) -> Branch:
    """A new branch without a head."""
    check_name("branch", ref.name)
    if COMMIT_ID.fullmatch(ref.name):
        raise Conflict(f"branch name {ref.name!r} looks like a commit ID; choose another one")
    db.execute("INSERT INTO branch (repo, name, created) VALUES (?, ?, ?)", (repo_pk(db, ref.repo), ref.name, time.time()))
    return branch(db, ref)


def upstream(db: Connection, pk: int) -> list[Branch]:
    """The branches that branch `pk` is directly computed from."""
    rows = db.execute("SELECT upstream FROM branch_provenance WHERE branch = ? ORDER BY upstream", (pk,)).fetchall()
    return [branch_by_pk(db, row[0]) for row in rows]


def downstream(db: Connection, pk: int) -> list[Branch]:
    """The branches directly computed from branch `pk`."""
    rows = db.execute("SELECT branch FROM branch_provenance WHERE upstream = ? ORDER BY branch", (pk,)).fetchall()
    return [branch_by_pk(db, row[0]) for row in rows]


def set_provenance(db: Connection, target: Branch, sources: Iterable[Branch]) -> None:
    """Make `target` computed from `sources`.

    Raises:
        Conflict: that would close a circle.
    """
    db.execute("DELETE FROM branch_provenance WHERE branch = ?", (target.pk,))
    for source in sources:
        seen, open_ = set(), [source.pk]
        while open_:
            pk = open_.pop()
            if pk == target.pk:
                raise Conflict(f"{target.ref} cannot be computed from {source.ref}: {source.ref} is itself computed from it (a circle)")
            if pk not in seen:
                seen.add(pk)
                open_ += [found.pk for found in upstream(db, pk)]
        db.execute("INSERT OR IGNORE INTO branch_provenance VALUES (?, ?)", (target.pk, source.pk))


def delete_branch(db: Connection, ref: BranchRef, *, force: bool) -> None:
    """Remove a branch; its commits stay.

    Raises:
        Conflict: other branches are computed from it.
    """
    found = branch(db, ref)
    below = downstream(db, found.pk)
    if below and not force:
        raise Conflict(f"branch {ref} cannot be deleted: {below[0].ref} is computed from it; delete that first, or use --force")
    db.execute("DELETE FROM branch_provenance WHERE upstream = ?1 OR branch = ?1", (found.pk,))
    db.execute("DELETE FROM branch WHERE pk = ?", (found.pk,))
