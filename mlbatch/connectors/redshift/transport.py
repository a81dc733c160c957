"""How statements reach Redshift: the one seam between its two transports."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

import pyarrow as pa

from mlbatch.errors import (
    DeclarationError,
    MlbatchError,
    RunFailed,
    SettingsError,
    TemporaryError,
)
from mlbatch.sql import literal, render


class Transport(Protocol):
    """Runs statements with a limit of time, and cancels them when it gives up. Picklable."""

    def run(self, statements: Sequence[str]) -> pa.Table | None:
        """Run ``statements`` in one session and one transaction; returns the last one's rows.

        Interrupted or out of time, it cancels at the server. A reply that is lost raises
        TemporaryError: whether the statements had their effect is then not known.
        """
        ...

    def __str__(self) -> str:
        """Where it leads, for messages."""
        ...


def session_settings(statement_seconds: int, query_group: str | None) -> list[str]:
    """What is set before the statements of a `Transport.run`."""
    settings = [
        f"SET statement_timeout TO {statement_seconds * 1000}",
        # ALTER USER may have given the user another: the clock and every literal are told in UTC.
        "SET timezone TO 'UTC'",
    ]
    if query_group:
        settings.append(f"SET query_group TO {render(literal(query_group))}")
    return settings


def out_of_time(where: str, statement_seconds: int) -> RunFailed:
    """The error of a transport that waited as long as it may."""
    message = f"{where}: no end after {statement_seconds} s; cancelled"
    return RunFailed(message, hint="raise warehouse.statement_seconds")


_WRONG_QUERY = frozenset({"42P01", "42703", "42601", "42883", "42804", "42P10", "0A000"})
_NO_RIGHT = frozenset({"28000", "28P01", "42501", "3D000"})
_PASSING = frozenset({"57P01", "57P02", "57P03", "53300", "08000", "08003", "08006", "40001"})


def refused(sqlstate: str, said: str, where: str) -> MlbatchError:
    """One of ours for the server's error ``said``; ``sqlstate`` may be empty where nobody told it."""
    first = said.strip().splitlines()[0] if said.strip() else "no reason given"
    if sqlstate in _WRONG_QUERY:
        hint = "check the tables and columns that the .sql file names"
        return DeclarationError(f"the warehouse refuses the query: {first}", hint=hint)
    if sqlstate in _NO_RIGHT:
        hint = "deploy/redshift holds the grants; `mlbatch doctor` checks each right"
        return SettingsError(f"{where}: {first}", hint=hint)
    if sqlstate == "57014":
        hint = "somebody cancelled it, or a limit of time or of the queue's rules did"
        return RunFailed(f"{where}: {first}", hint=hint)
    if sqlstate in _PASSING or _SERIALIZABLE.match(first) or "being resized" in first:
        return TemporaryError(f"{where}: {first}", hint="try again; nothing was lost")
    return RunFailed(f"{where}: {first}")


def sqlstate_in(said: str) -> str:
    """The SQLSTATE that the Data API's error text stands for: it tells words only."""
    for words, state in _WORDS:
        if re.search(words, said):
            return state
    return ""


# Buckets, roles and users that do not exist are nobody's query.
_WORDS = (
    (r"\b(relation|column|schema|function|type|operator)\b.* does not exist", "42P01"),
    ("syntax error", "42601"),
    ("permission denied", "42501"),
    ("Limit clause", "0A000"),
    ("cancelled on user", "57014"),
    ("statement timeout", "57014"),
    ("Serializable isolation", "40001"),
)
_SERIALIZABLE = re.compile(r"1023\b")
"""All that Redshift says of it in an error's first line."""

ARROW = {
    "bool": pa.bool_(),
    "int2": pa.int16(),
    "int4": pa.int32(),
    "int8": pa.int64(),
    "float4": pa.float32(),
    "float8": pa.float64(),
    "date": pa.date32(),
    "time": pa.time64("us"),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", "UTC"),
    "varbyte": pa.binary(),
    "geometry": pa.binary(),
    "geography": pa.binary(),
    "hllsketch": pa.binary(),
}
"""Arrow's type for a type that Redshift names so; text for all others."""
