"""UNLOAD and COPY over a real S3 server: what is written, what is read, what is refused."""

from __future__ import annotations

import gzip
import io
import json
import threading
import time
from datetime import UTC, date, datetime
from datetime import time as clock
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlbatch.devstack.redshift.faults import Fault
from mlbatch.devstack.redshift.object_store import S3Objects
from mlbatch.devstack.redshift.refusal import Refusal
from mlbatch.snapshot import read_manifest

EVERY_TYPE = """
CREATE TABLE t (i2 SMALLINT, i4 INT, i8 BIGINT, f4 REAL, f8 FLOAT8, n NUMERIC(12, 3), b BOOL,
                s VARCHAR(400), d DATE, ts TIMESTAMP, tz TIMESTAMPTZ, tm TIME)
"""
FULL = (
    -1, 2, 2**62, 1.5, 0.1, Decimal("-123456.789"), True, "日本語 \"quoted\" 'single' \\ , | \n\r\t",
    date(2026, 1, 2), datetime(2026, 1, 2, 3, 4, 5, 600), datetime(2026, 1, 2, tzinfo=UTC),
    clock(10, 11, 12),
)  # fmt: skip
TEXTS = [
    "plain", "", None, "日本語", 'a "b" c', "it's", "back\\slash", "\\", "line\nend", "cr\rend", "a,b",
    "a|b", "tab\tbed", '"', "''", "\\n", "\\N", " padded ", "🍣", '"quoted"', ",", "\n", '",\\\n',
]  # fmt: skip


@pytest.fixture
def every_type(session):
    session.execute(EVERY_TYPE)
    marks = ", ".join(f"${n}" for n in range(1, 13))
    session.execute(f"INSERT INTO t VALUES ({marks})", FULL)
    session.execute(f"INSERT INTO t VALUES ({marks})", [None] * 12)
    session.execute("CREATE TABLE back (LIKE t)")
    return session


@pytest.fixture
def texts(session):
    session.execute("CREATE TABLE t (id INT, s VARCHAR(100))")
    for number, text in enumerate(TEXTS):
        session.execute("INSERT INTO t VALUES ($1, $2)", (number, text))
    session.execute("CREATE TABLE back (LIKE t)")
    return session


@pytest.fixture
def numbers(session):
    session.execute("CREATE TABLE t AS SELECT i::BIGINT AS id FROM generate_series(1, 25) g(i)")
    return session


def unload(session, place, options, select="SELECT * FROM t"):
    return session.execute(f"UNLOAD ($q${select}$q$) TO '{place}' IAM_ROLE DEFAULT {options}")


def copy(session, place, options, table="back"):
    return session.execute(
        f"COPY {table} FROM '{place}' IAM_ROLE 'arn:aws:iam::1:role/r' {options}"
    )


def names(store, place):
    return [item.uri.removeprefix(place) for item in store.list(place)]


def test_every_type_survives_parquet(every_type, store, place, rows):
    answer = unload(every_type, place, "FORMAT AS PARQUET MANIFEST VERBOSE")
    assert answer.tag == "UNLOAD"
    assert answer.rows == 2
    assert answer.notices == ("UNLOAD completed, 2 record(s) unloaded successfully.",)
    loaded = copy(every_type, place + "manifest", "FORMAT AS PARQUET MANIFEST")
    assert (loaded.tag, loaded.rows) == ("COPY", 2)
    assert rows(every_type, "SELECT * FROM back ORDER BY i2") == [FULL, (None,) * 12]
    assert rows(every_type, "SELECT pg_last_unload_count(), pg_last_copy_count()") == [(2, 2)]


def test_parquet_parts_have_redshifts_types(every_type, store, place):
    unload(every_type, place, "PARQUET")
    found = pq.read_table(io.BytesIO(store.get(place + "0000_part_00.parquet"))).schema.types
    assert found == [
        pa.int16(), pa.int32(), pa.int64(), pa.float32(), pa.float64(), pa.decimal128(12, 3),
        pa.bool_(), pa.string(), pa.date32(), pa.timestamp("us"), pa.timestamp("us", "UTC"),
        pa.time64("us"),
    ]  # fmt: skip


