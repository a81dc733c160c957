"""The whole flow of inference, from the plan to the moved watermark.

Everything the flow touches is handed in: see `Tools`. What it decides is in `planner`, what a run
is created with in `creation`, what a part goes through in `worker`, what the ledger's rows mean in `ledger`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mlbatch.allowance import RepairMeasure
from mlbatch.creation import Probe, count_window, create_run
from mlbatch.errors import ConservationError, MlbatchError, RunFailed
from mlbatch.failpoint import reach
from mlbatch.job import Job
from mlbatch.leasing import leased, table_of
from mlbatch.ledger import (
    Lease,
    ModelPin,
    Run,
    RunKind,
    RunState,
    Totals,
    check_conservation,
    check_through,
    served,
    taken_over,
)
from mlbatch.nurse import Nurse, PartAside, parts_aside, trial_by
from mlbatch.pinning import first_loader, pin_for, pinned_loader
from mlbatch.planner import Facts, Plan, Request, check_slot, decide, since_done, with_model
from mlbatch.project import code_digest
from mlbatch.reporting import counted, record
from mlbatch.scoring import Predictor
from mlbatch.tracking import CHAMPION
from mlbatch.unloading import discard_old, take_snapshot
from mlbatch.window import advance
from mlbatch.worker import PartWorker

if TYPE_CHECKING:
    from mlbatch.sink import Ledger
    from mlbatch.table import OutputTable
    from mlbatch.tools import Tools


PACE_RUNS = 100
"""Last runs that tell how long another one takes: of all deltas, and some of everything."""
OF_NO_RUN = ("train", "_reconcile", "_inspect")
"""Folders of parts that the ledger knows nothing of: so old, they are of somebody who was killed, or done."""


@dataclass(frozen=True, slots=True)
class Preview:
    """What `plan` shows."""

    plan: Plan
    probe: Probe | None
    """None where a run is resumed or nothing is to be done."""
    model: ModelPin | None
    """What a new run would be pinned to; None where there is no model yet."""
    champion: int | None
    runs: tuple[Run, ...]
    """Those of the generation that serves, newest first."""


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
    request, serving = _checked(request, tools), ledger.serving(job.output.table.name)
    facts = _facts(job, request, serving, ledger, tools)
    _require_table(job.output.table.name, request, facts, tools)
    champion = tools.tracking.resolve(job.name)
    plan = decide(request, facts, job.delta)
    model, idle = served(facts.runs), not plan.is_new
    if plan.is_new and (champion or model):
        plan, model = _with_pin(job, plan, request, facts, tools, CHAMPION)
    return Preview(
        plan=plan,
        probe=None if idle else count_window(job, plan, facts, tools),
        model=model,
        champion=champion.version if champion else None,
        runs=ledger.runs(job.output.table.name, serving, PACE_RUNS),
    )


def infer(
    job: type[Job],
    request: Request,
    tools: Tools,
    *,
    model: str = CHAMPION,
    generation: str | None = None,
) -> Inference:
    """Run inference: resume what was left, else backfill, delta or full, as the plan says.

    Works on the generation that serves, unless another one is named. Raises Busy when another
    process works on it; RunFailed when the run ended as failed; whatever else is raised leaves the
    run unfinished, and the next call resumes it.
    """
    request, ledger, pin = _checked(request, tools), tools.sink.ledger(), None
    with leased(job, tools, generation) as lease:
        like = job.output.table.name if lease.beside else None
        facts = _facts(job, request, lease.generation, ledger, tools)
        _require_table(lease.table, request, facts, tools)
        way = tools.sink.prepare(table_of(job, lease), like)
        plan = decide(request, facts, job.delta)
        if plan.is_new:
            plan, pin = _with_pin(job, plan, request, facts, tools, model)
        tools.notify("plan", f"{plan.kind}: {plan.reason}")
        tools.notify("sink", way)
        if plan.supersede is not None:
            reason = "superseded on request"
            ledger.give_up(plan.supersede, RunState.SUPERSEDED, reason, tools.new_epoch())
        if plan.done is not None:
            return Inference(plan, plan.done, Totals.of(ledger.parts(plan.done.run_id)), None, {})
        return _carry_out(job, plan, facts, lease, tools, pin)


def _require_table(table: str, request: Request, facts: Facts, tools: Tools) -> None:
    """Refuse to make a table anew that was dropped or lost: it would hold what one delta finds, and no more."""
    finished = any(run.state is RunState.DONE for run in facts.runs)
    if finished and not request.full and not tools.sink.holds(table):
        message = f"the table {table} is gone, which finished runs have written"
        hint = "restore it with its ledger, or make it anew from the whole source by --full"
        raise RunFailed(message, hint=hint)


def _with_pin(
    job: type[Job], plan: Plan, request: Request, facts: Facts, tools: Tools, wanted: str
) -> tuple[Plan, ModelPin]:
    pin = pin_for(job, request, facts.runs, tools, wanted)
    return with_model(plan, facts.runs, pin.version), pin


def _checked(request: Request, tools: Tools) -> Request:
    if request.slot is not None:
        day = check_slot(request.slot, tools.warehouse.now())
        return replace(request, slot=day)
    return request


def _facts(
    job: type[Job], request: Request, generation: str, ledger: Ledger, tools: Tools
) -> Facts:
    slot, runs = request.slot, ledger.latest(job.output.table.name, generation)
    return Facts(
        runs=runs,
        watermark=ledger.watermark(job.name, generation),
        now=tools.warehouse.now(),
        code_digest=code_digest(job),
        slot_done=ledger.done(job.name, generation, slot) if slot is not None else None,
        halfway=_halfway(runs, ledger),
    )


def _halfway(runs: tuple[Run, ...], ledger: Ledger) -> Run | None:
    """The last run that read everything without coming to its end, and changed the table.

    What it removed, no delta would read again: those begin at the watermark.
    """
    wide = [run for run in since_done(runs) if run.new.kind in (RunKind.BACKFILL, RunKind.FULL)]
    return next((run for run in wide if ledger.progress(run.run_id).done), None)


def _carry_out(
    job: type[Job], plan: Plan, facts: Facts, lease: Lease, tools: Tools, pin: ModelPin | None
) -> Inference:
    """Go on with the plan's unfinished run, or begin one with the model ``pin``."""
    ledger, table, probe = tools.sink.ledger(), table_of(job, lease), None
    if pin is None:
        run = plan.unfinished
        load = pinned_loader(job, run, tools)
    else:
        load = first_loader(job, pin, facts.runs, tools)
        run, probe = create_run(job, plan, facts, lease, tools, pin)
        reach("after_create")
    try:
        run = _unload(job, run, ledger, tools)
        seconds = _write(job, run, table, load, ledger, tools, resumed=pin is None)
        run, totals = _finish(job, run, table, ledger, tools)
    except RunFailed as error:
        with suppress(MlbatchError):
            run = ledger.give_up(
                _latest(ledger, run), RunState.FAILED, str(error), tools.new_epoch()
            )
        raise
    aside = parts_aside(run.run_id, ledger)
    _discard_old(job, run, ledger, tools)
    return Inference(plan, record(run, ledger, tools), totals, probe, seconds, aside)


