"""Values that are misread easily: from the warehouse to a part, by every way there is."""

from __future__ import annotations

import gzip
import math
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal

import httpx
import pyarrow as pa
import pytest
from bad_inputs import ACCEPTED, FAILS, REFUSED, TEMPORARY, bad_input
from test_redshift import (  # noqa: F401  fixtures
    data_api,
    engine,
    queuery,
    read_back,
    warehouse,
    wire,
)
from toy.job import Toy

from mlbatch.connectors.queuery import Schema, _unzipped
from mlbatch.connectors.redshift.statements import UnloadOptions, unload
from mlbatch.connectors.redshift.wire import _array
from mlbatch.errors import DeclarationError, SnapshotError
from mlbatch.unloading import take_snapshot


@pytest.fixture(params=["redshift", "queuery"])
def both(request):
    """A warehouse that unloads by itself, and one whose files are text."""
    if request.param == "queuery":
        return request.getfixturevalue("queuery")
    from mlbatch.connectors.redshift.warehouse import RedshiftWarehouse

    return RedshiftWarehouse(
        request.getfixturevalue("data_api"), request.getfixturevalue("s3_storage")
    )


def unloaded(chosen, storage, expression):
    """What the expression is in the part of an unload."""
    prefix = storage.prefix + "values/"
    snapshot = take_snapshot(chosen, storage, f"SELECT 1 AS id, {expression} AS v", prefix)
    return read_back(storage, snapshot)["v"]


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        pytest.param(r"'\\N'", r"\N", id="47-backslash-n"),
        pytest.param("'NULL'", "NULL", id="47-null"),
        pytest.param("'null'", "null", id="47-null-in-small"),
        pytest.param("'a|b,c\"d''e'", "a|b,c\"d'e", id="48-separators-and-quotes"),
        pytest.param("'a\nb\rc\r\nd'", "a\nb\rc\r\nd", id="48-line-ends"),
        pytest.param("CAST('0.1' AS DECIMAL(38, 37))", Decimal("0.1"), id="51-decimal"),
        pytest.param(
            "CAST('1234567890123456789012345678.0123456789' AS DECIMAL(38, 10))",
            Decimal("1234567890123456789012345678.0123456789"),
            id="51-decimal-of-38-digits",
        ),
        pytest.param("CAST(-9223372036854775808 AS BIGINT)", -(2**63), id="52-smallest"),
        pytest.param("CAST(9223372036854775807 AS BIGINT)", 2**63 - 1, id="52-largest"),
        pytest.param("CAST(1e308 AS DOUBLE PRECISION)", 1e308, id="53-large"),
        pytest.param("CAST(5e-324 AS DOUBLE PRECISION)", 5e-324, id="53-denormal"),
        pytest.param("CAST('-0.0' AS DOUBLE PRECISION)", -0.0, id="53-minus-zero"),
        pytest.param("TIMESTAMP '0001-01-01 00:00:00'", datetime(1, 1, 1), id="55-year-1"),
        pytest.param(
            "TIMESTAMP '9999-12-31 23:59:59.999999'",
            datetime(9999, 12, 31, 23, 59, 59, 999999),
            id="55-year-9999",
        ),
        pytest.param(
            "CAST('2026-01-01 09:00:00+09' AS TIMESTAMPTZ)",
            datetime(2026, 1, 1, tzinfo=UTC),
            id="56-zone",
        ),
        pytest.param("TRUE", True, id="57-true"),
        pytest.param("FALSE", False, id="57-false"),
        pytest.param("CAST(9007199254740993 AS BIGINT)", 2**53 + 1, id="61-beyond-2-to-53"),
    ],
)
@bad_input(outcome=ACCEPTED)
def test_a_value_arrives_as_it_was(both, s3_storage, expression, value):
    (found,) = unloaded(both, s3_storage, expression).to_pylist()
    assert found == value
    assert type(found) is type(value)
    if isinstance(value, float):
        assert math.copysign(1, found) == math.copysign(1, value)


