"""COPY of text over a real S3 server: what each option loads, and what stl_load_errors says."""

from __future__ import annotations

import gzip
import io
import itertools
import json
from contextlib import closing
from datetime import UTC, date, datetime
from decimal import Decimal

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlbatch.devstack.redshift.engine import Engine
from mlbatch.devstack.redshift.refusal import Refusal

ERRORS = (
    "SELECT line_number, TRIM(colname) AS c, type, col_length, position, err_code, err_reason,"
    " raw_field_value, raw_line FROM stl_load_errors WHERE query = pg_last_copy_id()"
    " ORDER BY line_number"
)


@pytest.fixture(scope="module")
def engine(lasting_store):
    """One engine for all: a table and a prefix of its own keep the tests apart."""
    with closing(Engine(None, lasting_store)) as made:
        yield made


@pytest.fixture
def store(engine):
    return engine.store


@pytest.fixture
def session(engine):
    made = engine.session()
    yield made
    made.close()


NUMBERS = itertools.count(1)


@pytest.fixture
def place(store):
    return f"s3://{store.bucket}/{next(NUMBERS)}/"


@pytest.fixture
def loaded(session, store, place, rows):
    """Load ``content`` into a table of ``columns``; what is in it then."""

    def of(columns, content, options=""):
        session.execute("DROP TABLE IF EXISTS into_me")
        session.execute(f"CREATE TEMP TABLE into_me ({columns})")
        store.put(place + "x", content if isinstance(content, bytes) else content.encode())
        session.execute(f"COPY into_me FROM '{place}x' IAM_ROLE DEFAULT {options}")
        return rows(session, "SELECT * FROM into_me")

    return of


@pytest.fixture
def errors(loaded, session, rows):
    """Load in vain; the rows of stl_load_errors about it."""

    def of(columns, content, options=""):
        with pytest.raises(Refusal, match="Check 'stl_load_errors' system table") as caught:
            loaded(columns, content, options)
        assert caught.value.sqlstate == "XX000"
        assert rows(session, "SELECT COUNT(*) FROM into_me") == [(0,)]
        return rows(session, ERRORS)

    return of


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("SMALLINT", "-32768", -32768),
        ("INT", "+7", 7),
        ("INT", " 7 ", 7),
        ("INT", "", None),
        ("INT", "   ", None),
        ("BIGINT", "9223372036854775807", 2**63 - 1),
        ("REAL", "1.5", 1.5),
        ("FLOAT8", "1e3", 1000.0),
        ("FLOAT8", "", None),
        ("BOOL", "t", True),
        ("BOOL", "TRUE", True),
        ("BOOL", "1", True),
        ("BOOL", "yes", True),
        ("BOOL", "n", False),
        ("BOOL", "0", False),
        ("BOOL", "False", False),
        ("BOOL", " ", None),
        ("DECIMAL(8,2)", "20.25", Decimal("20.25")),
        ("DECIMAL(8,2)", "20.259", Decimal("20.25")),
        ("DECIMAL(8,2)", "-20.259", Decimal("-20.25")),
        ("DECIMAL(8,2)", ".999", Decimal("0.99")),
        ("DECIMAL(8,0)", "20.9", Decimal(20)),
        ("DECIMAL(8,2)", "3", Decimal("3.00")),
        ("DATE", "2026-01-02", date(2026, 1, 2)),
        ("DATE", "", None),
        ("TIMESTAMP", "2026-01-02 03:04:05", datetime(2026, 1, 2, 3, 4, 5)),
        ("TIMESTAMP", "2026-01-02 03:04:05.000600", datetime(2026, 1, 2, 3, 4, 5, 600)),
        ("TIMESTAMPTZ", "2026-01-02 03:04:05+00", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("VARCHAR(9)", "日本語", "日本語"),
        ("VARCHAR(9)", "", ""),
        ("VARCHAR(9)", " a ", " a "),
        ("VARCHAR(9)", "\\N", None),
        ("VARCHAR(9)", "null", "null"),
        ("CHAR(3)", "abc", "abc"),
    ],
)
def test_a_field_becomes_a_value_of_its_column(loaded, kind, text, value):
    assert loaded(f"a {kind}, b INT", f"{text}|1\n") == [(value, 1)]


