"""Repos, branches, commits, history."""

import pytest
from pachyderm_sdk.api import pfs


def kinds(found):
    """Of commits: origin, whether finished, has a parent, size."""
    return [
        [pfs.OriginKind(c.origin.kind).name, bool(c.finished and c.finished.year > 1970), bool(c.parent_commit), c.details.size_bytes]
        for c in found
    ]


def sizes(found):
    return [commit.details.size_bytes for commit in found]


@pytest.fixture
def t(engine, recorded):
    return engine.transcript


def test_projects(engine, t):
    sdk = engine.sdk.pfs
    own = pfs.Project(name=engine.project)
    t.fails("CreateProject again", lambda: sdk.create_project(project=own), "ALREADY_EXISTS", "already exists")
    sdk.create_project(project=own, description="described", update=True)
    t.call("InspectProject", lambda: sdk.inspect_project(project=own))
    absent = pfs.Project(name="absent")
    t.fails("InspectProject of nothing", lambda: sdk.inspect_project(project=absent), "NOT_FOUND", '"absent" not found')
    for title, name, means in (
        ("a bad character", "a.b", "only alphanumeric"), ("too long", "x" * 52, "1 characters longer than the 51 max"),
        ("an underscore first", "_a", "must start with an alphanumeric"),
    ):  # fmt: skip
        t.fails(f"CreateProject: {title}", lambda name=name: sdk.create_project(project=pfs.Project(name=name)), "UNKNOWN", means)
    engine.make_repo()
    t.fails("DeleteProject with a repo", lambda: sdk.delete_project(project=own), "FAILED_PRECONDITION", "still exists")


def test_repos(engine, t):
    sdk = engine.sdk.pfs
    engine.make_repo("b", "a")
    t.fails("CreateRepo again", lambda: sdk.create_repo(repo=engine.repo("a")), "ALREADY_EXISTS", "already exists")
    sdk.create_repo(repo=engine.repo("a"), description="d", update=True)
    t.call("InspectRepo", lambda: sdk.inspect_repo(repo=engine.repo("a")))
    t.call(
        "ListRepo", lambda: sdk.list_repo(type="user", projects=[pfs.Project(name=engine.project)]), show=lambda r: [i.repo.name for i in r]
    )
    t.fails("InspectRepo of nothing", lambda: sdk.inspect_repo(repo=engine.repo("absent")), "NOT_FOUND", "repo .* not found")
    t.fails("CreateRepo: a bad name", lambda: sdk.create_repo(repo=engine.repo("a b")), "UNKNOWN", "only alphanumeric")
    elsewhere = pfs.Repo(name="r", type="user", project=pfs.Project(name="absent"))
    t.fails("CreateRepo in no project", lambda: sdk.create_repo(repo=elsewhere), "NOT_FOUND", "not found")
    t.call("DeleteRepo", lambda: sdk.delete_repo(repo=engine.repo("b")))
    t.call("DeleteRepo of nothing", lambda: sdk.delete_repo(repo=engine.repo("b")))
    engine.put({"/x": b"12345"}, repo="a")
    t.call("InspectRepo with data", lambda: sdk.inspect_repo(repo=engine.repo("a")))


def test_a_commit_is_started_written_and_finished(engine, t):
    engine.make_repo()
    sdk = engine.sdk.pfs
    commit = t.call("StartCommit", lambda: sdk.start_commit(branch=engine.branch(), description="mine"))
    t.call("InspectCommit, open", lambda: sdk.inspect_commit(commit=commit))
    t.fails("StartCommit on an open head", lambda: sdk.start_commit(branch=engine.branch()), "UNKNOWN", "has not been finished")
    sdk.modify_file(engine.changes({"/a": b"1234"}, commit))
    t.call("InspectFile in an open commit", lambda: sdk.inspect_file(file=engine.file("/a", commit.id)), show=lambda f: f.size_bytes)
    t.call("FinishCommit", lambda: sdk.finish_commit(commit=commit, description="changed") and None)
    t.call("InspectCommit, finished", lambda: sdk.inspect_commit(commit=commit, wait=pfs.CommitState.FINISHED))
    t.fails("FinishCommit again", lambda: sdk.finish_commit(commit=commit), "UNKNOWN", "has already finished")
    t.fails("StartCommit without a branch", lambda: sdk.start_commit(branch=engine.branch("")), "UNKNOWN", "branch must be specified")
    t.fails("StartCommit in no repo", lambda: sdk.start_commit(branch=engine.branch(repo="absent")), "NOT_FOUND", "repo .* not found")
    t.fails("StartCommit: a bad name", lambda: sdk.start_commit(branch=engine.branch("a.b")), "UNKNOWN", "only alphanumeric")
    failed = sdk.start_commit(branch=engine.branch())
    sdk.finish_commit(commit=failed, error="broken")
    t.call("InspectCommit with an error", lambda: sdk.inspect_commit(commit=failed, wait=pfs.CommitState.FINISHED), show=lambda c: c.error)


