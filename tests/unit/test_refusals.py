"""Refusals that real servers seldom give, each with its class, its words and what to do."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pymysql
import pytest
from sqlalchemy.exc import DBAPIError, OperationalError

from mlbatch.connectors.mysql.address import MysqlAddress
from mlbatch.connectors.mysql.faults import is_passing, translate, translated
from mlbatch.connectors.password import FixedPassword
from mlbatch.connectors.redshift.warehouse import RedshiftWarehouse
from mlbatch.errors import RunFailed, SettingsError, SnapshotError, TemporaryError, causes
from mlbatch.predicting import _spread

ADDRESS = MysqlAddress("db", 3306, "ml", "me", FixedPassword("hunter2"))


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (pymysql.err.OperationalError(1045, "Access denied"), SettingsError, "refuses: 1045"),
        (pymysql.err.OperationalError(1049, "Unknown database"), SettingsError, "refuses: 1049"),
        (
            pymysql.err.OperationalError(2003, "[SSL: CERTIFICATE_VERIFY_FAILED]"),
            SettingsError,
            "refuses",
        ),
        (
            pymysql.err.OperationalError(2003, "[SSL: TLSV1_ALERT_PROTOCOL_VERSION] alert"),
            SettingsError,
            "refuses",
        ),
        (
            pymysql.err.OperationalError(2003, "[SSL: UNEXPECTED_EOF_WHILE_READING] EOF occurred"),
            TemporaryError,
            "does not answer",
        ),
        (pymysql.err.OperationalError(2013, "Lost connection"), TemporaryError, "does not answer"),
        (pymysql.err.OperationalError(1213, "Deadlock found"), TemporaryError, "does not answer"),
        (pymysql.err.InterfaceError(0, ""), TemporaryError, "does not answer"),
        (ConnectionResetError("reset"), TemporaryError, "does not answer: reset"),
        (pymysql.err.OperationalError(1114, "The table is full"), TemporaryError, "has no room"),
        (pymysql.err.OperationalError(1021, "Disk full"), TemporaryError, "has no room"),
        (pymysql.err.ProgrammingError(1064, "syntax\nmore"), RunFailed, "1064 syntax"),
        (pymysql.err.Error(), TemporaryError, "does not answer"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_mysql_says_becomes_one_of_ours(error, kind, words):
    for given in (error, DBAPIError("SELECT 1", (), error)):
        found = translate(given, ADDRESS)
        assert type(found) is kind
        assert words in found.message
        assert "\n" not in found.message
        assert found.hint
        assert "hunter2" not in str(found)


def test_other_errors_are_left_alone():
    with pytest.raises(ZeroDivisionError), translated(ADDRESS):
        raise ZeroDivisionError
    with pytest.raises(TemporaryError) as caught, translated(ADDRESS):
        raise OperationalError("COMMIT", (), pymysql.err.OperationalError(2013, "Lost"))
    assert isinstance(caught.value.__cause__, OperationalError)
    assert not is_passing(ValueError())


class Silent:
    """A transport that gives what a test says, the last for ever, and remembers what it was asked."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    def run(self, statements):
        self.asked.append(list(statements))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def __str__(self):
        return "Redshift somewhere"


class Memory:
    """A storage that only keeps."""

    prefix = "s3://b/staging/"

    def __init__(self):
        self.kept = {}

    def put(self, uri, data):
        self.kept[uri] = data


def counted(number):
    return pa.table({"rows": pa.array([number], pa.int64())})


def test_a_select_without_rows_is_refused():
    with pytest.raises(RunFailed, match="Redshift somewhere gave no rows for a SELECT"):
        RedshiftWarehouse(Silent(None), Memory()).fetch("SELECT 1")


@pytest.mark.parametrize("answer", [None, pa.table({"rows": pa.array([], pa.int64())})])
def test_an_unload_that_does_not_say_its_rows_is_refused(answer):
    warehouse = RedshiftWarehouse(Silent(answer), Memory())
    with pytest.raises(RunFailed, match="does not say how many rows it moved"):
        warehouse.unload("SELECT 1", "s3://b/staging/run/")


def test_an_unload_elsewhere_is_refused_before_anything_is_asked():
    transport = Silent(counted(1))
    with pytest.raises(SnapshotError, match="is outside s3://b/staging/"):
        RedshiftWarehouse(transport, Memory()).unload("SELECT 1", "s3://other/run/")
    assert transport.asked == []


def test_a_copy_that_loads_other_rows_than_were_staged_is_refused():
    storage, rows = Memory(), pa.table({"id": [1, 2]})
    warehouse = RedshiftWarehouse(Silent(None, rows.slice(0, 0), counted(1)), storage)
    with pytest.raises(RunFailed, match="t: 1 rows were loaded of 2"):
        warehouse.copy("t", rows, replace_by=("id",))
    assert sorted(uri.rpartition("/")[2] for uri in storage.kept) == ["manifest", "rows.parquet"]


def test_a_copy_of_nothing_only_makes_the_table():
    rows = pa.table({"id": pa.array([], pa.int64())})
    transport, storage = Silent(rows), Memory()
    assert RedshiftWarehouse(transport, storage).copy("t", rows, replace_by=("id",)) == 0
    assert transport.asked == [
        ['CREATE TABLE IF NOT EXISTS "t" ("id" BIGINT)'],
        ['SELECT * FROM "t" LIMIT 0'],
    ]
    assert storage.kept == {}


def test_a_score_is_spread_over_the_other_labels_alike():
    found = _spread(("a", "b", "c"), ["b", None, "c"], np.array([0.8, np.nan, 1.0]))
    assert np.allclose(found, [[0.1, 0.8, 0.1], [1 / 3] * 3, [0.0, 0.0, 1.0]])
    two = _spread((False, True), [True, False], np.array([0.75, 0.25]))
    assert two.tolist() == [[0.25, 0.75], [0.75, 0.25]]


def test_causes_that_lead_back_to_themselves_end():
    first, second = ValueError("a"), KeyError("b")
    first.__cause__, second.__cause__ = second, first
    assert list(causes(first)) == [first, second]
