"""A take-over need not wait for a sleeper inside a transaction: its connection is ended, no other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from seams.test_sink import ME, begin, commit, rows
from toy.harness import ToyHarness, notes
from toy.job import Mood, Toy
from toy.model import Obedient

from mlbatch.connectors.mysql import address as mysql_address
from mlbatch.connectors.mysql.address import connect, scalar
from mlbatch.connectors.mysql.session import MysqlPartSession
from mlbatch.connectors.mysql.sink import MysqlSink
from mlbatch.errors import Busy, TemporaryError
from mlbatch.ledger import Owner, RunState

TESTS = Path(__file__).parents[1]
OTHER = Owner("other", "elsewhere", 2, "")
LONG = "wait_timeout = 28800, innodb_lock_wait_timeout = 5"

# The server would let this worker sleep for eight hours, and its lease ends after a second.
SLEEPER = """
import pickle, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from mlbatch.connectors.database import lease_store
from mlbatch.connectors.mysql import address, session
from mlbatch.errors import Fenced, TemporaryError
from toy.harness import ToyHarness
from toy.job import Toy
from toy.model import Obedient
lease_store.LEASE_SECONDS = 1
address._SESSION = address._SESSION.replace(
    "wait_timeout = 30, innodb_lock_wait_timeout = 5", {long!r})
slept = []
def reach(place):
    if place == "after_rows" and not slept:
        slept.append(place)
        print("asleep", flush=True)
        sys.stdin.readline()
session.reach = reach
harness = ToyHarness(Toy, Path({folder!r}), part_rows=100, sink=pickle.loads({sink!r}))
harness._predictor = Obedient()
try:
    harness.infer()
except Fenced:
    print("fenced", flush=True)
"""


@contextmanager
def sleeper(folder, sink):
    """A run that is stopped by SIGSTOP after it wrote rows and before their COMMIT."""
    import pickle

    code = SLEEPER.format(tests=str(TESTS), folder=str(folder), sink=pickle.dumps(sink), long=LONG)
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True) as run:
        assert run.stdout.readline() == "asleep\n"
        os.kill(run.pid, signal.SIGSTOP)
        try:
            yield run
        finally:
            run.kill()


def test_a_stopped_worker_is_taken_over_within_seconds_and_writes_nothing_when_it_wakes(
    mysql_address, tmp_path
):
    sink = MysqlSink(mysql_address)
    harness = ToyHarness(Toy, tmp_path, part_rows=100, sink=sink).given_model(Obedient())
    harness.notes(notes(30))
    with sleeper(tmp_path, sink) as run:
        time.sleep(1.2)
        started = time.monotonic()
        lease = sink.ledger().acquire("mood", "toy", OTHER, 50)
        seconds = time.monotonic() - started
        sink.ledger().release(lease, 51)
        ended = harness.infer()
        before = harness.rows()
        os.kill(run.pid, signal.SIGCONT)
        told, _ = run.communicate("\n", timeout=60)
    assert ended.run.state is RunState.DONE
    assert ended.totals.written == 30
    # Five for the lock that it waits for; the sleeper's session would last for eight hours.
    assert seconds < 20
    assert told == "fenced\n"
    assert harness.rows() == before
    assert len(before) == 30


@pytest.fixture
def impatient(monkeypatch):
    """Locks are waited for one second; nobody's session ends by itself."""
    quick = mysql_address._SESSION.replace(
        "wait_timeout = 30, innodb_lock_wait_timeout = 5",
        "wait_timeout = 600, innodb_lock_wait_timeout = 1",
    )
    monkeypatch.setattr(mysql_address, "_SESSION", quick)


@contextmanager
def inside_a_transaction(sink, run):
    """A worker that moved its part and holds the row."""
    session = MysqlPartSession(sink.address, Mood.table, run)
    try:
        connection = session._connected()
        connection.begin()
        session._move(connection, commit(0, 2, rows(1, 2)))
        yield connection
    finally:
        session.close()


def orphan(sink):
    """Nobody has given a sign of life for long."""
    execute(sink, "UPDATE mlbatch_lease SET heartbeat_at = '2020-01-01'")


def execute(sink, statement):
    with closing(connect(sink.address)) as connection:
        connection.query(statement)


