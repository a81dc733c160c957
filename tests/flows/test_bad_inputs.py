"""Bad inputs that need a whole run; numbers as in docs/bad-inputs.md."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from bad_inputs import ACCEPTED, FAILS, NOTICED, QUARANTINED, bad_input
from toy.harness import ToyHarness, interrupted, note, notes
from toy.job import Toy
from toy.model import Obedient, build

from mlbatch import leasing
from mlbatch.connectors.database import lease_store
from mlbatch.connectors.mysql.sink import MysqlSink
from mlbatch.connectors.s3 import ReadAhead
from mlbatch.connectors.sqlite import SqliteSink
from mlbatch.errors import Busy, SnapshotError
from mlbatch.ledger import ModelPin, Owner, RunState
from mlbatch.model import Prediction
from mlbatch.scoring import Scorer

NOON = datetime(2026, 1, 1, 12)


@bad_input(25, outcome=ACCEPTED)
def test_25_one_row(harness):
    assert harness.notes(notes(1)).infer().totals.written == 1


@bad_input(16, outcome=NOTICED, says="'more': ignored")
def test_16_a_column_too_many_is_ignored_and_said(harness, monkeypatch):
    from dataclasses import replace

    from mlbatch.query import FeatureQuery

    view = Toy.features.view
    wider = FeatureQuery.parse(view.query.text.replace("SELECT ", "SELECT 1 AS more, ", 1))
    monkeypatch.setattr(Toy.features, "view", replace(view, query=wider))
    assert harness.notes(notes(3)).infer().totals.written == 3
    assert any("'more': ignored" in notice for notice in harness.notices)


@bad_input(42, outcome=FAILS, says="is missing")
def test_42_a_part_that_is_gone_when_the_run_is_resumed(harness, tmp_path, monkeypatch):
    interrupted(harness.notes(notes(25)), monkeypatch, 1)
    for part in (tmp_path / "parts").rglob("*.parquet"):
        part.unlink()
    with pytest.raises(SnapshotError, match="is missing") as caught:
        harness.infer()
    assert "--full" in caught.value.hint
    assert harness.infer(full=True).totals.written == 25
    states = [run.state for run in harness.tools.sink.ledger().runs("mood")]
    assert states == [RunState.DONE, RunState.FAILED]


@bad_input(43, outcome=ACCEPTED)
def test_43_a_part_of_six_gigabytes_is_read_with_few_blocks_in_memory():
    size, block = 6_200_000_000, 8 << 20
    zeros, most, read = bytes(block), 0, 0
    with ThreadPoolExecutor(2) as readers:
        file = ReadAhead(lambda start, end: zeros[: end - start], size, readers, block)
        while piece := file.read(block):
            read += len(piece)
            most = max(most, len(file._blocks))
        file.close()
    assert read == size
    assert most * block <= 5 * block


@bad_input(44, outcome=ACCEPTED)
def test_44_a_thousand_parts_of_one_row(tmp_path):
    harness = ToyHarness(Toy, tmp_path, part_rows=1).given_model(Obedient())
    ended = harness.notes(notes(1_000)).infer()
    assert ended.totals.written == 1_000
    assert len(harness.tools.sink.ledger().parts(ended.run.run_id)) == 1_000


@bad_input(50, outcome=ACCEPTED)
def test_50_nul_in_a_text(harness):
    ended = harness.notes([note(1, "sad\0but good")]).infer()
    assert (ended.totals.written, ended.totals.quarantined) == (1, 0)
    assert [row["label"] for row in harness.rows()] == ["good"]


@pytest.fixture(params=["sqlite", "mysql"])
def anywhere(request, tmp_path):
    """The toy job over each kind of sink."""
    sink = SqliteSink(tmp_path / "outputs.db")
    if request.param == "mysql":
        sink = MysqlSink(request.getfixturevalue("mysql_address"))
    return ToyHarness(Toy, tmp_path, part_rows=10, sink=sink).given_model(Obedient())


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/New_York"])
@pytest.mark.parametrize(
    "at", [datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999999)], ids=["first", "last"]
)
@bad_input(55, outcome=ACCEPTED)
def test_55_changes_at_the_ends_of_time(anywhere, monkeypatch, at, zone):
    from dataclasses import replace

    monkeypatch.setattr(Toy.features, "view", replace(Toy.features.view, zone=zone))
    anywhere.notes([{"id": 1, "text": "good", "updated_at": at, "deleted_at": None}])
    for _ in range(2):
        assert anywhere.infer().totals.quarantined == 0
        assert [row["label"] for row in anywhere.rows()] == ["good"]


@bad_input(55, outcome=QUARANTINED, says="out_of_range")
def test_55_a_change_before_christ(anywhere):
    early = pa.array([-70_000_000_000 * 10**6, 0], pa.timestamp("us"))
    never = pa.array([None, None], pa.timestamp("us"))
    rows = {"id": [1, 2], "text": ["good", "good"], "updated_at": early, "deleted_at": never}
    anywhere.tools.warehouse.copy("notes", pa.table(rows), replace_by=("id",))
    ended = anywhere.infer()
    (row,) = anywhere.quarantined(ended.run.run_id)
    assert (row.key, row.reason) == ("1", "out_of_range")
    assert [found["note_id"] for found in anywhere.rows()] == [2]


@dataclass(frozen=True)
class Slow:
    """Answers after longer than a lease, while somebody else tries to take it."""

    sink: SqliteSink
    refused: list[Busy]

    def predict(self, batch: pa.RecordBatch) -> Prediction:
        for _ in range(6):
            time.sleep(0.5)
            try:
                self.sink.ledger().acquire("mood", "toy", Owner("o", "elsewhere", 1, ""), 99)
            except Busy as busy:
                self.refused.append(busy)
        return Prediction(["good"] * batch.num_rows, np.full(batch.num_rows, 0.5))


@bad_input(97, outcome=ACCEPTED)
def test_97_a_batch_that_takes_longer_than_a_lease_keeps_it(harness, tmp_path, monkeypatch):
    monkeypatch.setattr(lease_store, "LEASE_SECONDS", 1)
    monkeypatch.setattr(leasing, "HEARTBEAT_SECONDS", 0.1)
    slow = Slow(SqliteSink(tmp_path / "outputs.db"), [])
    ended = harness.given_model(slow).notes(notes(5)).infer()
    assert ended.run.state is RunState.DONE
    assert len(slow.refused) == 6


def _resident_kilobytes():
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])


@dataclass(frozen=True)
class Learnt:
    """The toy's own pipeline: the real tokeniser and the real features."""

    pipeline: object

    def predict(self, batch: pa.RecordBatch) -> Prediction:
        scores = 1 / (1 + np.exp(-self.pipeline.decision_function(batch)))
        return Prediction(["good" if s < 0.5 else "bad" for s in scores], scores)


@bad_input(99, outcome=ACCEPTED)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_99_memory_does_not_grow_with_the_batches():
    teach = pa.record_batch({"text": ["good fine"] * 50 + ["sad bad"] * 50})
    model = Learnt(build().fit(teach, ["good"] * 50 + ["bad"] * 50))
    scorer = Scorer(Toy, model, ModelPin("toy", 1, "d"), 1)
    early = late = 0
    for n in range(400):
        ids = list(range(n * 256, (n + 1) * 256))
        texts = [f"新しい{i}番目の文章で、前には無かった語 xq{i}zw がある" for i in ids]
        times = pa.array([NOON] * 256, pa.timestamp("us"))
        never = pa.array([None] * 256, pa.timestamp("us"))
        batch = pa.record_batch(
            {"note_id": ids, "text": texts, "updated_at": times, "deleted_at": never}
        )
        assert scorer.score(batch, 0, n * 256).upserts.num_rows == 256
        early, late = (_resident_kilobytes() if n == 100 else early), _resident_kilobytes()
    assert late - early < 8_000, f"{early} kB after 100 batches, {late} kB after 400"
