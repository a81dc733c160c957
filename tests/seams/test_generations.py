"""One behaviour suite for every sink: two generations change names, whatever is killed meanwhile."""

from __future__ import annotations

import os
import secrets
import signal
import sqlite3
import threading
import time
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime

import pyarrow as pa
import pytest
from sqlalchemy import inspect
from toy.job import Mood

from mlbatch import failpoint
from mlbatch.connectors.database import lease_store
from mlbatch.connectors.database.generation_store import begin_switch
from mlbatch.connectors.mysql import address as mysql_settings
from mlbatch.connectors.mysql import sink as mysql_sink
from mlbatch.connectors.mysql import swapping
from mlbatch.connectors.mysql.address import connect
from mlbatch.connectors.mysql.session import MysqlPartSession
from mlbatch.connectors.mysql.sink import MysqlDatabase, MysqlSink
from mlbatch.connectors.password import FixedPassword
from mlbatch.connectors.sqlite import SqliteSink
from mlbatch.devstack.mariadb import WRITER_RIGHTS
from mlbatch.errors import Busy, Fenced, RunFailed, SettingsError, TemporaryError
from mlbatch.generation import Active, GenerationState
from mlbatch.ledger import BatchCommit, ModelPin, NewRun, Owner, RunKind, RunState
from mlbatch.snapshot import Part, Snapshot
from mlbatch.window import Watermark

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
ME = Owner("me", "elsewhere", 1, "")
TABLE = Mood.table
BESIDE = replace(TABLE, name="mood__g2")


@pytest.fixture(params=["sqlite", "mysql"])
def sink(request, tmp_path):
    if request.param == "sqlite":
        return SqliteSink(tmp_path / "outputs.db")
    return MysqlSink(request.getfixturevalue("mysql_address"))


def begun(sink, lease, run_id, version):
    """A run in WRITING, with one part of two rows."""
    pin = ModelPin("toy", version, "d")
    new = NewRun(
        run_id, "toy", "mood", lease.generation, RunKind.BACKFILL, run_id, pin, "q", "SELECT 1 AS a",
        "c", "0", None, NOON,
    )  # fmt: skip
    ledger = sink.ledger()
    run = ledger.attempt(ledger.create(lease, new), "a")
    run = ledger.adopt(run, Snapshot("file:///", (Part(0, "file:///p", 2, 10, "e"),), NOON))
    return ledger.advance(run, RunState.WRITING)


def batch(run, low=0, high=2):
    rows = [
        {"note_id": n, "label": "good", "score": 0.5, "model_version": run.new.model.version,
         "run_no": run.run_no, "src_updated_at": NOON.replace(tzinfo=None)}
        for n in range(low, high)
    ]  # fmt: skip
    upserts = pa.RecordBatch.from_pylist(rows, schema=TABLE.schema)
    none = pa.record_batch({"note_id": pa.array([], pa.int64())})
    return BatchCommit(0, low, high, upserts, none, 0, 0, (), 7)


def finished(sink, lease, table, run_id, version):
    sink.prepare(table)
    run = begun(sink, lease, run_id, version)
    with sink.session(table, run) as session:
        session.commit(batch(run))
    ledger = sink.ledger()
    ledger.finish(ledger.advance(run, RunState.VERIFYING), Watermark(NOON), lease.epoch + 1)


@pytest.fixture
def ready(sink):
    return prepared(sink)


def prepared(sink):
    """The table of model 1 serves, one of model 2 stands beside it, and nobody holds a lease."""
    ledger = sink.ledger()
    finished(sink, ledger.acquire("mood", "toy", ME, 11), TABLE, "r1", 1)
    lease = ledger.acquire("mood", "toy", ME, 21, "g2")
    ledger.build(lease, 2)
    finished(sink, lease, BESIDE, "r2", 2)
    return sink


def both(sink, generation="g2", epoch=100):
    ledger = sink.ledger()
    return (
        ledger.acquire("mood", "toy", ME, epoch),
        ledger.acquire("mood", "toy", ME, epoch + 1, generation),
    )


def free(sink, leases):
    for lease in leases:
        sink.ledger().release(lease, lease.epoch + 10)


