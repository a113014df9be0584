"""Projects, repos and branches."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable

from pdk.errors import Conflict, NotFound
from pdk.local.pachyderm.rules.model import (
    COMMIT_ID,
    USER,
    Branch,
    BranchRef,
    Project,
    Refused,
    Repo,
    RepoRef,
    check_name,
    check_project_name,
)

Connection = sqlite3.Connection
DEFAULT_PROJECT = "default"


class StillInUse(Refused):
    """What is to be deleted holds something."""


class Circle(Refused):
    """Branches cannot be computed from each other."""


def create_project(db: Connection, name: str, description: str, *, update: bool) -> None:
    """Make a project, or with `update` change its description."""
    check_project_name(name)
    exists = db.execute("SELECT 1 FROM project WHERE name = ?", (name,)).fetchone()
    if exists and not update:
        raise Conflict(f'project "{name}" already exists\nproject {name} already exists')
    if exists:
        db.execute("UPDATE project SET description = ? WHERE name = ?", (description, name))
    else:
        db.execute("INSERT INTO project VALUES (?, ?, ?)", (name, description, time.time()))


def project(db: Connection, name: str) -> Project:
    """Return a project.

    Raises:
        NotFound: in the engine's words.
    """
    row = db.execute("SELECT name, description, created FROM project WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise NotFound(f'project "{name}" not found')
    return Project(*row)


def list_projects(db: Connection) -> list[Project]:
    """Return all projects, oldest first."""
    return [Project(*row) for row in db.execute("SELECT name, description, created FROM project ORDER BY created, rowid").fetchall()]


def delete_project(db: Connection, name: str, *, force: bool) -> None:
    """Remove an empty project; with `force` its repos go too, but never its pipelines.

    Raises:
        StillInUse: it is not empty.
    """
    project(db, name)
    if db.execute("SELECT 1 FROM pipeline WHERE project = ?", (name,)).fetchone():
        raise StillInUse(f"cannot delete project {name}: it still has pipelines; delete them first")
    held = [RepoRef(name, *row) for row in db.execute("SELECT name, type FROM repo WHERE project = ? ORDER BY name", (name,))]
    if held and not force:
        raise StillInUse(f"cannot delete project {name}: " + "\n".join(f"repo {ref} still exists" for ref in held))
    for ref in held:
        delete_repo(db, ref, force=True)
    db.execute("DELETE FROM project WHERE name = ?", (name,))


def repo_pk(db: Connection, ref: RepoRef) -> int:
    """Return the repo's key.

    Raises:
        NotFound: in the engine's words.
    """
    row = db.execute("SELECT pk FROM repo WHERE project = ? AND name = ? AND type = ?", (ref.project, ref.name, ref.type)).fetchone()
    if row is None:
        raise NotFound(f"repo {ref} not found")
    return int(row[0])


def repo_by_pk(db: Connection, pk: int) -> RepoRef:
    """Return the name of a repo."""
    return RepoRef(*db.execute("SELECT project, name, type FROM repo WHERE pk = ?", (pk,)).fetchone())


def create_repo(db: Connection, ref: RepoRef, description: str = "", *, update: bool = False) -> None:
    """Make a repo, or with `update` change its description."""
    check_name("", ref.name)
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


def _repo(row: sqlite3.Row) -> Repo:
    return Repo(row["pk"], RepoRef(row["project"], row["name"], row["type"]), row["description"], row["created"])


def repo(db: Connection, ref: RepoRef) -> Repo:
    """Return a repo.

    Raises:
        NotFound: in the engine's words.
    """
    return _repo(db.execute("SELECT * FROM repo WHERE pk = ?", (repo_pk(db, ref),)).fetchone())


def list_repos(db: Connection, projects: Iterable[str], type_: str) -> list[Repo]:
    """Return the repos of the given projects (of all where none is given), by name."""
    wanted = set(projects)
    sql = "SELECT * FROM repo WHERE (?1 = '' OR type = ?1) ORDER BY project, name, type"
    return [_repo(row) for row in db.execute(sql, (type_,)) if not wanted or row["project"] in wanted]


def delete_repo(db: Connection, ref: RepoRef, *, force: bool = False) -> bool:
    """Remove a repo with its branches and commits; False where there was none.

    Raises:
        Refused: it is a pipeline's, or (without `force`) another branch is computed from it.
    """
    try:
        pk = repo_pk(db, ref)
    except NotFound:
        return False
    if ref.type == USER and db.execute("SELECT 1 FROM pipeline WHERE project = ? AND name = ?", (ref.project, ref.name)).fetchone():
        raise Refused(
            f'delete repo: error checking whether repo "{ref}" can be deleted: '
            "cannot delete a repo associated with a pipeline - delete the pipeline instead"
        )
    for found in list_branches(db, ref):
        below = [str(other.ref) for other in downstream(db, found.pk) if other.repo != ref]
        if below and not force:
            raise Refused(
                f'delete repo: delete branch {found.ref}: branch "{found.ref}" cannot be deleted because '
                f"it's in the direct provenance of [{' '.join(below)}]"
            )
        db.execute("DELETE FROM branch_provenance WHERE upstream = ?", (found.pk,))
    db.execute("DELETE FROM commit_provenance WHERE commit_pk IN (SELECT pk FROM commits WHERE repo = ?)", (pk,))
    db.execute("DELETE FROM commit_provenance WHERE upstream IN (SELECT pk FROM commits WHERE repo = ?)", (pk,))
    db.execute("DELETE FROM branch_provenance WHERE branch IN (SELECT pk FROM branch WHERE repo = ?)", (pk,))
    db.execute("UPDATE branch SET head = NULL WHERE repo = ?", (pk,))
    db.execute("UPDATE commits SET parent = NULL WHERE repo = ?", (pk,))
    db.execute("DELETE FROM file WHERE lineage IN (SELECT pk FROM lineage WHERE repo = ?)", (pk,))
    db.execute("UPDATE lineage SET base = NULL WHERE repo = ?", (pk,))
    db.execute("DELETE FROM repo WHERE pk = ?", (pk,))
    return True


def _branch(db: Connection, row: sqlite3.Row) -> Branch:
    return Branch(
        row["pk"], repo_by_pk(db, row["repo"]), row["name"], row["head"], row["created"], json.loads(row["trigger_spec"] or "null")
    )


def find_branch(db: Connection, ref: BranchRef) -> Branch | None:
    """Return the branch, or None; the repo must exist."""
    row = db.execute("SELECT * FROM branch WHERE repo = ? AND name = ?", (repo_pk(db, ref.repo), ref.name)).fetchone()
    return _branch(db, row) if row else None


def branch(db: Connection, ref: BranchRef) -> Branch:
    """Return the branch.

    Raises:
        NotFound: in the engine's words.
    """
    found = find_branch(db, ref)
    if found is None:
        raise NotFound(f'branch "{ref.name}" not found in repo {ref.repo}')
    return found


def branch_by_pk(db: Connection, pk: int) -> Branch:
    """Return a branch by its key."""
    return _branch(db, db.execute("SELECT * FROM branch WHERE pk = ?", (pk,)).fetchone())


def list_branches(db: Connection, ref: RepoRef) -> list[Branch]:
    """Return all branches of a repo, newest first."""
    rows = db.execute("SELECT * FROM branch WHERE repo = ? ORDER BY created DESC, pk DESC", (repo_pk(db, ref),)).fetchall()
    return [_branch(db, row) for row in rows]


def insert_branch(db: Connection, ref: BranchRef) -> Branch:
    """Return a new branch without a head."""
    check_name("", ref.name)
    if COMMIT_ID.fullmatch(ref.name):
        raise Refused("branch name cannot be a UUID V4")
    db.execute("INSERT INTO branch (repo, name, created) VALUES (?, ?, ?)", (repo_pk(db, ref.repo), ref.name, time.time()))
    return branch(db, ref)


def upstream(db: Connection, pk: int) -> list[Branch]:
    """Return the branches that branch `pk` is directly computed from."""
    rows = db.execute("SELECT upstream FROM branch_provenance WHERE branch = ? ORDER BY upstream", (pk,)).fetchall()
    return [branch_by_pk(db, row[0]) for row in rows]


def all_upstream(db: Connection, pk: int) -> list[Branch]:
    """Return every branch that branch `pk` is computed from, directly or not, nearest first."""
    found: dict[int, Branch] = {}
    pending = [pk]
    while pending:
        for source in upstream(db, pending.pop(0)):
            if source.pk not in found:
                found[source.pk] = source
                pending.append(source.pk)
    return list(found.values())


def downstream(db: Connection, pk: int) -> list[Branch]:
    """Return the branches directly computed from branch `pk`."""
    rows = db.execute("SELECT branch FROM branch_provenance WHERE upstream = ? ORDER BY branch", (pk,)).fetchall()
    return [branch_by_pk(db, row[0]) for row in rows]


def set_provenance(db: Connection, target: Branch, sources: Iterable[Branch]) -> None:
    """Make `target` computed from `sources`.

    Raises:
        Circle: neither could ever be computed.
    """
    db.execute("DELETE FROM branch_provenance WHERE branch = ?", (target.pk,))
    for source in sources:
        seen, open_ = set(), [source.pk]
        while open_:
            pk = open_.pop()
            if pk == target.pk:
                raise Circle(
                    f"cycle detected because {source.ref} is already in the subvenance of {target.ref}: neither could ever be computed"
                )
            if pk not in seen:
                seen.add(pk)
                open_ += [found.pk for found in upstream(db, pk)]
        db.execute("INSERT OR IGNORE INTO branch_provenance VALUES (?, ?)", (target.pk, source.pk))


def delete_branch(db: Connection, ref: BranchRef, *, force: bool) -> None:
    """Remove a branch; its commits stay.

    Raises:
        Refused: other branches are computed from it, or follow it.
    """
    found = branch(db, ref)
    siblings = list_branches(db, ref.repo)
    if not force:
        for others, why in (
            ([str(other.ref) for other in downstream(db, found.pk)], "it's in the direct provenance of"),
            ([str(o.ref) for o in siblings if o.trigger and o.trigger["branch"] == ref.name], "it is triggered by branches"),
        ):
            if others:
                raise Refused(f'branch "{ref}" cannot be deleted because {why} [{" ".join(others)}]')
    db.execute("DELETE FROM branch_provenance WHERE upstream = ?1 OR branch = ?1", (found.pk,))
    db.execute("DELETE FROM branch WHERE pk = ?", (found.pk,))
