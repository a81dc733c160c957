"""The reading of runs, each question by an index of its own kind.

A table has thousands of runs after some years, each with the text of its query: who wants one run,
or the last few, must not be given all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import case, func, select

from mlbatch.connectors.database.run_rows import UNFINISHED, run_of
from mlbatch.connectors.database.store import Store
from mlbatch.connectors.database.tables import RUN
from mlbatch.ledger import RunKind, RunState

if TYPE_CHECKING:
    from sqlalchemy import Connection, Select

    from mlbatch.ledger import Run


class RunReader(Store):
    """The part of `mlbatch.sink.Ledger` that reads runs."""

    def run(self, run_id: str) -> Run | None:
        """See `mlbatch.sink.Ledger.run`."""
        return next(iter(self._read(select(RUN).where(RUN.c.run_id == run_id))), None)

    def runs(
        self,
        output_table: str | None = None,
        generation: str | None = None,
        limit: int | None = None,
    ) -> tuple[Run, ...]:
        """See `mlbatch.sink.Ledger.runs`."""
        query = select(RUN).order_by(RUN.c.created_at.desc())
        if output_table is not None:
            # By number: a clock that was set back would bring an older run to the front.
            query = select(RUN).order_by(RUN.c.run_no.desc())
            query = query.where(RUN.c.output_table == output_table)
        if generation is not None:
            query = query.where(RUN.c.generation == generation)
        return self._read(query.limit(limit))

    def latest(self, output_table: str, generation: str) -> tuple[Run, ...]:
        """See `mlbatch.sink.Ledger.latest`."""
        of_generation = (RUN.c.output_table == output_table) & (RUN.c.generation == generation)
        done = select(RUN.c.run_no).where(
            of_generation,
            RUN.c.state == RunState.DONE.value,
            RUN.c.kind != RunKind.REPAIR.value,
        )
        query = select(RUN).where(of_generation).order_by(RUN.c.run_no.desc())
        with self._database.reading() as connection:
            # Backwards through the numbers to the first that fits. As a part of the other statement
            # it would make MariaDB read all runs; MAX() reads all that are done.
            last = connection.scalar(done.order_by(RUN.c.run_no.desc()).limit(1))
            return _runs(connection, query.where(RUN.c.run_no >= (last or 0)))

    def done(self, job: str, generation: str, slot: str) -> Run | None:
        """See `mlbatch.sink.Ledger.done`."""
        query = select(RUN).where(
            RUN.c.job == job,
            RUN.c.generation == generation,
            # All there are: the unique key has the kind before the slot.
            RUN.c.kind.in_([kind.value for kind in RunKind]),
            RUN.c.slot == slot,
            RUN.c.state == RunState.DONE.value,
        )
        return next(iter(self._read(query.order_by(RUN.c.run_no.desc()).limit(1))), None)

    def untracked(self, output_table: str) -> tuple[Run, ...]:
        """See `mlbatch.sink.Ledger.untracked`."""
        query = select(RUN).where(
            RUN.c.output_table == output_table,
            RUN.c.state == RunState.DONE.value,
            RUN.c.tracking_run_id.is_(None),
        )
        return self._read(query.order_by(RUN.c.run_no))

    def count(self) -> tuple[int, int]:
        """See `mlbatch.sink.Ledger.count`."""
        unfinished = func.sum(case((RUN.c.state.in_(UNFINISHED), 1), else_=0))
        with self._database.reading() as connection:
            runs, left = connection.execute(select(func.count(), unfinished)).one()
        return int(runs), int(left or 0)

    def _read(self, query: Select[Any]) -> tuple[Run, ...]:
        with self._database.reading() as connection:
            return _runs(connection, query)


def _runs(connection: Connection, query: Select[Any]) -> tuple[Run, ...]:
    return tuple(run_of(row) for row in connection.execute(query).mappings())
