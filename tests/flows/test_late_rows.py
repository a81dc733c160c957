"""Rows that reach the warehouse late: which rule loses how many, and that ours loses none.

The source is the one of the protocol's design: 3 % of the rows are committed up to half an hour
late, 0.2 % are loaded up to three days late. First as arithmetic over 80,000 rows, on the real
`Watermark` and `advance`; then on real runs, with real tables.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from toy.harness import DAY_ONE
from toy.job import Toy
from toy.model import Obedient
from toy.notes import Notes

from mlbatch.connectors.duckdb import DuckdbWarehouse
from mlbatch.inference import infer
from mlbatch.job import Delta
from mlbatch.planner import Request
from mlbatch.repair import reconcile
from mlbatch.window import advance

DAYS = 40
NIGHTS = 49
"""Whole weeks, to see what comes three days after the last of the days."""
ROWS = 80_000
DAY = timedelta(days=1)
OVERLAP = timedelta(hours=1)
START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Change:
    """A row: the time that its cursor says, and the time from which a query sees it."""

    at: datetime
    seen_from: datetime


def changes(count, days, start, seed=7):
    """Evenly over ``days``, some of them late, in the order in which they are seen."""
    chance = random.Random(seed)
    made = []
    for number in range(count):
        at = start + days * DAY * ((number + 0.5) / count)
        draw = chance.random()
        late = 0.0
        if draw < 0.002:
            late = chance.uniform(3_600, 3 * 86_400)
        elif draw < 0.032:
            late = chance.uniform(60, 1_800)
        made.append(Change(at, at + timedelta(seconds=late)))
    return sorted(made, key=lambda change: change.seen_from)


class Nights:
    """What nightly runs read of a source under a rule for where the window begins."""

    def __init__(self, source):
        self.source, self.scored, self.reads = source, set(), 0

    def play(self, begin, *, reconcile_every=0):
        """``begin(night, highest)`` is the window's lower bound; returns the rows never scored."""
        highest = None
        for night in range(1, NIGHTS + 1):
            now = START + night * DAY
            since = begin(night, highest)
            taken = [c for c in self.source if c.seen_from <= now and (not since or c.at >= since)]
            self._score(taken)
            highest = max((c.at for c in taken), default=highest)
            if reconcile_every and night % reconcile_every == 0:
                self._score([c for c in self.source if c.seen_from <= now and c not in self.scored])
        return len(set(self.source) - self.scored)

    def _score(self, taken):
        self.reads += len(taken)
        self.scored.update(taken)

    @property
    def reads_per_row(self):
        return self.reads / len(self.source)


def after_the_highest(_night, highest):
    """The rule that people write first: greater than the highest value seen."""
    return highest + timedelta(microseconds=1) if highest else None


def after_the_last_run(night, _highest):
    """The other one: since the last run began. What was committed late has an older time."""
    return START + (night - 1) * DAY if night > 1 else None


class WatermarkLessOverlap:
    """Ours, of the project's own parts."""

    def __init__(self, overlap=OVERLAP):
        self.mark, self.overlap = None, overlap

    def __call__(self, night, highest):
        if highest is None:
            return None
        clock_of_last_run = START + (night - 1) * DAY
        self.mark = advance(self.mark, clock_of_last_run, highest)
        return self.mark.window(self.overlap).since


@pytest.fixture(scope="module")
def source():
    return changes(ROWS, DAYS, START)


@pytest.mark.parametrize("rule", [after_the_highest, after_the_last_run])
def test_the_rules_that_people_write_first_lose_rows(source, rule):
    assert Nights(source).play(rule) > 50


def test_an_overlap_alone_loses_only_what_comes_later_than_it(source):
    nights = Nights(source)
    lost = nights.play(WatermarkLessOverlap())
    later = sum(c.seen_from - c.at > OVERLAP for c in source)
    assert 0 < lost <= later
    assert nights.reads_per_row < 1.06


def test_an_overlap_longer_than_any_row_is_late_loses_none_but_reads_all_again(source):
    nights = Nights(source)
    assert nights.play(WatermarkLessOverlap(4 * DAY)) == 0
    assert nights.reads_per_row > 4


@pytest.mark.parametrize("every", [1, 7], ids=["daily", "weekly"])
def test_an_overlap_and_reconciling_lose_none_at_a_twentieth_more_reads(source, every):
    nights = Nights(source)
    assert nights.play(WatermarkLessOverlap(), reconcile_every=every) == 0
    assert nights.reads_per_row < 1.06


