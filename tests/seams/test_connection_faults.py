"""What the production connectors do when connections misbehave."""

from __future__ import annotations

import threading
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace

import pymysql
import pytest
from fault_proxy import BLACK_HOLE, PASS, RESET, FaultProxy, Rule
from test_sink import ME, TABLE, commit, ids, new_run, rows, snapshot

from mlbatch.connectors import aws, queuery
from mlbatch.connectors.mysql import address as mysql_settings
from mlbatch.connectors.mysql import session as mysql_session
from mlbatch.connectors.mysql.address import MysqlAddress, connect, connect_to_writer
from mlbatch.connectors.mysql.session import MysqlPartSession
from mlbatch.connectors.mysql.sink import MysqlSink
from mlbatch.connectors.mysql.statements import Way
from mlbatch.connectors.password import FixedPassword
from mlbatch.connectors.redshift import wire as wire_settings
from mlbatch.devstack.certificates import make_certificates
from mlbatch.devstack.mariadb import find_program, private_mariadb
from mlbatch.errors import (
    ExitCode,
    MlbatchError,
    RunFailed,
    SettingsError,
    SnapshotError,
    TemporaryError,
    UsageError,
)

EXIT = {
    RunFailed: ExitCode.FAILED,
    SnapshotError: ExitCode.FAILED,
    SettingsError: ExitCode.USAGE,
    TemporaryError: ExitCode.TEMPORARY,
}


@contextmanager
def fails(kind, match):
    """The block fails with exactly this class, its exit code, and these words."""
    with pytest.raises(MlbatchError, match=match) as caught:
        yield
    assert type(caught.value) is kind
    assert caught.value.exit_code == EXIT[kind]


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Nobody waits by the minute here."""
    for module in (mysql_settings, aws):
        monkeypatch.setattr(module, "CONNECT_SECONDS", 1)
        monkeypatch.setattr(module, "ANSWER_SECONDS", 1)
    monkeypatch.setattr(aws, "ATTEMPTS", 3)
    monkeypatch.setattr(queuery, "ANSWER_SECONDS", 1)
    monkeypatch.setattr(mysql_session, "REDO_SECONDS", 3.0)
    monkeypatch.setattr(wire_settings, "CONNECT_SECONDS", 1)
    monkeypatch.setattr(wire_settings, "SLACK_SECONDS", 1)


@contextmanager
def serving(face):
    """A face that answers for as long as the block lasts."""
    face.start()
    try:
        yield face
    finally:
        face.stop()


# MySQL


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A MariaDB of our own with TLS, whose certificate is for localhost alone."""
    try:
        find_program("mariadbd")
    except UsageError as error:
        pytest.skip(f"{error.message}; {error.hint}")
    folder = tmp_path_factory.mktemp("faulty")
    certificates = make_certificates(folder / "made", "localhost")
    with private_mariadb(folder / "server", certificates=certificates) as made:
        yield made


@pytest.fixture
def admin(server):
    password = FixedPassword(server.admin_password)
    return MysqlAddress(server.host, server.port, "mysql", server.admin, password, verify_tls=False)


@pytest.fixture
def writer(server, admin):
    """The user that mlbatch has in production, in an empty database."""
    for statement in ("DROP DATABASE mlbatch", "CREATE DATABASE mlbatch CHARACTER SET utf8mb4"):
        execute(admin, statement)
    password = FixedPassword(server.password)
    return MysqlAddress(
        server.host, server.port, "mlbatch", server.user, password, verify_tls=False
    )


@pytest.fixture
def sink(writer):
    made = MysqlSink(writer)
    made.ledger()
    made.prepare(TABLE)
    return made


@pytest.fixture
def run(sink):
    ledger = sink.ledger()
    lease = ledger.acquire("mood", "toy", ME, 11)
    return ledger.adopt(ledger.attempt(ledger.create(lease, new_run()), "a1"), snapshot(rows=1_000))


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
        MysqlSink(address).ledger()


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


def test_a_batch_gives_up_when_the_outage_lasts(proxied, sink, run):
    proxy, address = proxied
    with session_of(address, run) as session:
        session.commit(commit(0, 2, rows(1, 2)))
        proxy.rule = BLACK_HOLE
        with fails(TemporaryError, "does not answer"):
            session.commit(commit(2, 4, rows(3, 4)))
    assert ids(sink) == [1, 2]


def test_rows_that_break_off_are_never_taken_for_all(proxied, sink, run):
    proxy, address = proxied
    with session_of(sink.address, run) as session:
        session.commit(commit(0, 900, rows(*range(900))))
    proxy.rule = Rule(cut_after=20_000)
    with fails(TemporaryError, "does not answer"):
        MysqlSink(address).rows(TABLE).read_all()
    proxy.rule = PASS
    assert MysqlSink(address).rows(TABLE).read_all().num_rows == 900


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


@pytest.mark.parametrize("way", list(Way))
def test_a_restart_between_two_batches_loses_nothing(server, sink, run, way):
    with session_of(sink.address, run, way) as session:
        session.commit(commit(0, 2, rows(1, 2)))
        server.restart()
        session.commit(commit(2, 4, rows(3, 4)))
        assert session.position(0).written == 4
    assert ids(sink) == [1, 2, 3, 4]


def test_a_server_that_only_reads_is_temporary_and_waited_for(sink, run, admin):
    execute(admin, "SET GLOBAL read_only = 1")
    try:
        with session_of(sink.address, run) as session:
            with fails(TemporaryError, "1290.*read-only"):
                session.commit(commit(0, 2, rows(1, 2)))
            threading.Timer(0.5, execute, (admin, "SET GLOBAL read_only = 0")).start()
            session.commit(commit(0, 2, rows(1, 2)))
    finally:
        execute(admin, "SET GLOBAL read_only = 0")
    assert ids(sink) == [1, 2]


def test_a_table_that_stays_locked_is_temporary(sink, run, admin):
    with closing(connect(replace(admin, database="mlbatch"))) as locking:
        locking.query("LOCK TABLES mood READ")
        with session_of(sink.address, run) as session, fails(TemporaryError, "does not answer"):
            session.commit(commit(0, 2, rows(1, 2)))
    with session_of(sink.address, run) as session:
        session.commit(commit(0, 2, rows(1, 2)))
    assert ids(sink) == [1, 2]


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
            spare.query("SET GLOBAL max_connections = 151")


def test_too_many_connections_of_one_user_are_temporary(sink, admin, server):
    execute(admin, f"ALTER USER {server.user} WITH MAX_USER_CONNECTIONS 1")
    try:
        with closing(connect(sink.address)), fails(TemporaryError, "1226"):
            MysqlSink(sink.address).about()
    finally:
        execute(admin, f"ALTER USER {server.user} WITH MAX_USER_CONNECTIONS 0")


@pytest.mark.parametrize(
    ("host", "authority", "said"),
    [("localhost", "another", "CERTIFICATE_VERIFY_FAILED"), ("127.0.0.1", "right", "127.0.0.1")],
    ids=["wrong authority", "wrong host name"],
)
def test_a_server_that_cannot_prove_its_name_is_a_setting(
    server, writer, tmp_path, host, authority, said
):
    another = make_certificates(tmp_path, "localhost").ca
    ca = another if authority == "another" else server.certificates.ca
    with fails(SettingsError, said):
        MysqlSink(replace(writer, host=host, verify_tls=True, ca=ca)).about()


def test_the_right_authority_and_name_are_trusted(server, writer):
    right = replace(writer, host="localhost", verify_tls=True, ca=server.certificates.ca)
    assert "TLS, name checked" in MysqlSink(right).about()
