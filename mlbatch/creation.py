"""The creation of a run: its window is counted, and all that decides its result is pinned."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mlbatch.errors import DeclarationError
from mlbatch.job import Job, required_columns
from mlbatch.ledger import Lease, ModelPin, NewRun, Run
from mlbatch.planner import Facts, Plan, Repair
from mlbatch.query import GONE
from mlbatch.sql import MAX_QUERY_BYTES

if TYPE_CHECKING:
    from mlbatch.tools import Tools
    from mlbatch.view import View
    from mlbatch.window import Window


@dataclass(frozen=True, slots=True)
class Probe:
    """What the warehouse counts in a window, before anything is unloaded."""

    rows: int
    duplicates: int
    """Rows beyond the first of their key; the newest of each key is taken."""
    newer: int
    """Rows changed after the watermark, that is, without the overlap."""


def create_run(
    job: type[Job], plan: Plan, facts: Facts, lease: Lease, tools: Tools, pin: ModelPin
) -> tuple[Run, Probe]:
    """Count and pin what ``plan`` asks for, and insert the run under ``lease``.

    DeclarationError, and no run, where its query is longer than a warehouse takes: whoever resumed
    the run would come to the same end.
    """
    probe = count_window(job, plan, facts, tools)
    new = _new_run(job, plan, pin, probe, facts, lease, tools)
    return tools.sink.ledger().create(lease, new), probe


def count_window(job: type[Job], plan: Plan, facts: Facts, tools: Tools) -> Probe:
    """Count in ``plan``'s window; DeclarationError where the source's columns have drifted."""
    view = job.features.view
    view.check_source(tools.warehouse.fetch(view.query.empty()).schema)
    for notice in view.notices:
        tools.notify("notice", notice)
    mark = facts.watermark
    since = mark.value if mark else None
    return count_rows(view, plan.window, tools, newer_than=since, clock=facts.now)


def count_rows(
    view: View,
    window: Window,
    tools: Tools,
    *,
    newer_than: datetime | None = None,
    clock: datetime | None = None,
) -> Probe:
    """Count ``view``'s rows in ``window``; tell of repeated keys, and of rows later than ``clock``."""
    query = view.query.probe(
        window,
        key=view.key,
        cursor=view.cursor,
        zone=view.zone,
        null_cursor=view.null_cursor,
        newer_than=newer_than,
        clock=clock if view.cursor else None,
    )
    counts = tools.warehouse.fetch(query).to_pylist()[0]
    duplicates = counts["keyed_rows"] - counts["distinct_keys"]
    if duplicates:
        keys = ", ".join(view.key)
        line = f"{duplicates} rows repeat a key ({keys}); the newest row of each key is taken"
        tools.notify("notice", line)
    if counts["future"]:
        line = (
            f"{counts['future']} rows lie in the future: their {view.cursor} is later than the "
            f"warehouse's clock, {clock:%Y-%m-%d %H:%M:%S} UTC; each run reads them again"
        )
        tools.notify("notice", line)
    return Probe(counts["rows"], duplicates, counts["newer"])


def _new_run(
    job: type[Job],
    plan: Plan,
    pin: ModelPin,
    probe: Probe,
    facts: Facts,
    lease: Lease,
    tools: Tools,
) -> NewRun:
    run_id, mark = tools.new_id(), facts.watermark
    return NewRun(
        run_id=run_id,
        job=job.name,
        output_table=job.output.table.name,
        generation=lease.generation,
        kind=plan.kind,
        slot=plan.slot or run_id,
        model=pin,
        query_digest=job.features.view.query.fingerprint,
        query=_query(job, plan, probe),
        job_code_digest=facts.code_digest,
        code_version=tools.code_version,
        watermark_low=mark.value if mark else None,
        watermark_high=plan.watermark_high,
    )


def _query(job: type[Job], plan: Plan, probe: Probe) -> str:
    view = job.features.view
    if plan.repair is not None:
        return _checked(job, _repairing(job, plan.repair, plan.watermark_high))
    windowed = view.query.windowed(
        plan.window,
        cursor=view.cursor,
        zone=view.zone,
        columns=required_columns(job),
        null_cursor=view.null_cursor,
        newest_of=view.key if probe.duplicates else None,
    )
    return _checked(job, windowed)


def _checked(job: type[Job], select: str) -> str:
    size = len(select.encode())
    if size > MAX_QUERY_BYTES:
        message = f"the query of the run has {size:,} bytes, a warehouse takes {MAX_QUERY_BYTES:,}"
        hint = "move a part of the view's SELECT into a view of the warehouse"
        raise DeclarationError(message, hint=hint, file=job.features.view.query.file)
    return select


def fits(job: type[Job], repair: Repair) -> bool:
    """Whether a run may name all the rows of ``repair`` in its query."""
    any_time = datetime(2000, 1, 1, tzinfo=UTC)
    return len(_repairing(job, repair, any_time).encode()) <= MAX_QUERY_BYTES


def _repairing(job: type[Job], repair: Repair, at: datetime) -> str:
    view = job.features.view
    return view.query.of_keys(
        repair.keys,
        key=job.output.table.key,
        columns=required_columns(job, repairs=True),
        gone=repair.gone,
        marks={str(view.cursor): at, view.tombstone or GONE: at},
        zone=view.zone,
        newest_by=view.cursor,
    )
