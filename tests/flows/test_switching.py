"""A table comes to another model, and back: filled beside, looked over, and renamed in one step."""

from __future__ import annotations

import os
import re
import signal
import traceback
from dataclasses import dataclass, replace

import numpy as np
import pytest
from toy.harness import QuickHarness, ToyHarness, note, notes
from toy.job import Toy
from toy.model import Obedient

from mlbatch import failpoint, switching
from mlbatch.connectors.duckdb import DuckdbWarehouse
from mlbatch.connectors.mysql.sink import MysqlSink
from mlbatch.errors import Busy, GateRefused, TemporaryError, UsageError
from mlbatch.generation import GenerationState
from mlbatch.inference import infer
from mlbatch.ledger import Owner, RunKind, RunState
from mlbatch.model import Prediction
from mlbatch.planner import Request
from mlbatch.repair import reconcile
from mlbatch.switching import drop_kept, kept, roll_back, switch


def killed_at(place, work):
    """Do it in a process of its own, which is killed there."""
    child = os.fork()
    if not child:
        try:
            failpoint.arm(f"{place}:kill:1")
            work()
        except BaseException:  # noqa: BLE001  a child's last words
            traceback.print_exc()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def to_switch(folder, sink=None):
    """A table of model 1, and model 2 to switch to."""
    made = QuickHarness(Toy, folder, part_rows=10, sink=sink).given_model(Obedient())
    made.notes(notes(25)).infer()
    return made.given_model(Obedient())


@pytest.fixture(params=["sqlite", "mysql"])
def harness(request, tmp_path):
    sink = None
    if request.param == "mysql":
        sink = MysqlSink(request.getfixturevalue("mysql_address"))
    return to_switch(tmp_path, sink)


@pytest.fixture
def embedded(tmp_path):
    return to_switch(tmp_path)


def versions(harness, name="mood"):
    table = replace(Toy.output.table, name=name)
    return set(harness.tools.sink.rows(table).read_all()["model_version"].to_pylist())


def labels(harness):
    return {row["note_id"]: row["label"] for row in harness.rows()}


def test_a_new_model_takes_over_with_every_row_and_deltas_follow_it(harness):
    before = labels(harness)
    done = switch(Toy, harness.tools)
    assert (done.before.model_version, done.after.model_version, done.kept) == (1, 2, "mood__g1")
    assert (done.inspection.rows, done.inspection.rescored) == (25, 25)
    assert done.inspection.distance.labels == done.inspection.distance.changed == 0.0
    assert (labels(harness), versions(harness), versions(harness, "mood__g1")) == (before, {2}, {1})
    beside = [f for f in harness.tools.storage.root.glob("mlbatch/toy/_*/**/*") if f.is_file()]
    assert beside == []

    harness.notes([note(900, "good", minutes=9_000)])
    delta = harness.infer()
    assert (delta.run.new.kind, delta.run.new.model.version) == (RunKind.DELTA, 2)
    assert (delta.run.new.generation, delta.run.new.output_table) == ("g2", "mood")
    assert 900 in labels(harness)
    numbers = [run.run_no for run in harness.tools.sink.ledger().runs("mood")]
    assert len(numbers) == len(set(numbers))
    assert reconcile(Toy, harness.tools).run is None

    again = switch(Toy, harness.tools)
    assert again.idle == "it is of model v2 already"
    assert again.after.generation == "g2"


def test_the_way_back_brings_the_old_rows_up_to_date_with_their_own_model(harness):
    switch(Toy, harness.tools)
    harness.notes([note(900, "good", minutes=9_000), note(3, "good now", minutes=9_001)])
    harness.infer()
    done = roll_back(Toy, harness.tools)
    assert (done.after.generation, done.after.model_version, done.kept) == ("g1", 1, "mood__g2")
    assert (labels(harness)[900], labels(harness)[3]) == ("good", "good")
    assert (versions(harness), versions(harness, "mood__g2")) == ({1}, {2})
    # Typed again, it stays where it is.
    assert "rolled back to g1 (model v1) already" in roll_back(Toy, harness.tools).idle
    assert harness.infer().run.new.model.version == 1
    # Forward again is a generation of its own.
    assert switch(Toy, harness.tools).after.generation == "g3"
    assert roll_back(Toy, harness.tools).after.generation == "g1"


