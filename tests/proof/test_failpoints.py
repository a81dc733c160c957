"""Every named place, struck once: the next start brings the run to the same end."""

from __future__ import annotations

import os
import signal

import pytest

from mlbatch import failpoint
from mlbatch.connectors.mysql.statements import Way
from mlbatch.connectors.sqlite import SqliteSink
from mlbatch.errors import TemporaryError, UsageError
from proof.campaign import end_of, start
from proof.world import AGAIN, DONE, WitnessedSink, World, wait_until

IN_WORKERS = ("before_score", "after_score", "after_move", "after_rows", "before_commit",
              "after_commit")  # fmt: skip


@pytest.fixture(params=["sqlite", "mysql"])
def world(request, tmp_path):
    if request.param == "sqlite":
        sink = SqliteSink(tmp_path / "outputs.db")
    else:
        sink = WitnessedSink(request.getfixturevalue("mysql_address"), chosen=Way.LOAD)
    made = World(tmp_path, sink, seed=3)
    made.new_model()
    made.change(150)
    return made


def struck(world, text):
    """How an attempt with this failpoint ends."""
    failpoint.arm(text)
    try:
        child = start(world, world.sink, full=True)
    finally:
        failpoint.arm("")
    codes = []

    def is_over():
        code = end_of(child)
        codes.extend([code] if code is not None else [])
        return code is not None

    assert wait_until(is_over, 30)
    return codes[0]


def come_through(world):
    for _ in range(10):
        if struck(world, "") == DONE:
            return
    pytest.fail("the run does not come through")


@pytest.mark.parametrize("place", failpoint.PLACES)
def test_a_kill_at_any_place_changes_nothing_in_the_end(world, place):
    code = struck(world, f"{place}:kill:1")
    # A killed worker is seen by its parent, which gives up; any other process is gone at once.
    assert code == (AGAIN if place in IN_WORKERS else -signal.SIGKILL)
    come_through(world)
    assert world.faults() == {"lost": 0, "stale": 0, "twice": 0}


@pytest.mark.parametrize("place", ["after_rows", "in_finish", "after_unload"])
def test_an_error_at_a_later_hit_too(world, place):
    code = struck(world, f"{place}:raise:{2 if place in IN_WORKERS else 1}")
    # The MySQL session takes a passing error for an outage, and tries the batch again by itself.
    assert code in (AGAIN, DONE)
    come_through(world)
    assert world.faults() == {"lost": 0, "stale": 0, "twice": 0}


def test_nothing_is_armed_by_default():
    assert "MLBATCH_FAILPOINT" not in os.environ
    failpoint.reach("after_commit")
    with pytest.raises(UsageError, match="PLACE:ACTION:COUNT"):
        failpoint.arm("nowhere:kill:1")
    failpoint.arm("after_commit:raise:2")
    failpoint.reach("after_commit")
    with pytest.raises(TemporaryError, match="after_commit"):
        failpoint.reach("after_commit")
    failpoint.arm("")
