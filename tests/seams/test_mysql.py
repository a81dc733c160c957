"""What only MySQL can do: ways of writing, lost connections, refused log-ins, hostile servers."""

from __future__ import annotations

import string
import threading
from contextlib import closing
from dataclasses import replace
from datetime import datetime

import pyarrow as pa
import pymysql
import pytest
from bad_inputs import ACCEPTED, bad_input
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_sink import ME, NOON, TABLE, begin, commit, ids, new_run, rows, snapshot

from mlbatch.connectors.mysql import statements
from mlbatch.connectors.mysql.address import (
    LoadingConnection,
    connect,
    connect_to_writer,
    scalar,
)
from mlbatch.connectors.mysql.faults import ROLLED_BACK, UNDONE
from mlbatch.connectors.mysql.session import REDO_SECONDS, MysqlPartSession
from mlbatch.connectors.mysql.sink import MysqlSink
from mlbatch.connectors.mysql.statements import Way, delete, load, upsert
from mlbatch.connectors.mysql.text import load_text, value_lists
from mlbatch.connectors.password import FixedPassword
from mlbatch.errors import Fenced, RunFailed, SettingsError, TemporaryError

TEXTS = pa.schema([("k", pa.int64()), ("t", pa.string()), ("f", pa.float64()), ("d", pa.date32())])


@pytest.fixture
def sink(mysql_address):
    made = MysqlSink(mysql_address)
    made.ledger()
    made.prepare(TABLE)
    return made


@pytest.fixture
def run(sink):
    return begin(sink, rows=1_000)[0]


def execute(address, statement):
    with closing(connect(address)) as connection:
        connection.query(statement)


def test_the_table_is_documented_and_compares_bytes(sink, mysql_address):
    with closing(connect(mysql_address)) as connection:
        ddl = connection.cursor()
        ddl.execute('SHOW CREATE TABLE "mood"')
        text = ddl.fetchone()[1]
    for column in TABLE.all_columns:
        assert column.description.splitlines()[0][:20] in text
    assert "InnoDB" in text
    assert "nopad_bin" in text or "0900_bin" in text


@bad_input(102, outcome=ACCEPTED)
def test_keys_that_differ_in_case_accent_or_space_are_different(mysql_address):
    from mlbatch.declaration import Column

    name = Column("name", pa.string(), "x")
    table = replace(TABLE, name="names", key=("name",), columns=(name, *TABLE.columns[1:]))
    sink = MysqlSink(mysql_address)
    ledger = sink.ledger()
    sink.prepare(table)
    lease = ledger.acquire("names", "toy", ME, 11)
    run = ledger.attempt(ledger.create(lease, new_run(output_table="names")), "a")
    run = ledger.adopt(run, snapshot(rows=8))
    different = sorted(["a", "A", "á", "a ", "は", "ば", "🍜", "🍣"])
    base = {"label": "good", "score": 0.5, "model_version": 1, "run_no": 1,
            "src_updated_at": NOON.replace(tzinfo=None)}  # fmt: skip
    batch = pa.RecordBatch.from_pylist([base | {"name": n} for n in different], table.schema)
    with sink.session(table, run) as session:
        session.commit(commit(0, 8, batch))
    assert sorted(sink.rows(table).read_all()["name"].to_pylist()) == different


@bad_input(108, outcome=ACCEPTED)
def test_the_way_follows_server_settings_and_table(sink, mysql_address, mysql_admin):
    assert sink.prepare(TABLE) == "LOAD DATA LOCAL"
    assert replace(sink, address=replace(mysql_address, local_infile=False)).way(TABLE) is Way.ROWS
    execute(mysql_address, 'ALTER TABLE "mood" ADD COLUMN reviewed_by VARCHAR(20)')
    assert sink.way(TABLE) is Way.ROWS
    execute(mysql_address, 'ALTER TABLE "mood" DROP COLUMN reviewed_by')
    trigger = 'CREATE TRIGGER "t" BEFORE INSERT ON "mood" FOR EACH ROW SET NEW.run_no = NEW.run_no'
    execute(mysql_address, trigger)
    assert sink.way(TABLE) is Way.ROWS