def _discard_old(job: type[Job], run: Run, ledger: Ledger, tools: Tools) -> None:
    """Let go of the parts of runs that ended a good while before this ``run``, and of `OF_NO_RUN`."""

    def has_ended(run_id: str) -> bool:
        found = ledger.run(run_id)
        return found is not None and found.state.is_terminal and run_id != run.run_id

    prefix = f"{tools.storage.prefix}mlbatch/{job.name}/"
    # The data is in: no trouble with an old folder may fail its run.
    with suppress(MlbatchError):
        discard_old(tools.storage, prefix, has_ended)
        for name in OF_NO_RUN:
            discard_old(tools.storage, f"{prefix}{name}/", lambda _: True)


def _latest(ledger: Ledger, run: Run) -> Run:
    """The run as it is now, if it is still ours: another's epoch must never pass for our own."""
    found = ledger.run(run.run_id)
    if found is None or found.epoch != run.epoch:
        raise taken_over(f"run {run.run_id}")
    return found


def _unload(job: type[Job], run: Run, ledger: Ledger, tools: Tools) -> Run:
    if run.state not in (RunState.CREATED, RunState.UNLOADING):
        return run
    attempt = tools.new_id()
    run = ledger.attempt(run, attempt)
    reach("before_unload")
    prefix = f"{tools.storage.prefix}mlbatch/{job.name}/{run.run_id}/{attempt}/"
    view = job.features.view
    snapshot = take_snapshot(
        tools.warehouse,
        tools.storage,
        run.new.query,
        prefix,
        cursor=view.cursor,
        zone=view.zone,
        clock=run.new.watermark_high,
    )
    tools.notify(
        "features", f"{counted(snapshot.rows, 'row')} in {counted(len(snapshot.parts), 'part')}"
    )
    reach("after_unload")
    run = ledger.adopt(run, snapshot)
    reach("after_adopt")
    return run


def _write(
    job: type[Job],
    run: Run,
    table: OutputTable,
    load: Callable[[], Predictor],
    ledger: Ledger,
    tools: Tools,
    *,
    resumed: bool,
) -> dict[str, float]:
    if run.state is RunState.PLANNED:
        run = ledger.advance(run, RunState.WRITING)
    work = PartWorker(job, run, table, tools.sink, tools.storage, load, tools.limits)
    measure = RepairMeasure(run, table, tools.sink) if run.new.kind is RunKind.REPAIR else None
    nurse = Nurse(job, run, ledger, tools.notify, trial_by(tools.engine, work), measure)
    waiting = nurse.tasks()
    seconds: dict[str, float] = {}
    for outcome in tools.engine.run(work, waiting, nurse.on_death, isolated=resumed):
        for stage, spent in outcome.stage_seconds.items():
            seconds[stage] = seconds.get(stage, 0.0) + spent
        nurse.check_limits()
    return seconds


def _finish(
    job: type[Job], run: Run, table: OutputTable, ledger: Ledger, tools: Tools
) -> tuple[Run, Totals]:
    reach("before_verify")
    run, parts = ledger.verify(_latest(ledger, run))
    totals = check_conservation(parts)
    _check_table(table, run, totals, tools)
    reach("before_finish")
    mark = ledger.watermark(job.name, run.new.generation)
    moved = mark
    if run.new.kind is not RunKind.REPAIR:
        moved = advance(mark, run.new.watermark_high, run.highest_cursor)
    done = ledger.finish(run, moved, tools.new_epoch())
    reach("after_finish")
    return done, totals


def _check_table(table: OutputTable, run: Run, totals: Totals, tools: Tools) -> None:
    """What the table holds of this run must be what the ledger says was written."""
    rows, found = tools.sink.checksum(table, run.run_no)
    if rows != totals.written or found != totals.checksum:
        ledger = tools.sink.ledger()
        # A fail-over since then takes rows and parts back alike, which is nobody's fault.
        check_through(_latest(ledger, run), ledger.parts(run.run_id))
        message = (
            f"{table.name} holds {rows} rows of run {run.run_id}, {totals.written} were "
            f"written" + ("" if rows != totals.written else ", and their checksums differ")
        )
        hint = "the same key in two parts, or somebody else writes this table"
        raise ConservationError(message, hint=hint)
