"""Looks for rows that the daily delta cannot have seen, and sets right what it finds.

Both ways end in an ordinary run of kind ``repair``: in its turn, under the lease, with the same
commits. A run has so many keys in its query; beyond that everything is read again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from mlbatch.batches import allowing_null, read_part
from mlbatch.creation import fits
from mlbatch.errors import Busy, GateRefused, UsageError
from mlbatch.inference import Inference, infer
from mlbatch.job import Job
from mlbatch.keys import UNREADABLE, is_known, parsed
from mlbatch.ledger import ModelPin, QuarantinedRow, Run, RunState, served
from mlbatch.planner import Repair, Request
from mlbatch.reconciliation import Differences, Excuses, Found, compare_all
from mlbatch.scoring import cursor_in_utc
from mlbatch.snapshot import Snapshot
from mlbatch.table import OutputTable
from mlbatch.tools import Tools
from mlbatch.unloading import take_snapshot
from mlbatch.view import View
from mlbatch.window import Window

MAX_KEYS = 2_000
"""More rows than this are not named in one query, however short their keys are."""
READ_ROWS = 20_000
DELETE_SHARE = 0.01
"""A source that lost more of its rows at once was probably lost itself."""
FEW_DELETES = 10
"""So few may always go, from a table that has twice as many: one in a hundred of a small one is none."""


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What was found, and the runs that mended it."""

    found: Differences
    runs: tuple[Inference, ...] = ()
    """In order; none where nothing was wrong or nothing was to be done."""

    @property
    def run(self) -> Inference | None:
        """The last one."""
        return self.runs[-1] if self.runs else None


def reconcile(
    job: type[Job], tools: Tools, *, dry_run: bool = False, max_deletes: int | None = None
) -> Reconciled:
    """Compare source and table by key, then predict again what is missing, stale or outdated.

    What changed after the watermark is left to the next delta. Where rows were set aside, so many that
    no query names them, each stays so until it changes. Predictions whose row vanished from the source are removed, if they are no more
    than ``max_deletes`` (one in a hundred rows by default, or `FEW_DELETES`); else GateRefused, and
    none is removed.
    Raises UsageError where there is no table yet, or a run of it was left; Busy where one is going on.
    """
    model = served(_quiet_runs(job, tools))
    if not tools.sink.holds(job.output.table.name):
        message = f"there is no table {job.output.table.name} yet to compare with"
        raise UsageError(message, hint=f"make it: mlbatch run {job.name} --mode infer")
    found = _compared(job, tools, model)
    if dry_run or not (found.wanting.count or found.gone.count):
        return Reconciled(found)
    limit = most_deletes(found.table_rows) if max_deletes is None else max_deletes
    return Reconciled(found, tuple(_mended(job, tools, found, model, limit)))


