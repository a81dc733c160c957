"""Inference from the plan to the moved watermark, on the embedded connectors."""

from __future__ import annotations

import os
import sqlite3
from datetime import UTC, datetime, timedelta

import pytest
from bad_inputs import FAILS, NOTICED, QUARANTINED, REFUSED, bad_input
from sqlalchemy import event
from toy.harness import DAY_ONE, ToyHarness, interrupted, note, notes
from toy.job import Toy
from toy.model import Obedient

from mlbatch import inference
from mlbatch.connectors import sqlite
from mlbatch.connectors.database.part_rows import part_state
from mlbatch.connectors.sqlite import SqlitePartSession
from mlbatch.errors import (
    ConservationError,
    QuarantineLimitError,
    RunFailed,
    SnapshotError,
    UsageError,
)
from mlbatch.ledger import RunKind, RunState
from mlbatch.planner import Request


def test_first_deploy_backfills_everything(harness):
    harness.notes(notes(25))
    ended = harness.infer()
    assert ended.plan.kind is RunKind.BACKFILL
    assert ended.totals.written == 25
    assert [row["note_id"] for row in harness.rows()] == list(range(1, 26))
    assert {row["model_version"] for row in harness.rows()} == {1}


def test_next_day_takes_only_the_delta(harness):
    harness.notes(notes(25)).infer()
    changed = [note(3, "good again", minutes=1500), note(40, "new", minutes=1501)]
    ended = harness.notes(changed).infer()
    assert ended.plan.kind is RunKind.DELTA
    overlap = {19, 20, 21, 22, 23, 24, 25}
    assert (ended.totals.expected, ended.probe.newer) == (2 + len(overlap), 2)
    rows = {row["note_id"]: row for row in harness.rows()}
    assert rows[3]["label"] == "good"
    assert rows[3]["run_no"] == 2
    assert {n for n, row in rows.items() if row["run_no"] == 2} == {3, 40} | overlap
    assert rows[40]["src_updated_at"] == DAY_ONE + timedelta(minutes=1501)


def test_overlap_reads_rows_that_were_committed_late(harness):
    harness.notes(notes(30)).infer()
    late = [note(900, "good but late", minutes=250)]
    ended = harness.notes(late).infer()
    assert 900 in {row["note_id"] for row in harness.rows()}
    assert ended.probe.newer == 0


def test_a_table_that_is_gone_is_not_made_anew_by_a_delta(harness):
    harness.notes(notes(25)).infer()
    with harness.tools.sink.ledger()._database.writing() as connection:
        connection.exec_driver_sql("DROP TABLE mood")
    harness.notes([note(40, "new", minutes=1501)])
    for way in (inference.infer, inference.preview):
        with pytest.raises(RunFailed, match="mood is gone, which finished runs have written"):
            way(Toy, Request(), harness.tools)
    assert not harness.tools.sink.holds("mood")
    assert len(harness.tools.sink.ledger().runs("mood")) == 1
    inference.infer(Toy, Request(full=True), harness.tools)
    assert len(harness.rows()) == 26


def test_deleted_rows_lose_their_prediction(harness):
    harness.notes(notes(25)).infer()
    gone = note(5, "good note 5", minutes=1500, deleted=DAY_ONE + timedelta(minutes=1500))
    ended = harness.notes([gone]).infer()
    assert ended.totals.deleted == 1
    assert 5 not in {row["note_id"] for row in harness.rows()}


def test_a_row_that_changes_all_the_time_is_still_scored(harness):
    future = (datetime.now(UTC) + timedelta(hours=5)).replace(tzinfo=None)
    hot = {"id": 77, "text": "good", "updated_at": future, "deleted_at": None}
    harness.notes([*notes(5), hot]).infer()
    assert 77 in {row["note_id"] for row in harness.rows()}
    mark = harness.tools.sink.ledger().watermark("toy", "g1")
    assert mark.value < datetime.now(UTC)


def test_nothing_to_do_is_a_success(harness):
    harness.notes([note(1, "x")])
    ended = harness.infer(until=datetime(2020, 1, 1, tzinfo=UTC))
    assert ended.run.state is RunState.DONE
    assert ended.totals.expected == 0
    assert harness.rows() == []


def test_full_writes_everything_again(harness):
    harness.notes(notes(25)).infer()
    ended = harness.infer(full=True)
    assert ended.plan.kind is RunKind.FULL
    assert ended.totals.written == 25
    assert {row["run_no"] for row in harness.rows()} == {2}


def test_a_slot_is_done_once(harness):
    harness.notes(notes(5))
    first = harness.infer(slot="2026-01-02")
    again = harness.infer(slot="2026-01-02")
    assert again.plan.done.run_id == first.run.run_id
    assert len(harness.tools.sink.ledger().runs("mood")) == 1


