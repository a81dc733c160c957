"""Decides how a part goes on that killed its worker.

A first death is taken for an accident, and the part simply goes on. A second one at the same row is
not: the rows ahead are tried in ever smaller batches, so that what is good is committed and the
position moves up to the row that kills. Alone in its batch, and deadly again, it is set aside, and
so is the next such row. A part that kills even where such a row goes unseen, or has more of them
than `ROWS_ALONE`, is set aside whole.

Nothing is set aside before another row was predicted since this start: where every row kills, none is
to blame, and the table keeps what it has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NoReturn

from mlbatch.allowance import Allowance, RepairMeasure, check_limit, no_more
from mlbatch.engine import Engine, PartOutcome, PartTask, Surrender, WorkerDied
from mlbatch.errors import QuarantineLimitError, RunFailed, TemporaryError
from mlbatch.ledger import PartState, Run, Strikes
from mlbatch.worker import MOST_BATCH_ROWS

if TYPE_CHECKING:
    from mlbatch.job import Job
    from mlbatch.sink import Ledger
    from mlbatch.tools import Notify

NARROWING = 8
"""Each step of care tries batches this much smaller: 8192, 1024, 128, 16, 2, 1."""
ROWS_ALONE = 5
"""How many rows of a part are set aside one by one, each found by a death or more, before what is left
of the part goes with the next. Each start of a run counts them afresh, from the last one on."""
OTHER_PARTS = 3
"""How many other parts are asked for a row that can be predicted, before the part itself is."""
Trial = Callable[[PartTask], bool]
"""Whether a worker lives through a trial and predicts a row."""


@dataclass(frozen=True, slots=True)
class PartAside:
    """A part that was set aside whole, from one of its rows on."""

    number: int
    uri: str
    run_id: str
    rows: int
    """How many of its rows were set aside so."""
    deaths: int

    def __str__(self) -> str:
        """For people."""
        return (
            f"part {self.number} of run {self.run_id} ({self.uri}) killed {self.deaths} workers: "
            f"{self.rows:,} of its rows are set aside"
        )


def _size_left(part: PartState) -> int:
    """Of the rows that are not accounted for yet: bits of their number of bytes."""
    left = part.bytes * (part.rows_expected - part.done) // max(part.rows_expected, 1)
    return left.bit_length()


class Nurse:
    """Looks after the parts of one run, from one start of it on."""

    def __init__(
        self,
        job: type[Job],
        run: Run,
        ledger: Ledger,
        notify: Notify,
        trial: Trial,
        repair: RepairMeasure | None = None,
    ) -> None:
        """``ledger`` tells how far a part had come when its worker died, and remembers the death."""
        self._repair = repair
        self._job, self._run, self._ledger, self._notify = job, run, ledger, notify
        self._trial, self._predicts = trial, False
        self._begun = ledger.parts(run.run_id)
        self._written = sum(part.written for part in self._begun)
        self._strikes = {s.part_number: s for s in ledger.strikes(run.run_id)}
        found = [s.part_number for s in self._strikes.values() if s.set_aside is not None]
        self._rows_alone = Counter(found)
        self._aside = {aside.number: aside for aside in parts_aside(run.run_id, ledger)}

    def tasks(self) -> list[PartTask]:
        """What is left of the run; a part that killed before gets the care that it had.

        The largest come first, or the last worker would be left alone with one; parts of a like size
        stay in their order.
        """
        parts = [part for part in self._begun if not part.is_complete]
        return [self._first(part) for part in sorted(parts, key=_size_left, reverse=True)]

    def _first(self, part: PartState) -> PartTask:
        task = PartTask(part.number)
        strikes = self._strikes.get(part.number)
        if strikes is None:
            return task
        if strikes.given_up_from is not None:
            return replace(task, surrender=Surrender.KEYS)
        if strikes.set_aside == part.done:
            return PartTask(part.number, part.done + 1, 1, set_aside=part.done)
        return _with_more_care(task, part) if strikes.died_at == part.done else task

    def on_death(self, death: WorkerDied) -> PartTask:
        """The task to go on with.

        Raises TemporaryError where nothing is left to leave out, or only workers of an earlier start
        predicted rows; RunFailed where none ever did; QuarantineLimitError where ``job`` does not
        allow that the part is set aside. Nothing of the part is set aside then.
        """
        number = death.task.part_number
        parts = self._ledger.parts(self._run.run_id)
        part = next(part for part in parts if part.number == number)
        line = f"part {number}: a worker died at row {part.done} (exit {death.exit_code})"
        self._notify("notice", line)
        before = self._strikes.get(number, Strikes(number))
        then = self._next(death, before, part, parts)
        now = replace(before, deaths=before.deaths + 1, died_at=part.done)
        if then.set_aside is not None:
            now = replace(now, set_aside=then.set_aside)
            self._rows_alone[number] += 1
        if then.surrender is not None and now.given_up_from is None:
            now = replace(now, given_up_from=part.done)
            self._notify("notice", f"{_aside(self._run.run_id, part, now)}")
        if now.given_up_from is not None:
            self._aside[number] = _aside(self._run.run_id, part, now)
        self._ledger.strike(self._run, now)
        self._strikes[number] = now
        return then

    def _next(
        self, death: WorkerDied, before: Strikes, part: PartState, parts: Sequence[PartState]
    ) -> PartTask:
        task, number = death.task, part.number
        if task.surrender is Surrender.UNREAD:
            self._forgive()
            message = f"a worker died although it read nothing of part {number} ({part.uri})"
            raise TemporaryError(message, hint="something else kills it: is memory short?")
        if task.surrender is Surrender.KEYS:
            return PartTask(number, surrender=Surrender.UNREAD)
        if before.died_at != part.done and part.done >= task.careful_until:
            return PartTask(number)
        then = _with_more_care(task, part)
        if then.set_aside is None:
            return then
        self._check_blame(death, part, parts)
        dies_unseen = before.set_aside == part.done
        if not dies_unseen and self._rows_alone[number] < ROWS_ALONE:
            return then
        self._check_room(replace(before, deaths=before.deaths + 1), part, parts)
        return PartTask(number, surrender=Surrender.KEYS)

    def _check_blame(self, death: WorkerDied, part: PartState, parts: Sequence[PartState]) -> None:
        """Raise unless some other row was predicted since this start, here: else none is to blame."""
        written = sum(part.written for part in parts)
        self._predicts = self._predicts or written > self._written
        self._predicts = self._predicts or any(map(self._trial, _trials(part, parts)))
        if self._predicts:
            return
        message = (
            f"no worker predicts any row of run {self._run.run_id}: the last died at row {part.done} "
            f"of part {part.number} (exit {death.exit_code})"
        )
        hint = "no row is to blame, and nothing was taken from the table: is memory short, or does the model"
        if written:
            self._forgive()
            hint = f"{hint} not run on this machine? The next start goes on from there"
            raise TemporaryError(message, hint=hint)
        raise RunFailed(message, hint=f"{hint}, or a library of it, crash?")

    def _check_room(self, strikes: Strikes, part: PartState, parts: Sequence[PartState]) -> None:
        """Raise QuarantineLimitError where the part may not be set aside as well."""
        this = _aside(self._run.run_id, part, strikes)
        aside = [*self._aside.values(), this]
        lost, rows = sum(a.rows for a in aside), sum(p.rows_expected for p in parts)
        rows = self._repair.rows(rows) if self._repair is not None else rows
        if self._job.limits.allows_parts(len(aside), len(parts), rows_aside=lost, rows=rows):
            return
        message = (
            f"{len(aside)} of {len(parts)} parts with {lost:,} of {rows:,} rows would be set aside: "
            f"part {this.number} ({this.uri}) killed {this.deaths} workers"
        )
        limits = "`parts_share` and `quarantined_parts` of the job's Limits allow more"
        hint = f"{no_more(self._job)}; the next one reads them again. Mend or leave out such rows, or {limits}"
        raise QuarantineLimitError(message, hint=hint)

    def _forgive(self) -> None:
        """It was not the parts that killed: what is left of the run is judged afresh next time."""
        left = {p.number for p in self._ledger.parts(self._run.run_id) if not p.is_complete}
        for number in left & set(self._strikes):
            self._ledger.strike(self._run, Strikes(number, self._strikes[number].deaths))

    def check_limits(self) -> None:
        """Tell how far the run is; QuarantineLimitError where too many rows are set aside one by one."""
        so_far = self._ledger.progress(self._run.run_id)
        self._notify("progress", f"{so_far.done:,} of {so_far.expected:,} rows")
        one_by_one = so_far.quarantined - sum(part.rows for part in self._aside.values())
        check_limit(self._job, one_by_one, Allowance(so_far.expected, self._repair))


class _TrialLost(Exception):
    """The worker of a trial died."""


def trial_by(engine: Engine, work: Callable[[PartTask], PartOutcome]) -> Trial:
    """Trials of ``work`` in workers of their own, beside those that ``engine`` has."""

    def lose(_: WorkerDied) -> NoReturn:
        raise _TrialLost

    def survives(task: PartTask) -> bool:
        try:
            outcomes = list(engine.run(work, [task], lose, isolated=True))
        except _TrialLost:
            return False
        return any(outcome.survived for outcome in outcomes)

    return survives


def _trials(part: PartState, parts: Sequence[PartState]) -> list[PartTask]:
    """Rows to try, all of them others than the one at which ``part`` killed; other parts' first."""
    others = [p for p in parts if p.number != part.number and p.rows_expected]
    spread = others[:: -(-len(others) // OTHER_PARTS) or 1]
    away = [PartTask(p.number, trial=(p.rows_expected // 2, p.rows_expected)) for p in spread]
    after, end = part.done + 1, part.rows_expected
    here = [((after + end) // 2, end), (after, end), (0, part.done)]
    return away + [PartTask(part.number, trial=rows) for rows in here if rows[0] < rows[1]]


def parts_aside(run_id: str, ledger: Ledger) -> tuple[PartAside, ...]:
    """The parts of a run that were set aside whole."""
    strikes = {s.part_number: s for s in ledger.strikes(run_id) if s.given_up_from is not None}
    parts = ledger.parts(run_id) if strikes else ()
    return tuple(_aside(run_id, p, strikes[p.number]) for p in parts if p.number in strikes)


def _aside(run_id: str, part: PartState, strikes: Strikes) -> PartAside:
    first = part.done if strikes.given_up_from is None else strikes.given_up_from
    rows = part.rows_expected - first
    return PartAside(part.number, part.uri, run_id, rows, strikes.deaths)


def _with_more_care(task: PartTask, part: PartState) -> PartTask:
    done, careful = part.done, part.done < task.careful_until
    rows = task.careful_rows if careful else min(MOST_BATCH_ROWS, part.rows_expected - done)
    until = task.careful_until if careful else done + MOST_BATCH_ROWS
    if rows == 1:
        return PartTask(task.part_number, until, 1, set_aside=done)
    return PartTask(task.part_number, until, max(1, rows // NARROWING))
