"""The whole flow of inference, from the plan to the moved watermark.

Everything the flow touches is handed in: see `Tools`. What it decides is in `planner`, what a part
goes through in `scoring`, what the ledger's rows mean in `ledger`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from mlbatch.engine import PartOutcome, PartTask
from mlbatch.errors import (
    ConservationError,
    MlbatchError,
    ModelIncompatible,
    ModelTampered,
    RunFailed,
    UsageError,
)
from mlbatch.failpoint import reach
from mlbatch.job import Job, required_columns
from mlbatch.ledger import (
    Lease,
    ModelPin,
    NewRun,
    Run,
    RunKind,
    RunState,
    Totals,
    check_conservation,
    taken_over,
)
from mlbatch.nurse import Nurse, PartAside, parts_aside
from mlbatch.planner import Facts, Plan, Repair, Request, check_slot, decide
from mlbatch.project import code_digest
from mlbatch.quarantine import set_part_aside
from mlbatch.reporting import record, speed
from mlbatch.scoring import Predictor, Scorer, score_part
from mlbatch.throttle import Limits
from mlbatch.tracking import CHAMPION, ModelVersion
from mlbatch.unloading import take_snapshot
from mlbatch.window import advance

if TYPE_CHECKING:
    from mlbatch.sink import Ledger, Sink
    from mlbatch.storage import Storage
    from mlbatch.tools import Tools

GENERATION = "g1"
HEARTBEAT_SECONDS = 15.0
MANY_ROWS = 20_000
"""More make several parts as a rule: workers get ready while the warehouse unloads."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What the warehouse counts in a window, before anything is unloaded."""

    rows: int
    duplicates: int
    """Rows beyond the first of their key; the newest of each key is taken."""
    newer: int
    """Rows changed after the watermark, that is, without the overlap."""


@dataclass(frozen=True, slots=True)
class Preview:
    """What `plan` shows."""

    plan: Plan
    probe: Probe | None
    """None where a run is resumed or nothing is to be done."""
    model: ModelVersion | None
    rows_per_second: float | None
    """Of the last finished run."""


@dataclass(frozen=True, slots=True)
class Inference:
    """How an inference ended."""

    plan: Plan
    run: Run
    totals: Totals
    probe: Probe | None
    stage_seconds: dict[str, float]
    parts_aside: tuple[PartAside, ...] = ()
    """Parts that were set aside whole, because they killed their workers."""


def preview(job: type[Job], request: Request, tools: Tools) -> Preview:
    """Decide as `infer` would, and count, without writing anything."""
    ledger = tools.sink.ledger()
    plan = decide(_checked(request, tools), _facts(job, ledger, tools), job.delta)
    idle = plan.resume is not None or plan.done is not None
    return Preview(
        plan=plan,
        probe=None if idle else _probe(job, plan, ledger, tools),
        model=tools.tracking.resolve(job.name),
        rows_per_second=speed(ledger.runs(job.output.table.name)),
    )


def infer(job: type[Job], request: Request, tools: Tools, *, model: str = CHAMPION) -> Inference:
    """Run inference: resume what was left, else backfill, delta or full, as the plan says.

    Raises Busy when another process works on the table; RunFailed when the run ended as failed;
    whatever else is raised leaves the run unfinished, and the next call resumes it.
    """
    request = _checked(request, tools)
    ledger = tools.sink.ledger()
    way = tools.sink.prepare(job.output.table)
    reach("before_lease")
    lease = ledger.acquire(job.output.table.name, job.name, tools.owner, tools.new_epoch())
    with _beating(ledger, lease):
        try:
            reach("after_lease")
            plan = decide(request, _facts(job, ledger, tools), job.delta)
            tools.notify("plan", f"{plan.kind}: {plan.reason}")
            tools.notify("sink", way)
            ended = _carry_out(job, plan, lease, ledger, tools, model)
        except BaseException:
            # What ended the run is what must be told, not that the lease cannot be given back.
            with suppress(MlbatchError):
                ledger.release(lease, tools.new_epoch())
            raise
        ledger.release(lease, tools.new_epoch())
        return ended


def _checked(request: Request, tools: Tools) -> Request:
    if request.slot is not None:
        check_slot(request.slot, tools.warehouse.now().date())
    return request


def _facts(job: type[Job], ledger: Ledger, tools: Tools) -> Facts:
    return Facts(
        runs=ledger.runs(job.output.table.name),
        watermark=ledger.watermark(job.name, GENERATION),
        now=tools.warehouse.now(),
        code_digest=code_digest(job),
    )


