"""A repo of a million files, and a disk that is full."""

import asyncio
import contextlib
import itertools
import os
import re
import shutil
import sqlite3
from pathlib import Path

import pytest

from pdk.errors import EngineError
from pdk.kit.db import Database
from pdk.local.pachyderm.rules import commits, files
from pdk.local.pachyderm.rules.model import BranchRef, CommitRef
from pdk.local.pachyderm.runtime.uploads import Upload
from pdk.local.pachyderm.store import tree
from pdk.local.pachyderm.store.blobs import BlobStore, digest
from pdk.local.pachyderm.store.schema import MIGRATIONS
from unit.local.test_versions import REPO, Store

FILES = 1_000_000
STEPS = 100_000  # of SQLite's virtual machine; reading every row of the repo once takes a hundred times as many


@contextlib.contextmanager
def few_steps(connection):
    """Fails a query that does not get along with few steps."""
    steps = itertools.count(1)
    connection.set_progress_handler(lambda: next(steps) > STEPS // 1000, 1000)
    yield
    connection.set_progress_handler(None, 0)


def test_a_million_files_are_not_all_read():
    store = Store()
    try:
        content = digest(b"x")

        def fill(db):
            commit = commits.start(db, BranchRef(REPO, "master"))
            writer = tree.Writer(db, commit.lineage, commit.seq)
            for number in range(FILES):
                writer.put(f"/{number // 10_000:02}/{number // 100 % 100:02}/{number % 100:02}", content, 1)
            writer.close()
            return commits.finish(db, commit)

        first = store.write(fill)
        second = store.modify(CommitRef(REPO, branch="master"), [("put", "/31/41/59", b"changed"), ("delete", "/27/18/28", b"")])
        with Database(store.folder / "db.sqlite", MIGRATIONS) as opened:
            db = opened.reader
            with few_steps(db):
                old, new = (commits.view(db, commits.resolve(db, CommitRef(REPO, id=commit.id))) for commit in (first, second))
                assert tree.root(db, new).files == FILES - 1
                assert len(list(tree.children(db, new, "/"))) == 100
                assert len(list(files.listing(db, second, "/31/41"))) == 100
                assert len(list(files.glob(db, new, "/50/0*/99"))) == 10
                assert len(list(files.glob(db, new, "/(5)0/@(0|1)?/{7,8}9"))) == 40
                first_page = itertools.islice(tree.walk(db, new, "/"), 100)
                assert [entry.path for entry in first_page][:4] == ["/", "/00/", "/00/00/", "/00/00/00"]
                differing = [(now or was).path for was, now in tree.diff(db, old, new)]
                assert differing == ["/", "/27/", "/27/18/", "/27/18/28", "/31/", "/31/41/", "/31/41/59"]
            with pytest.raises(Exception, match="interrupted"), few_steps(db):  # the measure measures
                list(tree.walk(db, new, "/"))
    finally:
        store.close()


@pytest.mark.parametrize("size", [1000, 300_000, 3 << 20])
def test_a_full_disk_refuses_and_harms_nothing(small_disk, size):
    store = Store()
    try:
        store.close_files()
        shutil.move(store.folder, small_disk / "all")
        store.open(small_disk / "all")
        kept, commit, refusal = {}, None, ""
        for number in itertools.count():
            content = bytes([number % 256]) * size + b"%d" % number
            try:
                commit = store.modify(CommitRef(REPO, branch="master"), [("put", f"/{number}", content)])
            except (OSError, sqlite3.Error, EngineError) as error:
                refusal = str(error)
                break
            kept[f"/{number}"] = content
        assert kept
        assert re.search("full|No space", refusal)
        assert store.problems() == []
        assert store.contents(commit) == kept
        store.close_files()
        store.open(small_disk / "all")  # as after a restart
        assert store.problems() == []
        assert store.contents(commit) == kept
    finally:
        store.close()


def test_an_upload_that_finds_the_disk_full_leaves_nothing(small_disk):
    with Database(Path(small_disk) / "db.sqlite", MIGRATIONS) as db:
        blobs = BlobStore(small_disk / "store", db.reader)

        async def upload():
            with Upload(db, blobs) as incoming:
                for _ in range(64):
                    incoming.add("/large", os.urandom(1 << 20))

        with pytest.raises(OSError, match="No space left"):
            asyncio.run(upload())
        assert list(blobs.incoming.iterdir()) == []
    blobs.close()
