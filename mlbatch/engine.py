"""The seam to whoever runs the parts: this machine's processes, or a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Surrender(StrEnum):
    """How the rest of a part is set aside whole, because no care keeps its workers alive."""

    KEYS = "keys"
    """Its keys are read, and nothing else, so that the predictions they have can be removed."""
    UNREAD = "unread"
    """Nothing is read: not even the keys could be."""


@dataclass(frozen=True, slots=True)
class PartTask:
    """One part to work on. Only names and numbers cross a process boundary."""

    part_number: int
    careful_until: int = 0
    """Rows before this offset go in small batches, because the part killed its worker here."""
    careful_rows: int = 1
    """Rows of such a small batch."""
    set_aside: int | None = None
    """Offset of a row that is known to kill the worker: quarantined unseen."""
    surrender: Surrender | None = None
    """How to set aside what is left of the part, instead of scoring it."""
    trial: tuple[int, int] | None = None
    """First of these rows and the one after the last: one of them is predicted, and nothing committed,
    to see whether a worker survives that."""


@dataclass(frozen=True, slots=True)
class PartOutcome:
    """A worker is through with its part. The truth about rows is the ledger's."""

    part_number: int
    stage_seconds: dict[str, float]
    survived: bool = False
    """Whether a trial came to predict a row."""


@dataclass(frozen=True, slots=True)
class WorkerDied:
    """The process that worked on ``task`` is gone."""

    task: PartTask
    exit_code: int | None


class Engine(Protocol):
    """Runs every task; workers are processes, so ``work`` must be picklable."""

    def warm_up(self) -> None:
        """Provide for workers, cheaply, by whoever knows that nothing is opened or computed yet."""
        ...

    def run(
        self,
        work: Callable[[PartTask], PartOutcome],
        tasks: Sequence[PartTask],
        on_death: Callable[[WorkerDied], PartTask],
        *,
        isolated: bool = False,
    ) -> Iterator[PartOutcome]:
        """Yield outcomes as parts finish; a dead worker's part goes on as ``on_death`` says.

        ``isolated`` keeps every part out of the calling process: one of them killed a process once.
        """
        ...
