"""The engine: Redshift's SQL, transactions, errors, cancelling and misbehaviour."""

from __future__ import annotations

import errno
import threading
import time
from datetime import UTC, date, datetime
from decimal import Decimal

import pyarrow as pa
import pytest

from mlbatch.devstack.redshift.faults import Dropped, Fault
from mlbatch.devstack.redshift.lexer import split, words
from mlbatch.devstack.redshift.refusal import Refusal, translated

TABLE = """
CREATE TABLE IF NOT EXISTS notes (
  id BIGINT IDENTITY(10, 5) NOT NULL ENCODE az64 DISTKEY,
  text VARCHAR(10) ENCODE zstd,
  price NUMERIC(10, 2) DEFAULT 1.5,
  made TIMESTAMP DEFAULT GETDATE(),
  extra SUPER,
  PRIMARY KEY (id)
) DISTSTYLE KEY COMPOUND SORTKEY (id, made)
"""


@pytest.fixture
def notes(session):
    session.execute(TABLE)
    session.execute("INSERT INTO notes (text) VALUES ('a'), ('b')")
    return session


def test_a_redshift_table_keeps_its_defaults_and_identity(notes, rows):
    assert rows(notes, "SELECT id, text, price FROM notes ORDER BY id") == [
        (10, "a", Decimal("1.50")),
        (15, "b", Decimal("1.50")),
    ]


def test_tags_and_counts_are_redshifts(notes):
    said = [
        notes.execute(sql)
        for sql in (
            "CREATE TEMP TABLE other (LIKE notes)",
            "INSERT INTO other (id, text) SELECT id, text FROM notes",
            "UPDATE notes SET text = 'c' WHERE id = 10",
            "DELETE FROM notes USING other WHERE notes.id = other.id AND other.id = 15",
            "ALTER TABLE notes ADD COLUMN more INT ENCODE az64",
            "ALTER TABLE notes RENAME COLUMN more TO most",
            "ALTER TABLE notes RENAME TO letters",
            "CREATE TABLE copied DISTKEY (id) AS SELECT * FROM letters",
            "SELECT 1 AS one",
            "VACUUM FULL letters",
            "GRANT SELECT ON letters TO PUBLIC",
            "DROP TABLE IF EXISTS letters, copied",
        )
    ]
    assert [answer.tag for answer in said] == [
        "CREATE TABLE", "INSERT 0 2", "UPDATE 1", "DELETE 1", "ALTER TABLE", "ALTER TABLE",
        "ALTER TABLE", "SELECT", "SELECT", "VACUUM", "GRANT", "DROP TABLE",
    ]  # fmt: skip
    assert [answer.rows for answer in said[1:4]] == [2, 1, 1]


def test_redshift_believes_keys_without_checking_them(session, rows):
    session.execute("CREATE TABLE t (id INT PRIMARY KEY, u INT UNIQUE)")
    session.execute("INSERT INTO t VALUES (1, 1), (1, 1)")
    assert rows(session, "SELECT COUNT(*) AS n FROM t") == [(2,)]


def test_varchar_counts_bytes(notes, refused):
    notes.execute("INSERT INTO notes (text) VALUES ('日本語')")
    assert refused(notes, "INSERT INTO notes (text) VALUES ('日本語日')") == "22001"
    notes.execute("CREATE TABLE other (LIKE notes)")
    assert refused(notes, "INSERT INTO other (id, text) VALUES (1, '日本語日')") == "22001"


@pytest.mark.parametrize(
    ("sql", "sqlstate"),
    [
        ("SELECT * FROM nowhere", "42P01"),
        ("INSERT INTO nowhere VALUES (1)", "42P01"),
        ("SELECT nothing FROM notes", "42703"),
        ("SELECT x.id FROM notes", "42P01"),
        ("SELEC 1", "42601"),
        ("SELECT * FROM notes WHERE", "42601"),
        ("SELECT 'open", "42601"),
        ("SELECT 1; SELECT 2", "42601"),
        ("SELECT unknown_function(1)", "42883"),
        ("SELECT CAST('a' AS INT)", "22P02"),
        ("SELECT CAST(9999999999 AS INT)", "22003"),
        ("CREATE TABLE notes (a INT)", "42P07"),
        ("INSERT INTO notes (id) VALUES (NULL)", "23502"),
        ("SELECT id, COUNT(*) FROM notes", "42803"),
        ("SELECT $1", "42P02"),
        ("SHOW nothing", "42704"),
        ("SET statement_timeout TO soon", "22023"),
        ("SELECT FNV_HASH(1)", "0A000"),
        ("CALL something()", "0A000"),
        ("CREATE TABLE other (LIKE nowhere)", "42P01"),
    ],
)
def test_errors_have_the_sqlstate_that_redshift_gives(notes, refused, sql, sqlstate):
    assert refused(notes, sql) == sqlstate


