"""One behaviour suite for every tracking connector."""

from __future__ import annotations

import secrets
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from bad_inputs import TEMPORARY, bad_input

from mlbatch.connectors.mlflow import DIGEST_TAG, MlflowTracking
from mlbatch.devstack.process import free_ports, launch, stop, wait_until_ready
from mlbatch.devstack.registry import Registry
from mlbatch.errors import MlbatchError, ModelTampered, RunFailed, TemporaryError
from mlbatch.testing import FolderTracking
from mlbatch.tracking import TRAINING_TAG, ModelVersion, TrainingRecord

RECORD = TrainingRecord(
    job="toy",
    parameters={"epochs": "5"},
    metrics={"f1_macro": 0.9},
    epochs=[{"rows": 1.0}, {"rows": 2.0}],
    tags={TRAINING_TAG: "t1"},
    texts={"evaluation.txt": "fine 良い", "confusion_matrix.svg": "<svg/>"},
)
SECOND = replace(RECORD, tags={TRAINING_TAG: "t2"})


@pytest.fixture(scope="session")
def server(migrated, tmp_path_factory):
    """An MLflow server over HTTP, which finds its tables made."""
    registry = Registry(tmp_path_factory.mktemp("server"), free_ports(1)[0])
    shutil.copy(migrated, registry.folder / "mlflow.db")
    service = registry.prepare()
    identity = launch(service)
    try:
        wait_until_ready(service, identity)
        yield registry.uri
    finally:
        stop(identity)


@pytest.fixture
def over_http(server, tmp_path):
    """The server, as empty as before afterwards."""
    tracking = MlflowTracking(server, tmp_path)
    yield tracking
    client = tracking._client
    for model in client.search_registered_models():
        client.delete_registered_model(model.name)
    for experiment in client.search_experiments():
        if experiment.name != "Default":
            client.rename_experiment(experiment.experiment_id, secrets.token_hex(4))


@pytest.fixture(params=["folder", "mlflow", "mlflow-server"])
def tracking(request, tmp_path):
    if request.param == "folder":
        return FolderTracking(tmp_path / "registry")
    if request.param == "mlflow-server":
        return request.getfixturevalue("over_http")
    shutil.copy(request.getfixturevalue("migrated"), tmp_path / "mlflow.db")
    return MlflowTracking(f"sqlite:///{tmp_path}/mlflow.db", tmp_path)


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model-files"
    folder.mkdir()
    (folder / "card.json").write_text("{}")
    return folder


def test_versions_count_up_and_carry_digest_and_metrics(tracking, model):
    first = tracking.record(RECORD, model, "d1")
    second = tracking.record(replace(SECOND, metrics={"f1_macro": 0.8}), model, "d2")
    assert (first.version, second.version) == (1, 2)
    found = tracking.resolve("toy", "2")
    assert (found.digest, found.metrics["f1_macro"]) == ("d2", 0.8)


def test_a_training_is_recorded_once(tracking, model):
    first = tracking.record(RECORD, model, "d1")
    assert tracking.record(RECORD, model, "d1") == first
    assert tracking.resolve("toy", "2") is None
    untold = replace(RECORD, tags={})
    versions = [tracking.record(untold, model, "d1").version for _ in range(2)]
    assert versions == [2, 3]


def test_a_job_of_very_many_labels_logs_all_of_its_figures(tracking, model):
    many = {f"class_{number}_f1": number / 10_000 for number in range(1_200)}
    tracking.record(replace(RECORD, metrics=many), model, "d1")
    assert tracking.resolve("toy", "1").metrics.items() >= many.items()


def test_the_champion_is_who_was_promoted_last(tracking, model):
    first = tracking.record(RECORD, model, "d1")
    assert tracking.resolve("toy") is None
    tracking.promote(first)
    second = tracking.record(SECOND, model, "d2")
    assert tracking.resolve("toy").version == 1
    tracking.promote(second)
    assert tracking.resolve("toy").version == 2
    tracking.promote(first)
    assert tracking.resolve("toy").version == 1


def test_what_does_not_exist_is_none(tracking, model):
    assert tracking.resolve("nobody") is None
    assert tracking.resolve("nobody", "3") is None
    tracking.record(RECORD, model, "d1")
    assert tracking.resolve("toy", "challenger") is None
    assert tracking.resolve("toy", "9") is None


def test_files_come_back_as_they_went(tracking, model, tmp_path):
    version = tracking.record(RECORD, model, "d1")
    folder = tracking.fetch(version, tmp_path / "fetched")
    assert (folder / "card.json").read_text() == "{}"
    assert (tracking.fetch(version, tmp_path / "fetched") / "card.json").exists()


