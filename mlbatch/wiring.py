"""The composition root: settings in, connected tools out. Nobody else picks a connector."""

from __future__ import annotations

import secrets
import uuid
from functools import lru_cache
from pathlib import Path

import mlbatch
from mlbatch.connectors.database.liveness import this_process
from mlbatch.connectors.duckdb import DuckdbWarehouse
from mlbatch.connectors.folder import FolderStorage
from mlbatch.connectors.mlflow import MlflowTracking
from mlbatch.connectors.skops_file import Expectations, load_model, save_model
from mlbatch.connectors.sqlite import SqliteSink
from mlbatch.engines.local import LocalEngine
from mlbatch.job import Job
from mlbatch.model import TrainedModel
from mlbatch.settings import HOME, Settings
from mlbatch.text import TRUSTED, dictionary_fingerprint
from mlbatch.tools import Notify, Tools

ID_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
ID_LENGTH = 12


def connect(settings: Settings, notify: Notify) -> Tools:
    """Build the tools that ``settings`` describe; nothing is opened yet."""
    storage = FolderStorage(settings.path(settings.storage.path))
    warehouse = DuckdbWarehouse(
        settings.path(settings.warehouse.path), storage, settings.warehouse.part_rows
    )
    return Tools(
        warehouse=warehouse,
        storage=storage,
        sink=SqliteSink(settings.path(settings.sink.path)),
        tracking=_tracking(settings),
        engine=LocalEngine(settings.workers, settings.root),
        owner=this_process(str(uuid.uuid4())),
        models=settings.path(HOME / "models"),
        code_version=mlbatch.__version__,
        dictionary=dictionary_fingerprint(),
        new_id=new_id,
        new_epoch=new_epoch,
        load_model=load_job_model,
        save_model=save_job_model,
        notify=notify,
    )


def _tracking(settings: Settings) -> MlflowTracking:
    folder = settings.path(settings.tracking.path)
    return MlflowTracking(settings.tracking.uri or f"sqlite:///{folder}/mlflow.db", folder)


def new_id() -> str:
    """A random name for runs and unload attempts, without letters that look like digits."""
    return "".join(secrets.choice(ID_ALPHABET) for _ in range(ID_LENGTH))


def new_epoch() -> int:
    """A random positive 63-bit number."""
    return secrets.randbits(63) | 1


def save_job_model(model: TrainedModel, folder: Path) -> str:
    """Write a model's files; returns their digest."""
    return save_model(model, folder, dictionary=dictionary_fingerprint())


def load_job_model(job: type[Job], folder: Path, digest: str) -> TrainedModel:
    """Verify and load the model of ``job``; a worker process does so once."""
    return _load_once(job, folder, digest)  # type: ignore[arg-type]


@lru_cache(maxsize=1)
def _load_once(job: type[Job], folder: Path, digest: str) -> TrainedModel:
    expected = Expectations(
        classes=job.classes(),
        inputs=job.inputs,
        dictionary=dictionary_fingerprint(),
        trusted=(*TRUSTED, *job.trusted_types),
    )
    return load_model(folder, digest=digest, expected=expected)
