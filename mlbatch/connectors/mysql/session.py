"""One worker's connection for the parts of one run: the part-exact commit on MySQL.

A commit whose reply is lost may have happened or not. It is neither repeated nor believed: a new
connection reads the part's row under its lock, which waits for whatever the old connection may
still be doing, and that row says what happened.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any, TypeVar

import pymysql
import stamina

from mlbatch.connectors.database.part_rows import (
    move_values,
    part_state,
    quarantine_values,
)
from mlbatch.connectors.mysql import statements, takeover
from mlbatch.connectors.mysql.address import (
    LoadingConnection,
    MysqlAddress,
    connect_to_writer,
    scalar,
)
from mlbatch.connectors.mysql.faults import LACKS_RIGHT, is_passing, number, translate
from mlbatch.connectors.mysql.statements import Way
from mlbatch.connectors.mysql.text import load_text, value_lists
from mlbatch.errors import Fenced, MlbatchError, RunFailed, SettingsError, TemporaryError
from mlbatch.failpoint import reach
from mlbatch.ledger import BatchCommit, PartState, Run, moved, taken_over
from mlbatch.table import OutputTable
from mlbatch.throttle import Pressure

REDO_SECONDS = 90.0
"""How long a batch is tried: Aurora's fail-over takes 30 to 60 s."""
ANSWER_SECONDS = 30.0
"""A batch's statement that takes longer counts as lost: time is left to try it elsewhere."""
_DEPRECATED_SYNTAX = 1287
_NOT_HEEDED = "throttle.history_length is not heeded; grant the user PROCESS"
_log = logging.getLogger("mlbatch")

Result = TypeVar("Result")


class _AgainError(Exception):
    """Nothing is known to be wrong with the batch itself."""


def _connect(address: MysqlAddress) -> LoadingConnection:
    return connect_to_writer(address, answer_seconds=ANSWER_SECONDS)


