"""One behaviour suite for every warehouse. Today there is DuckDB."""

from __future__ import annotations

from datetime import UTC, datetime

import duckdb
import pyarrow as pa
import pytest

from mlbatch.connectors.duckdb import DuckdbWarehouse
from mlbatch.connectors.folder import FolderStorage
from mlbatch.errors import DeclarationError, RunFailed, SnapshotError, TemporaryError
from mlbatch.unloading import take_snapshot

ROWS = pa.table({"id": pa.array(range(25), pa.int64()), "text": [f"t{n}" for n in range(25)]})


@pytest.fixture
def warehouse(tmp_path):
    made = DuckdbWarehouse(tmp_path / "w.duckdb", FolderStorage(tmp_path / "parts"), part_rows=10)
    made.copy("notes", ROWS, replace_by=("id",))
    return made


def test_the_clock_is_utc(warehouse):
    assert abs((warehouse.now() - datetime.now(UTC)).total_seconds()) < 60


def test_copy_replaces_rows_of_the_same_key(warehouse):
    loaded = warehouse.copy("notes", pa.table({"text": ["new"], "id": [3]}), replace_by=("id",))
    assert loaded == 1
    table = warehouse.fetch(
        "SELECT COUNT(*) AS n, MAX(CASE WHEN id = 3 THEN text END) AS t FROM notes"
    )
    assert table.to_pylist() == [{"n": 25, "t": "new"}]


def test_unload_leaves_parts_and_a_manifest(warehouse):
    prefix = warehouse.storage.prefix + "a/"
    snapshot = take_snapshot(warehouse, warehouse.storage, "SELECT id FROM notes", prefix)
    assert [part.rows for part in snapshot.parts] == [10, 10, 5]


def test_a_path_is_never_used_twice(warehouse):
    prefix = warehouse.storage.prefix + "a/"
    warehouse.unload("SELECT id FROM notes", prefix)
    with pytest.raises(SnapshotError, match="not empty"):
        warehouse.unload("SELECT id FROM notes", prefix)


def test_unloading_nothing_leaves_nothing(warehouse):
    prefix = warehouse.storage.prefix + "a/"
    unloaded = warehouse.unload("SELECT id FROM notes WHERE id > 99", prefix)
    assert (unloaded.rows, unloaded.manifest_uri) == (0, None)


@pytest.mark.parametrize("select", ["SELECT x FROM nowhere", "SELECT titel FROM notes"])
def test_a_wrong_name_is_a_declaration_error(warehouse, select):
    with pytest.raises(DeclarationError, match="the warehouse refuses the query"):
        warehouse.fetch(select)


def test_a_query_that_stops_midway_fails(warehouse):
    with pytest.raises(RunFailed, match="stopped the query"):
        warehouse.fetch("SELECT CAST(text AS INT) AS a FROM notes")


def test_a_file_in_use_is_temporary(warehouse, monkeypatch):
    def busy(*_):
        message = "Could not set lock on file"
        raise duckdb.IOException(message)

    monkeypatch.setattr(duckdb, "connect", busy)
    with pytest.raises(TemporaryError, match="in use"):
        warehouse.fetch("SELECT 1 AS a")


def test_a_broken_file_fails(tmp_path):
    (tmp_path / "w.duckdb").write_text("no database" * 1000)
    broken = DuckdbWarehouse(tmp_path / "w.duckdb", FolderStorage(tmp_path))
    with pytest.raises(RunFailed):
        broken.fetch("SELECT 1 AS a")
