"""The sink: tables, ledger and sessions of one MySQL database."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pymysql
from sqlalchemy import Connection, Engine, create_engine, inspect, text

from mlbatch.connectors.database.rows import to_arrow
from mlbatch.connectors.mysql import statements, swapping
from mlbatch.connectors.mysql.address import (
    LoadingConnection,
    MysqlAddress,
    connect,
    connect_to_writer,
    scalar,
)
from mlbatch.connectors.mysql.existing import check_existing
from mlbatch.connectors.mysql.faults import translated
from mlbatch.connectors.mysql.session import MysqlPartSession, way_into
from mlbatch.connectors.mysql.statements import Way
from mlbatch.connectors.mysql.takeover import MysqlLedger
from mlbatch.ledger import Lease, Run
from mlbatch.table import OutputTable

FETCH_ROWS = 10_000
POOL_SECONDS = 20
"""Pooled connections are younger than the session's wait_timeout."""
ADD_UP_SECONDS = 1_800.0
"""The end of a run reads its whole table, which may take minutes where it is large."""


@dataclass(frozen=True, slots=True)
class MysqlSink:
    """`mlbatch.sink.Sink` in the database at ``address``."""

    address: MysqlAddress
    lag_query: str | None = None
    """Says how many seconds the replicas are behind."""
    tells_history: bool = False
    """Whether its sessions ask for the length of InnoDB's history list."""

    def about(self) -> str:
        """See `mlbatch.sink.Sink.about`."""
        with translated(self.address), closing(connect_to_writer(self.address)) as connection:
            server = scalar(connection, "SELECT VERSION()")
            loading = self.address.local_infile and scalar(connection, "SELECT @@local_infile")
        way = Way.LOAD if loading else Way.ROWS
        secure = "TLS, name checked" if self.address.verify_tls else "in the clear"
        return f"{server} at {self.address}, {secure}, writes by {way}"

    def prepare(self, table: OutputTable, like: str | None = None) -> str:
        """See `mlbatch.sink.Sink.prepare`."""
        # Workers never migrate: 9 MB and a tenth of a second that they go without.
        from mlbatch.connectors.database import migration  # noqa: PLC0415

        with MysqlDatabase(self.address).writing() as connection:
            there = set(inspect(connection).get_table_names())
            if like in there and table.name not in there:
                # By way of a rename: who may not do that one day is told before all work.
                for statement in statements.create_like(table.name, like):
                    connection.exec_driver_sql(statement)
            check_existing(connection, table)
            migration.migrate(connection, table)
            index = statements.index_runs(table.name, migration.index_of_runs(table.name))
            is_new = table.name not in there
            advice = migration.index_runs(connection, table.name, index if is_new else None)
        return f"{self.way(table)}{advice}"

    def way(self, table: OutputTable) -> Way:
        """How rows will be written, as server and settings allow."""
        with translated(self.address), closing(connect_to_writer(self.address)) as connection:
            return way_into(connection, self.address, table)

    def ledger(self) -> MysqlLedger:
        """See `mlbatch.sink.Sink.ledger`."""
        return MysqlLedger(self.address, MysqlDatabase(self.address))

    @contextmanager
    def session(self, table: OutputTable, run: Run) -> Iterator[MysqlPartSession]:
        """See `mlbatch.sink.Sink.session`."""
        session = MysqlPartSession(
            self.address,
            table,
            run,
            lag_query=self.lag_query,
            tells_history=self.tells_history,
        )
        try:
            yield session
        finally:
            session.close()

    def settle(self, output_table: str) -> None:
        """See `mlbatch.sink.Sink.settle`."""
        active = self.ledger().active(output_table)
        if active is not None and active.switching is not None:
            swapping.settle(self.address, MysqlDatabase(self.address), output_table)

    def swap(self, old: Lease, new: Lease) -> None:
        """See `mlbatch.sink.Sink.swap`."""
        swapping.swap(self.address, MysqlDatabase(self.address), old, new)

    def holds(self, table: str) -> bool:
        """See `mlbatch.sink.Sink.holds`."""
        with MysqlDatabase(self.address).reading() as connection:
            return inspect(connection).has_table(table)

    def count(self, table: str) -> int:
        """See `mlbatch.sink.Sink.count`."""
        with (
            translated(self.address),
            closing(connect_to_writer(self.address, answer_seconds=ADD_UP_SECONDS)) as connection,
        ):
            return int(scalar(connection, statements.count(table)))

    def drop(self, lease: Lease) -> None:
        """See `mlbatch.sink.Sink.drop`."""
        from mlbatch.connectors.database.migration import drop_beside  # noqa: PLC0415

        with MysqlDatabase(self.address).writing() as connection:
            drop_beside(connection, lease)

    def checksum(self, table: OutputTable, run_no: int) -> tuple[int, int]:
        """See `mlbatch.sink.Sink.checksum`; the server adds up, no row is read back."""
        with (
            translated(self.address),
            closing(connect_to_writer(self.address, answer_seconds=ADD_UP_SECONDS)) as connection,
            closing(connection.cursor()) as cursor,
        ):
            cursor.execute(statements.checksum(table), (run_no,))
            rows, total = cursor.fetchone()
        return rows, int(total)

    def rows(self, table: OutputTable, *, run_no: int | None = None) -> pa.RecordBatchReader:
        """See `mlbatch.sink.Sink.rows`."""
        return pa.RecordBatchReader.from_batches(table.schema, self._batches(table, run_no))

    def _batches(self, table: OutputTable, run_no: int | None) -> Iterator[pa.RecordBatch]:
        query = statements.select(table, of_run=run_no is not None)
        options = {"cursorclass": pymysql.cursors.SSCursor}
        with (
            translated(self.address),
            closing(connect(self.address, **options)) as connection,
            _streaming(connection) as cursor,
        ):
            cursor.execute(query, () if run_no is None else (run_no,))
            while rows := cursor.fetchmany(FETCH_ROWS):
                yield to_arrow(rows, table.schema)