def test_parameters_are_typed_values_never_text(session, rows):
    moment = datetime(2026, 1, 2, 3, 4, 5, 600, tzinfo=UTC)
    given = [
        "it's \\ 日本",
        None,
        -5,
        1.5,
        Decimal("2.50"),
        True,
        date(2026, 1, 2),
        moment,
        b"\x01",
    ]
    names = "abcdefghi"
    query = ", ".join(f"${n} AS {name}" for n, name in enumerate(names, start=1))
    assert rows(session, f"SELECT {query}", given) == [tuple(given)]


def test_a_placeholder_inside_a_text_is_text(session, rows):
    assert rows(session, "SELECT '$1' AS a, $1 AS b -- $2", ["x"]) == [("$1", "x")]


def test_describe_tells_columns_and_changes_nothing(notes, rows):
    schema = notes.describe("SELECT id, text, COUNT(*) FROM notes WHERE text = $1 GROUP BY 1, 2", 1)
    assert schema.names == ["id", "text", "count"]
    assert schema.types == [pa.int64(), pa.string(), pa.int64()]
    assert notes.describe("DELETE FROM notes") is None
    assert notes.describe("SHOW timezone").names == ["timezone"]
    assert rows(notes, "SELECT COUNT(*) FROM notes") == [(2,)]


def test_describe_of_a_parameter_takes_its_type_from_a_sample(session):
    assert session.describe("SELECT $1 AS a", 1).types == [pa.string()]
    assert session.describe("SELECT $1 AS a", 1, [1.5]).types == [pa.float64()]


def test_every_type_arrives_as_redshift_has_it(session):
    table = session.execute(
        "SELECT true AS b, 1::SMALLINT AS i2, 1::INT AS i4, 1::BIGINT AS i8, 1.5::REAL AS f4,"
        " 1.5::FLOAT8 AS f8, 1.5::NUMERIC(9, 3) AS n, 'x' AS t, '2026-01-02'::DATE AS d,"
        " '2026-01-02'::TIMESTAMP AS ts, '2026-01-02'::TIMESTAMPTZ AS tz, '10:00'::TIME AS tm,"
        " NULL AS nothing, SUM(1) AS s"
    ).table
    assert table.schema.types == [
        pa.bool_(), pa.int16(), pa.int32(), pa.int64(), pa.float32(), pa.float64(),
        pa.decimal128(9, 3), pa.string(), pa.date32(), pa.timestamp("us"),
        pa.timestamp("us", tz="UTC"), pa.time64("us"), pa.string(), pa.int64(),
    ]  # fmt: skip


def test_a_python_variable_is_no_table(session, refused):
    words = pa.table({"a": [1]})
    assert words.num_rows == 1
    assert refused(session, "SELECT * FROM words") == "42P01"


def test_a_failed_transaction_ignores_all_until_it_ends(notes, refused, rows):
    notes.execute("BEGIN")
    notes.execute("INSERT INTO notes (text) VALUES ('x')")
    assert notes.in_transaction
    assert refused(notes, "SELECT * FROM nowhere") == "42P01"
    assert notes.failed
    assert refused(notes, "SELECT 1") == "25P02"
    assert notes.execute("COMMIT").tag == "ROLLBACK"
    assert (notes.in_transaction, notes.failed) == (False, False)
    assert rows(notes, "SELECT COUNT(*) FROM notes") == [(2,)]


def test_truncate_commits(notes, engine, rows):
    notes.execute("BEGIN")
    notes.execute("TRUNCATE notes")
    assert not notes.in_transaction
    assert rows(engine.session(), "SELECT COUNT(*) FROM notes") == [(0,)]


def test_others_see_a_transaction_when_it_is_committed(notes, engine, rows):
    other = engine.session()
    notes.execute("START TRANSACTION")
    notes.execute("DELETE FROM notes")
    assert rows(other, "SELECT COUNT(*) FROM notes") == [(2,)]
    notes.execute("END")
    assert rows(other, "SELECT COUNT(*) FROM notes") == [(0,)]