@pytest.mark.parametrize(
    ("kind", "text", "type_", "code", "position", "reason"),
    [
        ("INT", "x", "int4", 1207, 0, "Invalid digit, Value 'x', Pos 0, Type: Integer"),
        ("INT", "12x", "int4", 1207, 2, "Invalid digit, Value 'x', Pos 2, Type: Integer"),
        ("INT", "1.5", "int4", 1207, 1, "Invalid digit, Value '.', Pos 1, Type: Integer"),
        ("INT", "-", "int4", 1207, 1, "Invalid digit, Value '', Pos 1, Type: Integer"),
        ("INT", "1e3", "int4", 1207, 1, "Invalid digit, Value 'e', Pos 1, Type: Integer"),
        ("INT", "1_000", "int4", 1207, 1, "Invalid digit, Value '_', Pos 1, Type: Integer"),
        ("INT", "0x1F", "int4", 1207, 1, "Invalid digit, Value 'x', Pos 1, Type: Integer"),
        ("INT", "true", "int4", 1207, 0, "Invalid digit, Value 't', Pos 0, Type: Integer"),
        ("INT", "二", "int4", 1207, 0, "Invalid digit, Value '二', Pos 0, Type: Integer"),
        ("BIGINT", "7 8", "int8", 1207, 1, "Invalid digit, Value ' ', Pos 1, Type: Long"),
        ("SMALLINT", "?", "int2", 1207, 0, "Invalid digit, Value '?', Pos 0, Type: Short"),
        ("SMALLINT", "32768", "int2", 1222, 0, "Integer value overflow, Type: Short"),
        ("INT", "2147483648", "int4", 1222, 0, "Integer value overflow, Type: Integer"),
        ("BIGINT", "9223372036854775808", "int8", 1222, 0, "Integer value overflow, Type: Long"),
        ("REAL", "one", "float4", 1208, 0, "Invalid float format or value, Type: Float"),
        ("FLOAT8", "1,5", "float8", 1208, 0, "Invalid float format or value, Type: Double"),
        ("DECIMAL(5,2)", "x", "numeric", 1209, 0,
         "Invalid decimal format or value, Type: Decimal"),
        ("DECIMAL(5,2)", "1000.00", "numeric", 1209, 0,
         "Invalid decimal format or value, Type: Decimal"),
        ("BOOL", "maybe", "bool", 1210, 0, "Unknown boolean format"),
        ("BOOL", "2", "bool", 1210, 0, "Unknown boolean format"),
        ("DATE", "yesterday", "date", 1205, 0, "Invalid date format or value [YYYY-MM-DD]"),
        ("DATE", "2026-02-30", "date", 1205, 0, "Invalid date format or value [YYYY-MM-DD]"),
        ("TIMESTAMP", "2026-01-02 25:00:00", "timestamp", 1206, 0,
         "Invalid timestamp format or value [YYYY-MM-DD HH24:MI:SS]"),
        ("TIMESTAMPTZ", "noon", "timestamptz", 1206, 0,
         "Invalid timestamp format or value [YYYY-MM-DD HH24:MI:SS]"),
        ("TIME", "late", "time", 1223, 0, "Invalid data, Type: Time"),
        ("SUPER", "{", "super", 1224, 0, "Invalid JSON, Type: Super"),
    ],
)  # fmt: skip
def test_a_field_that_does_not_fit_is_named(errors, kind, text, type_, code, position, reason):
    assert errors(f"z INT, a {kind}", f"1|\n2|{text}\n") == [
        (2, "a", type_, "0", position, code, reason, text, f"2|{text}")
    ]


@pytest.mark.parametrize(
    ("content", "length", "fits"),
    [
        ("abc", 3, True), ("abcd", 3, False), ("日", 3, True), ("日", 2, False), ("日本", 5, False),
        ("é", 1, False), ("é", 2, True), ("🍣", 4, True), ("🍣", 3, False), ("", 1, True),
        ("   ", 2, False),
    ],
)  # fmt: skip
def test_a_varchar_counts_bytes(loaded, errors, content, length, fits):
    if fits:
        assert loaded(f"a VARCHAR({length})", f"{content}\n") == [(content,)]
        return
    assert errors(f"a VARCHAR({length})", f"{content}\n") == [
        (1, "a", "varchar", str(length), 0, 1204, "String length exceeds DDL length",
         content, content)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "length", "cut"),
    [
        ("abcdef", 3, "abc"),
        ("日本語", 7, "日本"),
        ("日本語", 2, ""),
        ("a🍣", 4, "a"),
        ("ab", 3, "ab"),
    ],
)
def test_truncatecolumns_cuts_between_characters(loaded, content, length, cut):
    assert loaded(f"a VARCHAR({length})", f"{content}\n", "TRUNCATECOLUMNS") == [(cut,)]


