"""Commits: started, finished, found, and what a commit causes downstream."""

from __future__ import annotations

import itertools
import re
import sqlite3
import time
import uuid
from collections.abc import Iterator

from pdk.errors import NotFound, TemporaryError
from pdk.local.pachyderm.rules import repos, triggers
from pdk.local.pachyderm.rules.model import COMMIT_ID, FILE_SETS, USER, Branch, BranchRef, Commit, CommitRef, Refused, RepoRef
from pdk.local.pachyderm.store import tree

Connection = sqlite3.Connection
ANCESTRY = re.compile(r"(?:\.\d+)?(?:\^+|\^\d+|~+|~\d+)?")


class NotFinished(TemporaryError):
    """A commit is still open."""


def new_id() -> str:
    """Return a commit ID that nobody has."""
    return uuid.uuid4().hex


def find(db: Connection, pk: int) -> Commit | None:
    """Return a commit by its key, if it is still there."""
    row = db.execute("SELECT * FROM commits WHERE pk = ?", (pk,)).fetchone()
    return _commit(db, row) if row else None


def by_pk(db: Connection, pk: int) -> Commit:
    """Return a commit by its key."""
    return _commit(db, db.execute("SELECT * FROM commits WHERE pk = ?", (pk,)).fetchone())


def _commit(db: Connection, row: sqlite3.Row) -> Commit:
    values = {key: row[key] for key in row.keys()}  # noqa: SIM118 - a Row iterates over its values
    values["repo"] = repos.repo_by_pk(db, row["repo"])
    return Commit(**values)


def resolve(db: Connection, ref: CommitRef) -> Commit:
    """Return the commit that a reference means: an ID, a branch (its head), either with ancestry (``^``, ``^3``, ``.1``); or a file set.

    Raises:
        NotFound, Refused: in the engine's words.
    """
    if ref.repo.name == FILE_SETS:
        return file_set(db, ref.id)
    spelled = ref.branch + ref.id if ref.id[:1] in ("", ".", "^", "~") else ref.id
    if not spelled:
        raise Refused("pick commit tx: cannot pick commit with no ID or branch")
    base = re.split(r"[.^~]", spelled, maxsplit=1)[0]
    steps = spelled[len(base) :]
    if not ANCESTRY.fullmatch(steps):
        raise Refused(f"pick commit tx: calculate offset {spelled}: count offset and clean: invalid ancestry format")
    commit = _base(db, ref, base)
    if steps.startswith("."):
        number = re.split(r"[\^~]", steps[1:], maxsplit=1)[0]
        line = list(ancestors(db, commit))
        if not 0 < int(number) <= len(line):
            raise Refused(
                f"pick commit tx: picking commit: invalid offset from branch root for head commit: {commit.ref}, "
                f"offset: {int(number) - 1}, maximum depth: {len(line)}"
            )
        commit, steps = line[-int(number)], steps[1 + len(number) :]
    back = int(steps[1:]) if steps[1:].isdecimal() else len(steps)
    for done in range(back):
        if commit.parent is None:
            raise Refused(
                f"pick commit tx: picking commit: invalid offset for ancestor of commit: {commit.ref}, "
                f"offset requested: {back}, offset traversable: {done}"
            )
        commit = by_pk(db, commit.parent)
    return commit


def _base(db: Connection, ref: CommitRef, base: str) -> Commit:
    """Return the commit that an ID or a branch's name means, without ancestry."""
    lost = f"pick commit tx: commit {ref.repo}@{ref.id} not found\n"
    try:
        repo = repos.repo_pk(db, ref.repo)
    except NotFound as error:
        raise NotFound(f"{lost}{error}") from None
    if not COMMIT_ID.fullmatch(base):
        branch = repos.find_branch(db, BranchRef(ref.repo, base))
        if branch is None or branch.head is None:
            raise NotFound(f'{lost}branch "{base}" not found in repo {ref.repo}')
        return by_pk(db, branch.head)
    row = db.execute("SELECT * FROM commits WHERE repo = ? AND id = ?", (repo, base)).fetchone() or _alias(db, repo, base)
    if row is None:
        raise NotFound(f"{lost}commit {ref.repo}@{base} not found")
    return _commit(db, row)


def file_set(db: Connection, id_: str) -> Commit:
    """Return a file set as a finished commit of the repo ``__filesets__``.

    Raises:
        NotFound: it is unknown or has expired.
    """
    row = db.execute("SELECT * FROM file_set WHERE id = ? AND expires > ?", (id_.replace("-", ""), time.time())).fetchone()
    if row is None:
        raise NotFound(f"tracker does not contain item: (fileset/{id_}): the file set is unknown or has expired")
    return Commit(
        pk=0, repo=RepoRef("default", FILE_SETS), id=id_, branch="", parent=None, lineage=row["lineage"], seq=1, origin="USER",
        description="FileSet - Virtual Commit", started=0.0, finishing=None, finished=0.0, error="", size=0, hash=None,
    )  # fmt: skip


