from __future__ import annotations

import pyarrow as pa
import pytest

from mlbatch.errors import ConservationError
from mlbatch.ledger import BatchCommit, PartState, QuarantinedRow, Totals, check_conservation

KEYS = pa.record_batch({"id": pa.array([1, 2], pa.int64())})


def commit(**changed):
    values = {
        "part_number": 0, "low": 0, "high": 4, "upserts": KEYS, "deletes": KEYS, "deleted": 1,
        "filtered": 0, "quarantined": (QuarantinedRow(3, "4", "x", "y"),), "checksum": 0,
    }  # fmt: skip
    return BatchCommit(**(values | changed))


def part(**changed):
    values = {
        "number": 0, "uri": "u", "etag": "e", "bytes": 1, "rows_expected": 4, "done": 4,
        "written": 2, "deleted": 1, "quarantined": 1,
    }  # fmt: skip
    return PartState(**(values | changed))


def test_a_batch_accounts_for_every_row():
    assert commit().high == 4
    for wrong in ({"high": 5}, {"deleted": 0}, {"filtered": 1}, {"quarantined": ()}):
        with pytest.raises(ConservationError, match="accounted for"):
            commit(**wrong)


def test_a_run_accounts_for_every_row():
    totals = check_conservation((part(), part(number=1, checksum=2**63 - 1), part(checksum=5)))
    assert (totals.expected, totals.written, totals.checksum) == (12, 6, 4)
    assert Totals.of(()).done == 0
    for wrong in ({"done": 3}, {"written": 1}, {"filtered": 2}):
        with pytest.raises(ConservationError, match="part 0"):
            check_conservation((part(**wrong),))


def test_quarantined_rows_are_told_by_key_or_place():
    assert str(QuarantinedRow(3, "4", "x", "y")) == "4: x, y"
    assert str(QuarantinedRow(3, "", "x", "y")) == "row 3: x, y"