def test_a_small_run_is_added_up_without_reading_the_others(sink, mysql_address):
    """And a run that is nearly the whole table is read straight, not by way of the index."""
    run, _, _ = begin(sink, rows=5_000)
    with sink.session(TABLE, run) as session:
        session.commit(commit(0, 4_990, rows(*range(4_990))))
        session.commit(commit(4_990, 5_000, rows(*range(2_000, 2_010), run_no=2)))
    with closing(connect(mysql_address)) as connection:
        execute(mysql_address, "ANALYZE TABLE mood")
        ways = []
        for run_no in (1, 2):
            with closing(connection.cursor()) as cursor:
                cursor.execute(f"EXPLAIN {statements.checksum(TABLE)}", (run_no,))
                columns = [column[0] for column in cursor.description]
                ways.append(dict(zip(columns, cursor.fetchone(), strict=True)))
    assert [way["key"] for way in ways] == [None, "mood_run_no"]
    assert int(ways[1]["rows"]) < 100
    assert sink.checksum(TABLE, 2)[0] == 10


def test_a_column_that_is_not_ours_keeps_its_value(sink, run, mysql_address):
    with sink.session(TABLE, run) as session:
        session.commit(commit(0, 1, rows(1)))
    execute(mysql_address, 'ALTER TABLE "mood" ADD COLUMN reviewed_by VARCHAR(20)')
    execute(mysql_address, "UPDATE mood SET reviewed_by = 'Hanako'")
    with sink.session(TABLE, run) as session:
        session.commit(commit(1, 2, rows(1, label="bad")))
    with closing(connect(mysql_address)) as connection:
        assert scalar(connection, "SELECT reviewed_by FROM mood WHERE label = 'bad'") == "Hanako"


class Unlucky:
    """Opens connections that fail once, at a chosen point of a transaction."""

    def __init__(self, when):
        self.when, self.opened, self.failed = when, 0, False

    def __call__(self, address):
        connection = connect_to_writer(address)
        self.opened += 1
        real_query, real_commit, real_begin = (
            connection.query, connection.commit, connection.begin,
        )  # fmt: skip

        def fail(point):
            if self.when == point and not self.failed:
                self.failed = True
                connection._force_close()
                raise pymysql.err.OperationalError(2013, "Lost connection during query")

        def query(sql, *rest):
            fail("before the rows" if "INTO TABLE" in str(sql) else "")
            answer = real_query(sql, *rest)
            fail("after the rows" if "INTO TABLE" in str(sql) else "")
            return answer

        def commit_now():
            fail("before the commit")
            real_commit()
            fail("after the commit")

        def begin():
            fail("at the beginning")
            real_begin()

        connection.query, connection.commit, connection.begin = query, commit_now, begin
        return connection


POINTS = [
    "at the beginning", "before the rows", "after the rows", "before the commit", "after the commit"
]  # fmt: skip


@pytest.mark.parametrize("point", POINTS)
def test_a_lost_connection_loses_nothing_and_repeats_nothing(sink, run, mysql_address, point):
    execute(mysql_address, 'ALTER TABLE "mood" ADD COLUMN n INT NOT NULL DEFAULT 0')
    witness = 'CREATE TRIGGER "w" BEFORE INSERT ON "mood" FOR EACH ROW SET NEW.n = NEW.n + 1'
    execute(mysql_address, witness)
    unlucky = Unlucky(point)
    session = MysqlPartSession(mysql_address, TABLE, run, Way.LOAD, open_connection=unlucky)
    session.commit(commit(0, 2, rows(1, 2)))
    session.commit(commit(2, 4, rows(3, 4)))
    state = session.position(0)
    session.close()
    assert unlucky.failed
    assert unlucky.opened == 2
    assert (state.done, state.written, state.checksum) == (4, 4, 14)
    assert ids(sink) == [1, 2, 3, 4]
    with closing(connect(mysql_address)) as connection:
        assert scalar(connection, "SELECT SUM(n) FROM mood") == 4


