"""MLflow: training runs, the model registry, and a run for each finished inference.

Models are kept as plain artifacts with a digest, never as MLflow flavours: loading one of those may
run code that came with it, whatever MLflow's pickle switch says.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlbatch.connectors.password import without_log_in
from mlbatch.connectors.unreached import advice, reason, unreached
from mlbatch.errors import MlbatchError, ModelTampered, NoAccess, RunFailed, barred
from mlbatch.tracking import CHAMPION, TRAINING_TAG, ModelVersion, TrainingRecord

if TYPE_CHECKING:
    from mlflow import MlflowClient

DIGEST_TAG = "mlbatch.digest"
RUN_TAG = "mlbatch.run_id"
MODEL_PATH = "model"
_TRUST = "REQUESTS_CA_BUNDLE"
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # By default a dead server is waited for by the minute.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
}

_LOCAL = "sqlite:///"


@dataclass(frozen=True)
class MlflowTracking:
    """`mlbatch.tracking.Tracking` at ``uri``; artifacts of a local store go below ``artifacts``."""

    uri: str = field(repr=False)
    """It may hold a log-in."""
    artifacts: Path

    @cached_property
    def _client(self) -> MlflowClient:
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        # Two seconds of import that only commands which talk to MLflow should pay.
        from mlflow import MlflowClient  # noqa: PLC0415

        for name in ("alembic", "mlflow"):
            logging.getLogger(name).setLevel(logging.WARNING)
        if self.uri.startswith(_LOCAL):
            Path(self.uri.removeprefix(_LOCAL)).parent.mkdir(parents=True, exist_ok=True)
        return MlflowClient(self.uri, self.uri)

    def about(self) -> str:
        """See `mlbatch.tracking.Tracking.about`."""
        self.resolve("mlbatch_doctor")
        return f"MLflow at {without_log_in(self.uri)}"

    def record(self, training: TrainingRecord, model: Path, digest: str) -> ModelVersion:
        """See `mlbatch.tracking.Tracking.record`."""
        with _translated(self.uri, os.R_OK | os.W_OK):
            experiment = self._experiment(training.job)
            found = self._recorded(experiment, training)
            run_id, version = found or self._record_anew(experiment, training, model, digest)
            self._client.set_terminated(run_id)
        return ModelVersion(training.job, version, digest, training.metrics, run_id)

    def _recorded(self, experiment: str, training: TrainingRecord) -> tuple[str, int] | None:
        """Run and version of a training that was registered before."""
        known = training.tags.get(TRAINING_TAG, "")
        wanted = f"tags.`{TRAINING_TAG}` = {json.dumps(known)}"
        for run in self._client.search_runs([experiment], wanted):
            run_id = str(run.info.run_id)
            for version in self._client.search_model_versions(f"run_id = '{run_id}'"):
                return run_id, int(version.version)
        return None

    def _record_anew(
        self, experiment: str, training: TrainingRecord, model: Path, digest: str
    ) -> tuple[str, int]:
        run_id = self._start(experiment, {**training.tags, "mlbatch.mode": "train"})
        with self._failed_unless_through(run_id):
            self._log(run_id, training)
            self._client.log_artifacts(run_id, str(model), MODEL_PATH)
            for name, text in training.texts.items():
                self._client.log_text(run_id, text, name)
            return run_id, self._register(training.job, run_id, digest)

    @contextmanager
    def _failed_unless_through(self, run_id: str) -> Iterator[None]:
        try:
            yield
        except BaseException:
            # The server may be what is gone: the first error is the one to tell.
            with suppress(Exception):
                self._client.set_terminated(run_id, "FAILED")
            raise

    def ready(self, job: str) -> None:
        """See `mlbatch.tracking.Tracking.ready`."""
        with _translated(self.uri, os.R_OK | os.W_OK):
            self._experiment(job)

    def _experiment(self, job: str) -> str:
        """The number of the job's experiment, which is made where there is none."""
        experiment = self._client.get_experiment_by_name(job)
        if experiment is None:
            local = self.uri.startswith(_LOCAL)
            location = (self.artifacts / job).absolute().as_uri() if local else None
            return str(self._client.create_experiment(job, artifact_location=location))
        number = str(experiment.experiment_id)
        if experiment.lifecycle_stage != "active":
            message = f"MLflow at {without_log_in(self.uri)}: the experiment {job} was deleted"
            hint = f"mlflow experiments restore --experiment-id {number}"
            raise RunFailed(message, hint=hint)
        return number

    def _start(self, experiment: str, tags: Mapping[str, str]) -> str:
        name = f"{tags['mlbatch.mode']}-{tags.get(RUN_TAG, tags.get(TRAINING_TAG, ''))}"
        return str(self._client.create_run(experiment, tags=dict(tags), run_name=name).info.run_id)

    def _log(self, run_id: str, training: TrainingRecord) -> None:
        from mlflow.entities import Metric, Param  # noqa: PLC0415

        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, 0) for name, value in training.metrics.items()]
        metrics += [
            Metric(f"epoch_{name}", value, now, step)
            for step, epoch in enumerate(training.epochs, start=1)
            for name, value in epoch.items()
        ]
        params = [Param(name, value) for name, value in training.parameters.items()]
        self._client.log_batch(run_id, metrics=metrics, params=params)

    def _register(self, name: str, run_id: str, digest: str) -> int:
        from mlflow.exceptions import MlflowException  # noqa: PLC0415

        try:
            self._client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        artifact_uri = self._client.get_run(run_id).info.artifact_uri
        version = self._client.create_model_version(
            name, f"{artifact_uri}/{MODEL_PATH}", run_id, tags={DIGEST_TAG: digest}
        )
        return int(version.version)

    def resolve(self, name: str, alias_or_version: str = CHAMPION) -> ModelVersion | None:
        """See `mlbatch.tracking.Tracking.resolve`."""
        if self.uri.startswith(_LOCAL) and not Path(self.uri.removeprefix(_LOCAL)).exists():
            return None
        from mlflow.exceptions import MlflowException  # noqa: PLC0415

        with _translated(self.uri):
            try:
                found = self._find(name, alias_or_version)
            except MlflowException as error:
                if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    return None
                raise
            metrics = self._client.get_run(found.run_id).data.metrics if found.run_id else {}
        digest = found.tags.get(DIGEST_TAG)
        if digest is None:
            message = f"{name} version {found.version} carries no digest"
            raise ModelTampered(message, hint="only models that mlbatch registered are served")
        return ModelVersion(name, int(found.version), digest, metrics, found.run_id)

    def _find(self, name: str, alias_or_version: str) -> Any:  # noqa: ANN401  untyped entity
        if alias_or_version.isdecimal():
            return self._client.get_model_version(name, alias_or_version)
        return self._client.get_model_version_by_alias(name, alias_or_version)

    def fetch(self, version: ModelVersion, target: Path) -> Path:
        """See `mlbatch.tracking.Tracking.fetch`."""
        from mlflow.artifacts import download_artifacts  # noqa: PLC0415

        target.parent.mkdir(parents=True, exist_ok=True)
        with _translated(self.uri):
            found = self._client.get_model_version(version.name, str(version.version))
            with tempfile.TemporaryDirectory(dir=target.parent) as staging:
                fetched = download_artifacts(
                    artifact_uri=found.source, dst_path=staging, tracking_uri=self.uri
                )
                shutil.rmtree(target, ignore_errors=True)
                shutil.move(fetched, target)
        return target

    def promote(self, version: ModelVersion) -> None:
        """See `mlbatch.tracking.Tracking.promote`."""
        with _translated(self.uri, os.R_OK | os.W_OK):
            self._client.set_registered_model_alias(version.name, CHAMPION, str(version.version))

    def record_inference(self, job: str, run_id: str, totals: Mapping[str, float]) -> str:
        """See `mlbatch.tracking.Tracking.record_inference`."""
        from mlflow.entities import Metric  # noqa: PLC0415

        with _translated(self.uri, os.R_OK | os.W_OK):
            experiment = self._experiment(job)
            tracked = self._already(experiment, run_id)
            if tracked is None:
                tracked = self._start(experiment, {RUN_TAG: run_id, "mlbatch.mode": "infer"})
                now = int(time.time() * 1000)
                metrics = [Metric(name, value, now, 0) for name, value in totals.items()]
                self._client.log_batch(tracked, metrics=metrics)
                self._client.set_terminated(tracked)
        return tracked

    def _already(self, experiment: str, run_id: str) -> str | None:
        wanted = f"tags.`{RUN_TAG}` = {json.dumps(run_id)} and attributes.status = 'FINISHED'"
        found = self._client.search_runs([experiment], wanted, max_results=1)
        return str(found[0].info.run_id) if found else None


