"""One behaviour suite for every sink: SQLite, and MariaDB by each way of writing."""

from __future__ import annotations

import pickle
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
import pytest
from sqlalchemy import insert, select
from toy.job import Mood

from mlbatch.checksum import checksum
from mlbatch.connectors.database.liveness import is_surely_dead, this_process
from mlbatch.connectors.database.tables import RUN
from mlbatch.connectors.mysql.sink import MysqlDatabase, MysqlSink
from mlbatch.connectors.sqlite import SqliteDatabase, SqliteSink
from mlbatch.declaration import Column
from mlbatch.errors import Busy, DeclarationError, Fenced, RunFailed, TemporaryError
from mlbatch.generation import Active
from mlbatch.keys import MISSING
from mlbatch.ledger import (
    BatchCommit,
    ModelPin,
    NewRun,
    Owner,
    Progress,
    QuarantinedRow,
    RunKind,
    RunState,
)
from mlbatch.snapshot import Part, Snapshot
from mlbatch.window import Watermark

NOON = datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)
ME = Owner("me", "elsewhere", 1, "")
TABLE = Mood.table


def new_run(run_id="r1", **changed):
    values = {
        "run_id": run_id, "job": "toy", "output_table": "mood", "generation": "g1",
        "kind": RunKind.BACKFILL, "slot": run_id, "model": ModelPin("toy", 1, "d"),
        "query_digest": "q", "query": "SELECT 1 AS a", "job_code_digest": "c",
        "code_version": "0", "watermark_low": None, "watermark_high": NOON,
    }  # fmt: skip
    return NewRun(**(values | changed))


def snapshot(rows=4, parts=1):
    made = tuple(Part(n, f"file:///p{n}", rows, 10, "e") for n in range(parts))
    return Snapshot("file:///", made, NOON)


def rows(*numbers, label="good", run_no=1):
    values = [
        {"note_id": n, "label": label, "score": 0.5, "model_version": 1, "run_no": run_no,
         "src_updated_at": NOON.replace(tzinfo=None)}
        for n in numbers
    ]  # fmt: skip
    return pa.RecordBatch.from_pylist(values, schema=TABLE.schema)


def keys(*numbers):
    return pa.record_batch({"note_id": pa.array(numbers, pa.int64())})


def commit(low, high, upserts, *, deletes=(), quarantined=(), filtered=0, checksum=7):
    deleted = high - low - upserts.num_rows - len(quarantined) - filtered
    return BatchCommit(
        0, low, high, upserts, keys(*deletes), deleted, filtered, tuple(quarantined), checksum
    )


@pytest.fixture(params=["sqlite", "mysql", "mysql-rows"])
def empty_sink(request, tmp_path):
    """A sink without any table."""
    if request.param == "sqlite":
        return SqliteSink(tmp_path / "deep" / "outputs.db")
    address = request.getfixturevalue("mysql_address")
    return MysqlSink(replace(address, local_infile=request.param != "mysql-rows"))


@pytest.fixture
def sink(empty_sink):
    empty_sink.ledger()
    empty_sink.prepare(TABLE)
    return empty_sink


def begin(sink, rows=4):
    """Make the tables; a run in WRITING with one part of so many rows, its ledger and its lease."""
    ledger = sink.ledger()
    sink.prepare(TABLE)
    lease = ledger.acquire("mood", "toy", ME, 11)
    run = ledger.attempt(ledger.create(lease, new_run()), "a1")
    run = ledger.advance(ledger.adopt(run, snapshot(rows=rows)), RunState.WRITING)
    return run, ledger, lease


@pytest.fixture
def writing(sink):
    """A run with one part of four rows, its ledger and its lease."""
    return begin(sink)


def ids(sink, **of):
    return sink.rows(TABLE, **of).read_all()["note_id"].to_pylist()


def test_a_run_comes_back_as_it_was_created(sink):
    ledger = sink.ledger()
    lease = ledger.acquire("mood", "toy", ME, 11)
    new = new_run(watermark_low=NOON)
    run = ledger.create(lease, new)
    assert (run.new, run.run_no, run.state, run.epoch) == (new, 1, RunState.CREATED, 11)
    assert ledger.runs() == ledger.runs("mood") == (run,)
    assert ledger.runs("other") == ()
    assert ledger.tracked(run, "t1").tracking_run_id == "t1"
    assert ledger.runs()[0].tracking_run_id == "t1"


