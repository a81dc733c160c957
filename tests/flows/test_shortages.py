"""Disk, memory and file descriptors run out: one exit code, a clear error, and the run goes on later."""

from __future__ import annotations

import pickle
import subprocess
from contextlib import closing

import pytest
from servers import mariadb, writer_of
from toy.early import Program
from toy.harness import ToyHarness, note, notes
from toy.job import Toy
from toy.model import Obedient

from mlbatch.connectors.mysql.address import connect, scalar
from mlbatch.connectors.mysql.sink import MysqlSink
from mlbatch.connectors.sqlite import SqliteSink
from mlbatch.errors import ExitCode
from mlbatch.ledger import RunState
from mlbatch.repair import reconcile

# The command line's own way of ending, around a run that meets a limit at a certain place.
RUN = """
import importlib, os, resource
from pathlib import Path
import numpy as np
from flows.test_shortages import harness_in
from mlbatch import inference, leasing
from mlbatch.connectors import sqlite
from toy import early
from toy.model import Obedient

early.provide_workers()

folder = Path({folder!r})
harness = harness_in(folder, Path({outputs!r}), {workers})
seen = []

def limit(what, value):
    resource.setrlimit(what, (value, resource.getrlimit(what)[1]))

def files_up_to(size):
    limit(resource.RLIMIT_FSIZE, size)

def no_more_files():
    limit(resource.RLIMIT_NOFILE, 3)

def memory(more):
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit(resource.RLIMIT_AS, now + more)

def reach(place):
    seen.append(place)
    if place == {place!r} and seen.count(place) == {hit}:
        {strike}

sqlite.reach = inference.reach = leasing.reach = reach
{more}
cli_main = importlib.import_module("mlbatch.cli.main")
cli_main.cli = type("Cli", (), {{"main": staticmethod(lambda **_: {work})}})
cli_main.main()
"""


def harness_in(folder, outputs, workers=1):
    sink = SqliteSink(outputs / "outputs.db")
    made = ToyHarness(Toy, folder, part_rows=100, workers=workers, sink=sink)
    made._predictor = Obedient()
    return made


@pytest.fixture
def harness(tmp_path):
    """Four parts with a model."""
    made = harness_in(tmp_path, tmp_path).given_model(Obedient())
    return made.notes(notes(400))


def run(folder, outputs=None, *, place="", hit=1, strike="pass", more="", workers=1,
        work="harness.infer() and 0"):  # fmt: skip
    """How a run in a process of its own ends, and what it says."""
    code = RUN.format(
        folder=str(folder), outputs=str(outputs or folder), place=place, hit=hit,
        strike=strike, more=more, workers=workers, work=work,
    )  # fmt: skip
    with Program(code) as program:
        _, told = program.communicate()
    return program.returncode, told


def undisturbed(folder):
    folder.mkdir()
    other = harness_in(folder, folder).given_model(Obedient())
    other.notes(notes(400)).infer()
    return other.rows()


def is_clean(code, told, *words):
    """Temporary, in the one form that errors have, and no traceback."""
    assert code == ExitCode.TEMPORARY, told
    assert "Traceback" not in told
    (error,) = [line for line in told.splitlines() if line.startswith("error: ")]
    assert any(word in error for word in words), error
    assert "\nhint: " in told


def goes_on(harness, tmp_path, *, rows_before):
    """What was committed is there; the same run is resumed and ends as if nothing had been."""
    ledger = harness.tools.sink.ledger()
    (left,) = ledger.runs("mood")
    assert not left.state.is_terminal
    assert sum(part.done for part in ledger.parts(left.run_id)) == rows_before
    ended = harness.infer()
    assert (ended.run.run_id, ended.run.state) == (left.run_id, RunState.DONE)
    assert harness.rows() == undisturbed(tmp_path / "other")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB; only root can make one."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=False)


def test_no_room_to_put_rows_aside_while_tables_are_compared(harness, tmp_path):
    harness.infer()
    before = harness.rows()
    more = "from mlbatch import buckets, repair; new = buckets._new; "
    more += "buckets._new = lambda *of: (files_up_to(100), new(*of))[1]"
    work = "repair.reconcile(harness.job, harness.tools) and 0"
    is_clean(*run(tmp_path, more=more, work=work), "File too large")
    assert reconcile(Toy, harness.tools).run is None
    assert harness.rows() == before


def filling(disk):
    """All of ``disk`` but for two pages, by a file."""
    fill = f"Path({str(disk / 'filler')!r}).write_bytes(bytes(n)) if n else 0"
    return f"n = os.statvfs({str(disk)!r}).f_bavail * 4096 - 8192; {fill}"


