"""The commit protocol as a model, searched breadth first for a way in which it goes wrong.

Two runs with models 1 and 2 write the same two parts of two batches. A process may be killed or fall
asleep between any two steps, another may take the table over at any time, to resume the run or to
give it up for the next one, an engine may give a part again whose worker only sleeps, and a
COMMIT's reply may be lost: the server then applies it, or does not, whenever it likes. Steps are
named as in the code. A transaction's effects are seen when it commits; a moved part and written
rows are locked until then. What `mlbatch.inference` checks at the end is left out, so that the
protocol has to stand by itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

PARTS = BATCHES = 2
NOBODY = 0
"""A fresh epoch that no process knows."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A protocol; the first of `VARIANTS` is ours, the others are ways to get it wrong."""

    name: str
    compares_epoch: bool = True
    compares_position: bool = True
    checkpoint: str = "with"
    """In the transaction of the rows, or ``before`` or ``after`` it."""
    asks_first: bool = False
    """The owner is looked up with a plain SELECT, which locks nothing."""
    fences_earlier_runs: bool = True
    resolves_unknown: bool = True


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much may happen in one history."""

    processes: int = 2
    acquires: int = 3
    lost: int = 1
    """Lost replies and dropped connections."""
    again: int = 1
    """Parts that are given to a second worker while the first one sleeps."""


VARIANTS = (
    Variant("ours: epoch and position compared in the rows' own transaction"),
    Variant("the epoch is not compared", compares_epoch=False),
    Variant("the position is not compared", compares_position=False),
    Variant("neither is compared", compares_epoch=False, compares_position=False),
    Variant("the owner is asked for before the transaction", compares_epoch=False, asks_first=True),
    Variant("the position moves before the rows", checkpoint="before"),
    Variant("the position moves after the rows", checkpoint="after"),
    Variant("a take-over does not fence earlier runs", fences_earlier_runs=False),
    Variant("an unknown commit is repeated blindly", compares_position=False,
            resolves_unknown=False),
)  # fmt: skip


class Run(NamedTuple):
    """What the ledger holds of a run, and, which it does not know, how often a batch was applied."""

    state: str = "absent"
    epoch: int = NOBODY
    done: tuple[int, ...] = (0,) * PARTS
    writes: tuple[tuple[int, ...], ...] = ((0,) * BATCHES,) * PARTS


class Worker(NamedTuple):
    """A process that works on ``run``, and the step it takes next."""

    run: int
    epoch: int
    step: str
    part: int = 0
    low: int = 0


class State(NamedTuple):
    """Everything that the database and the processes hold."""

    workers: tuple[Worker | None, ...]
    runs: tuple[Run, ...] = (Run(), Run())
    rows: tuple[tuple[int, ...], ...] = ((0,) * BATCHES,) * PARTS
    """Which model predicted each batch's rows; 0 for none."""
    lease: int = NOBODY
    ghost: Worker | None = None
    """A transaction whose COMMIT was sent, and whose connection is gone."""
    acquired: int = 0
    lost: int = 0
    again: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the search found."""

    states: int
    violation: str | None
    trace: tuple[str, ...] = ()
    steps: frozenset[str] = frozenset()
    """Every step that was taken somewhere, by whomever."""


Steps = Iterator[tuple[str, State]]
KINDS = ("lost", "stale", "twice")


def check(variant: Variant, bounds: Bounds = Bounds(), kinds: tuple[str, ...] = KINDS) -> Verdict:
    """Search every state that ``variant`` can come to, for the shortest way to one of ``kinds``."""
    start = State((None,) * bounds.processes)
    came_from: dict[State, tuple[State, str] | None] = {start: None}
    waiting, steps = deque([start]), set[str]()
    while waiting:
        state = waiting.popleft()
        wrong = _violation(state, kinds)
        if wrong is not None:
            return Verdict(len(came_from), wrong, _trace(state, came_from), _bare(steps))
        for step, following in _steps(state, variant, bounds):
            steps.add(step)
            if following not in came_from:
                came_from[following] = (state, step)
                waiting.append(following)
    return Verdict(len(came_from), None, (), _bare(steps))


def _trace(state: State, came_from: dict[State, tuple[State, str] | None]) -> tuple[str, ...]:
    steps: list[str] = []
    here = came_from[state]
    while here is not None:
        steps.append(here[1])
        here = came_from[here[0]]
    return tuple(reversed(steps))


def _bare(steps: set[str]) -> frozenset[str]:
    return frozenset(step.rpartition(": ")[2] for step in steps)


def _violation(state: State, kinds: tuple[str, ...]) -> str | None:
    return next((wrong for wrong in _wrongs(state) if wrong.startswith(kinds)), None)


def _wrongs(state: State) -> Iterator[str]:
    for number, run in enumerate(state.runs, start=1):
        if any(count > 1 for part in run.writes for count in part):
            yield f"twice: run {number} applied a batch more than once"
        if run.state == "done" and any(not count for part in run.writes for count in part):
            yield f"lost: run {number} is done and a batch was never written"
    newer = zip(sum(state.runs[1].writes, ()), sum(state.rows, ()), strict=True)
    if any(count and model == 1 for count, model in newer):
        yield "stale: rows of the older model lie over the newer one's"


def _steps(state: State, variant: Variant, bounds: Bounds) -> Steps:
    if state.ghost is not None:
        settled = state._replace(ghost=None)
        yield "the server applies the lost commit", _apply(settled, state.ghost)
        yield "the server rolls the lost commit back", settled
    if None in state.workers and state.acquired < bounds.acquires:
        yield from _acquire(state, variant)
    for number, worker in enumerate(state.workers):
        if worker is not None:
            for step, following in _moves(state, number, worker, variant, bounds):
                yield f"process {number + 1} (run {worker.run + 1}): {step}", following


def _acquire(state: State, variant: Variant) -> Steps:
    """Whoever comes takes the lease with a fresh epoch, whatever the owner before it is doing."""
    epoch, number = state.acquired + 1, state.workers.index(None)
    taken = state._replace(lease=epoch, acquired=epoch)
    open_runs = [n for n, run in enumerate(state.runs) if run.state in {"created", "writing"}]
    for run in open_runs:
        if not _is_locked(state, run):
            step = "adopt" if state.runs[run].state == "created" else "position"
            made = _fence(taken, run, epoch)
            yield f"acquire, resume run {run + 1}", _put(made, number, Worker(run, epoch, step))
    following = sum(run.state != "absent" for run in state.runs)
    if following == len(state.runs) or (variant.fences_earlier_runs and _any_locked(state)):
        return
    for run in open_runs if variant.fences_earlier_runs else ():
        taken = _fence(taken, run, epoch)
    step = "give_up" if open_runs else "create"
    name = f"acquire for run {following + 1}"
    yield name, _put(taken, number, Worker(following, epoch, step))


def _fence(state: State, run: int, epoch: int) -> State:
    return _change(state, run, epoch=epoch)


def _change(state: State, run: int, /, **values: object) -> State:
    runs = tuple(
        r._replace(**values) if n == run else r  # type: ignore[arg-type]
        for n, r in enumerate(state.runs)
    )
    return state._replace(runs=runs)


def _put(state: State, number: int, worker: Worker | None) -> State:
    workers = tuple(worker if n == number else w for n, w in enumerate(state.workers))
    return state._replace(workers=workers)


def _open(state: State, but: int | None = None) -> Iterator[Worker]:
    """Transactions that hold the lock of their part's row."""
    for number, worker in enumerate(state.workers):
        if number != but and worker is not None and worker.step in {"write", "commit"}:
            yield worker
    if state.ghost is not None:
        yield state.ghost


