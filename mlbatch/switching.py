"""Brings a table to another model without a moment in which readers see two, and back again.

The new model fills a generation of its own beside the table that serves, whose daily deltas go on.
When the new one has caught up and was looked over, both change names in one step. Whatever is cut
short is taken up by typing the command again; the generation before is kept for the way back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mlbatch.errors import TemporaryError, UsageError
from mlbatch.failpoint import reach
from mlbatch.generation import (
    FIRST,
    Active,
    Generation,
    GenerationState,
    after,
    beside,
    number,
)
from mlbatch.inference import infer
from mlbatch.inspection import ANY_NUMBER, Bounds, Inspection, complete, inspect
from mlbatch.job import Job
from mlbatch.leasing import leased
from mlbatch.ledger import ModelPin, RunKind, RunState, served
from mlbatch.pinning import resolve
from mlbatch.planner import Request
from mlbatch.tools import Tools
from mlbatch.tracking import CHAMPION

if TYPE_CHECKING:
    from mlbatch.ledger import Lease
    from mlbatch.sink import Ledger

CAUGHT_UP_ROWS = 1_000
"""So few new rows are read while the table that serves stands still."""
CATCH_UP_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Switched:
    """How a switch ended."""

    table: str
    before: Active
    after: Active
    inspection: Inspection | None = None
    """None on the way back, and where nothing was to be done."""
    set_aside: int = 0
    """Rows without a prediction, because they were quarantined."""
    idle: str | None = None
    """Why nothing was to be done; None where something was."""

    @property
    def kept(self) -> str:
        """The table that served before."""
        return beside(self.table, self.before.generation)


def switch(
    job: type[Job],
    tools: Tools,
    *,
    model: str | None = None,
    max_distance: float | None = None,
    max_deletes: int | None = None,
    request: Request = Request(),  # noqa: B008  a value
) -> Switched:
    """Fill a generation with ``model``, or the champion, look it over, and let it serve instead.

    Goes on with what an earlier call left. Raises GateRefused where the new predictions are not as
    they must be, or lack more than ``max_deletes`` rows that serve now, Busy while another process works on one of both tables, UsageError where there is
    nothing to switch from, or where what is half built is of another model than the champion.
    """
    active = _active(job, tools)
    pin = resolve(job, CHAMPION if model is None else model, tools)
    generation = _target(job, tools, active, pin, by_name=model is not None)
    if generation is None:
        idle = f"it is of model v{pin.version} already"
        return Switched(job.output.table.name, active, active, idle=idle)
    with leased(job, tools, generation) as lease:
        tools.sink.ledger().build(lease, pin.version)
    _fill(job, tools, generation, pin, request)
    # Nobody reads it yet: that the source lost rows shows where it is compared with what serves.
    aside = complete(job, tools, generation, pin, ANY_NUMBER)
    labels = job.limits.label_distance if max_distance is None else max_distance
    inspection = inspect(job, tools, generation, pin, Bounds(labels, max_deletes, aside))
    ended = _cut_over(job, tools, active, generation, pin)
    return replace(ended, inspection=inspection, set_aside=aside)


def roll_back(
    job: type[Job],
    tools: Tools,
    *,
    max_deletes: int | None = None,
    request: Request = Request(),  # noqa: B008  a value
) -> Switched:
    """Let the generation before serve again, once its own model has brought it up to date.

    Goes on with what an earlier call left. Raises UsageError where there is no generation before,
    GateRefused where the source lost more than ``max_deletes`` of its rows: none of them is removed then.
    """
    table, active = job.output.table.name, _active(job, tools)
    generations = tools.sink.ledger().generations(table)
    undone = [g.name for g in generations if g.state is GenerationState.ROLLED_BACK]
    if any(number(name) > number(active.generation) for name in undone):
        idle = f"it was rolled back to {active.generation} (model v{active.model_version}) already"
        return Switched(table, active, active, idle=idle)
    generation = _before(job, tools, active, generations)
    pin = served(tools.sink.ledger().latest(table, generation))
    assert pin is not None  # noqa: S101  it has served
    _fill(job, tools, generation, pin, request)
    aside = complete(job, tools, generation, pin, max_deletes)
    return replace(_cut_over(job, tools, active, generation, pin), set_aside=aside)


def kept(job: type[Job], tools: Tools) -> tuple[str, ...]:
    """Generations that have a table although they do not serve, and no switch is filling them."""
    table, active, ledger = job.output.table.name, _active(job, tools), tools.sink.ledger()
    known = ledger.generations(table)
    building = {g.name for g in known if g.state is GenerationState.BUILDING}
    names = {FIRST, *(g.name for g in known)} - {active.generation} - building
    return tuple(n for n in sorted(names, key=number) if tools.sink.holds(beside(table, n)))


def drop_kept(job: type[Job], tools: Tools, generations: tuple[str, ...]) -> None:
    """Drop the tables of ``generations``, after which there is no way back to them.

    Raises Busy while another process works on the table that serves or on one of them, and
    TemporaryError, before anything is dropped, where one of them has come to serve meanwhile.
    """
    with leased(job, tools) as serving:
        if serving.generation in generations:
            message = f"{serving.output_table} was switched to {serving.generation} meanwhile"
            raise TemporaryError(message, hint="look at what is kept now: start again")
        for generation in generations:
            with leased(job, tools, generation) as lease:
                _drop(tools, lease, "its generation was dropped")


def _active(job: type[Job], tools: Tools) -> Active:
    """What serves; a switch that was cut short at its last step is ended first."""
    table, ledger = job.output.table.name, tools.sink.ledger()
    tools.sink.settle(table)
    active = ledger.active(table) or _before_ledgers_told(table, ledger)
    if active is None:
        message = f"{table} has never been finished, so there is nothing to switch from"
        raise UsageError(message, hint=f"mlbatch run {job.name} --mode infer")
    return active


def _before_ledgers_told(table: str, ledger: Ledger) -> Active | None:
    done = [run for run in ledger.latest(table, FIRST) if run.state is RunState.DONE]
    return Active(FIRST, done[0].new.model.version, done[0].run_id) if done else None


def _target(
    job: type[Job], tools: Tools, active: Active, pin: ModelPin, *, by_name: bool
) -> str | None:
    """The generation to fill: the one half built, or a new one; None where ``pin`` serves."""
    table, ledger = job.output.table.name, tools.sink.ledger()
    known = ledger.generations(table)
    for left in (g for g in known if g.state is GenerationState.BUILDING):
        if left.model_version == pin.version:
            return left.name
        if not by_name:
            raise _ambiguous(job, left, pin)
        _abandon(job, tools, left)
    if pin.version == active.model_version:
        return None
    return after([active.generation, *(g.name for g in known)])


def _ambiguous(job: type[Job], left: Generation, pin: ModelPin) -> UsageError:
    built = beside(job.output.table.name, left.name)
    message = f"{built} is half built with model v{left.model_version}, and the champion is v{pin.version}"
    hint = f"--model {left.model_version} finishes it, --model {pin.version} gives it up"
    return UsageError(message, hint=hint)


def _abandon(job: type[Job], tools: Tools, left: Generation) -> None:
    """Give up what is half built, and its table with it: it never served."""
    with leased(job, tools, left.name) as lease:
        tools.sink.ledger().abandon(lease)
        _drop(tools, lease, "its generation was given up")
    tools.notify("notice", f"{left.name}, half built with v{left.model_version}, is given up")


def _drop(tools: Tools, lease: Lease, reason: str) -> None:
    ledger = tools.sink.ledger()
    for run in ledger.latest(lease.output_table, lease.generation):
        if not run.state.is_terminal:
            ledger.give_up(run, RunState.SUPERSEDED, reason, tools.new_epoch())
    tools.sink.drop(lease)


def _before(
    job: type[Job], tools: Tools, active: Active, generations: tuple[Generation, ...]
) -> str:
    table = job.output.table.name
    here = next((g for g in generations if g.name == active.generation), None)
    if here is None or here.replaced is None:
        message = f"{table} is of generation {active.generation}, and none served before it"
        raise UsageError(message, hint=f"mlbatch switch {job.name} --model VERSION goes elsewhere")
    if not tools.sink.holds(beside(table, here.replaced)):
        message = f"{beside(table, here.replaced)}, which served before, is no longer there"
        raise UsageError(message, hint=f"mlbatch switch {job.name} --model VERSION builds anew")
    return here.replaced


def _fill(job: type[Job], tools: Tools, generation: str, pin: ModelPin, request: Request) -> None:
    """Run in the generation until a delta finds little that is new."""
    for _ in range(CATCH_UP_ROUNDS):
        ended = infer(job, request, tools, model=str(pin.version), generation=generation)
        # Superseding is for what was left when the command was typed.
        request = replace(request, supersede=False)
        # A run that was resumed counted nothing: it is of yesterday.
        newer = ended.probe.newer if ended.probe else None
        if ended.run.new.kind is RunKind.DELTA and newer is not None and newer <= CAUGHT_UP_ROWS:
            return
    line = f"{generation} does not catch up: the last of {CATCH_UP_ROUNDS} deltas found much new"
    tools.notify("notice", line)


def _cut_over(
    job: type[Job], tools: Tools, before: Active, generation: str, pin: ModelPin
) -> Switched:
    """Hold both leases, which fences all who write; read what is new; change the names."""
    table, ledger = job.output.table.name, tools.sink.ledger()
    with leased(job, tools) as old:
        if old.generation != before.generation:
            message = f"{table} was switched to {old.generation} meanwhile"
            raise TemporaryError(message, hint="start again, if this one is still wanted")
        if not tools.sink.holds(beside(table, generation)):
            # A run would make it anew, with what the last delta finds and nothing else.
            message = f"{beside(table, generation)} was dropped meanwhile"
            raise TemporaryError(message, hint="start again, if it is still wanted")
        infer(job, Request(), tools, model=str(pin.version), generation=generation)
        with leased(job, tools, generation) as new:
            reach("before_cut_over")
            tools.sink.swap(old, new)
    active = ledger.active(table)
    assert active is not None  # noqa: S101  the swap wrote it
    tools.notify("switch", f"{table} is {active.generation} now, of model v{active.model_version}")
    return Switched(table, before, active)
