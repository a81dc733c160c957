"""Redshift through its Data API: HTTP, no connection to lose, and a statement outlives its client."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, datetime
from datetime import time as time_of_day
from decimal import Decimal
from typing import Any

import pyarrow as pa

from mlbatch.connectors.aws import AwsAccess, aws_errors
from mlbatch.connectors.polling import growing
from mlbatch.connectors.redshift.transport import (
    ARROW,
    out_of_time,
    refused,
    session_settings,
    sqlstate_in,
)

POLL_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Growing waits between questions; the last one repeats."""
_DONE = frozenset({"FINISHED", "FAILED", "ABORTED"})


@dataclass(frozen=True, slots=True)
class DataApi:
    """`mlbatch.connectors.redshift.transport.Transport` over ``redshift-data``."""

    database: str
    cluster: str | None = None
    workgroup: str | None = None
    user: str | None = None
    secret_arn: str | None = None
    query_group: str | None = None
    statement_seconds: int = 4 * 3600
    access: AwsAccess = field(default_factory=AwsAccess)

    def __str__(self) -> str:
        """See `Transport`."""
        return f"the Data API of {self.cluster or self.workgroup}/{self.database}"

    def run(self, statements: Sequence[str]) -> pa.Table | None:
        """See `Transport.run`."""
        whole = [*session_settings(self.statement_seconds, self.query_group), *statements]
        with aws_errors(str(self)):
            client = self.access.client("redshift-data")
            # botocore repeats a request whose answer is lost; the token makes that harmless.
            submitted = client.batch_execute_statement(
                Sqls=whole, ClientToken=str(uuid.uuid4()), **self._target()
            )
            ended = self._wait(client, submitted["Id"])
            self._check(ended)
            last = ended["SubStatements"][-1]
            return _table(client, last["Id"]) if last.get("HasResultSet") else None

    def _target(self) -> dict[str, str]:
        named = {
            "Database": self.database,
            "ClusterIdentifier": self.cluster,
            "WorkgroupName": self.workgroup,
            "DbUser": self.user if self.secret_arn is None and self.workgroup is None else None,
            "SecretArn": self.secret_arn,
        }
        return {name: value for name, value in named.items() if value is not None}

    def _wait(self, client: Any, statement_id: str) -> dict[str, Any]:  # noqa: ANN401
        deadline = time.monotonic() + self.statement_seconds
        try:
            for seconds in growing(POLL_SECONDS):
                asked: dict[str, Any] = client.describe_statement(Id=statement_id)
                if asked["Status"] in _DONE:
                    return asked
                self._check_time(deadline)
                time.sleep(seconds)
        except BaseException:
            # Whoever stops waiting must not leave the statement running; it may be over already.
            with suppress(Exception):
                client.cancel_statement(Id=statement_id)
            raise
        raise AssertionError  # the waits never end

    def _check_time(self, deadline: float) -> None:
        if time.monotonic() > deadline:
            raise out_of_time(str(self), self.statement_seconds)

    def _check(self, ended: dict[str, Any]) -> None:
        if ended["Status"] == "FINISHED":
            return
        said = str(ended.get("Error") or f"the statement was {ended['Status'].lower()}")
        state = "57014" if ended["Status"] == "ABORTED" else sqlstate_in(said)
        raise refused(state, said.removeprefix("ERROR: "), str(self))


def _table(client: Any, statement_id: str) -> pa.Table:  # noqa: ANN401
    columns: list[dict[str, Any]] = []
    records: list[list[dict[str, Any]]] = []
    page: dict[str, Any] = {"NextToken": None}
    while "NextToken" in page:
        token = {"NextToken": page["NextToken"]} if page["NextToken"] else {}
        page = client.get_statement_result(Id=statement_id, **token)
        columns = columns or page["ColumnMetadata"]
        records += page["Records"]
    arrays = [
        pa.array([_value(row[n], column) for row in records], arrow_type(column))
        for n, column in enumerate(columns)
    ]
    return pa.table(arrays, names=[column["name"] for column in columns])


def arrow_type(column: dict[str, Any]) -> pa.DataType:
    """The Arrow type of a column that the Data API describes; text where it has no own."""
    name = column["typeName"]
    if name in ("numeric", "decimal"):
        return pa.decimal128(column.get("precision") or 38, column.get("scale") or 0)
    return ARROW.get(name, pa.string())


def _value(field: dict[str, Any], column: dict[str, Any]) -> object:
    if field.get("isNull"):
        return None
    value: object = next(iter(field.values()))
    kind = arrow_type(column)
    if not isinstance(value, str):
        return value
    read = next((read for fits, read in _READERS if fits(kind)), str)
    return read(value)


_READERS: tuple[tuple[Callable[[pa.DataType], bool], Callable[[str], object]], ...] = (
    (pa.types.is_decimal, Decimal),
    (pa.types.is_date, date.fromisoformat),
    (pa.types.is_time, time_of_day.fromisoformat),
    (pa.types.is_timestamp, datetime.fromisoformat),
)
