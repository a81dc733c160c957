"""Sessions, their transactions and interruptions, and the catalogue that clients look into."""

from __future__ import annotations

import threading
import time
from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbatch.devstack.redshift.faults import Dropped, Fault
from mlbatch.devstack.redshift.interruption import ON_REQUEST, ON_TIMEOUT, Interruption
from mlbatch.devstack.redshift.refusal import Refusal


@pytest.fixture(scope="module")
def engine(lasting_engine):
    return lasting_engine


@pytest.fixture
def session(engine):
    made = engine.session()
    yield made
    made.close()
    engine.faults.clear()


# The catalogue


@pytest.fixture(scope="module")
def tables(engine):
    session = engine.session()
    session.execute("CREATE SCHEMA shop")
    session.execute(
        "CREATE TABLE shop.goods (id BIGINT IDENTITY(1,1) NOT NULL, name VARCHAR(40) DEFAULT 'x',"
        " price DECIMAL(9,2), weight REAL, size FLOAT8, sold BOOL, day DATE, made TIMESTAMP,"
        " seen TIMESTAMPTZ, opens TIME, extra SUPER, few SMALLINT, some INT, free VARCHAR(MAX))"
    )
    session.execute("CREATE VIEW shop.names AS SELECT name FROM shop.goods")
    session.execute("COMMENT ON TABLE shop.goods IS 'What is for sale'")
    session.execute("COMMENT ON COLUMN shop.goods.price IS 'In euro'")
    session.close()


@pytest.mark.parametrize(
    ("column", "kind", "full", "length", "digits", "nullable"),
    [
        ("id", "bigint", None, None, (64, 0), "NO"),
        ("name", "character varying", "character varying(40)", 40, (None, None), "YES"),
        ("free", "character varying", "character varying(65535)", 65_535, (None, None), "YES"),
        ("price", "numeric", "numeric(9,2)", None, (9, 2), "YES"),
        ("weight", "real", None, None, (24, 0), "YES"),
        ("size", "double precision", None, None, (53, 0), "YES"),
        ("sold", "boolean", None, None, (None, None), "YES"),
        ("day", "date", None, None, (None, None), "YES"),
        ("made", "timestamp without time zone", None, None, (None, None), "YES"),
        ("seen", "timestamp with time zone", None, None, (None, None), "YES"),
        ("opens", "time without time zone", None, None, (None, None), "YES"),
        ("extra", "super", None, None, (None, None), "YES"),
        ("few", "smallint", None, None, (16, 0), "YES"),
        ("some", "integer", None, None, (32, 0), "YES"),
    ],
)
@pytest.mark.usefixtures("tables")
def test_a_column_of_the_catalogue(session, rows, column, kind, full, length, digits, nullable):
    for table in ("svv_columns", "information_schema.columns", "SVV_COLUMNS"):
        found = rows(
            session,
            "SELECT data_type, character_maximum_length, is_nullable, numeric_precision, numeric_scale"
            f" FROM {table} WHERE table_schema = 'shop' AND table_name = 'goods'"
            f" AND column_name = '{column}'",
        )
        assert found == [(kind, length, nullable, *digits)]
    query = (
        'SELECT type, "notnull" FROM pg_table_def'
        " WHERE schemaname = 'shop'"
        f" AND tablename = 'goods' AND \"column\" = '{column}'"
    )
    assert rows(session, query) == [(full or kind, nullable == "NO")]


@pytest.mark.usefixtures("tables")
def test_tables_and_views_of_the_catalogue(session, rows):
    session.execute("CREATE TEMP TABLE passing (a INT)")
    for table in ("svv_tables", "information_schema.tables"):
        found = rows(session, f"SELECT table_name, table_type, remarks FROM {table}"
                              " WHERE table_name IN ('goods', 'names', 'passing') ORDER BY 1")  # fmt: skip
        assert found == [("goods", "BASE TABLE", "What is for sale"), ("names", "VIEW", None)]
    remark = "SELECT remarks FROM svv_columns WHERE table_name = 'goods' AND column_name = 'price'"
    assert rows(session, remark) == [("In euro",)]
    info = 'SELECT "schema", "table", diststyle FROM svv_table_info WHERE "table" = \'goods\''
    assert rows(session, info) == [("shop", "goods", "EVEN")]