def test_a_slot_is_tried_again_under_another_number(sink):
    ledger = sink.ledger()
    lease = ledger.acquire("mood", "toy", ME, 11)
    first = ledger.create(lease, new_run("r1", slot="day"))
    ledger.give_up(first, RunState.FAILED, "because", 12)
    lease = ledger.acquire("mood", "toy", ME, 13)
    second = ledger.create(lease, new_run("r2", slot="day"))
    assert second.run_no == 2
    assert [run.state for run in ledger.runs()] == [RunState.CREATED, RunState.FAILED]


def test_batches_commit_in_order(sink, writing):
    run, ledger, _ = writing
    with sink.session(TABLE, run) as session:
        session.commit(commit(0, 2, rows(1, 2)))
        session.commit(commit(2, 4, rows(1, label="bad"), deletes=(2,)))
        state = session.position(0)
    assert (state.done, state.written, state.deleted, state.checksum) == (4, 3, 1, 14)
    assert ids(sink) == [1]
    assert sink.rows(TABLE).read_all()["label"].to_pylist() == ["bad"]
    assert ledger.parts("r1")[0].is_complete
    parts = ledger.parts("r1")
    expected = sum(part.rows_expected for part in parts)
    assert ledger.progress("r1") == Progress(len(parts), expected, done=4)
    assert ledger.progress("none") == Progress()


def test_quarantined_rows_are_kept_and_lose_their_prediction(sink, writing):
    run, ledger, _ = writing
    bad = QuarantinedRow(1, "2", "x", "long " * 100)
    with sink.session(TABLE, run) as session:
        session.commit(commit(0, 2, rows(1, 2)))
        session.commit(commit(2, 3, rows(), deletes=(2,), quarantined=[bad]))
    (found,) = ledger.quarantined("r1", 10)
    assert (found.row_offset, found.key, found.reason, len(found.detail)) == (1, "2", "x", 255)
    assert ids(sink) == [1]


def test_all_keys_that_were_set_aside_come_page_by_page(sink, writing, monkeypatch):
    run, ledger, _ = writing
    monkeypatch.setattr("mlbatch.connectors.database.generation_store.PAGE_ROWS", 2)
    keys = ["1/a%2Fb", "", "k" * 300, "1/a%2Fb"]
    # The empty text of the last is no key.
    told = zip([*keys, ""], [*"xxxx", MISSING], strict=True)
    bad = [QuarantinedRow(row, key, reason, "y") for row, (key, reason) in enumerate(told)]
    with sink.session(TABLE, run) as session:
        session.commit(commit(0, 4, rows(), quarantined=bad))
    found = list(ledger.keys_set_aside("mood", run.new.generation))
    assert found == [(key[:255], None) for key in keys]
    assert list(ledger.keys_set_aside("mood", "g9")) == []
    finished(ledger, run)
    found = list(ledger.keys_set_aside("mood", run.new.generation))
    assert found == [(key[:255], NOON) for key in keys]


def finished(ledger, run):
    return ledger.finish(ledger.advance(run, RunState.VERIFYING), None, 98)


def test_what_was_set_aside_counts_from_the_last_run_that_read_everything(sink, writing):
    run, ledger, _ = writing
    for number, kind, is_done in (
        ("r1", None, True),
        ("r2", RunKind.FULL, False),
        ("r3", RunKind.FULL, True),
        ("r4", RunKind.DELTA, True),
        ("r5", RunKind.REPAIR, False),
    ):
        if kind is not None:
            lease = ledger.acquire("mood", "toy", ME, 12)
            run = ledger.create(lease, new_run(number, kind=kind, slot=number))
            run = ledger.adopt(ledger.attempt(run, "a1"), snapshot())
            run = ledger.advance(run, RunState.WRITING)
        with sink.session(TABLE, run) as session:
            bad = [QuarantinedRow(row, f"{number}-{row}", "x", "y") for row in range(4)]
            session.commit(commit(0, 4, rows(), quarantined=bad))
        if is_done:
            finished(ledger, run)
        else:
            ledger.give_up(run, RunState.FAILED, "x", 97)
    found = [pair for pair in ledger.keys_set_aside("mood", "g1") if pair[0].endswith("-0")]
    assert found == [("r3-0", NOON), ("r4-0", NOON), ("r5-0", None)]