def most_deletes(rows: int) -> int:
    """Of how many of a table's ``rows`` the source may have lost theirs, unless somebody says that it is meant."""
    return max(int(rows * DELETE_SHARE), min(FEW_DELETES, rows // 2))


def _mended(
    job: type[Job], tools: Tools, found: Differences, model: ModelPin | None, limit: int
) -> Iterator[Inference]:
    """Set ``found`` right; more vanished rows than one comparison names take several."""
    while found.wanting.count or found.gone.count:
        refused = refusal(found, limit)
        # What the source has is right however much it lost.
        allowed = replace(found, gone=Found()) if refused else found
        for request in mending(job, allowed):
            yield infer(job, request, tools)
        if refused:
            raise refused
        named = len(found.gone.first)
        if found.gone.count == named:
            return
        # What was allowed in all; each round removes some, so this ends.
        limit -= named
        found = _compared(job, tools, model)


def _compared(
    job: type[Job], tools: Tools, model: ModelPin | None, *, anew: bool = False
) -> Differences:
    """Compare with the table that serves; ``anew``, what was set aside is wanting as well."""
    table = job.output.table
    excuses = excused(job, tools, tools.sink.ledger().serving(table.name))
    if anew:
        excuses = replace(excuses, set_aside=())
    found = compared(job, tools, table, model.version if model else None, excuses)
    if found.wanting.count + found.set_aside.count > MAX_KEYS:
        return found
    # So few are tried each time: the ledger does not know a mended row that came late with an old time.
    missing, wanting = found.missing + found.set_aside, found.wanting + found.set_aside
    return replace(found, missing=missing, wanting=wanting, set_aside=Found())


def excused(job: type[Job], tools: Tools, generation: str) -> Excuses:
    """Rows of a generation that are the next delta's, and those that stay in quarantine."""
    ledger = tools.sink.ledger()
    mark = ledger.watermark(job.name, generation)
    late = mark.value.replace(tzinfo=None) if mark else None
    return Excuses(late, ledger.keys_set_aside(job.output.table.name, generation))


def compared(
    job: type[Job],
    tools: Tools,
    table: OutputTable,
    version: int | None,
    excuses: Excuses,
) -> Differences:
    """Compare the source as it is now with the rows of ``table``; see `compare_all`."""
    key = [column for column in table.columns if column.name in table.key]
    predictions = tools.sink.rows(replace(table, columns=tuple(key)))
    return compare_all(source_rows(job, tools), predictions, table.key, version, excuses)


def retry(job: type[Job], tools: Tools) -> Inference | None:
    """Predict again what the last finished run set aside; None where no such row has a key.

    Rows of a part that could not be read have no known key, and long keys are kept in part: they are
    found by comparing source and table. More rows than a query can name are read with everything else.
    """
    quiet = _quiet_runs(job, tools)
    run_id, rows = _last_aside(quiet, tools)
    types = [job.output.table.schema.field(name).type for name in job.output.table.key]
    told = {row.key: parsed(row.key, types) for row in rows if is_known(row.key, row.reason)}
    keys = tuple(key for key in told.values() if key is not None)
    others, is_compared = 0, any(row.reason == UNREADABLE for row in rows) or None in told.values()
    if is_compared:
        wanting = _compared(job, tools, served(quiet), anew=True).wanting
        keys, others = tuple(dict.fromkeys((*keys, *wanting.first))), wanting.count
    if not keys and (is_compared or len(rows) <= MAX_KEYS):
        return None
    repair = Repair(keys, (), f"{len(keys)} rows that run {run_id} set aside")
    is_many = max(len(rows), len(keys), others) > MAX_KEYS or not all(map(nameable, keys))
    if is_many or not fits(job, repair):
        return infer(job, Request(full=True), tools)
    return infer(job, Request(repair=repair), tools)


def without_key(job: type[Job], tools: Tools) -> int:
    """How many rows the last finished run set aside of which nobody knows the key, up to `MAX_KEYS`."""
    _, rows = _last_aside(_quiet_runs(job, tools), tools)
    return sum(not is_known(row.key, row.reason) for row in rows)


def _last_aside(quiet: tuple[Run, ...], tools: Tools) -> tuple[str, tuple[QuarantinedRow, ...]]:
    """The last finished of the ``quiet`` runs, and what it set aside: a row more than a query names at most."""
    last = next((run.run_id for run in quiet if run.state is RunState.DONE), None)
    return ("", ()) if last is None else (last, tools.sink.ledger().quarantined(last, MAX_KEYS + 1))


def _quiet_runs(job: type[Job], tools: Tools) -> tuple[Run, ...]:
    """The latest runs of the generation that serves, none of them unfinished."""
    ledger, table = tools.sink.ledger(), job.output.table.name
    tools.sink.settle(table)
    runs = ledger.latest(table, ledger.serving(table))
    unfinished = [run for run in runs if not run.state.is_terminal]
    if unfinished:
        holder, run_id = ledger.holder(table), unfinished[0].run_id
        if holder is not None:
            message = f"{table} is being worked on by {holder} (run {run_id})"
            raise Busy(message, hint="start again when it is through")
        message = f"run {run_id} of {table} is unfinished"
        raise UsageError(message, hint=f"finish it first: mlbatch run {job.name} --mode infer")
    return runs


def source_rows(job: type[Job], tools: Tools) -> pa.RecordBatchReader:
    """Key, ``source_at`` and ``alive`` of every row, read as features are: by an unload."""
    view = job.features.view
    columns = [*view.key, str(view.cursor), *([view.tombstone] if view.tombstone else [])]
    select = view.query.windowed(
        Window(), cursor=view.cursor, zone=view.zone, columns=columns, newest_of=view.key
    )
    schema = allowing_null(pa.schema([view.column(name).field for name in columns]))
    batches = read_beside(job, tools, select, schema, purpose="_reconcile")
    keys = [schema.field(name) for name in view.key]
    told = [*keys, ("source_at", pa.timestamp("us")), ("alive", pa.bool_())]
    return pa.RecordBatchReader.from_batches(
        pa.schema(told), (_source_batch(batch, view) for batch in batches)
    )


def _source_batch(batch: pa.RecordBatch, view: View) -> pa.RecordBatch:
    at = cursor_in_utc(batch.column(str(view.cursor)), view.zone)
    everyone = pa.repeat(pa.scalar(value=True), batch.num_rows)
    alive = pc.is_null(batch.column(view.tombstone)) if view.tombstone else everyone
    keys = [batch.column(name) for name in view.key]
    return pa.RecordBatch.from_arrays([*keys, at, alive], [*view.key, "source_at", "alive"])


def read_beside(
    job: type[Job], tools: Tools, select: str, schema: pa.Schema, *, purpose: str
) -> Iterator[pa.RecordBatch]:
    """The rows of ``select`` as they are now, unloaded at once and beside any run.

    The parts, below ``purpose``, are nobody's once they were read, and discarded.
    """
    prefix = f"{tools.storage.prefix}mlbatch/{job.name}/{purpose}/{tools.new_id()}/"
    with ExitStack() as stack:
        stack.callback(tools.storage.discard, prefix)
        snapshot = take_snapshot(tools.warehouse, tools.storage, select, prefix)
        return _read_once(snapshot, tools, schema, stack.pop_all())


def _read_once(
    snapshot: Snapshot, tools: Tools, schema: pa.Schema, afterwards: ExitStack
) -> Iterator[pa.RecordBatch]:
    with afterwards:
        for part in snapshot.parts:
            with tools.storage.open(part.file_uri, etag=part.etag) as file:
                yield from read_part(file, part, schema, batch_rows=READ_ROWS)


def refusal(found: Differences, limit: int) -> GateRefused | None:
    """The error where more rows than ``limit`` vanished from the source."""
    if found.gone.count > limit:
        message = (
            f"{found.gone.count:,} of {found.table_rows:,} predictions have no row in the source, "
            f"more than {limit:,} may be removed at once"
        )
        return GateRefused(message, hint="look at the source; --max-deletes N allows more")
    return None


def nameable(key: tuple[object, ...]) -> bool:
    """Whether a query can name ``key``: there is no way to write a NUL, which only DuckDB has in texts."""
    return not any(isinstance(value, str) and "\0" in value for value in key)


def mending(job: type[Job], found: Differences) -> list[Request]:
    """The runs that set right what was found. One that reads everything removes nothing."""
    counts = {
        "missing": found.missing,
        "stale": found.stale,
        "outdated": found.outdated,
        "gone": found.gone,
    }
    told = ", ".join(f"{kind.count:,} {name}" for name, kind in counts.items() if kind.count)
    is_many = found.wanting.count > MAX_KEYS or not all(map(nameable, found.wanting.first))
    wanting = () if is_many else found.wanting.first
    repair = Repair(wanting, found.gone.first, f"found by reconcile: {told}")
    named = pieces(job, repair) if repair.keys or repair.gone else []
    return [Request(full=True)] * is_many + [Request(repair=piece) for piece in named]


def pieces(job: type[Job], repair: Repair) -> list[Repair]:
    """``repair`` in as few as can be told to a warehouse: no more than `MAX_KEYS`, and short enough."""
    named = len(repair.keys) + len(repair.gone)
    if named <= 1 or (named <= MAX_KEYS and fits(job, repair)):
        return [repair]
    half = (named + 1) // 2
    rest = max(0, half - len(repair.keys))
    first = Repair(repair.keys[:half], repair.gone[:rest], repair.reason)
    second = Repair(repair.keys[half:], repair.gone[rest:], repair.reason)
    return [*pieces(job, first), *pieces(job, second)]
