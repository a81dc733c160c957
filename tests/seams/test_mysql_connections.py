"""What the MySQL sink does when connections misbehave."""

from __future__ import annotations

import gc
import threading
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace

import pymysql
import pytest
from bad_inputs import REFUSED, bad_input
from fault_proxy import BLACK_HOLE, PASS, RESET, FaultProxy, Rule
from faulty import fails
from servers import admin_of, mariadb, writer_of
from test_sink import TABLE, begin, commit, ids, rows

from mlbatch.connectors.mysql.address import connect, connect_to_writer
from mlbatch.connectors.mysql.session import MysqlPartSession
from mlbatch.connectors.mysql.sink import MysqlSink
from mlbatch.connectors.mysql.statements import Way
from mlbatch.devstack.certificates import make_certificates
from mlbatch.errors import (
    SettingsError,
    TemporaryError,
)

pytestmark = pytest.mark.usefixtures("impatient")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A MariaDB of our own with TLS, whose certificate is for localhost alone."""
    folder = tmp_path_factory.mktemp("faulty")
    certificates = make_certificates(folder / "made", "localhost")
    with mariadb(folder / "server", certificates=certificates) as made:
        yield made


@pytest.fixture
def admin(server):
    return replace(admin_of(server), database="mysql")


@pytest.fixture
def writer(server, admin):
    """The user that mlbatch has in production, in an empty database."""
    for statement in ("DROP DATABASE mlbatch", "CREATE DATABASE mlbatch CHARACTER SET utf8mb4"):
        execute(admin, statement)
    return replace(writer_of(server), database="mlbatch")


@pytest.fixture
def sink(writer):
    made = MysqlSink(writer)
    made.ledger()
    made.prepare(TABLE)
    return made


@pytest.fixture
def run(sink):
    return begin(sink, rows=1_000)[0]


@pytest.fixture
def proxied(writer):
    """A proxy before the server, and the address of the proxy."""
    with FaultProxy(writer.host, writer.port) as proxy:
        yield proxy, replace(writer, port=proxy.port)


def execute(address, statement):
    with closing(connect(address)) as connection:
        connection.query(statement)


@contextmanager
def session_of(address, run, way=Way.LOAD):
    with closing(MysqlPartSession(address, TABLE, run, way)) as session:
        yield session


@pytest.mark.parametrize("rule", [RESET, BLACK_HOLE, Rule(cut_after=40)], ids=str)
def test_mysql_that_does_not_greet_is_temporary(proxied, rule):
    proxy, address = proxied
    proxy.rule = rule
    with fails(TemporaryError, "does not answer"):
        MysqlSink(address).ledger().runs()


@pytest.mark.parametrize("fault", [RESET, BLACK_HOLE, Rule(cut_after=1)], ids=str)
def test_a_batch_whose_connection_goes_bad_is_applied_once(proxied, sink, run, fault):
    proxy, address = proxied
    with session_of(address, run) as session:
        session.commit(commit(0, 2, rows(1, 2)))
        proxy.rule = fault
        threading.Timer(0.5, lambda: setattr(proxy, "rule", PASS)).start()
        session.commit(commit(2, 4, rows(3, 4)))
        state = session.position(0)
    assert (state.done, state.written, state.checksum) == (4, 4, 14)
    assert ids(sink) == [1, 2, 3, 4]
    assert proxy.accepted > 1


def test_a_batch_gives_up_when_the_outage_lasts(hopeless, proxied, sink, run):
    proxy, address = proxied
    with session_of(address, run) as session:
        session.commit(commit(0, 2, rows(1, 2)))
        proxy.rule = BLACK_HOLE
        with fails(TemporaryError, "does not answer"):
            session.commit(commit(2, 4, rows(3, 4)))
    assert ids(sink) == [1, 2]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_rows_that_break_off_are_temporary(proxied, sink, run):
    proxy, address = proxied
    with session_of(sink.address, run) as session:
        session.commit(commit(0, 900, rows(*range(900))))
    proxy.rule = Rule(cut_after=20_000)
    try:
        with fails(TemporaryError, "does not answer"):
            MysqlSink(address).rows(TABLE).read_all()
    finally:
        gc.collect()  # the driver's complaints belong to this test


def test_a_slow_line_is_only_slow(proxied, sink):
    proxy, address = proxied
    proxy.rule = Rule(delay=0.05, bytes_per_second=20_000)
    assert "MariaDB" in MysqlSink(address).about()


def test_a_killed_connection_loses_nothing(sink, run, admin):
    with session_of(sink.address, run) as session:
        session.commit(commit(0, 2, rows(1, 2)))
        execute(admin, f"KILL CONNECTION {session._connection.thread_id()}")
        session.commit(commit(2, 4, rows(3, 4)))
    assert ids(sink) == [1, 2, 3, 4]


def test_a_table_that_stays_locked_is_temporary(hopeless, sink, run, admin):
    with closing(connect(replace(admin, database="mlbatch"))) as locking:
        locking.query("LOCK TABLES mood READ")
        with session_of(sink.address, run) as session, fails(TemporaryError, "does not answer"):
            session.commit(commit(0, 2, rows(1, 2)))
    with session_of(sink.address, run) as session:
        session.commit(commit(0, 2, rows(1, 2)))
    assert ids(sink) == [1, 2]


@bad_input(113, outcome=REFUSED)
def test_a_right_that_was_taken_away_is_a_setting(sink, run, admin, server):
    execute(admin, f"REVOKE INSERT ON mlbatch.* FROM {server.user}")
    try:
        with session_of(sink.address, run) as session, fails(SettingsError, "1142.*INSERT"):
            session.commit(commit(0, 2, rows(1, 2)))
    finally:
        execute(admin, f"GRANT INSERT ON mlbatch.* TO {server.user}")
    assert ids(sink) == []


def test_too_many_connections_are_temporary(sink, admin):
    with closing(connect(admin)) as spare, ExitStack() as crowd:
        spare.query("SET GLOBAL max_connections = 10")
        try:
            with fails(TemporaryError, "1040"):
                for _ in range(12):
                    address = replace(sink.address, local_infile=False)
                    try:
                        crowd.enter_context(closing(connect_to_writer(address)))
                    except pymysql.err.OperationalError:
                        MysqlSink(address).about()
        finally:
            spare.query("SET GLOBAL max_connections = 1000")


def test_too_many_connections_of_one_user_are_temporary(sink, admin, server):
    execute(admin, f"ALTER USER {server.user} WITH MAX_USER_CONNECTIONS 1")
    try:
        with closing(connect(sink.address)), fails(TemporaryError, "1226"):
            MysqlSink(sink.address).about()
    finally:
        execute(admin, f"ALTER USER {server.user} WITH MAX_USER_CONNECTIONS 0")


def test_a_certificate_of_another_name_is_a_setting(server, writer):
    trusted = replace(writer, verify_tls=True, ca=server.certificates.ca)
    assert "TLS, name checked" in MysqlSink(replace(trusted, host="localhost")).about()
    with fails(SettingsError, "not valid for '127.0.0.1'"):
        MysqlSink(trusted).about()
