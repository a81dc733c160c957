"""The whole flow of training, from the labelled rows to a registered, perhaps promoted, model."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mlbatch.creation import count_rows
from mlbatch.errors import UsageError
from mlbatch.extraction import Extracted, extract
from mlbatch.fitting import EpochMetrics, FitResult, Plan, fit
from mlbatch.labelled import LabelledRows, select_training_rows
from mlbatch.predicting import judged
from mlbatch.project import code_digest
from mlbatch.query import contradiction_query
from mlbatch.registering import Registered, keep, register
from mlbatch.rehearsal import rehearse
from mlbatch.reporting import counted
from mlbatch.tracking import TRAINING_TAG, TrainingRecord
from mlbatch.unloading import take_snapshot
from mlbatch.window import Window

if TYPE_CHECKING:
    from mlbatch.job import Job
    from mlbatch.snapshot import Snapshot
    from mlbatch.tools import Tools


@dataclass(frozen=True, slots=True)
class Trained(Registered):
    """How a training ended."""

    result: FitResult
    rows: int
    left_out: Mapping[str, int]
    """Rows that could not be learnt from, by reason."""


def train(job: type[Job], tools: Tools) -> Trained:
    """Fit the job's model on its labelled rows, register it, and promote it when its gates hold.

    Raises UsageError when there is nothing to learn from, DeclarationError, before anything is
    unloaded, when the job's model cannot learn so.
    """
    rehearse(job)
    training_id = tools.new_id()
    tools.tracking.ready(job.name)
    snapshot = _take_rows(job, training_id, tools)
    epochs: list[EpochMetrics] = []

    def on_epoch(metrics: EpochMetrics) -> None:
        epochs.append(metrics)
        line = f"epoch {metrics.epoch} of {job.training.epochs}, {metrics.seconds:.1f} s"
        tools.notify("progress", line)

    with _extracted(job, snapshot, tools) as rows:
        result = fit(job.model, rows.epoch, _learning_plan(job), on_epoch)
    if job.predict is not None:
        # What is judged is what will answer.
        tell = partial(tools.notify, "notice")
        figures = judged(job, result.model, rows.read(), job.training.holdout, tell)
        result = replace(result, evaluation=figures)
    record = _record(job, training_id, result, epochs, snapshot, tools)
    keep(result.model, record, training_id, tools)
    done = register(job, training_id, tools)
    left_out = dict(rows.left_out)
    return Trained(done.version, done.verdicts, done.promoted, result, snapshot.rows, left_out)


@contextmanager
def _extracted(job: type[Job], snapshot: Snapshot, tools: Tools) -> Iterator[Extracted]:
    """The snapshot's features, on disk for as long as they are learnt from."""
    started = time.perf_counter()
    tools.models.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{job.name}-features-", dir=tools.models) as folder:
        limit = job.training.cache_megabytes * 2**20
        rows = LabelledRows(job, tools.storage)
        extracted = extract(rows, snapshot, Path(folder), tools.engine, limit)
        seconds = time.perf_counter() - started
        kept = f"{extracted.kept} of {len(snapshot.parts)} parts kept for the epochs"
        tools.notify("extract", f"features in {seconds:.1f} s, {kept}")
        yield extracted


def _learning_plan(job: type[Job]) -> Plan:
    training = job.training
    return Plan(
        classes=job.classes(),
        inputs=job.inputs,
        epochs=training.epochs,
        folds=training.folds,
        holdout=training.holdout,
        seed=training.seed,
        threshold_recall=training.threshold_recall,
    )


def _take_rows(job: type[Job], training_id: str, tools: Tools) -> Snapshot:
    for view in (job.features.view, job.labels.view):
        view.check_source(tools.warehouse.fetch(view.query.empty()).schema)
    count_rows(job.features.view, Window(), tools)
    _tell_contradictions(job, tools)
    prefix = f"{tools.storage.prefix}mlbatch/{job.name}/train/{training_id}/"
    snapshot = take_snapshot(tools.warehouse, tools.storage, select_training_rows(job), prefix)
    if not snapshot.rows:
        message = f"{job.name} has no labelled rows to learn from"
        hint = f"{job.labels.view.name} must know some of the keys of {job.features.view.name}"
        raise UsageError(message, hint=hint)
    tools.notify(
        "features",
        f"{counted(snapshot.rows, 'labelled row')} in {counted(len(snapshot.parts), 'part')}",
    )
    return snapshot


def _tell_contradictions(job: type[Job], tools: Tools) -> None:
    """A key with several labels teaches nothing, and people should know of it."""
    labels, key = job.labels.view, job.features.view.key
    query = contradiction_query(labels.query, key=key, label=job.output.table.label)
    for first in tools.warehouse.fetch(query).to_pylist():
        count = counted(first.pop("mlbatch_keys"), "key")
        example = ", ".join(f"{name} {value}" for name, value in first.items())
        line = f"{labels.name} gives {count} more than one label, as {example}; left out"
        tools.notify("notice", line)


def _record(
    job: type[Job],
    training_id: str,
    result: FitResult,
    epochs: list[EpochMetrics],
    snapshot: Snapshot,
    tools: Tools,
) -> TrainingRecord:
    evaluation = result.evaluation
    return TrainingRecord(
        job=job.name,
        parameters=_parameters(job, result, snapshot),
        metrics=evaluation.metrics(),
        epochs=[epoch.metrics() for epoch in epochs],
        tags={TRAINING_TAG: training_id, **_origins(job, snapshot, tools)},
        texts={
            "evaluation.txt": evaluation.report(),
            "confusion_matrix.svg": evaluation.confusion_svg(),
        },
    )


def _origins(job: type[Job], snapshot: Snapshot, tools: Tools) -> dict[str, str]:
    """The fingerprints of everything that the model was made from."""
    return {
        "mlbatch.snapshot": snapshot.fingerprint,
        "mlbatch.features_query": job.features.view.query.fingerprint,
        "mlbatch.labels_query": job.labels.view.query.fingerprint,
        "mlbatch.dictionary": tools.dictionary,
        "mlbatch.job_code": code_digest(job),
        "mlbatch.code_version": tools.code_version,
    }


def _parameters(job: type[Job], result: FitResult, snapshot: Snapshot) -> dict[str, str]:
    training, model = job.training, result.model
    return {
        "rows": str(snapshot.rows),
        "epochs": str(training.epochs),
        "folds": str(training.folds),
        "holdout": str(training.holdout),
        "split_by": "/".join(job.split_key()),
        "seed": str(training.seed),
        "threshold": str(model.threshold),
        "calibration": repr(model.calibration),
        "estimator": repr(model.pipeline)[:500],
    }
