"""mlbatch itself, in a process of its own: plan, count, score, write, verify, with every safety on.

The clock runs from `infer` to its return; the source table, its parts and the registered model are there
before.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path


def main() -> None:
    """Run as the one argument, a JSON object, says; print seconds."""
    # Before the clock starts, as peers import theirs.
    import skops.io  # noqa: F401, PLC0415

    from benchmarks.scoring.declared import JOBS  # noqa: PLC0415
    from benchmarks.scoring.given import GivenParts  # noqa: PLC0415
    from mlbatch.connectors.folder import FolderStorage  # noqa: PLC0415
    from mlbatch.connectors.mysql.address import MysqlAddress  # noqa: PLC0415
    from mlbatch.connectors.mysql.sink import MysqlSink  # noqa: PLC0415
    from mlbatch.connectors.password import FixedPassword  # noqa: PLC0415
    from mlbatch.engines.local import LocalEngine  # noqa: PLC0415
    from mlbatch.inference import infer  # noqa: PLC0415
    from mlbatch.planner import Request  # noqa: PLC0415
    from mlbatch.testing import JobHarness  # noqa: PLC0415

    told = json.loads(sys.argv[1])
    password = FixedPassword(told["password"])
    address = MysqlAddress(
        told["host"], told["port"], told["database"], told["user"], password, verify_tls=False
    )
    engine, folder = LocalEngine(told["workers"]), Path(told["folder"])
    harness = JobHarness(JOBS[told["kind"]], folder, sink=MysqlSink(address), engine=engine)
    storage = FolderStorage(folder / "parts")
    warehouse = GivenParts(folder / "warehouse.duckdb", storage, parts=Path(told["parts"]))
    started = time.perf_counter()
    engine.warm_up()
    ended = infer(harness.job, Request(), replace(harness.tools, warehouse=warehouse))
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "stages": ended.stage_seconds}), flush=True)


if __name__ == "__main__":
    main()