def _carry_out(
    job: type[Job], plan: Plan, lease: Lease, ledger: Ledger, tools: Tools, model: str
) -> Inference:
    probe = None
    if plan.done is not None:
        return Inference(plan, plan.done, Totals.of(ledger.parts(plan.done.run_id)), None, {})
    if plan.supersede is not None:
        reason = "superseded on request"
        ledger.give_up(plan.supersede, RunState.SUPERSEDED, reason, tools.new_epoch())
    if plan.resume is not None:
        run = plan.resume
        load = _pinned_loader(job, run, tools)
    else:
        pin = _resolve(job, model, tools)
        load = _loader(job, pin, tools)
        probe = _probe(job, plan, ledger, tools)
        if probe.rows > MANY_ROWS:
            tools.engine.warm_up()
        run = ledger.create(lease, _new_run(job, plan, pin, probe, ledger, tools))
        reach("after_create")
    try:
        run = _unload(job, run, ledger, tools)
        seconds = _write(job, run, load, ledger, tools, resumed=plan.resume is not None)
        run, totals = _finish(job, run, ledger, tools)
    except RunFailed as error:
        with suppress(MlbatchError):
            run = ledger.give_up(
                _latest(ledger, run), RunState.FAILED, str(error), tools.new_epoch()
            )
        raise
    aside = parts_aside(run.run_id, ledger)
    return Inference(plan, record(run, ledger, tools), totals, probe, seconds, aside)


def _latest(ledger: Ledger, run: Run) -> Run:
    """The run as it is now, if it is still ours: another's epoch must never pass for our own."""
    found = next(r for r in ledger.runs(run.new.output_table) if r.run_id == run.run_id)
    if found.epoch != run.epoch:
        raise taken_over(f"run {run.run_id}")
    return found


def _resolve(job: type[Job], wanted: str, tools: Tools) -> ModelPin:
    version = tools.tracking.resolve(job.name, wanted)
    if version is None:
        message = f"{job.name} has no model {wanted!r}"
        hint = f"train one: mlbatch run {job.name} --mode train"
        raise UsageError(message, hint=hint)
    return ModelPin(version.name, version.version, version.digest)


def _loader(job: type[Job], pin: ModelPin, tools: Tools) -> Callable[[], Predictor]:
    """Fetch the pinned model and load it once here, so that a refusal comes before any row."""
    version = ModelVersion(pin.name, pin.version, pin.digest)
    folder = tools.tracking.fetch(version, tools.models / pin.name / str(pin.version))
    load = partial(tools.load_model, job, folder, pin.digest)
    load()
    return load


def _pinned_loader(job: type[Job], run: Run, tools: Tools) -> Callable[[], Predictor]:
    """The model that an unfinished run was created with, or a way out when it is no longer usable."""
    try:
        return _loader(job, run.new.model, tools)
    except (ModelTampered, ModelIncompatible) as error:
        error.hint = f"run {run.run_id} is pinned to it; --supersede starts anew with the champion"
        raise


def _probe(job: type[Job], plan: Plan, ledger: Ledger, tools: Tools) -> Probe:
    view = job.features.view
    view.check_source(tools.warehouse.fetch(view.query.empty()).schema)
    for notice in view.notices:
        tools.notify("notice", notice)
    mark = ledger.watermark(job.name, GENERATION)
    query = view.query.probe(
        plan.window,
        key=view.key,
        cursor=view.cursor,
        zone=view.zone,
        null_cursor=view.null_cursor,
        newer_than=mark.value if mark else None,
    )
    counts = tools.warehouse.fetch(query).to_pylist()[0]
    duplicates = counts["keyed_rows"] - counts["distinct_keys"]
    if duplicates:
        keys = ", ".join(view.key)
        line = f"{duplicates} rows repeat a key ({keys}); the newest row of each key is taken"
        tools.notify("notice", line)
    return Probe(counts["rows"], duplicates, counts["newer"])


def _new_run(
    job: type[Job], plan: Plan, pin: ModelPin, probe: Probe, ledger: Ledger, tools: Tools
) -> NewRun:
    view, run_id = job.features.view, tools.new_id()
    mark = ledger.watermark(job.name, GENERATION)
    if plan.repair is not None:
        query = _repairing(job, plan.repair, plan.watermark_high)
    else:
        query = view.query.windowed(
            plan.window,
            cursor=view.cursor,
            zone=view.zone,
            columns=required_columns(job),
            null_cursor=view.null_cursor,
            newest_of=view.key if probe.duplicates else None,
        )
    return NewRun(
        run_id=run_id,
        job=job.name,
        output_table=job.output.table.name,
        generation=GENERATION,
        kind=plan.kind,
        slot=plan.slot or run_id,
        model=pin,
        query_digest=view.query.fingerprint,
        query=query,
        job_code_digest=code_digest(job),
        code_version=tools.code_version,
        watermark_low=mark.value if mark else None,
        watermark_high=plan.watermark_high,
    )


