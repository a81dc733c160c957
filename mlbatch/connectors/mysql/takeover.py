"""Ends the connections of a sleeper, so that whoever takes its table over need not wait for it.

A worker that is stopped inside a transaction holds its part's row, and the take-over waits for that
row. So each worker's connection is on record beside the ledger. It is ended only while it is the
recorded one beyond doubt, since ids begin anew with every start of a server: the server, the id, the
user and the client's address must be the same, and so must the moment of connecting. Servers do not
tell that one; a lock with a random name stands for it, which nobody else ever takes, which ends with
the connection, and whose holder the server names. Locks of this kind block nothing.
"""

from __future__ import annotations

import secrets
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

import pymysql

from mlbatch.connectors.database.ledger_on_demand import LedgerOnDemand
from mlbatch.connectors.mysql.address import connect_to_writer, scalar
from mlbatch.connectors.mysql.faults import is_lock_wait, translated
from mlbatch.errors import TemporaryError
from mlbatch.generation import beside

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlbatch.connectors.database.store import Database
    from mlbatch.connectors.mysql.address import LoadingConnection, MysqlAddress
    from mlbatch.ledger import Lease, Owner, Run

_SERVER = "CONCAT(@@hostname, ':', @@port, ':', @@server_id)"
_RECORD = f"""
INSERT INTO mlbatch_connection
  (output_table, generation, token, run_id, server, connection_id, user_name, client, connected_at)
SELECT %s, %s, %s, %s, {_SERVER}, id, user, host, UTC_TIMESTAMP(6)
  FROM information_schema.processlist WHERE id = CONNECTION_ID()
"""  # noqa: S608  constants
_RECORDED = f"""
SELECT token, connection_id, user_name, client
     , TIMESTAMPDIFF(SECOND, connected_at, UTC_TIMESTAMP(6)) AS age
  FROM mlbatch_connection WHERE output_table = %s AND generation = %s AND server = {_SERVER}
"""  # noqa: S608  constants
# How long it has been as it is now cannot be longer than it is there.
_LIVING = "SELECT user, host, time FROM information_schema.processlist WHERE id = %s"
_FORGET = "DELETE FROM mlbatch_connection WHERE output_table = %s AND generation = %s"


def record(connection: LoadingConnection, run: Run) -> None:
    """Put a worker's new connection on record, before it holds anything that others wait for."""
    token = f"mlbatch-{secrets.token_hex(16)}"
    scalar(connection, "SELECT GET_LOCK(%s, 0)", token)
    with closing(connection.cursor()) as cursor:
        of_whom = (run.new.output_table, run.new.generation, token, run.run_id)
        cursor.execute(_RECORD, of_whom)


class MysqlLedger(LedgerOnDemand):
    """`mlbatch.sink.Ledger` on MySQL, whose take-over ends what it would wait for."""

    def __init__(self, address: MysqlAddress, database: Database) -> None:
        """``database`` is the one at ``address``."""
        super().__init__(database)
        self._address = address

    def acquire(
        self, output_table: str, job: str, owner: Owner, epoch: int, generation: str | None = None
    ) -> Lease:
        """See `mlbatch.sink.Ledger.acquire`."""
        try:
            lease = super().acquire(output_table, job, owner, epoch, generation)
        except TemporaryError as error:
            wanted = generation or self.serving(output_table)
            if not is_lock_wait(error) or not self._end_sleepers(output_table, wanted, owner):
                raise
            lease = super().acquire(output_table, job, owner, epoch, generation)
        self._forget(lease)
        return lease

    def _forget(self, lease: Lease) -> None:
        """Who had the table before holds nothing any more; if this fails, the next lease does it."""
        with (
            suppress(TemporaryError),
            translated(self._address),
            closing(connect_to_writer(self._address)) as connection,
        ):
            _execute(connection, _FORGET, lease.output_table, lease.generation)

    def _end_sleepers(self, output_table: str, generation: str, owner: Owner) -> bool:
        """Whether there were connections of an owner that is gone, and they are ended now."""
        serves = generation == self.serving(output_table)
        table = output_table if serves else beside(output_table, generation)
        with (
            translated(self._address),
            closing(connect_to_writer(self._address)) as connection,
        ):
            # Read before the lease: who takes the table meanwhile is not among them.
            found = list(_sleepers(connection, output_table, generation))
            holder = self.holder(table)
            if holder is not None and holder.owner_id != owner.owner_id:
                return False
            return sum(_end(connection, number) for number in found) > 0


def _sleepers(connection: LoadingConnection, output_table: str, generation: str) -> Iterator[int]:
    """Ids of the recorded connections of a generation that are still the same ones."""
    recorded = _execute(connection, _RECORDED, output_table, generation)
    for token, number, user, client, age in recorded:
        living = _execute(connection, _LIVING, number)
        holds = scalar(connection, "SELECT IS_USED_LOCK(%s)", token) == number
        if holds and living and living[0][:2] == (user, client) and living[0][2] <= age + 1:
            yield number


def _end(connection: LoadingConnection, number: int) -> bool:
    try:
        connection.query(f"KILL CONNECTION {number:d}")
    except (pymysql.err.OperationalError, pymysql.err.InternalError):
        # It has ended by itself, or belongs to a user that is no longer ours.
        return False
    return True


def _execute(
    connection: LoadingConnection, statement: str, *arguments: object
) -> tuple[tuple[Any, ...], ...]:
    with closing(connection.cursor()) as cursor:
        cursor.execute(statement, arguments)
        rows: tuple[tuple[Any, ...], ...] = cursor.fetchall()
    return rows
