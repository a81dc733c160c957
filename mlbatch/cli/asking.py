"""The options by which people ask for a run, the same for doing it and for looking ahead."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import click

from mlbatch.errors import UsageError
from mlbatch.window import utc

if TYPE_CHECKING:
    from mlbatch.ledger import Run


def _instant(_: click.Context, __: click.Parameter, value: str | None) -> datetime | None:
    if value is None:
        return None
    try:
        return utc(datetime.fromisoformat(value))
    except ValueError as error:
        message = f"{value!r} is not an instant: {error}"
        raise UsageError(message, hint="write it as 2026-11-23T04:00:00+09:00") from error


_REQUEST_OPTIONS = (
    click.option("--full", is_flag=True, help="Read everything again, not only the delta."),
    click.option("--in-place", is_flag=True, help="Let a new model rewrite the table that serves."),
    click.option(
        "--until",
        metavar="INSTANT",
        callback=_instant,
        help="Read rows changed before this instant only, as 2026-11-23T04:00:00+09:00.",
    ),
    click.option(
        "--slot",
        metavar="YYYY-MM-DD",
        help="Logical date from the scheduler: done once per date, after what was left.",
    ),
    click.option("--supersede", is_flag=True, help="Give an unfinished run up and start anew."),
    click.option("--accept-code-change", is_flag=True, help="Resume with code that has changed."),
)


def with_request(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give ``command`` the options that make a `mlbatch.planner.Request`."""
    for option in reversed(_REQUEST_OPTIONS):
        command = option(command)
    return command


def is_of_slot(run: Run, slot: str | None) -> bool:
    """Whether ``run`` does what was asked for with ``slot``, a day however written; no slot is any."""
    return slot is None or run.new.slot == date.fromisoformat(slot).isoformat()
