"""Looks a generation over before it serves: nothing missing, nothing stale, nothing unexpected."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from mlbatch.batches import allowing_null
from mlbatch.distance import Distance, distance
from mlbatch.errors import GateRefused, TemporaryError
from mlbatch.generation import beside
from mlbatch.inference import infer
from mlbatch.job import Job, required_columns, required_schema
from mlbatch.ledger import ModelPin
from mlbatch.pinning import loader
from mlbatch.planner import Repair, Request
from mlbatch.reconciliation import Differences, Keys
from mlbatch.repair import compare_with, mending, read_snapshot, source_rows
from mlbatch.scoring import Scorer
from mlbatch.table import OutputTable
from mlbatch.tools import Tools
from mlbatch.unloading import take_snapshot

SAMPLE_ROWS = 1_000
SAME_SCORE = 1e-9
MEND_ROUNDS = 3
NAMED = 5
"""Keys that a refusal names."""
QUARANTINE_ROWS = 1_000_000


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found of a generation that may serve next."""

    rows: int
    rescored: int
    """Rows that were predicted once more, beside any run, and came out the same."""
    distance: Distance


def standing(job: type[Job], generation: str) -> OutputTable:
    """The job's table, under the name of a generation that does not serve."""
    return replace(job.output.table, name=beside(job.output.table.name, generation))


def complete(job: type[Job], tools: Tools, generation: str, pin: ModelPin) -> int:
    """Compare a generation with the source, and predict what its deltas cannot have seen.

    Rows that changed after its watermark are the next delta's. Returns how many rows have no
    prediction because they were quarantined. Raises TemporaryError where something else is
    wanting that does not go away.
    """
    for _ in range(MEND_ROUNDS):
        found, aside = _wanting(job, tools, generation, pin.version)
        if not (found.wanting or found.gone):
            return aside
        told = f"{len(found.wanting)} rows wanting, {len(found.gone)} surplus"
        tools.notify("verify", f"{generation}: {told}; they are predicted again")
        for request in mending(found):
            infer(job, request, tools, model=str(pin.version), generation=generation)
    message = (
        f"{standing(job, generation).name} lacks rows however often they are predicted: {told}"
    )
    raise TemporaryError(message, hint="`mlbatch show` names quarantined rows; start again")


def _wanting(
    job: type[Job], tools: Tools, generation: str, version: int
) -> tuple[Differences, int]:
    """What is not as the source says and not excused, and how many rows were set aside."""
    table = standing(job, generation)
    source = source_rows(job, tools)
    found = compare_with(source, table, tools, version)
    excused = _recent(source, table.key, job, tools, generation)
    missing = _except(found.missing, excused)
    left = _except(missing, _set_aside(job, tools, generation))
    wanting = replace(
        found,
        missing=left,
        stale=_except(found.stale, excused),
        outdated=_except(found.outdated, excused),
        gone=_except(found.gone, excused) if job.features.view.tombstone else (),
    )
    return wanting, len(missing) - len(left)


def _recent(
    source: pa.Table, key: tuple[str, ...], job: type[Job], tools: Tools, generation: str
) -> frozenset[str]:
    """Keys that changed or went after the generation's watermark."""
    mark = tools.sink.ledger().watermark(job.name, generation)
    if mark is None:
        return frozenset()
    at = pa.scalar(mark.value.replace(tzinfo=None), source["source_at"].type)
    late = source.filter(pc.greater(source["source_at"], at)).select(list(key))
    return frozenset(_text(tuple(row[name] for name in key)) for row in late.to_pylist())


def _set_aside(job: type[Job], tools: Tools, generation: str) -> frozenset[str]:
    ledger = tools.sink.ledger()
    return frozenset(
        row.key
        for run in ledger.runs(job.output.table.name, generation)
        for row in ledger.quarantined(run.run_id, QUARANTINE_ROWS)
    )


def _except(keys: Keys, excused: frozenset[str]) -> Keys:
    return tuple(key for key in keys if _text(key) not in excused)


def _text(key: tuple[object, ...]) -> str:
    """A key as the quarantine has it."""
    return "/".join(map(str, key))[:255]


def inspect(
    job: type[Job], tools: Tools, generation: str, pin: ModelPin, limit: float
) -> Inspection:
    """Rescore a sample, and compare with what serves now; GateRefused where either is amiss."""
    table = standing(job, generation)
    rows, rescored = _check_sample(job, tools, generation, pin)
    before = tools.sink.rows(job.output.table).read_all()
    apart = distance(before, rows, table.key, table.label, table.score)
    if apart.labels > limit:
        message = (
            f"{apart.labels:.1%} of the labels of {table.name} are others than in "
            f"{job.output.table.name}, more than {limit:.1%}"
        )
        hint = f"look at {table.name}; --max-distance {apart.labels:.2g} or more lets it pass"
        raise GateRefused(message, hint=hint)
    return Inspection(rows.num_rows, rescored, apart)


def _check_sample(
    job: type[Job], tools: Tools, generation: str, pin: ModelPin
) -> tuple[pa.Table, int]:
    """The table, and how many rows of it came out the same; GateRefused where some did not, twice."""
    table = standing(job, generation)
    rows = tools.sink.rows(table).read_all()
    rescored, unequal = _rescore(job, tools, rows, pin)
    if unequal:
        # Their source may have changed without its time, which no delta sees. It is not the model
        # if they stay as they are predicted now.
        reason = f"{len(unequal)} rows that came out otherwise, predicted once more"
        request = Request(repair=Repair(unequal, (), reason))
        infer(job, request, tools, model=str(pin.version), generation=generation)
        rows = tools.sink.rows(table).read_all()
        rescored, unequal = _rescore(job, tools, rows, pin)
    if unequal:
        named = ", ".join(_text(key) for key in unequal[:NAMED])
        message = (
            f"{len(unequal)} of {rescored} rows of {table.name} come out otherwise now: {named}"
        )
        raise GateRefused(message, hint="a model must answer the same row alike each time")
    return rows, rescored


def _rescore(job: type[Job], tools: Tools, rows: pa.Table, pin: ModelPin) -> tuple[int, Keys]:
    """How many rows were predicted once more, and the keys of those that are not as they were."""
    table = job.output.table
    sample = _sample(rows)
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
    view, table = job.features.view, job.output.table
    keys = tuple(
        tuple(row[n] for n in table.key) for row in sample.select(list(table.key)).to_pylist()
    )
    if not keys:
        return sample
    query = view.query.of_keys(
        keys, key=view.key, columns=required_columns(job), zone=view.zone, newest_by=view.cursor
    )
    prefix = f"{tools.storage.prefix}mlbatch/{job.name}/_inspect/{tools.new_id()}/"
    snapshot = take_snapshot(tools.warehouse, tools.storage, query, prefix)
    schema = allowing_null(required_schema(job))
    read = read_snapshot(snapshot, tools, schema).combine_chunks()
    scorer = Scorer(job, loader(job, pin, tools)(), pin, run_no=0)
    scored = [scorer.score(batch, 0, 0).upserts for batch in read.to_batches()]
    return pa.Table.from_batches(scored, scored[0].schema) if scored else sample.slice(0, 0)