def test_an_inference_is_recorded_once(tracking, model):
    tracking.record(RECORD, model, "d1")
    first = tracking.record_inference("toy", "run1", {"rows_written": 3.0})
    assert tracking.record_inference("toy", "run1", {"rows_written": 3.0}) == first
    assert tracking.record_inference("toy", "run2", {"rows_written": 4.0}) != first
    assert tracking.record_inference("other", "run3", {"rows_written": 4.0})


def test_mlflow_holds_all_that_people_look_for(mlflow, model):
    version = mlflow.record(RECORD, model, "d1")
    client = mlflow._client
    run = client.get_run(version.run_id)
    assert run.data.params == {"epochs": "5"}
    assert run.data.metrics["f1_macro"] == 0.9
    assert run.data.tags["mlbatch.mode"] == "train"
    history = client.get_metric_history(version.run_id, "epoch_rows")
    assert [(m.step, m.value) for m in history] == [(1, 1.0), (2, 2.0)]
    artifacts = Path(run.info.artifact_uri.removeprefix("file://"))
    assert (artifacts / "evaluation.txt").read_text() == "fine 良い"
    assert (artifacts / "model/card.json").exists()


def test_a_version_without_a_digest_is_never_served(mlflow, model):
    mlflow.record(RECORD, model, "d1")
    mlflow._client.delete_model_version_tag("toy", "1", DIGEST_TAG)
    with pytest.raises(ModelTampered, match="carries no digest"):
        mlflow.resolve("toy", "1")


def test_a_training_whose_end_mlflow_was_not_told_is_ended_by_the_next_attempt(
    mlflow, model, monkeypatch
):
    mlflow.ready("toy")
    with monkeypatch.context() as outage:
        outage.setattr(type(mlflow._client), "set_terminated", _refuse)
        with pytest.raises(RunFailed):
            mlflow.record(RECORD, model, "d1")
    assert mlflow.record(RECORD, model, "d1").version == 1
    (run,) = mlflow._client.search_runs([mlflow._experiment("toy")])
    assert run.info.status == "FINISHED"


def _refuse(*_):
    from mlflow.exceptions import MlflowException

    raise MlflowException("no", error_code=3)


@bad_input(90, outcome=TEMPORARY)
def test_90_a_registry_that_is_down_is_temporary(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    down = MlflowTracking("http://127.0.0.1:9", tmp_path)
    with pytest.raises(TemporaryError, match="127"):
        down.resolve("toy")


def test_a_training_that_cannot_be_registered_ends_as_failed(mlflow, model):
    (mlflow.artifacts / "toy").write_text("in the way of the artifacts")
    with pytest.raises(MlbatchError):
        mlflow.record(RECORD, model, "d1")
    (run,) = mlflow._client.search_runs([mlflow._experiment("toy")])
    assert run.info.status == "FAILED"


def test_a_log_in_in_the_uri_is_used_and_never_shown(server, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    known = MlflowTracking(server.replace("://", "://me:hunter2@"), tmp_path)
    assert known.about() == f"MLflow at {server}"
    told = [repr(known)]
    for uri in ("http://me:hunter2@127.0.0.1:9", "http://me:hunt@er2@127.0.0.1:9"):
        with pytest.raises(TemporaryError, match=r"127\.0\.0\.1") as caught:
            MlflowTracking(uri, tmp_path).resolve("toy")
        told.append(str(caught.value))
    with pytest.raises(RunFailed, match="refuses") as caught:
        known.promote(ModelVersion("nobody", 1, "d"))
    told.append(str(caught.value))
    assert not [line for line in told if "hunt" in line or "er2" in line]


def test_what_mlflow_refuses_is_a_failure(mlflow, model):
    with pytest.raises(RunFailed, match="refuses"):
        mlflow.record(replace(RECORD, metrics={"日本語!": 1.0}), model, "d1")


def test_a_run_that_the_server_was_not_told_of_is_told_by_the_next_one(harness, monkeypatch):
    from toy.harness import notes

    def down(*_):
        raise TemporaryError("MLflow does not answer")

    with monkeypatch.context() as outage:
        outage.setattr(FolderTracking, "record_inference", down)
        first = harness.notes(notes(20)).infer()
    assert first.run.tracking_run_id is None
    assert any("the next run does so" in notice for notice in harness.notices)
    harness.notes(notes(5, start=21)).infer()
    runs = harness.tools.sink.ledger().runs("mood")
    assert [run.tracking_run_id for run in runs] == [run.run_id for run in runs]
