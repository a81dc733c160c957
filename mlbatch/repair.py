"""Looks for rows that the daily delta cannot have seen, and sets right what it finds.

Both ways end in an ordinary run of kind ``repair``: in its turn, under the lease, with the same
commits. A run has so many keys in its query; beyond that everything is read again.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from mlbatch.batches import allowing_null, read_part
from mlbatch.errors import GateRefused, UsageError
from mlbatch.inference import Inference, infer
from mlbatch.job import Job
from mlbatch.ledger import ModelPin, Run, RunState, served
from mlbatch.planner import Repair, Request
from mlbatch.quarantine import UNREADABLE
from mlbatch.reconciliation import Differences, compare
from mlbatch.scoring import cursor_in_utc
from mlbatch.snapshot import Snapshot
from mlbatch.table import OutputTable
from mlbatch.tools import Tools
from mlbatch.unloading import take_snapshot
from mlbatch.window import Window

MAX_KEYS = 2_000
"""More rows than this are not named one by one: the query would not fit a statement."""
READ_ROWS = 50_000
DELETE_SHARE = 0.01
"""A source that lost more of its rows at once was probably lost itself."""


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What was found, and the runs that mended it."""

    found: Differences
    run: Inference | None
    """The last one where it took several; None where nothing was wrong or nothing was to be done."""


def reconcile(
    job: type[Job], tools: Tools, *, dry_run: bool = False, max_deletes: int | None = None
) -> Reconciled:
    """Compare source and table by key, then predict again what is missing, stale or outdated.

    Predictions whose row vanished from the source are removed, if they are no more than
    ``max_deletes`` (one in a hundred rows by default); else GateRefused, and nothing is changed.
    """
    found = _compared(job, tools, served(_quiet_runs(job, tools)))
    if dry_run or not (found.wanting or found.gone):
        return Reconciled(found, None)
    limit = int(found.table_rows * DELETE_SHARE) if max_deletes is None else max_deletes
    _check_deletes(job, found, limit)
    return Reconciled(found, [infer(job, request, tools) for request in mending(found)][-1])


def _compared(job: type[Job], tools: Tools, model: ModelPin | None) -> Differences:
    version = model.version if model else None
    return compare_with(source_rows(job, tools), job.output.table, tools, version)


def compare_with(
    source: pa.Table, table: OutputTable, tools: Tools, version: int | None
) -> Differences:
    """Compare what `source_rows` found with the rows of ``table``; see `reconciliation.compare`."""
    live = source.filter(source["alive"]).drop_columns(["alive"])
    return compare(live, tools.sink.rows(table).read_all(), table.key, version)


def retry(job: type[Job], tools: Tools) -> Inference | None:
    """Predict again what the last finished run set aside; None where it set nothing aside.

    Rows of a part that could not be read have no known key: they are found by comparing source and
    table. More rows than a query can name are read with everything else.
    """
    ledger, quiet = tools.sink.ledger(), _quiet_runs(job, tools)
    done = [run for run in quiet if run.state is RunState.DONE]
    rows = ledger.quarantined(done[0].run_id, MAX_KEYS + 1) if done else ()
    keys = tuple(key for row in rows if (key := _parsed(row.key, job)) is not None)
    if any(row.reason == UNREADABLE for row in rows):
        keys = tuple(dict.fromkeys((*keys, *_compared(job, tools, served(quiet)).wanting)))
    if not keys:
        return None
    if max(len(rows), len(keys)) > MAX_KEYS:
        return infer(job, Request(full=True), tools)
    reason = f"{len(keys)} rows that run {done[0].run_id} set aside"
    return infer(job, Request(repair=Repair(keys, (), reason)), tools)


