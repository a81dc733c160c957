"""SQLite as sink: outputs and ledger in one file, on a local disk.

One file, because a write-ahead log over attached files is not atomic. Writers queue: a transaction
begins with the write lock, and each batch is scored before its transaction begins.
"""

from __future__ import annotations

import functools
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
from sqlalchemy import Connection, Engine, create_engine, event, inspect
from sqlalchemy.exc import DBAPIError

from mlbatch.checksum import checksum
from mlbatch.connectors.database.generation_store import begin_switch, end_switch, renames
from mlbatch.connectors.database.ledger_on_demand import LedgerOnDemand
from mlbatch.connectors.database.migration import (
    drop_beside,
    index_of_runs,
    index_runs,
    migrate,
)
from mlbatch.connectors.database.part_rows import (
    move_values,
    part_state,
    quarantine_values,
)
from mlbatch.connectors.database.rows import to_arrow
from mlbatch.connectors.database.tables import storable
from mlbatch.errors import Fenced, MlbatchError, NoAccess, OutOfResources, RunFailed, TemporaryError
from mlbatch.failpoint import reach
from mlbatch.ledger import BatchCommit, Lease, PartState, Run, taken_over
from mlbatch.sql import quote_identifier
from mlbatch.table import RUN_NO, OutputTable
from mlbatch.throttle import Pressure

BUSY_SECONDS = 30
FETCH_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class SqliteSink:
    """`mlbatch.sink.Sink` in the file ``path``."""

    path: Path

    def about(self) -> str:
        """See `mlbatch.sink.Sink.about`."""
        return f"SQLite {sqlite3.sqlite_version} in {self.path}"

    def prepare(self, table: OutputTable, like: str | None = None) -> str:
        """See `mlbatch.sink.Sink.prepare`."""
        with SqliteDatabase(self.path).writing() as connection:
            there = set(inspect(connection).get_table_names())
            migrate(connection, table)
            if like in there and table.name not in there:
                _copy_indexes(connection, table.name, like)
            index = None if table.name in there else _index_of_runs(table.name)
            advice = index_runs(connection, table.name, index)
        return f"upserts into {self.path.name}{advice}"

    def ledger(self) -> LedgerOnDemand:
        """See `mlbatch.sink.Sink.ledger`."""
        return LedgerOnDemand(SqliteDatabase(self.path), self.path.exists)

    @contextmanager
    def session(self, table: OutputTable, run: Run) -> Iterator[SqlitePartSession]:
        """See `mlbatch.sink.Sink.session`."""
        with _translated(self.path):
            connection = _connect(self.path)
            try:
                yield SqlitePartSession(connection, table, run)
            finally:
                connection.close()

    def settle(self, output_table: str) -> None:
        """See `mlbatch.sink.Sink.settle`; here a switch is one transaction, so none is half done."""

    def swap(self, old: Lease, new: Lease) -> None:
        """See `mlbatch.sink.Sink.swap`."""
        database = SqliteDatabase(self.path)
        with database.writing() as connection:
            begin_switch(connection, old, new)
            reach("before_rename")
            for name, becomes in renames(old, new):
                _rename(connection, name, becomes)
            reach("after_rename")
            end_switch(connection, old.output_table, database.now())
        reach("after_active")

    def holds(self, table: str) -> bool:
        """See `mlbatch.sink.Sink.holds`."""
        if not self.path.exists():
            return False
        with SqliteDatabase(self.path).reading() as connection:
            return inspect(connection).has_table(table)

    def count(self, table: str) -> int:
        """See `mlbatch.sink.Sink.count`."""
        with _translated(self.path), closing(_connect(self.path)) as connection:
            query = f"SELECT COUNT(*) FROM {quote_identifier(table)}"  # noqa: S608
            return int(connection.execute(query).fetchone()[0])

    def drop(self, lease: Lease) -> None:
        """See `mlbatch.sink.Sink.drop`."""
        with SqliteDatabase(self.path).writing() as connection:
            drop_beside(connection, lease)

    def checksum(self, table: OutputTable, run_no: int) -> tuple[int, int]:
        """See `mlbatch.sink.Sink.checksum`."""
        rows = total = 0
        for batch in self._batches(table, run_no):
            rows += batch.num_rows
            total += checksum(batch, table.checked)
        return rows, total

    def rows(self, table: OutputTable, *, run_no: int | None = None) -> pa.RecordBatchReader:
        """See `mlbatch.sink.Sink.rows`."""
        return pa.RecordBatchReader.from_batches(table.schema, self._batches(table, run_no))

    def _batches(self, table: OutputTable, run_no: int | None) -> Iterator[pa.RecordBatch]:
        where = "" if run_no is None else " WHERE run_no = ?"
        names = ", ".join(quote_identifier(name) for name in table.schema.names)
        order = ", ".join(quote_identifier(name) for name in table.key)
        query = f"SELECT {names} FROM {quote_identifier(table.name)}{where} ORDER BY {order}"  # noqa: S608
        with _translated(self.path), closing(_connect(self.path)) as connection:
            cursor = connection.execute(query, () if run_no is None else (run_no,))
            while rows := cursor.fetchmany(FETCH_ROWS):
                yield to_arrow(rows, table.schema)


