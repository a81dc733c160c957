"""The PostgreSQL face, spoken to by the real redshift-connector."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
import time
from datetime import UTC, date, datetime

import pytest
import redshift_connector

from mlbatch.devstack.certificates import make_certificates
from mlbatch.devstack.redshift.faults import Fault
from mlbatch.devstack.redshift.wire import WireServer


@pytest.fixture
def face(engine):
    made = WireServer(engine, users={"awsuser": "sesame"})
    made.start()
    yield made
    made.stop()


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


def test_values_of_every_type(face):
    sql = (
        "SELECT 1::smallint AS a, 2::int AS b, 3::bigint AS c, 1.5::real AS d, 0.1::float8 AS e,"
        " true AS f, '牛丼'::varchar AS g, DATE '2026-01-02' AS h,"
        " TIMESTAMP '2026-01-02 03:04:05.000006' AS i, NULL::int AS j, 12.34::numeric(10,2) AS k"
    )
    with connect(face) as connection:
        (row,) = all_rows(connection, sql)
    assert row[:10] == (
        1, 2, 3, 1.5, 0.1, True, "牛丼", date(2026, 1, 2),
        datetime(2026, 1, 2, 3, 4, 5, 6), None,
    )  # fmt: skip
    assert str(row[10]) == "12.34"


def test_time_zones_are_utc(face):
    with connect(face) as connection:
        ((now,),) = all_rows(connection, "SELECT '2026-01-02 03:04:05+09'::timestamptz AS t")
    assert now.astimezone(UTC) == datetime(2026, 1, 1, 18, 4, 5, tzinfo=UTC)


def test_parameters_are_bound(face):
    with connect(face) as connection:
        rows = all_rows(connection, "SELECT %s::int + 1 AS a, %s::varchar AS b", (41, "it's $1"))
    assert rows == [(42, "it's $1")]


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
            connection, "SELECT i, 'row ' || i AS t FROM generate_series(1, 20000) g(i)"
        )
    assert len(rows) == 20_000
    assert rows[-1] == (20_000, "row 20000")


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


def test_a_cancel_request_needs_the_right_key(face, never_ends):
    def request(pid, key):
        with socket.create_connection(("127.0.0.1", face.port)) as raw:
            raw.sendall(struct.pack("!iiii", 16, 80_877_102, pid, key))
            raw.recv(1)

    def cancel(_, pid):
        request(pid, face.secrets[pid] ^ 1)
        time.sleep(0.2)
        request(pid, face.secrets[pid])

    assert cancelled(face, never_ends, cancel) == "57014"


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