def versions(sink, name="mood"):
    return set(sink.rows(replace(TABLE, name=name)).read_all()["model_version"].to_pylist())


def states(sink):
    return {g.name: (g.state, g.replaced) for g in sink.ledger().generations("mood")}


def test_two_generations_change_names_and_back(ready):
    leases = both(ready)
    ready.swap(*leases)
    free(ready, leases)
    assert (versions(ready), versions(ready, "mood__g1")) == ({2}, {1})
    assert not ready.holds("mood__g2")
    assert ready.ledger().active("mood") == Active("g2", 2, "r2")
    assert states(ready) == {"g2": (GenerationState.SERVED, "g1")}

    leases = both(ready, "g1", 300)
    assert (leases[0].generation, leases[1].table) == ("g2", "mood__g1")
    ready.swap(*leases)
    assert (versions(ready), versions(ready, "mood__g2")) == ({1}, {2})
    assert ready.ledger().active("mood") == Active("g1", 1, "r1")
    assert states(ready) == {"g2": (GenerationState.ROLLED_BACK, "g1")}


def test_a_switch_without_both_leases_changes_nothing(ready):
    old, new = both(ready)
    for leases in ((replace(old, epoch=5), new), (old, replace(new, epoch=5)), (old, old)):
        with pytest.raises(Fenced):
            ready.swap(*leases)
    assert (versions(ready), ready.ledger().serving("mood")) == ({1}, "g1")
    assert ready.ledger().active("mood").switching is None


def test_a_ledger_that_never_said_what_serves_is_told(ready):
    with ready.ledger()._database.writing() as connection:
        connection.exec_driver_sql("DELETE FROM mlbatch_active")
    ready.swap(*both(ready))
    assert ready.ledger().active("mood") == Active("g2", 2, "r2")
    assert states(ready)["g2"] == (GenerationState.SERVED, "g1")


@pytest.mark.parametrize("place", failpoint.SWITCH_PLACES[1:])
def test_a_kill_at_any_step_is_mended_by_whoever_comes_next(ready, place):
    child = os.fork()
    if not child:
        try:
            failpoint.arm(f"{place}:kill:1")
            ready.swap(*both(ready))
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    half_done = isinstance(ready, MysqlSink) and place != "after_active"
    if half_done:
        with pytest.raises(TemporaryError, match="half done"):
            ready.ledger().acquire("mood", "toy", ME, 200)
    for _ in range(2):
        ready.settle("mood")
    through = place == "after_active" or (half_done and place == "after_rename")
    active = ready.ledger().active("mood")
    assert active == (Active("g2", 2, "r2") if through else Active("g1", 1, "r1"))
    assert versions(ready) == ({2} if through else {1})
    assert ready.ledger().acquire("mood", "toy", ME, 200).generation == active.generation
    if not through:
        ready.swap(*both(ready, epoch=400))
    assert (versions(ready), versions(ready, "mood__g1")) == ({2}, {1})


def test_a_sleeper_of_the_old_generation_writes_nothing_into_the_new_one(ready):
    lease = ready.ledger().acquire("mood", "toy", ME, 31)
    run = begun(ready, lease, "r3", 1)
    with ready.session(TABLE, run) as asleep:
        asleep.commit(batch(run, 0, 1))
        ready.swap(*both(ready))
        with pytest.raises(Fenced):
            asleep.commit(batch(run, 1, 2))
    assert versions(ready) == {2}
    # Its run is taken up where it left off, on the way back.
    assert ready.ledger().runs("mood", "g1")[0].state is RunState.WRITING


def test_a_lease_of_either_generation_is_free_for_others_once_it_is_given_back(ready):
    free(ready, both(ready))
    other = replace(ME, owner_id="other")
    for generation in (None, "g2"):
        assert ready.ledger().acquire("mood", "toy", other, 200, generation).owner == other


def test_what_never_served_is_dropped(ready):
    ledger = ready.ledger()
    old, new = both(ready)
    with pytest.raises(Fenced):
        ledger.build(new, 3)
    ledger.build(new, 2)
    ledger.abandon(new)
    ready.drop(new)
    ready.drop(old)
    assert (ready.holds("mood"), ready.holds("mood__g2")) == (True, False)
    assert states(ready) == {"g2": (GenerationState.ABANDONED, None)}


