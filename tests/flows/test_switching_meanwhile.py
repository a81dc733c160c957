"""What happens while a table comes to another model: rows, runs and switches of somebody else."""

from __future__ import annotations

from dataclasses import replace

import pytest
from flows.test_switching import _interrupted, _with, labels, to_switch, versions
from sqlalchemy import inspect
from toy.harness import note, notes
from toy.job import Toy
from toy.model import Obedient

from mlbatch import switching
from mlbatch.connectors.mysql.sink import MysqlSink
from mlbatch.errors import GateRefused, TemporaryError
from mlbatch.inference import infer
from mlbatch.job import Limits
from mlbatch.ledger import RunKind, RunState
from mlbatch.planner import Request
from mlbatch.repair import reconcile
from mlbatch.switching import roll_back, switch

BACKFILL, DELTA = RunKind.BACKFILL, RunKind.DELTA


@pytest.fixture
def harness(tmp_path):
    return to_switch(tmp_path)


@pytest.fixture(params=["sqlite", "mysql"])
def either(request, tmp_path):
    """The same on both databases."""
    sink = None
    if request.param == "mysql":
        sink = MysqlSink(request.getfixturevalue("mysql_address"))
    return to_switch(tmp_path, sink)


def kinds(harness, generation):
    """Of its runs, the oldest first."""
    runs = harness.tools.sink.ledger().runs("mood", generation)
    return [run.new.kind for run in reversed(runs)]


def before(monkeypatch, name, *works):
    """Do the first of ``works`` before the first call of the switch's ``name``, and so on."""
    call, left = getattr(switching, name), list(works)

    def then_call(*given, **named):
        if left:
            left.pop(0)()
        return call(*given, **named)

    monkeypatch.setattr(switching, name, then_call)


def test_late_rows_are_found_on_the_way_back(harness):
    switch(Toy, harness.tools)
    harness.notes([note(901, "sad and late", minutes=-9_000)])
    roll_back(Toy, harness.tools)
    assert labels(harness)[901] == "bad"


def delete_in_source(harness, *numbers):
    with harness.tools.warehouse._connected() as connection:
        connection.execute(f"DELETE FROM notes WHERE id IN ({', '.join(map(str, numbers))})")


@pytest.mark.parametrize("gone", [3, 12, 17])
def test_more_rows_than_a_look_names_are_removed_in_several_rounds(harness, monkeypatch, gone):
    monkeypatch.setattr("mlbatch.reconciliation.NAMED", 4)
    numbers = range(1, gone + 1)
    before(monkeypatch, "complete", lambda: delete_in_source(harness, *numbers))
    switch(Toy, harness.tools, max_deletes=gone)
    assert list(labels(harness)) == list(range(gone + 1, 26))


def test_a_source_that_lost_its_rows_is_not_switched_to(either):
    delete_in_source(either, *range(1, 25))
    lost = r"24 of 25 rows of mood have none in mood__g2, more than 10 may go at once"
    with pytest.raises(GateRefused, match=lost) as caught:
        switch(Toy, either.tools, max_distance=1.0)
    assert "--max-deletes 24 or more lets it pass" in caught.value.hint
    assert (len(labels(either)), versions(either)) == (25, {1})
    # As many as reconcile would remove may go, and those that come back are found by the next delta.
    either.notes(notes(15))
    assert switch(Toy, either.tools, max_distance=1.0).inspection.rows == 16
    assert list(labels(either)) == [*range(1, 16), 25]


def test_a_source_whose_loss_is_meant_is_switched_to(harness):
    delete_in_source(harness, *range(1, 25))
    switch(Toy, harness.tools, max_distance=1.0, max_deletes=24)
    assert (list(labels(harness)), versions(harness)) == ([25], {2})


def test_a_source_that_lost_its_rows_does_not_take_the_way_back_with_it(either):
    switch(Toy, either.tools)
    delete_in_source(either, *range(1, 25))
    either.notes([note(901, "sad and late", minutes=-9_000)])
    with pytest.raises(GateRefused, match=r"24 of 25 predictions have no row .* more than 10 may"):
        roll_back(Toy, either.tools)
    kept = either.tools.sink.rows(replace(Toy.output.table, name="mood__g1"))
    assert len(kept.read_all()) == 25
    assert versions(either) == {2}
    roll_back(Toy, either.tools, max_deletes=24)
    assert (list(labels(either)), versions(either)) == ([25, 901], {1})


def test_what_the_daily_run_has_read_meanwhile_is_not_lacking(harness, monkeypatch):
    def a_daily_run():
        harness.notes(notes(20, start=100))
        infer(Toy, Request(), _with(harness.tools, Obedient()))

    before(monkeypatch, "inspect", a_daily_run)
    switch(Toy, harness.tools)
    assert len(labels(harness)) == 45


