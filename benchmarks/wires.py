"""How near the connectors are to what their servers can do: ``make bench-wires``.

Each figure is a ratio of medians, taken in turn in one run against the same private server: our S3
reader over bare parallel GETs, our MySQL sink with its ledger over a bare LOAD DATA LOCAL loop, and
both over awswrangler, which is installed into an environment of its own.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.step_classifier.job import StepOrNot
from mlbatch.connectors.aws import AwsAccess
from mlbatch.connectors.mysql import statements
from mlbatch.connectors.mysql.address import MysqlAddress, connect
from mlbatch.connectors.mysql.sink import MysqlSink
from mlbatch.connectors.mysql.text import load_text
from mlbatch.connectors.password import FixedPassword
from mlbatch.connectors.s3 import S3Storage
from mlbatch.devstack.mariadb import MariaDb, private_mariadb
from mlbatch.devstack.objects import ObjectServer
from mlbatch.devstack.process import free_ports, launch, stop, wait_until_ready
from mlbatch.ledger import BatchCommit, ModelPin, NewRun, Owner, RunKind, RunState
from mlbatch.snapshot import Part, Snapshot

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).with_name("wires.json")
PEERS = ROOT / ".venv-peers"
ROUNDS = 5
PARTS, PART_ROWS = 12, 400_000
ROWS, BATCH = 200_000, 4_096
TABLE = StepOrNot.table
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Contest:
    """Things to time in turn; the first is what the others are measured by."""

    doers: dict[str, Callable[[], object]]

    def seconds(self) -> dict[str, float]:
        """Median of each."""
        taken: dict[str, list[float]] = {name: [] for name in self.doers}
        for _ in range(ROUNDS):
            for name, doer in self.doers.items():
                started = time.perf_counter()
                doer()
                taken[name].append(time.perf_counter() - started)
        return {name: statistics.median(values) for name, values in taken.items()}


def main() -> None:
    """Measure, print, and write ``wires.json``."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        found = reading(folder) | writing(folder) | peers(folder)
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for name, value in found.items():
        print(f"{name:<40} {value if value is None else round(value, 2)}")


@contextmanager
def _s3(folder: Path) -> Iterator[S3Storage]:
    server = ObjectServer(folder / "s3", free_ports(1)[0])
    service = server.prepare()
    identity = launch(service)
    try:
        wait_until_ready(service, identity)
        server.complete()
        access = AwsAccess("us-east-1", server.endpoint, "devstack", "devstack-not-a-secret")
        yield S3Storage(server.bucket, "bench", access)
    finally:
        stop(identity)


def reading(folder: Path) -> dict[str, float]:
    """Bytes a second of parts that are read whole, and memory with ten times as many parts."""
    with _s3(folder) as storage:
        uris = [f"{storage.prefix}{n:04d}.parquet" for n in range(PARTS)]
        for n, uri in enumerate(uris):
            storage.put(uri, _part(n))
        tags = {uri: storage.stat(uri) for uri in uris}
        client = storage.access.client("s3")

        def bare(uri: str) -> int:
            key = uri.removeprefix(f"s3://{storage.bucket}/")
            return len(client.get_object(Bucket=storage.bucket, Key=key)["Body"].read())

        def ours(uri: str) -> int:
            with storage.open(uri, etag=tags[uri].etag) as file:
                return int(file.read_buffer().size)

        with ThreadPoolExecutor(4) as threads:
            seconds = Contest(
                {
                    "bare": lambda: list(threads.map(bare, uris)),
                    "ours": lambda: list(threads.map(ours, uris)),
                }
            ).seconds()
            before = _peak_megabytes()
            for _ in range(10):
                list(threads.map(ours, uris))
        return {
            "read_vs_raw_get": seconds["bare"] / seconds["ours"],
            "read_megabytes": sum(t.bytes for t in tags.values()) / 1e6,
            "read_memory_growth_ten_times_the_parts": _peak_megabytes() / before,
        }