@pytest.mark.parametrize(
    ("content", "code", "reason", "options"),
    [
        ("1", 1214, "Delimiter not found", ""),
        ("1|2|3", 1202, "Extra column(s) found", ""),
        ("1|2|", 1202, "Extra column(s) found", ""),
        ("", 1214, "Delimiter not found", ""),
        ("1,2", 1214, "Delimiter not found", ""),
        ("1|2", 1214, "Delimiter not found", "CSV"),
        ("1|'2", 1214, "Delimiter not found", "REMOVEQUOTES"),
        ('"1|2', 1214, "Delimiter not found", "REMOVEQUOTES"),
        ("1|2|3", 1202, "Extra column(s) found", "FILLRECORD"),
        ("", 1214, "Delimiter not found", "CSV"),
    ],
)
def test_a_line_of_another_width_is_named(errors, content, code, reason, options):
    found = errors("a INT, b VARCHAR(9)", f"{content}\n", options)
    assert found == [(1, "", "", "0", 0, code, reason, "", content)]


def test_the_first_wrong_field_of_a_row_is_named(errors):
    """One row, one error, however many of its fields are wrong."""
    found = errors("a INT, b INT, c INT", "1|x|y\n1|2|z\nw|x|y\n", "MAXERROR 3")
    assert [(line, column, value) for line, column, *_, value, _ in found] == [
        (1, "b", "x"), (2, "c", "z"), (3, "a", "w"),
    ]  # fmt: skip


def test_a_missing_value_is_named(errors):
    assert errors("a INT NOT NULL, b VARCHAR(5) NOT NULL", "|x\n") == [
        (1, "a", "int4", "0", 0, 1213, "Missing data for not-null field", "", "|x")
    ]
    assert [row[1:6] for row in errors("a INT, b VARCHAR(5) NOT NULL", "1|\\N\n")] == [
        ("b", "varchar", "5", 0, 1213)
    ]


@pytest.mark.parametrize(
    ("most", "wrong", "fails"),
    [(0, 0, False), (0, 1, True), (1, 1, True), (2, 1, False), (2, 2, True), (3, 2, False),
     (10, 9, False), (10, 10, True)],
)  # fmt: skip
def test_maxerror_is_the_number_that_is_too_many(loaded, errors, most, wrong, fails):
    content = "1\n" + "x\n" * wrong + "2\n"
    if fails:
        assert len(errors("a INT", content, f"MAXERROR {most}")) == wrong
    else:
        assert loaded("a INT", content, f"MAXERROR {most}") == [(1,), (2,)]


def test_rows_that_were_left_out_are_told(session, store, place):
    session.execute("CREATE TEMP TABLE told (a INT)")
    store.put(place + "1", b"1\nx\n")
    store.put(place + "2", b"y\n2\n3\n")
    answer = session.execute(f"COPY told FROM '{place}' IAM_ROLE DEFAULT MAXERROR 5")
    assert answer.rows == 3
    assert answer.notices == (
        "Load into table 'told' completed, 2 record(s) could not be loaded.  "
        "Check 'stl_load_errors' system table for details.",
        "Load into table 'told' completed, 3 record(s) loaded successfully.",
    )


def test_errors_of_several_files_are_counted_together(session, store, place, rows):
    session.execute("CREATE TEMP TABLE several (a INT)")
    store.put(place + "1", b"1\nx\n")
    store.put(place + "2", b"y\n")
    with pytest.raises(Refusal, match="Load into table 'several' failed"):
        session.execute(f"COPY several FROM '{place}' IAM_ROLE DEFAULT MAXERROR 2")
    names = rows(session, "SELECT filename FROM stl_load_errors WHERE query = pg_last_copy_id()")
    assert names == [(place + "1",), (place + "2",)]


def test_an_error_tells_table_session_and_query(session, errors, rows):
    errors("a INT", "x\n")
    told = "SELECT tbl, session, query, userid FROM stl_load_errors WHERE query = pg_last_copy_id()"
    ((table, pid, query, user),) = rows(session, told)
    assert (pid, user) == (session.pid, 100)
    assert query == session.last_copy
    ((known,),) = rows(session, "SELECT MAX(table_oid) AS o FROM duckdb_tables() WHERE temporary")
    assert table == known