def _repairing(job: type[Job], repair: Repair, at: datetime) -> str:
    view = job.features.view
    marks = {name: at for name in (view.cursor, view.tombstone) if name is not None}
    return view.query.of_keys(
        repair.keys,
        key=view.key,
        columns=required_columns(job),
        gone=repair.gone,
        marks=marks,
        zone=view.zone,
        newest_by=view.cursor,
    )


def _unload(job: type[Job], run: Run, ledger: Ledger, tools: Tools) -> Run:
    if run.state not in (RunState.CREATED, RunState.UNLOADING):
        return run
    attempt = tools.new_id()
    run = ledger.attempt(run, attempt)
    reach("before_unload")
    prefix = f"{tools.storage.prefix}mlbatch/{job.name}/{run.run_id}/{attempt}/"
    view = job.features.view
    snapshot = take_snapshot(
        tools.warehouse, tools.storage, run.new.query, prefix, cursor=view.cursor, zone=view.zone
    )
    tools.notify("features", f"{snapshot.rows:,} rows in {len(snapshot.parts)} parts")
    reach("after_unload")
    run = ledger.adopt(run, snapshot)
    reach("after_adopt")
    return run


def _write(
    job: type[Job],
    run: Run,
    load: Callable[[], Predictor],
    ledger: Ledger,
    tools: Tools,
    *,
    resumed: bool,
) -> dict[str, float]:
    if run.state is RunState.PLANNED:
        run = ledger.advance(run, RunState.WRITING)
    work = PartWorker(job, run, tools.sink, tools.storage, load, tools.limits)
    nurse = Nurse(run, ledger, tools.notify)
    waiting = nurse.tasks()
    seconds: dict[str, float] = {}
    for outcome in tools.engine.run(work, waiting, nurse.on_death, isolated=resumed):
        for stage, spent in outcome.stage_seconds.items():
            seconds[stage] = seconds.get(stage, 0.0) + spent
        nurse.check_limits(job)
    return seconds


@dataclass(frozen=True, slots=True)
class PartWorker:
    """What a worker process carries: values only, so that it can be pickled."""

    job: type[Job]
    run: Run
    sink: Sink
    storage: Storage
    load: Callable[[], Predictor]
    limits: Limits

    def __call__(self, task: PartTask) -> PartOutcome:
        """Score one part, or set it aside."""
        with self.sink.session(self.job.output.table, self.run) as session:
            if task.surrender is not None:
                return set_part_aside(task, session, self.storage, self.job)
            scorer = Scorer(self.job, self.load(), self.run.new.model, self.run.run_no)
            return score_part(task, session, self.storage, scorer, limits=self.limits)


def _finish(job: type[Job], run: Run, ledger: Ledger, tools: Tools) -> tuple[Run, Totals]:
    reach("before_verify")
    run = _latest(ledger, run)
    if run.state is RunState.WRITING:
        run = ledger.advance(run, RunState.VERIFYING)
    totals = check_conservation(ledger.parts(run.run_id))
    _check_table(job, run, totals, tools)
    reach("before_finish")
    mark = ledger.watermark(job.name, GENERATION)
    moved = mark
    if run.new.kind is not RunKind.REPAIR:
        moved = advance(mark, run.new.watermark_high, run.highest_cursor)
    done = ledger.finish(run, moved, tools.new_epoch())
    reach("after_finish")
    return done, totals


def _check_table(job: type[Job], run: Run, totals: Totals, tools: Tools) -> None:
    """What the table holds of this run must be what the ledger says was written."""
    rows, found = tools.sink.checksum(job.output.table, run.run_no)
    if rows != totals.written or found != totals.checksum:
        message = (
            f"{job.output.table.name} holds {rows} rows of run {run.run_id}, {totals.written} were "
            f"written" + ("" if rows != totals.written else ", and their checksums differ")
        )
        hint = "the same key in two parts, or somebody else writes this table"
        raise ConservationError(message, hint=hint)


@contextmanager
def _beating(ledger: Ledger, lease: Lease) -> Iterator[None]:
    """Say every few seconds that the owner lives. A lost lease is found by the fence, not here."""
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(HEARTBEAT_SECONDS):
            with suppress(MlbatchError):
                ledger.heartbeat(lease)

    thread = threading.Thread(target=beat, name="mlbatch-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
