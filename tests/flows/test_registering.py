"""What becomes of a run and of a fitted model where MLflow does not take what it is told."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from toy.harness import ToyHarness, note, notes
from toy.job import Toy

from mlbatch.cli.work import _tell_standing
from mlbatch.errors import GateRefused, RunFailed, TemporaryError, UsageError
from mlbatch.gates import Gate, Verdict
from mlbatch.inference import infer
from mlbatch.planner import Request
from mlbatch.registering import Registered, register
from mlbatch.tracking import ModelVersion, TrainingRecord
from mlbatch.training import train


@pytest.fixture
def tools(tmp_path, mlflow):
    """A labelled toy job whose models and runs go to a real MLflow."""
    harness = ToyHarness(Toy, tmp_path, part_rows=64)
    harness.notes([note(n, f"{'good fine' if n % 2 else 'bad sad'} {n}") for n in range(200)])
    labels = [{"note_id": n, "label": "good" if n % 2 else "bad"} for n in range(200)]
    harness.given("moods", labels, key="note_id")
    return replace(harness.tools, tracking=mlflow)


def delete(mlflow):
    """Delete the job's experiment; its number, to bring it back by."""
    number = mlflow._experiment("toy")
    mlflow._client.delete_experiment(number)
    return number


def test_a_deleted_experiment_fails_no_inference_and_the_next_run_tells_of_both(
    harness, mlflow, tmp_path
):
    (tmp_path / "files").mkdir()
    record = TrainingRecord("toy", {}, {}, [], {}, {})
    mlflow.promote(mlflow.record(record, tmp_path / "files", "given"))
    number = delete(mlflow)
    tools = replace(harness.notes(notes(20)).tools, tracking=mlflow)
    ended = infer(Toy, Request(), tools)
    assert (ended.totals.written, ended.run.tracking_run_id) == (20, None)
    assert any("toy was deleted (mlflow experiments restore" in line for line in harness.notices)
    mlflow._client.restore_experiment(number)
    harness.notes(notes(5, start=21))
    infer(Toy, Request(), tools)
    runs = tools.sink.ledger().runs("mood")
    assert [bool(run.tracking_run_id) for run in runs] == [True, True]


def test_nothing_is_fitted_where_the_experiment_was_deleted(tools):
    delete(tools.tracking)
    told = []
    with pytest.raises(RunFailed, match="toy was deleted") as caught:
        train(Toy, replace(tools, notify=lambda stage, _: told.append(stage)))
    assert "mlflow experiments restore" in caught.value.hint
    assert told == []


@pytest.fixture
def kept(tools):
    """A training whose experiment was deleted while it fitted; the number to bring it back by."""
    deleted = []

    def notify(stage, _):
        if stage == "progress" and not deleted:
            deleted.append(delete(tools.tracking))

    with pytest.raises(RunFailed) as caught:
        train(Toy, replace(tools, notify=notify, new_id=lambda: "t1"))
    assert "the fitted model is kept; then: mlbatch register toy t1" in caught.value.hint
    return deleted[0]


def test_a_fitted_model_that_was_not_registered_is_kept_until_it_is(tools, kept, monkeypatch):
    with pytest.raises(RunFailed, match="toy was deleted"):
        register(Toy, "t1", tools)
    with pytest.raises(UsageError, match="no training t2") as caught:
        register(Toy, "t2", tools)
    assert caught.value.hint == "there is: t1"
    tools.tracking._client.restore_experiment(kept)
    registered = register(Toy, "t1", tools)
    assert registered.promoted
    assert tools.tracking.resolve("toy").metrics["f1_macro"] > 0.9
    assert infer(Toy, Request(), tools).totals.written == 200
    assert not (tools.models / "toy" / "training-t1").exists()


def test_a_model_whose_promotion_failed_is_not_registered_again(tools, kept, monkeypatch):
    tools.tracking._client.restore_experiment(kept)

    def down(*_):
        raise TemporaryError("MLflow does not answer")

    with monkeypatch.context() as outage:
        outage.setattr(type(tools.tracking), "promote", down)
        with pytest.raises(TemporaryError) as caught:
            register(Toy, "t1", tools)
    assert "mlbatch register toy t1" in caught.value.hint
    registered = register(Toy, "t1", tools)
    assert (registered.promoted, registered.version.version) == (True, 1)
    assert tools.tracking.resolve("toy").version == 1
    assert tools.tracking.resolve("toy", "2") is None


def test_the_gates_judge_a_kept_model_too(tools, kept, monkeypatch):
    tools.tracking._client.restore_experiment(kept)
    monkeypatch.setattr(Toy, "gates", (Gate("f1_macro", at_least=2.0),))
    registered = register(Toy, "t1", tools)
    assert tools.tracking.resolve("toy") is None
    with pytest.raises(GateRefused, match="version 1 was not promoted: f1_macro"):
        registered.require_promotion("toy")


def test_a_refusal_is_told_in_one_object_together_with_what_was_learnt(capsys):
    refused = Verdict(Gate("f1_macro", at_least=0.9), passed=False, value=0.5, bound=0.9)
    done = Registered(ModelVersion("toy", 2, "d"), (refused,), promoted=False)
    facts = {"schema": "mlbatch.register/1", "ok": False, "model_version": 2}
    code = _tell_standing(done, "toy", facts, "", as_json=True)
    told = capsys.readouterr()
    answer = json.loads(told.out)
    assert code == answer["exit_code"] == 3
    assert (answer["schema"], answer["error"]) == ("mlbatch.register/1", "GateRefused")
    assert "f1_macro" in told.err