def test_a_commit_at_another_position_changes_nothing(sink, writing):
    run, _, _ = writing
    with sink.session(TABLE, run) as session:
        session.commit(commit(0, 2, rows(1, 2)))
        for low in (0, 1, 3):
            with pytest.raises(Fenced):
                session.commit(commit(low, low + 1, rows(9)))
        assert session.position(0).done == 2
    assert ids(sink) == [1, 2]


def test_a_commit_of_an_older_epoch_changes_nothing(sink, writing):
    run, ledger, lease = writing
    with sink.session(TABLE, run) as session:
        session.commit(commit(0, 2, rows(1, 2)))
        ledger.release(lease, 12)
        with pytest.raises(Fenced, match="taken over"):
            session.commit(commit(2, 4, rows(3, 4)))
        with pytest.raises(Fenced):
            session.position(0)
    with pytest.raises(Fenced):
        ledger.advance(run, RunState.VERIFYING)
    assert ids(sink) == [1, 2]


def test_a_run_is_verified_once_its_parts_are_through(sink, writing):
    run, ledger, lease = writing
    with sink.session(TABLE, run) as session:
        session.commit(commit(0, 2, rows(1, 2)))
        with pytest.raises(TemporaryError, match="part 0 is at row 2 of 4 again"):
            ledger.verify(run)
        assert ledger.runs("mood")[0].state is RunState.WRITING
        session.commit(commit(2, 4, rows(3, 4)))
    verified, parts = ledger.verify(run)
    assert (verified.state, parts) == (RunState.VERIFYING, ledger.parts(run.run_id))
    assert ledger.verify(verified) == (verified, parts)
    ledger.release(lease, 12)
    with pytest.raises(Fenced):
        ledger.verify(run)
    # Who reads what is verified already must not come away with another's epoch.
    with pytest.raises(Fenced):
        ledger.finish(ledger.verify(verified)[0], None, 13)


def test_every_take_over_fences(sink, writing):
    run, ledger, lease = writing
    ledger.release(lease, 12)
    assert has_epoch_of_its_run(sink, ledger)
    for epoch in (13, 14):
        ledger.acquire("mood", "toy", replace(ME, owner_id=f"o{epoch}", host="here"), epoch)
        assert ledger.runs()[0].epoch == epoch
        assert has_epoch_of_its_run(sink, ledger)
        ledger.release(replace(lease, epoch=epoch), epoch + 100)
    assert ledger.runs()[0].epoch == 114
    assert has_epoch_of_its_run(sink, ledger)
    assert run.epoch == 11


def has_epoch_of_its_run(sink, ledger):
    """Whether the newest run's part carries the epoch that the run has now, and no other."""
    (run, *_) = ledger.runs()
    with sink.session(TABLE, run) as session:
        found = session.position(0)
    with sink.session(TABLE, replace(run, epoch=run.epoch + 1)) as session, pytest.raises(Fenced):
        session.position(0)
    return not found.is_complete


def test_a_take_over_fences_every_unfinished_run_and_its_parts(sink):
    ledger = sink.ledger()
    lease = ledger.acquire("mood", "toy", ME, 11)
    before = []
    for name in ("r1", "r2", "r3"):
        run = ledger.attempt(ledger.create(lease, new_run(name)), "a")
        before.append(ledger.adopt(run, snapshot()))
    ledger.acquire("mood", "toy", ME, 50)
    after = {run.run_id: run for run in ledger.runs("mood")}
    for run in before:
        with sink.session(TABLE, run) as session, pytest.raises(Fenced):
            session.commit(commit(0, 1, rows(1)))
        assert after[run.run_id].epoch == 50
        with sink.session(TABLE, after[run.run_id]) as session:
            assert session.position(0).done == 0
    assert ids(sink) == []


def beside_run(sink, run_id="b1", owner=ME):
    """A run of the second generation, unloading, and its lease; the first one serves."""
    lease = sink.ledger().acquire("mood", "toy", owner, 77, "g2")
    run = sink.ledger().create(lease, new_run(run_id, generation="g2"))
    return sink.ledger().attempt(run, "a"), lease