def test_what_the_deltas_cannot_have_seen_is_mended_before_the_switch(harness, monkeypatch):
    fill = switching._fill

    def then_late_rows(*given):
        fill(*given)
        harness.notes([note(901, "sad and late", minutes=-9_000)])
        # Another text of the same time: only the sample sees it.
        harness.notes([note(6, "good now", minutes=60)])

    monkeypatch.setattr(switching, "_fill", then_late_rows)
    switch(Toy, harness.tools)
    assert (labels(harness)[901], labels(harness)[6]) == ("bad", "good")
    kinds = [run.new.kind for run in harness.tools.sink.ledger().runs("mood", "g2")]
    assert kinds == [
        RunKind.DELTA, RunKind.REPAIR, RunKind.REPAIR, RunKind.DELTA, RunKind.BACKFILL,
    ]  # fmt: skip


def test_what_comes_after_the_look_is_in_the_last_delta(embedded, monkeypatch):
    inspect = switching.inspect

    def then_rows(*given):
        found = inspect(*given)
        embedded.notes([note(902, "good", minutes=9_000)])
        return found

    monkeypatch.setattr(switching, "inspect", then_rows)
    done = switch(Toy, embedded.tools)
    assert done.inspection.rows == 25
    assert labels(embedded)[902] == "good"


def test_changed_code_is_not_silently_resumed(embedded, monkeypatch):
    killed_at("after_adopt", lambda: switch(Toy, embedded.tools))
    monkeypatch.setattr("mlbatch.inference.code_digest", lambda _: "other")
    with pytest.raises(UsageError, match="code has changed"):
        switch(Toy, embedded.tools)
    switch(Toy, embedded.tools, request=Request(supersede=True))
    states = [run.state for run in embedded.tools.sink.ledger().runs("mood", "g2")]
    assert states == [RunState.DONE] * 3 + [RunState.SUPERSEDED]


def test_quarantined_rows_are_no_reason_to_refuse(harness):
    harness.notes([note(50, "!nan", minutes=600)])
    assert switch(Toy, harness.tools).set_aside == 1
    assert 50 not in labels(harness)
    assert versions(harness) == {2}


def test_rows_that_vanish_meanwhile_are_removed(embedded, monkeypatch):
    fill = switching._fill

    def then_gone(*given):
        fill(*given)
        warehouse = embedded.tools.warehouse
        assert isinstance(warehouse, DuckdbWarehouse)
        with warehouse._connected() as connection:
            connection.execute("DELETE FROM notes WHERE id = 4")

    monkeypatch.setattr(switching, "_fill", then_gone)
    switch(Toy, embedded.tools)
    assert 4 not in labels(embedded)


@dataclass(frozen=True)
class Gloomy(Obedient):
    """Everything is bad."""

    def predict(self, batch):
        return Prediction(["bad"] * len(batch), np.full(len(batch), 0.5))


@dataclass(frozen=True)
class Fickle(Obedient):
    """Never the same score twice."""

    def predict(self, batch):
        return Prediction(["good"] * len(batch), np.random.default_rng().random(len(batch)))


def test_labels_that_move_too_far_are_refused_unless_somebody_says_so(embedded):
    embedded.given_model(Gloomy())
    with pytest.raises(GateRefused, match=r"68.0% of the labels of mood__g2 are others") as caught:
        switch(Toy, embedded.tools)
    told = re.search(r"--max-distance (\S+) or more lets it pass", caught.value.hint).group(1)
    assert (versions(embedded), embedded.tools.sink.ledger().serving("mood")) == ({1}, "g1")
    done = switch(Toy, embedded.tools, max_distance=float(told))
    assert done.inspection.distance.labels == pytest.approx(0.68)
    assert done.inspection.distance.changed == pytest.approx(0.68)
    assert versions(embedded) == {3}


def test_a_model_that_answers_otherwise_each_time_is_refused(embedded):
    embedded.given_model(Fickle())
    with pytest.raises(GateRefused, match="25 of 25 rows of mood__g2 come out otherwise now: 1, 2"):
        switch(Toy, embedded.tools, max_distance=1.0)
    assert versions(embedded) == {1}