def _alias(db: Connection, repo: int, id_: str) -> sqlite3.Row | None:
    """Return the commit of a repo that the commits with a global ID were computed from: what that ID means in this repo."""
    row: sqlite3.Row | None = db.execute(
        "WITH RECURSIVE source(pk) AS (SELECT pk FROM commits WHERE id = ? UNION "
        "SELECT p.upstream FROM commit_provenance p JOIN source s ON p.commit_pk = s.pk) "
        "SELECT c.* FROM commits c JOIN source s ON c.pk = s.pk WHERE c.repo = ? LIMIT 1",
        (id_, repo),
    ).fetchone()
    return row


def ancestors(db: Connection, commit: Commit) -> Iterator[Commit]:
    """Give the commit and its parents, newest first."""
    while True:
        yield commit
        if commit.parent is None:
            return
        commit = by_pk(db, commit.parent)


def view(db: Connection, commit: Commit) -> tree.View:
    """Return what the commit holds."""
    return tree.view(db, commit.lineage, commit.seq)


def _insert(db: Connection, branch: Branch, id_: str, parent: Commit | None, origin: str, description: str) -> Commit:
    base = parent
    while base is not None and base.finished is None:  # an open parent may still change: its content is not built upon
        base = by_pk(db, base.parent) if base.parent is not None else None
    repo = repos.repo_pk(db, branch.repo)
    if base is not None and _top(db, base.lineage) == base.seq:
        lineage, seq = base.lineage, base.seq + 1
    else:  # the first one, or somebody else went on from the same commit
        row = (repo, base.lineage, base.seq) if base else (repo, None, None)
        lineage, seq = db.execute("INSERT INTO lineage (repo, base, base_seq) VALUES (?, ?, ?)", row).lastrowid or 0, 1
    pk = db.execute(
        "INSERT INTO commits (repo, id, branch, parent, lineage, seq, origin, description, started) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (repo, id_, branch.name, parent.pk if parent else None, lineage, seq, origin, description, time.time()),
    ).lastrowid
    assert pk is not None
    db.execute("UPDATE branch SET head = ? WHERE pk = ?", (pk, branch.pk))
    return by_pk(db, pk)


def _top(db: Connection, lineage: int) -> int:
    """Return the highest number in a lineage that a commit has, or that another lineage is based on."""
    own = db.execute("SELECT max(seq) FROM commits WHERE lineage = ?", (lineage,)).fetchone()[0]
    based = db.execute("SELECT max(base_seq) FROM lineage WHERE base = ?", (lineage,)).fetchone()[0]
    return max(own or 0, based or 0)


def forget_tip(db: Connection, commit: Commit) -> None:
    """After a commit's row is gone: undo what only it could see, if it was the newest of its lineage."""
    if _top(db, commit.lineage) < commit.seq:
        tree.undo(db, commit.lineage, commit.seq)


def make_empty(db: Connection, branch: Branch, id_: str) -> Commit:
    """Return a finished commit without files as the head of a branch that has none."""
    return finish(db, _insert(db, branch, id_, None, "AUTO", ""))


def add_finished(db: Connection, branch: Branch, id_: str) -> Commit:
    """Return a finished commit without files on a branch of the server's own (a pipeline's spec), on top of its head."""
    return finish(db, _insert(db, branch, id_, by_pk(db, branch.head) if branch.head is not None else None, "USER", ""))


def check_structure(db: Connection, branch: Branch) -> None:
    """Raise Refused where two branches of one repo would take part in one graph."""
    seen: dict[int, Branch] = {}
    pending = [branch]
    while pending:
        found = pending.pop()
        if found.pk in seen:
            continue
        seen[found.pk] = found
        pending += repos.upstream(db, found.pk) + repos.downstream(db, found.pk)
    met: set[object] = set()
    for found in seen.values():
        if found.repo in met:
            raise Refused(f'multiple branches from the same repo, "{found.repo}", cannot participate in a DAG')
        met.add(found.repo)


def start(db: Connection, ref: BranchRef, parent: CommitRef | None = None, description: str = "") -> Commit:
    """Open a commit on a branch (made when missing) and, in the same transaction, one on every branch computed from it.

    Raises:
        UserError: the branch is a pipeline's output.
        Conflict: the branch's head is still open.
    """
    branch = repos.find_branch(db, ref) or repos.insert_branch(db, ref)
    base = resolve(db, parent) if parent else by_pk(db, branch.head) if branch.head is not None else None
    if base and base.finished is None:
        raise Refused(f"create commit: parent commit {base.ref} has not been finished; finish it first, or write into it")
    if repos.upstream(db, branch.pk):
        raise Refused(f"cannot start a commit on an output branch: {ref}")
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
    """Return every branch computed from `source`, directly or not, each after all that it is computed from."""
    order: list[int] = []

    def visit(pk: int) -> None:
        for below in repos.downstream(db, pk):
            if below.pk not in order:
                visit(below.pk)
                order.append(below.pk)

    visit(source.pk)
    return [repos.branch_by_pk(db, pk) for pk in reversed(order)]