@contextmanager
def _streaming(connection: LoadingConnection) -> Iterator[Any]:
    cursor = connection.cursor()
    try:
        yield cursor
    finally:
        try:
            cursor.close()
        except (pymysql.err.Error, AttributeError):
            # Closing reads what is left, which fails where the connection is lost; and it would be
            # tried again when the cursor is collected.
            cursor._result.unbuffered_active = False  # noqa: SLF001
            cursor.connection = None


class MysqlDatabase:
    """`mlbatch.connectors.database.store.Database` over one server."""

    def __init__(self, address: MysqlAddress) -> None:
        """Nothing is opened yet."""
        self._address = address

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection to read with."""
        with (
            translated(self._address),
            _engine(self._address, os.getpid()).connect() as connection,
        ):
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction on the writer."""
        with translated(self._address), _engine(self._address, os.getpid()).begin() as connection:
            yield connection

    def now(self) -> datetime:
        """The server's clock, in UTC."""
        with self.reading() as connection:
            moment: datetime = connection.execute(text("SELECT UTC_TIMESTAMP(6)")).scalar_one()
        return moment.replace(tzinfo=UTC)


@functools.lru_cache(maxsize=16)
def _engine(address: MysqlAddress, pid: int) -> Engine:  # noqa: ARG001  a forked child must not share connections
    def open_connection() -> LoadingConnection:
        connection = connect_to_writer(address)
        connection.autocommit(False)  # noqa: FBT003  the driver's own signature
        return connection

    with closing(open_connection()) as connection:
        flavour = "mariadb" if "MariaDB" in str(scalar(connection, "SELECT VERSION()")) else "mysql"
    return create_engine(
        f"{flavour}+pymysql://",
        creator=open_connection,
        pool_pre_ping=True,
        pool_recycle=POOL_SECONDS,
    )
