"""The PostgreSQL face, spoken to by the real redshift-connector."""

from __future__ import annotations

import contextlib
import math
import os
import socket
import ssl
import struct
import threading
import time
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from datetime import time as time_of_day
from decimal import Decimal, localcontext

import pytest
import redshift_connector

from mlbatch.connectors.password import FixedPassword
from mlbatch.connectors.redshift.wire import Wire
from mlbatch.devstack.certificates import make_certificates
from mlbatch.devstack.redshift.faults import Fault
from mlbatch.devstack.redshift.refusal import Refusal
from mlbatch.devstack.redshift.session import Session
from mlbatch.devstack.redshift.wire import WireServer
from mlbatch.errors import MlbatchError


def connect(face, **changed):
    values = {
        "host": "127.0.0.1", "port": face.port, "database": "dev", "user": "awsuser",
        "password": "sesame", "ssl": False, "timeout": 20,
    }  # fmt: skip
    return contextlib.closing(redshift_connector.connect(**(values | changed)))


def all_rows(connection, sql, *arguments):
    cursor = connection.cursor()
    cursor.execute(sql, *arguments)
    return [tuple(row) for row in cursor.fetchall()]


def sqlstate(connection, sql):
    with pytest.raises(redshift_connector.Error) as caught:
        connection.cursor().execute(sql)
    return caught.value.args[0]["C"]


VALUES = {
    "bool": ("true", True),
    "smallint": ("'-32768'", -32_768),
    "int": ("2147483647", 2**31 - 1),
    "bigint": ("'-9223372036854775808'", -(2**63)),
    "real": ("'1.5'", 1.5),
    "float8": ("'0.1'", 0.1),
    "numeric(10,2)": ("'-12.34'", Decimal("-12.34")),
    "numeric(18,0)": ("'999999999999999999'", Decimal(999_999_999_999_999_999)),
    "numeric(38,10)": (
        "'-1234567890123456789012345678.0123456789'",
        Decimal("-1234567890123456789012345678.0123456789"),
    ),
    "varchar(100)": ("'牛丼 \U0001f35c ''x'' \\\\ '", "牛丼 \U0001f35c 'x' \\ "),
    "char(3)": ("'abc'", "abc"),
    "date": ("'1999-12-31'", date(1999, 12, 31)),
    "time": ("'03:04:05.5'", time_of_day(3, 4, 5, 500_000)),
    "timestamp": ("'1969-07-20 20:17:40.000006'", datetime(1969, 7, 20, 20, 17, 40, 6)),
    "timestamptz": ("'2026-01-02 03:04:05+09'", datetime(2026, 1, 1, 18, 4, 5, tzinfo=UTC)),
}
PROTOCOLS = pytest.mark.parametrize("protocol", [0, 1, 2])


@PROTOCOLS
def test_values_of_every_type_arrive_as_they_are(face, protocol):
    columns = [f"{literal}::{kind}, NULL::{kind}" for kind, (literal, _) in VALUES.items()]
    with connect(face, client_protocol_version=protocol) as connection, localcontext(prec=38):
        assert connection._client_protocol_version == protocol
        ((*found,),) = all_rows(connection, f"SELECT {', '.join(columns)}")
    expected = [value for _, value in VALUES.values()]
    assert found[::2] == expected
    assert [type(value) for value in found[::2]] == [type(value) for value in expected]
    assert set(found[1::2]) == {None}


@PROTOCOLS
def test_numbers_that_are_none(face, protocol):
    sql = "SELECT 'NaN'::float8 AS a, 'Infinity'::float8 AS b, '-Infinity'::real AS c"
    with connect(face, client_protocol_version=protocol) as connection:
        ((nan, *infinite),) = all_rows(connection, sql)
    assert math.isnan(nan)
    assert infinite == [math.inf, -math.inf]


def test_bytes_arrive_as_hexadecimal_digits(face, engine):
    session = engine.session()
    session.execute("CREATE TABLE t (a VARBYTE)")
    session.execute("INSERT INTO t VALUES ($1)", [b"\x00\xff"])
    with connect(face) as connection:
        assert all_rows(connection, "SELECT a FROM t") == [("00ff",)]