def _copy_indexes(connection: Connection, name: str, like: str) -> None:
    """Those of whole columns; their names are the file's, so each generation has its own."""
    for index in inspect(connection).get_indexes(like):
        columns = index["column_names"]
        if all(columns) and not index["unique"]:
            base = re.sub(r"__g[0-9]+$", "", str(index["name"]))
            told = quote_identifier(f"{base}__{name.rpartition('__')[2]}")
            names = ", ".join(quote_identifier(str(column)) for column in columns)
            statement = f"CREATE INDEX {told} ON {quote_identifier(name)} ({names})"
            connection.exec_driver_sql(statement)


def _index_of_runs(name: str) -> str:
    index, column = quote_identifier(index_of_runs(name)), quote_identifier(RUN_NO.name)
    # Where a table that people renamed has an index of this name, there is none, which works too.
    return f"CREATE INDEX IF NOT EXISTS {index} ON {quote_identifier(name)} ({column})"


def _rename(connection: Connection, name: str, becomes: str) -> None:
    # Otherwise SQLite would make the readers' views follow the table instead of the name.
    connection.exec_driver_sql("PRAGMA legacy_alter_table = ON")
    try:
        told = f"ALTER TABLE {quote_identifier(name)} RENAME TO {quote_identifier(becomes)}"
        connection.exec_driver_sql(told)
    finally:
        connection.exec_driver_sql("PRAGMA legacy_alter_table = OFF")