@contextmanager
def _translated(uri: str, rights: int = os.R_OK) -> Iterator[None]:
    """The one place where MLflow's errors become ours."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    if uri.startswith(_LOCAL):
        _check_rights(Path(uri.removeprefix(_LOCAL)), rights)
    try:
        yield
    except MlflowException as error:
        raise _translate(error, uri) from error
    except OSError as error:
        message, told = without_log_in(f"MLflow at {uri}: {error}"), barred(error)
        if told is not None:
            raise NoAccess(message, hint=told.hint) from error
        raise unreached(error, message, _advice(error, uri), _TRUST) from error


def _check_rights(file: Path, rights: int) -> None:
    """Before MLflow asks: it tries again for minutes, and then prints a traceback of its own."""
    for place, wanted in ((file.parent, rights | os.X_OK), (file, rights)):
        if os.access(place, os.F_OK) and not os.access(place, wanted):
            what = "written" if os.access(place, wanted & ~os.W_OK) else "read"
            message = f"MLflow at {_LOCAL}{file}: {place} may not be {what} by this account"
            hint = f"let it read and write {file.parent} and all below, or change tracking.path"
            raise NoAccess(message, hint=hint)


def _translate(error: Any, uri: str) -> MlbatchError:  # noqa: ANN401  imported lazily
    where, first = without_log_in(uri), without_log_in(str(error).splitlines()[0])
    if error.error_code in ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED"):
        # MLflow tells a screenful of a server that is not there, with the reason at its end.
        why = reason(error) or first
        message = f"MLflow at {where} does not answer: {why}"
        return unreached(error, message, _advice(error, uri), _TRUST)
    hint = f"look whether {_setting(uri)} names an MLflow server, and at that server's log"
    return RunFailed(f"MLflow at {where} refuses: {first}", hint=hint)


def _advice(error: BaseException, uri: str) -> str:
    again = "run again; nothing was lost"
    if reason(error) is None:
        return f"look at {_setting(uri)} and the server's log, and {again}"
    return advice(error, _setting(uri), again)


def _setting(uri: str) -> str:
    return "tracking.path" if uri.startswith(_LOCAL) else "tracking.uri"