def test_the_description_tells_names_and_types(face):
    with connect(face, client_protocol_version=2) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT 1::bigint AS id, 2.5::numeric(6,2) AS 値")
        columns = [(name, oid) for name, oid, *_ in cursor.description]
        (_, price) = cursor.ps["row_desc"]
    assert columns == [("id", 20), ("値", 1700)]
    assert price["column_name"] == "値".encode()
    assert (price["nullable"], price["autoincrement"]) == (1, 0)


PARAMETERS = {
    "smallint": 7,
    "int": 70_000,
    "bigint": 2**40,
    "float8": 0.1,
    "bool": True,
    "varchar": "it's $1 牛丼 \\",
    "date": date(2026, 1, 2),
    "time": time_of_day(3, 4, 5),
    "timestamp": datetime(2026, 1, 2, 3, 4, 5, 6),
    "timestamptz": datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=timezone(timedelta(hours=9))),
    "numeric(20,5)": Decimal("-123456789.12345"),
}


@PROTOCOLS
def test_parameters_of_every_type_come_back(face, protocol):
    columns = [f"%s::{kind} AS c{n}, %s AS d{n}" for n, kind in enumerate(PARAMETERS)]
    sql = f"SELECT {', '.join(columns)}, %s::int AS absent"
    given = [value for value in PARAMETERS.values() for _ in range(2)]
    with connect(face, client_protocol_version=protocol) as connection:
        for _ in range(2):  # the second time the driver has it prepared
            assert all_rows(connection, sql, [*given, None]) == [(*given, None)]


def test_parameters_are_stored_and_compared(face):
    with connect(face) as connection:
        cursor = connection.cursor()
        cursor.execute("CREATE TABLE t (id INT, d DATE, price NUMERIC(10,2), name VARCHAR(20))")
        rows = [(1, date(2026, 1, 2), Decimal("9.90"), "牛丼"), (2, None, None, None)]
        cursor.executemany("INSERT INTO t VALUES (%s, %s, %s, %s)", rows)
        assert cursor.rowcount == 2
        assert all_rows(connection, "SELECT * FROM t ORDER BY id") == rows
        sql = "SELECT id FROM t WHERE price > %s AND d >= %s AND name = %s"
        assert all_rows(connection, sql, (Decimal("9.8"), "2026-01-01", "牛丼")) == [(1,)]


def test_a_parameter_too_large_for_what_was_described_is_refused(face):
    with connect(face) as connection:
        with pytest.raises(redshift_connector.Error) as caught:
            all_rows(connection, "SELECT %s AS a", (Decimal("1.01234567890123456789"),))
        assert caught.value.args[0]["C"] == "22000"
        assert connection.in_transaction
        assert sqlstate(connection, "SELECT 1 AS one") == "25P02"


def test_transactions_and_their_failed_state(face):
    with connect(face) as connection:
        connection.cursor().execute("CREATE TABLE t (a INT)")
        connection.commit()
        connection.cursor().execute("INSERT INTO t VALUES (1)")
        connection.rollback()
        assert all_rows(connection, "SELECT COUNT(*) AS n FROM t") == [(0,)]
        assert sqlstate(connection, "SELECT * FROM nowhere") == "42P01"
        assert sqlstate(connection, "SELECT 1 AS one") == "25P02"
        connection.rollback()
        assert all_rows(connection, "SELECT 1 AS one") == [(1,)]


@pytest.mark.parametrize(
    ("sql", "state"),
    [
        ("SELECT * FROM nowhere", "42P01"),
        ("SELECT nothing FROM t", "42703"),
        ("SELECT FROM WHERE", "42601"),
        ("SELECT no_such_function(1)", "42883"),
        ("SELECT 'x'::int AS a", "22P02"),
        ("CREATE TABLE t (a INT)", "42P07"),
    ],
)
def test_failures_have_their_codes_and_the_connection_goes_on(face, sql, state):
    with connect(face) as connection:
        connection.autocommit = True
        connection.cursor().execute("CREATE TABLE t (a INT)")
        assert sqlstate(connection, sql) == state
        assert not connection.in_transaction
        assert all_rows(connection, "SELECT 1 AS one") == [(1,)]


