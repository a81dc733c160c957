"""Looks a generation over before it serves: nothing missing, nothing stale, nothing unexpected."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from mlbatch.batches import allowing_null
from mlbatch.distance import Distance, distance, limit_for
from mlbatch.errors import GateRefused, TemporaryError
from mlbatch.generation import beside
from mlbatch.inference import infer
from mlbatch.job import Job, required_columns, required_schema
from mlbatch.keys import text
from mlbatch.ledger import ModelPin
from mlbatch.pinning import loader
from mlbatch.planner import Repair, Request
from mlbatch.reconciliation import Differences, Keys
from mlbatch.repair import (
    compared,
    excused,
    mending,
    most_deletes,
    nameable,
    pieces,
    read_beside,
    refusal,
)
from mlbatch.scoring import Scorer
from mlbatch.table import OutputTable
from mlbatch.tools import Tools
from mlbatch.window import EARLIEST

SAMPLE_ROWS = 1_000
SAME_SCORE = 1e-9
MEND_ROUNDS = 3
ANY_NUMBER = sys.maxsize
TOLD = 5
"""Keys that a refusal names."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found of a generation that may serve next."""

    rows: int
    rescored: int
    """Rows that were predicted once more, beside any run, and came out the same."""
    distance: Distance


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far a generation may be from what serves."""

    labels: float
    """Share of labels that may move."""
    deletes: int | None = None
    """Rows of what serves that it may lack; None, as many as `reconcile` removes at once."""
    set_aside: int = 0
    """Rows that it lacks because they were quarantined."""


def standing(job: type[Job], generation: str) -> OutputTable:
    """The job's table, under the name of a generation that does not serve."""
    return replace(job.output.table, name=beside(job.output.table.name, generation))


def complete(
    job: type[Job], tools: Tools, generation: str, pin: ModelPin, max_deletes: int | None = None
) -> int:
    """Compare a generation with the source, and predict what its deltas cannot have seen.

    Rows that changed after its watermark are the next delta's. Returns how many rows have no
    prediction because they were quarantined. Raises TemporaryError where something else is
    wanting that does not go away; GateRefused, before anything is mended, where the source lost more
    rows than ``max_deletes``, which are as many as `reconcile` removes at once by default.
    """
    found, left = _wanting(job, tools, generation, pin.version), MEND_ROUNDS
    limit = most_deletes(found.table_rows) if max_deletes is None else max_deletes
    while found.wanting.count or found.gone.count:
        refused = refusal(found, limit)
        if refused:
            raise refused
        told = f"{found.wanting.count} rows wanting, {found.gone.count} surplus"
        if not left:
            name = standing(job, generation).name
            message = f"{name} lacks rows however often they are predicted: {told}"
            raise TemporaryError(message, hint="`mlbatch show` names quarantined rows; start again")
        tools.notify("verify", f"{generation}: {told}; they are predicted again")
        for request in mending(job, found):
            infer(job, request, tools, model=str(pin.version), generation=generation)
        before, found = found, _wanting(job, tools, generation, pin.version)
        # A comparison names so many keys: more surplus rows than that go in several rounds.
        left -= found.gone.count >= before.gone.count
        limit -= len(before.gone.first)
    return found.set_aside.count


def _wanting(job: type[Job], tools: Tools, generation: str, version: int) -> Differences:
    """What is not as the source says, and neither quarantined nor the next delta's."""
    excuses = excused(job, tools, generation)
    if excuses.changed_after is None:
        # All rows are later than the warehouse's clock: the next delta reads all of them.
        excuses = replace(excuses, changed_after=EARLIEST)
    return compared(job, tools, standing(job, generation), version, excuses)


def inspect(
    job: type[Job], tools: Tools, generation: str, pin: ModelPin, bounds: Bounds
) -> Inspection:
    """Rescore a sample, and compare with what serves now; GateRefused where either is amiss."""
    table = standing(job, generation)
    rows, sample, apart = _looked_over(job, tools, generation)
    _check_rows(job, table, apart, bounds)
    rescored, unequal = _rescore(job, tools, sample, pin)
    if unequal:
        # Their source may have changed without its time, which no delta sees. It is not the model
        # if they stay as they are predicted now.
        reason = f"{len(unequal)} rows that came out otherwise, predicted once more"
        for piece in pieces(job, Repair(unequal, (), reason)):
            request = Request(repair=piece)
            infer(job, request, tools, model=str(pin.version), generation=generation)
        rows, sample, apart = _looked_over(job, tools, generation)
        rescored, unequal = _rescore(job, tools, sample, pin)
    if unequal:
        named = ", ".join(text(key) for key in unequal[:TOLD])
        message = (
            f"{len(unequal)} of {rescored} rows of {table.name} come out otherwise now: {named}"
        )
        raise GateRefused(message, hint="a model must answer the same row alike each time")
    _check_labels(job, table, apart, bounds)
    return Inspection(rows, rescored, apart)