class MysqlPartSession:
    """`mlbatch.sink.PartSession` on a private connection, which is replaced when it is lost."""

    def __init__(
        self,
        address: MysqlAddress,
        table: OutputTable,
        run: Run,
        way: Way | None = None,
        *,
        lag_query: str | None = None,
        tells_history: bool = False,
        open_connection: Callable[[MysqlAddress], LoadingConnection] = _connect,
    ) -> None:
        """Nothing is opened yet; without ``way``, each connection is asked which one it allows."""
        self._address, self._table, self._run = address, table, run
        self._given, self._lag_query, self._tells_history = way, lag_query, tells_history
        self._way = way or Way.ROWS
        self._open = open_connection
        self._connection: LoadingConnection | None = None

    def close(self) -> None:
        """Give the connection up; the server rolls back what is open on it."""
        if self._connection is not None:
            with suppress(pymysql.err.Error, OSError):
                self._connection.close()
            self._connection = None

    def position(self, part_number: int) -> PartState:
        """See `mlbatch.sink.PartSession.position`."""
        return self._patiently(lambda _: self._read_position(part_number), part_number)

    def commit(self, batch: BatchCommit) -> None:
        """See `mlbatch.sink.PartSession.commit`."""
        self._patiently(
            lambda attempt: self._commit_unless_applied(batch, attempt), batch.part_number
        )

    def pressure(self) -> Pressure:
        """See `mlbatch.sink.PartSession.pressure`; what is lost here, the next commit finds out."""
        try:
            connection = self._connected()
            lag = _lag(connection, self._lag_query) if self._lag_query else None
            with closing(connection.cursor()) as cursor:
                cursor.execute(statements.THREADS_RUNNING)
                threads = int(cursor.fetchone()[1])
            history = self._history(connection) if self._tells_history else None
            connection.commit()
        except (pymysql.err.Error, OSError, TemporaryError) as error:
            self.close()
            if isinstance(error, TemporaryError) or is_passing(error):
                return Pressure()
            raise translate(error, self._address) from error
        return Pressure(lag, threads, history)

    def _history(self, connection: LoadingConnection) -> int | None:
        with closing(connection.cursor()) as cursor:
            cursor.execute(statements.HISTORY_STATUS)
            status = cursor.fetchone()
        try:
            length = status[1] if status else scalar(connection, statements.HISTORY_METRIC)
        except pymysql.err.Error as error:
            if number(error) != LACKS_RIGHT:
                raise
            length = None
        if length is None:
            self._tells_history = False
            _tell_once(f"{self._address} does not tell its history list's length: {_NOT_HEEDED}")
        return None if length is None else int(length)

    def _patiently(self, work: Callable[[int], Result], part_number: int) -> Result:
        """Call ``work(attempt)`` until it comes through, on a new connection each time it is lost."""
        try:
            for attempt in stamina.retry_context(
                on=_AgainError, attempts=None, timeout=REDO_SECONDS, wait_max=5.0
            ):
                with attempt, self._discarding(part_number):
                    return work(attempt.num)
        except _AgainError as error:
            cause = error.__cause__ or error
            if isinstance(cause, MlbatchError):
                raise cause from None
            raise translate(cause, self._address) from cause
        raise AssertionError  # the loop returns or raises

    @contextmanager
    def _discarding(self, part_number: int) -> Iterator[None]:
        """After any error the connection is closed, which rolls back, whatever state it was in."""
        try:
            yield
        except (pymysql.err.Error, OSError) as error:
            self.close()
            if is_passing(error):
                raise _AgainError from error
            new = self._run.new
            writing = f"part {part_number} of {new.job}'s run {new.run_id} in {self._table.name}"
            raise translate(error, self._address, writing) from error
        except MlbatchError as error:
            self.close()
            if isinstance(error, TemporaryError) and not isinstance(error, Fenced):
                raise _AgainError from error
            raise

    def _read_position(self, part_number: int) -> PartState:
        with self._transaction() as connection:
            row = self._part(connection, part_number)
        return part_state(row)

    def _part(self, connection: LoadingConnection, part_number: int) -> dict[str, Any]:
        with closing(connection.cursor(pymysql.cursors.DictCursor)) as cursor:
            cursor.execute(statements.PART, (self._run.run_id, part_number))
            row = cursor.fetchone()
        if row is None or row["epoch"] != self._run.epoch:
            raise self._fenced(part_number)
        return row

    def _commit_unless_applied(self, batch: BatchCommit, attempt: int) -> None:
        with self._transaction() as connection:
            if attempt > 1 and self._part(connection, batch.part_number)["done"] >= batch.high:
                return
            self._move(connection, batch)
            reach("after_move")
            self._write(connection, batch)
            reach("after_rows")
            self._remove(connection, batch)
            reach("before_commit")
        reach("after_commit")

    @contextmanager
    def _transaction(self) -> Iterator[LoadingConnection]:
        connection = self._connected()
        connection.begin()
        yield connection
        connection.commit()

    def _connected(self) -> LoadingConnection:
        if self._connection is None:
            self._connection = self._open(self._address)
            takeover.record(self._connection, self._run)
            if self._given is None:
                self._way = way_into(self._connection, self._address, self._table)
        return self._connection

    def _move(self, connection: LoadingConnection, batch: BatchCommit) -> None:
        with closing(connection.cursor()) as cursor:
            if cursor.execute(statements.MOVE, move_values(self._run, batch)) == 1:
                return
        raise moved(self._run, batch, self._part(connection, batch.part_number)["done"])

    def _write(self, connection: LoadingConnection, batch: BatchCommit) -> None:
        if not batch.upserts.num_rows:
            return
        if self._way is Way.LOAD:
            connection.load_data = load_text(batch.upserts)
            self._run_strictly(connection, statements.load(self._table))
            return
        for values in value_lists(batch.upserts):
            self._run_strictly(connection, statements.upsert(self._table, values))

    def _remove(self, connection: LoadingConnection, batch: BatchCommit) -> None:
        if batch.deletes.num_rows:
            for values in value_lists(batch.deletes):
                connection.query(statements.delete(self._table, values))
        if batch.quarantined:
            with closing(connection.cursor()) as cursor:
                cursor.executemany(statements.QUARANTINE, list(quarantine_values(self._run, batch)))

    def _run_strictly(self, connection: LoadingConnection, statement: str) -> None:
        """LOAD DATA LOCAL turns bad values into warnings; here every warning is an error."""
        with closing(connection.cursor()) as cursor:
            cursor.execute(statement)
            if not cursor.warning_count:
                return
            cursor.execute("SHOW WARNINGS")
            told = [row for row in cursor.fetchall() if row[1] != _DEPRECATED_SYNTAX]
        if told:
            _, code, text = told[0]
            message = f"MySQL at {self._address}: writing {self._table.name} warns: {code} {text}"
            raise RunFailed(message, hint="nothing of the open batch was written")

    def _fenced(self, part_number: int) -> Fenced:
        return taken_over(f"part {part_number} of run {self._run.run_id}")


@functools.cache
def _tell_once(line: str) -> None:
    """For all parts that a process works on."""
    _log.warning(line)


def _lag(connection: LoadingConnection, query: str) -> float | None:
    """What ``query`` says; one that cannot be asked is a mistake, not the absence of lag."""
    try:
        lag = scalar(connection, query)
        return None if lag is None else float(lag)
    except (pymysql.err.Error, ValueError, TypeError) as error:
        if isinstance(error, pymysql.err.Error) and is_passing(error):
            raise
        message = f"sink.lag_query tells no seconds: {error}"
        raise SettingsError(message, hint="it must be a SELECT of one number") from error


def way_into(connection: LoadingConnection, address: MysqlAddress, table: OutputTable) -> Way:
    """How rows travel into ``table``, as server, settings and the table itself allow."""
    if not address.local_infile or not scalar(connection, "SELECT @@local_infile"):
        return Way.ROWS
    with closing(connection.cursor()) as cursor:
        cursor.execute(statements.COLUMNS, (table.name,))
        found = {row[0] for row in cursor.fetchall()}
    others = (statements.TRIGGERS, statements.CHILDREN)
    is_disturbed = any(scalar(connection, count, table.name) for count in others)
    is_ours_alone = found == set(table.schema.names) and not is_disturbed
    return Way.LOAD if is_ours_alone else Way.ROWS
