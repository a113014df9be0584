"""Commits: started, finished, found, and what a commit causes downstream. Every function works inside the caller's transaction."""

from __future__ import annotations

import re
import sqlite3
import time
import uuid
from collections.abc import Iterator

from pdk.errors import Conflict, NotFound, NotSupported, UserError
from pdk.local.pachyderm.service import repos
from pdk.local.pachyderm.service.model import COMMIT_ID, USER, Branch, BranchRef, Commit, CommitRef
from pdk.local.pachyderm.store import tree

Connection = sqlite3.Connection
ANCESTRY = re.compile(r"(?P<base>[^.^~]+)(?P<steps>(?:[\^~]\d*)*|\.\d+)")


def new_id() -> str:
    """A commit ID that nobody has."""
    return uuid.uuid4().hex


def by_pk(db: Connection, pk: int) -> Commit:
    """A commit by its key."""
    return _commit(db, db.execute("SELECT * FROM commits WHERE pk = ?", (pk,)).fetchone())


def _commit(db: Connection, row: sqlite3.Row) -> Commit:
    values = {key: row[key] for key in row.keys()}  # noqa: SIM118 - a Row iterates over its values
    values["repo"] = repos.repo_by_pk(db, row["repo"])
    return Commit(**values)


def resolve(db: Connection, ref: CommitRef) -> Commit:
    """The commit that a reference means: an ID, a branch (its head), either with ancestry (``^``, ``^3``, ``.1``).

    Raises:
        NotFound: in the engine's words.
    """
    repo = repos.repo_pk(db, ref.repo)
    spelled = ref.id or ref.branch
    match = ANCESTRY.fullmatch(spelled)
    if match is None:
        raise UserError(f"commit {spelled!r} of repo {ref.repo} is neither an ID nor a branch; write ID, BRANCH, BRANCH^ or BRANCH.1")
    base, steps = match["base"], match["steps"]
    if COMMIT_ID.fullmatch(base):
        row = db.execute("SELECT * FROM commits WHERE repo = ? AND id = ?", (repo, base)).fetchone() or _alias(db, repo, base)
        if row is None:
            raise NotFound(f"commit {ref.repo}@{base} not found")
        commit = _commit(db, row)
    else:
        head = repos.branch(db, BranchRef(ref.repo, base)).head
        if head is None:
            raise NotFound(f'branch "{base}" of repo {ref.repo} has no commit yet')
        commit = by_pk(db, head)
    if steps.startswith("."):
        line = list(ancestors(db, commit))
        number = int(steps[1:])
        if not 0 < number <= len(line):
            raise NotFound(f"commit {ref} not found: the branch has {len(line)} commits")
        return line[-number]
    back = sum(int(step[1:] or 1) for step in re.findall(r"[\^~]\d*", steps))
    for _ in range(back):
        if commit.parent is None:
            raise NotFound(f"commit {ref} not found: {commit.ref} has no parent")
        commit = by_pk(db, commit.parent)
    return commit


def _alias(db: Connection, repo: int, id_: str) -> sqlite3.Row | None:
    """The commit of a repo that the commits with a global ID were computed from: what that ID means in this repo."""
    row: sqlite3.Row | None = db.execute(
        "WITH RECURSIVE source(pk) AS (SELECT pk FROM commits WHERE id = ? UNION "
        "SELECT p.upstream FROM commit_provenance p JOIN source s ON p.commit_pk = s.pk) "
        "SELECT c.* FROM commits c JOIN source s ON c.pk = s.pk WHERE c.repo = ? LIMIT 1",
        (id_, repo),
    ).fetchone()
    return row


def ancestors(db: Connection, commit: Commit) -> Iterator[Commit]:
    """The commit and its parents, newest first."""
    while True:
        yield commit
        if commit.parent is None:
            return
        commit = by_pk(db, commit.parent)


def view(db: Connection, commit: Commit) -> tree.View:
    """What the commit holds."""
    return tree.view(db, commit.lineage, commit.seq)