def test_two_writers_of_one_row_are_a_serialization_failure(notes, engine):
    other = engine.session()
    notes.execute("BEGIN")
    notes.execute("UPDATE notes SET text = 'x'")
    with pytest.raises(Refusal) as caught:
        other.execute("UPDATE notes SET text = 'y'")
    assert caught.value.message == "1023"
    assert "Serializable isolation violation" in caught.value.detail


def test_a_closed_session_has_rolled_back(notes, engine, rows):
    other = engine.session()
    other.execute("BEGIN")
    other.execute("DELETE FROM notes")
    other.close()
    assert rows(notes, "SELECT COUNT(*) FROM notes") == [(2,)]


def test_temporary_tables_belong_to_one_session(session, engine, refused):
    session.execute("CREATE TEMP TABLE mine (a INT)")
    assert refused(engine.session(), "SELECT * FROM mine") == "42P01"


def test_sessions_know_themselves(session, engine, rows):
    query = "SELECT pg_backend_pid(), current_user, current_database(), version()"
    pid, user, database, version = rows(session, query)[0]
    assert (pid, user, database) == (session.pid, "awsuser", "dev")
    assert version.startswith("PostgreSQL 8.0.2")
    assert engine.session("bob").pid != session.pid


def test_parameters_of_a_session_are_set_and_shown(session, rows):
    session.execute("SET query_group TO 'nightly'")
    assert rows(session, "SHOW query_group") == [("nightly",)]
    session.execute("RESET query_group")
    assert rows(session, "SELECT current_setting('query_group')") == [("unset",)]


def test_the_search_path_finds_tables(session, rows):
    session.execute("CREATE SCHEMA mart")
    session.execute("CREATE TABLE mart.t AS SELECT 7 AS a")
    session.execute("SET search_path TO mart, public")
    assert rows(session, "SELECT a FROM t") == [(7,)]


def test_the_catalog_tells_types_lengths_and_comments(notes, rows):
    notes.execute("COMMENT ON COLUMN notes.text IS '本文'")
    found = rows(
        notes,
        "SELECT column_name, data_type, character_maximum_length, numeric_scale, remarks"
        " FROM svv_columns WHERE table_name = 'notes' ORDER BY ordinal_position",
    )
    assert found == [
        ("id", "bigint", None, 0, None),
        ("text", "character varying", 10, None, "本文"),
        ("price", "numeric", None, 2, None),
        ("made", "timestamp without time zone", None, None, None),
        ("extra", "super", None, None, None),
    ]
    assert rows(
        notes, "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
    ) == [("notes",)]


def test_a_table_may_be_called_columns(session, rows):
    session.execute("CREATE TABLE columns AS SELECT 1 AS a")
    assert rows(session, "SELECT a FROM columns") == [(1,)]


def _stop_soon(stop):
    def work():
        while not stop():
            time.sleep(0.01)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


@pytest.mark.parametrize("how", ["CANCEL {}", "SELECT pg_cancel_backend({})", "cancel"])
def test_another_session_cancels(session, engine, refused, never_ends, how):
    def stop():
        if how == "cancel":
            return engine.cancel(session.pid)
        if session._running is None:
            return False
        with_other = engine.session()
        with_other.execute(how.format(session.pid))
        return True

    thread = _stop_soon(stop)
    assert refused(session, never_ends) == "57014"
    thread.join()
    assert session.execute("SELECT 1 AS a").rows == 1


def test_cancelling_an_idle_session_does_nothing(session, engine):
    assert not engine.cancel(session.pid)
    assert not engine.cancel(1)
    assert session.execute("SELECT 1 AS a").rows == 1


def test_a_statement_has_its_time(session, never_ends):
    session.execute("SET statement_timeout = 100")
    with pytest.raises(Refusal, match="statement timeout") as caught:
        session.execute(never_ends)
    assert caught.value.sqlstate == "57014"
    assert session.execute("SELECT 1 AS a").rows == 1


def test_a_timeout_in_a_transaction_fails_it(session, refused, never_ends):
    session.execute("SET statement_timeout = 100")
    session.execute("BEGIN")
    assert refused(session, never_ends) == "57014"
    assert refused(session, "SELECT 1") == "25P02"
    assert session.execute("ROLLBACK").tag == "ROLLBACK"