def _quiet_runs(job: type[Job], tools: Tools) -> tuple[Run, ...]:
    """Runs of the generation that serves, none of them unfinished."""
    ledger, table = tools.sink.ledger(), job.output.table.name
    tools.sink.settle(table)
    runs = ledger.runs(table, ledger.serving(table))
    unfinished = [run for run in runs if not run.state.is_terminal]
    if unfinished:
        message = f"run {unfinished[0].run_id} of {table} is unfinished"
        raise UsageError(message, hint=f"finish it first: mlbatch run {job.name} --mode infer")
    return runs


def source_rows(job: type[Job], tools: Tools) -> pa.Table:
    """Key, ``source_at`` and ``alive`` of every row, read as features are: by an unload."""
    view = job.features.view
    columns = [*view.key, str(view.cursor), *([view.tombstone] if view.tombstone else [])]
    select = view.query.windowed(
        Window(), cursor=view.cursor, zone=view.zone, columns=columns, newest_of=view.key
    )
    prefix = f"{tools.storage.prefix}mlbatch/{job.name}/_reconcile/{tools.new_id()}/"
    snapshot = take_snapshot(tools.warehouse, tools.storage, select, prefix)
    schema = allowing_null(pa.schema([view.column(name).field for name in columns]))
    rows = read_snapshot(snapshot, tools, schema)
    at = cursor_in_utc(rows[str(view.cursor)].combine_chunks(), view.zone)
    everyone = pa.repeat(pa.scalar(value=True), rows.num_rows)
    alive = pc.is_null(rows[view.tombstone]) if view.tombstone else everyone
    found = rows.select(list(view.key)).append_column("source_at", at)
    return found.append_column("alive", alive)


def read_snapshot(snapshot: Snapshot, tools: Tools, schema: pa.Schema) -> pa.Table:
    """All rows of a snapshot, in memory."""
    batches: list[pa.RecordBatch] = []
    for part in snapshot.parts:
        with tools.storage.open(part.file_uri, etag=part.etag) as file:
            batches += read_part(file, part, schema, batch_rows=READ_ROWS)
    return pa.Table.from_batches(batches, schema)


def _check_deletes(job: type[Job], found: Differences, limit: int) -> None:
    if len(found.gone) > limit:
        message = (
            f"{len(found.gone):,} of {found.table_rows:,} predictions have no row in the source, "
            f"more than {limit:,} may be removed at once"
        )
        raise GateRefused(message, hint="look at the source; --max-deletes N allows more")
    if found.gone and job.features.view.tombstone is None:
        message = f"{len(found.gone):,} predictions have no row in the source any more"
        hint = f"{job.features.view.name} declares no tombstone column to remove them by"
        raise UsageError(message, hint=hint)


def mending(found: Differences) -> list[Request]:
    """The runs that set right what was found. One that reads everything removes nothing."""
    counts = {
        "missing": found.missing,
        "stale": found.stale,
        "outdated": found.outdated,
        "gone": found.gone,
    }
    told = ", ".join(f"{len(keys):,} {name}" for name, keys in counts.items() if keys)
    wanting, gone, reason = found.wanting, found.gone, f"found by reconcile: {told}"
    if len(wanting) + len(gone) <= MAX_KEYS:
        return [Request(repair=Repair(wanting, gone, reason))]
    named = Request(repair=Repair(wanting, (), reason))
    first = Request(full=True) if len(wanting) > MAX_KEYS else named
    pieces = [gone[start : start + MAX_KEYS] for start in range(0, len(gone), MAX_KEYS)]
    removals = [Request(repair=Repair((), piece, reason)) for piece in pieces]
    return [first, *removals] if wanting else removals


def _parsed(text: str, job: type[Job]) -> tuple[object, ...] | None:
    """A quarantined row's key; None where its text does not tell one."""
    table = job.output.table
    parts = text.split("/") if len(table.key) > 1 else [text]
    if not text or len(parts) != len(table.key):
        return None
    types = [table.schema.field(name).type for name in table.key]
    return tuple(
        int(part) if pa.types.is_integer(kind) else part
        for part, kind in zip(parts, types, strict=True)
    )
