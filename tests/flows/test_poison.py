"""Parts that kill their workers again and again: set aside whole, named, and tried again."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from bad_inputs import FAILS, bad_input
from toy.early import Program
from toy.harness import DAY_ONE, ToyHarness, interrupted, note, notes
from toy.job import Toy
from toy.model import Obedient

from mlbatch.cli.work import _inference_facts, _inference_text
from mlbatch.connectors.folder import FolderStorage
from mlbatch.connectors.mysql.sink import MysqlSink
from mlbatch.connectors.sqlite import SqliteSink
from mlbatch.engines.local import LocalEngine
from mlbatch.errors import Fenced, QuarantineLimitError, RunFailed, TemporaryError
from mlbatch.inference import infer
from mlbatch.job import Limits
from mlbatch.ledger import RunState, Strikes
from mlbatch.planner import Request
from mlbatch.repair import retry

TESTS = Path(__file__).parents[1]


@dataclass(frozen=True)
class Killing(Obedient):
    """Dies as a process does that is out of memory: by SIGKILL, without a word."""

    def predict(self, batch):
        if "!kill" in batch.column("text").to_pylist():
            os.kill(os.getpid(), signal.SIGKILL)
        return super().predict(batch)


@dataclass(frozen=True)
class AlwaysKilling(Obedient):
    """Dies in every worker, whatever the row."""

    def predict(self, batch):
        os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Hanging(Obedient):
    """Never answers."""

    def predict(self, batch):
        if "!hang" in batch.column("text").to_pylist():
            time.sleep(300)
        return super().predict(batch)


@dataclass(frozen=True, slots=True)
class DeadlyStorage(FolderStorage):
    """A part whose bytes end the worker that opens it."""

    part: str = ""

    @contextmanager
    def open(self, uri, *, etag):
        if multiprocessing.parent_process() is not None and self.part in uri:
            os._exit(9)
        with FolderStorage.open(self, uri, etag=etag) as file:
            yield file


@pytest.fixture(params=["sqlite", "mysql"])
def sink(request, tmp_path):
    if request.param == "sqlite":
        return SqliteSink(tmp_path / "outputs.db")
    return MysqlSink(request.getfixturevalue("mysql_address"))


def harness_on(sink, folder):
    made = ToyHarness(Toy, folder, part_rows=20, workers=2, sink=sink)
    return made.given_model(Killing())


def rows_of_part(harness, ended, number):
    ledger = harness.tools.sink.ledger()
    return next(p for p in ledger.parts(ended.run.run_id) if p.number == number)


def poisoned(*numbers):
    """Sixty-five notes in four parts, some of which kill."""
    return [row | {"text": "!kill"} if row["id"] in numbers else row for row in notes(65)]


def at_most_alone(monkeypatch, rows):
    """How many rows of a part may be found one by one: fewer, where finding them is not the matter."""
    monkeypatch.setattr("mlbatch.nurse.ROWS_ALONE", rows)


def test_rows_that_kill_are_set_aside_alone_although_their_part_is_the_only_one(tmp_path):
    """Most of the delta lies behind the second of them: the part could not be set aside whole."""
    harness = ToyHarness(Toy, tmp_path, part_rows=100, workers=2).given_model(Killing())
    harness.notes(poisoned(5, 9, 10))
    runner_that_dies(tmp_path, at=99, part_rows=100)
    ended = harness.infer()
    found = harness.quarantined(ended.run.run_id)
    assert [(row.key, row.reason) for row in found] == [
        ("5", "killed_worker"), ("9", "killed_worker"), ("10", "killed_worker"),
    ]  # fmt: skip
    assert (ended.totals.written, ended.parts_aside) == (62, ())


def test_a_part_that_kills_too_often_is_set_aside_whole_and_the_rest_goes_on(
    sink, tmp_path, monkeypatch
):
    at_most_alone(monkeypatch, 1)
    harness = harness_on(sink, tmp_path)
    harness.notes(notes(65))
    harness.infer()
    harness.notes(poisoned(25, 33))
    ended = harness.infer(full=True)

    assert ended.run.state is RunState.DONE
    (aside,) = ended.parts_aside
    hurt = rows_of_part(harness, ended, aside.number)
    assert (aside.uri, aside.run_id) == (hurt.uri, ended.run.run_id)
    assert hurt.quarantined == aside.rows + 1
    assert ended.totals.quarantined == hurt.quarantined
    assert ended.totals.written == 65 - hurt.quarantined
    found = harness.quarantined(ended.run.run_id)
    assert {row.reason for row in found} == {"killed_worker", "part_killed_worker"}
    lost = {int(row.key) for row in found}
    assert {25, 33} <= lost
    # No row of the part keeps the prediction that it had.
    assert {row["note_id"] for row in harness.rows()} == set(range(1, 66)) - lost
    is_named(harness, ended, aside)
    is_tried_again(harness)


def test_of_a_file_that_is_cut_only_the_piece_that_kills_is_set_aside(tmp_path, monkeypatch):
    at_most_alone(monkeypatch, 1)
    monkeypatch.setattr("mlbatch.unloading.PIECE_BYTES", 1)
    monkeypatch.setattr("mlbatch.connectors.duckdb.GROUP_ROWS", 10)
    harness = harness_on(SqliteSink(tmp_path / "outputs.db"), tmp_path)
    ended = harness.notes(poisoned(33, 37)).infer()

    (aside,) = ended.parts_aside
    hurt = rows_of_part(harness, ended, aside.number)
    assert hurt.rows_expected == 10
    assert ended.totals.quarantined == hurt.quarantined == aside.rows + 1
    found = harness.quarantined(ended.run.run_id)
    assert {row.reason for row in found} == {"killed_worker", "part_killed_worker"}
    assert {int(row.key) for row in found} <= set(range(31, 41))


@bad_input(98, outcome=FAILS, says="no worker predicts any row")
def test_98_a_model_that_always_kills_takes_nothing_from_the_table(sink, tmp_path):
    """Out of memory, or an instruction that this machine has not: no row is to blame."""
    harness = harness_on(sink, tmp_path)
    harness.notes(notes(120))
    harness.infer()
    before = harness.rows()
    harness.notes([row | {"text": "!kill"} for row in notes(120)])
    with pytest.raises(RunFailed, match=r"no worker predicts any row") as caught:
        harness.infer(full=True)
    assert "nothing was taken from the table" in caught.value.hint
    (run, _) = harness.tools.sink.ledger().runs("mood")
    assert (run.state, harness.quarantined(run.run_id)) == (RunState.FAILED, ())
    assert harness.rows() == before


@pytest.mark.timeout(240)
def test_a_model_that_kills_the_run_itself_takes_nothing_from_the_table(tmp_path):
    harness = harness_on(SqliteSink(tmp_path / "outputs.db"), tmp_path)
    harness.notes(notes(65))
    harness.infer()
    before = harness.rows()
    harness.notes([note(n, "!kill", minutes=5_000 + n) for n in range(1, 66)])
    runner_that_dies(tmp_path, at=99, part_rows=100)
    with pytest.raises(RunFailed, match="no worker predicts any row"):
        harness.infer()
    assert harness.rows() == before


@pytest.mark.timeout(240)
@pytest.mark.parametrize("last", [False, True])
def test_the_only_bad_row_of_a_delta_is_to_blame_wherever_it_is(tmp_path, last):
    """Its part is the only one, and where it comes first nothing was predicted before it."""
    harness = harness_on(SqliteSink(tmp_path / "outputs.db"), tmp_path)
    bad = note(65 if last else 1, "!kill")
    good = [row for row in notes(65) if row["id"] != bad["id"]]
    harness.notes([*good, bad] if last else [bad, *good])
    runner_that_dies(tmp_path, at=99, part_rows=100)
    ended = harness.infer()
    (found,) = harness.quarantined(ended.run.run_id)
    assert (found.row_offset, found.reason) == (64 if last else 0, "killed_worker")
    assert ended.totals.written == 64


@pytest.mark.timeout(240)
def test_the_only_row_of_a_run_is_not_to_blame_before_another_was_predicted(tmp_path):
    harness = harness_on(SqliteSink(tmp_path / "outputs.db"), tmp_path)
    harness.notes([*notes(2), note(3, "good", minutes=5_000)]).infer()
    harness.notes([note(3, "!kill", minutes=5_100)])
    runner_that_dies(tmp_path, at=99)
    with pytest.raises(RunFailed, match="no worker predicts any row"):
        harness.infer()
    assert {row["note_id"] for row in harness.rows()} == {1, 2, 3}
    # The next delta reads it together with others.
    harness.notes([note(4, "good", minutes=5_101)])
    runner_that_dies(tmp_path, at=99)
    assert harness.infer().totals.quarantined == 1
    assert {row["note_id"] for row in harness.rows()} == {1, 2, 4}


@pytest.mark.timeout(240)
def test_trials_of_rows_that_no_model_sees_prove_nothing(tmp_path):
    """A worker lives through the other row, which is deleted: that says nothing about the model."""
    harness = harness_on(SqliteSink(tmp_path / "outputs.db"), tmp_path)
    harness.notes([*notes(2), note(3, "good", minutes=5_000)]).infer()
    gone = note(2, "good", minutes=5_101, deleted=DAY_ONE)
    harness.notes([note(3, "!kill", minutes=5_100), gone])
    runner_that_dies(tmp_path, at=99)
    with pytest.raises(RunFailed, match="no worker predicts any row"):
        harness.infer()
    assert 3 in {row["note_id"] for row in harness.rows()}


def test_a_machine_on_which_the_model_kills_leaves_the_run_to_another(tmp_path, monkeypatch):
    harness = harness_on(SqliteSink(tmp_path / "outputs.db"), tmp_path)
    harness._workers = 1
    interrupted(harness.notes(notes(65)), monkeypatch, 2)
    here = harness.rows()
    harness._predictor = AlwaysKilling()
    with pytest.raises(TemporaryError, match="no worker predicts any row"):
        harness.infer()
    assert harness.rows() == here
    harness._predictor = Killing()
    ended = harness.infer()
    assert (ended.totals.written, ended.totals.quarantined) == (65, 0)


def test_parts_are_left_alone_where_more_than_half_of_the_rows_would_go(tmp_path, monkeypatch):
    at_most_alone(monkeypatch, 1)
    harness = ToyHarness(Toy, tmp_path, part_rows=40, workers=2).given_model(Killing())
    harness.notes(notes(65))
    harness.infer()
    before = harness.rows()
    harness.notes(poisoned(1, 3))
    with pytest.raises(QuarantineLimitError, match=r"38 of 65 rows would be set aside"):
        harness.infer(full=True)
    kept = {row["note_id"] for row in harness.rows()}
    assert kept == set(range(1, 66)) - {1}
    assert len(before) == 65


def is_named(harness, ended, aside):
    told = _inference_text(ended, 1.0)
    assert f"part 1 of run {ended.run.run_id} ({aside.uri}) killed" in told
    assert "try again: mlbatch retry --quarantined toy" in told
    (listed,) = json.loads(json.dumps(_inference_facts(ended, 1.0)))["parts_quarantined"]
    assert listed["uri"] == aside.uri
    assert any(aside.uri in notice for notice in harness.notices)


def is_tried_again(harness):
    harness.notes(notes(65))
    mended = retry(Toy, harness.tools)
    assert mended.totals.quarantined == 0
    assert {row["note_id"] for row in harness.rows()} == set(range(1, 66))
    assert retry(Toy, harness.tools) is None


def test_more_rows_than_a_query_names_are_tried_again_with_everything(harness, monkeypatch):
    monkeypatch.setattr("mlbatch.repair.MAX_KEYS", 5)
    bad = [note(n, "!raise", minutes=n) for n in range(6)]
    harness.notes([*notes(65, start=10), *bad]).infer()
    harness.notes([row | {"text": "good"} for row in bad])
    assert retry(Toy, harness.tools).run.new.kind == "full"
    assert len(harness.rows()) == 71


def test_a_part_that_cannot_even_be_read_is_set_aside_unread(tmp_path):
    harness = harness_on(SqliteSink(tmp_path / "outputs.db"), tmp_path)
    harness.notes(notes(65))
    harness.infer()
    before = {row["note_id"]: row["run_no"] for row in harness.rows()}
    harness.notes([note(n, "good", minutes=5_000) for n in range(3, 66, 3)])
    tools = harness.tools
    deadly = DeadlyStorage(tools.storage.root, "0002_part")
    ended = infer(Toy, Request(full=True), replace(tools, storage=deadly))

    (aside,) = ended.parts_aside
    assert (aside.number, aside.rows, ended.totals.quarantined) == (2, 20, 20)
    assert {r.reason for r in harness.quarantined(ended.run.run_id)} == {"part_unreadable"}
    # Whose rows they are is not known, so what they had stays: see docs/exactly-once.md.
    kept = [n for n, run_no in before.items() if harness_row(harness, n)["run_no"] == run_no]
    assert len(kept) == 20
    stale = [n for n in kept if harness_row(harness, n)["label"] == "bad"]
    assert stale
    assert retry(Toy, harness.tools).totals.written == len(stale)
    assert {harness_row(harness, n)["label"] for n in kept} == {"good"}


def harness_row(harness, number):
    return next(row for row in harness.rows() if row["note_id"] == number)


def test_a_model_that_kills_in_every_part_fails_the_run(tmp_path, monkeypatch):
    at_most_alone(monkeypatch, 1)
    harness = harness_on(SqliteSink(tmp_path / "outputs.db"), tmp_path)
    harness.notes(poisoned(2, 3, 25, 33, 44, 45))
    with pytest.raises(QuarantineLimitError, match=r"2 of 4 parts .* would be set aside"):
        harness.infer()
    assert harness.tools.sink.ledger().runs("mood")[0].state is RunState.FAILED


def test_workers_that_die_without_reading_are_not_held_against_the_parts(tmp_path):
    harness = harness_on(SqliteSink(tmp_path / "outputs.db"), tmp_path)
    tools = harness.notes(notes(65)).tools
    deadly = replace(tools, sink=_DeadlySink(tmp_path / "outputs.db"))
    with pytest.raises(RunFailed, match="no worker predicts any row"):
        infer(Toy, Request(), deadly)
    ended = harness.infer()
    assert (ended.totals.written, ended.parts_aside) == (65, ())


class _DeadlySink(SqliteSink):
    @contextmanager
    def session(self, table, run):
        os._exit(9)
        yield


RUNNER = """
import os, signal
from pathlib import Path
from toy.harness import ToyHarness
from toy.job import Toy
from toy import early
from flows.test_poison import Killing
early.provide_workers()
harness = ToyHarness(Toy, Path({folder!r}), part_rows={part_rows}, workers=2)
harness._predictor = Killing()
deaths = []
def notify(stage, text):
    deaths.extend([text] if "a worker died" in text else [])
    if len(deaths) == {at}:
        os.kill(os.getpid(), signal.SIGKILL)
