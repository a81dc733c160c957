"""What the delta cannot see is found by looking at every key, and mended by an ordinary run."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import datetime, timedelta

import pyarrow as pa
import pytest
from bad_inputs import QUARANTINED, bad_input
from toy.harness import ToyHarness, note, notes
from toy.job import Toy
from toy.lines import LINES, LineJob
from toy.model import Obedient
from toy.things import job_of, things_of

from mlbatch import repair
from mlbatch.connectors.duckdb import DuckdbWarehouse
from mlbatch.connectors.mysql.sink import MysqlSink
from mlbatch.connectors.redshift.statements import UnloadOptions, unload
from mlbatch.errors import (
    DeclarationError,
    GateRefused,
    QuarantineLimitError,
    RunFailed,
    SnapshotError,
    UsageError,
)
from mlbatch.job import Limits
from mlbatch.ledger import RunKind, RunState
from mlbatch.reconciliation import compare
from mlbatch.repair import reconcile, retry, without_key
from mlbatch.testing import JobHarness


def ids(harness):
    return [row["note_id"] for row in harness.rows()]


def delete_in_source(harness, *numbers):
    warehouse = harness.tools.warehouse
    assert isinstance(warehouse, DuckdbWarehouse)
    with warehouse._connected() as connection:
        connection.execute(f"DELETE FROM notes WHERE id IN ({', '.join(map(str, numbers))})")


def test_nothing_is_done_where_nothing_is_wrong(harness):
    harness.notes(notes(25)).infer()
    done = reconcile(Toy, harness.tools)
    assert done.run is None
    assert (done.found.source_rows, done.found.table_rows) == (25, 25)
    assert len(harness.tools.sink.ledger().runs("mood")) == 1


def parts_of(harness, purpose):
    root = harness.tools.storage.root / "mlbatch" / "toy"
    return [path for path in root.glob(f"{purpose}/**/*") if path.is_file()]


def test_what_a_comparison_unloaded_is_gone_after_it_and_the_runs_parts_stay(harness, monkeypatch):
    harness.notes(notes(25)).infer()
    before = parts_of(harness, "[!_]*")
    reconcile(Toy, harness.tools)
    assert parts_of(harness, "_reconcile") == []

    def cut_short(*told, **more):
        taken = take_snapshot(*told, **more)
        assert parts_of(harness, "_reconcile")
        raise SnapshotError(taken.prefix)

    take_snapshot = repair.take_snapshot
    monkeypatch.setattr(repair, "take_snapshot", cut_short)
    with pytest.raises(SnapshotError):
        reconcile(Toy, harness.tools)
    assert parts_of(harness, "_reconcile") == []
    assert parts_of(harness, "[!_]*") == before != []


def test_a_row_that_came_late_is_found_and_predicted(harness):
    harness.notes(notes(25)).infer()
    harness.notes([note(900, "good and late", minutes=-9_000)])
    assert harness.infer().totals.expected < 10
    assert 900 not in ids(harness)
    mark = harness.tools.sink.ledger().watermark("toy", "g1")

    done = reconcile(Toy, harness.tools)

    assert done.found.missing.first == ((900,),)
    assert done.run.run.new.kind is RunKind.REPAIR
    assert (done.run.totals.expected, done.run.totals.written) == (1, 1)
    assert 900 in ids(harness)
    assert harness.tools.sink.ledger().watermark("toy", "g1") == mark
    assert reconcile(Toy, harness.tools).run is None


def test_a_change_with_an_old_time_is_stale(harness):
    harness.notes(notes(25)).infer()
    with closing(sqlite3.connect(harness.tools.sink.path)) as connection:
        connection.execute("UPDATE mood SET src_updated_at = 0, label = 'bad' WHERE note_id = 4")
        connection.commit()
    done = reconcile(Toy, harness.tools)
    assert done.found.stale.first == ((4,),)
    assert {row["label"] for row in harness.rows() if row["note_id"] == 4} == {"good"}


def test_a_row_that_goes_back_in_time_is_stale(harness):
    harness.notes(notes(25)).infer()
    harness.notes([note(4, "sad again", minutes=3)])
    done = reconcile(Toy, harness.tools)
    assert done.found.stale.first == ((4,),)
    assert {row["label"] for row in harness.rows() if row["note_id"] == 4} == {"bad"}
    assert reconcile(Toy, harness.tools).found.wanting.count == 0


def of_another_model(harness, *, below):
    with closing(sqlite3.connect(harness.tools.sink.path)) as connection:
        connection.execute("UPDATE mood SET model_version = 9 WHERE note_id < ?", (below,))
        connection.commit()


def test_rows_of_another_model_are_predicted_by_the_one_that_serves(harness):
    harness.notes(notes(12)).infer()
    of_another_model(harness, below=100)
    # The champion is not asked: it would be mixed into the table that serves.
    harness.given_model(Obedient())
    done = reconcile(Toy, harness.tools)
    assert done.found.outdated.count == 12
    assert {row["model_version"] for row in harness.rows()} == {1}
    assert reconcile(Toy, harness.tools).run is None


def test_rows_that_vanished_lose_their_prediction_but_not_too_many(harness):
    harness.notes(notes(25)).infer()
    delete_in_source(harness, *range(1, 12))
    with pytest.raises(GateRefused, match=r"11 of 25 .* more than 10 may") as caught:
        reconcile(Toy, harness.tools)
    assert "--max-deletes" in caught.value.hint
    assert len(ids(harness)) == 25
    done = reconcile(Toy, harness.tools, max_deletes=11)
    assert done.found.gone.first == tuple((n,) for n in range(1, 12))
    assert done.run.totals.deleted == 11
    assert ids(harness) == list(range(12, 26))


def test_a_row_of_a_small_table_may_go_and_half_of_it_may_not(harness):
    harness.notes(notes(4)).infer()
    delete_in_source(harness, 3)
    assert reconcile(Toy, harness.tools).run.totals.deleted == 1
    delete_in_source(harness, 1, 2)
    with pytest.raises(GateRefused, match="2 of 3 predictions have no row"):
        reconcile(Toy, harness.tools)
    assert ids(harness) == [1, 2, 4]


def test_a_delta_beside_the_comparison_loses_nothing(harness, monkeypatch):
    harness.notes(notes(25)).infer()
    delete_in_source(harness, 3)
    compare_all = repair.compare_all

    def compare_late(source, predictions, *rest):
        # The source was read before they came, the table is read after they were predicted.
        harness.notes([note(901, "good and new", minutes=9_000)]).infer()
        return compare_all(source, harness.tools.sink.rows(Toy.output.table), *rest)

    monkeypatch.setattr(repair, "compare_all", compare_late)
    done = reconcile(Toy, harness.tools, max_deletes=2)
    assert done.found.gone.first == ((3,), (901,))
    assert (done.run.totals.deleted, done.run.totals.written) == (1, 1)
    assert 901 in ids(harness)
    assert 3 not in ids(harness)


@pytest.mark.parametrize("late", [0, 2, 4])
def test_more_rows_than_a_query_names_are_removed_by_several_runs(harness, monkeypatch, late):
    monkeypatch.setattr("mlbatch.repair.MAX_KEYS", 3)
    harness.notes(notes(25)).infer()
    delete_in_source(harness, 1, 2, 3, 4, 5)
    harness.notes([note(900 + n, "good and late", minutes=-9_000) for n in range(late)])
    reconcile(Toy, harness.tools, max_deletes=5)
    assert ids(harness) == [*range(6, 26), *range(900, 900 + late)]
    assert reconcile(Toy, harness.tools).run is None


def test_more_rows_than_a_comparison_names_are_removed_after_several(harness, monkeypatch):
    monkeypatch.setattr("mlbatch.reconciliation.NAMED", 4)
    monkeypatch.setattr("mlbatch.repair.MAX_KEYS", 3)
    harness.notes(notes(25)).infer()
    delete_in_source(harness, *range(1, 10))
    done = reconcile(Toy, harness.tools, max_deletes=9)
    assert done.found.gone.count == 9
    assert ids(harness) == list(range(10, 26))
    assert reconcile(Toy, harness.tools).run is None


def test_what_vanishes_meanwhile_passes_the_same_gate(harness, monkeypatch):
    monkeypatch.setattr("mlbatch.reconciliation.NAMED", 4)
    harness.notes(notes(25)).infer()
    delete_in_source(harness, *range(1, 10))
    compared, rounds = repair.compared, []

    def compare_later(*given):
        if rounds:
            delete_in_source(harness, *range(10, 21))
        rounds.append(1)
        return compared(*given)

    monkeypatch.setattr(repair, "compared", compare_later)
    with pytest.raises(GateRefused, match=r"16 of 21 predictions .* more than 5 may be removed"):
        reconcile(Toy, harness.tools, max_deletes=9)
    assert ids(harness) == list(range(5, 26))


def test_rows_that_any_of_the_runs_set_aside_are_told(harness, monkeypatch):
    monkeypatch.setattr("mlbatch.repair.MAX_KEYS", 3)
    harness.notes(notes(25)).infer()
    delete_in_source(harness, 1, 2, 3, 4)
    harness.notes([note(900, "!nan", minutes=-9_000)])
    done = reconcile(Toy, harness.tools, max_deletes=4)
    assert [run.totals.quarantined for run in done.runs] == [1, 0]


def test_a_dry_run_changes_nothing(harness):
    harness.notes(notes(5)).infer()
    harness.notes([note(900, "good", minutes=-9_000)])
    done = reconcile(Toy, harness.tools, dry_run=True)
    assert (done.found.missing.first, done.run) == (((900,),), None)
    assert 900 not in ids(harness)


def test_many_rows_are_read_again_as_a_whole(harness, monkeypatch):
    monkeypatch.setattr("mlbatch.repair.MAX_KEYS", 3)
    harness.notes(notes(5)).infer()
    of_another_model(harness, below=5)
    assert reconcile(Toy, harness.tools).run.run.new.kind is RunKind.FULL


def test_what_is_only_newer_than_the_watermark_is_left_to_the_next_delta(harness, monkeypatch):
    monkeypatch.setattr("mlbatch.repair.MAX_KEYS", 3)
    harness.notes(notes(25)).infer()
    newer = [note(n, "good and newer", minutes=9_000 + n) for n in (3, 4, 5, 100, 101)]
    harness.notes([*newer, note(900, "good and late", minutes=-9_000)])
    done = reconcile(Toy, harness.tools)
    assert done.found.wanting.first == ((900,),)
    assert [(run.run.new.kind, run.totals.expected) for run in done.runs] == [(RunKind.REPAIR, 1)]
    harness.infer()
    assert {100, 101} <= set(ids(harness))


def test_what_stays_in_quarantine_is_not_read_again_each_time(harness, monkeypatch):
    monkeypatch.setattr("mlbatch.repair.MAX_KEYS", 3)
    bad = [note(50 + n, "!nan", minutes=n) for n in range(5)]
    harness.notes([*notes(25), *bad]).infer()
    done = reconcile(Toy, harness.tools)
    assert (done.runs, done.found.missing.count, done.found.set_aside.count) == ((), 0, 5)


class Refusing(Obedient):
    says = "!nan"

    def predict(self, batch):
        return super().predict(batch.set_column(0, "text", pa.array([self.says] * len(batch))))


class Raising(Refusing):
    says = "!raise"


def test_a_mended_row_that_came_late_with_an_old_time_is_found(harness):
    harness.notes([*notes(25), note(50, "!nan", minutes=100)]).infer()
    assert reconcile(Toy, harness.tools).run.totals.quarantined == 1
    harness.notes([note(50, "good now", minutes=-9_000)]).infer()
    assert reconcile(Toy, harness.tools).run.totals.written == 1
    assert 50 in ids(harness)


def test_a_row_whose_last_end_was_in_a_failed_run_is_missing(tmp_path, monkeypatch):
    harness = ToyHarness(Toy, tmp_path, part_rows=5).given_model(Obedient())
    monkeypatch.setattr(Toy, "limits", Limits(quarantined_rows=5, quarantined_share=0.1))
    harness.notes([*notes(25), note(50, "!nan", minutes=3)]).infer()
    # The same model on a sick machine: the run fails, and the rows that it came to are gone.
    monkeypatch.setattr(harness, "_predictor", Refusing())
    with pytest.raises(QuarantineLimitError):
        harness.infer(full=True)
    monkeypatch.undo()
    kept = len(ids(harness))
    assert kept < 25
    # However many they are: none of them is excused.
    monkeypatch.setattr("mlbatch.repair.MAX_KEYS", 3)
    assert reconcile(Toy, harness.tools).found.missing.count >= 25 - kept
    assert ids(harness) == list(range(1, 26))


def test_an_unfinished_run_comes_first(harness, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    harness.notes(notes(5))
    with monkeypatch.context() as broken:
        broken.setattr("mlbatch.connectors.sqlite.SqlitePartSession.commit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            harness.infer()
    for mend in (reconcile, retry):
        with pytest.raises(UsageError, match="is unfinished"):
            mend(Toy, harness.tools)


def test_quarantined_rows_are_tried_again(harness):
    harness.notes([*notes(9), note(50, "!nan", minutes=500), note(51, "!odd", minutes=501)])
    assert harness.infer().totals.quarantined == 2
    harness.notes([note(50, "good now", minutes=500)])
    ended = retry(Toy, harness.tools)
    assert (ended.run.new.kind, ended.run.state) == (RunKind.REPAIR, RunState.DONE)
    assert (ended.totals.expected, ended.totals.written, ended.totals.quarantined) == (2, 1, 1)
    assert 50 in ids(harness)
    assert 51 not in ids(harness)


@pytest.fixture(params=["sqlite", "mysql"])
def kept_on(request, tmp_path):
    sink = None
    if request.param == "mysql":
        sink = MysqlSink(request.getfixturevalue("mysql_address"))
    return ToyHarness(Toy, tmp_path, sink=sink).given_model(Obedient())


def many_bad(harness, text="!raise", count=20):
    """A table of 2,000 rows and so many more that are set aside, which is allowed."""
    bad = [note(n, text, minutes=n) for n in range(5_000, 5_000 + count)]
    harness.notes([*notes(2_000), *bad])
    assert harness.infer().totals.quarantined == count


def test_rows_that_stay_bad_keep_no_late_row_from_being_mended(kept_on):
    many_bad(kept_on)
    kept_on.notes([note(900_000, "good and late", minutes=-9_000)])
    for written in (1, 0):
        done = reconcile(Toy, kept_on.tools)
        assert (done.run.totals.written, done.run.totals.quarantined) == (written, 20)
    assert 900_000 in ids(kept_on)


@pytest.mark.parametrize(("text", "mended"), [("!nan", 5), ("!raise", 5), ("!raise", 0)])
def test_rows_that_stay_bad_keep_no_mended_row_in_quarantine(kept_on, text, mended):
    many_bad(kept_on, text)
    kept_on.notes([note(n, "good now", minutes=n) for n in range(5_000, 5_000 + mended)])
    for written in (mended, 0):
        totals = retry(Toy, kept_on.tools).totals
        assert (totals.written, totals.quarantined) == (written, 20 - mended)


def stale(harness, count, text=None):
    """So many rows changed back to an older time, the first 15 of them to ``text``."""
    told = [text if text and n <= 15 else "good again" for n in range(1, count + 1)]
    harness.notes([note(n, what, minutes=-9_000) for n, what in enumerate(told, 1)])


def test_a_repair_is_held_to_the_limits_of_its_table(kept_on):
    harness = kept_on.notes(notes(2_000))
    harness.infer()
    stale(harness, 100, "!nan")
    done = reconcile(Toy, harness.tools)
    assert (done.run.totals.written, done.run.totals.quarantined) == (85, 15)


def test_a_repair_takes_no_more_from_its_table_than_that(harness, monkeypatch):
    monkeypatch.setattr(harness, "_part_rows", 20_000)
    harness.notes([*notes(1_000), note(5_000, "!nan")]).infer()
    stale(harness, 100, "!nan")
    wrong = r"15 rows that were not before were quarantined, in a table of 1,000"
    with pytest.raises(QuarantineLimitError, match=wrong):
        reconcile(Toy, harness.tools)
    assert len(ids(harness)) == 1_000
    # Nor does a model that predicts nothing, beside a row that was set aside before.
    stale(harness, 30)
    for broken in (Refusing(), Raising()):
        monkeypatch.setattr(harness, "_predictor", broken)
        with pytest.raises(RunFailed, match="predicts no row"):
            reconcile(Toy, harness.tools)
    assert len(ids(harness)) == 1_000


def test_the_parts_of_a_repair_are_added_up(tmp_path, monkeypatch):
    harness = ToyHarness(Toy, tmp_path, part_rows=5).given_model(Obedient())
    monkeypatch.setattr(Toy, "limits", Limits(quarantined_rows=4))
    harness.notes(notes(30)).infer()
    harness.notes([note(n, "!nan" if n % 3 else "good", minutes=-9_000) for n in range(1, 16)])
    wrong = r"[5-9] rows that were not before were quarantined, in a table of 2\d"
    with pytest.raises(QuarantineLimitError, match=wrong):
        reconcile(Toy, harness.tools)


@pytest.fixture(params=["sqlite", "mysql"])
def books(request, tmp_path):
    sink = None
    if request.param == "mysql":
        sink = MysqlSink(request.getfixturevalue("mysql_address"))
    return JobHarness(LineJob, tmp_path, part_rows=3, sink=sink).given_model(Obedient())


@pytest.fixture(params=["sqlite", "mysql"])
def remarks(request, tmp_path):
    """Rows with a text beside the key, which goes through to the table."""
    sink = None
    if request.param == "mysql":
        sink = MysqlSink(request.getfixturevalue("mysql_address"))
    job = job_of(int, ("thing",))
    job.limits = Limits(text_characters=100_000)
    return JobHarness(job, tmp_path, sink=sink).given_model(Obedient())


def thing(number, place):
    row = {"thing": number, "place": place, "text": "good", "label": "good", "deleted_at": None}
    return row | {"updated_at": datetime(2026, 1, 1)}


def line(book, number, text, *, minutes=0):
    at = datetime(2026, 1, 1) + timedelta(minutes=minutes)
    row = {"book": book, "number": number, "text": text, "label": "good", "deleted_at": None}
    return row | {"updated_at": at}


def lines(books, *rows):
    return books.given("lines", rows, key=("book", "number"), schema=LINES)


LONG = [f"{n:03}" + "語" * 252 for n in range(150)]


def test_keys_too_long_for_one_statement_are_mended_by_several_runs(tmp_path):
    books = JobHarness(LineJob, tmp_path).given_model(Obedient())
    lines(books, *[line(book, 1, "good") for book in LONG]).infer()
    with books.tools.warehouse._connected() as connection:
        connection.execute("DELETE FROM lines WHERE book < '100'")
    lines(
        books, *[line("late" + book[4:], n, "good", minutes=-9_000) for n, book in enumerate(LONG)]
    )
    done = reconcile(LineJob, books.tools, max_deletes=100)
    assert len(done.runs) > 1
    for run in done.runs:
        assert unload(run.run.new.query, "s3://bucket/prefix/", UnloadOptions())
    assert (sum(run.totals.written for run in done.runs), len(books.rows())) == (150, 200)
    assert reconcile(LineJob, books.tools).run is None


def test_many_short_keys_are_one_statement(harness):
    harness.notes(notes(10)).infer()
    gone = tuple((40_000_000 + n,) for n in range(2_000))
    query = Toy.features.view.query.of_keys(
        (), key=("note_id",), columns=["note_id", "text", "updated_at"], gone=gone
    )
    assert unload(query, "s3://bucket/prefix/", UnloadOptions())


def test_a_query_that_no_warehouse_takes_leaves_no_run_to_resume(harness, monkeypatch):
    harness.notes(notes(5))
    with monkeypatch.context() as narrow:
        narrow.setattr("mlbatch.creation.MAX_QUERY_BYTES", 50)
        with pytest.raises(DeclarationError, match="a warehouse takes 50"):
            harness.infer()
    assert harness.tools.sink.ledger().runs("mood") == ()
    assert harness.infer().totals.written == 5


BOOKS = ["a/b", "a", "A", "a ", "%2F", "b" * 255, "日本/語", "c\\"]


@pytest.mark.parametrize("mend", [reconcile, retry])
def test_keys_of_several_columns_and_of_any_text_are_mended(books, mend):
    first = "!nan" if mend is retry else "good"
    lines(books, *[line(b, n, first) for n, b in enumerate(BOOKS)], line("z", 9, "good"))
    assert books.infer().totals.quarantined == (len(BOOKS) if mend is retry else 0)
    lines(books, *[line(b, n, "sad", minutes=-9_000) for n, b in enumerate(BOOKS)])
    ended = mend(LineJob, books.tools)
    run = ended if mend is retry else ended.run
    assert (run.run.new.kind, run.totals.written) == (RunKind.REPAIR, len(BOOKS))
    told = {(row["number"], row["book"]): row["label"] for row in books.rows()}
    assert told == dict.fromkeys(enumerate(BOOKS), "bad") | {(9, "z"): "good"}


@bad_input(82, outcome=QUARANTINED, says="too_long")
def test_82_a_text_longer_than_its_key_is_set_aside_on_every_database(books):
    long = ["語" * 256, "語" * 255, "b" * 70_000]
    lines(books, *[line(book, n, "good") for n, book in enumerate(long)])
    totals = books.infer().totals
    assert (totals.written, totals.quarantined) == (1, 2)
    assert [row["book"] for row in books.rows()] == ["語" * 255]
    (told, _) = books.tools.sink.ledger().quarantined(
        books.tools.sink.ledger().runs("line_mood")[0].run_id, 2
    )
    assert (told.reason, told.detail) == ("too_long", "book has more than 255 characters")


@bad_input(82, outcome=QUARANTINED, says="too_long")
def test_82_a_text_longer_than_a_text_column_is_set_aside_on_every_database(remarks):
    long = ["語" * 21_845, "語" * 21_846, "c" * 65_535, "c" * 65_536]
    remarks.given(
        "things",
        [thing(n, text) for n, text in enumerate(long)],
        key="thing",
        schema=things_of(int),
    )
    totals = remarks.infer().totals
    assert (totals.written, totals.quarantined) == (2, 2)
    assert [row["place"] for row in remarks.rows()] == ["語" * 21_845, "c" * 65_535]
    ledger = remarks.tools.sink.ledger()
    told = ledger.quarantined(ledger.runs("thing_mood")[0].run_id, 2)
    assert {(row.reason, row.detail) for row in told} == {
        ("too_long", "place has more than 65,535 bytes")
    }


def test_nothing_to_retry(harness):
    assert retry(Toy, harness.tools) is None
    harness.notes(notes(3)).infer()
    assert retry(Toy, harness.tools) is None


def test_rows_without_a_key_are_counted_and_not_tried_again(harness, monkeypatch):
    harness.notes([*notes(3), note(None, "good"), note(None, "bad")], key="text").infer()
    assert retry(Toy, harness.tools) is None
    assert without_key(Toy, harness.tools) == 2
    # Behind more of them than are looked at may be one that has a key.
    monkeypatch.setattr("mlbatch.repair.MAX_KEYS", 1)
    assert retry(Toy, harness.tools).run.new.kind is RunKind.FULL


def tables(source, table):
    at = pa.timestamp("us")
    left = pa.table(
        {
            "a": pa.array([a for a, _, _ in source], pa.int64()),
            "b": pa.array([b for _, b, _ in source], pa.string()),
            "source_at": pa.array([datetime(2026, 1, day) for _, _, day in source], at),
        }
    )
    right = pa.table(
        {
            "a": pa.array([a for a, _, _, _ in table], pa.int64()),
            "b": pa.array([b for _, b, _, _ in table], pa.string()),
            "src_updated_at": pa.array([datetime(2026, 1, day) for _, _, day, _ in table], at),
            "model_version": pa.array([version for _, _, _, version in table], pa.int64()),
        }
    )
    return left, right


def test_keys_of_several_columns_are_compared_whole():
    left, right = tables(
        [(1, "x", 1), (1, "y", 5), (2, "x", 1), (3, "z", 1)],
        [(1, "x", 1, 2), (1, "y", 4, 2), (2, "x", 1, 1), (9, "x", 1, 2)],
    )
    found = compare(left, right, ("a", "b"), 2)
    assert found.missing.first == ((3, "z"),)
    assert found.stale.first == ((1, "y"),)
    assert found.outdated.first == ((2, "x"),)
    assert found.gone.first == ((9, "x"),)
    assert set(found.wanting.first) == {(3, "z"), (1, "y"), (2, "x")}
    assert compare(left, right, ("a", "b"), None).outdated.count == 0


def test_a_repair_does_not_pass_over_what_it_did_not_read(harness):
    harness.notes([*notes(9), note(50, "!nan", minutes=100)])
    harness.infer()
    harness.notes([note(4, "sad now", minutes=600), note(50, "good now", minutes=5_000)])
    assert retry(Toy, harness.tools).totals.expected == 1
    harness.infer()
    assert {row["note_id"]: row["label"] for row in harness.rows()}[4] == "bad"