@bad_input(61, outcome=ACCEPTED)
def test_61_an_integer_beside_null_is_never_a_float(both, s3_storage):
    select = (
        "SELECT 1 AS id, CAST(9007199254740993 AS BIGINT) AS v UNION ALL"
        " SELECT 2, CAST(NULL AS BIGINT)"
    )
    snapshot = take_snapshot(both, s3_storage, select, s3_storage.prefix + "nullable/")
    found = read_back(s3_storage, snapshot).sort_by("id")["v"]
    assert found.type == pa.int64()
    assert found.to_pylist() == [2**53 + 1, None]


@bad_input(46, outcome=ACCEPTED)
def test_46_the_empty_text_is_not_null(data_api, s3_storage):  # noqa: F811
    from mlbatch.connectors.redshift.warehouse import RedshiftWarehouse

    own = RedshiftWarehouse(data_api, s3_storage)
    select = "SELECT 1 AS id, '' AS v UNION ALL SELECT 2, NULL"
    snapshot = take_snapshot(own, s3_storage, select, s3_storage.prefix + "empty/")
    assert read_back(s3_storage, snapshot).sort_by("id")["v"].to_pylist() == ["", None]


@bad_input(58, outcome=ACCEPTED)
def test_58_nested_values_come_as_json(both, s3_storage):
    (found,) = unloaded(both, s3_storage, """JSON_PARSE('{"a": [1, null]}')""").to_pylist()
    assert found.replace(" ", "") == '{"a":[1,null]}'


@bad_input(59, outcome=REFUSED, says="the query gives binary")
def test_59_bytes_are_no_text(warehouse):  # noqa: F811
    select = (
        "SELECT 1 AS note_id, CAST('x' AS VARBYTE) AS text, GETDATE() AS updated_at,"
        " GETDATE() AS deleted_at"
    )
    with pytest.raises(DeclarationError, match="the query gives binary"):
        Toy.features.view.check_source(warehouse.fetch(select).schema)


def test_times_of_day_are_times(warehouse):  # noqa: F811
    select = "SELECT CAST('23:59:59.123456' AS TIME) AS v UNION ALL SELECT NULL ORDER BY 1"
    found = warehouse.fetch(select)
    assert found.schema.field("v").type == pa.time64("us")
    assert found["v"].to_pylist() == [time(23, 59, 59, 123456), None]
    assert warehouse.fetch("SELECT CAST('00:00' AS TIME) AS v WHERE 1 = 0")["v"].type == pa.time64(
        "us"
    )


def test_a_type_that_has_no_place_is_refused_by_its_column():
    with pytest.raises(DeclarationError, match="the column opens is of a type") as caught:
        _array([timedelta(hours=1)], b"opens", 1188)
    assert "cast it" in caught.value.hint


@bad_input(62, outcome=ACCEPTED)
def test_62_no_unload_is_partitioned(warehouse, s3_storage):  # noqa: F811
    text = unload("SELECT 1 AS a", s3_storage.prefix, UnloadOptions())
    assert "PARTITION" not in text.upper()


def schema_of(*types):
    return Schema(pa.schema([(f"c{n}", kind) for n, kind in enumerate(types)]), None)


@bad_input(34, outcome=TEMPORARY, says="broke off")
def test_34_a_gzip_file_that_is_cut_off_is_never_half_read():
    whole = gzip.compress(b'"1"\n' * 1_000)
    with pytest.raises(httpx.ReadError, match="broke off"):
        _unzipped(iter([whole[:20], whole[20:-9]]))


@bad_input(35, outcome=ACCEPTED)
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_35_a_gzip_file_of_several_members_is_read_to_its_end(size):
    whole = gzip.compress(b'"1"\n') + gzip.compress(b'"2"\n')
    chunks = (whole[n : n + size] for n in range(0, len(whole), size))
    table = schema_of(pa.int64()).table(_unzipped(chunks))
    assert table["c0"].to_pylist() == [1, 2]


@bad_input(35, outcome=FAILS, says="garbage")
def test_35_garbage_after_a_gzip_file_is_refused():
    with pytest.raises(SnapshotError, match="garbage"):
        _unzipped(iter([gzip.compress(b'"1"\n') + b"garbage"]))


@bad_input(49, outcome=FAILS, says="not UTF-8")
def test_49_a_text_file_that_is_not_utf8_is_refused():
    with pytest.raises(SnapshotError, match="not UTF-8"):
        _unzipped(iter([gzip.compress(b'"\xff\xfe"\n')]))
