"""A limit of time for what may never end: a text on which a tokeniser hangs, a loop in a job's code.

Whoever waits for it would wait for ever, and a scheduler that loses patience kills everybody, so that
nobody learns where it was. A worker ends itself, which is a death like any other. The calling process,
which has a lease to give back, ends by an error.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from mlbatch.errors import TemporaryError

GRACE_SECONDS = 10.0
"""How much longer the calling process may take to notice; code that never lets Python run ends it then."""
_STDERR = 2


@contextmanager
def time_limit(seconds: float | None, what: str) -> Iterator[None]:
    """End this process where it takes longer; in the calling process raise TemporaryError about ``what``.

    The traceback of a process that is ended goes to stderr. Where `None` is given there is no limit, nor
    in threads of the calling process, which is not ours to end.
    """
    is_worker = multiprocessing.parent_process() is not None
    is_main = threading.current_thread() is threading.main_thread()
    if seconds is None or not (is_worker or is_main):
        yield
    elif is_worker:
        with _ended_after(seconds):
            yield
    else:
        with _ended_after(seconds + GRACE_SECONDS), _alarmed_after(seconds, what):
            yield


@contextmanager
def _ended_after(seconds: float) -> Iterator[None]:
    # By a thread in C, which needs nothing of a Python that hangs.
    faulthandler.dump_traceback_later(seconds, exit=True, file=_STDERR)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


@contextmanager
def _alarmed_after(seconds: float, what: str) -> Iterator[None]:
    """Raise TemporaryError then, unless somebody else waits for an alarm."""
    if signal.getitimer(signal.ITIMER_REAL)[0]:
        yield
        return

    def ring(*_: object) -> None:
        message = f"{what} took longer than {seconds:g} s"
        hint = (
            "the next start looks for the row that hangs and sets it aside; where rows take so long, "
            "`batch_seconds` of the job's Limits allows more"
        )
        raise TemporaryError(message, hint=hint)

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        # Who was asked to terminate meanwhile has set an alarm of his own.
        if signal.getsignal(signal.SIGALRM) is ring:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
