"""Decides how a part goes on that killed its worker.

A first death is taken for an accident, and the part simply goes on. A second one at the same row is
not: the rows ahead are tried in ever smaller batches, so that what is good is committed and the
position moves up to the row that kills. Alone in its batch, and deadly again, it is set aside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlbatch.engine import PartTask, WorkerDied
from mlbatch.scoring import MOST_BATCH_ROWS

if TYPE_CHECKING:
    from mlbatch.sink import Ledger
    from mlbatch.tools import Notify

NARROWING = 8
"""Each step of care tries batches this much smaller: 8192, 1024, 128, 16, 2, 1."""


class Nurse:
    """Looks after the parts of one run."""

    def __init__(self, run_id: str, ledger: Ledger, notify: Notify) -> None:
        """``ledger`` tells how far a part had come when its worker died."""
        self._run_id, self._ledger, self._notify = run_id, ledger, notify
        self._died_at: dict[int, int] = {}

    def on_death(self, death: WorkerDied) -> PartTask:
        """The task to go on with."""
        task = death.task
        parts = self._ledger.parts(self._run_id)
        done = next(part.done for part in parts if part.number == task.part_number)
        line = f"part {task.part_number}: a worker died at row {done} (exit {death.exit_code})"
        self._notify("notice", line)
        before = self._died_at.get(task.part_number)
        self._died_at[task.part_number] = done
        if before != done and done >= task.careful_until:
            return PartTask(task.part_number)
        return _with_more_care(task, done)


def _with_more_care(task: PartTask, done: int) -> PartTask:
    careful = done < task.careful_until
    rows = task.careful_rows if careful else MOST_BATCH_ROWS
    until = task.careful_until if careful else done + MOST_BATCH_ROWS
    if rows == 1:
        return PartTask(task.part_number, until, 1, set_aside=done)
    return PartTask(task.part_number, until, max(1, rows // NARROWING))