@pytest.mark.parametrize("applied", [False, True])
@pytest.mark.parametrize("number", sorted(ROLLED_BACK | UNDONE))
def test_a_commit_that_fails_by_any_number_is_looked_up(sink, run, mysql_address, number, applied):
    """Whatever the server says of a COMMIT, the position says what became of the batch."""

    class Failing(Unlucky):
        def __call__(self, address):
            connection = super().__call__(address)
            real_commit = connection.commit

            def commit_once():
                if self.failed:
                    return real_commit()
                self.failed = True
                (real_commit if applied else connection.rollback)()
                raise pymysql.err.OperationalError(number, "said by the server")

            connection.commit = commit_once
            return connection

    failing = Failing("never")
    session = MysqlPartSession(mysql_address, TABLE, run, Way.ROWS, open_connection=failing)
    session.commit(commit(0, 2, rows(1, 2)))
    assert (session.position(0).written, failing.opened) == (2, 2)
    session.close()
    assert ids(sink) == [1, 2]


def test_a_position_waits_for_what_an_older_connection_still_does(sink, run, mysql_address):
    with closing(connect(mysql_address)) as ghost:
        ghost.begin()
        ghost.query("UPDATE mlbatch_part SET done = 2")
        timer = threading.Timer(0.5, ghost.commit)
        timer.start()
        session = MysqlPartSession(mysql_address, TABLE, run, Way.LOAD)
        assert session.position(0).done == 2
        session.close()
        timer.join()


def test_a_batch_that_gets_no_answer_is_tried_elsewhere_in_time(run, mysql_address):
    with closing(MysqlPartSession(mysql_address, TABLE, run)) as session:
        session.position(0)
        assert 2 * session._connection._read_timeout < REDO_SECONDS
        assert 2 * session._connection._write_timeout < REDO_SECONDS


def test_a_take_over_during_the_outage_is_noticed(sink, run, mysql_address):
    class TakenOver(Unlucky):
        def __call__(self, address):
            if self.opened:
                sink.ledger().acquire("mood", "toy", ME, 99)
            return super().__call__(address)

    session = MysqlPartSession(
        mysql_address, TABLE, run, Way.LOAD, open_connection=TakenOver("before the commit")
    )
    with pytest.raises(Fenced):
        session.commit(commit(0, 2, rows(1, 2)))
    assert ids(sink) == []


def test_a_server_that_stays_a_reader_is_temporary_in_its_own_words(run, sink, monkeypatch):
    monkeypatch.setattr("mlbatch.connectors.mysql.session.REDO_SECONDS", 0.5)

    def demoted(address):
        raise TemporaryError(f"{address} is a reader", hint="name the writer endpoint")

    session = MysqlPartSession(sink.address, TABLE, run, Way.LOAD, open_connection=demoted)
    with pytest.raises(TemporaryError, match="is a reader") as caught:
        session.commit(commit(0, 2, rows(1, 2)))
    assert caught.value.hint == "name the writer endpoint"


def test_a_bad_value_undoes_the_batch_by_either_way(sink, run, mysql_address):
    execute(mysql_address, 'ALTER TABLE "mood" MODIFY label VARCHAR(2) NOT NULL')
    for way in Way:
        session = MysqlPartSession(mysql_address, TABLE, run, way)
        with pytest.raises(RunFailed, match="label"):
            session.commit(commit(0, 2, rows(1, 2)))
        assert session.position(0).done == 0
        session.close()
    assert ids(sink) == []


def test_a_value_that_would_be_rounded_is_refused_by_either_way(sink, run, mysql_address):
    execute(mysql_address, 'ALTER TABLE "mood" MODIFY score DECIMAL(3, 1) NOT NULL')
    batch = rows(1, 2).set_column(2, "score", pa.array([0.55, 0.25]))
    for way in Way:
        session = MysqlPartSession(mysql_address, TABLE, run, way)
        with pytest.raises(RunFailed, match="score"):
            session.commit(commit(0, 2, batch))
        assert session.position(0).done == 0
        session.close()
    assert ids(sink) == []


def test_a_dropped_table_is_named(sink, run, mysql_address):
    execute(mysql_address, 'DROP TABLE "mood"')
    session = MysqlPartSession(mysql_address, TABLE, run, Way.LOAD)
    with pytest.raises(RunFailed, match=r"mood' doesn't exist"):
        session.commit(commit(0, 1, rows(1)))