@pytest.mark.usefixtures("tables")
def test_the_catalogue_does_not_show_itself(session, rows):
    shown = rows(session, "SELECT DISTINCT table_schema FROM svv_columns")
    assert not {"redshift_catalog", "main", "pg_catalog"} & {schema for (schema,) in shown}


# Parameters and system functions


@pytest.mark.parametrize(
    ("query", "value"),
    [
        ("SHOW timezone", "UTC"), ("SHOW server_version", "8.0.2"), ("SHOW search_path", "$user, public"),
        ("SELECT current_setting('query_group') AS v", "unset"), ("SELECT current_database() AS v", "dev"),
        ("SELECT current_schema() AS v", "public"), ("SELECT current_user AS v", "awsuser"),
        ("SELECT current_user_id AS v", 100), ("SELECT pg_last_copy_count() AS v", 0),
        ("SELECT pg_last_unload_count() AS v", 0), ("SELECT pg_last_copy_id() AS v", -1),
        ("SELECT pg_last_unload_id() AS v", -1), ("SELECT pg_last_query_id() AS v", -1),
        ("SELECT pg_cancel_backend(5) AS v", 0), ("SELECT pg_terminate_backend(5) AS v", 0),
    ],
)  # fmt: skip
def test_what_a_new_session_says_of_itself(session, rows, query, value):
    assert rows(session, query) == [(value,)]


def test_the_last_query_is_this_session_s_own(session, engine, rows):
    session.execute("SELECT 1 AS a")
    mine = session.query
    other = engine.session()
    other.execute("SELECT 2 AS a")
    assert rows(session, "SELECT pg_last_query_id() AS v") == [(mine,)]
    other.close()


@pytest.mark.parametrize(
    ("sql", "sqlstate"),
    [
        ("SHOW nonsense", "42704"), ("SHOW", "42601"), ("SELECT current_setting('nonsense') AS a", "42704"),
        ("SET statement_timeout TO 'soon'", "22023"), ("SET x", "42601"), ("CANCEL me", "42601"),
        ("SELECT 1; SELECT 2", "42601"), ("EXPLAIN SELECT nothing", "42703"), ("CALL x()", "0A000"),
        ("nonsense", "42601"), ("UNLOAD ('') TO 's3://b/x'", "42601"), ("EXPLAIN", "42601"),
        ("CREATE TABLE x (LIKE nowhere)", "42P01"), ("TRUNCATE nowhere", "42P01"),
        ("INSERT INTO nowhere VALUES (1)", "42P01"), ("SELECT 1 AS a FROM a.b.c.d", None),
    ],
)  # fmt: skip
def test_statements_that_are_refused(session, sql, sqlstate):
    with pytest.raises(Refusal) as caught:
        session.execute(sql)
    assert sqlstate in (None, caught.value.sqlstate)
    assert session.execute("SELECT 1 AS a").rows == 1


@pytest.mark.parametrize("sql", ["", " ", "-- nothing", ";", "/* x */ ;"])
def test_nothing_is_answered_with_nothing(session, sql):
    answer = session.execute(sql)
    assert (answer.tag, answer.table, answer.rows) == ("", None, 0)


@pytest.mark.parametrize(
    ("sql", "names"),
    [("SELECT 1 AS a, 'x' AS b", ["a", "b"]), ("SHOW timezone", ["timezone"]), ("SHOW TimeZone", ["timezone"]),
     ("EXPLAIN SELECT 1 AS a", ["query plan"]), ("SELECT $1 AS p", ["p"]), ("CREATE TABLE d (a INT)", None),
     ("SET query_group TO x", None), ("", None)],
)  # fmt: skip
def test_a_description_tells_columns_and_runs_nothing(session, engine, sql, names):
    before = session.query
    schema = session.describe(sql, parameter_count=1)
    assert (schema.names if schema is not None else None) == names
    assert session.query == before


