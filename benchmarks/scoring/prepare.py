"""What is there before the clock starts: the source table and the registered model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.scoring.declared import JOBS
from mlbatch.connectors.skops_file import save_model
from mlbatch.model import TrainedModel
from mlbatch.testing import JobHarness
from mlbatch.text import dictionary_fingerprint
from mlbatch.tracking import TrainingRecord


def prepare(kind: str, parts: list[Path], fitted: TrainedModel, home: Path) -> dict[str, Any]:
    """A warehouse that holds ``parts``, and a registry whose champion is ``fitted``."""
    folder = home / f"{parts[0].parent.name}-harness"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    harness = JobHarness(JOBS[kind], folder)
    rows = pa.concat_tables([pq.read_table(part) for part in parts])
    tools = harness.tools
    tools.warehouse.copy("texts", rows, replace_by=("id",))
    files = folder / "model"
    digest = save_model(fitted, files, dictionary=dictionary_fingerprint())
    record = TrainingRecord(harness.job.name, {}, {}, [], {}, {})
    tools.tracking.promote(tools.tracking.record(record, files, digest))
    return {"folder": str(folder)}
