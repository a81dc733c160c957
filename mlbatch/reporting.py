"""What is told of a finished run: figures to the tracking server, from the ledger's own rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlbatch.errors import MlbatchError
from mlbatch.failpoint import reach
from mlbatch.ledger import Run, RunState, Totals

if TYPE_CHECKING:
    from mlbatch.sink import Ledger
    from mlbatch.tools import Tools


def record(run: Run, ledger: Ledger, tools: Tools) -> Run:
    """Tell the tracking server about this run, and about earlier ones that it could not be told.

    The data is in, so no trouble here fails anything: the ledger remembers what was not sent.
    """
    try:
        for unsent in ledger.untracked(run.new.output_table):
            sent = _send(unsent, ledger, tools)
            run = sent if sent.run_id == run.run_id else run
    except MlbatchError as error:
        hint = f" ({error.hint})" if error.hint else ""
        tools.notify("notice", f"not logged yet, the next run does so: {error.message}{hint}")
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


def expected_seconds(rows: int, runs: tuple[Run, ...]) -> tuple[float, float] | None:
    """The least and the most that a run of ``rows`` may take, by ``runs`` that finished.

    A small run is all start-up and a large one hardly any, so both are looked at; as long as all had
    much the same size, nobody knows how much of their time was start-up. Of each size the quickest
    counts: one that was resumed had a pause in it that nobody noted. None before the first.
    """
    done = [
        (max(run.rows_expected, 1), (run.finished_at - run.created_at).total_seconds())
        for run in runs
        if run.state is RunState.DONE and run.finished_at and run.rows_expected is not None
    ]
    if not done:
        return None
    half = max(read for read, _ in done) / 2
    large, took = min((run for run in done if run[0] >= half), key=lambda run: run[1] / run[0])
    small, start_up = min(
        (run for run in done if run[0] < half), key=lambda run: run[1], default=(large, took)
    )
    if small == large:
        share = rows / large
        return took * share, took * max(share, 1.0)
    likely = start_up + max(took - start_up, 0.0) * max(rows - small, 0) / (large - small)
    return likely, likely


def counted(number: int, noun: str) -> str:
    """``2,000 rows``, and ``1 row``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
