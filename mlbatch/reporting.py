"""What is told of a finished run: figures to the tracking server, from the ledger's own rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlbatch.errors import TemporaryError
from mlbatch.failpoint import reach
from mlbatch.ledger import Run, RunState, Totals

if TYPE_CHECKING:
    from mlbatch.sink import Ledger
    from mlbatch.tools import Tools


def record(run: Run, ledger: Ledger, tools: Tools) -> Run:
    """Tell the tracking server about this run, and about earlier ones that it could not be told.

    The data is in, so the server's absence fails nothing: the ledger remembers what was not sent.
    """
    try:
        for unsent in ledger.untracked(run.new.output_table):
            sent = _send(unsent, ledger, tools)
            run = sent if sent.run_id == run.run_id else run
    except TemporaryError as error:
        tools.notify("notice", f"not logged yet, the next run does so: {error.message}")
    return run


def _send(run: Run, ledger: Ledger, tools: Tools) -> Run:
    totals = Totals.of(ledger.parts(run.run_id))
    figures = {
        "rows_read": float(totals.expected),
        "rows_written": float(totals.written),
        "rows_deleted": float(totals.deleted),
        "rows_quarantined": float(totals.quarantined),
        "rows_filtered": float(totals.filtered),
    }
    tracked = tools.tracking.record_inference(run.new.job, run.run_id, figures)
    reach("after_record")
    return ledger.tracked(run, tracked)


def speed(runs: tuple[Run, ...]) -> float | None:
    """Rows a second of the last run that finished; None before the first."""
    for run in runs:
        if run.state is RunState.DONE and run.finished_at and run.rows_expected:
            return run.rows_expected / max((run.finished_at - run.created_at).total_seconds(), 0.1)
    return None


def counted(number: int, noun: str) -> str:
    """``2,000 rows``, and ``1 row``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
