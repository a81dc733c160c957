"""The campaigns in small: every push is killed, stopped and cut off, and one that is broken is seen."""

from __future__ import annotations

import pytest
from servers import need_mariadb

from proof.campaign import campaign

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def mariadb():
    need_mariadb()


@pytest.mark.parametrize(("kind", "strikes"), [("kills", 40), ("zombies", 5), ("network", 60)])
def test_nothing_is_lost_stale_or_twice_on_mysql(mariadb, tmp_path, kind, strikes):
    tally = campaign(kind, "mysql", 7, strikes, tmp_path)
    assert tally.is_clean, tally.row()
    assert sum(tally.struck.values()) >= strikes


@pytest.mark.parametrize(
    ("kind", "strikes"),
    [("kills", 30), ("workers", 6), ("storage", 10), ("warehouse", 10), ("pairs", 6)],
)
def test_nothing_is_lost_stale_or_twice_on_sqlite(tmp_path, kind, strikes):
    tally = campaign(kind, "sqlite", 7, strikes, tmp_path)
    assert tally.is_clean, tally.row()
    assert sum(tally.struck.values()) >= strikes


def test_a_run_that_forgets_the_fence_is_caught(mariadb, tmp_path, monkeypatch):
    """Workers that ignore epoch and position write what a sleeper had in hand."""
    from mlbatch.connectors.mysql import statements

    broken = statements.MOVE.replace("AND epoch = %(epoch)s AND done = %(low)s", "")
    monkeypatch.setattr(statements, "MOVE", broken)
    monkeypatch.setattr("mlbatch.connectors.mysql.session.statements.MOVE", broken)
    for seed in range(6):
        tally = campaign("zombies", "mysql", seed, 8, tmp_path / str(seed))
        if not tally.is_clean:
            return
    pytest.fail("eight sleepers a time, six times, and nothing was noticed")
