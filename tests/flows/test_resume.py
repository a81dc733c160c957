"""What a run does when it, or one of its workers, is killed."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from bad_inputs import QUARANTINED, bad_input
from toy.early import Program
from toy.harness import QuickHarness, ToyHarness, interrupted, note, notes
from toy.job import Toy
from toy.model import Obedient

from mlbatch import inference, worker
from mlbatch.connectors.folder import FolderStorage
from mlbatch.connectors.sqlite import SqlitePartSession
from mlbatch.errors import Busy, Fenced, ModelTampered, UsageError
from mlbatch.inference import infer
from mlbatch.ledger import Lease, Owner, RunState
from mlbatch.planner import Request
from mlbatch.repair import reconcile
from mlbatch.switching import switch

RUN_SLOWLY = """
import importlib, time
from pathlib import Path
from toy.harness import ToyHarness
from toy.job import Toy
from mlbatch.connectors.sqlite import SqlitePartSession
commit = SqlitePartSession.commit
def slowly(self, batch):
    commit(self, batch)
    print("committed", flush=True)
    time.sleep({seconds})
SqlitePartSession.commit = slowly
from toy import early
from toy.model import Obedient
early.provide_workers()
harness = ToyHarness(Toy, Path({folder!r}), part_rows=10)
harness._predictor = Obedient()
cli_main = importlib.import_module("mlbatch.cli.main")
cli_main.cli = type("Cli", (), {{"main": staticmethod(lambda **_: harness.infer())}})
cli_main.main()
"""


def slow_run(folder, seconds):
    """A run in a process of its own, which tells each commit and then waits."""
    return Program(RUN_SLOWLY.format(folder=str(folder), seconds=seconds))


def run_until_commits(folder, commits):
    """Start a run in a process of its own and kill -9 it after some commits."""
    with slow_run(folder, 0.2) as process:
        for _ in range(commits):
            assert process.stdout.readline() == "committed\n"
        process.kill()


def undisturbed(folder, rows):
    folder.mkdir()
    other = ToyHarness(Toy, folder, part_rows=10).given_model(Obedient())
    other.notes(rows).infer()
    return other.rows()


@pytest.mark.parametrize("commits", [1, 3])
def test_a_killed_backfill_is_resumed_and_ends_like_an_undisturbed_one(harness, tmp_path, commits):
    harness.notes(notes(45))
    run_until_commits(tmp_path, commits)
    (left,) = harness.tools.sink.ledger().runs("mood")
    assert left.state is RunState.WRITING
    done_before = sum(p.done for p in harness.tools.sink.ledger().parts(left.run_id))
    assert done_before >= 10 * commits

    ended = harness.infer()

    assert ended.run.run_id == left.run_id
    assert ended.run.state is RunState.DONE
    assert harness.rows() == undisturbed(tmp_path / "other", notes(45))


def test_nothing_that_was_committed_is_written_again(harness, tmp_path):
    harness.notes(notes(45))
    run_until_commits(tmp_path, 3)
    log = tmp_path / "predicted.log"
    harness.given_model(Obedient(log))
    harness.infer(accept_code_change=True)
    predicted = sum(int(line) for line in log.read_text().split())
    assert predicted <= 45 - 30


def test_rows_that_arrive_meanwhile_wait_for_the_next_run(harness, tmp_path):
    harness.notes(notes(45))
    run_until_commits(tmp_path, 1)
    harness.notes([note(900, "good", minutes=460)])
    assert harness.infer().totals.expected == 45
    assert harness.infer().totals.expected < 10
    assert 900 in {row["note_id"] for row in harness.rows()}


def test_changed_code_is_not_silently_resumed(harness, tmp_path, monkeypatch):
    harness.notes(notes(45))
    run_until_commits(tmp_path, 1)
    monkeypatch.setattr("mlbatch.inference.code_digest", lambda _: "other")
    with pytest.raises(UsageError, match="code has changed"):
        harness.infer()
    ended = harness.infer(supersede=True)
    states = [run.state for run in harness.tools.sink.ledger().runs("mood")]
    assert states == [RunState.DONE, RunState.SUPERSEDED]
    assert ended.totals.written == 45


def test_an_unfinished_run_whose_model_is_refused_says_the_way_out(harness, tmp_path):
    harness.notes(notes(45))
    run_until_commits(tmp_path, 1)
    tools = replace(harness.tools, load_model=_refuse)
    with pytest.raises(ModelTampered) as caught:
        infer(Toy, Request(), tools)
    assert "--supersede starts anew" in caught.value.hint
    assert harness.infer(supersede=True).totals.written == 45


def _refuse(*_):
    raise ModelTampered


def test_a_live_owner_is_not_disturbed(harness):
    harness.notes(notes(5))
    tools = harness.tools
    ledger = tools.sink.ledger()
    ledger.acquire("mood", "toy", Owner("somebody", "another-host", 12, ""), 5)
    with pytest.raises(Busy, match="process 12 on another-host"):
        harness.infer()
    assert str(ledger.holder("mood")) == "process 12 on another-host"


def test_a_dead_owner_on_this_machine_is_taken_over_at_once(harness):
    harness.notes(notes(5))
    ledger = harness.tools.sink.ledger()
    here = harness.tools.owner
    ledger.acquire("mood", "toy", Owner("somebody", here.host, 2**22 + 1, "1"), 5)
    assert ledger.holder("mood") is None
    assert harness.infer().totals.written == 5


def test_another_job_s_table_is_refused(harness):
    ledger = harness.tools.sink.ledger()
    ledger.acquire("mood", "other_job", Owner("somebody", "another-host", 12, ""), 5)
    with pytest.raises(UsageError, match="belongs to the job other_job"):
        harness.notes(notes(5)).infer()


def test_a_sleeper_that_wakes_after_a_take_over_writes_nothing(harness, monkeypatch):
    """A worker stops before its commit; another process takes over and finishes; it wakes."""
    harness.notes(notes(25))
    commit = SqlitePartSession.commit
    woken = []

    def taken_over(self, batch):
        if not woken:
            woken.append(batch)
            monkeypatch.setattr(SqlitePartSession, "commit", commit)
            other = replace(harness.tools, owner=harness.tools.owner)
            ledger = other.sink.ledger()
            # As if the lease had run out: nobody holds it any more.
            held = ledger.holder("mood")
            ledger.release(_lease(held, ledger), 11)
            infer(Toy, Request(), other)
        commit(self, batch)

    monkeypatch.setattr(SqlitePartSession, "commit", taken_over)
    with pytest.raises(Fenced):
        harness.infer()
    assert len(harness.rows()) == 25
    assert [run.state for run in harness.tools.sink.ledger().runs("mood")] == [RunState.DONE]


def test_a_sleeper_that_wakes_after_its_last_batch_leaves_the_end_to_the_other(
    harness, monkeypatch
):
    """All rows are in when it falls asleep; the epoch that it finds on waking is not its own."""
    harness.notes(notes(25))
    write = inference._write
    slept = []

    def asleep(*given, **how):
        seconds = write(*given, **how)
        if not slept:
            slept.append(True)
            ledger = harness.tools.sink.ledger()
            ledger.release(_lease(ledger.holder("mood"), ledger), 11)
            infer(Toy, Request(), harness.tools)
        return seconds

    monkeypatch.setattr(inference, "_write", asleep)
    with pytest.raises(Fenced, match="taken over"):
        harness.infer()
    assert [run.state for run in harness.tools.sink.ledger().runs("mood")] == [RunState.DONE]
    assert len(harness.rows()) == 25


def _lease(owner, ledger):
    (run,) = ledger.runs("mood")
    return Lease("mood", "toy", run.epoch, owner)


@bad_input(98, outcome=QUARANTINED, says="killed_worker")
def test_98_a_row_that_kills_its_worker_is_found_and_set_aside(tmp_path):
    harness = ToyHarness(Toy, tmp_path, part_rows=400, workers=2).given_model(Obedient())
    harness.notes([*notes(500), note(10_000, "!exit", minutes=1234)])
    ended = harness.infer()
    assert ended.totals.written == 500
    (row,) = harness.quarantined(ended.run.run_id)
    assert (row.key, row.reason) == ("10000", "killed_worker")
    assert any("a worker died at row" in notice for notice in harness.notices)


def test_a_worker_that_is_killed_by_accident_costs_nothing(tmp_path):
    harness = ToyHarness(Toy, tmp_path, part_rows=20, workers=2)
    harness.given_model(_KilledOnce(tmp_path / "killed"))
    ended = harness.notes(notes(60)).infer()
    assert [n for n in harness.notices if "a worker died" in n and "exit -9" in n]
    assert (ended.totals.written, ended.totals.quarantined) == (60, 0)


@dataclass(frozen=True)
class _KilledOnce:
    marker: Path

    def predict(self, batch):
        with suppress(FileExistsError):
            self.marker.touch(exist_ok=False)
            os.kill(os.getpid(), signal.SIGKILL)
        return Obedient().predict(batch)


def test_a_part_is_taken_up_in_its_middle(harness, monkeypatch):
    monkeypatch.setitem(worker.score_part.__kwdefaults__, "batch_rows", 4)
    interrupted(harness.notes(notes(10)), monkeypatch, 2)
    ledger = harness.tools.sink.ledger()
    (part,) = ledger.parts(ledger.runs("mood")[0].run_id)
    assert part.done == 8
    assert harness.infer().totals.written == 10
    assert len(harness.rows()) == 10


def test_a_terminated_run_gives_its_lease_back_and_says_so(harness, tmp_path):
    harness.notes(notes(45))
    with slow_run(tmp_path, 5) as process:
        assert process.stdout.readline() == "committed\n"
        process.terminate()
        _, told = process.communicate(timeout=20)
    assert process.returncode == 143
    assert "what was committed stays" in told
    ledger = harness.tools.sink.ledger()
    assert ledger.holder("mood") is None
    assert sum(part.done for part in ledger.parts(ledger.runs("mood")[0].run_id)) == 10
    assert harness.infer().totals.written == 45


def test_an_interrupted_run_frees_its_lease(harness, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(SqlitePartSession, "commit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        harness.notes(notes(25)).infer()
    monkeypatch.undo()
    assert harness.tools.sink.ledger().holder("mood") is None
    assert harness.infer().totals.written == 25


def test_parts_are_let_go_when_their_run_has_ended_long_ago(tmp_path, monkeypatch):
    harness = QuickHarness(Toy, tmp_path, part_rows=10).given_model(Obedient()).notes(notes(25))
    ended = harness.infer().run.run_id
    recent = harness.infer().run.run_id
    interrupted(harness, monkeypatch, 1, full=True)
    left = harness.tools.sink.ledger().runs("mood")[0].run_id
    storage, folder = harness.tools.storage, harness.tools.storage.root / "mlbatch" / "toy"
    storage.put(f"{storage.prefix}mlbatch/toy/train/t1/0.parquet", b"1")
    for name in (ended, left, "train/t1"):
        os.utime(folder / name, (0, 0))
    assert harness.infer().run.run_id == left
    assert {path.name for path in folder.iterdir()} == {recent, left, "train"}
    assert list((folder / "train").iterdir()) == []
    # Of a run that has ended, in its turn.
    harness.infer()
    assert left not in {path.name for path in folder.iterdir()}


def test_parts_of_a_look_that_was_killed_are_let_go_long_afterwards(tmp_path, monkeypatch):
    harness = QuickHarness(Toy, tmp_path, part_rows=10).given_model(Obedient()).notes(notes(25))
    harness.infer()
    harness.given_model(Obedient())
    with monkeypatch.context() as killed:
        killed.setattr(FolderStorage, "discard", lambda *_: None)
        reconcile(Toy, harness.tools)
        switch(Toy, harness.tools)
        reconcile(Toy, harness.tools)
    folder = harness.tools.storage.root / "mlbatch" / "toy"
    left = [path for name in ("_reconcile", "_inspect") for path in (folder / name).iterdir()]
    recent, *old = left
    assert len(old) >= 3
    for path in old:
        os.utime(path, (0, 0))
    harness.infer()
    assert recent.exists()
    assert [path for path in old if path.exists()] == []
