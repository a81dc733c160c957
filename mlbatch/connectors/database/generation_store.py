"""Which generation of a table serves, and what became of the others, in SQL for every database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import exists, func, or_, select

from mlbatch.connectors.database.store import Store, put
from mlbatch.connectors.database.tables import ACTIVE, GENERATION, LEASE, QUARANTINE, RUN
from mlbatch.errors import TemporaryError
from mlbatch.generation import FIRST, Active, Generation, GenerationState, beside, number
from mlbatch.keys import is_known
from mlbatch.ledger import Lease, RunKind, RunState, taken_over

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Row, Select

    from mlbatch.ledger import NewRun


_OF_KEYS = ("part_no", "row_offset", "entity_key", "reason")
PAGE_ROWS = 10_000
"""Of the quarantine, in memory at once."""


class GenerationStore(Store):
    """The part of `mlbatch.sink.Ledger` that is about generations."""

    def active(self, output_table: str) -> Active | None:
        """See `mlbatch.sink.Ledger.active`."""
        with self._database.reading() as connection:
            return read_active(connection, output_table)

    def serving(self, output_table: str) -> str:
        """See `mlbatch.sink.Ledger.serving`."""
        active = self.active(output_table)
        return active.generation if active else FIRST

    def generations(self, output_table: str) -> tuple[Generation, ...]:
        """See `mlbatch.sink.Ledger.generations`."""
        query = select(GENERATION).where(GENERATION.c.output_table == output_table)
        with self._database.reading() as connection:
            found = [
                Generation(
                    row["generation"],
                    GenerationState(row["state"]),
                    row["model_version"],
                    row["replaced"],
                )
                for row in connection.execute(query).mappings()
            ]
        return tuple(sorted(found, key=lambda generation: number(generation.name)))

    def keys_set_aside(
        self, output_table: str, generation: str, *, before: int | None = None
    ) -> Iterator[tuple[str, datetime | None]]:
        """See `mlbatch.sink.Ledger.keys_set_aside`."""
        with self._database.reading() as connection:
            runs = connection.execute(_setting_aside(output_table, generation)).all()
        for run in (run for run in runs if before is None or run.run_no < before):
            # The warehouse's clock may have been set back since the run before.
            clock = max(run.watermark_high, run.watermark_low or run.watermark_high)
            until = clock if run.state == RunState.DONE.value else None
            last = (-1, -1)
            while rows := self._quarantine_page(run.run_id, *last):
                known = [row.entity_key for row in rows if is_known(row.entity_key, row.reason)]
                yield from ((key, until) for key in known)
                last = rows[-1].part_no, rows[-1].row_offset

    def _quarantine_page(
        self, run_id: str, part_no: int, row_offset: int
    ) -> Sequence[Row[Any, Any, Any]]:
        """What the run set aside after this row. A range of the primary key: no page reads another."""
        of_run = QUARANTINE.c.run_id == run_id
        same = (QUARANTINE.c.part_no == part_no) & (QUARANTINE.c.row_offset > row_offset)
        query = (
            select(*(QUARANTINE.c[name] for name in _OF_KEYS))
            .where(of_run, or_(QUARANTINE.c.part_no > part_no, same))
            .order_by(QUARANTINE.c.part_no, QUARANTINE.c.row_offset)
            .limit(PAGE_ROWS)
        )
        with self._database.reading() as connection:
            return connection.execute(query).all()

    def build(self, lease: Lease, model_version: int) -> None:
        """See `mlbatch.sink.Ledger.build`."""
        values = {"state": GenerationState.BUILDING.value, "model_version": model_version}
        known = {generation.name: generation for generation in self.generations(lease.output_table)}
        here = known.get(lease.generation)
        noted = (here.state, here.model_version) if here else None
        if lease.beside is None or noted not in (None, (GenerationState.BUILDING, model_version)):
            # Another process was faster, since this one looked.
            raise taken_over(f"generation {lease.generation} of {lease.output_table}")
        self._note(lease, values)

    def abandon(self, lease: Lease) -> None:
        """See `mlbatch.sink.Ledger.abandon`."""
        self._note(lease, {"state": GenerationState.ABANDONED.value})

    def _note(self, lease: Lease, values: dict[str, object]) -> None:
        key = {"output_table": lease.output_table, "generation": lease.generation}
        with self._database.writing() as connection:
            check_held(connection, lease)
            put(connection, GENERATION, key, values | {"changed_at": self._database.now()})


def _setting_aside(output_table: str, generation: str) -> Select[Any]:
    """Runs that set rows aside, from the last that read everything on: it looked at older ones anew."""
    here = (RUN.c.output_table == output_table) & (RUN.c.generation == generation)
    everything = RUN.c.kind.in_([RunKind.BACKFILL.value, RunKind.FULL.value])
    done = RUN.c.state == RunState.DONE.value
    first = select(func.coalesce(func.max(RUN.c.run_no), 0)).where(here, everything, done)
    return (
        select(RUN.c.run_no, RUN.c.run_id, RUN.c.state, RUN.c.watermark_low, RUN.c.watermark_high)
        .where(here, RUN.c.run_no >= first.scalar_subquery())
        .where(exists().where(QUARANTINE.c.run_id == RUN.c.run_id))
        .order_by(RUN.c.run_no)
    )


def read_active(connection: Connection, output_table: str, *, lock: bool = False) -> Active | None:
    """The row that says what serves; None in a ledger that has none yet."""
    query = select(ACTIVE).where(ACTIVE.c.output_table == output_table)
    row = connection.execute(query.with_for_update() if lock else query).mappings().first()
    if row is None:
        return None
    return Active(row["generation"], row["model_version"], row["run_id"], row["switching"])


def place_of(
    connection: Connection, output_table: str, generation: str | None
) -> tuple[str, str | None]:
    """The generation, or the one that serves, and its table's own name if it does not serve.

    Raises TemporaryError while a switch is half done: the names may not be what they seem.
    """
    active = read_active(connection, output_table)
    if active is not None and active.switching is not None:
        message = f"a switch of {output_table} to {active.switching} is half done"
        raise TemporaryError(message, hint="start again: it is finished or taken back first")
    serves = active.generation if active else FIRST
    if generation is None or generation == serves:
        return serves, None
    return generation, beside(output_table, generation)


def serve(connection: Connection, new: NewRun) -> None:
    """Note whose model serves, when a run of the generation that serves is finished."""
    active = read_active(connection, new.output_table, lock=True)
    if new.generation == (active.generation if active else FIRST):
        values = {
            "model_version": new.model.version,
            "generation": new.generation,
            "run_id": new.run_id,
        }
        put(connection, ACTIVE, {"output_table": new.output_table}, values)


def check_held(connection: Connection, *leases: Lease) -> None:
    """Lock the leases' rows, by name, and raise Fenced unless all of them are still ours."""
    for lease in sorted(leases, key=lambda lease: lease.table):
        query = select(LEASE.c.epoch).where(LEASE.c.output_table == lease.table)
        if connection.scalar(query.with_for_update()) != lease.epoch:
            raise taken_over(f"the lease of {lease.table}")


