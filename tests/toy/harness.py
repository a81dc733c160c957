"""The toy job on a harness, and its notes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import pyarrow as pa
import pytest

from mlbatch.connectors.sqlite import SqlitePartSession
from mlbatch.engines.local import LocalEngine
from mlbatch.testing import JobHarness
from toy import early

DAY_ONE = datetime(2026, 1, 1, 12)


def note(number, text, *, minutes=0, deleted=None):
    at = DAY_ONE + timedelta(minutes=minutes)
    return {"id": number, "text": text, "updated_at": at, "deleted_at": deleted}


def notes(count, *, start=1):
    return [
        note(n, f"good note {n}" if n % 3 else f"sad note {n}", minutes=10 * n)
        for n in range(start, start + count)
    ]


NOTES = pa.schema(
    [
        ("id", pa.int64()),
        ("text", pa.string()),
        ("updated_at", pa.timestamp("us")),
        ("deleted_at", pa.timestamp("us")),
    ]
)


class ToyHarness(JobHarness):
    """A harness whose notes have their types, and whose workers were provided for early."""

    @property
    def tools(self):
        return replace(super().tools, engine=self._engine or early.engine(self._workers))

    def notes(self, rows, *, key="id"):
        return self.given("notes", rows, key=key, schema=NOTES)


@dataclass(frozen=True)
class InThisProcess:
    """A resumed run's workers too, which takes a second less; `test_resume` has real ones."""

    def warm_up(self):
        LocalEngine(1).warm_up()

    def run(self, work, tasks, on_death, *, isolated=False):
        yield from LocalEngine(1).run(work, tasks, on_death)


class QuickHarness(ToyHarness):
    @property
    def tools(self):
        return replace(super().tools, engine=InThisProcess())


def interrupted(harness, monkeypatch, commits, **request):
    """Infer until so many batches are committed, and be interrupted then."""
    commit, left = SqlitePartSession.commit, [commits]

    def stop(session, batch):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        commit(session, batch)

    with monkeypatch.context() as broken:
        broken.setattr(SqlitePartSession, "commit", stop)
        with pytest.raises(KeyboardInterrupt):
            harness.infer(**request)
