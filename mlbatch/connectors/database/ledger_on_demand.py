"""A ledger whose tables the first lease makes: whoever only reads creates nothing.

Without tables every answer is that of an empty ledger, so a user with SELECT alone may read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import inspect
from sqlalchemy.schema import CreateTable

from mlbatch.connectors.database.ledger_store import LedgerStore
from mlbatch.connectors.database.tables import (
    ACTIVE,
    GENERATION,
    LEASE,
    METADATA,
    PART,
    QUARANTINE,
    RUN,
    STRIKES,
    WATERMARK,
)
from mlbatch.ledger import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from sqlalchemy import Table

    from mlbatch.connectors.database.store import Database
    from mlbatch.generation import Active, Generation
    from mlbatch.ledger import Lease, Owner, PartState, QuarantinedRow, Run, Strikes
    from mlbatch.window import Watermark


class LedgerOnDemand(LedgerStore):
    """`mlbatch.sink.Ledger` in a database that may not have it yet."""

    def __init__(self, database: Database, is_there: Callable[[], bool] = lambda: True) -> None:
        """``is_there`` tells, without making it, whether there is a database at all."""
        super().__init__(database)
        self._is_there = is_there
        self._tables: frozenset[str] = frozenset()

    def _has(self, table: Table) -> bool:
        if table.name not in self._tables and self._is_there():
            with self._database.reading() as connection:
                self._tables = frozenset(inspect(connection).get_table_names())
        return table.name in self._tables

    def acquire(
        self, output_table: str, job: str, owner: Owner, epoch: int, generation: str | None = None
    ) -> Lease:
        """See `mlbatch.sink.Ledger.acquire`."""
        if not all(self._has(table) for table in METADATA.sorted_tables):
            with self._database.writing() as connection:
                # Several first starts may be here at once.
                for table in METADATA.sorted_tables:
                    connection.execute(CreateTable(table, if_not_exists=True))
        return super().acquire(output_table, job, owner, epoch, generation)

    def run(self, run_id: str) -> Run | None:
        """See `mlbatch.sink.Ledger.run`."""
        return super().run(run_id) if self._has(RUN) else None

    def runs(
        self,
        output_table: str | None = None,
        generation: str | None = None,
        limit: int | None = None,
    ) -> tuple[Run, ...]:
        """See `mlbatch.sink.Ledger.runs`."""
        return super().runs(output_table, generation, limit) if self._has(RUN) else ()

    def latest(self, output_table: str, generation: str) -> tuple[Run, ...]:
        """See `mlbatch.sink.Ledger.latest`."""
        return super().latest(output_table, generation) if self._has(RUN) else ()

    def done(self, job: str, generation: str, slot: str) -> Run | None:
        """See `mlbatch.sink.Ledger.done`."""
        return super().done(job, generation, slot) if self._has(RUN) else None

    def untracked(self, output_table: str) -> tuple[Run, ...]:
        """See `mlbatch.sink.Ledger.untracked`."""
        return super().untracked(output_table) if self._has(RUN) else ()

    def count(self) -> tuple[int, int]:
        """See `mlbatch.sink.Ledger.count`."""
        return super().count() if self._has(RUN) else (0, 0)

    def parts(self, run_id: str) -> tuple[PartState, ...]:
        """See `mlbatch.sink.Ledger.parts`."""
        return super().parts(run_id) if self._has(PART) else ()

    def progress(self, run_id: str) -> Progress:
        """See `mlbatch.sink.Ledger.progress`."""
        return super().progress(run_id) if self._has(PART) else Progress()

    def strikes(self, run_id: str) -> tuple[Strikes, ...]:
        """See `mlbatch.sink.Ledger.strikes`."""
        return super().strikes(run_id) if self._has(STRIKES) else ()

    def quarantined(self, run_id: str, limit: int) -> tuple[QuarantinedRow, ...]:
        """See `mlbatch.sink.Ledger.quarantined`."""
        return super().quarantined(run_id, limit) if self._has(QUARANTINE) else ()

    def keys_set_aside(
        self, output_table: str, generation: str, *, before: int | None = None
    ) -> Iterator[tuple[str, datetime | None]]:
        """See `mlbatch.sink.Ledger.keys_set_aside`."""
        has_any = self._has(QUARANTINE) and self._has(RUN)
        if not has_any:
            return iter(())
        return super().keys_set_aside(output_table, generation, before=before)

    def watermark(self, job: str, generation: str) -> Watermark | None:
        """See `mlbatch.sink.Ledger.watermark`."""
        return super().watermark(job, generation) if self._has(WATERMARK) else None

    def holder(self, output_table: str) -> Owner | None:
        """See `mlbatch.sink.Ledger.holder`."""
        return super().holder(output_table) if self._has(LEASE) else None

    def active(self, output_table: str) -> Active | None:
        """See `mlbatch.sink.Ledger.active`."""
        return super().active(output_table) if self._has(ACTIVE) else None

    def generations(self, output_table: str) -> tuple[Generation, ...]:
        """See `mlbatch.sink.Ledger.generations`."""
        return super().generations(output_table) if self._has(GENERATION) else ()
