from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlbatch.errors import UsageError
from mlbatch.window import Watermark, Window, advance

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
INSTANTS = st.datetimes(timezones=st.just(UTC))


def test_naive_instants_are_refused():
    with pytest.raises(UsageError, match="no time zone"):
        Window(datetime(2026, 1, 1))


def test_an_empty_window_is_refused():
    with pytest.raises(UsageError, match="empty"):
        Window(NOON, NOON)


def test_windows_are_spelt_for_people():
    assert str(Window()) == "everything"
    assert str(Window(NOON)) == "from 2026-01-01 12:00:00 UTC on"
    assert str(Window(None, NOON)) == "from the beginning until 2026-01-01 12:00:00 UTC"


def test_a_delta_starts_before_the_watermark():
    window = Watermark(NOON).window(timedelta(hours=1))
    assert (window.since, window.until) == (NOON - timedelta(hours=1), None)


@given(st.none() | INSTANTS, INSTANTS, st.none() | INSTANTS)
def test_the_watermark_never_goes_back_nor_passes_clock_or_data(current, clock, highest):
    mark = Watermark(current) if current else None
    moved = advance(mark, clock, highest)
    if highest is None:
        assert moved == mark
    else:
        assert mark is None or moved.value >= mark.value
        assert moved.value <= max(min(clock, highest), mark.value if mark else min(clock, highest))