def test_the_verbose_manifest_is_the_one_that_mlbatch_reads(every_type, store, place):
    unload(every_type, place, "FORMAT PARQUET MANIFEST VERBOSE")
    content = store.get(place + "manifest")
    entries = read_manifest(content, uri=place + "manifest", prefix=place)
    assert [(entry.uri, entry.rows) for entry in entries] == [
        (place + "0000_part_00.parquet", 1),
        (place + "0001_part_00.parquet", 1),
    ]
    assert [entry.bytes for entry in entries] == [len(store.get(entry.uri)) for entry in entries]
    document = json.loads(content)
    assert document["author"]["name"] == "Amazon Redshift"
    kinds = [element["type"] for element in document["schema"]["elements"]]
    assert kinds[2] == {"base": "bigint"}
    assert kinds[5] == {"base": "numeric", "precision": 12, "scale": 3}
    assert kinds[7]["base"] == "character varying"


def test_a_plain_manifest_only_names_the_files(numbers, store, place):
    unload(numbers, place, "MANIFEST PARALLEL OFF")
    assert json.loads(store.get(place + "manifest")) == {"entries": [{"url": place + "000"}]}


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("DELIMITER ',' ESCAPE ADDQUOTES", "DELIMITER ',' ESCAPE REMOVEQUOTES"),
        ("ESCAPE GZIP", "ESCAPE GZIP"),
        ("DELIMITER AS '\\t' ESCAPE ZSTD", "DELIMITER '\\t' ESCAPE ZSTD"),
        ("FORMAT AS CSV", "FORMAT AS CSV"),
        ("CSV DELIMITER '|' HEADER GZIP", "CSV DELIMITER '|' IGNOREHEADER 1 GZIP"),
    ],
)
def test_every_text_survives(texts, place, rows, written, read):
    unload(texts, place, f"{written} NULL AS '@null@'")
    assert copy(texts, place, f"{read} NULL AS '@null@'").rows == len(TEXTS)
    assert rows(texts, "SELECT * FROM back ORDER BY id") == list(enumerate(TEXTS))


def test_every_type_survives_text(every_type, place, rows):
    unload(every_type, place, "CSV NULL AS '@'")
    copy(every_type, place, "CSV NULL AS '@' TIMEFORMAT 'auto'")
    assert rows(every_type, "SELECT * FROM back ORDER BY i2") == [FULL, (None,) * 12]


def test_quoted_text_is_byte_for_byte_redshifts(session, store, place):
    session.execute("CREATE TABLE t (a BOOL, b INT, c VARCHAR(50), d FLOAT8, e REAL)")
    session.execute("INSERT INTO t VALUES ($1, $2, $3, $4, $5)", (True, None, "日,\"'\\\n", 1.5, 2))
    unload(session, place, "GZIP DELIMITER ',' ESCAPE ADDQUOTES PARALLEL OFF")
    text = gzip.decompress(store.get(place + "000.gz")).decode()
    assert text == '"t","","日\\,\\"\\\'\\\\\\\n","1.5","2"\n'


def test_without_a_null_text_null_and_empty_look_alike(texts, place, rows):
    unload(texts, place, "DELIMITER ',' ESCAPE ADDQUOTES")
    copy(texts, place, "DELIMITER ',' ESCAPE REMOVEQUOTES")
    assert rows(texts, "SELECT s FROM back WHERE id IN (1, 2)") == [("",), ("",)]


def test_an_unload_never_writes_over_another(numbers, store, place):
    unload(numbers, place, "PARQUET")
    before = store.list(place)
    with pytest.raises(
        Refusal, match=r"Specified unload destination on S3 is not empty\."
    ) as caught:
        unload(numbers, place, "PARQUET")
    assert caught.value.sqlstate == "XX000"
    assert store.list(place) == before
    assert unload(numbers, place, "PARQUET ALLOWOVERWRITE").rows == 25


def test_cleanpath_removes_what_was_there(numbers, store, place):
    store.put(place + "old", b"x")
    unload(numbers, place, "PARQUET CLEANPATH PARALLEL OFF")
    assert names(store, place) == ["000.parquet"]


def test_no_rows_leave_nothing(numbers, store, place, rows):
    answer = unload(numbers, place, "PARQUET MANIFEST VERBOSE", "SELECT * FROM t WHERE id > 99")
    assert answer.rows == 0
    assert names(store, place) == []
    assert rows(numbers, "SELECT pg_last_unload_count()") == [(0,)]


def test_no_rows_leave_a_file_of_the_schema_where_the_engine_says_so(engine_with, store, place):
    session = engine_with(empty_unload="schema_file").session()
    unload(session, place, "PARQUET MANIFEST VERBOSE", "SELECT 1 AS a WHERE false")
    assert names(store, place) == ["0000_part_00.parquet", "manifest"]
    assert pq.read_table(io.BytesIO(store.get(place + "0000_part_00.parquet"))).num_rows == 0