def test_describing_cancels_nobody(session, engine):
    """pg_cancel_backend in a description is not yet a call."""
    assert session.describe("SELECT pg_cancel_backend(1) AS a").names == ["a"]


# Transactions


@settings(deadline=None, max_examples=40)
@given(steps=st.lists(st.sampled_from(["BEGIN", "COMMIT", "ROLLBACK", "insert", "fail", "END", "ABORT"]),
                      max_size=9))  # fmt: skip
def test_any_order_of_transactions_keeps_what_was_committed(engine, steps):
    """A small model: what is committed, what is pending, and whether the transaction has failed."""
    session = engine.session()
    session.execute("CREATE TEMP TABLE counted (a INT)")
    kept, pending, is_open, failed = 0, 0, False, False
    for step in steps:
        sql = {"insert": "INSERT INTO counted VALUES (1)", "fail": "SELECT nothing"}.get(step, step)
        refusal = None
        try:
            session.execute(sql)
        except Refusal as error:
            refusal = error.sqlstate
        if step in ("COMMIT", "END", "ROLLBACK", "ABORT"):
            assert refusal is None
            if is_open:
                kept += pending if step in ("COMMIT", "END") and not failed else 0
            pending, is_open, failed = 0, False, False
        elif failed:
            assert refusal == "25P02"
        elif step == "fail":
            assert refusal == "42703"
            failed = is_open
        elif step == "insert":
            if is_open:
                pending += 1
            else:
                kept += 1
        else:
            is_open = True
        assert (session.in_transaction, session.failed) == (is_open, failed)
    session.execute("ROLLBACK")
    assert session.execute("SELECT COUNT(*) AS n FROM counted").table.to_pylist() == [{"n": kept}]
    session.close()


def test_a_closed_session_refuses_and_closes_again(engine):
    session = engine.session()
    session.close()
    session.close()
    with pytest.raises(Refusal) as caught:
        session.execute("SELECT 1 AS a")
    assert caught.value.sqlstate == "57P01"
    assert not engine.cancel(session.pid)


def test_a_statement_that_is_not_running_has_no_interruption(session):
    with pytest.raises(Refusal, match="no statement is running"):
        _ = session.interruption
    assert session.interrupt() is False


@pytest.mark.parametrize(("kind", "is_done"), [("drop", False), ("lose_reply", True)])
def test_what_is_dropped_and_what_is_only_not_told(session, engine, rows, kind, is_done):
    session.execute("CREATE TEMP TABLE dropped (a INT)")
    engine.faults.add(Fault(kind, "INSERT"))
    with pytest.raises(Dropped):
        session.execute("INSERT INTO dropped VALUES (1)")
    assert rows(session, "SELECT COUNT(*) AS n FROM dropped") == [(int(is_done),)]


def test_a_face_may_look_after_lost_connections_itself(engine):
    session = engine.session(may_drop=False)
    engine.faults.add(Fault("drop", ""))
    assert session.execute("SELECT 1 AS a").rows == 1
    assert engine.faults.take("drop", "") is not None
    session.close()
    engine.faults.clear()


@pytest.mark.parametrize("inside", [False, True])
def test_a_made_up_error_fails_the_transaction(session, engine, inside):
    if inside:
        session.execute("BEGIN")
    engine.faults.add(Fault("error", "SELECT 1", sqlstate="53200", message="Out Of Memory"))
    with pytest.raises(Refusal, match="Out Of Memory") as caught:
        session.execute("SELECT 1 AS a")
    assert (caught.value.sqlstate, session.failed) == ("53200", inside)


# Interruptions


def test_what_is_not_stopped_goes_through():
    with Interruption(lambda: None) as running:
        running.check()
        running.wait(0)
    running.stop()
    running.check()  # too late to matter


