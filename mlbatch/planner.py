"""Decides what a run has to do, and says why. Pure: facts in, a plan out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

from mlbatch.errors import MlbatchError, UsageError
from mlbatch.ledger import ModelPin, Run, RunKind, RunState, served
from mlbatch.window import Window, utc

if TYPE_CHECKING:
    from mlbatch.job import Delta
    from mlbatch.window import Watermark


FIRST_ZONE = timedelta(hours=14)
"""How far the zone in which a day begins first is ahead of UTC."""


@dataclass(frozen=True, slots=True)
class Repair:
    """Rows to look at again, by key."""

    keys: tuple[tuple[object, ...], ...]
    gone: tuple[tuple[object, ...], ...]
    """Keys of predictions whose row is no longer in the source: they are removed."""
    reason: str


@dataclass(frozen=True, slots=True)
class Request:
    """What the user asked for."""

    full: bool = False
    in_place: bool = False
    """Let another model take the place of the one that serves, row by row in the same table."""
    until: datetime | None = None
    slot: str | None = None
    supersede: bool = False
    """Give the unfinished run up and start anew."""
    accept_code_change: bool = False
    """Resume although the job's code is no longer the run's."""
    repair: Repair | None = None
    """These rows and no others."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the ledger and the warehouse say, read under the lease."""

    runs: tuple[Run, ...]
    """As `mlbatch.sink.Ledger.latest` tells them: those since the table was last brought up, and that one."""
    watermark: Watermark | None
    now: datetime
    """The warehouse's clock."""
    code_digest: str
    slot_done: Run | None = None
    """The run that did the slot asked for."""
    halfway: Run | None = None
    """A run since then that was to read everything and did not finish, but changed rows."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, and why."""

    kind: RunKind
    window: Window
    watermark_high: datetime
    slot: str | None
    reason: str
    repair: Repair | None = None
    resume: Run | None = None
    """The unfinished run to go on with; kind and window are then its own."""
    supersede: Run | None = None
    """The unfinished run to give up first."""
    done: Run | None = None
    """The run that already did this slot: nothing is to be done."""

    @property
    def is_new(self) -> bool:
        """Whether a run begins, which needs a model and a query of its own."""
        return self.resume is None and self.done is None

    @property
    def unfinished(self) -> Run:
        """The run to go on with; there must be one."""
        if self.resume is None:
            message = f"the plan {self.kind} resumes no run"
            raise MlbatchError(message)
        return self.resume


def decide(request: Request, facts: Facts, delta: Delta) -> Plan:
    """Choose between resuming, backfill, delta and full; raises UsageError where asked wrongly."""
    unfinished = next((run for run in facts.runs if not run.state.is_terminal), None)
    if unfinished is not None and not request.supersede:
        return _resume(unfinished, request, facts)
    done = facts.slot_done
    if done is not None:
        return _done(done, request, unfinished)
    kind, window, reason = _choose(request, facts, delta)
    high = utc(facts.now) - delta.lag
    repair = request.repair if kind is RunKind.REPAIR else None
    return Plan(kind, window, high, request.slot, reason, repair=repair, supersede=unfinished)


def _done(done: Run, request: Request, given_up: Run | None) -> Plan:
    reason = f"slot {request.slot} was done by run {done.run_id}"
    if request.full and done.new.kind not in (RunKind.BACKFILL, RunKind.FULL):
        message = f"{reason}, a {done.new.kind}: with this slot, --full would read nothing"
        raise UsageError(message, hint="leave --slot out to read everything again")
    if request.full:
        reason += ", which read everything; without --slot it is read again"
    if given_up is not None:
        reason += f"; run {given_up.run_id}, which was left {given_up.state}, is given up"
    high, slot = done.new.watermark_high, request.slot
    return Plan(done.new.kind, Window(), high, slot, reason, supersede=given_up, done=done)


def _resume(run: Run, request: Request, facts: Facts) -> Plan:
    if run.new.job_code_digest != facts.code_digest and not request.accept_code_change:
        message = f"run {run.run_id} is unfinished, and the job's code has changed since it began"
        hint = "--accept-code-change finishes it with today's code, --supersede starts anew"
        raise UsageError(message, hint=hint)
    reason = f"run {run.run_id} was left {run.state} and is finished first"
    new = run.new
    return Plan(new.kind, Window(), new.watermark_high, new.slot, reason, resume=run)