def test_the_daily_delta_goes_on_beside_the_backfill(harness, monkeypatch):
    """In the middle of the new generation's part, the serving table has its delta."""
    ran = []

    class Beside(Obedient):
        def predict(self, batch):
            if not ran:
                ran.append(True)
                harness.notes([note(900, "good", minutes=9_000)])
                other = replace(harness.tools, owner=Owner("another", "elsewhere", 1, ""))
                ran[0] = infer(Toy, Request(), _with(other, Obedient()))
            return super().predict(batch)

    done = switch(Toy, _with(harness.tools, Beside()))
    assert (ran[0].run.new.generation, ran[0].run.new.model.version) == ("g1", 1)
    assert done.after.generation == "g2"
    assert labels(harness)[900] == "good"
    assert versions(harness) == {2}


def _with(tools, model):
    return replace(tools, load_model=lambda *_: model)


def test_a_table_that_is_being_worked_on_is_left_alone_and_nothing_is_lost(harness):
    ledger = harness.tools.sink.ledger()
    lease = ledger.acquire("mood", "toy", Owner("somebody", "another-host", 12, ""), 5)
    with pytest.raises(Busy, match="mood is being worked on by process 12"):
        switch(Toy, harness.tools)
    backfilled = ledger.runs("mood", "g2")[-1]
    assert (backfilled.new.kind, backfilled.state) == (RunKind.BACKFILL, RunState.DONE)
    ledger.release(lease, 6)
    switch(Toy, harness.tools)
    backfills = [r for r in ledger.runs("mood", "g2") if r.new.kind is RunKind.BACKFILL]
    assert backfills == [backfilled]


def test_two_switches_at_once_do_not_meet(embedded):
    ledger = embedded.tools.sink.ledger()
    ledger.acquire("mood", "toy", Owner("somebody", "another-host", 12, ""), 5, "g2")
    with pytest.raises(Busy, match="mood__g2 is being worked on"):
        switch(Toy, embedded.tools)


def test_a_champion_that_changed_meanwhile_asks_for_a_word(embedded, monkeypatch):
    monkeypatch.setattr(switching, "_cut_over", _interrupted)
    with pytest.raises(KeyboardInterrupt):
        switch(Toy, embedded.tools)
    monkeypatch.undo()
    embedded.given_model(Obedient())
    with pytest.raises(
        UsageError, match="half built with model v2, and the champion is v3"
    ) as caught:
        switch(Toy, embedded.tools)
    assert "--model 2 finishes it, --model 3 gives it up" in caught.value.hint
    done = switch(Toy, embedded.tools, model="3")
    assert (done.after.generation, done.after.model_version) == ("g3", 3)
    assert not embedded.tools.sink.holds("mood__g2")
    (given_up, _) = embedded.tools.sink.ledger().generations("mood")
    assert (given_up.name, given_up.state) == ("g2", GenerationState.ABANDONED)


def _interrupted(*_):
    raise KeyboardInterrupt


def test_there_must_be_something_to_switch_from_and_back_to(tmp_path):
    harness = ToyHarness(Toy, tmp_path, part_rows=10).given_model(Obedient()).notes(notes(3))
    for way in (switch, roll_back):
        with pytest.raises(UsageError, match="mood has never been finished"):
            way(Toy, harness.tools)
    harness.infer()
    with pytest.raises(UsageError, match="none served before it"):
        roll_back(Toy, harness.tools)


def test_a_generation_that_somebody_dropped_is_no_way_back(embedded):
    switch(Toy, embedded.tools)
    with embedded.tools.sink.ledger()._database.writing() as connection:
        connection.exec_driver_sql("DROP TABLE mood__g1")
    with pytest.raises(UsageError, match="mood__g1, which served before, is no longer there"):
        roll_back(Toy, embedded.tools)
    assert not embedded.tools.sink.holds("mood__g1")


def test_an_unfinished_run_of_the_old_generation_is_finished_on_the_way_back(embedded, monkeypatch):
    embedded.notes(notes(30, start=100))
    monkeypatch.setattr("mlbatch.connectors.sqlite.SqlitePartSession.commit", _interrupted)
    with pytest.raises(KeyboardInterrupt):
        embedded.infer()
    monkeypatch.undo()
    left = embedded.tools.sink.ledger().runs("mood", "g1")[0]
    switch(Toy, embedded.tools)
    assert embedded.infer().run.new.generation == "g2"
    roll_back(Toy, embedded.tools)
    runs = {run.run_id: run for run in embedded.tools.sink.ledger().runs("mood", "g1")}
    assert runs[left.run_id].state is RunState.DONE
    assert len(labels(embedded)) == 55