def test_an_error_s_detail_is_told(face, engine, monkeypatch):
    refusal = Refusal("XX000", "1023", detail="Serializable isolation violation")
    monkeypatch.setattr(Session, "execute", lambda *_: (_ for _ in ()).throw(refusal))
    with connect(face) as connection, pytest.raises(redshift_connector.Error) as caught:
        connection.cursor().execute("SELECT 1 AS one")
    assert caught.value.args[0] == {
        "S": "ERROR", "C": "XX000", "M": "1023", "D": "Serializable isolation violation",
    }  # fmt: skip


def test_an_empty_statement_is_told_apart(face):
    with connect(face) as connection:
        with pytest.raises(redshift_connector.ProgrammingError, match="query was empty"):
            connection.cursor().execute("  -- nothing\n")
        assert all_rows(connection, "SELECT 1 AS one") == [(1,)]


def test_an_unload_tells_how_many_rows_it_wrote(face, place):
    with connect(face) as connection:
        sql = f"UNLOAD ('SELECT 1 AS one') TO '{place}' IAM_ROLE default FORMAT PARQUET"
        connection.cursor().execute(sql)
        (notice,) = connection.notices
    assert notice[b"S"] == b"INFO"
    assert notice[b"M"] == b"UNLOAD completed, 1 record(s) unloaded successfully."


def test_a_statement_prepared_before_its_table_changed_is_refused(face):
    with connect(face) as one, connect(face) as two:
        one.autocommit = two.autocommit = True
        one.cursor().execute("CREATE TABLE t (a INT)")
        assert all_rows(one, "SELECT * FROM t") == []
        two.cursor().execute("ALTER TABLE t ADD COLUMN b INT")
        assert sqlstate(one, "SELECT * FROM t") == "0A000"


def test_two_connections_do_not_see_each_other_s_open_work(face):
    with connect(face) as one, connect(face) as two:
        one.cursor().execute("CREATE TABLE t (a INT)")
        one.commit()
        one.cursor().execute("INSERT INTO t VALUES (1)")
        assert all_rows(two, "SELECT COUNT(*) AS n FROM t") == [(0,)]
        two.commit()
        one.commit()
        assert all_rows(two, "SELECT COUNT(*) AS n FROM t") == [(1,)]


def test_a_large_result_comes_whole(face):
    with connect(face) as connection:
        rows = all_rows(
            connection, "SELECT i, 'row ' || i AS t FROM generate_series(1, 50000) g(i)"
        )
    assert len(rows) == 50_000
    assert rows[-1] == (50_000, "row 50000")


@pytest.mark.parametrize("changed", [{"password": "wrong"}, {"user": "nobody"}])
def test_a_wrong_log_in_is_refused(face, changed):
    with pytest.raises(redshift_connector.Error) as caught, connect(face, **changed):
        pass
    assert "28000" in str(caught.value)


def cancelled(face, never_ends, cancel):
    with connect(face) as connection:
        ((pid,),) = all_rows(connection, "SELECT pg_backend_pid() AS pid")
        timer = threading.Timer(0.5, cancel, [connection, pid])
        timer.start()
        started = time.monotonic()
        state = sqlstate(connection, never_ends)
        timer.join()
    assert time.monotonic() - started < 10
    return state


def test_another_connection_cancels(face, never_ends):
    def cancel(_, pid):
        with connect(face) as other:
            other.cursor().execute(f"SELECT pg_cancel_backend({pid}) AS done")

    assert cancelled(face, never_ends, cancel) == "57014"


def test_another_connection_cancels_by_statement(face, never_ends):
    def cancel(_, pid):
        with connect(face) as other:
            other.cursor().execute(f"CANCEL {pid}")

    assert cancelled(face, never_ends, cancel) == "57014"