def test_a_full_disk_under_the_table(tmp_path, small_disk):
    harness = harness_in(tmp_path, small_disk).given_model(Obedient())
    harness.notes(notes(400))
    strike = filling(small_disk)
    code, told = run(tmp_path, small_disk, place="after_commit", hit=2, strike=strike)
    is_clean(code, told, "disk is full", "disk I/O error")
    (small_disk / "filler").unlink()
    goes_on(harness, tmp_path, rows_before=200)


# A transaction that is larger than its cache comes to the end of the disk before it commits.
LARGE_BATCHES = """
connect = sqlite._connect

def with_small_cache(path):
    made = connect(path)
    made.execute("PRAGMA cache_size = 1")
    return made

sqlite._connect = with_small_cache
harness._part_rows = 1_000
"""


def test_a_disk_that_is_full_within_a_transaction(tmp_path, small_disk):
    harness = harness_in(tmp_path, small_disk).given_model(Obedient())
    harness.notes(notes(2_000))
    place = {"place": "after_commit", "strike": filling(small_disk), "more": LARGE_BATCHES}
    is_clean(*run(tmp_path, small_disk, **place), "disk is full", "disk I/O error")
    (small_disk / "filler").unlink()
    (left,) = harness.tools.sink.ledger().runs("mood")
    assert [part.done for part in harness.tools.sink.ledger().parts(left.run_id)] == [1_000, 0]
    ended = harness.infer()
    assert (ended.run.run_id, ended.totals.written) == (left.run_id, 2_000)


def test_a_table_that_may_not_grow(harness, tmp_path):
    strike = "files_up_to((folder / 'outputs.db-wal').stat().st_size)"
    code, told = run(tmp_path, place="after_commit", hit=1, strike=strike)
    is_clean(code, told, "disk is full", "disk I/O error", "File too large")
    goes_on(harness, tmp_path, rows_before=100)


def test_no_room_for_what_is_unloaded(harness, tmp_path):
    code, told = run(tmp_path, place="before_unload", strike="files_up_to(2_000)")
    is_clean(code, told, "File too large", "larger than this process may write")
    goes_on(harness, tmp_path, rows_before=0)


def test_no_room_for_the_model(harness, tmp_path):
    """The fetched model is a cache on this machine's disk."""
    (tmp_path / "registry" / "toy" / "1" / "weights").write_bytes(bytes(3_000_000))
    code, told = run(tmp_path, place="after_lease", strike="files_up_to(1_000_000)")
    is_clean(code, told, "File too large", "larger than this process may write")
    assert harness.tools.sink.ledger().runs("mood") == ()
    assert harness.infer().totals.written == 400


def test_too_many_files(harness, tmp_path):
    code, told = run(tmp_path, place="after_commit", hit=1, strike="no_more_files()")
    is_clean(code, told, "open no more files", "unable to open")
    goes_on(harness, tmp_path, rows_before=100)


def test_too_many_files_for_workers(harness, tmp_path):
    code, told = run(tmp_path, place="after_adopt", strike="no_more_files()", workers=2)
    is_clean(code, told, "open no more files", "unable to open")
    goes_on(harness, tmp_path, rows_before=0)


GREEDY = """
class Greedy(Obedient):
    def predict(self, batch):
        np.ones(batch.num_rows << 20)
        return super().predict(batch)
harness._predictor = Greedy()
"""


def test_a_batch_for_which_memory_is_short_goes_in_halves(harness, tmp_path):
    """Eight megabytes for each row of a hundred; there are about two hundred."""
    code, told = run(tmp_path, place="after_adopt", strike="memory(200 << 20)", more=GREEDY)
    assert code == 0, told
    assert harness.rows() == undisturbed(tmp_path / "other")


LOADING = """
from dataclasses import replace
class Loading:
    def __call__(self, job, folder, digest):
        if "after_adopt" in seen:
            np.ones(1 << 26)
        return Obedient()
tools = replace(harness.tools, load_model=Loading())
from mlbatch.inference import infer
from mlbatch.planner import Request
from toy.job import Toy
"""


def test_a_worker_whose_model_does_not_fit_into_memory(harness, tmp_path):
    code, told = run(
        tmp_path, place="after_commit", hit=2, strike="memory(300 << 20)", more=LOADING,
        work="infer(Toy, Request(), tools) and 0",
    )  # fmt: skip
    is_clean(code, told, "memory is used up")
    goes_on(harness, tmp_path, rows_before=200)