def test_no_rows_of_text_leave_an_empty_file(session, store, place):
    unload(session, place, "GZIP MANIFEST VERBOSE", "SELECT 1 AS a WHERE false")
    assert names(store, place) == ["0000_part_00.gz", "manifest"]
    assert gzip.decompress(store.get(place + "0000_part_00.gz")) == b""


def test_rows_are_dealt_over_slices_and_parts(engine_with, store, place):
    session = engine_with(slices=2, part_rows=5).session()
    select = "SELECT i AS id FROM generate_series(1, 25) g(i)"
    unload(session, place, "PARQUET MANIFEST VERBOSE", select)
    entries = json.loads(store.get(place + "manifest"))["entries"]
    assert [
        (entry["url"].removeprefix(place), entry["meta"]["record_count"]) for entry in entries
    ] == [
        ("0000_part_00.parquet", 5), ("0000_part_01.parquet", 5), ("0000_part_02.parquet", 3),
        ("0001_part_00.parquet", 5), ("0001_part_01.parquet", 5), ("0001_part_02.parquet", 2),
    ]  # fmt: skip
    found = [
        value
        for entry in entries
        for value in pq.read_table(io.BytesIO(store.get(entry["url"])))["id"].to_pylist()
    ]
    assert sorted(found) == list(range(1, 26))


def test_one_slice_keeps_the_order(engine_with, store, place):
    session = engine_with(slices=1, part_rows=10).session()
    unload(session, place, "PARQUET", "SELECT i FROM generate_series(1, 25) g(i) ORDER BY i DESC")
    assert names(store, place) == [f"0000_part_0{n}.parquet" for n in range(3)]
    first = pq.read_table(io.BytesIO(store.get(place + "0000_part_00.parquet")))
    assert first["i"].to_pylist() == list(range(25, 15, -1))


def test_no_part_is_larger_than_asked(session, store, place):
    select = "SELECT i, md5(i::VARCHAR) AS h FROM generate_series(1, 400000) g(i)"
    unload(session, place, "PARQUET MAXFILESIZE 5 MB MANIFEST VERBOSE", select)
    sizes = [item.bytes for item in store.list(place) if not item.uri.endswith("manifest")]
    assert len(sizes) > 2
    assert max(sizes) <= 5 << 20
    assert json.loads(store.get(place + "manifest"))["meta"]["record_count"] == 400_000


@pytest.mark.parametrize(
    ("options", "select", "sqlstate"),
    [
        ("PARQUET", "SELECT * FROM t LIMIT 5", "0A000"),
        ("PARQUET", "SELECT * FROM nowhere", "42P01"),
        ("PARQUET", "SELECT nothing FROM t", "42703"),
        ("PARQUET GZIP", "SELECT * FROM t", "0A000"),
        ("CSV ESCAPE", "SELECT * FROM t", "0A000"),
        ("PARQUET PARTITION BY (id)", "SELECT * FROM t", "0A000"),
        ("PARQUET MAXFILESIZE 1 MB", "SELECT * FROM t", "22023"),
        ("PARQUETTE", "SELECT * FROM t", "42601"),
    ],
)
def test_what_redshift_refuses_is_refused_before_anything_is_written(
    numbers, store, place, options, select, sqlstate
):
    with pytest.raises(Refusal) as caught:
        unload(numbers, place, options, select)
    assert caught.value.sqlstate == sqlstate
    assert names(store, place) == []


def test_a_limit_inside_is_fine(numbers, place):
    select = "SELECT id FROM (SELECT id FROM t ORDER BY id LIMIT 5)"
    assert unload(numbers, place, "PARQUET", select).rows == 5


def test_quotes_in_a_quoted_query_are_escaped(session, place, store):
    session.execute(
        rf"UNLOAD ('SELECT \'a\' || ''b'' || \'\\\\\' AS s') TO '{place}' IAM_ROLE DEFAULT PARALLEL OFF"
    )
    assert store.get(place + "000") == b"ab\\\n"


@pytest.mark.parametrize("authority", ["IAM_ROLE 'arn'", "CREDENTIALS 'aws_iam_role=x'",
                                       "WITH CREDENTIALS AS 'x' ENCRYPTED KMS_KEY_ID 'k'",
                                       "IAM_ROLE DEFAULT ENCRYPTED AUTO REGION 'us-east-1'"])  # fmt: skip
def test_any_authority_is_taken(numbers, place, authority):
    answer = numbers.execute(f"UNLOAD ('SELECT * FROM t') TO '{place}' {authority} PARQUET")
    assert answer.rows == 25