def test_errors_outlive_the_transaction(session, store, place, rows):
    store.put(place + "x", b"x\n")
    session.execute("BEGIN")
    session.execute("CREATE TEMP TABLE gone (a INT)")
    with pytest.raises(Refusal):
        session.execute(f"COPY gone FROM '{place}x' IAM_ROLE DEFAULT")
    session.execute("ROLLBACK")
    assert (
        len(rows(session, f"SELECT 1 AS a FROM stl_load_errors WHERE filename = '{place}x'")) == 1
    )


@pytest.mark.parametrize(
    ("options", "content", "expected"),
    [
        ("EMPTYASNULL", "1||\n", [(1, None, None)]),
        ("", "1||\n", [(1, "", None)]),
        ("BLANKSASNULL", "1|  |2\n", [(1, None, 2)]),
        ("BLANKSASNULL", "1| x |2\n", [(1, " x ", 2)]),
        ("", "1|  |  \n", [(1, "  ", None)]),
        ("TRIMBLANKS", "1| x  |2\n", [(1, " x", 2)]),
        ("TRIMBLANKS", "1|\tx\t|2\n", [(1, "\tx\t", 2)]),
        ("FILLRECORD", "1\n", [(1, "", None)]),
        ("FILLRECORD EMPTYASNULL", "1\n", [(1, None, None)]),
        ("FILLRECORD", "1|x\n", [(1, "x", None)]),
        ("NULL AS 'nil'", "1|nil|nil\n", [(1, None, None)]),
        ("NULL AS ''", "1||\n", [(1, None, None)]),
        ("NULL AS 'nil'", "1|\\N|2\n", [(1, "\\N", 2)]),
        ("IGNOREHEADER 1", "a|b|c\n1|x|2\n", [(1, "x", 2)]),
        ("IGNOREBLANKLINES", "\n1|x|2\n\n", [(1, "x", 2)]),
        ("DELIMITER ';'", "1;a|b;2\n", [(1, "a|b", 2)]),
        (r"DELIMITER '\t'", "1\tx\t2\n", [(1, "x", 2)]),
        (r"DELIMITER '\036'", "1\x1ex\x1e2\n", [(1, "x", 2)]),
        ("ESCAPE", "1|a\\|b|2\n", [(1, "a|b", 2)]),
        ("REMOVEQUOTES", "1|'a|b'|2\n", [(1, "a|b", 2)]),
        ("CSV", '1,"a,b",2\n', [(1, "a,b", 2)]),
        ("CSV", "1,,\n", [(1, "", None)]),
        ("CSV QUOTE '%'", "1,%a,b%,2\n", [(1, "a,b", 2)]),
        ("CSV DELIMITER '|' NULL AS '-'", "1|-|2\n", [(1, None, 2)]),
        ("CSV IGNOREHEADER AS 1", "a,b,c\n1,x,2\n", [(1, "x", 2)]),
        ("NOLOAD", "1|x|2\n", []),
        ("ACCEPTINVCHARS", b"1|a\xffb|2\n", [(1, "a?b", 2)]),
        ("ACCEPTINVCHARS '^'", b"1|\xe3\x81|2\n", [(1, "^^", 2)]),
        ("ACCEPTINVCHARS AS '^'", "1|日|2\n", [(1, "日", 2)]),
        ("ENCODING UTF16", "1|日|2\n".encode("utf-16"), [(1, "日", 2)]),
        ("ENCODING UTF16LE", "1|日|2\n".encode("utf-16-le"), [(1, "日", 2)]),
        ("ENCODING AS 'UTF16BE' CSV", "1,日,2\n".encode("utf-16-be"), [(1, "日", 2)]),
        ("GZIP", gzip.compress(b"1|x|2\n", mtime=0), [(1, "x", 2)]),
        ("ZSTD", pa.compress(b"1|x|2\n", codec="zstd", asbytes=True), [(1, "x", 2)]),
        ("", b"", []),
        ("CSV", b"", []),
    ],
)  # fmt: skip
def test_options_of_a_load(loaded, options, content, expected):
    assert loaded("a INT, b VARCHAR(20), c INT", content, options) == expected


def test_roundec_rounds_as_an_insert_does(loaded):
    """The documentation's own example."""
    assert loaded("a DECIMAL(8,2)", "20.259\n", "ROUNDEC") == [(Decimal("20.26"),)]
    assert loaded("a DECIMAL(8,2)", "20.259\n") == [(Decimal("20.25"),)]


def test_acceptanydate_makes_null_of_what_is_no_date(loaded):
    content = "00/00/00 00:00:00|2026-01-02\n2026-01-02 01:02:03|never\n"
    assert loaded("a TIMESTAMP, b DATE", content, "ACCEPTANYDATE DATEFORMAT 'auto'") == [
        (None, date(2026, 1, 2)), (datetime(2026, 1, 2, 1, 2, 3), None),
    ]  # fmt: skip


