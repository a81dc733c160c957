"""Generations change names on MySQL, where RENAME commits by itself and cannot be rolled back.

So the ledger first says what is about to happen (``switching``), then one statement renames both
tables, then the ledger says that it happened. Whoever comes upon a ``switching`` compares it with
the tables that there are. A rename cannot be fenced by an epoch, since it looks at no row; it is
fenced by its connection, which holds a named lock of the server from before the first step to after
the last: whoever gets the lock knows that nobody's rename is still to come.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING

import pymysql
import stamina

from mlbatch.connectors.database.generation_store import (
    begin_switch,
    end_switch,
    read_active,
    renames,
    revert_switch,
)
from mlbatch.connectors.database.store import Database
from mlbatch.connectors.mysql.address import (
    LoadingConnection,
    MysqlAddress,
    connect_to_writer,
    scalar,
)
from mlbatch.connectors.mysql.faults import number, translated
from mlbatch.errors import Busy, RunFailed
from mlbatch.failpoint import reach
from mlbatch.generation import beside
from mlbatch.sql import quote_identifier

if TYPE_CHECKING:
    from mlbatch.ledger import Lease

LOCK_SECONDS = 10
"""How long another process's switch of the same table is waited for."""
RENAME_SECONDS = 3
"""How long a rename waits for readers, while new readers wait for it; MySQL's default is a year."""
RENAME_ATTEMPTS = 10
_LOCK_WAIT = 1205
_TABLES = (
    "SELECT table_name FROM information_schema.tables"
    " WHERE table_schema = DATABASE() AND table_name IN (%s, %s, %s)"
)


class _ReadersError(Exception):
    """Somebody reads one of the tables in an open transaction."""


def swap(address: MysqlAddress, database: Database, old: Lease, new: Lease) -> None:
    """See `mlbatch.sink.Sink.swap`."""
    with _alone(address, old.output_table) as connection:
        with database.writing() as ledger:
            begin_switch(ledger, old, new)
        reach("before_rename")
        try:
            _rename_patiently(connection, renames(old, new))
        except (pymysql.err.Error, OSError):
            # Where the connection is lost, and with it the lock, this fails too: the next start
            # ends what was begun.
            with suppress(pymysql.err.Error, OSError):
                _conclude(connection, database, old.output_table)
            raise
        reach("after_rename")
        with database.writing() as ledger:
            end_switch(ledger, old.output_table, database.now())
    reach("after_active")


def settle(address: MysqlAddress, database: Database, table: str) -> None:
    """See `mlbatch.sink.Sink.settle`."""
    with _alone(address, table) as connection:
        _conclude(connection, database, table)


@contextmanager
def _alone(address: MysqlAddress, table: str) -> Iterator[LoadingConnection]:
    """A connection that holds the table's named lock; the server frees it with the connection."""
    name = hashlib.sha256(f"{address.database}.{table}".encode()).hexdigest()[:40]
    with translated(address), closing(connect_to_writer(address)) as connection:
        connection.query(f"SET SESSION lock_wait_timeout = {RENAME_SECONDS}")
        if not scalar(connection, "SELECT GET_LOCK(%s, %s)", f"mlbatch:{name}", LOCK_SECONDS):
            message = f"another process is switching {table}"
            raise Busy(message, hint="it goes on by itself; start again when it is through")
        yield connection


def _rename_patiently(connection: LoadingConnection, pairs: tuple[tuple[str, str], ...]) -> None:
    """One statement, so that readers see the one table or the other and never none."""
    try:
        for attempt in stamina.retry_context(
            on=_ReadersError, attempts=RENAME_ATTEMPTS, timeout=None, wait_max=2.0
        ):
            with attempt:
                _rename(connection, pairs)
    except _ReadersError as error:
        raise (error.__cause__ or error) from None


def _rename(connection: LoadingConnection, pairs: tuple[tuple[str, str], ...]) -> None:
    told = ", ".join(f"{quote_identifier(a)} TO {quote_identifier(b)}" for a, b in pairs)
    try:
        connection.query(f"RENAME TABLE {told}")
    except pymysql.err.Error as error:
        if number(error) == _LOCK_WAIT:
            raise _ReadersError from error
        raise


def _conclude(connection: LoadingConnection, database: Database, table: str) -> None:
    """Finish or take back the switch that the ledger tells of, as the tables' names say."""
    with database.writing() as ledger:
        active = read_active(ledger, table, lock=True)
        if active is None or active.switching is None:
            return
        before, after = beside(table, active.generation), beside(table, active.switching)
        with closing(connection.cursor()) as cursor:
            cursor.execute(_TABLES, (table, before, after))
            there = {row[0] for row in cursor.fetchall()}
        if {table, after} <= there:
            revert_switch(ledger, table)
            return
        if there == {before, after}:
            _rename_patiently(connection, ((after, table),))
        elif there != {table, before}:
            message = (
                f"of {table}, {before} and {after} there is: {', '.join(sorted(there)) or 'none'}"
            )
            raise RunFailed(
                message, hint="somebody renamed or dropped one; put it back, start again"
            )
        end_switch(ledger, table, database.now())