def test_a_missing_bucket_is_named(session):
    with pytest.raises(Refusal, match="NoSuchBucket"):
        unload(session, "s3://no-such-bucket/x/", "PARQUET", "SELECT 1 AS a")


def test_a_server_that_does_not_answer_is_an_s3_error(engine_with, unused_port):
    engine = engine_with()
    engine.store = S3Objects(f"http://127.0.0.1:{unused_port}", "us-east-1", "a", "b")
    with pytest.raises(Refusal, match="S3ServiceException"):
        unload(engine.session(), "s3://bucket/x/", "PARQUET", "SELECT 1 AS a")


@pytest.fixture
def unused_port():
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_an_unload_aborted_midway_leaves_parts_without_a_manifest(engine_with, store, place):
    engine = engine_with(slices=1, part_rows=5)
    engine.faults.add(Fault("abort_unload_after_parts", "UNLOAD", parts=2, message="S3 went away"))
    select = "SELECT i FROM generate_series(1, 25) g(i)"
    with pytest.raises(Refusal, match="S3 went away"):
        unload(engine.session(), place, "PARQUET MANIFEST VERBOSE", select)
    assert names(store, place) == ["0000_part_00.parquet", "0000_part_01.parquet"]


def test_an_unload_can_be_cancelled(engine, session, store, place):
    def stop():
        while not engine.cancel(session.pid):
            time.sleep(0.01)

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(Refusal, match="cancelled") as caught:
        unload(
            session, place, "PARQUET MANIFEST", "SELECT i FROM generate_series(1, 10000000000) g(i)"
        )
    thread.join()
    assert caught.value.sqlstate == "57014"
    assert "manifest" not in names(store, place)


def put_parquet(store, uri, **columns):
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    store.put(uri, sink.getvalue())
    return len(sink.getvalue())


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": pa.array([1], pa.int32()), "b": ["x"]}, "Spectrum Scan Error.*Column type: BIGINT"),
        ({"a": pa.array([1], pa.int64())}, "Unmatched number of columns"),
        ({"a": pa.array([1], pa.int64()), "b": ["too long"]}, "longer than the length defined"),
        ({"a": pa.array([None], pa.int64()), "b": ["x"]}, "Missing data for not-null field"),
    ],
)
def test_parquet_must_fit_the_table_exactly(session, store, place, rows, columns, message):
    session.execute("CREATE TABLE back (a BIGINT NOT NULL, b VARCHAR(5))")
    put_parquet(store, place + "x.parquet", **columns)
    with pytest.raises(Refusal, match=message):
        copy(session, place, "PARQUET")
    assert rows(session, "SELECT COUNT(*) FROM back") == [(0,)]


def test_parquet_columns_go_by_position(session, store, place, rows):
    session.execute("CREATE TABLE back (a BIGINT, b VARCHAR(5))")
    put_parquet(store, place + "x", other=["x"], names=pa.array([7], pa.int64()))
    copy(session, place, "PARQUET", "back (b, a)")
    assert rows(session, "SELECT a, b FROM back") == [(7, "x")]


def test_a_manifest_for_parquet_needs_lengths_and_mandatory_files(session, store, place):
    session.execute("CREATE TABLE back (a BIGINT)")
    size = put_parquet(store, place + "x", a=pa.array([7], pa.int64()))

    def manifest(**entry):
        store.put(place + "manifest", json.dumps({"entries": [entry]}).encode())
        return copy(session, place + "manifest", "PARQUET MANIFEST").rows

    meta = {"content_length": size}
    with pytest.raises(Refusal, match="content_length"):
        manifest(url=place + "x", mandatory=True)
    with pytest.raises(Refusal, match="does not exist"):
        manifest(url=place + "gone", mandatory=True, meta=meta)
    assert manifest(url=place + "gone", mandatory=False, meta=meta) == 0
    assert manifest(url=place + "x", mandatory=True, meta=meta) == 1


def test_fields_that_do_not_fit_are_listed_and_nothing_is_loaded(session, store, place, rows):
    session.execute("CREATE TABLE back (a INT, b VARCHAR(3))")
    store.put(place + "x", "1|abc\nx|abc\n3|日本\n4\n5|a|b\n6|ok\n".encode())
    with pytest.raises(Refusal, match="Check 'stl_load_errors'"):
        copy(session, place, "MAXERROR 3")
    assert rows(session, "SELECT COUNT(*) FROM back") == [(0,)]
    assert rows(
        session, "SELECT line_number, colname, err_code FROM stl_load_errors ORDER BY 1"
    ) == [(2, "a", 1207), (3, "b", 1204), (4, "", 1214), (5, "", 1202)]
    with pytest.raises(Refusal, match="Check 'stl_load_errors'"):
        copy(session, place, "MAXERROR 4")
    assert copy(session, place, "MAXERROR 5").rows == 2
    assert rows(session, "SELECT a, b FROM back ORDER BY a") == [(1, "abc"), (6, "ok")]