def _is_locked(state: State, run: int, part: int | None = None, but: int | None = None) -> bool:
    return any(w.run == run and part in {None, w.part} for w in _open(state, but))


def _any_locked(state: State) -> bool:
    return any(_is_locked(state, run) for run in range(len(state.runs)))


def _moves(state: State, number: int, worker: Worker, variant: Variant, bounds: Bounds) -> Steps:
    """What one process does next, or what is done to it."""
    yield "killed", _put(state, number, None)
    if state.lost < bounds.lost and worker.step in {"write", "commit"}:
        yield "connection dropped", _go(state, number, "resolve", lost=state.lost + 1)
    if state.again < bounds.again and worker.step == "move" and None in state.workers:
        twin = worker._replace(step="position")
        again = _put(state, state.workers.index(None), twin)
        yield "its part is given again", again._replace(again=state.again + 1)
    if worker.step in {"give_up", "create", "adopt"}:
        yield from _begin(state, number, worker, variant)
    elif worker.step == "position":
        yield from _position(state, number, worker, variant)
    elif variant.checkpoint == "with":
        yield from _batch(state, number, worker, variant, bounds)
    else:
        yield from _batch_in_two(state, number, worker, variant)


def _go(state: State, number: int, step: str, /, **values: object) -> State:
    worker = state.workers[number]
    assert worker is not None
    state = state._replace(**values) if values else state  # type: ignore[arg-type]
    return _put(state, number, worker._replace(step=step))


def _fenced(state: State, number: int) -> tuple[str, State]:
    return "fenced", _put(state, number, None)