def test_rows_that_the_new_model_sets_aside_are_not_lacking(harness, monkeypatch):
    monkeypatch.setattr(Toy, "limits", Limits(quarantined_rows=15))
    texts = [note(n, "x" * 50, minutes=n) for n in range(101, 113)]
    harness.notes(texts)
    infer(Toy, Request(), _with(harness.tools, Obedient()))
    monkeypatch.setattr(Toy, "limits", Limits(quarantined_rows=15, text_characters=49))
    assert switch(Toy, harness.tools).set_aside == 12


def test_what_no_mending_mends_ends_the_switch(harness, monkeypatch):
    before(monkeypatch, "complete", lambda: delete_in_source(harness, 3))
    looks = []
    monkeypatch.setattr("mlbatch.inspection.mending", lambda *_: looks.append(1) or [])
    with pytest.raises(TemporaryError, match="predicted: 0 rows wanting, 1 surplus"):
        switch(Toy, harness.tools)
    assert len(looks) == 3
    assert versions(harness) == {1}


def test_a_run_that_is_finished_on_the_way_back_is_not_the_last_one(harness, monkeypatch):
    """It was of the day when it began."""
    harness.notes(notes(30, start=100))
    with monkeypatch.context() as broken:
        broken.setattr("mlbatch.connectors.sqlite.SqlitePartSession.commit", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            harness.infer()
    switch(Toy, harness.tools)
    harness.notes([note(900, "good", minutes=9_000)])
    roll_back(Toy, harness.tools)
    assert labels(harness)[900] == "good"
    # The unfinished one, one that catches up, and one while nobody else may write.
    assert kinds(harness, "g1") == [BACKFILL, DELTA, DELTA, DELTA]


def test_what_comes_before_the_look_is_left_to_the_last_delta(harness, monkeypatch):
    before(monkeypatch, "complete", lambda: harness.notes([note(900, "good", minutes=9_000)]))
    switch(Toy, harness.tools)
    assert labels(harness)[900] == "good"
    assert kinds(harness, "g2") == [BACKFILL, DELTA, DELTA]


def test_deltas_follow_each_other_until_one_finds_little(harness, monkeypatch):
    monkeypatch.setattr(switching, "CAUGHT_UP_ROWS", 0)
    new = [note(900 + n, "good", minutes=9_000 + n) for n in range(2)]
    before(
        monkeypatch, "infer",
        lambda: None, lambda: harness.notes(new[:1]), lambda: harness.notes(new[1:]),
    )  # fmt: skip
    switch(Toy, harness.tools)
    # Two found something, one nothing, and the last one runs while nobody else may write.
    assert kinds(harness, "g2") == [BACKFILL, DELTA, DELTA, DELTA, DELTA]


def test_each_generation_has_a_watermark_of_its_own(harness):
    """The daily delta reads what comes during the backfill; the new generation must read it, too."""
    came = []

    class Beside(Obedient):
        def predict(self, batch):
            if not came:
                came.append(True)
                harness.notes([note(900, "good", minutes=9_000), note(901, "sad", minutes=5_000)])
                harness.infer()
            return super().predict(batch)

    switch(Toy, _with(harness.tools, Beside()))
    assert (labels(harness)[900], labels(harness)[901]) == ("good", "bad")
    # By its deltas: the comparison with the source found nothing to mend.
    assert kinds(harness, "g2") == [BACKFILL, DELTA, DELTA]


def test_a_switch_of_somebody_else_in_between_is_not_undone(harness, monkeypatch):
    harness.given_model(Obedient())
    before(monkeypatch, "_cut_over", lambda: switch(Toy, harness.tools, model="3"))
    with pytest.raises(TemporaryError, match="mood was switched to g3 meanwhile"):
        switch(Toy, harness.tools, model="2")
    assert (versions(harness), harness.tools.sink.ledger().serving("mood")) == ({3}, "g3")


def test_the_table_is_compared_by_its_own_model_while_another_generation_is_built(
    harness, monkeypatch
):
    with monkeypatch.context() as broken:
        broken.setattr(switching, "_cut_over", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            switch(Toy, harness.tools)
    newest = harness.tools.sink.ledger().runs("mood")[0]
    assert (newest.new.model.version, newest.state) == (2, RunState.DONE)
    assert reconcile(Toy, harness.tools).run is None


def test_readers_find_their_indexes_after_a_switch(harness):
    database = harness.tools.sink.ledger()._database
    with database.writing() as connection:
        connection.exec_driver_sql("CREATE INDEX by_label ON mood (label, score)")
    switch(Toy, harness.tools)
    with database.reading() as connection:
        found = inspect(connection).get_indexes("mood")
    assert sorted(index["column_names"] for index in found) == [["label", "score"], ["run_no"]]
