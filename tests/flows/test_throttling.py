"""A run that holds back: injected lag on a real server, a flag file, a server that writes slowly."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from contextlib import closing
from dataclasses import replace

import pytest
from toy.harness import ToyHarness, notes
from toy.job import Toy
from toy.model import Obedient

from mlbatch.connectors.mysql.address import connect
from mlbatch.connectors.mysql.sink import MysqlSink
from mlbatch.connectors.password import FixedPassword
from mlbatch.connectors.sqlite import SqliteSink
from mlbatch.errors import SettingsError, TemporaryError
from mlbatch.inference import infer
from mlbatch.ledger import RunState
from mlbatch.planner import Request
from mlbatch.throttle import Limits

ROWS = 200


class Watched(Obedient):
    """A twentieth of a second a batch, until there is nothing more to see."""

    slow = threading.Event()

    def predict(self, batch):
        if self.slow.is_set():
            time.sleep(0.05)
        return super().predict(batch)


def harness_on(sink, folder, limits, rows=ROWS):
    harness = ToyHarness(Toy, folder, part_rows=10, sink=sink)
    harness.given_model(Watched()).notes(notes(rows))
    return harness, replace(harness.tools, limits=limits)


def watched_on(sink, folder, limits):
    """So many parts that a run is not through before it is told to pause."""
    return harness_on(sink, folder, limits, rows=1_200)


def done(harness):
    ledger = harness.tools.sink.ledger()
    runs = ledger.runs("mood")
    return sum(part.done for part in ledger.parts(runs[0].run_id)) if runs else 0


def wait_for(what, seconds=30):
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def assert_pauses_and_recovers(harness, tools, pause, go_on):
    Watched.slow.set()
    running = threading.Thread(target=infer, args=(Toy, Request(), tools))
    running.start()
    wait_for(lambda: done(harness) > 100)
    pause()
    time.sleep(2)
    stood = done(harness)
    time.sleep(1.5)
    assert done(harness) == stood < 1_200
    Watched.slow.clear()
    go_on()
    wait_for(lambda: done(harness) > stood)
    running.join(60)
    assert len(harness.rows()) == 1_200


def test_replicas_that_lag_pause_the_run_within_two_seconds(tmp_path, mysql_address):
    def set_lag(seconds):
        with closing(connect(mysql_address)) as connection:
            connection.query(f"UPDATE lag SET seconds = {seconds}")
            connection.commit()

    with closing(connect(mysql_address)) as connection:
        connection.query("CREATE TABLE lag AS SELECT 0.0 AS seconds")
    sink = MysqlSink(mysql_address, "SELECT seconds FROM lag")
    harness, tools = watched_on(sink, tmp_path, Limits())
    assert_pauses_and_recovers(harness, tools, lambda: set_lag(3), lambda: set_lag(0))


def test_a_long_history_pauses_the_run_until_its_reader_is_through(tmp_path, mysql_address):
    harness, tools = watched_on(
        MysqlSink(mysql_address, tells_history=True), tmp_path, Limits(history_length=500)
    )
    with closing(connect(mysql_address)) as reader, closing(connect(mysql_address)) as writer:
        writer.query("CREATE TABLE busy AS SELECT 0 AS n")
        reader.query("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        reader.query("SET SESSION wait_timeout = 300")

        def read_and_change():
            reader.query("START TRANSACTION WITH CONSISTENT SNAPSHOT")
            for _ in range(1_000):
                writer.query("UPDATE busy SET n = n + 1")

        assert_pauses_and_recovers(harness, tools, read_and_change, reader.rollback)


@pytest.mark.parametrize("is_denied", [True, False])
def test_a_history_that_may_not_be_seen_is_said_once_and_stops_nothing(
    tmp_path, mysql_address, monkeypatch, caplog, is_denied
):
    # As on MySQL, which tells it elsewhere, to users with one right more.
    unknown = "SHOW GLOBAL STATUS LIKE 'innodb_nothing_of_this_name'"
    monkeypatch.setattr("mlbatch.connectors.mysql.statements.HISTORY_STATUS", unknown)
    user, password = f"u{secrets.token_hex(6)}", secrets.token_hex(12)
    right = "USAGE" if is_denied else "PROCESS"
    with closing(connect(mysql_address)) as admin:
        admin.query(f"CREATE USER {user}@'%' IDENTIFIED BY '{password}'")
        admin.query(f"GRANT ALL ON \"{mysql_address.database}\".* TO {user}@'%'")
        admin.query(f"GRANT {right} ON *.* TO {user}@'%'")
    address = replace(mysql_address, user=user, password=FixedPassword(password))
    limits = Limits(history_length=10**9)
    harness, tools = harness_on(MysqlSink(address, tells_history=True), tmp_path, limits)
    with caplog.at_level(logging.WARNING, "mlbatch"):
        infer(Toy, Request(), tools)
    assert len(harness.rows()) == ROWS
    with closing(connect(mysql_address)) as admin:
        admin.query(f"DROP USER {user}@'%'")
    said = [r.getMessage() for r in caplog.records if "history_length" in r.getMessage()]
    assert len(said) == is_denied
    assert all("grant the user PROCESS" in line for line in said)


@pytest.mark.parametrize("query", ["SELECT seconds FROM nowhere", "SELECT 'soon'", "SELECT ("])
def test_a_query_that_tells_no_lag_is_a_setting_and_not_the_absence_of_lag(
    tmp_path, mysql_address, query
):
    harness, tools = harness_on(MysqlSink(mysql_address, query), tmp_path, Limits())
    with pytest.raises(SettingsError, match=r"sink\.lag_query tells no seconds"):
        infer(Toy, Request(), tools)
    assert done(harness) == 0


def test_no_replica_is_no_lag(tmp_path, mysql_address):
    harness, tools = harness_on(MysqlSink(mysql_address, "SELECT NULL"), tmp_path, Limits())
    infer(Toy, Request(), tools)
    assert done(harness) == ROWS


def test_a_flag_file_pauses_the_run(tmp_path):
    flag = tmp_path / "pause"
    sink = SqliteSink(tmp_path / "outputs.db")
    harness, tools = watched_on(sink, tmp_path, Limits(flag_file=flag))
    assert_pauses_and_recovers(harness, tools, flag.touch, flag.unlink)


def test_a_server_over_the_ceiling_ends_the_run_which_is_resumed(tmp_path, mysql_address):
    limits = Limits(threads_running=0, threads_running_most=0)
    harness, tools = harness_on(MysqlSink(mysql_address), tmp_path, limits)
    with pytest.raises(TemporaryError, match="over the ceiling"):
        infer(Toy, Request(), tools)
    assert done(harness) == 0
    (run,) = harness.tools.sink.ledger().runs("mood")
    assert run.state is RunState.WRITING
    harness.infer()
    assert len(harness.rows()) == ROWS


def test_a_server_that_writes_slowly_gets_fewer_rows_a_transaction(
    tmp_path, mysql_address, monkeypatch
):
    monkeypatch.setattr("mlbatch.worker.MOST_BATCH_ROWS", 1_024)
    sink = MysqlSink(mysql_address)
    harness = ToyHarness(Toy, tmp_path, sink=sink)
    harness.given_model(Obedient()).notes(notes(3_000))
    sink.prepare(Toy.output.table)
    lease = sink.ledger().acquire("mood", "toy", harness.tools.owner, 1)
    sink.ledger().release(lease, 2)
    with closing(connect(mysql_address)) as connection:
        connection.query(
            "CREATE TRIGGER slow BEFORE INSERT ON mood FOR EACH ROW SET @nothing = SLEEP(0.0005)"
        )
        connection.query("CREATE TABLE seen (rows_done BIGINT)")
        connection.query(
            "CREATE TRIGGER seen AFTER UPDATE ON mlbatch_part FOR EACH ROW"
            " INSERT INTO seen VALUES (NEW.done - OLD.done)"
        )
    tools = replace(harness.tools, limits=Limits(transaction_seconds=0.2))
    infer(Toy, Request(), tools)
    with closing(connect(mysql_address)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT rows_done FROM seen WHERE rows_done > 0")
        sizes = [row[0] for row in cursor.fetchall()]
    assert sum(sizes) == 3_000
    assert sizes[0] == max(sizes) > 1_000
    assert min(sizes[2:]) < sizes[0] / 2
    assert len(harness.rows()) == 3_000
