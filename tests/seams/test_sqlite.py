"""What only SQLite can do wrong."""

from __future__ import annotations

import sqlite3

import pytest
from test_sink import TABLE

from mlbatch.connectors.sqlite import SqliteDatabase, SqliteSink
from mlbatch.errors import OutOfResources, RunFailed, TemporaryError
from mlbatch.ledger import Owner


def test_a_locked_file_is_temporary(tmp_path, monkeypatch):
    monkeypatch.setattr("mlbatch.connectors.sqlite.BUSY_SECONDS", 0.1)
    other = SqliteSink(tmp_path / "other.db")
    me = Owner("me", "elsewhere", 1, "")
    other.ledger().acquire("mood", "toy", me, 1)
    with sqlite3.connect(other.path, isolation_level=None) as blocker:
        blocker.execute("BEGIN IMMEDIATE")
        with pytest.raises(TemporaryError, match="locked"):
            other.ledger().acquire("mood", "toy", me, 2)
        blocker.execute("ROLLBACK")


def test_a_file_that_is_no_database_is_named(tmp_path):
    (tmp_path / "x.db").write_text("no database, but long enough to look like one " * 20)
    with pytest.raises(RunFailed, match="not a database"):
        SqliteSink(tmp_path / "x.db").ledger().runs()


def test_a_file_that_cannot_be_read_is_told_in_our_words(tmp_path):
    sink = SqliteSink(tmp_path / "y.db")
    sink.ledger()
    sink.path.write_text("no database, but long enough to look like one " * 20)
    for read in (lambda: sink.checksum(TABLE, 1), lambda: sink.rows(TABLE).read_all()):
        with pytest.raises(RunFailed, match="not a database"):
            read()


def test_a_file_that_may_not_grow_within_a_transaction_is_no_failure(tmp_path):
    """SQLite rolls back itself then, and the error of a second time would hide the first."""
    database = SqliteDatabase(tmp_path / "z.db")
    with database.writing() as connection:
        connection.exec_driver_sql("CREATE TABLE t (a TEXT)")

    def write_too_much():
        with database.writing() as connection:
            connection.exec_driver_sql("PRAGMA max_page_count = 2")
            connection.exec_driver_sql("INSERT INTO t VALUES (?)", ("x" * 100_000,))

    with pytest.raises(OutOfResources, match="disk is full"):
        write_too_much()
    with database.writing() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1000")
        assert connection.exec_driver_sql("SELECT COUNT(*) FROM t").scalar() == 0
        connection.exec_driver_sql("INSERT INTO t VALUES ('x')")
