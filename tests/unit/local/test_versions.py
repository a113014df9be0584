"""Random histories of repos: what a model says, the service says too, and the store is sound after every step."""

import asyncio
import shutil
import tempfile
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pdk.errors import PdkError
from pdk.kit.db import Database
from pdk.local.pachyderm.rules import branches, commits, history, repos
from pdk.local.pachyderm.rules.model import BranchRef, CommitRef, RepoRef
from pdk.local.pachyderm.runtime import check, garbage
from pdk.local.pachyderm.runtime.uploads import Upload
from pdk.local.pachyderm.store import tree
from pdk.local.pachyderm.store.blobs import BlobStore
from pdk.local.pachyderm.store.schema import MIGRATIONS

REPO = RepoRef("default", "data")
PATHS = st.sampled_from(["/a", "/b/c", "/b/d", "/b/e/f", "/g"])
CONTENTS = st.sampled_from([b"", b"x", b"yy", b"z" * 3000])
BRANCHES = st.sampled_from(["master", "dev"])


class Store:
    """A database and blobs in a folder of their own."""

    def __init__(self):
        self.open(Path(tempfile.mkdtemp()))
        self.write(partial(repos.create_project, name="default", description="", update=False))
        self.write(partial(repos.create_repo, ref=REPO))

    def open(self, folder):
        """Go on with what lies in a folder."""
        self.folder = folder
        self.db = Database(folder / "db.sqlite", MIGRATIONS)
        self.blobs = BlobStore(folder / "store", self.db.reader)

    def close_files(self):
        self.db.close()
        self.blobs.close()

    def write(self, work):
        return self.db.submit(work).result()

    def modify(self, target, changes):
        """Apply (kind, path, content) changes; the commit."""

        async def work():
            with Upload(self.db, self.blobs) as upload:
                for kind, path, content in changes:
                    if kind == "put":
                        upload.replace(path, content)
                    elif kind == "append":
                        upload.add(path, content)
                    else:
                        upload.delete(path)
                return await upload.commit(target)

        return asyncio.run(work())

    def entries(self, commit):
        """The files of a commit."""
        return tree.files_below(tree.walk(self.db.reader, commits.view(self.db.reader, commit), "/"))

    def contents(self, commit):
        """Path → content of a commit."""
        found = {}
        for entry in self.entries(commit):
            blob = check.find(self.db.reader, entry.hash)
            found[entry.path] = b"".join(self.blobs.read(blob))
        return found

    def problems(self):
        return check.everything(self.db, self.blobs, 1.0)

    def collect(self):
        return asyncio.run(garbage.collect(self.db, self.blobs))

    def close(self):
        self.close_files()
        shutil.rmtree(self.folder)


