"""When a run holds back for others: the database's load and lag, a flag file, and long transactions.

Any one reason pauses, and none can overrule another, as in gh-ost. Nothing here asks a database: what it
is like is looked at through a function, at most once a second.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlbatch.errors import TemporaryError

if TYPE_CHECKING:
    import pyarrow as pa

LOOK_SECONDS = 1.0
PAUSE_SECONDS = 0.5
LEAST_ROWS = 64
ROOM = 0.75
"""A transaction that took less than this share of what it may gets more rows; one that takes more than this
share of the time for half the rows was not long because of its rows."""
_log = logging.getLogger("mlbatch")


@dataclass(frozen=True, slots=True)
class Pressure:
    """What a database says of itself; None where it says nothing."""

    lag_seconds: float | None = None
    """How far its replicas are behind."""
    threads_running: int | None = None
    """Statements that it is working on at this moment."""
    history_length: int | None = None
    """Transactions whose old row versions it still keeps, because somebody may read them."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What is still polite."""

    transaction_seconds: float = 0.5
    """Longer transactions get fewer rows."""
    lag_seconds: float = 1.0
    """Above it, writing pauses."""
    threads_running: int = 25
    """Above it, writing pauses."""
    threads_running_most: int = 50
    """Above it, the run ends as busy, to be resumed later."""
    history_length: int | None = None
    """Above it, writing pauses; None asks nothing of it."""
    flag_file: Path | None = None
    """While this file exists, writing pauses."""

    def reason(self, pressure: Pressure) -> str | None:
        """Why not to write now; None when nothing speaks against it.

        Raises TemporaryError above the ceiling.
        """
        lag, threads = pressure.lag_seconds, pressure.threads_running
        history, most = pressure.history_length, self.history_length
        if threads is not None and threads > self.threads_running_most:
            message = f"the database works on {threads} statements at once, over the ceiling"
            hint = f"throttle.threads_running_most is {self.threads_running_most}; run again later"
            raise TemporaryError(message, hint=hint)
        if threads is not None and threads > self.threads_running:
            return f"the database works on {threads} statements, over {self.threads_running}"
        if lag is not None and lag > self.lag_seconds:
            return f"replicas are {lag:.1f} s behind, over {self.lag_seconds:.1f} s"
        if history is not None and most is not None and history > most:
            return f"the database keeps the old rows of {history:,} transactions, over {most:,}"
        if self.flag_file is not None and self.flag_file.exists():
            return f"{self.flag_file} exists"
        return None


class Throttle:
    """Holds one worker back. `look` and `wait` may be called by two threads, never at once."""

    def __init__(
        self,
        limits: Limits,
        look: Callable[[], Pressure],
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Looks at once, so that a pause holds before the first write."""
        self._limits, self._look = limits, look
        self._clock, self._sleep = clock, sleep
        self._looked = float("-inf")
        self.reason: str | None = None
        """Why not to write, when last looked."""
        self.look()

    def look(self) -> None:
        """See what the database is like, if that was not done within the last second."""
        if self._clock() - self._looked >= LOOK_SECONDS:
            self._looked = self._clock()
            self.reason = self._limits.reason(self._look())

    def wait(self) -> None:
        """Return when nothing speaks against a write any more."""
        if self.reason is None:
            return
        _log.warning("paused: %s", self.reason)
        while self.reason is not None:
            self._sleep(PAUSE_SECONDS)
            self.look()
        _log.warning("goes on")


class Pace:
    """How many rows a transaction takes, from how long the last ones took."""

    def __init__(self, most_rows: int, seconds: float) -> None:
        """Starts with as many rows as there may be."""
        self._most, self._seconds = most_rows, seconds
        self._too_long: tuple[float, int] | None = None
        self.rows = most_rows

    def took(self, seconds: float, rows: int) -> None:
        """Learn from a transaction of ``rows`` rows: half as many when it was too long."""
        if seconds > self._seconds:
            self.rows = self._fewer(seconds, rows)
        elif seconds < ROOM * self._seconds and rows >= self.rows:
            self._too_long = None
            self.rows = min(self.rows + max(self.rows // 4, 1), self._most)

    def _fewer(self, seconds: float, rows: int) -> int:
        """Half of ``rows``; or as many as before, where fewer rows took hardly less time."""
        before, self._too_long = self._too_long, (seconds, rows)
        if before is not None and rows < before[1] and seconds > ROOM * before[0]:
            return min(before[1], self._most)
        return max(min(rows, self.rows) // 2, LEAST_ROWS)

    def pieces(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """``batch`` in slices of as many rows as a transaction takes at that moment."""
        start = 0
        while start < batch.num_rows:
            piece = batch.slice(start, max(self.rows, 1))
            start += piece.num_rows
            yield piece