def test_faults_happen_as_often_as_they_say(session, engine, refused):
    engine.faults.add(Fault("error", "orders", times=2, sqlstate="53100", message="Disk Full"))
    assert refused(session, "SELECT 'Orders' AS a") == "53100"
    assert session.execute("SELECT 'notes' AS a").rows == 1
    assert refused(session, "SELECT 'orders' AS a") == "53100"
    assert session.execute("SELECT 'orders' AS a").rows == 1


def test_a_delay_can_be_cancelled(session, engine, refused):
    engine.faults.add(Fault("delay", "slow", seconds=60))
    thread = _stop_soon(lambda: engine.cancel(session.pid))
    assert refused(session, "SELECT 'slow' AS a") == "57014"
    thread.join()


def test_drop_does_not_do_the_work_and_lose_reply_does(notes, engine, rows):
    for kind, remaining in (("drop", 2), ("lose_reply", 1)):
        engine.faults.add(Fault(kind, "DELETE"))
        with pytest.raises(Dropped):
            notes.execute("DELETE FROM notes WHERE id = 10")
        assert rows(notes, "SELECT COUNT(*) FROM notes") == [(remaining,)]


def test_a_fault_that_makes_no_sense_is_refused():
    for wrong in ({"kind": "explode"}, {"kind": "error", "pattern": "("}, {"kynd": "error"}):
        with pytest.raises(ValueError, match=r"fault|unterminated"):
            Fault.of(wrong)


def test_a_database_file_outlives_the_engine(tmp_path, engine_with, rows):
    first = engine_with(tmp_path / "dev.duckdb")
    first.session().execute("CREATE TABLE t AS SELECT 1 AS a")
    first.close()
    assert rows(engine_with(tmp_path / "dev.duckdb").session(), "SELECT a FROM t") == [(1,)]


def test_closing_the_engine_ends_what_runs(engine, session, refused, never_ends):
    thread = threading.Thread(
        target=lambda: (_wait_for(lambda: session._running), engine.close())  # type: ignore[func-returns-value]
    )
    thread.start()
    assert refused(session, never_ends) == "57014"
    thread.join()
    assert refused(session, "SELECT 1") == "57P01"


def _wait_for(condition):
    while not condition():
        time.sleep(0.01)


def test_words_of_a_statement_are_told_apart():
    sql = """SELECT 'it''s \\' ok', "A""b", $tag$ 'x' ; $tag$ -- ; '\n ; /* ; */ a::int"""
    first, second = split(sql)
    assert [word.value for word in words(first)] == [
        "SELECT", "it's ' ok", ",", 'A"b', ",", " 'x' ; ",
    ]  # fmt: skip
    assert [word.value for word in words(second)] == ["A", "::", "INT"]


def test_explain_shows_a_plan(session):
    answer = session.execute("EXPLAIN SELECT 1 AS a")
    assert session.describe("EXPLAIN SELECT 1 AS a").names == answer.table.schema.names
    assert answer.rows > 0


def test_transactions_that_begin_twice_or_end_early_are_only_noted(session):
    assert session.execute("COMMIT").notices == ("there is no transaction in progress",)
    session.execute("BEGIN")
    assert session.execute("BEGIN").notices == ("there is already a transaction in progress",)


def test_set_has_many_forms(session, refused, rows):
    for sql in (
        "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        "SET LOCAL query_group = nightly",
        "SET query_group TO DEFAULT",
        "RESET ALL",
    ):
        session.execute(sql)
    assert rows(session, "SHOW query_group") == [("unset",)]
    for sql in ("SET a", "SHOW", "CANCEL x"):
        assert refused(session, sql) == "42601"


def test_nested_values_arrive_as_json(session, rows):
    session.execute("CREATE TABLE t (v SUPER)")
    session.execute('INSERT INTO t VALUES (\'{"a": [1, "日"]}\')')
    assert rows(session, "SELECT v FROM t") == [('{"a": [1, "日"]}',)]


def test_a_full_disk_is_named():
    full = translated(OSError(errno.ENOSPC, "No space left on device"))
    assert (full.sqlstate, full.message) == ("53100", "Disk Full")


def test_describing_in_a_failed_transaction_is_refused(session, refused):
    session.execute("BEGIN")
    with pytest.raises(Refusal):
        session.describe("SELECT * FROM nowhere")
    assert session.failed
    with pytest.raises(Refusal) as caught:
        session.describe("SELECT 1 AS a")
    assert caught.value.sqlstate == "25P02"


def test_empty_statements_do_nothing(session):
    assert [session.execute(sql).tag for sql in ("", " ; ", "-- only a comment")] == ["", "", ""]