def test_a_wrong_password_is_a_setting(mysql_address):
    wrong = replace(mysql_address, user="nobody", password=FixedPassword("sesame"))
    with pytest.raises(SettingsError) as caught:
        MysqlSink(wrong).ledger().runs()
    assert "nobody" in caught.value.message
    assert "sesame" not in caught.value.message + str(caught.value.hint) + repr(wrong)


def test_a_missing_database_is_a_setting(mysql_address):
    with pytest.raises(SettingsError, match="nowhere"):
        MysqlSink(replace(mysql_address, database="nowhere")).ledger().runs()


def test_a_dead_server_is_temporary(mysql_address, unused_tcp_port):
    with pytest.raises(TemporaryError, match="does not answer"):
        MysqlSink(replace(mysql_address, port=unused_tcp_port)).ledger().runs()


def test_a_server_without_tls_is_refused_when_tls_is_wanted(mysql_address):
    with pytest.raises(SettingsError):
        MysqlSink(replace(mysql_address, verify_tls=True)).ledger().runs()


def test_the_server_never_gets_a_file(mysql_address, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("1\n")
    execute(mysql_address, "CREATE TABLE loot (line TEXT)")
    with closing(connect(mysql_address)) as connection:
        assert isinstance(connection, LoadingConnection)
        connection.query(f"LOAD DATA LOCAL INFILE '{secret}' INTO TABLE loot")
        assert scalar(connection, "SELECT COUNT(*) FROM loot") == 0


@pytest.fixture(scope="module")
def texts_table(mysql_admin):
    address = replace(mysql_admin, database="mysql")
    with closing(connect(address)) as connection:
        connection.query("CREATE DATABASE IF NOT EXISTS mlbatch_texts CHARACTER SET utf8mb4")
    address = replace(mysql_admin, database="mlbatch_texts")
    with closing(connect(address)) as connection:
        connection.query("DROP TABLE IF EXISTS texts")
        connection.query(
            "CREATE TABLE texts (k BIGINT PRIMARY KEY, t LONGTEXT, f DOUBLE, d DATE)"
            " CHARACTER SET utf8mb4"
        )
        yield connection


TRICKY = st.text(
    alphabet=st.one_of(
        st.sampled_from("\\'\"`\t\n\r\0\x1aN,;%_ $" + string.ascii_letters),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=40,
)
ROWS = st.lists(
    st.tuples(
        st.one_of(st.none(), TRICKY),
        st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False)),
        st.one_of(st.none(), st.dates(min_value=datetime(1000, 1, 1).date())),
    ),
    min_size=1,
    max_size=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=ROWS)
def test_every_value_arrives_as_it_was_by_either_way(texts_table, values):
    made = [{"k": k, "t": t, "f": f, "d": d} for k, (t, f, d) in enumerate(values)]
    batch = pa.RecordBatch.from_pylist(made, schema=TEXTS)
    table = _Bare()
    for way in Way:
        texts_table.query("DELETE FROM texts")
        if way is Way.LOAD:
            texts_table.load_data = load_text(batch)
            texts_table.query(load(table))
        else:
            for part in value_lists(batch, longest=60):
                texts_table.query(upsert(table, part))
        with closing(texts_table.cursor()) as cursor:
            cursor.execute("SELECT k, t, f, d FROM texts ORDER BY k")
            found = [dict(zip("ktfd", row, strict=True)) for row in cursor.fetchall()]
        assert found == made
    for part in value_lists(batch.select(["k"])):
        texts_table.query(delete(table, part))
    assert scalar(texts_table, "SELECT COUNT(*) FROM texts") == 0


class _Bare:
    name, key, schema = "texts", ("k",), TEXTS


def test_long_lists_are_cut_below_the_limit():
    batch = pa.record_batch({"t": ["x" * 100] * 50})
    parts = list(value_lists(batch, longest=1_000))
    assert all(len(part) <= 1_000 for part in parts)
    assert "".join(parts).count("x" * 100) == 50
    assert list(value_lists(batch.slice(0, 0))) == []
    assert load_text(batch.slice(0, 0)) == b""