def _part(seed: int) -> bytes:
    random = np.random.default_rng(seed)
    table = pa.table(
        {
            "id": np.arange(PART_ROWS) + seed * PART_ROWS,
            "value": random.random(PART_ROWS),
            "other": random.random(PART_ROWS),
        }
    )
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="none", row_group_size=50_000)
    return buffer.getvalue().to_pybytes()


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def rows() -> pa.RecordBatch:
    """What the step classifier would write."""
    random = np.random.default_rng(1)
    values = {
        "step_id": pa.array(np.arange(ROWS)),
        "recipe_id": pa.array(np.arange(ROWS) // 8),
        "is_step": pa.array(random.random(ROWS) > 0.5),  # noqa: PLR2004
        "score": pa.array(random.random(ROWS)),
        "model_version": pa.array(np.ones(ROWS, dtype=np.int64)),
        "src_updated_at": pa.array([NOW.replace(tzinfo=None)] * ROWS, pa.timestamp("us")),
        "run_no": pa.array(np.ones(ROWS, dtype=np.int64)),
    }
    return pa.RecordBatch.from_arrays([values[f.name] for f in TABLE.schema], schema=TABLE.schema)


def _address(server: MariaDb) -> MysqlAddress:
    password = FixedPassword(server.password)
    return MysqlAddress(
        server.host, server.port, server.database, server.user, password, verify_tls=False
    )


def writing(folder: Path) -> dict[str, float]:
    """Rows a second into an empty table, ledger and fence included."""
    batch = rows()
    with private_mariadb(folder / "mysql") as server:
        address = _address(server)
        sink = MysqlSink(address)
        sink.prepare(TABLE)

        password = FixedPassword(server.admin_password)
        admin = replace(address, user=server.admin, password=password)

        def empty() -> None:
            with closing(connect(admin)) as connection:
                # What DELETE leaves behind is cleared away while the next one is measured.
                connection.query(f"TRUNCATE {TABLE.name}")

        def bare() -> None:
            with closing(connect(address)) as connection:
                for start in range(0, ROWS, BATCH):
                    connection.begin()
                    connection.load_data = load_text(batch.slice(start, BATCH))
                    connection.query(statements.load(TABLE))
                    connection.commit()

        taken: dict[str, list[float]] = {"bare": [], "ours": []}
        for number in range(ROUNDS):
            for name, doer in (("bare", bare), ("ours", lambda n=number: _ours(sink, batch, n))):
                empty()
                started = time.perf_counter()
                doer()  # type: ignore[operator]
                taken[name].append(time.perf_counter() - started)
        bare_seconds, our_seconds = (statistics.median(taken[n]) for n in ("bare", "ours"))
        return {
            "sink_vs_bare_load_data": bare_seconds / our_seconds,
            "sink_rows_per_second": ROWS / our_seconds,
        }


def _ours(sink: MysqlSink, batch: pa.RecordBatch, number: int) -> None:
    ledger = sink.ledger()
    lease = ledger.acquire(TABLE.name, "bench", Owner("b", "b", 1, ""), number + 1)
    run = ledger.attempt(ledger.create(lease, _new_run(number)), "a")
    snapshot = Snapshot("s3://b/", (Part(0, "s3://b/0", ROWS, 1, "e"),), NOW)
    run = ledger.advance(ledger.adopt(run, snapshot), RunState.WRITING)
    nothing = batch.slice(0, 0).select(list(TABLE.key))
    with sink.session(TABLE, run) as session:
        for low in range(0, ROWS, BATCH):
            piece = batch.slice(low, BATCH)
            high = low + piece.num_rows
            session.commit(BatchCommit(0, low, high, piece, nothing, 0, 0, (), low))
    ledger.give_up(run, RunState.SUPERSEDED, "bench", number + 1)
    ledger.release(lease, number + 1)


def _new_run(number: int) -> NewRun:
    return NewRun(
        run_id=f"bench{number}",
        job="bench",
        output_table=TABLE.name,
        generation="g1",
        kind=RunKind.FULL,
        slot=f"bench{number}",
        model=ModelPin("bench", 1, "d"),
        query_digest="q",
        query="SELECT 1 AS one",
        job_code_digest="c",
        code_version="0",
        watermark_low=None,
        watermark_high=NOW,
    )


def peers(folder: Path) -> dict[str, float | None]:
    """The same rows by awswrangler on the same server; None where it cannot be installed."""
    python = _peer_python()
    if python is None:
        return {"sink_vs_awswrangler": None}
    file = folder / "rows.parquet"
    pq.write_table(pa.Table.from_batches([rows()]), file)
    with private_mariadb(folder / "peers") as server:
        address = _address(server)
        sink = MysqlSink(address)
        sink.prepare(TABLE)
        ours, theirs = [], []
        script = str(Path(__file__).with_name("peer_awswrangler.py"))
        for number in range(ROUNDS):
            started = time.perf_counter()
            _ours(sink, rows(), number)
            ours.append(time.perf_counter() - started)
            done = subprocess.run(
                [python, script, str(file), server.host, str(server.port), server.user,
                 server.password, server.database, TABLE.name],
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            theirs.append(float(done.stdout))
    return {"sink_vs_awswrangler": statistics.median(theirs) / statistics.median(ours)}


def _peer_python() -> str | None:
    python = PEERS / "bin" / "python"
    uv = Path(sys.executable).with_name("uv")
    known = [python, "-c", "import awswrangler"]
    if not python.exists() or subprocess.run(known, capture_output=True, check=False).returncode:
        packages = ["awswrangler[mysql]", "pymysql", "setuptools<81"]
        commands = (
            [uv, "venv", "--quiet", "--allow-existing", str(PEERS)],
            [uv, "pip", "install", "--quiet", "--python", str(python), *packages],
        )
        for command in commands:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"awswrangler is left out: {done.stderr.strip().splitlines()[-1:]}")
                return None
    return str(python)


if __name__ == "__main__":
    main()