def test_generations_are_worked_on_side_by_side(sink, writing):
    run, ledger, _ = writing
    other, lease = beside_run(sink, owner=replace(ME, owner_id="another"))
    assert (lease.table, lease.generation) == ("mood__g2", "g2")
    assert ledger.holder("mood") == ME
    assert ledger.holder("mood__g2").owner_id == "another"
    with pytest.raises(Busy, match="mood__g2 is being worked on"):
        ledger.acquire("mood", "toy", ME, 78, "g2")
    # Neither take-over fenced the other generation.
    with sink.session(TABLE, run) as session:
        session.commit(commit(0, 2, rows(1, 2)))
    ledger.release(lease, 79)
    assert {r.run_id: r.epoch for r in ledger.runs("mood")} == {run.run_id: 11, other.run_id: 79}


def test_runs_are_numbered_over_all_generations(sink, writing):
    _, ledger, _ = writing
    other, _ = beside_run(sink)
    assert other.run_no == 2
    assert [r.run_id for r in ledger.runs("mood", "g2")] == ["b1"]
    assert [r.run_id for r in ledger.runs("mood", "g1")] == ["r1"]


def test_only_the_generation_that_serves_says_what_serves(sink, writing):
    run, ledger, _ = writing
    other, _ = beside_run(sink)
    assert (ledger.active("mood"), ledger.serving("mood")) == (None, "g1")
    other = ledger.advance(ledger.adopt(other, snapshot()), RunState.WRITING)
    other = ledger.advance(other, RunState.VERIFYING)
    ledger.finish(other, Watermark(NOON), 99)
    assert ledger.active("mood") is None
    assert (ledger.watermark("toy", "g1"), ledger.holder("mood__g2")) == (None, None)
    assert ledger.watermark("toy", "g2") == Watermark(NOON)
    ledger.finish(ledger.advance(run, RunState.VERIFYING), None, 98)
    assert ledger.active("mood") == Active("g1", 1, "r1")


def test_a_failure_inside_a_transaction_undoes_all_of_it(sink, writing):
    run, _, _ = writing
    with sink.session(TABLE, run) as session:
        session.commit(commit(0, 1, rows(1), quarantined=()))
    unfit = rows(5).drop_columns(["label"]).append_column("label", pa.array([None], pa.string()))
    unfit = unfit.select(TABLE.schema.names)
    refused = pytest.raises(RunFailed, match=r"NOT NULL|cannot be null|NULL supplied")
    with refused, sink.session(TABLE, run) as session:
        session.commit(commit(1, 2, unfit))
    with sink.session(TABLE, run) as session:
        assert session.position(0).done == 1


def test_checksums_wrap_without_losing_a_bit(sink, writing):
    run, _, _ = writing
    with sink.session(TABLE, run) as session:
        session.commit(commit(0, 1, rows(1), checksum=2**63 - 1))
        session.commit(commit(1, 2, rows(2), checksum=2**63 - 5))
        assert session.position(0).checksum == (2**63 - 1 + 2**63 - 5) % 2**63


def test_adopting_is_done_once(sink):
    ledger = sink.ledger()
    run = ledger.attempt(ledger.create(ledger.acquire("mood", "toy", ME, 11), new_run()), "a1")
    ledger.adopt(run, snapshot(parts=2))
    with pytest.raises(Fenced):
        ledger.adopt(run, snapshot(parts=3))
    assert len(ledger.parts("r1")) == 2


def test_finishing_moves_the_watermark_and_frees_the_lease(sink, writing):
    run, ledger, _ = writing
    done = ledger.finish(ledger.advance(run, RunState.VERIFYING), Watermark(NOON), 99)
    assert done.state is RunState.DONE
    assert done.finished_at is not None
    assert ledger.watermark("toy", "g1") == Watermark(NOON)
    assert ledger.holder("mood") is None
    with sink.session(TABLE, run) as session, pytest.raises(Fenced):
        session.commit(commit(0, 1, rows(1)))


def test_a_heartbeat_tells_whose_the_lease_is(sink):
    ledger = sink.ledger()
    lease = ledger.acquire("mood", "toy", ME, 11)
    assert ledger.heartbeat(lease)
    assert ledger.holder("mood") == ME
    assert not ledger.heartbeat(replace(lease, epoch=12))
    ledger.release(lease, 12)
    assert ledger.holder("mood") is None
    ledger.release(lease, 13)
    with pytest.raises(Fenced):
        ledger.create(lease, new_run())


