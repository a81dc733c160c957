"""The daily delta of 5,000 rows by the command line, and the least that such a command must do."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb

from benchmarks.scoring.contenders import ROOT
from mlbatch.connectors.mysql.address import MysqlAddress, connect
from mlbatch.connectors.password import FixedPassword
from mlbatch.devstack.mariadb import MariaDb
from mlbatch.settings import load_settings
from mlbatch.wiring import connect as connect_tools
from sample.kitchen import load_first_day

ROWS = 5_000
JOB = "step_classifier"
SETTINGS = """
[profiles.bench]
sink = {{ kind = "mysql", host = "{host}", port = {port}, database = "delta", user = "{user}", password = "{password}", tls = "off" }}
"""
CHANGE = f"UPDATE steps SET updated_at = updated_at + INTERVAL 400 DAY WHERE id IN (SELECT id FROM steps ORDER BY id LIMIT {ROWS})"
FLOOR = f"""
import sys, duckdb, mlflow, numpy, pymysql, sqlalchemy, sqlglot, pydantic, click
import pyarrow as pa, pyarrow.parquet as pq
from pathlib import Path
from skops import io
from mlbatch.text import TRUSTED
model = next(Path(sys.argv[1]).rglob("model.skops"))
pipeline = io.load(model, trusted=list(TRUSTED))
pipeline[-1].coef_ = numpy.load(model.with_name("coef.npy"))
with duckdb.connect(sys.argv[2], read_only=True) as warehouse:
    rows = warehouse.execute("SELECT text FROM steps ORDER BY id LIMIT {ROWS}").to_arrow_table()
pipeline.decision_function(rows.combine_chunks().to_batches()[0])
"""


def measured(folder: Path, server: MariaDb, rounds: int) -> dict[str, Any]:
    """Seconds of a delta and of its floor, in turn."""
    project = _project(folder / "delta", server)
    ours, floors = [], []
    for _ in range(rounds):
        with duckdb.connect(str(_warehouse(project))) as warehouse:
            warehouse.execute(CHANGE)
        ours.append(_seconds([_mlbatch(), "run", JOB, "--mode", "infer"], project))
        command = [sys.executable, "-c", FLOOR, str(project / ".mlbatch"), str(_warehouse(project))]
        floors.append(_seconds(command, project))
        print(f"delta of {ROWS:,}: {ours[-1]:.2f} s, floor {floors[-1]:.2f} s")
    return {"seconds": ours, "floor": floors, "ratio": _ratio(ours, floors)}


def _ratio(ours: Sequence[float], floors: Sequence[float]) -> float:
    return statistics.median(ours) / statistics.median(floors)


def _project(project: Path, server: MariaDb) -> Path:
    """The sample project with the kitchen loaded, one job trained and everything inferred."""
    for name in ("jobs", "feature_store"):
        shutil.copytree(ROOT / name, project / name)
    told = {"host": server.host, "port": server.port, "user": server.admin}
    text = SETTINGS.format(**told, password=server.admin_password)
    (project / "mlbatch.toml").write_text(text)
    password = FixedPassword(server.admin_password)
    admin = MysqlAddress(
        server.host, server.port, "mysql", server.admin, password, verify_tls=False
    )
    with closing(connect(admin)) as connection:
        connection.query("CREATE DATABASE IF NOT EXISTS delta")
    load_first_day(connect_tools(load_settings(project), lambda *_: None).warehouse)
    for mode in ("train", "infer"):
        _seconds([_mlbatch(), "run", JOB, "--mode", mode], project)
    return project


def _warehouse(project: Path) -> Path:
    return next((project / ".mlbatch").glob("*.duckdb"))


def _mlbatch() -> str:
    return str(Path(sys.executable).with_name("mlbatch"))


def _seconds(command: Sequence[str], project: Path) -> float:
    environment = os.environ | {"MLBATCH_PROFILE": "bench"}
    started = time.perf_counter()
    subprocess.run(command, cwd=project, env=environment, check=True, capture_output=True)
    return time.perf_counter() - started
