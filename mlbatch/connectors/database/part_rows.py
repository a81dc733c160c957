"""The part's row as both sinks read and move it, and the rows that a batch sets aside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from mlbatch.keys import TEXT_CHARACTERS
from mlbatch.ledger import BatchCommit, PartState, Run

if TYPE_CHECKING:
    from sqlalchemy import RowMapping

_COLUMNS = [{"number": "part_no"}.get(field.name, field.name) for field in fields(PartState)]


def part_state(row: Mapping[str, Any] | RowMapping) -> PartState:
    """A part row as a value."""
    return PartState(*[row[column] for column in _COLUMNS])


def move_values(run: Run, batch: BatchCommit) -> dict[str, object]:
    """The parameters of the statement that compares a part's row and moves it."""
    return {
        "high": batch.high,
        "written": batch.upserts.num_rows,
        "deleted": batch.deleted,
        "quarantined": len(batch.quarantined),
        "filtered": batch.filtered,
        "checksum": batch.checksum,
        "run_id": run.run_id,
        "part_no": batch.part_number,
        "epoch": run.epoch,
        "low": batch.low,
    }


def quarantine_values(run: Run, batch: BatchCommit) -> Iterator[tuple[object, ...]]:
    """One tuple for each row that ``batch`` sets aside, in the order of the table's columns."""
    for row in batch.quarantined:
        key, detail = row.key[:TEXT_CHARACTERS], row.detail[:TEXT_CHARACTERS]
        yield (run.run_id, batch.part_number, row.row_offset, key, row.reason, detail)