def set_back(monkeypatch, hours):
    """The database's clock, as after a fail-over to a server whose clock is behind."""
    for database in (MysqlDatabase, SqliteDatabase):

        def earlier(self, now=database.now):
            return now(self) - timedelta(hours=hours)

        monkeypatch.setattr(database, "now", earlier)


def test_a_clock_that_was_set_back_makes_no_old_run_the_newest(sink, monkeypatch):
    ledger = sink.ledger()
    lease = ledger.acquire("mood", "toy", ME, 11)
    ledger.create(lease, new_run("r1"))
    set_back(monkeypatch, 2)
    ledger.create(lease, new_run("r2"))
    assert [run.run_id for run in ledger.runs("mood", "g1")] == ["r2", "r1"]
    assert [run.run_id for run in ledger.latest("mood", "g1")] == ["r2", "r1"]


def test_a_clock_that_was_set_back_keeps_no_lease_for_the_dead(sink, monkeypatch):
    ledger = sink.ledger()
    dead = ledger.acquire("mood", "toy", ME, 11)
    set_back(monkeypatch, 24)
    assert ledger.holder("mood") is None
    living = replace(ME, owner_id="living")
    lease = ledger.acquire("mood", "toy", living, 12)
    assert not ledger.heartbeat(dead)
    set_back(monkeypatch, 24)
    # Whoever lives gives a sign by the new clock.
    assert ledger.heartbeat(lease)
    with pytest.raises(Busy, match="worked on by process 1 on elsewhere"):
        ledger.acquire("mood", "toy", replace(ME, owner_id="third"), 13)


def test_of_many_first_starts_one_gets_the_table_and_the_others_learn_who(empty_sink):
    together = threading.Barrier(8)

    def start(number):
        owner = Owner(f"o{number}", f"host{number}", number, "")
        together.wait()
        try:
            return empty_sink.ledger().acquire("mood", "toy", owner, number + 1).owner
        except Busy as error:
            return str(error)

    with ThreadPoolExecutor(8) as pool:
        ends = list(pool.map(start, range(8)))
    (owner,) = [end for end in ends if isinstance(end, Owner)]
    assert ends.count(f"mood is being worked on by {owner}") == 7


def test_the_watermark_of_nothing_is_none(sink):
    assert sink.ledger().watermark("toy", "g1") is None
    assert sink.ledger().holder("mood") is None


def test_rows_of_one_run(sink, writing):
    run, _, _ = writing
    with sink.session(TABLE, run) as session:
        session.commit(commit(0, 2, rows(2, 1)))
        session.commit(commit(2, 4, rows(4, 3, run_no=2)))
    assert ids(sink) == [1, 2, 3, 4]
    assert ids(sink, run_no=2) == [3, 4]
    (first, *_) = sink.rows(TABLE).read_all().to_pylist()
    assert first["src_updated_at"] == NOON.replace(tzinfo=None)


def with_column(**changed):
    remark = Column("remark", pa.string(), "x", **changed)
    return replace(TABLE, columns=(*TABLE.columns, remark))


def test_a_new_column_is_added(sink, writing):
    run, _, _ = writing
    with sink.session(TABLE, run) as session:
        session.commit(commit(0, 2, rows(1, 2)))
    wider = with_column()
    sink.prepare(wider)
    sink.prepare(wider)
    assert sink.rows(wider).read_all()["remark"].to_pylist() == [None, None]


def with_labels(*choices, table=TABLE):
    columns = (replace(c, choices=choices) if c.name == "label" else c for c in table.columns)
    return replace(table, columns=tuple(columns))


def test_a_label_with_a_longer_name_is_deployed_and_taken_back(sink, writing):
    run, _, _ = writing
    longer = with_labels("good", "bad", "exceedingly " * 10)
    with sink.session(TABLE, run) as session:
        session.commit(commit(0, 2, rows(1, 2)))
    sink.prepare(longer)
    sink.prepare(longer)
    with sink.session(longer, run) as session:
        session.commit(commit(2, 4, rows(3, 4, label="exceedingly " * 10)))
    told = sink.rows(TABLE).read_all()["label"].to_pylist()
    assert told == ["good", "good", "exceedingly " * 10, "exceedingly " * 10]
    # Rows are judged by the declaration, so a column that holds more than that takes nothing away.
    sink.prepare(TABLE)
    assert sink.rows(TABLE).read_all().num_rows == 4


