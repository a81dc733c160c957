"""Who may work on which generation, in SQL for every database: leases, and the fences they set."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, fields
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError

from mlbatch.connectors.database.generation_store import place_of
from mlbatch.connectors.database.liveness import is_surely_dead
from mlbatch.connectors.database.run_rows import UNFINISHED
from mlbatch.connectors.database.store import Store
from mlbatch.connectors.database.tables import LEASE, PART, RUN
from mlbatch.errors import Busy, UsageError
from mlbatch.failpoint import reach
from mlbatch.generation import beside
from mlbatch.ledger import Lease, Owner, taken_over

if TYPE_CHECKING:
    from sqlalchemy import Connection, RowMapping

LEASE_SECONDS = 60
_FREE = ""


class LeaseStore(Store):
    """The part of `mlbatch.sink.Ledger` that is about leases."""

    def acquire(
        self, output_table: str, job: str, owner: Owner, epoch: int, generation: str | None = None
    ) -> Lease:
        """See `mlbatch.sink.Ledger.acquire`."""
        with self._database.writing() as connection:
            place = place_of(connection, output_table, generation)
            lease = Lease(output_table, job, epoch, owner, *place)
            _make_free(connection, lease, self._database.now())
        with self._database.writing() as connection:
            row = select(LEASE).where(LEASE.c.output_table == lease.table).with_for_update()
            self._refuse_if_taken(connection.execute(row).mappings().one(), lease)
            if place_of(connection, output_table, generation) != place:
                raise taken_over(f"the lease of {lease.table}")
            values = _owned(lease, self._database.now())
            key = LEASE.c.output_table == lease.table
            connection.execute(update(LEASE).where(key).values(**values))
            reach("in_lease")
            _fence(connection, lease, epoch)
        return lease

    def heartbeat(self, lease: Lease) -> bool:
        """See `mlbatch.sink.Ledger.heartbeat`."""
        with self._database.writing() as connection:
            beat = connection.execute(
                update(LEASE)
                .where(LEASE.c.output_table == lease.table, LEASE.c.epoch == lease.epoch)
                .values(heartbeat_at=self._database.now())
            )
        return bool(beat.rowcount)

    def release(self, lease: Lease, epoch: int) -> None:
        """See `mlbatch.sink.Ledger.release`."""
        with self._database.writing() as connection:
            if free(connection, lease.output_table, lease.generation, lease.epoch, epoch):
                _fence(connection, lease, epoch)

    def holder(self, output_table: str) -> Owner | None:
        """See `mlbatch.sink.Ledger.holder`."""
        query = select(LEASE).where(LEASE.c.output_table == output_table)
        with self._database.reading() as connection:
            held = connection.execute(query).mappings().first()
        if held is None or held["owner_id"] == _FREE:
            return None
        owner = _owner(held)
        return owner if self._has_beaten(held) and not is_surely_dead(owner) else None

    def _refuse_if_taken(self, held: RowMapping, lease: Lease) -> None:
        if held["job"] != lease.job:
            message = f"the table {lease.table} belongs to the job {held['job']}"
            raise UsageError(message, hint="give each job a table of its own")
        owner = _owner(held)
        if owner.owner_id in (_FREE, lease.owner.owner_id) or is_surely_dead(owner):
            return
        if self._has_beaten(held):
            run = f" (run {held['run_id']})" if held["run_id"] else ""
            message = f"{lease.table} is being worked on by {owner}{run}"
            raise Busy(message, hint="it goes on by itself; start again when it is through")

    def _has_beaten(self, held: RowMapping) -> bool:
        """Whether the owner gave a sign of life lately, by the database's own clock.

        One far ahead of it is from before the clock was set back; who lives gives another at once.
        """
        time = timedelta(seconds=held["ttl_seconds"])
        return abs(self._database.now() - held["heartbeat_at"]) < time


def _owner(row: RowMapping) -> Owner:
    return Owner(**{field.name: row[field.name] for field in fields(Owner)})


def _owned(lease: Lease, now: datetime) -> dict[str, object]:
    return asdict(lease.owner) | {
        "job": lease.job,
        "epoch": lease.epoch,
        "heartbeat_at": now,
        "ttl_seconds": LEASE_SECONDS,
    }


def _make_free(connection: Connection, lease: Lease, now: datetime) -> None:
    """A row to lock, in a transaction of its own: of many first starts at once, one inserts it."""
    row = select(LEASE.c.job).where(LEASE.c.output_table == lease.table)
    if connection.scalar(row) is None:
        values = _owned(lease, now) | {"output_table": lease.table, "owner_id": _FREE}
        with suppress(IntegrityError):
            connection.execute(insert(LEASE).values(values))


def _fence(connection: Connection, lease: Lease, epoch: int) -> None:
    """The lease's own generation only: others are worked on beside it."""
    own = (RUN.c.output_table == lease.output_table) & (RUN.c.generation == lease.generation)
    unfinished = own & RUN.c.state.in_(UNFINISHED)
    ids = connection.scalars(select(RUN.c.run_id).where(unfinished).order_by(RUN.c.run_id)).all()
    if ids:
        connection.execute(update(RUN).where(RUN.c.run_id.in_(ids)).values(epoch=epoch))
        connection.execute(update(PART).where(PART.c.run_id.in_(ids)).values(epoch=epoch))


def hold(connection: Connection, lease: Lease, run_id: str) -> None:
    """Note which run the lease is for; Fenced unless it is still ours."""
    held = connection.execute(
        update(LEASE)
        .where(LEASE.c.output_table == lease.table, LEASE.c.epoch == lease.epoch)
        .values(run_id=run_id)
    )
    if held.rowcount != 1:
        raise taken_over(f"the lease of {lease.table}")


def free(connection: Connection, output_table: str, generation: str, mine: int, fresh: int) -> bool:
    """Give the lease with the epoch ``mine`` a ``fresh`` one and no owner; False if it is not there."""
    # Epochs are random, so one that is ours is ours under whichever name the lease was taken.
    names = (output_table, beside(output_table, generation))
    freed = connection.execute(
        update(LEASE)
        .where(LEASE.c.output_table.in_(names), LEASE.c.epoch == mine)
        .values(epoch=fresh, owner_id=_FREE)
    )
    return bool(freed.rowcount)