harness._notify = notify
harness.infer()
"""


def runner_that_dies(folder, *, at, part_rows=20):
    """A runner in a process of its own, killed while it looks after its ``at``-th dead worker."""
    with Program(RUNNER.format(folder=str(folder), at=at, part_rows=part_rows)) as runner:
        _, told = runner.communicate()
    assert runner.returncode == -signal.SIGKILL, told


@pytest.mark.timeout(240)
def test_strikes_outlive_the_runner(tmp_path, monkeypatch):
    at_most_alone(monkeypatch, 1)
    harness = harness_on(SqliteSink(tmp_path / "outputs.db"), tmp_path)
    harness.notes(poisoned(25, 33))
    ledger = harness.tools.sink.ledger()
    runner_that_dies(tmp_path, at=4)
    (run,) = ledger.runs("mood")
    (strikes,) = ledger.strikes(run.run_id)
    # The accident, the search, and the row set aside; at the fourth it is gone itself.
    assert strikes.deaths == 3
    ended = harness.infer()
    (aside,) = ended.parts_aside
    assert ended.run.run_id == run.run_id
    assert aside.deaths > strikes.deaths
    # It takes the row up where it was left: what was found is not found by dying again.
    (first, *_) = [n for n in harness.notices if "a worker died" in n]
    died_at = int(first.partition("at row ")[2].partition(" ")[0])
    assert died_at >= (strikes.died_at or 0)
    assert ended.totals.written + ended.totals.quarantined == 65


@pytest.mark.timeout(240)
def test_a_single_part_that_kills_the_run_itself_is_set_aside_by_the_next_one(
    tmp_path, monkeypatch
):
    """A small delta is scored in the calling process, which its row then kills."""
    at_most_alone(monkeypatch, 1)
    harness = harness_on(SqliteSink(tmp_path / "outputs.db"), tmp_path)
    harness.notes(poisoned(25, 43))
    runner_that_dies(tmp_path, at=99, part_rows=100)
    ended = harness.infer()
    assert len(ended.parts_aside) == 1
    assert ended.totals.written + ended.totals.quarantined == 65


HANGING_RUNNER = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from flows.test_poison import Hanging
from mlbatch.errors import TemporaryError
from mlbatch.job import Limits
from toy.harness import ToyHarness
from toy.job import Toy
Toy.limits = Limits(batch_seconds=2)
harness = ToyHarness(Toy, Path({folder!r}), part_rows=100)
harness._predictor = Hanging()
try:
    harness.infer()
except TemporaryError as error:
    print(error)
"""