class Versions(RuleBasedStateMachine):
    """Two branches of one repo."""

    def __init__(self):
        super().__init__()
        self.store = Store()
        self.heads = {}  # branch → ID of its head
        self.held = {}  # ID → path → content
        self.parents = {}  # ID → ID
        self.open = set()

    def teardown(self):
        self.store.close()

    @initialize()
    def first(self):
        self.put("master", "put", "/a", b"x")

    def target(self, branch):
        return CommitRef(REPO, branch=branch)

    @staticmethod
    def choose(data, among):
        """One of them by number: IDs are random, and would make no run like the other."""
        return among[data.draw(st.integers(0, len(among) - 1))]

    @rule(branch=BRANCHES, kind=st.sampled_from(["put", "append", "delete"]), path=PATHS, content=CONTENTS)
    def put(self, branch, kind, path, content):
        head = self.heads.get(branch)
        now = dict(self.held.get(head, {}))
        if kind == "delete":
            now.pop(path, None)
        else:
            now[path] = (now.get(path, b"") if kind == "append" else b"") + content
        commit = self.store.modify(self.target(branch), [(kind, path, content)])
        if head in self.open:
            assert commit.id == head
        else:
            self.parents[commit.id] = head
        self.heads[branch], self.held[commit.id] = commit.id, now

    @rule(branch=BRANCHES)
    def delete_everything(self, branch):
        if branch in self.heads:
            commit = self.store.modify(self.target(branch), [("delete", "/", b"")])
            if self.heads[branch] not in self.open:
                self.parents[commit.id] = self.heads[branch]
            self.heads[branch], self.held[commit.id] = commit.id, {}

    @rule(branch=BRANCHES)
    def start(self, branch):
        head = self.heads.get(branch)
        if head in self.open:
            with pytest.raises(PdkError):
                self.store.write(partial(commits.start, ref=BranchRef(REPO, branch)))
            return
        commit = self.store.write(partial(commits.start, ref=BranchRef(REPO, branch)))
        self.parents[commit.id], self.held[commit.id] = head, dict(self.held.get(head, {}))
        self.heads[branch] = commit.id
        self.open.add(commit.id)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def finish(self, data):
        id_ = self.choose(data, [id_ for id_ in self.held if id_ in self.open])
        self.store.write(lambda db: commits.finish(db, commits.resolve(db, CommitRef(REPO, id_))))
        self.open.remove(id_)

    @rule(data=st.data(), branch=BRANCHES)
    def point(self, data, branch):
        closed = [id_ for id_ in self.held if id_ not in self.open]
        if closed and self.heads.get(branch) not in self.open:
            id_ = self.choose(data, closed)
            self.store.write(partial(branches.create, ref=BranchRef(REPO, branch), head=CommitRef(REPO, id_)))
            self.heads[branch] = id_

    @rule(data=st.data(), how=st.sampled_from(["squash", "drop"]))
    def take_out(self, data, how):
        id_ = self.choose(data, list(self.held))
        children = {child for child, parent in self.parents.items() if parent == id_}
        allowed = (children and not children & self.open) if how == "squash" else not children
        work = partial(getattr(history, how), id_=id_)
        if not allowed:
            with pytest.raises(PdkError):
                self.store.write(work)
            return
        self.store.write(work)
        for child in children:
            self.parents[child] = self.parents[id_]
        for branch in [name for name, head in self.heads.items() if head == id_]:
            head = self.store.db.reader.execute("SELECT head FROM branch WHERE name = ?", (branch,)).fetchone()[0]
            commit = commits.by_pk(self.store.db.reader, head)
            if commit.id not in self.held:  # the server made an empty one
                self.held[commit.id], self.parents[commit.id] = {}, None
            self.heads[branch] = commit.id
        del self.held[id_], self.parents[id_]
        self.open.discard(id_)

    @rule()
    def collect(self):
        self.store.collect()

    @invariant()
    def agrees(self):
        reader = self.store.db.reader
        for id_, wanted in self.held.items():
            assert self.store.contents(commits.resolve(reader, CommitRef(REPO, id_))) == wanted
        for branch, id_ in self.heads.items():
            assert commits.resolve(reader, self.target(branch)).id == id_
        assert self.store.problems() == []


Versions.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck))
TestVersions = Versions.TestCase


@pytest.fixture
def store():
    made = Store()
    yield made
    made.close()