def lives(connection):
    try:
        return scalar(connection, "SELECT 1") == 1
    except mysql_address.pymysql.err.Error:
        return False


def test_what_an_orphan_holds_is_ended(mysql_address, impatient):
    sink = MysqlSink(mysql_address)
    run, ledger, _ = begin(sink)
    with inside_a_transaction(sink, run) as connection:
        orphan(sink)
        assert ledger.acquire("mood", "toy", OTHER, 50).epoch == 50
        assert not lives(connection)
    with closing(connect(sink.address)) as connection:
        assert scalar(connection, "SELECT COUNT(*) FROM mlbatch_connection") == 0
        assert scalar(connection, "SELECT epoch FROM mlbatch_part") == 50


@pytest.mark.parametrize(
    "other",
    [
        "server = 'another:3306:1'",
        "connection_id = connection_id + 1000",
        "user_name = 'somebody'",
        "client = '192.0.2.1:1'",
        "token = 'not the one it holds'",
        "connected_at = '2999-01-01'",
    ],
)
def test_a_connection_that_is_not_surely_the_recorded_one_is_left_alone(
    mysql_address, impatient, other
):
    sink = MysqlSink(mysql_address)
    run, ledger, _ = begin(sink)
    with inside_a_transaction(sink, run) as connection:
        orphan(sink)
        execute(sink, f"UPDATE mlbatch_connection SET {other}")
        with pytest.raises(TemporaryError, match="1205"):
            ledger.acquire("mood", "toy", OTHER, 50)
        assert lives(connection)
        connection.rollback()
    assert ledger.acquire("mood", "toy", OTHER, 50).epoch == 50


def test_the_connections_of_a_live_owner_are_left_alone(mysql_address, impatient):
    sink = MysqlSink(mysql_address)
    run, ledger, _ = begin(sink)
    with inside_a_transaction(sink, run) as connection, closing(connect(sink.address)) as other:
        # Somebody looks at the lease: whoever wants it waits in vain, though its owner is alive.
        other.begin()
        other.query("SELECT * FROM mlbatch_lease FOR UPDATE")
        with pytest.raises(TemporaryError, match="1205"):
            ledger.acquire("mood", "toy", OTHER, 50)
        assert lives(connection)
    with pytest.raises(Busy):
        ledger.acquire("mood", "toy", OTHER, 50)


@pytest.mark.parametrize("whose", [{"output_table": "other"}, {"generation": "g2"}])
def test_other_tables_are_left_alone(mysql_address, impatient, whose):
    sink = MysqlSink(mysql_address)
    run, ledger, _ = begin(sink)
    other = replace(run, new=replace(run.new, **whose))
    with inside_a_transaction(sink, other) as connection:
        orphan(sink)
        with pytest.raises(TemporaryError, match="1205"):
            ledger.acquire("mood", "toy", OTHER, 50)
        assert lives(connection)
        connection.rollback()
        # And it stays on record, for whoever takes that table over.
        ledger.acquire("mood", "toy", OTHER, 50)
        assert scalar(connection, "SELECT COUNT(*) FROM mlbatch_connection") == 1


@pytest.mark.parametrize(("generation", "orphaned"), [("g1", "%"), ("g2", "mood")])
def test_whoever_waits_for_one_generation_ends_no_connection_of_another_or_of_a_live_owner(
    mysql_address, impatient, generation, orphaned
):
    """The second generation is wanted: the worker is of the first, or its own owner is alive."""
    sink = MysqlSink(mysql_address)
    run, ledger, _ = begin(sink)
    ledger.acquire("mood", "toy", ME, 77, "g2")
    execute(
        sink,
        "UPDATE mlbatch_lease SET heartbeat_at = '2020-01-01'"
        f" WHERE output_table LIKE '{orphaned}'",
    )
    worker = replace(run, new=replace(run.new, generation=generation))
    with inside_a_transaction(sink, worker) as connection, closing(connect(sink.address)) as other:
        other.begin()
        other.query("SELECT * FROM mlbatch_lease WHERE output_table = 'mood__g2' FOR UPDATE")
        with pytest.raises(TemporaryError, match="1205"):
            ledger.acquire("mood", "toy", OTHER, 50, "g2")
        assert lives(connection)
