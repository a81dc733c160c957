"""Takes the lease of a table's generation for a block, and says meanwhile that its owner lives."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from mlbatch.errors import MlbatchError
from mlbatch.failpoint import reach
from mlbatch.job import Job
from mlbatch.ledger import Lease

if TYPE_CHECKING:
    from mlbatch.sink import Ledger
    from mlbatch.table import OutputTable
    from mlbatch.tools import Tools

HEARTBEAT_SECONDS = 15.0


@contextmanager
def leased(job: type[Job], tools: Tools, generation: str | None = None) -> Iterator[Lease]:
    """Hold the lease of ``generation``, or of the one that serves; a half-done switch is ended first.

    Raises Busy while another process holds it.
    """
    table, ledger = job.output.table.name, tools.sink.ledger()
    tools.sink.settle(table)
    reach("before_lease")
    lease = ledger.acquire(table, job.name, tools.owner, tools.new_epoch(), generation)
    with _beating(ledger, lease):
        try:
            reach("after_lease")
            yield lease
        except BaseException:
            # What ended the run is what must be told, not that the lease cannot be given back.
            with suppress(MlbatchError):
                ledger.release(lease, tools.new_epoch())
            raise
        ledger.release(lease, tools.new_epoch())


def table_of(job: type[Job], lease: Lease) -> OutputTable:
    """The job's table, under the name that the lease's generation has."""
    return replace(job.output.table, name=lease.table)


@contextmanager
def _beating(ledger: Ledger, lease: Lease) -> Iterator[None]:
    """Say every few seconds that the owner lives. A lost lease is found by the fence, not here."""
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(HEARTBEAT_SECONDS):
            with suppress(MlbatchError):
                ledger.heartbeat(lease)

    thread = threading.Thread(target=beat, name="mlbatch-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