def test_a_failed_copy_keeps_nothing_of_the_files_before(session, store, place, rows):
    session.execute("CREATE TABLE back (a INT)")
    store.put(place + "1", b"1\n2\n")
    store.put(place + "2", b"x\n")
    with pytest.raises(Refusal):
        copy(session, place, "")
    assert rows(session, "SELECT COUNT(*) FROM back") == [(0,)]


def test_copy_options_for_text(session, store, place, rows):
    session.execute("CREATE TABLE back (a INT, b VARCHAR(3), c INT)")
    store.put(place + "x", b"head\n1,abcdef ,\n2, ,\n\n3\n")
    copy(session, place, "DELIMITER ',' IGNOREHEADER 1 TRUNCATECOLUMNS FILLRECORD BLANKSASNULL"
                         " IGNOREBLANKLINES COMPUPDATE OFF STATUPDATE ON")  # fmt: skip
    assert rows(session, "SELECT * FROM back ORDER BY a") == [
        (1, "abc", None), (2, None, None), (3, None, None),
    ]  # fmt: skip


def test_copy_of_nothing_and_of_rubbish_is_refused(session, store, place):
    session.execute("CREATE TABLE back (a INT)")
    with pytest.raises(Refusal, match="does not exist"):
        copy(session, place + "nothing", "")
    store.put(place + "x", b"\xff\n")
    for options in ("", "GZIP", "PARQUET", "MANIFEST"):
        with pytest.raises(Refusal) as caught:
            copy(session, place + "x", options)
        assert caught.value.sqlstate == "XX000"


def test_the_staging_of_an_upsert_works(every_type, store, place, rows):
    unload(every_type, place, "PARQUET MANIFEST VERBOSE")
    every_type.execute("BEGIN")
    every_type.execute("CREATE TEMP TABLE staged (LIKE t)")
    copy(every_type, place + "manifest", "PARQUET MANIFEST", "staged")
    every_type.execute("DELETE FROM t USING staged WHERE t.i8 = staged.i8")
    every_type.execute("INSERT INTO t SELECT * FROM staged")
    every_type.execute("COMMIT")
    assert rows(every_type, "SELECT COUNT(*), COUNT(i8) FROM t") == [(3, 1)]


def test_presigned_urls_need_no_login(store, place):
    import urllib.request

    store.put(place + "x", b"hello")
    with urllib.request.urlopen(store.presigned(place + "x", 60)) as answer:
        assert answer.read() == b"hello"


@pytest.mark.parametrize(
    ("sql", "sqlstate"),
    [
        ("COPY t FROM 's3://b/x' IAM_ROLE DEFAULT FORMAT JSON 'auto'", "0A000"),
        ("COPY t FROM 's3://b/x' IAM_ROLE DEFAULT TIMEFORMAT 'epochsecs'", "0A000"),
        ("COPY t FROM 's3://b/x' IAM_ROLE DEFAULT IGNOREHEADER many", "42601"),
        ("COPY t FROM s3", "42601"),
        ("COPY t FROM", "42601"),
        ("COPY 'x' FROM 's3://b/x'", "42601"),
        ("COPY t (id, nothing) FROM 's3://b/x' IAM_ROLE DEFAULT", "42703"),
        ("COPY t FROM 'file:///x' IAM_ROLE DEFAULT", "22023"),
        ("UNLOAD 'SELECT 1' TO 's3://b/x'", "42601"),
        ("UNLOAD ('SELECT 1') TO 's3://b/x' MAXFILESIZE big", "42601"),
        ("UNLOAD ('SELECT 1') TO 's3://b/x' PARQUET HEADER", "0A000"),
        ("UNLOAD ('SELECT 1') TO 's3://b/x' CLEANPATH ALLOWOVERWRITE", "0A000"),
        ("UNLOAD ('SELEC 1') TO 's3://b/x' IAM_ROLE DEFAULT", "42601"),
    ],
)
def test_statements_that_are_no_unload_or_copy_are_refused(numbers, refused, sql, sqlstate):
    assert refused(numbers, sql) == sqlstate


def test_names_of_files_follow_the_extension(numbers, store, place):
    unload(numbers, place, "CSV EXTENSION 'csv' PARALLEL OFF")
    assert names(store, place) == ["000.csv"]
