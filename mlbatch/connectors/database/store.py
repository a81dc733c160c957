"""What every store of control tables stands on: a database, and a row that is put there."""

from __future__ import annotations

from contextlib import AbstractContextManager
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from sqlalchemy import func, insert, select, update

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection, Table


class Database(Protocol):
    """What the stores need of a database."""

    def reading(self) -> AbstractContextManager[Connection]:
        """A connection to read with."""
        ...

    def writing(self) -> AbstractContextManager[Connection]:
        """One transaction, committed when the block ends well."""
        ...

    def now(self) -> datetime:
        """The database's clock, in UTC."""
        ...


class Store:
    """Some of the methods of `mlbatch.sink.Ledger`, each of which is one transaction."""

    def __init__(self, database: Database) -> None:
        """The control tables must exist."""
        self._database = database


def put(
    connection: Connection,
    table: Table,
    key: Mapping[str, object],
    values: Mapping[str, object],
) -> None:
    """Update the row of ``key``, or insert it."""
    matches = [table.c[name] == value for name, value in key.items()]
    # Affected rows do not tell an unchanged row from a missing one on MySQL.
    exists = connection.scalar(select(func.count()).select_from(table).where(*matches))
    if exists:
        connection.execute(update(table).where(*matches).values(**values))
    else:
        connection.execute(insert(table).values(**key, **values))