def clear(db: Connection, commit: Commit) -> None:
    """Take back what was written into an open commit.

    Raises:
        Refused: it is finished.
    """
    if commit.finished is not None:
        raise Refused("cannot clear finished commit")
    tree.undo(db, commit.lineage, commit.seq)


def finish(db: Connection, commit: Commit, *, description: str = "", error: str = "") -> Commit:
    """Close a commit: from now on it never changes. Branches that wait for it move.

    Raises:
        Refused: it is closed already.
    """
    if commit.finished is not None:
        raise Refused(f"commit {commit.ref} has already finished")
    whole = tree.root(db, view(db, commit))
    now = time.time()
    db.execute(
        "UPDATE commits SET finishing = ?, finished = ?, error = ?, size = ?, hash = ?, description = ? WHERE pk = ?",
        (now, now, error, whole.size, whole.hash, description or commit.description, commit.pk),
    )
    done = by_pk(db, commit.pk)
    moved = triggers.due(db, done) if not error else []
    for branch in moved:
        db.execute("UPDATE branch SET head = ? WHERE pk = ?", (done.pk, branch.pk))
    if moved:
        id_ = new_id()
        for branch in moved:
            propagate(db, repos.branch_by_pk(db, branch.pk), id_)
    return done


def provenance(db: Connection, pk: int) -> list[Commit]:
    """Return the commits that commit `pk` was directly computed from."""
    rows = db.execute("SELECT upstream FROM commit_provenance WHERE commit_pk = ? ORDER BY upstream", (pk,)).fetchall()
    return [by_pk(db, row[0]) for row in rows]


def subvenance(db: Connection, pk: int) -> list[Commit]:
    """Return the commits directly computed from commit `pk`."""
    rows = db.execute("SELECT commit_pk FROM commit_provenance WHERE upstream = ? ORDER BY commit_pk", (pk,)).fetchall()
    return [by_pk(db, row[0]) for row in rows]


def children(db: Connection, pk: int) -> list[Commit]:
    """Return the commits whose parent is commit `pk`."""
    return [_commit(db, row) for row in db.execute("SELECT * FROM commits WHERE parent = ? ORDER BY pk", (pk,)).fetchall()]


def in_set(db: Connection, id_: str) -> list[Commit]:
    """Return all commits that share a global ID, causes before effects; empty where no commit has it."""
    return [_commit(db, row) for row in db.execute("SELECT * FROM commits WHERE id = ? ORDER BY pk", (id_,)).fetchall()]


def whole_set(db: Connection, id_: str) -> list[Commit]:
    """What a global ID means in every repo: the commits that have it, and before them those of other IDs that they were computed from.

    Raises:
        NotFound: no commit has it.
    """
    found = {commit.pk: commit for commit in in_set(db, id_)}
    if not found:
        raise NotFound(f"no commits found for commitset {id_}")
    pending = list(found)
    while pending:
        for source in provenance(db, pending.pop()):
            if source.pk not in found:
                found[source.pk] = source
                pending.append(source.pk)
    return [found[pk] for pk in sorted(found)]


def newer(db: Connection, repo: int, after: int) -> list[Commit]:
    """Commits of a repo (by key) that were made after the one with key `after`, oldest first."""
    rows = db.execute("SELECT * FROM commits WHERE repo = ? AND pk > ? ORDER BY pk", (repo, after)).fetchall()
    return [_commit(db, row) for row in rows]


def listing(
    db: Connection, of: CommitRef, *, upto: CommitRef | None = None, origin: str = "", reverse: bool = False, number: int = 0
) -> Iterator[Commit]:
    """Commits newest first: from where `of` names a commit along its parents until before `upto`, else of its whole repo.

    Args:
        origin: only those of this kind.
        number: at most so many; 0 for all.
    """
    if of.id or of.branch:
        stop = resolve(db, upto).pk if upto else None
        found: Iterator[Commit] = itertools.takewhile(lambda commit: commit.pk != stop, ancestors(db, resolve(db, of)))
    else:
        order = "ASC" if reverse else "DESC"
        cursor = db.execute(f"SELECT * FROM commits WHERE repo = ? ORDER BY pk {order}", (repos.repo_pk(db, of.repo),))
        found = (_commit(db, row) for row in cursor)
    wanted = (commit for commit in found if origin in ("", commit.origin))
    yield from itertools.islice(wanted, number or None)


def sets(db: Connection, project: str = "") -> list[str]:
    """Global IDs, newest first; of one project where it is named."""
    rows = db.execute(
        "SELECT c.id, max(c.pk) AS newest FROM commits c JOIN repo r ON c.repo = r.pk WHERE (?1 = '' OR r.project = ?1) AND r.type = ?2 "
        "GROUP BY c.id ORDER BY newest DESC",
        (project, USER),
    ).fetchall()
    return [row[0] for row in rows]