def test_a_generation_with_a_longer_label_is_made_beside_the_one_that_serves(sink):
    beside = replace(with_labels("good", "exceedingly good"), name="mood__g2")
    sink.prepare(beside, "mood")
    sink.prepare(TABLE)
    sink.prepare(with_labels("good", "exceedingly good"))


def test_every_other_difference_is_refused_with_its_name(sink):
    sink.prepare(with_column())
    with pytest.raises(DeclarationError, match="remark is no longer declared"):
        sink.prepare(TABLE)
    other = tuple(
        replace(c, type=pa.int64(), choices=()) if c.name == "label" else c for c in TABLE.columns
    )
    with pytest.raises(DeclarationError, match="column label: type"):
        sink.prepare(replace(with_column(), columns=(*other, with_column().columns[-1])))
    with pytest.raises(DeclarationError, match="is keyed by"):
        sink.prepare(replace(TABLE, key=("note_id", "label")))


DAYS = (
    Column("day", pa.date32(), "x"),
    Column("name", pa.string(), "x", nullable=True),
    Column("label", pa.bool_(), "x"),
    Column("score", pa.float64(), "x"),
)
DAY = {
    "day": date(2026, 1, 2), "name": "は", "label": True, "score": 0.1, "model_version": 1,
    "run_no": 1, "src_updated_at": NOON.replace(tzinfo=None),
}  # fmt: skip


def write_days(sink, days):
    """The table that holds ``days``, and them as they were written."""
    table = replace(TABLE, name="days", key=("day", "name"), columns=DAYS)
    ledger = sink.ledger()
    sink.prepare(table)
    lease = ledger.acquire("days", "toy", ME, 11)
    run = ledger.attempt(ledger.create(lease, new_run(output_table="days")), "a")
    run = ledger.adopt(run, snapshot(len(days)))
    batch = pa.RecordBatch.from_pylist(days, schema=table.schema)
    nothing = batch.select(list(table.key)).slice(0, 0)
    with sink.session(table, run) as session:
        session.commit(BatchCommit(0, 0, len(days), batch, nothing, 0, 0, (), 1))
    return table, batch


def test_booleans_dates_and_long_texts_come_back(empty_sink):
    days = [DAY, DAY | {"name": "ば", "label": False}]
    table, _ = write_days(empty_sink, days)
    assert empty_sink.rows(table).read_all().to_pylist() == days


def test_the_table_is_added_up_as_the_rows_were(empty_sink):
    scores = (0.0, 1.0, 0.1, 1 / 3, 1e-5, 2.0**-30, -0.7, 1e300, -1e300, 1 - 2.0**-53)
    days = [
        DAY | {"name": f"豚汁🍳 {n},\\'", "label": n % 2 == 0, "score": score}
        for n, score in enumerate(scores)
    ]
    table, batch = write_days(empty_sink, days)
    assert empty_sink.checksum(table, 1) == (len(days), checksum(batch, table.checked))
    assert empty_sink.checksum(table, 2) == (0, 0)


def test_narrow_questions_read_the_runs_they_are_about_and_no_others(sink):
    assert (sink.ledger().latest("mood", "g1"), sink.ledger().count()) == ((), (0, 0))
    assert sink.ledger().run("r1") is sink.ledger().done("toy", "g1", "r1") is None
    run, ledger, _ = begin(sink)
    assert [r.run_id for r in ledger.latest("mood", "g1")] == ["r1"]
    ledger.finish(ledger.advance(run, RunState.VERIFYING), None, 1)
    lease = ledger.acquire("mood", "toy", ME, 12)
    ledger.give_up(ledger.create(lease, new_run("r2")), RunState.FAILED, "x", 2)
    ledger.create(ledger.acquire("mood", "toy", ME, 13, "g2"), new_run("r3", generation="g2"))
    ledger.create(ledger.acquire("mood", "toy", ME, 14), new_run("r4"))
    assert [r.run_id for r in ledger.latest("mood", "g1")] == ["r4", "r2", "r1"]
    assert [r.run_id for r in ledger.latest("mood", "g2")] == ["r3"]
    assert [r.run_id for r in ledger.runs("mood", limit=2)] == ["r4", "r3"]
    assert ledger.latest("other", "g1") == ledger.untracked("other") == ()
    assert ledger.run("r2").state is RunState.FAILED
    assert ledger.done("toy", "g1", "r1") == ledger.run("r1")
    assert ledger.done("toy", "g1", "r2") is ledger.done("toy", "g2", "r1") is None
    assert ledger.count() == (4, 2)
    assert [r.run_id for r in ledger.untracked("mood")] == ["r1"]
    ledger.tracked(ledger.run("r1"), "t1")
    assert ledger.untracked("mood") == ()