def test_ancestry(engine, t):
    engine.make_repo()
    for size in (1, 2, 3):
        engine.put({"/a": b"x" * size})
    sdk = engine.sdk.pfs
    for spelled in ("master", "master^", "master^2", "master^^", "master~1", "master.1", "master.2", "master^0"):
        t.call(
            f"InspectCommit {spelled}", lambda spelled=spelled: sdk.inspect_commit(commit=engine.commit(spelled)),
            show=lambda commit: commit.details.size_bytes,
        )  # fmt: skip
    t.fails("InspectCommit master^9", lambda: sdk.inspect_commit(commit=engine.commit("master^9")), "UNKNOWN", "invalid offset")
    t.fails("InspectCommit master.9", lambda: sdk.inspect_commit(commit=engine.commit("master.9")), "UNKNOWN", "invalid offset")
    t.fails("InspectCommit master^~", lambda: sdk.inspect_commit(commit=engine.commit("master^~")), "UNKNOWN", "invalid ancestry")
    absent = "0" * 12 + "4" + "0" * 19
    t.fails("InspectCommit of nothing", lambda: sdk.inspect_commit(commit=engine.commit(absent)), "NOT_FOUND", "not found")
    t.fails(
        "a branch that is not there", lambda: sdk.inspect_commit(commit=engine.commit(branch="no")), "NOT_FOUND", 'branch "no" not found'
    )


def test_commits_are_listed(engine, t):
    engine.make_repo()
    ids = [engine.put({"/a": b"x" * size}) for size in (1, 2, 3)]
    sdk, repo = engine.sdk.pfs, engine.repo()
    t.call("ListCommit", lambda: sdk.list_commit(repo=repo), show=kinds)
    t.call("ListCommit number", lambda: sdk.list_commit(repo=repo, number=2), show=sizes)
    t.call("ListCommit backwards", lambda: sdk.list_commit(repo=repo, reverse=True), show=sizes)
    t.call("ListCommit to", lambda: sdk.list_commit(repo=repo, to=engine.commit(ids[1])), show=sizes)
    t.call("ListCommit from to", lambda: sdk.list_commit(repo=repo, from_=engine.commit(ids[0]), to=engine.commit(ids[2])), show=sizes)
    t.fails("ListCommit from", lambda: sdk.list_commit(repo=repo, from_=engine.commit(ids[0])), "UNKNOWN", "without .to.")
    t.fails("ListCommit of nothing", lambda: sdk.list_commit(repo=engine.repo("absent")), "NOT_FOUND", "repo .* not found")
    t.call("InspectCommitSet", lambda: sdk.inspect_commit_set(commit_set=pfs.CommitSet(id=ids[0])), show=sizes)
    absent = pfs.CommitSet(id="0" * 12 + "4" + "0" * 19)
    t.fails("InspectCommitSet of nothing", lambda: sdk.inspect_commit_set(commit_set=absent), "NOT_FOUND", "no commits found")