def test_what_is_kept_can_be_dropped_and_then_there_is_no_way_back(harness):
    switch(Toy, harness.tools)
    before, ledger = labels(harness), harness.tools.sink.ledger()
    assert kept(Toy, harness.tools) == ("g1",)
    somebody = Owner("somebody", "another-host", 12, "")
    for generation in (None, "g1"):
        lease = ledger.acquire("mood", "toy", somebody, 5, generation)
        with pytest.raises(Busy, match="is being worked on by process 12"):
            drop_kept(Toy, harness.tools, ("g1",))
        ledger.release(lease, 6)
    assert harness.tools.sink.holds("mood__g1")

    drop_kept(Toy, harness.tools, ("g1",))

    assert not harness.tools.sink.holds("mood__g1")
    assert kept(Toy, harness.tools) == ()
    assert (labels(harness), versions(harness)) == (before, {2})
    with pytest.raises(UsageError, match="mood__g1, which served before, is no longer there"):
        roll_back(Toy, harness.tools)
    harness.given_model(Obedient())
    assert switch(Toy, harness.tools).after.generation == "g3"
    assert roll_back(Toy, harness.tools).after.generation == "g2"
    assert kept(Toy, harness.tools) == ("g3",)


def test_what_is_being_filled_or_serves_is_not_dropped(embedded, monkeypatch):
    monkeypatch.setattr(switching, "_cut_over", _interrupted)
    with pytest.raises(KeyboardInterrupt):
        switch(Toy, embedded.tools)
    monkeypatch.undo()
    assert embedded.tools.sink.holds("mood__g2")
    assert kept(Toy, embedded.tools) == ()
    switch(Toy, embedded.tools)
    roll_back(Toy, embedded.tools)
    with pytest.raises(TemporaryError, match="switched to g1 meanwhile"):
        drop_kept(Toy, embedded.tools, ("g1", "g2"))
    assert embedded.tools.sink.holds("mood__g2")


def test_a_generation_dropped_on_the_way_back_is_not_made_anew_and_empty(embedded, monkeypatch):
    switch(Toy, embedded.tools)
    look = switching.complete

    def then_dropped(*given):
        found = look(*given)
        drop_kept(Toy, embedded.tools, ("g1",))
        return found

    monkeypatch.setattr(switching, "complete", then_dropped)
    with pytest.raises(TemporaryError, match="mood__g1 was dropped meanwhile"):
        roll_back(Toy, embedded.tools)
    assert (len(labels(embedded)), versions(embedded)) == (25, {2})
    assert not embedded.tools.sink.holds("mood__g1")


PLACES = ["after_create", "after_move", "in_finish", "after_finish", *failpoint.SWITCH_PLACES]


@pytest.mark.parametrize("place", PLACES)
def test_a_switch_that_was_killed_anywhere_is_finished_by_typing_it_again(harness, place):
    harness.notes([note(900, "good", minutes=9_000)])
    killed_at(place, lambda: switch(Toy, harness.tools))
    done = switch(Toy, harness.tools)
    assert (done.after.generation, done.after.model_version) == ("g2", 2)
    assert (versions(harness), versions(harness, "mood__g1")) == ({2}, {1})
    assert labels(harness)[900] == "good"
    assert harness.infer().run.new.model.version == 2


@pytest.mark.parametrize("place", failpoint.SWITCH_PLACES)
def test_a_way_back_that_was_killed_is_finished_by_typing_it_again(harness, place):
    switch(Toy, harness.tools)
    killed_at(place, lambda: roll_back(Toy, harness.tools))
    assert roll_back(Toy, harness.tools).after.generation == "g1"
    assert (versions(harness), versions(harness, "mood__g2")) == ({1}, {2})


def test_the_daily_run_mends_a_switch_that_was_cut_short(harness):
    killed_at("after_rename", lambda: switch(Toy, harness.tools))
    harness.notes([note(900, "good", minutes=9_000)])
    ended = harness.infer()
    # On MariaDB the names had changed; in SQLite all of it was taken back.
    assert versions(harness) == {ended.run.new.model.version}
    assert labels(harness)[900] == "good"
    switch(Toy, harness.tools)
    assert versions(harness) == {2}
