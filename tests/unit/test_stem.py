"""The process that workers are forked from, with real processes."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlbatch.engine import PartOutcome, PartTask
from mlbatch.engines.local import FINISH_SECONDS, LocalEngine
from mlbatch.engines.stem import Stem
from mlbatch.errors import TemporaryError

MEANWHILE = "as it was"


def life(pipe):
    while (told := pipe.recv()) != "end":
        pipe.send((os.getppid(), MEANWHILE, told))


def started(stem):
    ours, theirs = multiprocessing.Pipe()
    return ours, stem.start(theirs)


def test_workers_are_what_the_process_was_when_the_stem_was_made(monkeypatch):
    stem = Stem(life)
    monkeypatch.setattr(f"{__name__}.MEANWHILE", "changed")
    first, number = started(stem)
    second, other = started(stem)
    first.send(1)
    second.send(2)
    parent, seen, told = first.recv()
    assert (seen, told) == ("as it was", 1)
    assert second.recv() == (parent, "as it was", 2)
    assert parent not in (os.getpid(), number, other)
    first.send("end")
    assert stem.exit_code(number) == 0
    os.kill(other, signal.SIGKILL)
    assert stem.exit_code(other) == -signal.SIGKILL
    stem.stop()


def test_a_stem_ends_although_another_was_made_after_it():
    first, second = Stem(life), Stem(life)
    first.stop()
    second.stop()


def test_a_stem_that_is_killed_is_a_passing_fault():
    stem = Stem(life)
    _, number = started(stem)
    os.kill(stem._process.pid, signal.SIGKILL)
    stem._process.join()
    with pytest.raises(TemporaryError, match="forked from is gone"):
        stem.exit_code(number)
    with pytest.raises(TemporaryError, match="forked from is gone"):
        started(stem)
    stem.stop()


def test_a_fresh_stem_knows_nothing_of_this_process(monkeypatch):
    monkeypatch.setattr(f"{__name__}.MEANWHILE", "changed")
    stem = Stem(life, os.getpid)
    worker, number = started(stem)
    worker.send(1)
    parent, seen, told = worker.recv()
    assert (seen, told) == ("as it was", 1)
    assert parent not in (os.getpid(), number)
    worker.send("end")
    assert stem.exit_code(number) == 0
    stem.stop()


def test_a_stem_does_not_wait_for_a_worker_that_is_stopped():
    stem = Stem(life)
    _, number = started(stem)
    os.kill(number, signal.SIGSTOP)
    stem.stop()
    assert gone_in(10, number)


class Unloadable:
    def __reduce__(self):
        return (int, ("no number",))


def test_work_that_cannot_be_loaded_is_no_death_of_a_worker():
    with pytest.raises(ValueError, match="no number"):
        list(LocalEngine(2).run(Unloadable(), [PartTask(0), PartTask(1)], no))


def test_an_early_stem_serves_all_runs_of_a_process():
    engine = LocalEngine(2)
    engine.warm_up()
    tasks = [PartTask(0), PartTask(1)]
    parents = {o.stage_seconds["parent"] for _ in range(2) for o in engine.run(Parent(), tasks, no)}
    assert len(parents) == 1
    assert parents != {os.getpid()}


def test_an_early_stem_that_was_killed_is_replaced():
    engine = LocalEngine(2)
    engine.warm_up()
    (early,) = engine._early
    os.kill(early._process.pid, signal.SIGKILL)
    early._process.join()
    tasks = [PartTask(0), PartTask(1)]
    assert {outcome.part_number for outcome in engine.run(Parent(), tasks, no)} == {0, 1}
    assert engine._early == []


def test_a_worker_that_is_gone_is_sent_no_signal():
    """Its number is anybody's once its parent has waited for it, which each fork does."""
    stem = Stem(life)
    first, number = started(stem)
    other, living = started(stem)
    first.send("end")
    assert gone_in(10, number)
    third, _ = started(stem)
    for worker in (number, 2**22 + 1):
        stem.send_signal(worker, signal.SIGKILL)
    third.send(3)
    assert third.recv()[2] == 3
    assert stem.exit_code(number) == 0
    stem.send_signal(number, signal.SIGTERM)
    stem.send_signal(living, signal.SIGTERM)
    assert stem.exit_code(living) == -signal.SIGTERM
    other.close()
    stem.stop()
    stem.send_signal(living, signal.SIGKILL)


class Parent:
    def __call__(self, task):
        return PartOutcome(task.part_number, {"parent": os.getppid()})


class Clearing:
    """One part fails while the other one clears up, where Python loses exceptions."""

    def __init__(self, folder):
        self.busy = folder / "busy"

    def __call__(self, task):
        if task.part_number:
            last = _Last(self.busy)
            del last
            return PartOutcome(task.part_number, {})
        while not self.busy.exists():
            time.sleep(0.01)
        message = "this part fails"
        raise ValueError(message)


class _Last:
    def __init__(self, busy):
        self.busy = busy

    def __del__(self):
        self.busy.touch()
        time.sleep(300)


def test_a_worker_that_is_asked_to_leave_while_it_clears_up_leaves(tmp_path):
    started_at = time.monotonic()
    with pytest.raises(ValueError, match="this part fails"):
        list(LocalEngine(2).run(Clearing(tmp_path), [PartTask(0), PartTask(1)], no))
    assert time.monotonic() - started_at < FINISH_SECONDS


def no(death):
    raise AssertionError(death)


def gone_in(seconds, process):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            stat = Path(f"/proc/{process}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return True
        if stat.rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


class Sleeper:
    """Tells its process, then works for longer than any test."""

    def __call__(self, task):
        sys.stdout.write(f"{os.getpid()}\n")
        sys.stdout.flush()
        time.sleep(300)
        return PartOutcome(task.part_number, {})


def sleeping_run():
    command = [sys.executable, "-c", f"from {__name__} import run_sleepers; run_sleepers()"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def run_sleepers():
    list(LocalEngine(2).run(Sleeper(), [PartTask(0), PartTask(1)], lambda death: death.task))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are read from /proc")
@pytest.mark.parametrize("stopped", [None, 0, 1])
def test_workers_die_with_the_process_that_they_work_for(stopped):
    """Also while one is stopped, whatever it has inherited."""
    with sleeping_run() as process:
        workers = [int(process.stdout.readline()) for _ in range(2)]
        if stopped is not None:
            os.kill(workers[stopped], signal.SIGSTOP)
        process.kill()
        # The one that is stopped is killed by the process that it was forked from.
        assert all(gone_in(10, worker) for worker in workers)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are read from /proc")
def test_workers_die_although_the_process_that_they_were_forked_from_died_first():
    with sleeping_run() as process:
        workers = [int(process.stdout.readline()) for _ in range(2)]
        stat = Path(f"/proc/{workers[0]}/stat").read_text()
        stem = int(stat.rpartition(")")[2].split()[1])
        assert stem not in {process.pid, os.getpid()}
        os.kill(stem, signal.SIGKILL)
        assert gone_in(10, stem)
        process.kill()
        assert all(gone_in(10, worker) for worker in workers)