def test_branches(engine, t):
    engine.make_repo()
    sdk = engine.sdk.pfs
    first = engine.put({"/a": b"1"})
    engine.put({"/a": b"22"})
    t.call("CreateBranch at a commit", lambda: sdk.create_branch(branch=engine.branch("old"), head=engine.commit(first)) and None)
    t.call("CreateBranch without a head", lambda: sdk.create_branch(branch=engine.branch("empty")) and None)
    t.call("InspectBranch", lambda: sdk.inspect_branch(branch=engine.branch("old")))
    t.call("its empty commit", lambda: sdk.inspect_commit(commit=engine.commit(branch="empty")), show=lambda c: kinds([c]))
    t.call("ListBranch", lambda: sdk.list_branch(repo=engine.repo()), show=lambda found: [b.branch.name for b in found])
    t.call(
        "ListBranch backwards", lambda: sdk.list_branch(repo=engine.repo(), reverse=True), show=lambda found: [b.branch.name for b in found]
    )
    engine.put({"/b": b"3"}, branch="old")
    t.call(
        "a fork",
        lambda: sdk.list_file(file=engine.file("/", branch="old")),
        show=lambda found: [[f.file.path, f.size_bytes] for f in found],
    )
    t.call("DeleteBranch", lambda: sdk.delete_branch(branch=engine.branch("old")) and None)
    t.fails("InspectBranch of nothing", lambda: sdk.inspect_branch(branch=engine.branch("old")), "NOT_FOUND", "not found")
    t.fails("DeleteBranch of nothing", lambda: sdk.delete_branch(branch=engine.branch("old")), "NOT_FOUND", "not found")
    t.fails("CreateBranch: a bad name", lambda: sdk.create_branch(branch=engine.branch("a b")), "UNKNOWN", "only alphanumeric")
    engine.make_repo("other")
    elsewhere = engine.put({"/x": b"x"}, repo="other")
    t.fails(
        "CreateBranch at another repo's commit",
        lambda: sdk.create_branch(branch=engine.branch("x"), head=engine.commit(elsewhere, "other")), "UNKNOWN", "same repo",
    )  # fmt: skip


def test_triggers(engine, t):
    engine.make_repo()
    sdk = engine.sdk.pfs
    engine.put({"/a": b"1"})

    def follow(name, **trigger):
        return sdk.create_branch(branch=engine.branch(name), trigger=pfs.Trigger(branch="master", **trigger))

    follow("every2", commits=2)
    follow("size", size="1K")
    follow("both", size="1K", commits=3, all=True)
    t.call("InspectBranch with a trigger", lambda: sdk.inspect_branch(branch=engine.branch("every2")), show=lambda b: b.trigger.to_dict())

    def heads():
        sizes = {}
        for name in ("every2", "size", "both"):
            head = sdk.inspect_branch(branch=engine.branch(name)).head
            sizes[name] = sdk.inspect_commit(commit=head).details.size_bytes
        return sizes

    for number, size in enumerate((10, 20, 2000, 30, 5000), 1):
        engine.put({"/a": b"x" * size})
        t.call(f"heads after commit {number}", heads)
    t.fails("a trigger on itself", lambda: sdk.create_branch(branch=engine.branch("a"), trigger=pfs.Trigger(branch="a")), "UNKNOWN", "loop")
    nobody = pfs.Trigger(commits=1)
    t.fails("a trigger without a branch", lambda: sdk.create_branch(branch=engine.branch("b"), trigger=nobody), "UNKNOWN", "must specify")
    t.fails("a trigger of no size", lambda: follow("c", size="much"), "UNKNOWN", "invalid trigger size")
    t.fails("a trigger of no schedule", lambda: follow("d", cron_spec="sometimes"), "UNKNOWN", "cron|schedule|5 fields")
    t.fails("a trigger of fewer than no commits", lambda: follow("e", commits=-1), "UNKNOWN", "negative number")


