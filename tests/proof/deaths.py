"""Processes below a run are ended or stopped while the rest goes on, under the engine of real runs."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from mlbatch.engine import Engine
from mlbatch.engines.local import LocalEngine
from proof.world import AGAIN, DONE, WORKERS, World, wait_until

if TYPE_CHECKING:
    from proof.campaign import Tally

Start = Callable[[], int]
ATTEMPTS = 60
SECONDS = 120
MOST = 3
"""Deaths in one round: a fourth at the same row would rightly set it aside."""
STRIKES = (
    "worker killed", "worker killed", "worker killed", "worker told to leave", "worker stopped",
    "stem killed", "run killed",
)  # fmt: skip
"""The more important ones several times. Of a run that is killed, the workers must see it."""
DEATHS = {"worker killed", "worker told to leave"}


def early_engine() -> Engine:
    """The engine of real runs, whose workers are forked from what this process is now."""
    engine = LocalEngine(WORKERS)
    engine.warm_up()
    return engine


def strike_one_round(world: World, tally: Tally, start: Start) -> None:
    """Strike now and then until the run is through; no row may be blamed for it."""
    left = world.random.randrange(1, MOST + 1)
    for _ in range(ATTEMPTS):
        run = start()
        code, struck = _accompany(world, run, left)
        left -= sum(struck.values())
        tally.struck.update(struck)
        # Whatever became of the run, its workers and their stem leave, too.
        tally.wrong += not wait_until(lambda run=run: _is_gone(run), SECONDS)  # type: ignore[misc]
        if code == DONE:
            tally.wrong += world.set_aside()
            return
        # A run outlives its workers: another start is no way to go on without them.
        lived = bool(struck) and set(struck) <= DEATHS
        tally.wrong += lived or code not in (AGAIN, -signal.SIGKILL)
        if code is None:
            return
    tally.wrong += 1


def _accompany(world: World, run: int, most: int) -> tuple[int | None, Counter[str]]:
    """Strike up to so often while ``run`` lives; how it ended, None for not at all."""
    struck: Counter[str] = Counter()
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        time.sleep(world.random.uniform(0.02, 0.5))
        found, status = os.waitpid(run, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status), struck
        if struck.total() < most:
            struck.update(_strike(world, run, world.random.choice(STRIKES)))
    os.killpg(run, signal.SIGKILL)
    os.waitpid(run, 0)
    return None, struck


def _strike(world: World, run: int, what: str) -> list[str]:
    """Do ``what``, where there is a worker to do it to or to notice it; says what was done."""
    stems = _children(run)
    workers = [worker for stem in stems for worker in _children(stem)]
    if not workers:
        return []
    victim = {"stem": stems[0], "run": run}.get(
        what.split(maxsplit=1)[0], world.random.choice(workers)
    )
    with contextlib.suppress(ProcessLookupError):
        if what.endswith("stopped"):
            os.kill(victim, signal.SIGSTOP)
            time.sleep(world.random.uniform(0.1, 4))
            os.kill(victim, signal.SIGCONT)
        else:
            os.kill(victim, signal.SIGTERM if what.endswith("leave") else signal.SIGKILL)
        return [what]
    return []


def _children(parent: int) -> list[int]:
    return [int(pid) for pid, by, _, _ in _processes() if int(by) == parent]


def _is_gone(group: int) -> bool:
    # What ended and was not buried yet is gone, too.
    return not any(int(of) == group and state[0] != "Z" for _, _, of, state in _processes())


def _processes() -> Iterator[list[str]]:
    """Each one's number, its parent's, its group's, and its state."""
    asked = ["ps", "-A", "-o", "pid=,ppid=,pgid=,stat="]
    told = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    yield from (line.split() for line in told.splitlines())
