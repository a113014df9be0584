"""SQLite: migrations, grouped writes, errors that undo their own work only."""

import asyncio
import sqlite3

import pytest

from pdk.kit.db import Database, connect, migrate, split_statements

TABLE = "CREATE TABLE t (x INTEGER PRIMARY KEY) STRICT;"


def test_migrations_apply_once_and_can_be_repeated(tmp_path):
    for _ in range(2):
        with Database(tmp_path / "a.sqlite", [TABLE, "ALTER TABLE t ADD COLUMN y TEXT;"]) as db:
            assert [row[0] for row in db.reader.execute("SELECT version FROM migration ORDER BY version")] == [1, 2]


def test_a_migration_that_fails_half_way_leaves_nothing(tmp_path):
    connection = connect(tmp_path / "a.sqlite")
    with pytest.raises(sqlite3.Error):
        migrate(connection, [TABLE, "CREATE TABLE u (x INTEGER); CREATE TABLE t (x INTEGER);\nSELECT nothing FROM nowhere;"])
    names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert names == {"migration", "t"}
    migrate(connection, [TABLE, "CREATE TABLE u (x INTEGER);"])
    connection.close()


def test_statement_without_end_is_refused():
    with pytest.raises(ValueError, match="no end"):
        split_statements("CREATE TABLE t (x INTEGER)")


def test_a_failing_write_undoes_only_itself(tmp_path):
    async def main():
        with Database(tmp_path / "a.sqlite", [TABLE]) as db:

            def bad(connection):
                connection.execute("INSERT INTO t VALUES (100)")
                raise KeyError("no")

            works = [lambda c, n=n: c.execute("INSERT INTO t VALUES (?)", (n,)).lastrowid for n in range(5)]
            results = await asyncio.gather(*map(db.write, [*works[:2], bad, *works[2:]]), return_exceptions=True)
            assert [r for r in results if not isinstance(r, KeyError)] == list(range(5))
            assert sum(isinstance(r, KeyError) for r in results) == 1
            assert [row[0] for row in db.reader.execute("SELECT x FROM t ORDER BY x")] == list(range(5))
            with db.own_reader() as another:
                assert another.execute("SELECT count(*) FROM t").fetchone()[0] == 5

    asyncio.run(main())


def test_what_one_turn_of_the_loop_reads_is_one_moment(tmp_path):
    async def main():
        with Database(tmp_path / "a.sqlite", [TABLE]) as db:

            def count():
                return db.reader.execute("SELECT count(*) FROM t").fetchone()[0]

            assert count() == 0
            db.submit(lambda c: c.execute("INSERT INTO t VALUES (1)")).result()  # on disk, in the same turn
            assert count() == 0
            await asyncio.sleep(0)
            assert count() == 1

    asyncio.run(main())


def test_whoever_waited_for_a_write_sees_it(tmp_path):
    async def main():
        with Database(tmp_path / "a.sqlite", [TABLE]) as db:

            async def one(n):
                for x in range(n * 100, n * 100 + 100):
                    db.reader.execute("SELECT count(*) FROM t").fetchone()
                    await db.write(lambda c, x=x: c.execute("INSERT INTO t VALUES (?)", (x,)))
                    assert db.reader.execute("SELECT 1 FROM t WHERE x = ?", (x,)).fetchone()

            await asyncio.gather(*map(one, range(20)))

    asyncio.run(main())
