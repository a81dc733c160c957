"""Parts on this machine: one process per core, each with parts of its own.

A single part runs in the calling process, so that a small delta never pays for a pool. Workers that
die are told from workers that fail: an error is raised here as it was there; a death (a kill, a
crash in native code) is reported with the part, and the part goes on in a new process.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

import pyarrow as pa

from mlbatch.engine import PartOutcome, PartTask, WorkerDied
from mlbatch.project import make_importable

Work = Callable[[PartTask], PartOutcome]
OnDeath = Callable[[WorkerDied], PartTask]
FINISH_SECONDS = 20.0
"""How long a worker that is asked to leave may finish its transaction."""
PRELOAD = ("mlbatch.scoring", "mlbatch.text", "sklearn.linear_model", "skops.io")
"""Imported once, and shared by all workers: what scoring needs, and most models."""
FREEZE = "mlbatch.engines.freeze"


@dataclass(frozen=True, slots=True)
class LocalEngine:
    """`mlbatch.engine.Engine` with ``workers`` processes."""

    workers: int
    project: Path | None = None
    """Folder whose jobs the workers must be able to import."""
    preload: tuple[str, ...] = ()
    """Further modules that every worker will need: imported once, and their memory shared."""

    def warm_up(self) -> None:
        """See `mlbatch.engine.Engine.warm_up`: the imports that all workers share."""
        if self.workers > 1:
            _context(self.preload)
            forkserver.ensure_running()

    def run(
        self, work: Work, tasks: Sequence[PartTask], on_death: OnDeath, *, isolated: bool = False
    ) -> Iterator[PartOutcome]:
        """See `mlbatch.engine.Engine.run`."""
        if not isolated and (len(tasks) == 1 or self.workers == 1):
            yield from map(work, tasks)
            return
        if not tasks:
            return
        context = _context(self.preload)
        pool = _Pool(context, (pickle.dumps(work), self.project), min(self.workers, len(tasks)))
        try:
            yield from pool.run(deque(tasks), on_death)
        finally:
            pool.stop()


class _Worker:
    """One process, and the task it is on."""

    def __init__(self, context: ForkServerContext, work: tuple[bytes, Path | None]) -> None:
        self.pipe, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(
            target=_serve, args=(theirs, *work), daemon=True
        )
        self.process.start()
        theirs.close()
        self.task: PartTask | None = None

    def give(self, task: PartTask) -> None:
        self.task = task
        # A worker that is already gone is found by its sentinel, with the task still its own.
        with suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send(task)

    def dismiss(self) -> None:
        """Ask it to leave: it finishes the transaction that is under way."""
        self.pipe.close()
        self.process.terminate()

    def bury(self, seconds: float) -> None:
        """Wait for its end; a process that does not leave in time is killed."""
        self.process.join(seconds)
        self.process.kill()
        self.process.join()


def _context(preload: tuple[str, ...]) -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*PRELOAD, *preload, FREEZE])
    return context


class _Pool:
    def __init__(
        self, context: ForkServerContext, work: tuple[bytes, Path | None], size: int
    ) -> None:
        self._context, self._work = context, work
        self._workers = [_Worker(self._context, self._work) for _ in range(size)]

    def run(self, waiting: deque[PartTask], on_death: OnDeath) -> Iterator[PartOutcome]:
        self._hand_out(waiting)
        while any(worker.task for worker in self._workers):
            busy = [worker for worker in self._workers if worker.task]
            ready = wait([w.pipe for w in busy] + [w.process.sentinel for w in busy])
            for worker in busy:
                if worker.pipe in ready or worker.process.sentinel in ready:
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
        except (EOFError, ConnectionResetError):
            self._bury(worker, waiting, on_death)
            return None
        worker.task = None
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _bury(self, worker: _Worker, waiting: deque[PartTask], on_death: OnDeath) -> None:
        task = worker.task
        worker.process.join()
        self._workers.remove(worker)
        if task is not None:
            waiting.appendleft(on_death(WorkerDied(task, worker.process.exitcode)))
        self._workers.append(_Worker(self._context, self._work))

    def stop(self) -> None:
        until = time.monotonic() + FINISH_SECONDS
        for worker in self._workers:
            worker.dismiss()
        for worker in self._workers:
            worker.bury(max(until - time.monotonic(), 0))


def _serve(pipe: Connection, work: bytes, project: Path | None) -> None:
    """A worker's life: parts in, outcomes out, until the pipe closes."""
    _die_with_parent()
    # Whoever presses Ctrl-C stops the parent, which then dismisses its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    if project is not None:
        make_importable(project)
    # The system gives back what a batch took; Arrow's own pool keeps it, for each of the threads.
    pa.set_memory_pool(pa.system_memory_pool())
    run: Work = pickle.loads(work)  # noqa: S301  our own bytes, from our own parent process
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        try:
            answer: PartOutcome | BaseException = run(task)
        except Exception as error:  # noqa: BLE001  raised again in the parent
            answer = _portable(error)
        pipe.send(answer)


def _portable(error: Exception) -> Exception:
    # Causes may hold sockets and cursors; the message is what the parent can use.
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301
    except Exception:  # noqa: BLE001
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