def _insert(db: Connection, branch: Branch, id_: str, parent: Commit | None, origin: str, description: str) -> Commit:
    base = parent
    while base is not None and base.finished is None:  # an open parent may still change: its content is not built upon
        base = by_pk(db, base.parent) if base.parent is not None else None
    fork = "INSERT INTO lineage (base, base_seq) VALUES (?, ?)"
    if base is None:
        lineage, seq = db.execute(fork, (None, None)).lastrowid, 1
    elif db.execute("SELECT max(seq) FROM commits WHERE lineage = ?", (base.lineage,)).fetchone()[0] == base.seq:
        lineage, seq = base.lineage, base.seq + 1
    else:  # somebody else went on from the same commit
        lineage, seq = db.execute(fork, (base.lineage, base.seq)).lastrowid, 1
    pk = db.execute(
        "INSERT INTO commits (repo, id, branch, parent, lineage, seq, origin, description, started) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            repos.repo_pk(db, branch.repo), id_, branch.name, parent.pk if parent else None,
            lineage, seq, origin, description, time.time(),
        ),
    ).lastrowid  # fmt: skip
    assert pk is not None
    db.execute("UPDATE branch SET head = ? WHERE pk = ?", (pk, branch.pk))
    return by_pk(db, pk)


def start(db: Connection, ref: BranchRef, parent: CommitRef | None = None, description: str = "") -> Commit:
    """Open a commit on a branch (made when missing) and, in the same transaction, one on every branch computed from it.

    Raises:
        UserError: the branch is a pipeline's output.
        Conflict: the branch's head is still open.
    """
    branch = repos.find_branch(db, ref) or repos.insert_branch(db, ref)
    if repos.upstream(db, branch.pk):
        raise UserError(f"cannot start a commit on an output branch: {ref} is computed by a pipeline")
    base = resolve(db, parent) if parent else by_pk(db, branch.head) if branch.head is not None else None
    if base and base.finished is None:
        raise Conflict(f"parent commit {base.ref} has not been finished; finish it first (`pachctl finish commit {base.ref}`)")
    commit = _insert(db, branch, new_id(), base, "USER", description)
    propagate(db, branch, commit.id)
    return commit


def propagate(db: Connection, source: Branch, id_: str) -> list[Commit]:
    """Open a commit with this ID on everything computed from `source`, nearest first; returns them."""
    made: list[Commit] = []
    for branch in reached_from(db, source):
        if db.execute("SELECT 1 FROM commits WHERE repo = ? AND id = ?", (repos.repo_pk(db, branch.repo), id_)).fetchone():
            continue
        made.append(open_output(db, branch, id_))
    return made


def open_output(db: Connection, branch: Branch, id_: str) -> Commit:
    """Open a commit on a computed branch, on the present heads of what it is computed from, and the job that will fill it."""
    parent = by_pk(db, branch.head) if branch.head is not None else None
    commit = _insert(db, branch, id_, parent, "AUTO", "")
    for source in repos.upstream(db, branch.pk):
        if source.head is not None:
            db.execute("INSERT OR IGNORE INTO commit_provenance VALUES (?, ?)", (commit.pk, source.head))
    db.execute(
        "INSERT INTO job (pipeline, id, output_commit, version, spec, state, created) "
        "SELECT pk, ?, ?, version, spec, 'JOB_CREATED', ? FROM pipeline WHERE project = ? AND name = ?",
        (id_, commit.pk, commit.started, branch.repo.project, branch.repo.name),
    )
    return commit


def reached_from(db: Connection, source: Branch) -> list[Branch]:
    """Every branch computed from `source`, directly or not, each after all that it is computed from."""
    order: list[int] = []

    def visit(pk: int) -> None:
        for below in repos.downstream(db, pk):
            if below.pk not in order:
                visit(below.pk)
                order.append(below.pk)

    visit(source.pk)
    return [repos.branch_by_pk(db, pk) for pk in reversed(order)]


def finish(db: Connection, commit: Commit, *, description: str = "", error: str = "") -> Commit:
    """Close a commit: from now on it never changes.

    Raises:
        Conflict: it is closed already.
    """
    if commit.finished is not None:
        raise Conflict(f"commit {commit.ref} has already finished")
    whole = tree.root(db, view(db, commit))
    now = time.time()
    db.execute(
        "UPDATE commits SET finishing = ?, finished = ?, error = ?, size = ?, hash = ?, description = ? WHERE pk = ?",
        (now, now, error, whole.size, whole.hash, description or commit.description, commit.pk),
    )
    return by_pk(db, commit.pk)


