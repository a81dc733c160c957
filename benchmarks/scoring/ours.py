"""mlbatch itself, in a process of its own: plan, unload, score, write, verify, with every safety on.

The clock runs from `infer` to its return; the source table and the registered model are there before.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path


def main() -> None:
    """Run as the one argument, a JSON object, says; print seconds."""
    # Before the clock starts, as peers import theirs.
    import skops.io  # noqa: F401, PLC0415

    from benchmarks.scoring.declared import JOBS  # noqa: PLC0415
    from mlbatch.connectors.mysql.address import MysqlAddress  # noqa: PLC0415
    from mlbatch.connectors.mysql.sink import MysqlSink  # noqa: PLC0415
    from mlbatch.connectors.password import FixedPassword  # noqa: PLC0415
    from mlbatch.engines.local import LocalEngine  # noqa: PLC0415
    from mlbatch.testing import JobHarness  # noqa: PLC0415

    told = json.loads(sys.argv[1])
    password = FixedPassword(told["password"])
    address = MysqlAddress(
        told["host"], told["port"], told["database"], told["user"], password, verify_tls=False
    )
    engine = LocalEngine(told["workers"])
    harness = JobHarness(
        JOBS[told["kind"]], Path(told["folder"]), sink=MysqlSink(address), engine=engine
    )
    started = time.perf_counter()
    engine.warm_up()
    ended = harness.infer()
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "stages": ended.stage_seconds}), flush=True)


if __name__ == "__main__":
    main()
