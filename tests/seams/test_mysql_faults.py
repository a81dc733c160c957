"""A MySQL server that restarts, turns read-only or shows another's certificate."""

from __future__ import annotations

import threading
from contextlib import closing
from dataclasses import replace

import pyarrow as pa
import pytest
from bad_inputs import ACCEPTED, TEMPORARY, bad_input
from servers import admin_of, mariadb, writer_of
from test_sink import TABLE, begin, commit, ids, rows

from mlbatch.connectors.mysql.address import connect, connect_to_writer, scalar
from mlbatch.connectors.mysql.session import MysqlPartSession
from mlbatch.connectors.mysql.sink import MysqlSink
from mlbatch.connectors.mysql.statements import Way
from mlbatch.connectors.password import FixedPassword
from mlbatch.declaration import Column
from mlbatch.devstack.certificates import make_certificates
from mlbatch.errors import ExitCode, SettingsError, TemporaryError


@pytest.fixture
def certificates(tmp_path):
    return make_certificates(tmp_path / "tls", "localhost", "127.0.0.1")


@pytest.fixture
def server(tmp_path, certificates):
    with mariadb(tmp_path / "mysql", certificates=certificates) as running:
        yield running


def address(server, **changed):
    return replace(writer_of(server), **changed)


def admin(server, statement):
    with closing(connect(admin_of(server))) as connection:
        connection.query(statement)


@pytest.fixture
def writing(server):
    sink = MysqlSink(address(server))
    run, _, _ = begin(sink)
    session = MysqlPartSession(sink.address, TABLE, run, Way.LOAD)
    yield sink, session
    session.close()


def test_a_restart_between_two_batches_is_survived(server, writing):
    sink, session = writing
    session.commit(commit(0, 2, rows(1, 2)))
    server.restart()
    session.commit(commit(2, 4, rows(3, 4)))
    assert session.position(0).written == 4
    assert ids(sink) == [1, 2, 3, 4]


@bad_input(111, outcome=ACCEPTED)
def test_a_server_that_reads_only_for_a_while_is_waited_for(server, writing):
    sink, session = writing
    session.commit(commit(0, 2, rows(1, 2)))
    admin(server, "SET GLOBAL read_only = 1")
    timer = threading.Timer(1.5, admin, [server, "SET GLOBAL read_only = 0"])
    timer.start()
    session.commit(commit(2, 4, rows(3, 4)))
    timer.join()
    assert ids(sink) == [1, 2, 3, 4]


@bad_input(111, outcome=TEMPORARY, says="read-only")
def test_a_server_that_stays_read_only_is_temporary(server, writing, monkeypatch):
    monkeypatch.setattr("mlbatch.connectors.mysql.session.REDO_SECONDS", 1.0)
    sink, session = writing
    admin(server, "SET GLOBAL read_only = 1")
    with pytest.raises(TemporaryError, match="read-only") as caught:
        session.commit(commit(0, 2, rows(1, 2)))
    assert caught.value.exit_code is ExitCode.TEMPORARY
    assert ids(sink) == []


@pytest.mark.parametrize("setting", [0, 1])
def test_a_demoted_writer_takes_nothing_from_a_user_who_may_write_all_the_same(server, setting):
    """Such rows would be lost with that server."""
    sink = MysqlSink(address(server))
    begin(sink)
    login = address(server, user=server.admin, password=FixedPassword(server.admin_password))
    admin(server, f"SET GLOBAL read_only = {setting}")
    admin(server, "CREATE TABLE mlbatch.written (n INT)")
    if not setting:
        connect_to_writer(login).close()
        return
    for act in (MysqlSink(login).ledger().runs, lambda: MysqlSink(login).checksum(TABLE, 1)):
        with pytest.raises(TemporaryError, match="is a reader: it is read-only"):
            act()


def test_the_sum_of_a_large_table_is_waited_for(server, monkeypatch):
    monkeypatch.setattr("mlbatch.connectors.mysql.address.ANSWER_SECONDS", 1)
    sink = MysqlSink(address(server))
    begin(sink)
    login = address(server, user=server.admin, password=FixedPassword(server.admin_password))
    with closing(connect(login)) as locking:
        locking.query("LOCK TABLES mood WRITE")
        timer = threading.Timer(2.5, locking.query, ["UNLOCK TABLES"])
        timer.start()
        assert sink.checksum(TABLE, 1) == (0, 0)
        timer.join()


def test_readers_do_not_wait_behind_a_change_of_the_table(server):
    """Whoever waits to change a table makes all new readers wait too."""
    sink = MysqlSink(address(server))
    begin(sink)
    login = address(server)
    more = replace(TABLE, columns=(*TABLE.columns, Column("note", pa.string(), "x", nullable=True)))
    with closing(connect(login)) as reading:
        reading.begin()
        scalar(reading, "SELECT COUNT(*) FROM mood")
        with pytest.raises(TemporaryError, match="Lock wait timeout"):
            sink.prepare(more)
    assert sink.prepare(more)


def test_a_server_that_is_gone_for_good_is_temporary(server, writing, monkeypatch):
    monkeypatch.setattr("mlbatch.connectors.mysql.session.REDO_SECONDS", 1.0)
    _, session = writing
    server.kill()
    with pytest.raises(TemporaryError, match="does not answer"):
        session.commit(commit(0, 2, rows(1, 2)))


def test_tls_checks_the_authority_and_the_name(server, certificates, tmp_path):
    secured = address(server, verify_tls=True, ca=certificates.ca)
    assert "TLS, name checked" in MysqlSink(secured).about()
    other = make_certificates(tmp_path / "other", "localhost")
    for wrong in (replace(secured, ca=other.ca), replace(secured, ca=None)):
        with pytest.raises(SettingsError, match="certificate") as caught:
            MysqlSink(wrong).about()
        assert "sink.ca" in caught.value.hint
