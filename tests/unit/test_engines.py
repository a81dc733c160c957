"""Engines run every part, whatever becomes of their workers.

A fresh interpreter imports this file for its `Work`: it imports no more than engines need.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mlbatch.engine import PartOutcome, PartTask
from mlbatch.engines.local import LocalEngine
from mlbatch.errors import RunFailed


class Work:
    """Does what a part's number says."""

    def __call__(self, task):
        if task.part_number == 13:
            message = "unlucky"
            raise RunFailed(message, hint="no part 13")
        if task.part_number == 14:
            raise _Unpicklable
        if task.part_number == 9 and not task.careful_until:
            signal.raise_signal(signal.SIGKILL)
        return PartOutcome(task.part_number, {"score": 0.1})


class _Unpicklable(Exception):
    def __reduce__(self):
        message = "holds a socket"
        raise TypeError(message)


def with_care(death):
    assert death.exit_code == -signal.SIGKILL
    return replace(death.task, careful_until=1)


@pytest.mark.parametrize("workers", [1, 2])
def test_engines_run_every_part(workers):
    tasks = [PartTask(n) for n in range(8)]
    engine = LocalEngine(workers)
    numbers = sorted(o.part_number for o in engine.run(Work(), tasks, with_care))
    assert numbers == list(range(8))
    assert list(engine.run(Work(), [], with_care, isolated=True)) == []


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="children are read from /proc")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_warm_engine_has_what_its_workers_share(workers):
    """In a process of its own: what a test before this one left would be found instead."""
    script = f"""
import os
from mlbatch.engines.local import LocalEngine
engine = LocalEngine({workers})
engine.warm_up()
print(open(f"/proc/self/task/{{os.getpid()}}/children").read())
"""
    told = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True
    )
    assert len(told.stdout.split()) == 1


def test_a_warm_engine_runs_as_any_other():
    engine = LocalEngine(2)
    engine.warm_up()
    tasks = [PartTask(n) for n in range(4)]
    assert sorted(o.part_number for o in engine.run(Work(), tasks, with_care)) == list(range(4))


def test_a_dead_worker_s_part_goes_on_elsewhere():
    tasks = [PartTask(8), PartTask(9), PartTask(10)]
    numbers = sorted(o.part_number for o in LocalEngine(2).run(Work(), tasks, with_care))
    assert numbers == [8, 9, 10]
    (outcome,) = LocalEngine(1).run(Work(), [PartTask(9)], with_care, isolated=True)
    assert outcome.part_number == 9


def test_an_error_in_a_worker_is_raised_here_as_it_was_there():
    with pytest.raises(RunFailed, match="unlucky") as caught:
        list(LocalEngine(2).run(Work(), [PartTask(1), PartTask(13)], with_care))
    assert caught.value.hint == "no part 13"
    with pytest.raises(RuntimeError, match="_Unpicklable"):
        list(LocalEngine(2).run(Work(), [PartTask(1), PartTask(14)], with_care))
