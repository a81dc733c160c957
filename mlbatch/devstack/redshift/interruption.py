"""Stopping a statement that another thread runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from mlbatch.devstack.redshift.refusal import CANCELLED, Refusal

ON_REQUEST = "Query cancelled on user's request"
ON_TIMEOUT = "canceling statement due to statement timeout"
_AGAIN_SECONDS = 0.02


class Interruption:
    """One statement's run, as a context; `stop` ends it from another thread."""

    def __init__(self, interrupt: Callable[[], None], timeout_ms: int = 0) -> None:
        """``interrupt`` breaks off what the database does now; 0 is no time limit."""
        self._interrupt = interrupt
        self._timeout_ms = timeout_ms
        self._reason: str | None = None
        self._stopped = threading.Event()
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        if self._timeout_ms:
            self._start(self._watch)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._over.set()
        for thread in self._threads:
            thread.join()
        if isinstance(error, Exception) and self._reason is not None:
            raise Refusal(CANCELLED, self._reason) from error

    def stop(self, reason: str = ON_REQUEST) -> None:
        """End the statement; the first reason counts."""
        with self._lock:
            if self._stopped.is_set() or self._over.is_set():
                return
            self._reason = reason
            self._stopped.set()
            self._start(self._insist)

    def check(self) -> None:
        """Between two steps outside the database: raise when stopped."""
        if self._stopped.is_set():
            raise Refusal(CANCELLED, self._reason or ON_REQUEST)

    def wait(self, seconds: float) -> None:
        """Sleep, unless stopped."""
        self._stopped.wait(seconds)
        self.check()

    def _start(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _watch(self) -> None:
        if not self._over.wait(self._timeout_ms / 1000):
            self.stop(ON_TIMEOUT)

    def _insist(self) -> None:
        # An interrupt between two statements of DuckDB's is lost, so it is repeated.
        while True:
            with self._lock:
                if self._over.is_set():
                    return
                self._interrupt()
            self._over.wait(_AGAIN_SECONDS)
