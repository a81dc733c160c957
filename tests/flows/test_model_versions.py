"""A table is of one version of the model, whatever the champion is meanwhile."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from datetime import timedelta

import numpy as np
import pytest
from toy.harness import interrupted, note, notes
from toy.job import Toy
from toy.model import Obedient

from mlbatch.connectors.sqlite import SqliteDatabase
from mlbatch.errors import ModelIncompatible, RunFailed, TemporaryError, UsageError
from mlbatch.inference import infer, preview
from mlbatch.ledger import RunKind, RunState
from mlbatch.model import Prediction
from mlbatch.planner import Request
from mlbatch.repair import retry
from mlbatch.testing import FolderTracking


@dataclass(frozen=True)
class NotSoGood(Obedient):
    """Fails for a text that the model before can read."""

    def predict(self, batch):
        texts = batch.column("text").to_pylist()
        return Prediction([], np.array([])) if "!sick" in texts else super().predict(batch)


def versions(harness):
    return {row["model_version"] for row in harness.rows()}


@pytest.mark.parametrize("full", [False, True])
def test_a_new_champion_is_not_mixed_into_the_table(harness, full):
    harness.notes(notes(25)).infer()
    harness.given_model(Obedient()).notes([note(900, "good", minutes=9_000)])
    ended = harness.infer(full=full)
    assert ended.run.new.model.version == 1
    assert versions(harness) == {1}
    (told,) = [notice for notice in harness.notices if "champion" in notice]
    assert "mood is of model v1 and stays so, the champion is v2" in told
    assert "mlbatch switch toy" in told
    assert "--in-place" in told


def test_a_run_of_the_tables_own_model_does_not_wait_for_the_registry(harness, monkeypatch):
    harness.notes(notes(25)).infer()
    done = threading.Event()

    def slow(*_):
        assert done.wait(60)
        raise TemporaryError("MLflow does not answer")

    monkeypatch.setattr(FolderTracking, "resolve", slow)
    ended = harness.notes([note(900, "good", minutes=9_000)]).infer()
    assert not done.is_set()
    done.set()
    assert ended.run.new.model.version == 1


def test_in_place_every_row_is_predicted_by_the_champion(harness):
    harness.notes(notes(25)).infer()
    harness.given_model(Obedient())
    ended = harness.infer(in_place=True)
    assert (ended.run.new.kind, ended.totals.written) == (RunKind.FULL, 25)
    assert versions(harness) == {2}
    assert harness.tools.sink.ledger().active("mood").model_version == 2
    assert harness.infer(in_place=True).run.new.kind is RunKind.DELTA


def test_a_clock_that_was_set_back_does_not_bring_the_old_model_back(harness, monkeypatch):
    harness.notes(notes(25)).infer()
    harness.given_model(Obedient())
    now = SqliteDatabase.now
    monkeypatch.setattr(SqliteDatabase, "now", lambda self: now(self) - timedelta(hours=2))
    harness.infer(in_place=True)
    harness.notes([note(4, "sad now", minutes=9_000)])
    assert harness.infer().run.new.model.version == 2
    assert versions(harness) == {2}


def test_another_version_by_name_is_refused_with_the_ways_to_it(harness):
    harness.notes(notes(5)).infer()
    harness.given_model(Obedient()).given_model(Obedient())
    with pytest.raises(UsageError, match="mood is of model v1, and v2 would be mixed") as caught:
        infer(Toy, Request(), harness.tools, model="2")
    assert "mlbatch switch toy" in caught.value.hint
    assert infer(Toy, Request(), harness.tools, model="1").run.new.model.version == 1
    assert infer(Toy, Request(in_place=True), harness.tools, model="2").totals.written == 5
    assert versions(harness) == {2}


def test_a_model_that_is_no_longer_usable_says_the_way_to_another(harness):
    harness.notes(notes(5)).infer()
    with pytest.raises(ModelIncompatible) as caught:
        infer(Toy, Request(), replace(harness.tools, load_model=_refuse))
    assert "train another model; then `mlbatch switch toy`" in caught.value.hint


def _refuse(*_):
    raise ModelIncompatible


def test_the_plan_tells_which_model_a_run_would_have(harness):
    harness.notes(notes(5)).infer()
    harness.given_model(Obedient())
    found = preview(Toy, Request(), harness.tools)
    assert (found.model.version, found.champion, found.plan.kind) == (1, 2, RunKind.DELTA)
    found = preview(Toy, Request(in_place=True), harness.tools)
    assert (found.model.version, found.plan.kind) == (2, RunKind.FULL)
    assert "model v2 takes the place of v1" in found.plan.reason


def test_what_a_superseded_change_of_model_wrote_is_written_over(harness, monkeypatch):
    harness.notes(notes(45)).infer()
    harness.given_model(Obedient())
    interrupted(harness, monkeypatch, 2, in_place=True)
    assert versions(harness) == {1, 2}
    ended = harness.infer(supersede=True)
    assert (ended.run.new.kind, ended.run.new.model.version) == (RunKind.FULL, 1)
    assert "may have left rows of model v2" in ended.plan.reason
    assert versions(harness) == {1}


def test_a_repair_does_not_hide_what_a_failed_change_of_model_left(harness):
    harness.notes([*notes(45), note(90, "!nan", minutes=900)]).infer()
    harness.given_model(NotSoGood())
    harness.notes([note(91, "!sick", minutes=10)])
    with pytest.raises(RunFailed, match="rows the model gave"):
        harness.infer(in_place=True)
    assert versions(harness) == {1, 2}
    harness._predictor = Obedient()
    assert retry(Toy, harness.tools).run.new.kind is RunKind.REPAIR
    ended = harness.infer()
    assert (ended.run.new.kind, ended.run.new.model.version) == (RunKind.FULL, 1)
    assert versions(harness) == {1}


def test_a_change_of_model_that_was_cut_short_is_finished(harness, monkeypatch):
    harness.notes(notes(45)).infer()
    harness.given_model(Obedient())
    interrupted(harness, monkeypatch, 2, in_place=True)
    ended = harness.infer()
    assert (ended.run.state, ended.run.new.model.version) == (RunState.DONE, 2)
    assert versions(harness) == {2}


def test_a_ledger_that_never_said_what_serves_goes_on(harness):
    harness.notes(notes(5)).infer()
    with harness.tools.sink.ledger()._database.writing() as connection:
        connection.exec_driver_sql("DELETE FROM mlbatch_active")
        connection.exec_driver_sql("DROP TABLE mlbatch_generation")
    ledger = harness.tools.sink.ledger()
    assert (ledger.active("mood"), ledger.serving("mood"), ledger.generations("mood")) == (
        None, "g1", (),
    )  # fmt: skip
    harness.given_model(Obedient()).notes([note(900, "good", minutes=9_000)])
    assert harness.infer().run.new.model.version == 1
    assert harness.tools.sink.ledger().active("mood").generation == "g1"
