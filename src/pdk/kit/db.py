"""SQLite for one server: numbered migrations, one writer thread, readers that never wait for it and see one moment at a time.

Everything that is acknowledged went through `Database.write`, which returns only after the transaction is on disk (WAL,
synchronous=FULL). Writes that queue up while one is being synced share the next sync: each runs in a savepoint of one transaction,
so an error undoes its own changes and nobody else's.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self, TypeVar

from pdk.errors import NotFound
from pdk.kit.changes import Changes

T = TypeVar("T")
Connection = sqlite3.Connection  # by this name those know it who pass it on and ask it nothing themselves
Work = Callable[[Connection], T]

BUSY_TIMEOUT_S = 60.0  # another process (fsck, a second start) may hold the file for a while
GROUP_LIMIT = 256  # writes that may share one sync; bounds how long the first of them waits


class TurnReader(sqlite3.Connection):
    """Reads of an event loop: all that one of its turns (from `await` to `await`) reads is one moment of the database.

    An answer is made of many statements, and the writer thread may commit between any two of them. Each turn sees every write that
    was acknowledged before it.
    """

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        """As `sqlite3.Connection.execute`; without a running loop each statement stands alone."""
        if not self.in_transaction:
            self._hold()
        return super().execute(sql, parameters)

    def _hold(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        loop.call_soon(self._release)  # before the moment is chosen: whoever a later write wakes comes after it in the loop's queue
        super().execute("BEGIN")

    def _release(self) -> None:
        with contextlib.suppress(sqlite3.ProgrammingError):  # the connection was closed in the same turn
            super().execute("COMMIT")


def connect(path: Path, *, read_only: bool = False, factory: type[sqlite3.Connection] = sqlite3.Connection) -> sqlite3.Connection:
    """Open `path` with the settings that every connection of ours uses (rows by name, explicit transactions)."""
    uri = f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}"
    connection = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, factory=factory)
    connection.row_factory = sqlite3.Row
    if not read_only:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA cache_size=-16384")
    return connection


def damage(connection: sqlite3.Connection, path: Path, *, quick: bool = False) -> Iterator[str]:
    """Say what SQLite finds wrong in the file at `path`; with `quick` without comparing indexes with their tables."""
    try:
        for row in connection.execute("PRAGMA quick_check" if quick else "PRAGMA integrity_check"):
            if row[0] != "ok":
                text = str(row[0]).removeprefix("*** in database main ***\n").replace("\n", "; ")
                yield f"damaged page in {path}: {text}" if "age " in text else f"{path}: {text}"
        for row in () if quick else connection.execute("PRAGMA foreign_key_check"):
            yield f"{path}: a row of {row[0]} ({row[1]}) refers to a row of {row[2]} that is not there"
    except sqlite3.DatabaseError as error:
        yield f"damaged page in {path}: {error}"


def migrate(connection: sqlite3.Connection, migrations: Sequence[str]) -> None:
    """Bring the schema to the newest of `migrations`, each in a transaction together with its own record.

    Migrations are append-only: the index in the sequence is the version.
    """
    connection.execute("CREATE TABLE IF NOT EXISTS migration (version INTEGER PRIMARY KEY, applied TEXT NOT NULL) STRICT")
    done = {row[0] for row in connection.execute("SELECT version FROM migration")}
    for version, script in enumerate(migrations, start=1):
        if version in done:
            continue
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in split_statements(script):
                connection.execute(statement)
            connection.execute("INSERT INTO migration VALUES (?, datetime('now'))", (version,))
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise


def one(db: sqlite3.Connection, sql: str, values: tuple[object, ...], missing: str) -> sqlite3.Row:
    """Return the row that a query is for.

    Raises:
        NotFound: there is none; `missing` says so.
    """
    row: sqlite3.Row | None = db.execute(sql, values).fetchone()
    if row is None:
        raise NotFound(missing)
    return row


def split_statements(script: str) -> list[str]:
    """Split an SQL script at the statements' ends (`executescript` would commit on its own)."""
    statements, current = [], ""
    for line in script.splitlines():
        current += line + "\n"
        if sqlite3.complete_statement(current):
            statements.append(current.strip())
            current = ""
    if current.strip():
        raise ValueError(f"an SQL statement has no end: {current.strip()[:80]!r}")
    return [statement for statement in statements if statement]