def test_acceptanydate_is_for_dates_alone(errors):
    assert [row[5] for row in errors("a INT", "never\n", "ACCEPTANYDATE")] == [1207]


@pytest.mark.parametrize("column", ["VARCHAR(9)", "INT"])
def test_bytes_that_are_no_utf8_are_an_error_of_their_row(errors, column):
    found = errors(f"a INT, b {column}", b"1|2\n3|\xff\xfe\n", "MAXERROR 1")
    assert found == [
        (2, "", "", "0", 0, 1220, "String contains invalid or unsupported UTF8 codepoints", "",
         "3|��")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "content", "text"),
    [
        ("ENCODING UTF16", b"1\n", "no byte order mark"),
        ("ENCODING UTF16LE", b"\x00\xd8", "Encoding of the file"),
        ("GZIP", b"1\n", "Cannot decompress the file"),
        ("GZIP", gzip.compress(b"1\n" * 99, mtime=0)[:-9], "Cannot decompress the file"),
        ("ZSTD", b"1\n", "Cannot decompress the file"),
    ],
)
def test_a_file_of_another_encoding_is_refused_whole(loaded, options, content, text):
    with pytest.raises(Refusal, match=text) as caught:
        loaded("a INT", content, options)
    assert caught.value.sqlstate == "XX000"


def test_noload_finds_errors_and_loads_nothing(loaded, errors, session, store, place, rows):
    assert [row[5] for row in errors("a INT", "1\nx\n", "NOLOAD")] == [1207]
    assert loaded("a INT", "1\n2\n", "NOLOAD") == []
    sink = io.BytesIO()
    pq.write_table(pa.table({"a": pa.array([1], pa.int32())}), sink)
    store.put(place + "parquet", sink.getvalue())
    session.execute(f"COPY into_me FROM '{place}parquet' IAM_ROLE DEFAULT PARQUET NOLOAD")
    assert rows(session, "SELECT COUNT(*) FROM into_me") == [(0,)]


def test_columns_that_are_not_named_take_their_defaults(session, store, place, rows):
    session.execute("CREATE TEMP TABLE part (a INT, b VARCHAR(5) DEFAULT 'd', c INT)")
    store.put(place + "x", b"1|2\n")
    session.execute(f"COPY part (c, a) FROM '{place}x' IAM_ROLE DEFAULT")
    assert rows(session, "SELECT a, b, c FROM part") == [(2, "d", 1)]


def test_the_count_and_number_of_the_last_copy_are_remembered(session, store, place, rows):
    last = "SELECT pg_last_copy_id(), pg_last_copy_count()"
    assert rows(session, last) == [(-1, 0)]
    session.execute("CREATE TEMP TABLE counted (a INT)")
    store.put(place + "x", b"1\n2\n")
    store.put(place + "bad", b"x\n")
    session.execute(f"COPY counted FROM '{place}x' IAM_ROLE DEFAULT")
    good = session.last_copy
    assert rows(session, last) == [(good, 2)]
    with pytest.raises(Refusal):  # it never begins, so the one before is remembered
        session.execute("COPY counted FROM")
    assert rows(session, last) == [(good, 2)]
    with pytest.raises(Refusal):  # it begins, and fails
        session.execute(f"COPY counted FROM '{place}bad' IAM_ROLE DEFAULT")
    ((failed, count),) = rows(session, last)
    assert failed > good
    assert count == 0


# Manifests


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"{}", b'{"entries": 5}', b'{"entries": [5]}', b'{"entries": [{}]}',
     b'{"entries": null}', b"\xff"],
)  # fmt: skip
def test_a_manifest_that_is_none_is_refused(loaded, content):
    with pytest.raises(Refusal, match="not in correct json format"):
        loaded("a INT", content, "MANIFEST")


def test_a_manifest_names_its_files_and_no_others(session, store, place, rows):
    session.execute("CREATE TEMP TABLE listed (a INT)")
    for name in ("1", "10", "2"):
        store.put(place + name, name.encode())
    entries = [{"url": place + "1"}, {"url": place + "3"}, {"url": place + "2", "mandatory": True}]
    store.put(place + "manifest", json.dumps({"entries": entries}).encode())
    session.execute(f"COPY listed FROM '{place}manifest' IAM_ROLE DEFAULT MANIFEST")
    assert rows(session, "SELECT a FROM listed ORDER BY a") == [(1,), (2,)]


