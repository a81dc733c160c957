"""The best script that we can write by hand: everything that is fast, and nothing that is safe.

One process a core, each with its own parts; a part is read, scored and loaded while the next is read.
No ledger, no checks of rows, no quarantine, no verification: a kill leaves nobody knows what.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.special import softmax
from sklearn.linear_model import SGDClassifier

from mlbatch.connectors.mysql.address import LoadingConnection, MysqlAddress, connect
from mlbatch.connectors.mysql.text import load_text
from mlbatch.connectors.password import FixedPassword
from mlbatch.overlap import WriteBehind, read_ahead
from mlbatch.text import words

LOAD = (
    "LOAD DATA LOCAL INFILE 'x' REPLACE INTO TABLE {table} CHARACTER SET utf8mb4"
    " (id, label, score, model_version, updated_at)"
)


def work(told: dict[str, Any], files: Sequence[str], ready: Barrier) -> None:
    """One process's parts, from reading to commit."""
    found = np.load(told["weights"])
    features, classifier = words("text", pairs=False), SGDClassifier(loss="log_loss")
    classifier.coef_ = np.asfortranarray(found["coef"])
    classifier.intercept_, classifier.classes_ = found["intercept"], found["classes"]
    address = MysqlAddress(
        told["host"], told["port"], told["database"], told["user"],
        FixedPassword(told["password"]), verify_tls=False,
    )  # fmt: skip
    with closing(connect(address)) as connection:
        connection.autocommit(True)  # noqa: FBT003  the driver's own signature

        def write(rows: pa.RecordBatch) -> None:
            _load(connection, told["table"], rows)

        ready.wait()
        batches = (b for file in files for b in pq.ParquetFile(file).iter_batches(batch_size=4_096))
        with WriteBehind(write) as writer:
            for batch in read_ahead(batches):
                decided = classifier.decision_function(features.transform(batch))
                writer.put(_rows(batch, classifier.classes_[decided.argmax(axis=1)], decided))
        ready.wait()


def _rows(batch: pa.RecordBatch, labels: np.ndarray, decided: np.ndarray) -> pa.RecordBatch:
    count = batch.num_rows
    scores = softmax(decided, axis=1).max(axis=1)
    moment = pa.array([datetime(2026, 1, 1)] * count, pa.timestamp("us"))
    columns = [batch.column("id"), labels, scores, np.ones(count, int), moment]
    names = ["id", "label", "score", "model_version", "updated_at"]
    return pa.RecordBatch.from_arrays([pa.array(column) for column in columns], names=names)


def _load(connection: LoadingConnection, table: str, rows: pa.RecordBatch) -> None:
    connection.load_data = load_text(rows)
    with closing(connection.cursor()) as cursor:
        cursor.execute(LOAD.format(table=table))


def main() -> None:
    """Run as the one argument, a JSON object, says; print seconds."""
    told = json.loads(sys.argv[1])
    files = sorted(str(file) for file in Path(told["parts"]).glob("*.parquet"))
    context, count = multiprocessing.get_context("spawn"), told["workers"]
    ready = context.Barrier(count + 1)
    processes = [
        context.Process(target=work, args=(told, files[n::count], ready)) for n in range(count)
    ]
    for process in processes:
        process.start()
    ready.wait()
    started = time.perf_counter()
    ready.wait()
    print(json.dumps({"seconds": time.perf_counter() - started}), flush=True)
    for process in processes:
        process.join()


if __name__ == "__main__":
    main()