def test_a_slot_that_is_done_leaves_no_superseded_run_as_it_was(harness, monkeypatch):
    harness.notes(notes(5)).infer(slot="2026-01-02")
    interrupted(harness.notes(notes(9)), monkeypatch, 0)
    ended = harness.infer(slot="2026-01-02", supersede=True)
    assert ended.plan.done is not None
    (left, _) = harness.tools.sink.ledger().runs("mood")
    assert left.state is RunState.SUPERSEDED
    assert harness.infer().totals.written == 9


@bad_input(121, outcome=REFUSED, says="slot")
@pytest.mark.parametrize("slot", ["2999-01-01", "2026-02-29", "yesterday"], ids="121-{}".format)
def test_a_wrong_slot_is_refused(harness, slot):
    with pytest.raises(UsageError, match="slot"):
        harness.notes(notes(1)).infer(slot=slot)


@pytest.mark.parametrize(
    ("number", "text", "reason"),
    [
        (67, None, "missing_value"),
        (71, "x" * 10_001, "too_long"),
        (91, "!nan", "not_finite"),
        (91, "!inf", "not_finite"),
        (93, "!odd", "unknown_label"),
        (93, "!two", "out_of_range"),
        (98, "!raise", "prediction_failed"),
    ],
)
@bad_input(outcome=QUARANTINED)
def test_a_bad_row_is_set_aside_and_the_others_go_on(harness, number, text, reason):
    ended = harness.notes([*notes(15), note(99, text, minutes=3)]).infer()
    assert number
    assert ended.totals.quarantined == 1
    assert ended.totals.written == 15
    (row,) = harness.quarantined(ended.run.run_id)
    assert (row.key, row.reason) == ("99", reason)


@bad_input(104, outcome=QUARANTINED, says="missing_key")
def test_104_a_row_without_a_key_is_set_aside(harness):
    ended = harness.notes([*notes(3), note(None, "good")], key="text").infer()
    (row,) = harness.quarantined(ended.run.run_id)
    assert (row.key, row.reason) == ("", "missing_key")
    assert ended.totals.written == 3


def test_a_row_that_turns_bad_loses_its_old_prediction(harness):
    harness.notes(notes(15)).infer()
    ended = harness.notes([note(5, "!raise", minutes=1500)]).infer()
    assert ended.totals.quarantined == 1
    assert 5 not in {row["note_id"] for row in harness.rows()}


def test_too_many_bad_rows_fail_the_run(harness):
    bad = [note(n, "!nan", minutes=n) for n in range(100, 115)]
    with pytest.raises(QuarantineLimitError, match="quarantined"):
        harness.notes([*notes(5), *bad]).infer()
    (run,) = harness.tools.sink.ledger().runs("mood")
    assert run.state is RunState.FAILED
    assert "quarantined" in run.error


@bad_input(100, 101, outcome=NOTICED, says="rows repeat a key")
def test_100_101_the_newest_row_of_a_repeated_key_wins_and_it_is_said(harness):
    rows = notes(15)
    again = [note(2, "sad now", minutes=300), note(14, "good now", minutes=301)]
    harness.notes(rows)
    harness.notes(again, key="text")
    ended = harness.infer()
    found = {row["note_id"]: row["label"] for row in harness.rows()}
    assert (found[2], found[14]) == ("bad", "good")
    assert ended.totals.written == 15
    assert any("2 rows repeat a key" in notice for notice in harness.notices)


@bad_input(92, outcome=FAILS, says="rows the model gave")
def test_92_fewer_answers_than_rows_fail_the_run(harness):
    with pytest.raises(Exception, match="for 3 rows the model gave 2 labels"):
        harness.notes([*notes(2), note(9, "!short", minutes=9)]).infer()
    (run,) = harness.tools.sink.ledger().runs("mood")
    assert run.state is RunState.FAILED


def test_a_failed_run_moves_no_watermark_and_the_next_one_does_it_all(harness):
    with pytest.raises(Exception, match="rows the model gave"):
        harness.notes([*notes(2), note(9, "!short", minutes=9)]).infer()
    ended = harness.notes([note(9, "good", minutes=9)]).infer()
    assert ended.plan.kind is RunKind.BACKFILL
    assert ended.totals.written == 3


def test_a_row_that_somebody_else_wrote_is_found(harness, tmp_path, monkeypatch):
    commit = SqlitePartSession.commit

    def meddle(self, batch):
        commit(self, batch)
        with sqlite3.connect(tmp_path / "outputs.db") as other:
            other.execute("UPDATE mood SET score = 0.123")

    monkeypatch.setattr(SqlitePartSession, "commit", meddle)
    with pytest.raises(ConservationError, match="checksums differ"):
        harness.notes(notes(5)).infer()


