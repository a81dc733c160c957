"""The options by which people ask for a run, the same for doing it and for looking ahead."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import click
from click.core import ParameterSource

from mlbatch.errors import UsageError
from mlbatch.planner import slot_day
from mlbatch.window import utc


def _instant(_: click.Context, __: click.Parameter, value: str | None) -> datetime | None:
    if value is None:
        return None
    try:
        return utc(datetime.fromisoformat(value))
    except ValueError as error:
        message = f"{value!r} is not an instant: {error}"
        raise UsageError(message, hint="write it as 2026-11-23T04:00:00+09:00") from error


def _slot(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """One day is one slot, however it is written."""
    return None if value is None else slot_day(value).isoformat()


_REQUEST_OPTIONS = (
    click.option(
        "--full",
        is_flag=True,
        help="Read everything again, not only the delta; after what was left.",
    ),
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
        callback=_slot,
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


def typed_beside(heeded: set[str]) -> str | None:
    """The options that were typed and are not among ``heeded``, for people; None where all are."""
    context = click.get_current_context()
    typed = [
        option.opts[0]
        for option in context.command.params
        if option.name not in heeded
        and context.get_parameter_source(str(option.name)) is ParameterSource.COMMANDLINE
    ]
    return " and ".join(typed) or None
