"""The versioned file index against a model of plain dictionaries."""

import hashlib
import sqlite3

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, multiple, rule

from pdk.kit.db import migrate
from pdk.local.pachyderm.store import tree
from pdk.local.pachyderm.store.schema import MIGRATIONS

PATHS = st.sampled_from(["/a", "/b/c", "/b/d", "/b/e/f", "/g/h", "/g/i/j/k", "/b.x", "/b0"])
CONTENT = st.sampled_from([hashlib.sha256(bytes([n])).digest() for n in range(4)])


def expected(files):
    """Entries of a commit that holds `files` (path → hash), folders included."""
    entries = {path: (tree.FILE, 7, content, 1) for path, content in files.items()}
    for path in files:
        folder = tree.parent_of(path)
        while folder:
            below = {p: c for p, c in files.items() if p.startswith(folder)}
            total = sum(tree.element(p[len(folder) :], c) for p, c in below.items()) % tree.MODULUS
            entries[folder] = (tree.FOLDER, 7 * len(below), total.to_bytes(32, "big"), len(below))
            folder = tree.parent_of(folder)
    return entries


class Histories(RuleBasedStateMachine):
    """Random commits on random parents: every commit always reads as the dictionary that it was made from."""

    commits = Bundle("commits")

    @initialize(target=commits)
    def start(self):
        self.db = sqlite3.connect(":memory:", isolation_level=None)
        self.db.row_factory = sqlite3.Row
        migrate(self.db, MIGRATIONS)
        self.newest = {}
        return self._commit(None, [])

    def teardown(self):
        if hasattr(self, "db"):
            self.db.close()

    def _commit(self, parent, changes):
        if parent is None:
            lineage, seq, files = self.db.execute("INSERT INTO lineage VALUES (NULL, NULL, NULL, NULL)").lastrowid, 1, {}
        else:
            lineage, seq, files = parent[0], parent[1] + 1, dict(parent[2])
            if self.newest[parent[0]] != parent[1]:
                lineage = self.db.execute("INSERT INTO lineage VALUES (NULL, NULL, ?, ?)", parent[:2]).lastrowid
                seq = 1
        self.newest[lineage] = seq
        writer = tree.Writer(self.db, lineage, seq)
        for path, content in changes:
            if path.endswith("/"):
                writer.delete_tree(path)
                files = {p: c for p, c in files.items() if not p.startswith(path)}
            elif content is None:
                writer.delete(path)
                files.pop(path, None)
            else:
                writer.put(path, content, 7)
                files[path] = content
        writer.close()
        return (lineage, seq, tuple(sorted(files.items())))

    @rule(
        target=commits,
        parent=commits,
        changes=st.lists(st.tuples(PATHS, CONTENT | st.none()) | st.tuples(st.sampled_from(["/b/", "/"]), st.none()), max_size=6),
    )
    def commit(self, parent, changes):
        return multiple(self._commit(parent, changes))

    @rule(commit=commits)
    def reads_as_made(self, commit):
        sight, entries = tree.view(self.db, *commit[:2]), expected(dict(commit[2]))
        walked = {e.path: (e.kind, e.size, e.hash, e.files) for e in tree.walk(self.db, sight, "/")}
        assert walked == entries
        assert [*walked] == sorted(walked)
        for folder in [path for path in entries if path.endswith("/")]:
            assert {e.path for e in tree.children(self.db, sight, folder)} == {p for p in entries if tree.parent_of(p) == folder}

    @rule(old=commits, new=commits)
    def difference(self, old, new):
        before, now = expected(dict(old[2])), expected(dict(new[2]))
        found = {(a or b).path for a, b in tree.diff(self.db, tree.view(self.db, *old[:2]), tree.view(self.db, *new[:2]))}
        assert found == {path for path in {*before, *now} if before.get(path) != now.get(path)}


Histories.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck))
TestHistories = Histories.TestCase