def test_batches_parts_and_workers_do_not_change_the_result(tmp_path):
    tables = []
    for part_rows, workers in ((1_000, 1), (7, 1), (7, 2)):
        folder = tmp_path / f"{part_rows}-{workers}"
        folder.mkdir()
        other = ToyHarness(Toy, folder, part_rows=part_rows, workers=workers)
        other.given_model(Obedient()).notes(notes(40)).infer()
        tables.append(other.rows())
    assert tables[0] == tables[1] == tables[2]


def test_rows_and_deletes_reach_the_sink_in_the_order_of_their_keys(harness, monkeypatch):
    """Two runs that wrote the same keys in different orders would lock each other out."""
    seen = []
    real = SqlitePartSession.commit

    def watched(self, batch):
        seen.extend((batch.upserts["note_id"].to_pylist(), batch.deletes["note_id"].to_pylist()))
        real(self, batch)

    monkeypatch.setattr(SqlitePartSession, "commit", watched)
    mixed = [note(n, "good", minutes=n) for n in (7, 3, 9, 1, 5)]
    gone = [note(n, "x", minutes=n, deleted=DAY_ONE) for n in (8, 2, 6)]
    harness.notes([*mixed, *gone]).infer()
    assert sorted(key for keys in seen for key in keys) == [1, 2, 3, 5, 6, 7, 8, 9]
    assert all(keys == sorted(keys) for keys in seen)


def test_a_row_that_is_counted_twice_is_found_at_the_end(harness, monkeypatch):
    write = inference._write

    def miscounted(*given, **how):
        seconds = write(*given, **how)
        with sqlite3.connect(harness.tools.sink.path) as connection:
            connection.execute("UPDATE mlbatch_part SET filtered = filtered + 1")
        return seconds

    monkeypatch.setattr(inference, "_write", miscounted)
    with pytest.raises(ConservationError, match="5 read, 6 accounted for"):
        harness.notes(notes(5)).infer()
    assert harness.tools.sink.ledger().runs("mood")[0].state is RunState.FAILED


def test_a_part_that_ends_before_its_rows_do_fails_its_run(harness, monkeypatch):
    write = inference._write

    def promised_more(*given, **how):
        with sqlite3.connect(harness.tools.sink.path) as connection:
            connection.execute("UPDATE mlbatch_part SET rows_expected = rows_expected + 1")
        return write(*given, **how)

    monkeypatch.setattr(inference, "_write", promised_more)
    with pytest.raises(SnapshotError, match="ends after 5 of its 6 rows"):
        harness.notes(notes(5)).infer()
    assert harness.tools.sink.ledger().runs("mood")[0].state is RunState.FAILED


def test_a_file_that_is_cut_into_parts_is_scored_once(harness, monkeypatch):
    monkeypatch.setattr("mlbatch.unloading.PIECE_BYTES", 1)
    monkeypatch.setattr("mlbatch.connectors.duckdb.GROUP_ROWS", 4)
    ended = harness.notes(notes(25)).infer()
    parts = harness.tools.sink.ledger().parts(ended.run.run_id)
    # Three files of 10, 10 and 5 rows, in groups of four.
    assert [part.rows_expected for part in parts] == [4, 4, 2, 4, 4, 2, 4, 1]
    assert [row["note_id"] for row in harness.rows()] == list(range(1, 26))
    assert ended.totals.written == 25


@pytest.mark.parametrize("parts", [20, 40])
def test_what_a_run_reads_of_its_ledger_grows_with_its_parts_and_no_faster(
    tmp_path, monkeypatch, parts
):
    read, asked = [], []

    def noted(row):
        read.append(row)
        return part_state(row)

    for room in ("database.ledger_store", "sqlite"):
        monkeypatch.setattr(f"mlbatch.connectors.{room}.part_state", noted)
    harness = ToyHarness(Toy, tmp_path, part_rows=3).given_model(Obedient()).notes(notes(3 * parts))
    engine = sqlite._engine(harness.tools.sink.path, os.getpid())
    event.listen(engine, "before_cursor_execute", lambda *of: asked.append(of[2]))
    assert harness.infer().totals.written == 3 * parts
    # As a task, for its position, when the run is verified, and when it is told.
    assert len(read) == 4 * parts
    sums = [statement for statement in asked if "sum(mlbatch_part.done)" in statement]
    assert len(sums) == parts
    assert sum("\nFROM mlbatch_part " in statement for statement in asked) == parts + 3
