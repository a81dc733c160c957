"""Parts on this machine: one process per core, each with parts of its own.

A single part runs in the calling process, so that a small delta never pays for a pool. Workers that
die are told from workers that fail: an error is raised here as it was there; a death (a kill, a
crash in native code) is reported with the part, and the part goes on in a new process.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import select
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path

import pyarrow as pa

from mlbatch.engine import PartOutcome, PartTask, WorkerDied
from mlbatch.engines.stem import Stem
from mlbatch.project import imported_root, make_importable

Work = Callable[[PartTask], PartOutcome]
OnDeath = Callable[[WorkerDied], PartTask]
FINISH_SECONDS = 20.0
"""How long a worker that is asked to leave may finish its transaction."""


@dataclass(frozen=True, slots=True)
class LocalEngine:
    """`mlbatch.engine.Engine` with ``workers`` processes."""

    workers: int
    _early: list[Stem] = field(default_factory=list, init=False, repr=False, compare=False)
    """At most one, for all runs."""

    def warm_up(self) -> None:
        """See `mlbatch.engine.Engine.warm_up`."""
        if not self._early:
            # Where no process can be made now, a run that needs one says so.
            with suppress(OSError, AssertionError):
                self._early.append(Stem(_serve))

    def run(
        self, work: Work, tasks: Sequence[PartTask], on_death: OnDeath, *, isolated: bool = False
    ) -> Iterator[PartOutcome]:
        """See `mlbatch.engine.Engine.run`."""
        if not isolated and (len(tasks) == 1 or self.workers == 1):
            yield from map(work, tasks)
            return
        if not tasks:
            return
        carried = pickle.dumps(work)
        with self._stem(carried) as stem:
            pool = _Pool(stem, carried, min(self.workers, len(tasks)))
            try:
                yield from pool.run(deque(tasks), on_death)
            finally:
                pool.stop()

    @contextmanager
    def _stem(self, carried: bytes) -> Iterator[Stem]:
        """The early one, if it is still there, or else a fresh one for this run."""
        if self._early and not self._early[0].is_alive:
            self._early.pop().stop()
        if self._early:
            yield self._early[0]
            return
        stem = Stem(_serve, _Imports(imported_root(), carried))
        try:
            yield stem
        finally:
            stem.stop()


@dataclass(frozen=True, slots=True)
class _Imports:
    """What a fresh interpreter needs in memory before it forks workers."""

    project: Path | None
    work: bytes

    def __call__(self) -> None:
        if self.project is not None:
            make_importable(self.project)
        pickle.loads(self.work)  # noqa: S301  our own bytes, from our own parent process


class _Worker:
    """One process, and the task it is on."""

    def __init__(self, stem: Stem, work: bytes) -> None:
        self._stem = stem
        self.pipe, theirs = multiprocessing.Pipe()
        self.pid = stem.start(theirs)
        self.task: PartTask | None = None
        # A worker that is already gone is found by the end of its pipe.
        with suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send_bytes(work)

    def give(self, task: PartTask) -> None:
        self.task = task
        with suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send(task)

    def dismiss(self) -> None:
        """Ask it to leave: it finishes the transaction that is under way."""
        self._stem.send_signal(self.pid, signal.SIGTERM)

    def bury(self, seconds: float) -> None:
        """Wait for its end; a process that does not leave in time is killed."""
        until = time.monotonic() + seconds
        # OSError: the end of the pipe, also in the middle of a message.
        with suppress(EOFError, OSError):
            while self.pipe.poll(max(until - time.monotonic(), 0)):
                self.pipe.recv_bytes()
            self._stem.send_signal(self.pid, signal.SIGKILL)
        self.pipe.close()


class _Pool:
    def __init__(self, stem: Stem, work: bytes, size: int) -> None:
        self._stem, self._work, self._size = stem, work, size
        self._workers: list[_Worker] = []

    def run(self, waiting: deque[PartTask], on_death: OnDeath) -> Iterator[PartOutcome]:
        while len(self._workers) < self._size:
            self._workers.append(_Worker(self._stem, self._work))
        self._hand_out(waiting)
        while any(worker.task for worker in self._workers):
            busy = [worker for worker in self._workers if worker.task]
            ready = wait([worker.pipe for worker in busy])
            for worker in busy:
                if worker.pipe in ready:
                    outcome = self._collect(worker, waiting, on_death)
                    if outcome is not None:
                        yield outcome
            self._hand_out(waiting)

    def _hand_out(self, waiting: deque[PartTask]) -> None:
        for worker in self._workers:
            if waiting and worker.task is None:
                worker.give(waiting.popleft())

    def _collect(
        self, worker: _Worker, waiting: deque[PartTask], on_death: OnDeath
    ) -> PartOutcome | None:
        try:
            answer = worker.pipe.recv()
        except (EOFError, OSError):
            self._bury(worker, waiting, on_death)
            return None
        worker.task = None
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _bury(self, worker: _Worker, waiting: deque[PartTask], on_death: OnDeath) -> None:
        task = worker.task
        self._workers.remove(worker)
        worker.pipe.close()
        code = self._stem.exit_code(worker.pid)
        if task is not None:
            waiting.appendleft(on_death(WorkerDied(task, code)))
        self._workers.append(_Worker(self._stem, self._work))

    def stop(self) -> None:
        until = time.monotonic() + FINISH_SECONDS
        for worker in self._workers:
            worker.dismiss()
        for worker in self._workers:
            worker.bury(max(until - time.monotonic(), 0))


def _serve(pipe: Connection) -> None:
    """A worker's life: work in, then parts in and outcomes out, until it is dismissed."""
    _die_with_parent(pipe)
    dismissed = _until_dismissed()
    # The system gives back what a batch took; Arrow's own pool keeps it, for each of the threads.
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        run: Work = pickle.loads(pipe.recv_bytes())  # noqa: S301  our own bytes, from our own parent process
    except Exception as error:  # noqa: BLE001  raised again in the parent: no part is to blame
        pipe.send(_portable(error))
        return
    while not dismissed.is_set():
        try:
            task = pipe.recv()
        except EOFError:
            return
        try:
            answer: PartOutcome | BaseException = run(task)
        except Exception as error:  # noqa: BLE001  raised again in the parent
            answer = _portable(error)
        pipe.send(answer)


def _until_dismissed() -> threading.Event:
    """Whether this process was asked to leave, which also ends what it is doing.

    The event counts: an exception that is raised while Python clears up is lost.
    """
    dismissed = threading.Event()

    def leave(*_: object) -> None:
        dismissed.set()
        sys.exit()

    signal.signal(signal.SIGTERM, leave)
    return dismissed


def _portable(error: Exception) -> Exception:
    # Causes may hold sockets and cursors; the message is what the parent can use.
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301
    except Exception:  # noqa: BLE001
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _die_with_parent(pipe: Connection) -> None:
    """Whoever has the other end of ``pipe`` keeps it open until this process is gone."""

    def watch() -> None:
        # Asks for nothing, so that only the other end's closing is told.
        parent = select.poll()
        parent.register(pipe, 0)
        parent.poll()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