def test_indexes_for_readers_come_along(sink):
    sink.prepare(TABLE)
    database = sink.ledger()._database
    with database.writing() as connection:
        connection.exec_driver_sql("CREATE INDEX by_label ON mood (label, score)")
    for name in ("mood__g2", "mood__g3"):
        for _ in range(2):
            sink.prepare(replace(TABLE, name=name), "mood")
        with database.reading() as connection:
            found = inspect(connection).get_indexes(name)
        assert sorted(index["column_names"] for index in found) == [["label", "score"], ["run_no"]]
        assert not any(index["unique"] for index in found)
    sink.prepare(replace(TABLE, name="mood__g4"), "nowhere")
    assert sink.holds("mood__g4")


def test_a_generation_of_a_table_without_an_index_on_its_runs_gets_one(sink):
    sink.prepare(TABLE)
    database = sink.ledger()._database
    with database.writing() as connection:
        on = " ON mood" if connection.dialect.name != "sqlite" else ""
        connection.exec_driver_sql(f"DROP INDEX mood_run_no{on}")
    sink.prepare(replace(TABLE, name="mood__g2"), "mood")
    with database.reading() as connection:
        (index,) = inspect(connection).get_indexes("mood__g2")
        assert not inspect(connection).get_indexes("mood")
    assert index["column_names"] == ["run_no"]


def test_views_of_the_declared_name_follow_the_name(tmp_path):
    sink = prepared(SqliteSink(tmp_path / "outputs.db"))
    with closing(sqlite3.connect(sink.path)) as connection:
        connection.execute("CREATE VIEW seen AS SELECT model_version FROM mood")
    sink.swap(*both(sink))
    with closing(sqlite3.connect(sink.path)) as connection:
        assert set(connection.execute("SELECT model_version FROM seen")) == {(2,)}


@pytest.fixture
def server(request, monkeypatch):
    """A sink on MariaDB, whose sleepers and readers are waited for by the second."""
    short = mysql_settings._SESSION.replace("wait_timeout = 30", "wait_timeout = 3")
    monkeypatch.setattr(
        mysql_settings, "_SESSION", short.replace("lock_wait_timeout = 5", "lock_wait_timeout = 1")
    )
    monkeypatch.setattr(swapping, "RENAME_SECONDS", 1)
    monkeypatch.setattr(swapping, "LOCK_SECONDS", 1)
    return prepared(MysqlSink(request.getfixturevalue("mysql_address")))


def test_a_worker_between_its_move_and_its_rows_writes_into_no_table(server, monkeypatch):
    """It holds its part's row, so the take-over ends its session."""
    run = begun(server, server.ledger().acquire("mood", "toy", ME, 31), "r3", 1)
    asleep, woken, write = threading.Event(), threading.Event(), MysqlPartSession._write

    def sleepy(session, connection, batch):
        asleep.set()
        assert woken.wait(60)
        write(session, connection, batch)

    monkeypatch.setattr(MysqlPartSession, "_write", sleepy)
    ended = []

    def work():
        with server.session(TABLE, run) as session:
            try:
                session.commit(batch(run))
            except Fenced as fenced:
                ended.append(fenced)

    worker = threading.Thread(target=work)
    worker.start()
    assert asleep.wait(30)
    server.swap(*both(server))
    woken.set()
    worker.join(60)
    assert [str(fenced) for fenced in ended] == [
        "part 0 of run r3 was taken over by another process"
    ]
    assert (versions(server), versions(server, "mood__g1")) == ({2}, {1})


def patiently(work):
    for _ in range(30):
        try:
            return work()
        except TemporaryError:
            time.sleep(0.2)
    return work()


def test_readers_are_waited_for_and_then_nothing_has_changed(server, monkeypatch):
    monkeypatch.setattr(swapping, "RENAME_ATTEMPTS", 2)
    leases = both(server)
    with closing(connect(server.address)) as reader:
        reader.query("SET SESSION wait_timeout = 60")
        reader.begin()
        reader.query("SELECT COUNT(*) FROM mood")
        with pytest.raises(TemporaryError, match="Lock wait timeout"):
            server.swap(*leases)
        assert server.ledger().active("mood") == Active("g1", 1, "r1")
        reader.commit()
    server.swap(*leases)
    assert versions(server) == {2}