def test_branches_computed_from_each_other(engine, t):
    engine.make_repo("up", "down")
    sdk = engine.sdk.pfs
    t.call(
        "CreateBranch with provenance",
        lambda: sdk.create_branch(branch=engine.branch(repo="down"), provenance=[engine.branch(repo="up")]) and None,
    )
    engine.put({"/a": b"1"}, repo="up")
    t.call("the commit below", lambda: sdk.list_commit(repo=engine.repo("down")), show=kinds)
    t.call(
        "InspectBranch above",
        lambda: sdk.inspect_branch(branch=engine.branch(repo="up")),
        show=lambda b: [s.repo.name for s in b.subvenance],
    )
    t.fails(
        "a circle", lambda: sdk.create_branch(branch=engine.branch(repo="up"), provenance=[engine.branch(repo="down")]), "INTERNAL", "cycle"
    )
    t.fails(
        "StartCommit below", lambda: sdk.start_commit(branch=engine.branch(repo="down")), "UNKNOWN", "output branch|has not been finished"
    )
    t.fails("DeleteBranch above", lambda: sdk.delete_branch(branch=engine.branch(repo="up")), "UNKNOWN", "provenance")
    t.fails("DeleteRepo above", lambda: sdk.delete_repo(repo=engine.repo("up")), "UNKNOWN", "provenance")
    t.fails(
        "itself",
        lambda: sdk.create_branch(branch=engine.branch("x", "up"), provenance=[engine.branch(repo="up")]),
        "UNKNOWN",
        "its own branch",
    )


def test_squash_and_drop(engine, t):
    engine.make_repo()
    sdk = engine.sdk.pfs
    ids = [engine.put({f"/{number}": b"x"}) for number in range(4)]
    listed = lambda: [f.file.path for f in sdk.list_file(file=engine.file("/"))]  # noqa: E731
    t.fails("squash the head", lambda: sdk.squash_commit_set(commit_set=pfs.CommitSet(id=ids[3])), "UNKNOWN", "no children")
    t.fails("drop what has children", lambda: sdk.drop_commit_set(commit_set=pfs.CommitSet(id=ids[0])), "UNKNOWN", "has children")
    t.call("squash one in the middle", lambda: sdk.squash_commit_set(commit_set=pfs.CommitSet(id=ids[1])) and None)
    t.call("then", lambda: [listed(), len(list(sdk.list_commit(repo=engine.repo())))])
    t.call("the first one still", lambda: [f.file.path for f in sdk.list_file(file=engine.file("/", ids[0]))])
    t.call("drop the head", lambda: sdk.drop_commit_set(commit_set=pfs.CommitSet(id=ids[3])) and None)
    t.call("then", lambda: [listed(), len(list(sdk.list_commit(repo=engine.repo())))])
    t.fails("what was dropped", lambda: sdk.inspect_commit(commit=engine.commit(ids[3])), "NOT_FOUND", "not found")
    engine.put({"/again": b"x"})
    t.call("a commit on top", listed)
    t.call("squash the first", lambda: sdk.squash_commit_set(commit_set=pfs.CommitSet(id=ids[0])) and None)
    t.call("then", lambda: [listed(), kinds(sdk.list_commit(repo=engine.repo()))])
    t.call("squash what is not there", lambda: sdk.squash_commit_set(commit_set=pfs.CommitSet(id=ids[0])) and None)


def test_a_lone_commit_is_dropped(engine, t):
    engine.make_repo()
    sdk = engine.sdk.pfs
    only = engine.put({"/a": b"x"})
    t.call("drop", lambda: sdk.drop_commit_set(commit_set=pfs.CommitSet(id=only)) and None)
    t.call("the branch has an empty commit", lambda: sdk.list_commit(repo=engine.repo()), show=kinds)
    t.call("its files", lambda: [f.file.path for f in sdk.list_file(file=engine.file("/"))])
    opened = sdk.start_commit(branch=engine.branch())
    t.call("drop an open commit", lambda: sdk.drop_commit_set(commit_set=pfs.CommitSet(id=opened.id)) and None)
    t.call("then", lambda: len(list(sdk.list_commit(repo=engine.repo()))))


def test_clear_commit(engine, t):
    engine.make_repo()
    sdk = engine.sdk.pfs
    engine.put({"/a": b"x"})
    opened = sdk.start_commit(branch=engine.branch())
    sdk.modify_file(engine.changes({"/b": b"y", "/a": None}, opened))
    t.call("ClearCommit", lambda: sdk.clear_commit(commit=opened) and None)
    t.call("then", lambda: [f.file.path for f in sdk.list_file(file=engine.file("/", opened.id))])
    sdk.finish_commit(commit=opened)
    t.fails("ClearCommit of a finished one", lambda: sdk.clear_commit(commit=opened), "UNKNOWN", "cannot clear finished commit")
