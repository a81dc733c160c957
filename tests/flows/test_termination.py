"""What a run does when the scheduler wants it to end: real processes, on both sinks."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from toy.early import Program
from toy.harness import ToyHarness, notes
from toy.model import Obedient

from mlbatch.connectors.mysql.sink import MysqlSink
from mlbatch.connectors.sqlite import SqliteSink
from mlbatch.errors import ExitCode
from mlbatch.failpoint import SLEEP_SECONDS

TESTS = Path(__file__).parents[1]
ROWS, PART_ROWS = 45, 10
ARMED = "before_commit:sleep:1"

RUN = """
import importlib, pickle, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from toy.harness import ToyHarness
from toy.job import Toy
from toy.model import Obedient
cli_main = importlib.import_module("mlbatch.cli.main")
if __name__ == "__main__":
    cli_main.FINISH_SECONDS = {finish}
    sink = pickle.loads(bytes.fromhex({sink!r}))
    harness = ToyHarness(Toy, Path({folder!r}), part_rows={part}, workers={workers}, sink=sink)
    harness._predictor = Obedient(Path({folder!r}) / "scored")
    cli_main.cli = type("Cli", (), {{"main": staticmethod(lambda **_: harness.infer())}})
    cli_main.main()
"""


@pytest.fixture(params=["sqlite", "mysql"])
def sink(request, tmp_path):
    if request.param == "sqlite":
        return SqliteSink(tmp_path / "outputs.db")
    return MysqlSink(request.getfixturevalue("mysql_address"))


@pytest.fixture
def harness(tmp_path, sink):
    from toy.job import Toy

    harness = ToyHarness(Toy, tmp_path, part_rows=PART_ROWS, sink=sink)
    return harness.given_model(Obedient()).notes(notes(ROWS))


FORKED = f"""
from mlbatch import failpoint
from toy import early
failpoint.arm("{ARMED}")
early.provide_workers()
"""


def interpreter(script, code):
    script.write_text(code)
    environment = os.environ | {"MLBATCH_FAILPOINT": ARMED}
    command = [sys.executable, str(script)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def in_mid_commit(harness, folder, workers, finish=20, *, is_whole=False):
    """A run whose workers have each stopped for five seconds right before their first COMMIT."""
    sink = pickle.dumps(harness.tools.sink).hex()
    code = RUN.format(
        tests=str(TESTS), folder=str(folder), sink=sink, workers=workers, part=PART_ROWS,
        finish=finish,
    )  # fmt: skip
    process = interpreter(folder / "run.py", code) if is_whole else Program(FORKED + code)
    scored = folder / "scored"
    deadline = time.monotonic() + 60
    while not scored.exists() or len(scored.read_text().splitlines()) < workers:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    time.sleep(0.5)
    return process


def done(harness):
    ledger = harness.tools.sink.ledger()
    return sum(part.done for part in ledger.parts(ledger.runs("mood")[0].run_id))


def assert_ends_like_an_undisturbed_one(harness):
    harness.infer()
    wanted = {n: "good" if n % 3 else "bad" for n in range(1, ROWS + 1)}
    assert {row["note_id"]: row["label"] for row in harness.rows()} == wanted


@pytest.mark.parametrize("workers", [1, 2])
def test_transactions_under_way_are_finished_and_the_lease_is_given_back(
    harness, tmp_path, workers
):
    # One is an interpreter of its own, which also shows how one ends; the others are forks.
    is_whole = workers == 2 and isinstance(harness.tools.sink, MysqlSink)
    with in_mid_commit(harness, tmp_path, workers, is_whole=is_whole) as process:
        process.terminate()
        _, told = process.communicate(timeout=30)
    assert process.returncode == ExitCode.TERMINATED
    assert "what was committed stays" in told
    assert "Traceback" not in told
    assert done(harness) == workers * PART_ROWS
    assert harness.tools.sink.ledger().holder("mood") is None
    assert_ends_like_an_undisturbed_one(harness)


@pytest.mark.parametrize("how", ["the time is up", "asked again"])
def test_what_takes_too_long_is_rolled_back(harness, tmp_path, how):
    finish = 0.5 if how == "the time is up" else 20
    with in_mid_commit(harness, tmp_path, 2, finish=finish) as process:
        asked = time.monotonic()
        process.terminate()
        if how == "asked again":
            time.sleep(0.2)
            process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)
    assert time.monotonic() - asked < SLEEP_SECONDS - 1
    assert process.returncode == ExitCode.TERMINATED
    assert done(harness) == 0
    assert_ends_like_an_undisturbed_one(harness)