# All tables lie in one file, which may not grow beyond what its server allows.
ONE_FILE = "--innodb-file-per-table=0"
FULL = "--innodb-data-file-path=ibdata1:12M:autoextend:max:16M"
ROOMY = "--innodb-data-file-path=ibdata1:12M:autoextend"
MANY = 60_000
ON_MYSQL = """
import pickle
from toy.harness import ToyHarness
from toy.job import Toy
sink = pickle.loads({sink!r})
harness = ToyHarness(Toy, folder, part_rows=10_000, workers=2, sink=sink)
harness._predictor = Obedient()
"""


@pytest.fixture
def full_server(tmp_path):
    with mariadb(tmp_path / "mysql", options=(ONE_FILE, FULL)) as server:
        yield server


def on_mysql(folder, sink):
    made = ToyHarness(Toy, folder, part_rows=10_000, sink=sink)
    made._predictor = Obedient()
    return made


def test_a_full_disk_under_mysql(tmp_path, full_server):
    sink = MysqlSink(writer_of(full_server))
    harness = on_mysql(tmp_path, sink).given_model(Obedient()).notes(notes(MANY))
    code, told = run(tmp_path, more=ON_MYSQL.format(sink=pickle.dumps(sink)))
    is_clean(code, told, "The table 'mood' is full")
    (left,) = sink.ledger().runs("mood")
    assert f"of toy's run {left.run_id} in mood: 1114" in told
    assert "has no room for part " in told
    done = sum(part.done for part in sink.ledger().parts(left.run_id))
    assert 0 < done < MANY
    # What is counted is there, and nothing else is.
    with closing(connect(sink.address)) as connection:
        assert scalar(connection, "SELECT COUNT(*) FROM mood") == done

    full_server.kill()
    full_server.options = (ONE_FILE, ROOMY)
    full_server.restart()
    ended = harness.infer()
    assert (ended.run.run_id, ended.run.state) == (left.run_id, RunState.DONE)
    (tmp_path / "other").mkdir()
    other = on_mysql(tmp_path / "other", SqliteSink(tmp_path / "other" / "outputs.db"))
    other.given_model(Obedient()).notes(notes(MANY)).infer()
    found, wanted = (made.tools.sink.rows(Toy.output.table).read_all() for made in (harness, other))
    assert found.equals(wanted)


def taught(folder):
    """Labelled notes, in parts of a hundred."""
    harness = harness_in(folder, folder)
    harness._predictor = None
    texts = ("bad sad", "good fine")
    harness.notes([note(n, f"{texts[n % 2]} {n}", minutes=n) for n in range(400)])
    labels = [{"note_id": n, "label": ("bad", "good")[n % 2]} for n in range(400)]
    return harness.given("moods", labels, key="note_id")


TRAINING = """
from dataclasses import replace
from mlbatch import training
from toy.job import Toy
harness._predictor = None
tools, extract = replace(harness.tools, models=Path({models!r})), training.extract

def in_a_small_place(*given):
    {limit}
    early.provide_workers()
    return extract(*given)

training.extract = in_a_small_place
"""


def trained(folder, models, *, limit, workers=1):
    more = TRAINING.format(models=str(models), limit=limit)
    return run(folder, more=more, workers=workers, work="training.train(Toy, tools) and 0")


@pytest.mark.parametrize("workers", [1, 2])
def test_no_room_for_the_features_of_a_training(tmp_path, workers):
    harness, models = taught(tmp_path), tmp_path / "models"
    code, told = trained(tmp_path, models, limit="files_up_to(1_000)", workers=workers)
    is_clean(code, told, "File too large", "larger than this process may write")
    assert "the features of part " in told
    assert f"do not fit into {models}/toy-features-" in told
    # Nothing is left behind, and nothing was registered.
    assert list(models.iterdir()) == []
    assert harness.tools.tracking.resolve("toy", "1") is None
    assert harness.train().version.version == 1


def test_a_full_disk_under_the_features_of_a_training(tmp_path, small_disk):
    harness = taught(tmp_path)
    filler = small_disk / "filler"
    fill = f"Path({str(filler)!r}).write_bytes(bytes((1 << 20) - 16384))"
    code, told = trained(tmp_path, small_disk, limit=fill)
    is_clean(code, told, "the disk is full")
    assert f"do not fit into {small_disk}/toy-features-" in told
    filler.unlink()
    assert list(small_disk.iterdir()) == []
    assert trained(tmp_path, small_disk, limit="pass")[0] == 0
    assert harness.tools.tracking.resolve("toy", "1").version == 1