def interrupted(work, interrupt=lambda: None):
    """Do ``work`` with an interruption; the refusal that comes of it."""
    with pytest.raises(Refusal) as caught, Interruption(interrupt) as running:
        work(running)
    assert caught.value.sqlstate == "57014"
    return caught.value


@pytest.mark.parametrize(
    ("reasons", "told"),
    [([ON_REQUEST], ON_REQUEST), (["why"], "why"), (["first", "second"], "first")],
)
def test_a_stop_is_told_with_its_first_reason(reasons, told):
    def work(running):
        for reason in reasons:
            running.stop(reason)
        running.check()

    assert interrupted(work).message == told


def stopped_by(error):
    def work(running):
        running.stop()
        raise error

    return work


def test_whatever_the_database_says_when_it_is_stopped_is_a_cancellation():
    error = RuntimeError("INTERRUPT Error: Interrupted!")
    refusal = interrupted(stopped_by(error))
    assert refusal.message == ON_REQUEST
    assert refusal.__cause__ is error


def test_a_keyboard_interrupt_stays_one():
    work = stopped_by(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt), Interruption(lambda: None) as running:
        work(running)


def test_an_error_without_a_stop_stays_itself():
    with pytest.raises(RuntimeError, match="own"), Interruption(lambda: None):
        raise RuntimeError("its own")


def test_a_stop_is_repeated_until_it_is_heard():
    """The database loses an interrupt that comes between two of its statements."""
    heard, enough = [], threading.Event()

    def interrupt():
        heard.append(time.monotonic())
        if len(heard) == 3:
            enough.set()

    def work(running):
        running.stop()
        assert enough.wait(10)
        running.check()

    interrupted(work, interrupt)
    count = len(heard)
    time.sleep(0.05)
    assert len(heard) == count  # and not a moment longer


@pytest.mark.parametrize("milliseconds", [1, 30])
def test_a_time_limit_ends_a_wait(milliseconds):
    began = time.monotonic()
    with (
        pytest.raises(Refusal, match=ON_TIMEOUT) as caught,
        Interruption(lambda: None, milliseconds) as one,
    ):
        one.wait(30)
    assert caught.value.sqlstate == "57014"
    assert milliseconds / 1000 <= time.monotonic() - began < 20


def test_a_statement_in_time_is_not_touched_by_its_limit():
    interrupted = []
    with Interruption(lambda: interrupted.append(1), 60_000) as running:
        running.wait(0.001)
    assert interrupted == []


def test_a_statement_can_be_stopped_over_and_over(session, engine, never_ends):
    for _ in range(3):
        stopper = threading.Thread(target=lambda: [time.sleep(0.01) for _ in iter(
            lambda: engine.cancel(session.pid), True)])  # fmt: skip
        stopper.start()
        with pytest.raises(Refusal, match="cancelled"):
            session.execute(never_ends)
        stopper.join()
        assert session.execute("SELECT 1 AS a").rows == 1


def test_a_user_s_time_zone_holds_for_later_sessions_until_they_set_another(engine, rows):
    asked = "SELECT '2026-01-01 09:00:00'::TIMESTAMP::TIMESTAMPTZ AT TIME ZONE 'UTC' AS at"
    first = engine.session("traveller")
    first.execute("ALTER USER traveller SET timezone TO 'Asia/Tokyo'")
    later = engine.session("traveller")
    shown = [rows(first, "SHOW timezone"), rows(later, "SHOW timezone")]
    assert shown == [[("UTC",)], [("Asia/Tokyo",)]]
    assert rows(later, asked) == [(datetime(2026, 1, 1),)]
    later.execute("SET timezone TO 'UTC'")
    assert rows(later, asked) == [(datetime(2026, 1, 1, 9),)]
    later.execute("RESET timezone")
    assert rows(later, "SHOW timezone") == [("Asia/Tokyo",)]
    first.execute("ALTER USER traveller SET timezone TO DEFAULT")
    for session in (first, later):
        session.close()
