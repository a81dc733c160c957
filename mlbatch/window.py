"""Windows and watermarks: which source rows a run looks at.

A window is half-open, ``[since, until)``, and usually has no upper end: a row that changes every
minute is always newer than a frozen upper bound and would never be scored. Instants are aware
datetimes; naive ones are refused at construction.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from mlbatch.errors import UsageError


def utc(instant: datetime) -> datetime:
    """Return ``instant`` in UTC; a naive datetime raises UsageError, and one without a UTC date."""
    if instant.tzinfo is None:
        message = f"the instant {instant.isoformat()} has no time zone"
        raise UsageError(message, hint="write it with an offset, as in 2026-11-23T04:00:00+09:00")
    try:
        return instant.astimezone(UTC)
    except OverflowError as error:
        message = f"the instant {instant.isoformat()} is beyond the years 1 to 9999 of UTC"
        raise UsageError(message) from error


def in_zone(instant: datetime, zone: str) -> datetime:
    """``instant`` as a column without a time zone says it, whose values mean ``zone``."""
    try:
        return instant.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    except OverflowError:
        # Within a day of either end of the calendar: no real row is on the other side.
        return instant.replace(tzinfo=None)


def since_in_zone(instant: datetime, zone: str) -> datetime:
    """The lowest that such a column says at ``instant`` or later, although clocks are put back."""
    hour = _repeated(instant, zone)
    return hour.first if hour and instant < hour.again else in_zone(instant, zone)


def until_in_zone(instant: datetime, zone: str) -> datetime:
    """What such a column never reached before ``instant``, although clocks are put back."""
    hour = _repeated(instant, zone)
    return hour.end if hour and instant >= hour.again else in_zone(instant, zone)


@dataclass(frozen=True, slots=True)
class _Repeated:
    """Local times that come twice, because clocks are put back: half-open, as a window."""

    first: datetime
    end: datetime
    again: datetime
    """When it is ``first`` for the second time, instead of ``end``."""


def _repeated(instant: datetime, zone: str) -> _Repeated | None:
    """Those that the local time of ``instant`` is one of; None where it comes once."""
    try:
        local = instant.astimezone(ZoneInfo(zone))
    except OverflowError:
        return None
    before, after = (local.replace(fold=fold).utcoffset() or timedelta() for fold in (0, 1))
    if before <= after:
        return None
    begin = instant.astimezone(UTC).replace(microsecond=0) - local.fold * (before - after)
    # Zones tell their offset at an instant, and not when it changes.
    seconds = range(int((before - after).total_seconds()) + 1)
    there, step = local.tzinfo, timedelta(seconds=1)
    changed = bisect_left(seconds, 1, key=lambda n: (begin + n * step).astimezone(there).fold)
    again = begin + changed * step
    naive = again.replace(tzinfo=None)
    return _Repeated(naive + after, naive + before, again)


EARLIEST = datetime(1, 1, 1)  # noqa: DTZ001  in any column's own zone
LATEST = datetime(9999, 12, 31, 23, 59, 59, 999999)  # noqa: DTZ001
"""The times that Python and every database of ours can hold."""
_BEGINNING = datetime(1, 1, 3, tzinfo=UTC)
"""Before it, a time of another zone may have no date."""


@dataclass(frozen=True, slots=True)
class Window:
    """Cursor values ``since <= cursor < until``, in UTC; ``None`` leaves that side open."""

    since: datetime | None = None
    until: datetime | None = None

    def __post_init__(self) -> None:
        """Bring both ends to UTC and refuse an empty window."""
        for name in ("since", "until"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, utc(value))
        if self.since is not None and self.until is not None and self.since >= self.until:
            message = f"the window [{self.since}, {self.until}) is empty"
            raise UsageError(message, hint="--until must be later than the start of the window")

    @property
    def is_everything(self) -> bool:
        """Whether no row is left out."""
        return self.since is None and self.until is None

    def __str__(self) -> str:
        """Human form, as `plan` prints it."""
        if self.is_everything:
            return "everything"
        since = f"from {self.since:%Y-%m-%d %H:%M:%S} UTC" if self.since else "from the beginning"
        return f"{since} until {self.until:%Y-%m-%d %H:%M:%S} UTC" if self.until else f"{since} on"


@dataclass(frozen=True, slots=True)
class Watermark:
    """The highest cursor value that is known to be fully written, in UTC."""

    value: datetime

    def window(self, overlap: timedelta, until: datetime | None = None) -> Window:
        """The next delta's window: the watermark less an overlap, for rows committed late."""
        if self.value - _BEGINNING < overlap:
            return Window(until=until)
        return Window(since=self.value - overlap, until=until)


def advance(
    current: Watermark | None, frozen_high: datetime, highest_cursor: datetime | None
) -> Watermark | None:
    """The watermark after a run: never backwards, never past the clock nor past what was read.

    ``frozen_high`` is the warehouse's clock at run creation less the lag; ``highest_cursor`` the
    largest cursor value in the snapshot, None for an empty one, which leaves the watermark alone.
    """
    if highest_cursor is None:
        return current
    reached = min(utc(frozen_high), utc(highest_cursor))
    if current is not None and current.value >= reached:
        return current
    return Watermark(reached)