@pytest.mark.timeout(240)
def test_a_row_that_hangs_is_found_like_one_that_kills(tmp_path, monkeypatch):
    """The process of a small delta ends by an error, and the next one's workers end themselves."""
    monkeypatch.setattr(Toy, "limits", Limits(batch_seconds=2))
    engine = LocalEngine(2)
    engine.warm_up()
    harness = ToyHarness(Toy, tmp_path, part_rows=100, engine=engine).given_model(Hanging())
    harness.notes([row | {"text": "!hang"} if row["id"] == 5 else row for row in notes(20)])
    # No fork: a process that has a parent of ours is a worker, and ends itself.
    code = HANGING_RUNNER.format(tests=str(TESTS), folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "toy: a batch of 20 rows took longer than 2 s\n", done.stderr
    assert harness.tools.sink.ledger().holder("mood") is None
    ended = harness.infer()
    (found,) = harness.quarantined(ended.run.run_id)
    assert (found.key, found.reason, ended.totals.written) == ("5", "killed_worker", 19)


def test_strikes_are_kept_by_run_and_fenced(sink):
    from seams.test_sink import TABLE, begin

    run, ledger, lease = begin(sink)
    assert ledger.strikes("r1") == ()
    for strikes in (Strikes(0, 1, 7), Strikes(0, 2, 7, 7), Strikes(0, 9, 8, 7, 8)):
        ledger.strike(run, strikes)
        assert ledger.strikes("r1") == (strikes,)
    ledger.release(lease, 12)
    with pytest.raises(Fenced):
        ledger.strike(run, Strikes(0, 10, 8))
    assert ledger.strikes("r1")[0].deaths == 9
    assert TABLE.name == "mood"
