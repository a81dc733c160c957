"""Tests of a job, by its author: the real SQL, tokeniser, ledger and table, on this machine alone.

::

    def test_known_recipes(tmp_path):
        harness = JobHarness(RecipeClassifier, tmp_path).given("recipes", [...])
        harness.train()
        harness.infer()
        assert harness.rows()[0]["label"] == "soup"

No warehouse, database server or MLflow is needed. `mlbatch.checks` has laws to run on a harness.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from mlbatch.connectors.duckdb import DuckdbWarehouse
from mlbatch.connectors.folder import FolderStorage
from mlbatch.connectors.sqlite import SqliteSink
from mlbatch.engines.local import LocalEngine
from mlbatch.errors import ModelTampered
from mlbatch.inference import Inference, infer
from mlbatch.ledger import QuarantinedRow
from mlbatch.planner import Request
from mlbatch.predicting import predictor
from mlbatch.settings import Settings
from mlbatch.sink import Sink
from mlbatch.tools import Tools
from mlbatch.tracking import CHAMPION, TRAINING_TAG, ModelVersion, TrainingRecord
from mlbatch.window import Window
from mlbatch.wiring import connect

if TYPE_CHECKING:
    from mlbatch.engine import Engine
    from mlbatch.job import Job
    from mlbatch.scoring import Predictor
    from mlbatch.training import Trained


@dataclass(frozen=True, slots=True)
class FolderTracking:
    """`mlbatch.tracking.Tracking` in plain files below ``root``."""

    root: Path

    def about(self) -> str:
        """See `mlbatch.tracking.Tracking.about`."""
        return f"the folder {self.root}"

    def ready(self, job: str) -> None:
        """See `mlbatch.tracking.Tracking.ready`."""
        (self.root / job).mkdir(parents=True, exist_ok=True)

    def record(self, training: TrainingRecord, model: Path, digest: str) -> ModelVersion:
        """See `mlbatch.tracking.Tracking.record`."""
        folder, known = self.root / training.job, training.tags.get(TRAINING_TAG)
        version = len(list(folder.glob("[0-9]*"))) + 1
        for number in range(1, version):
            note = json.loads((folder / f"{number}" / "note.json").read_text(encoding="utf-8"))
            if known is not None and note.get("training") == known:
                return ModelVersion(training.job, number, digest, training.metrics)
        shutil.copytree(model, folder / str(version))
        note = {"digest": digest, "metrics": dict(training.metrics), "training": known}
        (folder / f"{version}" / "note.json").write_text(json.dumps(note), encoding="utf-8")
        return ModelVersion(training.job, version, digest, training.metrics)

    def resolve(self, name: str, alias_or_version: str = CHAMPION) -> ModelVersion | None:
        """See `mlbatch.tracking.Tracking.resolve`."""
        folder = self.root / name
        alias = folder / alias_or_version
        number = alias.read_text() if alias.is_file() else alias_or_version
        note = folder / number / "note.json"
        if not note.is_file():
            return None
        known = json.loads(note.read_text(encoding="utf-8"))
        return ModelVersion(name, int(number), known["digest"], known["metrics"])

    def fetch(self, version: ModelVersion, target: Path) -> Path:
        """See `mlbatch.tracking.Tracking.fetch`."""
        # Files that some process still maps must go, not change.
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self.root / version.name / str(version.version), target)
        return target

    def promote(self, version: ModelVersion) -> None:
        """See `mlbatch.tracking.Tracking.promote`."""
        (self.root / version.name / CHAMPION).write_text(str(version.version))

    def record_inference(self, job: str, run_id: str, totals: Mapping[str, float]) -> str:
        """See `mlbatch.tracking.Tracking.record_inference`."""
        folder = self.root / job / "inferences"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{run_id}.json").write_text(json.dumps(dict(totals)), encoding="utf-8")
        return run_id


class JobHarness:
    """One job with a warehouse, a sink and a registry of its own, all below a folder."""

    def __init__(
        self,
        job: type[Job],
        folder: Path,
        *,
        part_rows: int = 20_000,
        workers: int = 1,
        sink: Sink | None = None,
        engine: Engine | None = None,
    ) -> None:
        """``part_rows`` decides how many parts an unload leaves; without ``sink`` SQLite is it.

        ``engine`` is there for one that was warmed up before anything was opened; else each use of
        `tools` has a `LocalEngine` of its own with so many ``workers``.
        """
        self.job = job
        self.notices: list[str] = []
        self._folder = folder
        self._part_rows, self._workers, self._engine = part_rows, workers, engine
        self._sink = sink or SqliteSink(folder / "outputs.db")
        self._predictor: Predictor | None = None

    @property
    def tools(self) -> Tools:
        """Fresh tools over the harness's files, as another process would have them."""
        settings = Settings(root=self._folder)
        storage = FolderStorage(self._folder / "parts")
        tools = replace(
            connect(settings, self._notify),
            warehouse=DuckdbWarehouse(self._folder / "warehouse.duckdb", storage, self._part_rows),
            storage=storage,
            sink=self._sink,
            tracking=FolderTracking(self._folder / "registry"),
            engine=self._engine or LocalEngine(self._workers),
        )
        if self._predictor is None:
            return tools
        return replace(tools, load_model=_Given(self._predictor))

    def _notify(self, stage: str, text: str) -> None:
        if stage == "notice":
            self.notices.append(text)

    def given(
        self,
        table: str,
        rows: Sequence[Mapping[str, Any]],
        *,
        key: str | tuple[str, ...] = "id",
        schema: pa.Schema | None = None,
    ) -> JobHarness:
        """Put rows into a source table; rows of the same ``key`` are replaced.

        ``schema`` says what the values cannot, as where all of a column's are None.
        """
        keys = (key,) if isinstance(key, str) else key
        loaded = pa.Table.from_pylist(list(rows), schema=schema)
        self.tools.warehouse.copy(table, loaded, replace_by=keys)
        return self

    def given_model(self, predictor: Predictor) -> JobHarness:
        """Infer with this instead of a trained model; it must be picklable for several workers."""
        self._predictor = predictor
        folder = self._folder / "given"
        folder.mkdir(exist_ok=True)
        tracking = FolderTracking(self._folder / "registry")
        record = TrainingRecord(self.job.name, {}, {}, [], {}, {})
        tracking.promote(tracking.record(record, folder, "given"))
        return self

    def query(
        self, view: str = "features", since: datetime | None = None, until: datetime | None = None
    ) -> pa.Table:
        """What the job's `features` or `labels` view gives for a window."""
        chosen = getattr(self.job, view).view
        window = Window(since, until)
        select = chosen.query.windowed(window, cursor=chosen.cursor, zone=chosen.zone)
        return self.tools.warehouse.fetch(select)

    def train(self) -> Trained:
        """Train, register, and promote when the gates hold."""
        # Learning imports scipy, which tests of inference alone need not wait for.
        from mlbatch.training import train  # noqa: PLC0415

        return train(self.job, self.tools)

    def infer(self, **request: Any) -> Inference:  # noqa: ANN401  the fields of Request
        """Infer with the champion, as a process of its own would."""
        return infer(self.job, Request(**request), self.tools)

    def rows(self) -> list[dict[str, Any]]:
        """The output table, by key."""
        rows: list[dict[str, Any]] = (
            self.tools.sink.rows(self.job.output.table).read_all().to_pylist()
        )
        return rows

    def quarantined(self, run_id: str) -> tuple[QuarantinedRow, ...]:
        """What a run set aside."""
        return self.tools.sink.ledger().quarantined(run_id, 1_000)


@dataclass(frozen=True, slots=True)
class _Given:
    predictor: Predictor

    def __call__(self, job: type[Job], folder: Path, digest: str) -> Predictor:  # noqa: ARG002
        if not folder.exists():
            # As any model that was not fetched yet.
            message = f"{folder} is not there"
            raise ModelTampered(message)
        return predictor(job, self.predictor)
