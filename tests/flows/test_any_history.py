"""Whatever happens to source and runs, in any order: the table ends as the source says."""

from __future__ import annotations

import shutil
import tempfile
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from toy.harness import DAY_ONE, ToyHarness
from toy.job import Toy
from toy.model import Obedient

from mlbatch.connectors.sqlite import SqlitePartSession
from mlbatch.job import Limits

COMMIT = SqlitePartSession.commit
NUMBERS = st.integers(1, 30)
WORDS = st.sampled_from(["good", "sad", "good and sad", "!raise", "!nan"])


class History(RuleBasedStateMachine):
    """A dictionary beside the real thing."""

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.limits, Toy.limits = Toy.limits, Limits(quarantined_rows=1_000)
        self.harness = ToyHarness(Toy, self.folder, part_rows=5).given_model(Obedient())
        self.source = {}
        self.minute = 0
        self.fresh = False
        self._put(0, "good")

    def teardown(self):
        SqlitePartSession.commit = COMMIT
        Toy.limits = self.limits
        shutil.rmtree(self.folder)

    def _put(self, number, text, *, deleted=False, late=0):
        self.minute += 7
        at = DAY_ONE + timedelta(minutes=self.minute - late)
        row = {"id": number, "text": text, "updated_at": at, "deleted_at": at if deleted else None}
        self.harness.notes([row])
        self.source[number] = None if deleted else text
        self.fresh = False

    @rule(number=NUMBERS, text=WORDS)
    def write(self, number, text):
        self._put(number, text)

    @rule(numbers=st.sets(NUMBERS, min_size=5), text=WORDS)
    def write_many(self, numbers, text):
        for number in numbers:
            self._put(number, text)

    @rule(number=st.integers(40, 60), late=st.integers(0, 50))
    def commit_late(self, number, late):
        if number not in self.source:
            self._put(number, "good but late", late=late)

    @rule(number=NUMBERS)
    def delete(self, number):
        if self.source.get(number) is not None:
            self._put(number, self.source[number], deleted=True)

    @rule(full=st.booleans())
    def infer(self, full):
        resumed = any(not run.state.is_terminal for run in self.runs())
        self.harness.infer(full=full)
        if resumed:
            # The unfinished run had its own snapshot; what came later is the next run's.
            self.harness.infer()
        self.fresh = True

    def runs(self):
        return self.harness.tools.sink.ledger().runs("mood")

    @rule(commits=st.integers(0, 3))
    def interrupt(self, commits):
        left = [commits]

        def stop(session, batch):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            COMMIT(session, batch)

        SqlitePartSession.commit = stop
        try:
            self.harness.infer()
        except KeyboardInterrupt:
            pass
        finally:
            SqlitePartSession.commit = COMMIT
        self.fresh = False

    @precondition(lambda self: any(not run.state.is_terminal for run in self.runs()))
    @rule()
    def supersede(self):
        self.harness.infer(supersede=True)
        self.fresh = True

    @invariant()
    def table_is_what_the_source_says(self):
        if not self.fresh:
            return
        expected = {
            number: "good" if "good" in text else "bad"
            for number, text in self.source.items()
            if text is not None and not text.startswith("!")
        }
        assert {row["note_id"]: row["label"] for row in self.harness.rows()} == expected

    @invariant()
    def at_most_one_run_is_unfinished(self):
        assert sum(not run.state.is_terminal for run in self.runs()) <= 1


@pytest.mark.timeout(300)
class TestHistory(History.TestCase):
    settings = settings(
        max_examples=8,
        stateful_step_count=14,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
