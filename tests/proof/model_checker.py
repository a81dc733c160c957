"""The commit protocol as a model, searched breadth first for a way in which it goes wrong.

One part of two batches is written by run 1 with model 1; another run with model 2 may take the
table over. Workers may be killed or fall asleep between any two steps, and a COMMIT's reply may be
lost, whether it was applied or not. Steps are named as in `mlbatch.connectors.mysql.session`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

BATCHES = 2
WORKERS = 2
LOST_REPLIES = 1
TAKE_OVERS = 2


@dataclass(frozen=True, slots=True)
class Variant:
    """A protocol; the first of `VARIANTS` is ours, the others are ways to get it wrong."""

    name: str
    compares_epoch: bool = True
    compares_position: bool = True
    checkpoint: str = "with"
    """In the transaction of the rows, or ``before`` or ``after`` it."""
    fences_earlier_runs: bool = True
    resolves_unknown: bool = True


VARIANTS = (
    Variant("ours: epoch and position compared in the rows' own transaction"),
    Variant("the epoch is not compared", compares_epoch=False),
    Variant("neither is compared", compares_epoch=False, compares_position=False),
    Variant("the position moves before the rows", checkpoint="before"),
    Variant("the position moves after the rows", checkpoint="after"),
    Variant("a take-over does not fence earlier runs", fences_earlier_runs=False),
    Variant("an unknown commit is repeated blindly", compares_position=False,
            resolves_unknown=False),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Worker:
    """A process in the middle of run ``run``."""

    run: int
    epoch: int
    step: str = "position"
    low: int = 0


@dataclass(frozen=True, slots=True)
class State:
    """Everything that the database and the processes hold."""

    epochs: tuple[int, int] = (0, 0)
    """Of the part's row, in run 1 and run 2."""
    done: tuple[int, int] = (0, 0)
    rows: tuple[int, ...] = (0,) * BATCHES
    """Which run's model predicted each batch's rows; 0 for none."""
    writes: tuple[tuple[int, ...], ...] = ((0,) * BATCHES,) * 2
    """How often each run applied each batch."""
    workers: tuple[Worker | None, ...] = (None,) * WORKERS
    taken: int = 0
    lost: int = 0
    fresh: int = 1
    current: int = 0
    """The run that owns the table."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the search found."""

    states: int
    violation: str | None
    trace: tuple[str, ...] = ()


def check(variant: Variant) -> Verdict:
    """Search every state that ``variant`` can come to."""
    start = State()
    came_from: dict[State, tuple[State, str] | None] = {start: None}
    waiting = deque([start])
    while waiting:
        state = waiting.popleft()
        wrong = _violation(state)
        if wrong is not None:
            return Verdict(len(came_from), wrong, _trace(state, came_from))
        for step, following in _steps(state, variant):
            if following not in came_from:
                came_from[following] = (state, step)
                waiting.append(following)
    return Verdict(len(came_from), None)


def _trace(state: State, came_from: dict[State, tuple[State, str] | None]) -> tuple[str, ...]:
    steps: list[str] = []
    here = came_from[state]
    while here is not None:
        steps.append(here[1])
        here = came_from[here[0]]
    return tuple(reversed(steps))


def _violation(state: State) -> str | None:
    for run, counts in enumerate(state.writes):
        if any(count > 1 for count in counts):
            return f"applied twice by run {run + 1}"
    for run in (0, 1):
        if state.done[run] == BATCHES and state.current == run:
            if 0 in state.rows or any(not count for count in state.writes[run]):
                return f"lost: run {run + 1} is through and a batch was never written"
            if any(row != run + 1 for row in state.rows):
                return "stale: rows of the older model lie over the newer one's"
    return None


def _steps(state: State, variant: Variant) -> Iterator[tuple[str, State]]:
    if state.taken < TAKE_OVERS:
        yield from _acquire(state, variant)
    for number, worker in enumerate(state.workers):
        if worker is not None:
            for step, following in _work(state, worker, number, variant):
                yield f"worker {number + 1} (run {worker.run + 1}): {step}", following


def _acquire(state: State, variant: Variant) -> Iterator[tuple[str, State]]:
    """Another process takes the table over, for the same run or the next one."""
    for run in range(state.current, 2):
        if run > state.current and state.done[state.current] < BATCHES and not state.taken:
            continue
        for number, worker in enumerate(state.workers):
            if worker is None or worker.epoch != state.epochs[worker.run]:
                epochs = list(state.epochs)
                epochs[run] = state.fresh
                if variant.fences_earlier_runs:
                    epochs[:run] = [state.fresh] * run
                made = replace(
                    state,
                    epochs=(epochs[0], epochs[1]),
                    fresh=state.fresh + 1,
                    taken=state.taken + 1,
                    current=run,
                    workers=_put(state, number, Worker(run, state.fresh)),
                )
                yield f"acquire for run {run + 1} as worker {number + 1}", made


def _put(state: State, number: int, worker: Worker | None) -> tuple[Worker | None, ...]:
    return tuple(worker if n == number else w for n, w in enumerate(state.workers))


def _work(
    state: State, worker: Worker, number: int, variant: Variant
) -> Iterator[tuple[str, State]]:
    yield "killed", replace(state, workers=_put(state, number, None))
    at, run = worker.low, worker.run
    if worker.step == "position":
        low = state.done[run]
        if (variant.compares_epoch and worker.epoch != state.epochs[run]) or low == BATCHES:
            yield "ends", replace(state, workers=_put(state, number, None))
            return
        yield "position", _go(state, number, worker, "commit", low)
        return
    if worker.step == "second":
        yield from _second(state, worker, number, variant)
        return
    if not _passes(state, worker, variant):
        yield "fenced", replace(state, workers=_put(state, number, None))
        return
    applied = _applied(state, run, at, variant, first=True)
    following = "position" if variant.checkpoint == "with" else "second"
    yield "commit", _go(applied, number, worker, following, at)
    if state.lost < LOST_REPLIES and variant.checkpoint == "with":
        # Ours looks at the row again; a blind one sends the same batch once more.
        again = "position" if variant.resolves_unknown else "commit"
        lost = replace(applied, lost=state.lost + 1)
        yield "commit, reply lost", _go(lost, number, worker, again, at)


def _passes(state: State, worker: Worker, variant: Variant) -> bool:
    run = worker.run
    if variant.compares_epoch and worker.epoch != state.epochs[run]:
        return False
    return not variant.compares_position or state.done[run] == worker.low


def _second(
    state: State, worker: Worker, number: int, variant: Variant
) -> Iterator[tuple[str, State]]:
    applied = _applied(state, worker.run, worker.low, variant, first=False)
    yield "second transaction", _go(applied, number, worker, "position", worker.low)


def _applied(state: State, run: int, batch: int, variant: Variant, *, first: bool) -> State:
    moves = variant.checkpoint == "with" or first == (variant.checkpoint == "before")
    writes = variant.checkpoint == "with" or first == (variant.checkpoint == "after")
    if moves:
        done = tuple(batch + 1 if n == run else d for n, d in enumerate(state.done))
        state = replace(state, done=(done[0], done[1]))
    if writes:
        rows = tuple(run + 1 if n == batch else row for n, row in enumerate(state.rows))
        counted = tuple(
            tuple(c + (n == run and b == batch) for b, c in enumerate(counts))
            for n, counts in enumerate(state.writes)
        )
        state = replace(state, rows=rows, writes=counted)
    return state


def _go(state: State, number: int, worker: Worker, step: str, low: int) -> State:
    return replace(state, workers=_put(state, number, replace(worker, step=step, low=low)))
