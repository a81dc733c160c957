"""Whatever happens to source, clock and runs, in any order: the table ends as the source says."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from contextlib import closing
from dataclasses import replace
from datetime import UTC, timedelta
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from toy.harness import DAY_ONE, QuickHarness
from toy.job import Toy
from toy.model import Obedient

from mlbatch import failpoint
from mlbatch.connectors.duckdb import DuckdbWarehouse
from mlbatch.connectors.mysql.address import connect
from mlbatch.connectors.mysql.session import MysqlPartSession
from mlbatch.connectors.mysql.sink import MysqlSink
from mlbatch.connectors.sqlite import SqlitePartSession, SqliteSink
from mlbatch.errors import TemporaryError, UsageError
from mlbatch.ledger import RunState
from mlbatch.repair import reconcile
from mlbatch.switching import roll_back, switch

NUMBERS = st.integers(1, 30)
WORDS = st.sampled_from(["good", "sad", "good and sad", "!raise", "!nan"])
SEEN_MINUTES = 50
"""A row that comes so much too late is still within the delta's overlap of an hour."""


class History(RuleBasedStateMachine):
    """A dictionary beside the real thing."""

    session: ClassVar = SqlitePartSession

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.limits, Toy.limits = Toy.limits, replace(Toy.limits, quarantined_rows=1_000)
        self.now = DuckdbWarehouse.now
        DuckdbWarehouse.now = lambda _: self.clock()
        sink = self.make_sink()
        self.harness = QuickHarness(Toy, self.folder, part_rows=5, sink=sink)
        self.harness.given_model(Obedient())
        self.source, self.marks = {}, {}
        self.hidden = set()
        """Numbers whose change came later than the overlap reaches: only a full look sees it."""
        self.minute = self.jumped = 0
        self.fresh = False
        self._put({0: "good"})

    def make_sink(self):
        return SqliteSink(self.folder / "outputs.db")

    def clock(self):
        """The warehouse's, which people set."""
        return (DAY_ONE + timedelta(minutes=self.minute + self.jumped)).replace(tzinfo=UTC)

    def teardown(self):
        failpoint.arm("")
        DuckdbWarehouse.now = self.now
        Toy.limits = self.limits
        shutil.rmtree(self.folder)

    def _put(self, texts, *, deleted=False, late=0):
        rows = []
        for number, text in texts.items():
            self.minute += 7
            # No two changes of a row have the same time: nobody could tell them apart.
            at = DAY_ONE + timedelta(minutes=self.minute - late, microseconds=self.minute)
            gone = at if deleted else None
            rows.append({"id": number, "text": text, "updated_at": at, "deleted_at": gone})
            self.source[number] = None if deleted else text
            (self.hidden.add if late > SEEN_MINUTES else self.hidden.discard)(number)
        self.harness.notes(rows)
        self.fresh = False

    @rule(number=NUMBERS, text=WORDS)
    def write(self, number, text):
        self._put({number: text})

    @rule(numbers=st.sets(NUMBERS, min_size=5), text=WORDS)
    def write_many(self, numbers, text):
        self._put(dict.fromkeys(numbers, text))

    @rule(number=st.integers(1, 60), late=st.integers(0, SEEN_MINUTES))
    def commit_late(self, number, late):
        self._put({number: "good but late"}, late=late)

    @rule(number=st.integers(1, 60), late=st.integers(120, 500))
    def commit_far_too_late(self, number, late):
        self._put({number: "sad and far too late"}, late=late)

    @rule(number=NUMBERS)
    def delete(self, number):
        if self.source.get(number) is not None:
            self._put({number: self.source[number]}, deleted=True)

    @rule(minutes=st.integers(-300, 300))
    def set_the_clock(self, minutes):
        self.jumped = minutes

    def runs(self):
        """Those of the generation that serves."""
        ledger = self.harness.tools.sink.ledger()
        return ledger.runs("mood", ledger.serving("mood"))

    def is_unfinished(self):
        return any(not run.state.is_terminal for run in self.runs())

    @rule(full=st.booleans())
    def infer(self, full):
        resumed = self.is_unfinished()
        self.harness.infer(full=full)
        if resumed:
            # The unfinished run had its own snapshot; what came later is the next run's.
            self.harness.infer()
        elif full:
            self.hidden.clear()
        self.fresh = True

    @rule(place=st.sampled_from(failpoint.PLACES), hit=st.integers(1, 3), full=st.booleans())
    def strike(self, place, hit, full):
        failpoint.arm(f"{place}:raise:{hit}")
        try:
            self.harness.infer(full=full)
        except TemporaryError:
            pass
        finally:
            failpoint.arm("")
        self.fresh = False

    @rule(commits=st.integers(0, 3))
    def interrupt(self, commits):
        commit, left = self.session.commit, [commits]

        def stop(session, batch):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            commit(session, batch)

        self.session.commit = stop
        try:
            self.harness.infer()
        except KeyboardInterrupt:
            pass
        finally:
            self.session.commit = commit
        self.fresh = False

    @precondition(is_unfinished)
    @rule()
    def resume(self):
        left = next(run for run in self.runs() if not run.state.is_terminal)
        ended = self.harness.infer()
        assert (ended.run.run_id, ended.run.state) == (left.run_id, RunState.DONE)
        assert ended.run.new.watermark_high == left.new.watermark_high

    @precondition(is_unfinished)
    @rule()
    def supersede(self):
        self.harness.infer(supersede=True)
        self.fresh = True

    @precondition(lambda self: self.runs() and not self.is_unfinished())
    @rule()
    def reconcile(self):
        if any(run.state is RunState.DONE for run in self.runs()):
            reconcile(Toy, self.harness.tools, max_deletes=1_000)
            # What is newer than the watermark is left to the next delta.
            self.harness.infer()
            self.hidden.clear()
            self.fresh = True

    def has_served(self):
        return any(run.state is RunState.DONE for run in self.runs())

    def to_champion(self):
        version = self.harness.tools.tracking.resolve("toy").version
        # By name, so that whatever is half built with another model is given up.
        return switch(Toy, self.harness.tools, model=str(version), max_distance=1.0)

    def went(self, done):
        if done.idle is None:
            self.hidden.clear()
            self.fresh = True

    @precondition(has_served)
    @rule(is_new=st.booleans())
    def switch(self, is_new):
        if is_new:
            self.harness.given_model(Obedient())
        self.went(self.to_champion())

    @precondition(has_served)
    @rule(place=st.sampled_from(failpoint.PLACES + failpoint.SWITCH_PLACES), hit=st.integers(1, 3))
    def strike_a_switch(self, place, hit):
        self.harness.given_model(Obedient())
        failpoint.arm(f"{place}:raise:{hit}")
        try:
            self.to_champion()
        except TemporaryError:
            pass
        finally:
            failpoint.arm("")
        self.fresh = False

    @precondition(has_served)
    @rule(place=st.sampled_from(["", *failpoint.SWITCH_PLACES]))
    def roll_back(self, place):
        self.fresh, refused = False, "none served before it"
        failpoint.arm(f"{place}:raise:1" if place else "")
        try:
            self.went(roll_back(Toy, self.harness.tools))
        except TemporaryError:
            pass
        except UsageError as error:
            refused = str(error)
        finally:
            failpoint.arm("")
        assert "none served before it" in refused

    def expected(self):
        """Every prediction that the source calls for."""
        return {
            number: "good" if "good" in text else "bad"
            for number, text in self.source.items()
            if text is not None and not text.startswith("!")
        }

    @invariant()
    def table_is_what_the_source_says(self):
        if self.fresh:
            found = {row["note_id"]: row["label"] for row in self.harness.rows()}
            sure = set(found) | set(self.expected())
            for number in sure - self.hidden:
                assert found.get(number) == self.expected().get(number), number
            active = self.harness.tools.sink.ledger().active("mood")
            versions = {row["model_version"] for row in self.harness.rows()}
            assert versions <= {active.model_version}

    @invariant()
    def at_most_one_run_is_unfinished(self):
        assert sum(not run.state.is_terminal for run in self.runs()) <= 1

    @invariant()
    def the_watermark_never_goes_back(self):
        ledger = self.harness.tools.sink.ledger()
        serving = ledger.serving("mood")
        mark, before = ledger.watermark("toy", serving), self.marks.get(serving)
        assert before is None or (mark is not None and mark.value >= before.value)
        self.marks[serving] = mark


class MariaHistory(History):
    """The same on a server, in a database of its own for each history."""

    session: ClassVar = MysqlPartSession
    server: ClassVar = None

    def make_sink(self):
        self.address = replace(self.server, database=f"h{secrets.token_hex(6)}")
        self.query(f'CREATE DATABASE "{self.address.database}"')
        return MysqlSink(self.address)

    def query(self, statement):
        with closing(connect(self.server)) as connection:
            connection.query(statement)

    def teardown(self):
        self.query(f'DROP DATABASE "{self.address.database}"')
        super().teardown()


COMMON = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@pytest.mark.timeout(600)
class TestHistory(History.TestCase):
    settings = settings(max_examples=12, stateful_step_count=20, **COMMON)


@pytest.mark.timeout(600)
class TestHistoryOnMariaDB(MariaHistory.TestCase):
    settings = settings(max_examples=8, stateful_step_count=16, **COMMON)

    @pytest.fixture(autouse=True)
    def _on_a_server(self, mysql_admin):
        MariaHistory.server = mysql_admin