def _connect(path: Path) -> sqlite3.Connection:
    # A worker's session is used by one thread after another, never by two at once.
    connection = sqlite3.connect(
        path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection


def _roll_back(connection: sqlite3.Connection) -> None:
    # Where disk or memory ran out, SQLite may have done so itself. The first error says what happened.
    if connection.in_transaction:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")


class SqliteDatabase:
    """`mlbatch.connectors.database.store.Database` over one file."""

    def __init__(self, path: Path) -> None:
        """The file is made when it is missing; its folder must be writable."""
        self._path = path

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection that takes no write lock."""
        with _translated(self._path), _engine(self._path, os.getpid()).connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction that holds the write lock from its first statement on."""
        with self.reading() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                _roll_back(cast("sqlite3.Connection", connection.connection.dbapi_connection))
                raise
            connection.exec_driver_sql("COMMIT")

    def now(self) -> datetime:
        """This machine's clock: an embedded database has no other."""
        return datetime.now(UTC)


@functools.lru_cache(maxsize=16)
def _engine(path: Path, pid: int) -> Engine:  # noqa: ARG001  a forked child must not share connections
    path.parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": BUSY_SECONDS})

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")

    return engine


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """The one place where SQLite's errors become ours."""
    try:
        yield
    except DBAPIError as error:
        raise _translate(error.orig or error, path) from error
    except sqlite3.Error as error:
        raise _translate(error, path) from error


def _translate(error: BaseException, path: Path) -> MlbatchError:
    if "locked" in str(error) or "busy" in str(error):
        message = f"{path} has been locked by another process for {BUSY_SECONDS} s"
        hint = "`mlbatch status` names who holds the lease; a stopped process blocks all writers"
        return TemporaryError(message, hint=hint)
    if _is_shortage(error, path):
        hint = "nothing of the open batch was written; make room, then run again: it goes on"
        return OutOfResources(f"{path}: {error}", hint=hint)
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
        hint = f"let this account write {path} and its folder: SQLite does so for readers too"
        return NoAccess(f"{path}: {error}", hint=hint)
    hint = "nothing of the open batch was written; run again once the cause is mended"
    return RunFailed(f"{path}: {error}", hint=hint)


def _is_shortage(error: BaseException, path: Path) -> bool:
    """Whether disk, memory or file descriptors have run out, by SQLite's primary result code."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    # A file that is there and may be written cannot be opened: then it is the process that may not.
    is_ours = code == sqlite3.SQLITE_CANTOPEN and os.access(path, os.R_OK | os.W_OK)
    return is_ours or code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM)


class SqlitePartSession:
    """`mlbatch.sink.PartSession` on a connection of its own."""

    def __init__(self, connection: sqlite3.Connection, table: OutputTable, run: Run) -> None:
        """``connection`` is in autocommit mode; the session brackets its own transactions."""
        self._connection = connection
        self._run = run
        self._upsert = _upsert_statement(table)
        keys = " AND ".join(f"{quote_identifier(name)} = ?" for name in table.key)
        self._delete = f"DELETE FROM {quote_identifier(table.name)} WHERE {keys}"  # noqa: S608

    def position(self, part_number: int) -> PartState:
        """See `mlbatch.sink.PartSession.position`."""
        row = self._part(part_number)
        if row["epoch"] != self._run.epoch:
            raise self._fenced(part_number)
        return part_state(row)

    def _part(self, part_number: int) -> dict[str, Any]:
        cursor = self._connection.execute(
            "SELECT * FROM mlbatch_part WHERE run_id = ? AND part_no = ?",
            (self._run.run_id, part_number),
        )
        names = [column[0] for column in cursor.description]
        return dict(zip(names, cursor.fetchone(), strict=True))

    def commit(self, batch: BatchCommit) -> None:
        """See `mlbatch.sink.PartSession.commit`."""
        with self._transaction():
            self._move(batch)
            reach("after_move")
            self._connection.executemany(self._upsert, _tuples(batch.upserts))
            reach("after_rows")
            self._connection.executemany(self._delete, _tuples(batch.deletes))
            self._connection.executemany(_QUARANTINE, quarantine_values(self._run, batch))
            reach("before_commit")
        reach("after_commit")

    def pressure(self) -> Pressure:
        """See `mlbatch.sink.PartSession.pressure`; a file is never under any."""
        return Pressure()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            _roll_back(self._connection)
            raise
        self._connection.execute("COMMIT")

    def _move(self, batch: BatchCommit) -> None:
        moved = self._connection.execute(_MOVE, move_values(self._run, batch))
        if moved.rowcount != 1:
            raise self._fenced(batch.part_number)

    def _fenced(self, part_number: int) -> Fenced:
        return taken_over(f"part {part_number} of run {self._run.run_id}")


# The checksum wraps by hand: SQLite turns an integer overflow into an inexact REAL.
_MOVE = """
UPDATE mlbatch_part
   SET done = :high
     , written = written + :written
     , deleted = deleted + :deleted
     , quarantined = quarantined + :quarantined
     , filtered = filtered + :filtered
     , checksum = CASE WHEN checksum > 9223372036854775807 - :checksum
                       THEN checksum - 9223372036854775807 - 1 + :checksum
                       ELSE checksum + :checksum END
 WHERE run_id = :run_id AND part_no = :part_no AND epoch = :epoch AND done = :low
"""

_QUARANTINE = """
INSERT INTO mlbatch_quarantine (run_id, part_no, row_offset, entity_key, reason, detail)
VALUES (?, ?, ?, ?, ?, ?)
"""


def _upsert_statement(table: OutputTable) -> str:
    names = [quote_identifier(name) for name in table.schema.names]
    keys = [quote_identifier(name) for name in table.key]
    changes = ", ".join(f"{n} = excluded.{n}" for n in names if n not in keys)
    marks = ", ".join("?" * len(names))
    target = f"INSERT INTO {quote_identifier(table.name)} ({', '.join(names)}) VALUES ({marks})"  # noqa: S608
    return f"{target} ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {changes}"


def _tuples(batch: pa.RecordBatch) -> Iterator[tuple[object, ...]]:
    columns = [_values(column) for column in batch.columns]
    return zip(*columns, strict=True)


def _values(column: pa.Array) -> list[object]:
    if pa.types.is_timestamp(column.type):
        return list(column.cast(pa.timestamp("us")).cast(pa.int64()).to_pylist())
    if pa.types.is_date(column.type):
        return [storable(value) for value in column.to_pylist()]
    return list(column.to_pylist())