def renames(old: Lease, new: Lease) -> tuple[tuple[str, str], ...]:
    """Which table gets which name when ``new`` takes the place of ``old``."""
    table = old.output_table
    return (table, beside(table, old.generation)), (new.table, table)


def begin_switch(connection: Connection, old: Lease, new: Lease) -> None:
    """Note that ``new`` is about to serve instead of ``old``; Fenced unless both leases are held."""
    check_held(connection, old, new)
    if new.beside is None or old.beside is not None:
        raise taken_over(f"the lease of {old.output_table}")
    active = read_active(connection, old.output_table, lock=True)
    values: dict[str, object] = {"switching": new.generation}
    if active is None:
        # A ledger from before there were generations.
        values |= {"generation": old.generation, **_last_done(connection, old.output_table, FIRST)}
    put(connection, ACTIVE, {"output_table": old.output_table}, values)


def end_switch(connection: Connection, output_table: str, now: datetime) -> None:
    """The tables have changed names: say so, once, whoever finds it first."""
    active = read_active(connection, output_table, lock=True)
    if active is None or active.switching is None:
        return
    old, new = active.generation, active.switching
    values = {"generation": new, "switching": None, **_last_done(connection, output_table, new)}
    put(connection, ACTIVE, {"output_table": output_table}, values)
    if number(new) > number(old):
        became = {"state": GenerationState.SERVED.value, "replaced": old, "changed_at": now}
        put(connection, GENERATION, {"output_table": output_table, "generation": new}, became)
    else:
        became = {"state": GenerationState.ROLLED_BACK.value, "changed_at": now}
        put(connection, GENERATION, {"output_table": output_table, "generation": old}, became)


def revert_switch(connection: Connection, output_table: str) -> None:
    """No table has changed its name: the one that served still does."""
    put(connection, ACTIVE, {"output_table": output_table}, {"switching": None})


def _last_done(connection: Connection, output_table: str, generation: str) -> dict[str, object]:
    query = (
        select(RUN.c.run_id, RUN.c.model_version)
        .where(
            RUN.c.output_table == output_table,
            RUN.c.generation == generation,
            RUN.c.state == RunState.DONE.value,
        )
        .order_by(RUN.c.run_no.desc())
        .limit(1)
    )
    return dict(connection.execute(query).mappings().one())
