"""The first pass of training over the rows, features included, against a later one."""

from __future__ import annotations

import os
import shutil
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.scoring import corpus
from benchmarks.scoring.declared import JOBS
from mlbatch.engines.local import LocalEngine
from mlbatch.extraction import extract
from mlbatch.fitting import EpochMetrics, Plan, fit
from mlbatch.labelled import LabelledRows, select_training_rows
from mlbatch.testing import JobHarness
from mlbatch.unloading import take_snapshot

ROWS = 20_000
EPOCHS = 4


def measured(home: Path, rounds: int) -> dict[str, Any]:
    """Seconds of the first epoch and of the later ones, of recipes."""
    _, parts = corpus.parts(home, "recipes", ROWS)
    rows = pa.concat_tables([pq.read_table(part) for part in parts])
    firsts, laters = [], []
    engine = LocalEngine(os.cpu_count() or 1)
    engine.warm_up()
    for _ in range(rounds):
        first, later = _round(home / "learning", rows, engine)
        firsts.append(first)
        laters.append(later)
        print(f"training on {ROWS:,} recipes: first epoch {first:.2f} s, a later one {later:.2f} s")
    ratio = statistics.median(firsts) / statistics.median(laters)
    return {"first": firsts, "later": laters, "ratio": ratio}


def _round(folder: Path, rows: pa.Table, engine: LocalEngine) -> tuple[float, float]:
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "features").mkdir(parents=True)
    job = JOBS["recipes"]
    labels = np.random.default_rng(0).choice(job.classes(), len(rows))
    harness = JobHarness(job, folder, part_rows=corpus.PART_ROWS // 2)
    tools = replace(harness.tools, engine=engine)
    tools.warehouse.copy("texts", rows, replace_by=("id",))
    known = pa.table({"id": rows["id"], "label": labels})
    tools.warehouse.copy("known", known, replace_by=("id",))
    prefix = f"{tools.storage.prefix}train/"
    snapshot = take_snapshot(tools.warehouse, tools.storage, select_training_rows(job), prefix)
    epochs: list[EpochMetrics] = []
    started = time.perf_counter()
    found = extract(
        LabelledRows(job, tools.storage), snapshot, folder / "features", tools.engine, 2**33
    )
    extraction = time.perf_counter() - started
    fit(job.model, found.epoch, Plan(job.classes(), job.inputs, EPOCHS), epochs.append)
    return extraction + epochs[0].seconds, statistics.median(e.seconds for e in epochs[1:])