class Fortnight:
    """The toy job's deltas and reconciliations over the same source, for real."""

    DAYS, ROWS, HOT = 14, 2_800, 30

    def __init__(self, harness):
        self.harness, self.now, self.read, self.held = harness, DAY_ONE, 0, 0
        self.source = changes(self.ROWS, self.DAYS, DAY_ONE, seed=11)
        self.ids = {change: 1_000 + n for n, change in enumerate(self.source)}

    def night(self):
        """What became visible today, rows that change all the time, and the delta."""
        before, self.now = self.now, self.now + DAY
        seen = [c for c in self.source if before < c.seen_from <= self.now]
        rows = [self.row(self.ids[c], c.at) for c in seen]
        # Hot rows change again after the run's clock was read: a frozen upper end never sees them.
        rows += [self.row(n, self.now + timedelta(minutes=1)) for n in range(self.HOT)]
        self.held += len(seen)
        self.harness.notes(rows)
        self.read += self.harness.infer().totals.expected

    @staticmethod
    def row(number, at):
        text = f"good note of {at:%H:%M}"
        return {"id": number, "text": text, "updated_at": at, "deleted_at": None}

    def reconcile(self):
        done = reconcile(Toy, self.harness.tools)
        self.read += done.run.totals.expected if done.run else 0

    def lost(self):
        """Ids of rows that a query sees and that have no prediction."""
        found = {row["note_id"] for row in self.harness.rows()}
        wanted = {self.ids[c] for c in self.source if c.seen_from <= self.now}
        return sorted((wanted | set(range(self.HOT))) - found)


@pytest.fixture
def fortnight(harness, monkeypatch):
    harness.given_model(Obedient())
    told = Fortnight(harness)
    monkeypatch.setattr(DuckdbWarehouse, "now", lambda _: told.now.replace(tzinfo=UTC))
    return told


def test_real_deltas_lose_only_what_comes_later_than_the_overlap(fortnight):
    for _ in range(fortnight.DAYS):
        fortnight.night()
    late = {fortnight.ids[c] for c in fortnight.source if c.seen_from - c.at > OVERLAP}
    lost = fortnight.lost()
    assert lost
    assert set(lost) <= late


@pytest.mark.parametrize("every", [1, 7], ids=["daily", "weekly"])
def test_real_deltas_and_reconciling_lose_none(fortnight, every):
    for day in range(1, fortnight.DAYS + 1):
        fortnight.night()
        if day % every == 0:
            fortnight.reconcile()
    assert fortnight.lost() == []
    hot = fortnight.HOT * fortnight.DAYS
    # A delta's hot rows are read again by the next one, which is what they cost.
    assert fortnight.read <= 1.1 * fortnight.held + 2 * hot


@pytest.mark.parametrize("wrong", [[], [datetime(2099, 1, 1)]], ids=["", "a row of 2099"])
def test_a_row_of_the_future_hides_no_load_of_the_night(harness, monkeypatch, wrong):
    """What changed by day is loaded after the run of the night; a row of a wrong year is there."""
    told, clock = [], [DAY_ONE.replace(tzinfo=UTC)]
    monkeypatch.setattr(DuckdbWarehouse, "now", lambda _: clock[0])
    harness.given_model(Obedient())
    tools = replace(harness.tools, notify=lambda _, line: told.append(line))
    yesterday = [DAY_ONE - timedelta(hours=24 + n) for n in range(9)]
    rows = [Fortnight.row(n, at) for n, at in enumerate([*yesterday, *wrong])]
    harness.notes(rows)
    infer(Toy, Request(), tools)
    assert len([line for line in told if "1 rows lie in the future" in line]) == len(wrong)
    by_day = [DAY_ONE - timedelta(minutes=20 * n) for n in range(70)]
    harness.notes([Fortnight.row(100 + n, at) for n, at in enumerate(by_day)])
    clock[0] += DAY
    infer(Toy, Request(), tools)
    assert sum(row["note_id"] >= 100 for row in harness.rows()) == 70


def at_the_end_of_summer_time(harness, monkeypatch, now, *rows):
    """Infer at ``now``; the ``rows`` have the local times of London."""
    monkeypatch.setattr(DuckdbWarehouse, "now", lambda _: now.replace(tzinfo=UTC))
    told = [
        {"id": number, "text": "good", "updated_at": at, "deleted_at": None} for number, at in rows
    ]
    return harness.notes(told).infer()


def test_a_row_of_the_hour_that_comes_twice_is_not_lost(harness, monkeypatch):
    monkeypatch.setattr(Notes, "view", replace(Notes.view, zone="Europe/London"))
    monkeypatch.setattr(Toy, "delta", Delta(overlap=timedelta(minutes=30)))
    day = datetime(2026, 10, 25)
    at = partial(at_the_end_of_summer_time, harness, monkeypatch)
    at(day.replace(hour=0, minute=59, second=30), (1, day.replace(hour=1, minute=59)))
    mark = harness.tools.sink.ledger().watermark("toy", "g1")
    assert mark.value == day.replace(hour=0, minute=59, tzinfo=UTC)
    # Six minutes later, for whom looks at a clock it is an hour earlier.
    at(day.replace(hour=1, minute=6), (2, day.replace(hour=1, minute=5)))
    assert [row["note_id"] for row in harness.rows()] == [1, 2]
    at(day.replace(hour=3), (3, day.replace(hour=2, minute=30)))
    assert [row["note_id"] for row in harness.rows()] == [1, 2, 3]