def provenance(db: Connection, pk: int) -> list[Commit]:
    """The commits that commit `pk` was directly computed from."""
    rows = db.execute("SELECT upstream FROM commit_provenance WHERE commit_pk = ? ORDER BY upstream", (pk,)).fetchall()
    return [by_pk(db, row[0]) for row in rows]


def subvenance(db: Connection, pk: int) -> list[Commit]:
    """The commits directly computed from commit `pk`."""
    rows = db.execute("SELECT commit_pk FROM commit_provenance WHERE upstream = ? ORDER BY commit_pk", (pk,)).fetchall()
    return [by_pk(db, row[0]) for row in rows]


def children(db: Connection, pk: int) -> list[Commit]:
    """The commits whose parent is commit `pk`."""
    return [_commit(db, row) for row in db.execute("SELECT * FROM commits WHERE parent = ? ORDER BY pk", (pk,)).fetchall()]


def in_set(db: Connection, id_: str) -> list[Commit]:
    """All commits that share a global ID, causes before effects.

    Raises:
        NotFound: no commit has it.
    """
    found = [_commit(db, row) for row in db.execute("SELECT * FROM commits WHERE id = ? ORDER BY pk", (id_,)).fetchall()]
    if not found:
        raise NotFound(f"no commits found for commitset {id_}")
    return found


def listing(db: Connection, branch_or_repo: CommitRef, *, number: int = 0, upto: CommitRef | None = None) -> Iterator[Commit]:
    """Commits newest first: of a branch's line where `branch_or_repo` names one, else of the whole repo; until before `upto`."""
    stop = resolve(db, upto).pk if upto else None
    if branch_or_repo.id or branch_or_repo.branch:
        found = ancestors(db, resolve(db, branch_or_repo))
    else:
        pk = repos.repo_pk(db, branch_or_repo.repo)
        rows = db.execute("SELECT * FROM commits WHERE repo = ? ORDER BY pk DESC", (pk,)).fetchall()
        found = (_commit(db, row) for row in rows)
    for count, commit in enumerate(found):
        if commit.pk == stop or (number and count == number):
            return
        yield commit


def sets(db: Connection, project: str = "") -> list[str]:
    """Global IDs, newest first; of one project where it is named."""
    rows = db.execute(
        "SELECT c.id, max(c.pk) AS newest FROM commits c JOIN repo r ON c.repo = r.pk WHERE (?1 = '' OR r.project = ?1) AND r.type = ?2 "
        "GROUP BY c.id ORDER BY newest DESC",
        (project, USER),
    ).fetchall()
    return [row[0] for row in rows]


def create_branch(db: Connection, ref: BranchRef, head: CommitRef | None, sources: list[BranchRef]) -> Branch:
    """Make a branch or point it elsewhere; what it is computed from and what is computed from it follows.

    Raises:
        UserError: a computed branch cannot be pointed by hand.
    """
    branch = repos.find_branch(db, ref) or repos.insert_branch(db, ref)
    repo = ref.repo
    if sources and not db.execute("SELECT 1 FROM pipeline WHERE project = ? AND name = ?", (repo.project, repo.name)).fetchone():
        raise NotSupported(f"branch {ref}: provenance is set by pipelines; the local server fills no branch computed by hand")
    if sources:
        repos.set_provenance(db, branch, [_source(db, source) for source in sources])
    if head and (head.id or head.branch):
        if repos.upstream(db, branch.pk):
            raise UserError(f"cannot move {ref}: it is computed by a pipeline; move the branch that it is computed from")
        commit = resolve(db, head)
        if commit.repo != ref.repo:
            raise UserError(f"branch {ref} cannot point to a commit of another repo ({commit.ref})")
        if commit.finished is None:
            raise Conflict(f"branch {ref} cannot point to {commit.ref}, which is not finished")
        moved = branch.head != commit.pk
        db.execute("UPDATE branch SET head = ? WHERE pk = ?", (commit.pk, branch.pk))
        branch = repos.branch(db, ref)
        if moved:
            propagate(db, branch, new_id())
    return branch


def _source(db: Connection, ref: BranchRef) -> Branch:
    """A branch that something is to be computed from; made, with an empty commit, when missing."""
    branch = repos.find_branch(db, ref) or repos.insert_branch(db, ref)
    if branch.head is None:
        finish(db, _insert(db, branch, new_id(), None, "AUTO", ""))
        branch = repos.branch(db, ref)
    return branch