def test_one_flipped_bit_is_found(store):
    """In a pack, in a large file, and in what the database says of files and commits."""
    store.modify(CommitRef(REPO, branch="master"), [("put", f"/{number}", bytes([number]) * 500) for number in range(5)])
    store.modify(CommitRef(REPO, branch="master"), [("put", "/large", b"l" * (3 << 20))])
    assert store.problems() == []
    pack = next(store.blobs.packs.iterdir())
    large = next(store.blobs.large.glob("*/*"))
    large.chmod(0o600)
    for path in (pack, large):
        size = path.stat().st_size
        for position in range(0, size, max(1, size // 40)):
            with path.open("r+b") as file:
                file.seek(position)
                byte = file.read(1)[0]
                file.seek(position)
                file.write(bytes([byte ^ 1]))
                file.flush()
                assert store.problems(), f"byte {position} of {path.name}"
                file.seek(position)
                file.write(bytes([byte]))
    assert store.problems() == []
    for change in (
        "UPDATE file SET hash = zeroblob(32) WHERE path = '/1'",
        "UPDATE file SET path = '/1x' WHERE path = '/1'",
        "UPDATE file SET size = size + 1 WHERE path = '/'",
        "UPDATE commits SET hash = zeroblob(32)",
        "UPDATE commits SET parent = 999999 WHERE parent IS NOT NULL",
        "UPDATE branch SET head = 999999",
        "UPDATE blob SET size = size + 1 WHERE pack > 0",
        "DELETE FROM blob WHERE pack = 0",
    ):

        def damage(db, change=change):
            db.execute("PRAGMA defer_foreign_keys = ON")
            db.execute(change)
            found = [*check.contents(db, store.blobs, 1.0), *check.references(db), *check.history(db), *check.provenance(db)]
            raise Found(found)

        with pytest.raises(Found) as error:
            store.write(damage)
        assert error.value.args[0], change
    assert store.problems() == []


class Found(Exception):
    """Takes a damage back."""


def test_garbage_goes_and_what_is_in_use_stays(store):
    target = CommitRef(REPO, branch="master")
    store.modify(target, [("put", "/a", b"a" * 100), ("put", "/big", b"b" * (2 << 20))])
    kept = store.modify(target, [("put", "/a", b"c" * 100), ("delete", "/big", b"")])
    assert store.collect().contents == 0
    first = next(commit for commit in commits.ancestors(store.db.reader, kept) if commit.parent is None)
    store.write(partial(history.squash, id_=first.id))
    with Upload(store.db, store.blobs) as upload:  # a request that is under way refers to one of them
        upload.replace("/again", b"a" * 100)
        upload._close()
        upload.incoming.flush()
        done = store.collect()
        assert (done.contents, done.size) == (1, 2 << 20)
        asyncio.run(upload.commit(target))
    assert not list(store.blobs.large.glob("*/*"))
    assert store.problems() == []
    head = commits.resolve(store.db.reader, target)
    assert store.contents(head) == {"/a": b"c" * 100, "/again": b"a" * 100}


def test_a_pack_that_is_mostly_dead_is_rewritten(store):
    target = CommitRef(REPO, branch="master")
    store.modify(target, [("put", "/keep", b"k" * 50), *(("put", f"/{number}", bytes([number]) * 500) for number in range(20))])
    store.blobs.begin_pack()
    store.modify(target, [("delete", f"/{number}", b"") for number in range(20)])
    first = commits.by_pk(store.db.reader, commits.resolve(store.db.reader, target).parent)
    store.write(partial(history.squash, id_=first.id))
    done = store.collect()
    assert (done.contents, done.packs) == (20, 0)
    assert store.problems() == []
    assert store.collect().packs == 1
    assert store.contents(commits.resolve(store.db.reader, target)) == {"/keep": b"k" * 50}
    assert store.problems() == []
    assert len(list(store.blobs.packs.iterdir())) == 1


def test_two_writers_append_to_one_file(store):
    target = CommitRef(REPO, branch="master")

    async def append(number):
        with Upload(store.db, store.blobs) as upload:
            upload.add("/log", b"%d," % number)
            await upload.commit(target)

    async def everybody():
        await asyncio.gather(*(append(number) for number in range(10)))

    asyncio.run(everybody())
    written = store.contents(commits.resolve(store.db.reader, target))["/log"]
    assert sorted(written.decode().strip(",").split(",")) == sorted(map(str, range(10)))


def test_an_error_of_the_disk_is_told_and_nothing_is_written(store, monkeypatch):
    target = CommitRef(REPO, branch="master")
    store.modify(target, [("put", "/a", b"before")])
    for call in ("write", "fsync"):

        def fail(*_):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(f"pdk.local.pachyderm.store.blobs.os.{call}", fail)
            with pytest.raises(OSError, match="No space left"):
                store.modify(target, [("put", "/b", b"after" * 100)])
        assert store.contents(commits.resolve(store.db.reader, target)) == {"/a": b"before"}
        assert store.problems() == []