def test_a_repair_hides_no_run_before_it(sink):
    run, ledger, _ = begin(sink)
    ledger.finish(ledger.advance(run, RunState.VERIFYING), None, 1)
    lease = ledger.acquire("mood", "toy", ME, 12)
    ledger.give_up(ledger.create(lease, new_run("r2")), RunState.FAILED, "x", 2)
    repair = ledger.create(
        ledger.acquire("mood", "toy", ME, 13), new_run("r3", kind=RunKind.REPAIR)
    )
    for state in (RunState.UNLOADING, RunState.PLANNED, RunState.WRITING, RunState.VERIFYING):
        repair = ledger.advance(repair, state)
    ledger.finish(repair, None, 3)
    assert [r.run_id for r in ledger.latest("mood", "g1")] == ["r3", "r2", "r1"]


def test_what_is_read_of_runs_does_not_grow_with_their_number(sink):
    run, ledger, _ = begin(sink)
    ledger.finish(ledger.advance(run, RunState.VERIFYING), None, 1)
    done = ledger.tracked(ledger.run("r1"), "t1")
    with ledger._database.writing() as connection:
        row = dict(connection.execute(select(RUN)).mappings().one())
        others = [
            row | {"run_id": f"x{n}", "run_no": n, "slot": f"x{n}", "query": "x" * 10_000}
            for n in range(2, 300)
        ]
        connection.execute(insert(RUN), others)
    tracemalloc.start()
    for read in (
        lambda: ledger.latest("mood", "g1"),
        lambda: ledger.run(done.run_id),
        lambda: ledger.done("toy", "g1", "x7"),
        lambda: ledger.untracked("mood"),
        lambda: ledger.runs("mood", limit=1),
        ledger.count,
    ):
        tracemalloc.reset_peak()
        read()
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_a_table_without_an_index_on_its_runs_works_and_says_how_to_get_one(empty_sink):
    assert "INDEX" not in empty_sink.prepare(TABLE)
    database = empty_sink.ledger()._database
    with database.writing() as connection:
        on = "" if connection.dialect.name == "sqlite" else " ON mood"
        connection.exec_driver_sql(f"DROP INDEX mood_run_no{on}")
    told = empty_sink.prepare(TABLE)
    _, _, statement = told.partition(": ")
    assert statement == "CREATE INDEX mood_run_no ON mood (run_no)"
    run, _, _ = begin(empty_sink)
    with empty_sink.session(TABLE, run) as session:
        session.commit(commit(0, 4, rows(1, 2, 3, 4)))
    assert empty_sink.checksum(TABLE, 1)[0] == 4
    with database.writing() as connection:
        connection.exec_driver_sql(statement)
    assert "INDEX" not in empty_sink.prepare(TABLE)
    assert empty_sink.checksum(TABLE, 1)[0] == 4


def test_a_sink_is_a_value(sink):
    assert pickle.loads(pickle.dumps(sink)) == sink


def test_liveness():
    me = this_process("x")
    assert not is_surely_dead(me)
    assert is_surely_dead(replace(me, started_at="1"))
    assert is_surely_dead(replace(me, pid=2**22 + 1))
    assert not is_surely_dead(replace(me, host="elsewhere", pid=2**22 + 1))


def test_a_machine_of_the_same_name_knows_nothing_of_our_processes():
    """Containers may be called alike, and their processes have the same small numbers."""
    me = this_process("x")
    started_at, _, world = me.started_at.partition("@")
    assert not is_surely_dead(replace(me, pid=2**22 + 1, started_at=f"{started_at}@{world[::-1]}"))
    assert is_surely_dead(replace(me, pid=2**22 + 1))