def _check_rows(job: type[Job], table: OutputTable, apart: Distance, bounds: Bounds) -> None:
    """Raise GateRefused where the source was probably lost, which readers must not see."""
    lost = apart.lacking - bounds.set_aside
    most = most_deletes(apart.rows_before) if bounds.deletes is None else bounds.deletes
    if lost > most:
        message = (
            f"{lost:,} of {apart.rows_before:,} rows of {job.output.table.name} have none in "
            f"{table.name}, more than {most:,} may go at once"
        )
        hint = f"look at the source; --max-deletes {lost} or more lets it pass"
        raise GateRefused(message, hint=hint)


def _check_labels(job: type[Job], table: OutputTable, apart: Distance, bounds: Bounds) -> None:
    if apart.labels > bounds.labels:
        message = (
            f"{apart.labels:.1%} of the labels of {table.name} are others than in "
            f"{job.output.table.name}, more than {bounds.labels:.1%}"
        )
        limit = limit_for(apart.labels)
        hint = f"look at {table.name}; --max-distance {limit} or more lets it pass"
        raise GateRefused(message, hint=hint)


def _looked_over(job: type[Job], tools: Tools, generation: str) -> tuple[int, pa.Table, Distance]:
    """How many rows a generation has, a sample of them, and how far they are from what serves."""
    table = standing(job, generation)
    sampler = _Sampler(tools.sink.rows(table))
    before = tools.sink.rows(job.output.table)
    # What changed since then is its next delta's, and may be there already in what serves.
    until = excused(job, tools, generation).changed_after or EARLIEST
    apart = distance(before, sampler.through(), table.key, table.label, table.score, until=until)
    return sampler.rows, sampler.sample(), apart


class _Sampler:
    """Keeps rows at even distances of a stream that passes through."""

    def __init__(self, reader: pa.RecordBatchReader) -> None:
        """Nothing is read yet."""
        self._reader, self.rows, self._distance = reader, 0, 1
        self._kept: pa.Table = reader.schema.empty_table()

    def through(self) -> pa.RecordBatchReader:
        """The same stream."""
        return pa.RecordBatchReader.from_batches(self._reader.schema, map(self._see, self._reader))

    def _see(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        first = -self.rows % self._distance
        chosen = batch.take(pa.array(range(first, batch.num_rows, self._distance), pa.int64()))
        self._kept = pa.concat_tables([self._kept, pa.Table.from_batches([chosen])])
        self.rows += batch.num_rows
        while self._kept.num_rows > 2 * SAMPLE_ROWS:
            every_other = pa.array(range(0, self._kept.num_rows, 2), pa.int64())
            self._kept, self._distance = self._kept.take(every_other), 2 * self._distance
        return batch

    def sample(self) -> pa.Table:
        """`SAMPLE_ROWS` of them, or all where they are fewer."""
        return _sample(self._kept)


def _rescore(job: type[Job], tools: Tools, sample: pa.Table, pin: ModelPin) -> tuple[int, Keys]:
    """How many rows were predicted once more, and the keys of those that are not as they were."""
    table = job.output.table
    again = _predicted(job, tools, sample, pin)
    names = ["src_updated_at", table.label, table.score]
    renamed = again.select([*table.key, *names]).rename_columns(
        [*table.key, "again_at", "again_label", "again_score"]
    )
    both = sample.select([*table.key, *names]).join(
        renamed, list(table.key), join_type="inner", use_threads=False
    )
    # What changed meanwhile is the next delta's.
    both = both.filter(pc.equal(both["src_updated_at"], both["again_at"]))
    apart = pc.abs(pc.subtract(both[table.score], both["again_score"]))
    other = pc.or_(
        pc.not_equal(both[table.label], both["again_label"]), pc.greater(apart, SAME_SCORE)
    )
    unequal = both.filter(other).select(list(table.key)).to_pylist()
    return both.num_rows, tuple(tuple(row[name] for name in table.key) for row in unequal)


def _sample(rows: pa.Table) -> pa.Table:
    """Rows at even distances in the order of their keys."""
    count = min(SAMPLE_ROWS, rows.num_rows)
    return rows.take(pa.array([n * rows.num_rows // count for n in range(count)], pa.int64()))


def _predicted(job: type[Job], tools: Tools, sample: pa.Table, pin: ModelPin) -> pa.Table:
    """The rows of ``sample``, read and predicted beside any run: nothing is written."""
    table = job.output.table
    told = sample.select(list(table.key)).to_pylist()
    keys = tuple(filter(nameable, (tuple(row[n] for n in table.key) for row in told)))
    if not keys:
        return sample
    schema = allowing_null(required_schema(job))
    scorer = Scorer(job, loader(job, pin, tools)(), pin, run_no=0)
    scored = [
        scorer.score(batch, 0, 0).upserts
        for piece in pieces(job, Repair(keys, (), "looked over"))
        for batch in read_beside(job, tools, _select(job, piece), schema, purpose="_inspect")
    ]
    return pa.Table.from_batches(scored, scored[0].schema) if scored else sample.slice(0, 0)


def _select(job: type[Job], named: Repair) -> str:
    view = job.features.view
    return view.query.of_keys(
        named.keys,
        key=job.output.table.key,
        columns=required_columns(job),
        zone=view.zone,
        newest_by=view.cursor,
    )
