"""The process that workers are forked from: without threads, connections or models of its own.

Forking the calling process whenever a worker is needed would copy its threads' locks, its open
connections and what SQLite believes to hold of a file's locks. So the workers' parent is another: a copy of
the calling process that is made early, before anything is opened, where all imports are in memory
once for all; or, where nobody can say that it is early, a fresh interpreter.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext, ForkProcess
from multiprocessing.reduction import recv_handle, send_handle
from multiprocessing.util import Finalize

from mlbatch.errors import TemporaryError

Life = Callable[[Connection], None]
"""What a worker does: it is given its end of a pipe."""
_START, _END = 0, -1
"""Orders that are no process's number; such a number asks how that worker ended, and a pair sends it a signal."""


class Stem:
    """Forks workers, each with a pipe of its own, and tells how they ended."""

    def __init__(self, life: Life, prepare: Callable[[], object] | None = None) -> None:
        """Fork this process, now.

        With ``prepare``, which can be pickled, start a fresh interpreter instead, which calls it for
        what it imports.
        """
        context: BaseContext = multiprocessing.get_context("fork" if prepare is None else "spawn")
        self._orders, theirs = context.Pipe()
        ours = self._orders if prepare is None else None
        self._process = context.Process(target=_grow, args=(ours, theirs, life, prepare))  # type: ignore[attr-defined]
        with warnings.catch_warnings():
            # Native libraries have threads from their import on, which wait for work and hold no lock.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._process.start()
        theirs.close()
        # Whoever forgets it, or ends, closes the pipe, which ends the stem.
        self._close = Finalize(self, self._orders.close, exitpriority=10)

    def start(self, pipe: Connection) -> int:
        """Fork a worker that lives with this end of a pipe, which is closed here; its process id."""
        with pipe:
            return self._ask(_START, pipe)

    def exit_code(self, worker: int) -> int:
        """How ``worker`` ended; waits for it."""
        return self._ask(worker)

    def send_signal(self, worker: int, number: signal.Signals) -> None:
        """Send SIGTERM or SIGKILL to ``worker``; nothing where it is gone, or the stem itself.

        Only its parent knows whether a number is still that worker's. There is no answer to wait for.
        """
        with suppress(OSError):
            self._orders.send((worker, number))

    @property
    def is_alive(self) -> bool:
        """Whether it can fork yet."""
        return self._process.is_alive()

    def stop(self) -> None:
        """Wait until it is gone, and with it all workers, which are terminated."""
        # Another stem may have been forked meanwhile, and keep a copy of the pipe open.
        with suppress(ConnectionError):
            self._orders.send(_END)
        self._close()
        self._process.join()

    def _ask(self, order: int, pipe: Connection | None = None) -> int:
        with self._expected():
            self._orders.send(order)
            if pipe is not None:
                send_handle(self._orders, pipe.fileno(), self._process.pid)
            answer: int | OSError = self._orders.recv()
        if isinstance(answer, OSError):
            raise answer
        return answer

    @contextmanager
    def _expected(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, ConnectionError) as error:
            message = "the process that workers are forked from is gone"
            hint = "try again; something killed it: is memory short?"
            raise TemporaryError(message, hint=hint) from error


def _grow(
    ours: Connection | None,
    orders: Connection,
    life: Life,
    prepare: Callable[[], object] | None,
) -> None:
    """The stem's life: an order to fork, or to tell of an end, until its pipe closes."""
    if ours is not None:
        ours.close()
    # Whoever presses Ctrl-C or ends the whole group ends the first process, which sees to the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if prepare is not None:
        # What does not load here does not load in a worker, which says so.
        with suppress(Exception):
            prepare()
    # A collection of garbage writes into every object that it visits, and so takes a worker's own copy
    # of memory that all of them could share. What is there by now is never garbage.
    gc.freeze()
    workers: dict[int, ForkProcess] = {}
    try:
        _obey(orders, life, workers)
    finally:
        # Also those that are stopped, and would keep this process.
        for worker in workers.values():
            worker.kill()
        # Nothing is left to write, and what is frozen would be told as leaked.
        os._exit(0)


def _obey(orders: Connection, life: Life, workers: dict[int, ForkProcess]) -> None:
    # An order that was cut short by a signal is no order either.
    with suppress(EOFError, ConnectionError, RuntimeError):
        while (order := orders.recv()) != _END:
            if order == _START:
                orders.send(_fork(orders, life, workers))
            elif isinstance(order, tuple):
                _signal(workers, *order)
            else:
                workers[order].join()
                orders.send(workers.pop(order).exitcode)


def _signal(workers: dict[int, ForkProcess], number: int, wanted: signal.Signals) -> None:
    worker = workers.get(number)
    if worker is not None:
        # Neither reaches a process that was waited for, whose number may be another's by now.
        (worker.kill if wanted is signal.SIGKILL else worker.terminate)()


def _fork(orders: Connection, life: Life, workers: dict[int, ForkProcess]) -> int | OSError:
    """Start a worker with the pipe that is sent next; its process id, or why there is none."""
    with Connection(recv_handle(orders)) as pipe:
        context = multiprocessing.get_context("fork")
        worker = context.Process(target=_live, args=(orders, pipe, life), daemon=True)
        try:
            worker.start()
        except OSError as error:
            return error
    number = worker.pid or 0
    workers[number] = worker
    return number


def _live(orders: Connection, pipe: Connection, life: Life) -> None:
    orders.close()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    life(pipe)