@pytest.mark.parametrize("url", ["file:///etc/passwd", "s3:///x", "x"])
def test_a_manifest_with_an_address_of_another_kind_is_refused(loaded, url):
    with pytest.raises(Refusal, match="The S3 path is invalid"):
        loaded("a INT", json.dumps({"entries": [{"url": url}]}), "MANIFEST")


def test_a_prefix_is_a_prefix(session, store, place, rows):
    session.execute("CREATE TEMP TABLE prefixed (a INT)")
    for name in ("part1", "part10", "other"):
        store.put(place + name, b"1\n")
    session.execute(f"COPY prefixed FROM '{place}part' IAM_ROLE DEFAULT")
    assert rows(session, "SELECT COUNT(*) FROM prefixed") == [(2,)]


# Parquet


@pytest.mark.parametrize(
    ("declared", "array", "fits"),
    [
        ("BOOL", pa.array([True]), True),
        ("SMALLINT", pa.array([1], pa.int16()), True),
        ("SMALLINT", pa.array([1], pa.int32()), False),
        ("INT", pa.array([1], pa.int64()), False),
        ("BIGINT", pa.array([1], pa.int64()), True),
        ("REAL", pa.array([1.5], pa.float32()), True),
        ("REAL", pa.array([1.5], pa.float64()), False),
        ("FLOAT8", pa.array([1.5], pa.float64()), True),
        ("DECIMAL(5,2)", pa.array([Decimal("1.50")], pa.decimal128(5, 2)), True),
        ("DECIMAL(5,2)", pa.array([Decimal("1.50")], pa.decimal128(6, 2)), False),
        ("DECIMAL(5,2)", pa.array([1.5]), False),
        ("VARCHAR(3)", pa.array(["日"]), True),
        ("VARCHAR(3)", pa.array([b"abc"]), False),
        ("SUPER", pa.array(["[1]"]), True),
        ("DATE", pa.array([date(2026, 1, 2)]), True),
        ("DATE", pa.array(["2026-01-02"]), False),
        ("TIME", pa.array([1], pa.time64("us")), True),
        ("TIMESTAMP", pa.array([datetime(2026, 1, 2)]), True),
        ("TIMESTAMP", pa.array([date(2026, 1, 2)]), False),
        ("TIMESTAMPTZ", pa.array([datetime(2026, 1, 2, tzinfo=UTC)]), True),
    ],
    ids=str,
)
def test_types_of_parquet_fit_or_are_named(loaded, declared, array, fits):
    sink = io.BytesIO()
    pq.write_table(pa.table({"found": array}), sink)
    if fits:
        assert len(loaded(f"a {declared}", sink.getvalue(), "PARQUET")) == 1
        return
    with pytest.raises(Refusal, match=r"incompatible Parquet schema for column .*x\.a'") as caught:
        loaded(f"a {declared}", sink.getvalue(), "PARQUET")
    assert f"Parquet schema: optional {array.type} found" in caught.value.message


@pytest.mark.parametrize("content", [b"", b"PAR1", b"1|2\n", b"PAR1....PAR1"])
def test_what_is_no_parquet_is_named(loaded, content):
    with pytest.raises(Refusal, match=r"Spectrum Scan Error\. File '.*x' is not a Parquet file"):
        loaded("a INT", content, "PARQUET")


def test_a_database_of_an_earlier_version_is_completed(tmp_path, store, place):
    """Its stl_load_errors had fewer columns."""
    file = tmp_path / "dev.duckdb"
    with duckdb.connect(str(file)) as connection:
        connection.execute("CREATE SCHEMA redshift_catalog")
        connection.execute(
            "CREATE TABLE redshift_catalog.stl_load_errors (query INT, err_code INT)"
        )
        connection.execute("INSERT INTO redshift_catalog.stl_load_errors VALUES (7, 1207)")
    store.put(place + "x", b"x\n")
    engine = Engine(file, store)
    try:
        session = engine.session()
        session.execute("CREATE TABLE t (a INT)")
        with pytest.raises(Refusal, match="stl_load_errors"):
            session.execute(f"COPY t FROM '{place}x' IAM_ROLE DEFAULT")
        found = session.execute("SELECT err_code, position FROM stl_load_errors ORDER BY query")
        assert found.table.to_pylist() == [
            {"err_code": 1207, "position": 0}, {"err_code": 1207, "position": None},
        ]  # fmt: skip
    finally:
        engine.close()