def _choose(request: Request, facts: Facts, delta: Delta) -> tuple[RunKind, Window, str]:
    until = request.until
    if not any(run.state is RunState.DONE for run in facts.runs):
        return RunKind.BACKFILL, Window(until=until), "the table has never been finished"
    if request.repair is not None:
        return RunKind.REPAIR, Window(), request.repair.reason
    if facts.halfway is not None:
        left = facts.halfway
        reason = f"run {left.run_id}, a {left.new.kind} that did not finish, has changed rows"
        return RunKind.FULL, _everything(until, reason), reason
    if request.full:
        return RunKind.FULL, Window(until=until), "everything again, as asked with --full"
    if facts.watermark is None:
        return RunKind.DELTA, Window(until=until), "no row had been read yet"
    window = facts.watermark.window(delta.overlap, until)
    mark = f"{facts.watermark.value:%Y-%m-%d %H:%M:%S} UTC"
    reason = f"changed since the watermark {mark}, less an overlap of {spell(delta.overlap)}"
    return RunKind.DELTA, window, reason


def with_model(plan: Plan, runs: tuple[Run, ...], version: int) -> Plan:
    """The plan, or one that reads everything: a table is never left with rows of two models.

    Raises UsageError where everything is needed and the window ends before it.
    """
    before = served(runs)
    if plan.kind not in (RunKind.DELTA, RunKind.FULL) or before is None:
        return plan
    reason = _why_everything(before, runs, version)
    if reason is None:
        return plan
    return replace(
        plan, kind=RunKind.FULL, window=_everything(plan.window.until, reason), reason=reason
    )


def _everything(until: datetime | None, reason: str) -> Window:
    """The window of a run that must read everything, because of ``reason``."""
    if until is None:
        return Window()
    message = f"{reason}: with --until, later rows would stay as they are"
    raise UsageError(message, hint="leave --until out")


def _why_everything(before: ModelPin, runs: tuple[Run, ...], version: int) -> str | None:
    if before.version != version:
        return f"model v{version} takes the place of v{before.version}, in place"
    # One that ended otherwise may have written before it did.
    left = [run for run in since_done(runs) if run.new.model.version != version]
    if not left:
        return None
    return f"run {left[0].run_id} may have left rows of model v{left[0].new.model.version}"


def since_done(runs: tuple[Run, ...]) -> tuple[Run, ...]:
    """Those of ``runs``, newest first, that are newer than the last one that `brought_up` the table."""
    last = next((n for n, run in enumerate(runs) if brought_up(run)), len(runs))
    return runs[:last]


def brought_up(run: Run) -> bool:
    """Whether nothing that runs before ``run`` left is wrong any more: a repair looks at its own rows only."""
    return run.state is RunState.DONE and run.new.kind is not RunKind.REPAIR


def spell(span: timedelta) -> str:
    """A time span for people: ``1 h``, ``90 min``, ``2 d``."""
    seconds = int(span.total_seconds())
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def answers(run: Run, request: Request) -> bool:
    """Whether ``run``, left by an earlier start and finished now, is what ``request`` asks for.

    A slot is asked for as `slot_day` gives it.
    """
    if request.slot is not None:
        return run.new.slot == request.slot
    return not request.full or run.new.kind in (RunKind.BACKFILL, RunKind.FULL)


def slot_day(text: str) -> date:
    """The calendar day of a slot, ``YYYY-MM-DD``; anything else raises UsageError."""
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        message = f"the slot {text!r} is not a day: {error}"
        raise UsageError(message, hint="write it as 2026-11-23") from error


def check_slot(text: str, now: datetime) -> str:
    """A slot is a day that has begun; anything else raises UsageError.

    It names a run and chooses no row, so any zone's day will do: a scheduler of Japan is a day ahead
    of UTC each night.
    """
    day = slot_day(text)
    if day > (utc(now) + FIRST_ZONE).date():
        told = f"{utc(now):%Y-%m-%d %H:%M} UTC"
        message = f"the slot {text} is in the future everywhere (the warehouse says {told})"
        raise UsageError(message, hint="a slot names the day whose data is processed")
    return day.isoformat()
