from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlbatch.errors import UsageError
from mlbatch.window import (
    Watermark,
    Window,
    advance,
    in_zone,
    since_in_zone,
    until_in_zone,
    utc,
)

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


OVERLAPS = st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=400))


@pytest.mark.parametrize(
    ("instant", "hours"),
    [(datetime(1, 1, 1), 9), (datetime(9999, 12, 31, 23), -9)],
)
def test_an_instant_without_a_date_in_utc_is_refused(instant, hours):
    with pytest.raises(UsageError, match="beyond the years 1 to 9999"):
        utc(instant.replace(tzinfo=timezone(timedelta(hours=hours))))


@given(INSTANTS, INSTANTS)
def test_a_window_is_half_open_and_never_empty(one, other):
    if one >= other:
        with pytest.raises(UsageError, match="empty"):
            Window(one, other)
    else:
        assert Window(one, other).since < Window(one, other).until
        assert not Window(one, other).is_everything


@given(st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1)), st.integers(-23, 23))
def test_a_window_does_not_depend_on_how_its_ends_are_written(naive, hours):
    at = naive.replace(tzinfo=UTC)
    there = at.astimezone(timezone(timedelta(hours=hours)))
    assert Window(there) == Window(at)
    assert str(Window(until=there)) == str(Window(until=at))
    assert Window(there).since.tzinfo is UTC


@given(INSTANTS, OVERLAPS)
def test_a_delta_looks_back_by_the_overlap_or_to_the_beginning(value, overlap):
    since = Watermark(value).window(overlap).since
    if since is None:
        assert value - datetime(1, 1, 3, tzinfo=UTC) < overlap
    else:
        assert value - since == overlap


@given(st.lists(st.tuples(INSTANTS, st.none() | INSTANTS), max_size=6), OVERLAPS)
def test_over_many_runs_no_row_is_skipped(runs, overlap):
    """Whatever a run read up to its clock lies before the next window or in it."""
    mark = None
    for clock, highest in runs:
        before = mark
        mark = advance(mark, clock, highest)
        if before is not None:
            assert mark.value >= before.value
        if mark is not None:
            since = mark.window(overlap).since
            assert since is None or since <= mark.value


@given(INSTANTS, INSTANTS, INSTANTS)
def test_advancing_twice_is_advancing_once(start, clock, highest):
    once = advance(Watermark(start), clock, highest)
    assert advance(once, clock, highest) == once
    assert advance(once, clock, None) == once


# Of an hour, of half an hour, of two hours; in winter for a month of fasting; and none.
ZONES = [
    "Europe/London", "America/New_York", "Australia/Lord_Howe", "Antarctica/Troll",
    "Africa/Casablanca", "Pacific/Apia", "Asia/Tokyo", "UTC",
]  # fmt: skip
NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)
DAYS = [NEW_YEAR + timedelta(days=n) for n in range(365)]


def offset(instant, zone):
    return instant.astimezone(ZoneInfo(zone)).utcoffset()


# Days on which clocks change, and a usual one for each zone.
CHANGES = [
    (day, zone)
    for zone in ZONES
    for day in DAYS
    if day == NEW_YEAR or offset(day, zone) != offset(day + timedelta(days=1), zone)
]
WITHIN = st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=1))


@given(st.sampled_from(CHANGES), WITHIN, WITHIN)
def test_no_row_of_a_window_is_outside_its_local_bounds(change, one, other):
    (day, zone), (earlier, later) = change, sorted((one, other))
    since, within = day + earlier, day + later
    assert since_in_zone(since, zone) <= in_zone(within, zone)
    if since < within:
        assert in_zone(since, zone) < until_in_zone(within, zone)


def width_of_repeated(local, zone):
    """By how much clocks are put back to come to ``local`` again; none where they are not."""
    first, second = (local.replace(tzinfo=ZoneInfo(zone), fold=fold) for fold in (0, 1))
    return max(first.utcoffset() - second.utcoffset(), timedelta(0))


@given(st.sampled_from(CHANGES), WITHIN)
def test_local_bounds_are_no_wider_than_they_must_be(change, after):
    day, zone = change
    at = day + after
    told, low, high = (bound(at, zone) for bound in (in_zone, since_in_zone, until_in_zone))
    repeated = width_of_repeated(told, zone)
    assert timedelta(0) <= told - low <= repeated
    assert timedelta(0) <= high - told <= repeated
    # What they are moved to is still of the times that come twice.
    assert low == told or width_of_repeated(low, zone) == repeated
    assert high == told or width_of_repeated(high - timedelta(microseconds=1), zone) == repeated


@pytest.mark.parametrize(
    ("at", "low", "high"),
    [
        (datetime(2026, 10, 24, 23, 59), (0, 59), (0, 59)),
        (datetime(2026, 10, 25, 0, 29), (1, 0), (1, 29)),
        (datetime(2026, 10, 25, 0, 59, 59), (1, 0), (1, 59)),
        (datetime(2026, 10, 25, 1, 0), (1, 0), (2, 0)),
        (datetime(2026, 10, 25, 1, 5), (1, 5), (2, 0)),
        (datetime(2026, 10, 25, 2, 0), (2, 0), (2, 0)),
    ],
)
def test_at_the_end_of_summer_time_a_window_has_all_that_its_rows_may_say(at, low, high):
    told = [
        bound(at.replace(tzinfo=UTC), "Europe/London") for bound in (since_in_zone, until_in_zone)
    ]
    assert [(bound.hour, bound.minute) for bound in told] == [low, high]
