"""What the databases are given comes back: instants, rows, keys."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects import mysql, sqlite

from mlbatch.connectors.database.part_rows import (
    TEXT_CHARACTERS,
    move_values,
    part_state,
    quarantine_values,
)
from mlbatch.connectors.database.rows import to_arrow
from mlbatch.connectors.database.tables import PART, QUARANTINE, Instant, microseconds
from mlbatch.connectors.folder import FolderStorage
from mlbatch.errors import SnapshotError
from mlbatch.ledger import BatchCommit, ModelPin, NewRun, QuarantinedRow, Run, RunKind, RunState

INSTANTS = st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1), timezones=st.just(UTC))


@given(INSTANTS, st.integers(-14, 14))
def test_an_instant_survives_both_databases_to_the_microsecond(instant, hours):
    written = instant.astimezone(timezone(timedelta(hours=hours)))
    kind = Instant()
    for dialect in (sqlite.dialect(), mysql.dialect()):
        assert (
            kind.process_result_value(kind.process_bind_param(written, dialect), dialect) == instant
        )


@given(INSTANTS, INSTANTS)
def test_instants_are_ordered_as_their_numbers(one, other):
    assert (one < other) == (microseconds(one) < microseconds(other))


ROWS = st.lists(
    st.tuples(
        st.integers(-(2**63), 2**63 - 1), st.none() | st.text(max_size=5), st.none() | st.integers(0, 1),
        st.none() | st.floats(allow_nan=False), st.none() | st.datetimes(), st.none() | st.dates(),
    ),
    min_size=1, max_size=6,
)  # fmt: skip
SCHEMA = pa.schema(
    [("i", pa.int64()), ("s", pa.string()), ("b", pa.bool_()), ("f", pa.float64()),
     ("t", pa.timestamp("us")), ("d", pa.date32())]
)  # fmt: skip


@given(ROWS)
def test_a_driver_s_rows_are_the_declared_types(rows):
    batch = to_arrow(rows, SCHEMA)
    assert batch.schema == SCHEMA
    found = [tuple(row.values()) for row in batch.to_pylist()]
    assert found == [(i, s, None if b is None else bool(b), f, t, d) for i, s, b, f, t, d in rows]


def run():
    new = NewRun(
        "r1", "job", "t", "g", RunKind.DELTA, "s", ModelPin("job", 1, "d"), "q", "SELECT", "c", "0",
        None, datetime(2026, 1, 1, tzinfo=UTC),
    )  # fmt: skip
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return Run(new, 1, RunState.WRITING, 77, 1, at, None, None, None, None, None, None)


def commit(*quarantined):
    keys = pa.record_batch({"id": pa.array([1, 2], pa.int64())})
    high = 10 + 2 + 1 + 3 + len(quarantined)
    return BatchCommit(4, 10, high, keys, keys.slice(0, 1), 1, 3, quarantined, 99)


def test_the_statement_that_moves_a_part_compares_epoch_and_old_position():
    values = move_values(run(), commit(QuarantinedRow(15, "9", "x", "y")))
    assert values == {
        "run_id": "r1", "part_no": 4, "epoch": 77, "low": 10, "high": 17, "written": 2, "deleted": 1,
        "quarantined": 1, "filtered": 3, "checksum": 99,
    }  # fmt: skip


def test_a_part_row_is_read_by_name_in_any_order():
    columns = [column.name for column in PART.columns if column.name not in ("run_id", "epoch")]
    row = {name: number for number, name in reversed(list(enumerate(columns)))}
    part = part_state(row | {"run_id": "r1", "epoch": 5})
    assert (part.number, part.uri, part.etag) == (0, 1, 2)
    assert part.checksum == columns.index("checksum")


@given(st.text(max_size=600), st.text(max_size=600))
def test_a_quarantined_row_always_fits_its_table(key, detail):
    ((run_id, part, offset, stored_key, reason, stored_detail),) = quarantine_values(
        run(), commit(QuarantinedRow(15, key, "too_long", detail))
    )
    assert (run_id, part, offset, reason) == ("r1", 4, 15, "too_long")
    assert key.startswith(stored_key)
    assert detail.startswith(stored_detail)
    for name, value in (("entity_key", stored_key), ("detail", stored_detail)):
        assert len(value) <= QUARANTINE.columns[name].type.length == TEXT_CHARACTERS


@pytest.mark.parametrize(
    "place", ["../secret", "a/../../secret", "%2e%2e/secret", "a/%2e%2e/%2e%2e/secret"]
)
def test_no_name_leads_out_of_the_folder(tmp_path, place):
    storage = FolderStorage(tmp_path / "parts")
    (tmp_path / "secret").write_text("hunter2")
    for touch in (storage.read, storage.stat, lambda uri: storage.put(uri, b"x")):
        with pytest.raises(SnapshotError, match="is outside"):
            touch(storage.prefix + place)
    assert (tmp_path / "secret").read_text() == "hunter2"


def test_a_link_does_not_lead_out_of_the_folder_either(tmp_path):
    storage = FolderStorage(tmp_path / "parts")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/door").symlink_to(tmp_path)
    (tmp_path / "secret").write_text("hunter2")
    with pytest.raises(SnapshotError, match="is outside"):
        storage.read(storage.prefix + "door/secret")