def _begin(state: State, number: int, worker: Worker, variant: Variant) -> Steps:
    run, earlier = state.runs[worker.run], worker.run - 1
    if worker.step == "give_up":
        old = state.runs[earlier]
        if not variant.fences_earlier_runs:
            given_up = _change(state, earlier, state="superseded")
            yield "give_up", _go(given_up, number, "create")
        elif old.epoch != worker.epoch or old.state not in {"created", "writing"}:
            yield _fenced(state, number)
        elif not _is_locked(state, earlier):
            given_up = _change(state, earlier, state="superseded", epoch=NOBODY)
            yield "give_up", _go(given_up, number, "create")
    elif worker.step == "create":
        if state.lease != worker.epoch or run.state != "absent":
            yield _fenced(state, number)
        else:
            created = _change(state, worker.run, state="created", epoch=worker.epoch)
            yield "create", _go(created, number, "adopt")
    elif run.epoch != worker.epoch or run.state != "created":
        yield _fenced(state, number)
    else:
        adopted = _change(state, worker.run, state="writing")
        yield "adopt", _go(adopted, number, "position")


def _position(state: State, number: int, worker: Worker, variant: Variant) -> Steps:
    """Take a part that is not through, as its row says under its lock; or finish the run."""
    run = state.runs[worker.run]
    if run.state != "writing" or (variant.compares_epoch and run.epoch != worker.epoch):
        yield _fenced(state, number)
        return
    first = {
        "with": "ask" if variant.asks_first else "move",
        "before": "move_alone",
        "after": "write_alone",
    }
    for part, low in enumerate(run.done):
        if low < BATCHES and not _is_locked(state, worker.run, part, number):
            taken = _put(state, number, worker._replace(part=part, low=low))
            yield f"position of part {part}", _go(taken, number, first[variant.checkpoint])
    if all(low == BATCHES for low in run.done):
        if run.epoch != worker.epoch:
            yield _fenced(state, number)
        elif not _is_locked(state, worker.run, but=number):
            done = _change(state, worker.run, state="done", epoch=NOBODY)
            yield "finish", _put(done, number, None)


def _batch(state: State, number: int, worker: Worker, variant: Variant, bounds: Bounds) -> Steps:
    """One transaction: move, write, commit; and what follows where its outcome is unknown."""
    run = state.runs[worker.run]
    if worker.step == "commit":
        yield "commit", _go(_apply(state, worker), number, "position")
        if state.lost < bounds.lost and state.ghost is None:
            gone = _go(state, number, "resolve", lost=state.lost + 1, ghost=worker)
            yield "commit, reply lost", gone
    elif worker.step == "write":
        if not _is_written_by_another(state, number, worker):
            yield "write", _go(state, number, "commit")
    elif worker.step == "ask":
        passed = run.epoch == worker.epoch
        yield ("ask", _go(state, number, "move")) if passed else _fenced(state, number)
    elif _is_locked(state, worker.run, worker.part, number):
        return
    elif worker.step == "move":
        passed = _passes(run, worker, variant)
        yield ("move", _go(state, number, "write")) if passed else _fenced(state, number)
    elif variant.compares_epoch and run.epoch != worker.epoch:
        yield _fenced(state, number)
    else:
        applied = variant.resolves_unknown and run.done[worker.part] > worker.low
        yield "resolve", _go(state, number, "position" if applied else "move")


def _is_written_by_another(state: State, number: int, worker: Worker) -> bool:
    return any(
        (w.part, w.low) == (worker.part, worker.low) and w.step == "commit"
        for w in _open(state, number)
    )


def _passes(run: Run, worker: Worker, variant: Variant) -> bool:
    if variant.compares_epoch and run.epoch != worker.epoch:
        return False
    return not variant.compares_position or run.done[worker.part] == worker.low


def _batch_in_two(state: State, number: int, worker: Worker, variant: Variant) -> Steps:
    """The position moves in a transaction of its own, before or after that of the rows."""
    moves_next = variant.checkpoint == "before"
    if worker.step == "write_alone":
        written = _apply(state, worker, moves=False)
        yield "write, commit", _go(written, number, "position" if moves_next else "move_alone")
    elif _passes(state.runs[worker.run], worker, variant):
        moved = _apply(state, worker, writes=False)
        yield "move, commit", _go(moved, number, "write_alone" if moves_next else "position")
    else:
        yield _fenced(state, number)


def _apply(state: State, worker: Worker, *, moves: bool = True, writes: bool = True) -> State:
    """The effects of one transaction, or of its half."""
    run, part, low = state.runs[worker.run], worker.part, worker.low
    if moves:
        done = tuple(low + 1 if n == part else d for n, d in enumerate(run.done))
        state = _change(state, worker.run, done=done)
    if writes:
        state = _change(
            state, worker.run, writes=_at(run.writes, part, low, run.writes[part][low] + 1)
        )
        state = state._replace(rows=_at(state.rows, part, low, worker.run + 1))
    return state


def _at(
    table: tuple[tuple[int, ...], ...], part: int, batch: int, value: int
) -> tuple[tuple[int, ...], ...]:
    return tuple(
        tuple(value if (p, b) == (part, batch) else old for b, old in enumerate(row))
        for p, row in enumerate(table)
    )