def test_a_cancel_request_needs_the_right_key(face, never_ends):
    answers = []

    def request(data):
        with socket.create_connection(("127.0.0.1", face.port)) as raw:
            raw.sendall(struct.pack("!ii", 16, 80_877_102) + data)
            answers.append(raw.recv(1))

    def cancel(connection, _):
        pid, key = struct.unpack("!ii", connection._backend_key_data)
        request(struct.pack("!ii", pid, key ^ 1))
        time.sleep(0.2)
        running.append(face.engine._sessions[pid]._running is not None)
        request(struct.pack("!ii", pid, key))

    running = []
    assert cancelled(face, never_ends, cancel) == "57014"
    assert running == [True]
    assert answers == [b"", b""]


def test_a_limit_of_time(face, never_ends):
    with connect(face) as connection:
        connection.cursor().execute("SET statement_timeout TO 300")
        assert sqlstate(connection, never_ends) == "57014"


def test_a_dropped_connection_gives_no_answer(face, engine):
    engine.faults.add(Fault("drop", "marked"))
    with connect(face) as connection, pytest.raises((redshift_connector.Error, OSError)):
        connection.cursor().execute("SELECT 'marked' AS a")


def test_stopping_does_not_wait_for_clients(engine):
    face = WireServer(engine)
    face.start()
    with connect(face, password="secret") as connection:
        started = time.monotonic()
        face.stop()
        assert time.monotonic() - started < 5
        with pytest.raises((redshift_connector.Error, OSError)):
            connection.cursor().execute("SELECT 1 AS one")


def test_stopping_ends_what_runs(engine, never_ends):
    face = WireServer(engine, users={"awsuser": "sesame"})
    face.start()
    failures = []

    def run(connection):
        try:
            connection.cursor().execute(never_ends)
        except (redshift_connector.Error, OSError) as error:
            failures.append(error)

    with connect(face) as connection:
        thread = threading.Thread(target=run, args=[connection])
        thread.start()
        time.sleep(0.5)
        started = time.monotonic()
        face.stop()
        assert time.monotonic() - started < 5
        thread.join(10)
    assert len(failures) == 1
    assert face.secrets == {}


@pytest.fixture
def secured(engine, tmp_path):
    made = []

    def start(*hosts):
        files = make_certificates(tmp_path / "-".join(hosts), *hosts)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files.certificate, files.key)
        face = WireServer(engine, users={"awsuser": "sesame"}, tls=context)
        face.start()
        made.append(face)
        return face, files

    yield start
    for face in made:
        face.stop()


def test_tls_checks_the_authority_and_the_name(secured, monkeypatch):
    verified = {"ssl": True, "sslmode": "verify-full", "host": "localhost"}
    right, files = secured("localhost", "127.0.0.1")
    monkeypatch.setenv("SSL_CERT_FILE", str(files.ca))
    with connect(right, **verified) as connection:
        assert all_rows(connection, "SELECT 1 AS one") == [(1,)]
    other, files = secured("elsewhere.example")
    monkeypatch.setenv("SSL_CERT_FILE", str(files.ca))
    for face in (other, right):
        with pytest.raises(redshift_connector.Error), connect(face, **verified):
            pass


def test_certificates_of_the_warehouse_are_trusted_for_it_alone(secured):
    face, files = secured("localhost")
    before = os.environ.get("SSL_CERT_FILE")
    wire = Wire("localhost", face.port, "dev", "awsuser", FixedPassword("sesame"), ca=files.ca)
    assert wire.run(["SELECT 1 AS one"]).to_pylist() == [{"one": 1}]
    assert os.environ.get("SSL_CERT_FILE") == before
    other, _ = secured("localhost", "127.0.0.1")
    with pytest.raises(MlbatchError, match="localhost"):
        replace(wire, port=other.port).run(["SELECT 1 AS one"])
    assert os.environ.get("SSL_CERT_FILE") == before


def test_a_server_without_a_certificate_says_so(face):
    with pytest.raises(redshift_connector.InterfaceError, match="refuses SSL"):
        redshift_connector.connect(
            host="127.0.0.1", port=face.port, database="dev", user="awsuser", password="sesame"
        )
