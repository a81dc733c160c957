"""The ledger in SQL, the same for every database that SQLAlchemy speaks to.

Each method is one transaction. Statements touch rows in primary key order.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from sqlalchemy import func, insert, select, update

from mlbatch.connectors.database.generation_store import GenerationStore, serve
from mlbatch.connectors.database.lease_store import LeaseStore, free, hold
from mlbatch.connectors.database.part_rows import part_state
from mlbatch.connectors.database.run_reader import RunReader
from mlbatch.connectors.database.run_rows import new_values, run_of
from mlbatch.connectors.database.store import put
from mlbatch.connectors.database.tables import LEASE, PART, QUARANTINE, RUN, STRIKES, WATERMARK
from mlbatch.failpoint import reach
from mlbatch.ledger import (
    Lease,
    NewRun,
    PartState,
    Progress,
    QuarantinedRow,
    Run,
    RunState,
    Strikes,
    check_through,
    check_transition,
    taken_over,
)
from mlbatch.window import Watermark

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

    from mlbatch.snapshot import Snapshot


class LedgerStore(LeaseStore, GenerationStore, RunReader):
    """`mlbatch.sink.Ledger` over SQLAlchemy."""

    def create(self, lease: Lease, new: NewRun) -> Run:
        """See `mlbatch.sink.Ledger.create`."""
        with self._database.writing() as connection:
            # Two generations may begin runs at once, and their numbers must differ.
            table = select(LEASE).where(LEASE.c.output_table == new.output_table)
            connection.execute(table.with_for_update()).all()
            hold(connection, lease, new.run_id)
            values = new_values(new) | {
                **_numbers(connection, new),
                "state": RunState.CREATED.value,
                "epoch": lease.epoch,
                "attempts": 0,
                "created_at": self._database.now(),
            }
            connection.execute(insert(RUN).values(values))
            return _read(connection, new.run_id)

    def advance(self, run: Run, to: RunState) -> Run:
        """See `mlbatch.sink.Ledger.advance`."""
        check_transition(run.state, to)
        return self._change(run, state=to.value)

    def attempt(self, run: Run, unload_attempt: str) -> Run:
        """See `mlbatch.sink.Ledger.attempt`."""
        check_transition(run.state, RunState.UNLOADING)
        return self._change(
            run,
            state=RunState.UNLOADING.value,
            unload_attempt=unload_attempt,
            attempts=run.attempts + 1,
        )

    def tracked(self, run: Run, tracking_run_id: str) -> Run:
        """See `mlbatch.sink.Ledger.tracked`."""
        with self._database.writing() as connection:
            connection.execute(
                update(RUN)
                .where(RUN.c.run_id == run.run_id)
                .values(tracking_run_id=tracking_run_id)
            )
        return replace(run, tracking_run_id=tracking_run_id)

    def _change(self, run: Run, **values: object) -> Run:
        with self._database.writing() as connection:
            _update(connection, run, values)
            return _read(connection, run.run_id)

    def adopt(self, run: Run, snapshot: Snapshot) -> Run:
        """See `mlbatch.sink.Ledger.adopt`."""
        check_transition(run.state, RunState.PLANNED)
        rows = [
            {
                "run_id": run.run_id,
                "part_no": part.number,
                "uri": part.uri,
                "etag": part.etag,
                "bytes": part.bytes,
                "rows_expected": part.rows,
                "epoch": run.epoch,
            }
            | dict.fromkeys(_COUNTERS, 0)
            for part in snapshot.parts
        ]
        values = {
            "state": RunState.PLANNED.value,
            "snapshot_digest": snapshot.fingerprint,
            "highest_cursor": snapshot.highest_cursor,
            "rows_expected": snapshot.rows,
        }
        with self._database.writing() as connection:
            _update(connection, run, values)
            reach("in_adopt")
            if rows:
                connection.execute(insert(PART), rows)
            return _read(connection, run.run_id)

    def verify(self, run: Run) -> tuple[Run, tuple[PartState, ...]]:
        """See `mlbatch.sink.Ledger.verify`."""
        with self._database.writing() as connection:
            # One transaction, or a fail-over between the two could take back a part of a run that is
            # said to be through. So whoever still finds VERIFYING finds all that was written before.
            parts = _parts(connection, run.run_id)
            check_through(run, parts)
            if run.state is RunState.WRITING:
                _update(connection, run, {"state": RunState.VERIFYING.value})
            # Not read again: a row that nobody locked may have another's epoch by now.
            return replace(run, state=RunState.VERIFYING), parts

    def finish(self, run: Run, watermark: Watermark | None, epoch: int) -> Run:
        """See `mlbatch.sink.Ledger.finish`."""
        check_transition(run.state, RunState.DONE)
        new = run.new
        with self._database.writing() as connection:
            values = {"state": RunState.DONE.value, "finished_at": self._database.now()}
            _leave(connection, run, values, epoch)
            reach("in_finish")
            mark = {"watermark": watermark.value if watermark else None, "run_id": run.run_id}
            put(connection, WATERMARK, {"job": new.job, "generation": new.generation}, mark)
            serve(connection, new)
            free(connection, new.output_table, new.generation, run.epoch, epoch)
            return _read(connection, run.run_id)

    def give_up(self, run: Run, state: RunState, reason: str, epoch: int) -> Run:
        """See `mlbatch.sink.Ledger.give_up`."""
        check_transition(run.state, state)
        values = {"state": state.value, "error": reason, "finished_at": self._database.now()}
        with self._database.writing() as connection:
            _leave(connection, run, values, epoch)
            return _read(connection, run.run_id)

    def parts(self, run_id: str) -> tuple[PartState, ...]:
        """See `mlbatch.sink.Ledger.parts`."""
        with self._database.reading() as connection:
            return _parts(connection, run_id)

    def progress(self, run_id: str) -> Progress:
        """See `mlbatch.sink.Ledger.progress`."""
        sums = [
            func.sum(column) for column in (PART.c.rows_expected, PART.c.done, PART.c.quarantined)
        ]
        query = select(func.count(), *sums).where(PART.c.run_id == run_id)
        with self._database.reading() as connection:
            return Progress(*[int(value or 0) for value in connection.execute(query).one()])

    def strike(self, run: Run, strikes: Strikes) -> None:
        """See `mlbatch.sink.Ledger.strike`."""
        values = asdict(strikes)
        key = {"run_id": run.run_id, "part_no": values.pop("part_number")}
        epoch = select(RUN.c.epoch).where(RUN.c.run_id == run.run_id).with_for_update()
        with self._database.writing() as connection:
            if connection.scalar(epoch) != run.epoch:
                raise taken_over(f"run {run.run_id}")
            put(connection, STRIKES, key, values)

    def strikes(self, run_id: str) -> tuple[Strikes, ...]:
        """See `mlbatch.sink.Ledger.strikes`."""
        query = select(STRIKES).where(STRIKES.c.run_id == run_id).order_by(STRIKES.c.part_no)
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        return tuple(Strikes(*row[1:]) for row in rows)

    def quarantined(self, run_id: str, limit: int) -> tuple[QuarantinedRow, ...]:
        """See `mlbatch.sink.Ledger.quarantined`."""
        query = (
            select(QUARANTINE)
            .where(QUARANTINE.c.run_id == run_id)
            .order_by(QUARANTINE.c.part_no, QUARANTINE.c.row_offset)
            .limit(limit)
        )
        with self._database.reading() as connection:
            rows = connection.execute(query).mappings().all()
        return tuple(
            QuarantinedRow(r["row_offset"], r["entity_key"], r["reason"], r["detail"]) for r in rows
        )

    def watermark(self, job: str, generation: str) -> Watermark | None:
        """See `mlbatch.sink.Ledger.watermark`."""
        query = select(WATERMARK.c.watermark).where(
            WATERMARK.c.job == job, WATERMARK.c.generation == generation
        )
        with self._database.reading() as connection:
            value = connection.scalar(query)
        return None if value is None else Watermark(value)


_COUNTERS = ("done", "written", "deleted", "quarantined", "filtered", "checksum")


def _numbers(connection: Connection, new: NewRun) -> dict[str, int]:
    last = connection.scalar(
        select(func.max(RUN.c.run_no)).where(RUN.c.output_table == new.output_table)
    )
    same_slot = connection.scalar(
        select(func.count()).where(
            RUN.c.job == new.job,
            RUN.c.generation == new.generation,
            RUN.c.kind == new.kind.value,
            RUN.c.slot == new.slot,
        )
    )
    return {"run_no": (last or 0) + 1, "retry_no": same_slot or 0}


def _read(connection: Connection, run_id: str) -> Run:
    return run_of(connection.execute(select(RUN).where(RUN.c.run_id == run_id)).mappings().one())


def _parts(connection: Connection, run_id: str) -> tuple[PartState, ...]:
    query = select(PART).where(PART.c.run_id == run_id).order_by(PART.c.part_no)
    return tuple(part_state(row) for row in connection.execute(query).mappings())


def _update(connection: Connection, run: Run, values: Mapping[str, object]) -> None:
    changed = connection.execute(
        update(RUN)
        .where(RUN.c.run_id == run.run_id, RUN.c.epoch == run.epoch, RUN.c.state == run.state.value)
        .values(**values)
    )
    if changed.rowcount != 1:
        raise taken_over(f"run {run.run_id}")


def _leave(connection: Connection, run: Run, values: Mapping[str, object], epoch: int) -> None:
    """A run's last change: whoever still works on it finds another epoch."""
    _update(connection, run, {**values, "epoch": epoch})
    connection.execute(update(PART).where(PART.c.run_id == run.run_id).values(epoch=epoch))