class Database:
    """One SQLite file of one server.

    Args:
        path: the file; created with its schema when missing.
        migrations: SQL scripts, oldest first.
    """

    def __init__(self, path: Path, migrations: Sequence[str]) -> None:
        self.path, self.changes = path, Changes()
        self.damage: list[str] = []  # found by `examine`
        self._writer = connect(path)
        migrate(self._writer, migrations)
        self.reader = connect(path, read_only=True, factory=TurnReader)
        self._queue: queue.SimpleQueue[tuple[Work[Any], Future[Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"db-writer-{path.stem}", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def examine(self) -> None:
        """Have SQLite look at every page, for `health`; that takes about a second for a gigabyte, beside everything else."""

        def look() -> list[str]:
            with self.own_reader() as connection:
                return list(damage(connection, self.path, quick=True))

        self.damage = await asyncio.to_thread(look)

    def health(self) -> str:
        """Say what is wrong with the file, for /healthz; empty where nothing is."""
        if self.damage:
            more = f" (and {len(self.damage) - 1} more)" if len(self.damage) > 1 else ""
            return f"{self.damage[0]}{more}; stop `pdk up` and bring {self.path.name} back from a backup"
        try:
            self.reader.execute("SELECT 1 FROM migration LIMIT 1").fetchone()
        except sqlite3.Error as error:
            return f"{self.path}: {error}"
        return ""

    def close(self) -> None:
        """Finish the queued writes and close the file."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()
            self.reader.close()
            self._writer.close()  # the last one: it takes what the write-ahead log holds into the file

    def submit(self, work: Work[T]) -> Future[T]:
        """Queue `work`; the future resolves once its changes are on disk, or with the error that it raised."""
        future: Future[T] = Future()
        self._queue.put((work, future))
        return future

    async def write(self, work: Work[T]) -> T:
        """Run `work(connection)` in a transaction on the writer thread and wait until it is durable; wakes all who watch `changes`."""
        try:
            return await asyncio.wrap_future(self.submit(work))
        finally:
            self.changes.notify()

    @contextlib.contextmanager
    def own_reader(self) -> Iterator[sqlite3.Connection]:
        """Give a connection for reads in another thread than the event loop's."""
        connection = connect(self.path, read_only=True)
        try:
            yield connection
        finally:
            connection.close()

    def _run(self) -> None:
        stopping = False
        while not stopping:
            batch = [self._queue.get()]
            while len(batch) < GROUP_LIMIT and not self._queue.empty():
                batch.append(self._queue.get())
            stopping = None in batch
            self._commit([item for item in batch if item is not None])

    def _commit(self, batch: list[tuple[Work[Any], Future[Any]]]) -> None:
        if not batch:
            return
        outcomes: list[tuple[Future[Any], Any, BaseException | None]] = []
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            for work, future in batch:
                if not future.set_running_or_notify_cancel():
                    continue
                self._writer.execute("SAVEPOINT work")
                try:
                    outcomes.append((future, work(self._writer), None))
                except Exception as error:  # noqa: BLE001 - it is handed to whoever waits for this write
                    self._writer.execute("ROLLBACK TO work")
                    outcomes.append((future, None, error))
                self._writer.execute("RELEASE work")
            self._writer.execute("COMMIT")
        except sqlite3.Error as error:  # disk full, I/O error: nothing of this batch is on disk
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            outcomes = [(future, None, error) for _, future in batch if not future.cancelled()]
        for future, result, error_or_none in outcomes:
            if error_or_none is None:
                future.set_result(result)
            else:
                future.set_exception(error_or_none)