def test_a_switch_between_the_look_and_the_lease_is_noticed(server, monkeypatch):
    """Else the lease would be that of a generation that no longer serves, under the declared name."""
    make_free = lease_store._make_free

    def after_a_switch(*given):
        monkeypatch.setattr(lease_store, "_make_free", make_free)
        leases = both(server)
        server.swap(*leases)
        free(server, leases)
        make_free(*given)

    monkeypatch.setattr(lease_store, "_make_free", after_a_switch)
    with pytest.raises(Fenced, match="the lease of mood was taken over"):
        server.ledger().acquire("mood", "toy", ME, 500)
    assert server.ledger().acquire("mood", "toy", ME, 501).generation == "g2"


def half_done(server, *renamed):
    old, new = both(server)
    with MysqlDatabase(server.address).writing() as connection:
        begin_switch(connection, old, new)
    with closing(connect(server.address)) as connection:
        for statement in renamed:
            connection.query(statement)


def test_a_rename_that_a_crash_cut_in_two_is_finished(server):
    half_done(server, "RENAME TABLE mood TO mood__g1")
    server.settle("mood")
    assert server.ledger().active("mood") == Active("g2", 2, "r2")
    assert (versions(server), versions(server, "mood__g1")) == ({2}, {1})


def test_names_that_nobody_can_explain_are_left_alone(server):
    half_done(server, "DROP TABLE mood__g2")
    with pytest.raises(RunFailed, match="of mood, mood__g1 and mood__g2 there is: mood"):
        server.settle("mood")
    assert server.ledger().active("mood").switching == "g2"


def test_a_switch_that_is_under_way_is_left_to_its_process(server):
    half_done(server)
    with swapping._alone(server.address, "mood"), pytest.raises(Busy, match="is switching mood"):
        server.settle("mood")
    server.settle("mood")
    assert server.ledger().active("mood") == Active("g1", 1, "r1")


def test_a_rename_of_a_lost_connection_comes_no_more(server, monkeypatch):
    """Whoever holds the server's lock may judge by the names: the other's rename cannot follow."""
    rename, leases = swapping._rename_patiently, both(server)

    def late(connection, pairs):
        with closing(connect(server.address)) as other:
            other.query(f"KILL {connection.thread_id()}")
        monkeypatch.setattr(swapping, "_rename_patiently", rename)
        patiently(lambda: server.settle("mood"))
        rename(connection, pairs)

    monkeypatch.setattr(swapping, "_rename_patiently", late)
    with pytest.raises(TemporaryError):
        server.swap(*leases)
    assert server.ledger().active("mood") == Active("g1", 1, "r1")
    assert (versions(server), server.holds("mood__g2")) == ({1}, True)


def test_who_may_not_rename_is_told_before_all_work(server):
    address = server.address
    user = f"w{secrets.token_hex(4)}"
    writer = MysqlSink(replace(address, user=user, password=FixedPassword("sesame")))
    with closing(connect(address)) as connection:
        connection.query(f"CREATE USER '{user}'@'%' IDENTIFIED BY 'sesame'")
        connection.query(f"GRANT {WRITER_RIGHTS} ON {address.database}.* TO '{user}'@'%'")
    beside = replace(TABLE, name="mood__g3")
    for _ in range(2):
        with pytest.raises(SettingsError, match="DROP command denied") as caught:
            writer.prepare(beside, "mood")
        assert "deploy/mysql holds the statements" in caught.value.hint
        assert not writer.holds("mood__g3")
    with pytest.raises(SettingsError, match="DROP command denied"):
        writer.swap(*both(writer))
    assert writer.ledger().active("mood") == Active("g1", 1, "r1")
    with closing(connect(address)) as connection:
        connection.query(f"GRANT DROP ON {address.database}.* TO '{user}'@'%'")
    # The server looks at rights when a connection begins, as in the next command's process.
    mysql_sink._engine.cache_clear()
    writer.prepare(beside, "mood")
    leases = both(writer, epoch=500)
    writer.swap(*leases)
    assert versions(writer) == {2}
