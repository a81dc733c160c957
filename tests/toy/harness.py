"""The toy job on a harness, and its notes."""

from __future__ import annotations

from datetime import datetime, timedelta

import pyarrow as pa

from mlbatch.testing import JobHarness

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
    """A harness whose notes have their types."""

    def notes(self, rows, *, key="id"):
        return self.given("notes", rows, key=key, schema=NOTES)
