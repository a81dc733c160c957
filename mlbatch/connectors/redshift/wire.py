"""Redshift over a connection of its own, by redshift-connector.

The driver is not safe after an error of its own: unread replies stay and the next statement gets
the previous one's. So every call opens a connection and closes it, whatever happened.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import redshift_connector

from mlbatch.connectors.password import Password
from mlbatch.connectors.redshift.transport import ARROW, out_of_time, refused, session_settings
from mlbatch.connectors.unreached import advice, reason
from mlbatch.errors import DeclarationError, MlbatchError, SettingsError, TemporaryError

_PLACE = "warehouse.host and warehouse.port"
_AGAIN = "try again; nothing was lost"
CONNECT_SECONDS = 15
SLACK_SECONDS = 30
"""The server ends a statement at its limit; the socket waits a little longer."""


@dataclass(frozen=True, slots=True)
class Wire:
    """`mlbatch.connectors.redshift.transport.Transport` over the PostgreSQL protocol."""

    host: str
    port: int
    database: str
    user: str | None = None
    password: Password | None = None
    """Without one, IAM gives a temporary one for ``user`` of ``cluster``."""
    cluster: str | None = None
    region: str | None = None
    verify_tls: bool = True
    """False sends everything in the clear: for a server on this machine only."""
    ca: Path | None = None
    query_group: str | None = None
    statement_seconds: int = 4 * 3600

    def __str__(self) -> str:
        """See `Transport`."""
        return f"Redshift at {self.host}:{self.port}/{self.database}"

    def run(self, statements: Sequence[str]) -> pa.Table | None:
        """See `Transport.run`."""
        with self._errors(), self._connected() as connection:
            process = _scalar(connection, "SELECT pg_backend_pid()")
            try:
                return self._execute(connection, statements)
            except BaseException as error:
                # Whoever stops waiting must not leave the statement running.
                if not _told_by_server(error):
                    self._cancel(process)
                raise

    def _execute(self, connection: Any, statements: Sequence[str]) -> pa.Table | None:  # noqa: ANN401
        cursor = connection.cursor()
        for statement in (*session_settings(self.statement_seconds, self.query_group), *statements):
            # Never with arguments: the driver's own scanner does not know dollar quotes.
            cursor.execute(statement)
        found = _table(cursor) if cursor.description else None
        connection.commit()
        return found

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Any]:
        try:
            with _trusted(self.ca):
                connection = redshift_connector.connect(**self._arguments())
        except TimeoutError as error:
            message = f"{self}: no answer within {CONNECT_SECONDS} s"
            raise TemporaryError(message, hint=advice(error, _PLACE, _AGAIN)) from error
        # The driver has one limit for both; a statement may take longer than a greeting.
        connection._usock.settimeout(self.statement_seconds + SLACK_SECONDS)  # noqa: SLF001
        try:
            yield connection
        finally:
            with contextlib.suppress(Exception):
                connection.close()

    def _arguments(self) -> dict[str, Any]:
        common = {
            "host": self.host,
            "port": self.port,
            "database": self.database,
            "timeout": CONNECT_SECONDS,
            "tcp_keepalive": True,
            "application_name": "mlbatch",
            # An unknown mode would be ignored by the driver, and verify-ca is its default.
            **({"ssl": True, "sslmode": "verify-full"} if self.verify_tls else {"ssl": False}),
        }
        if self.password is not None:
            return {**common, "user": self.user, "password": self.password()}
        return {
            **common,
            "iam": True,
            "db_user": self.user,
            "cluster_identifier": self.cluster,
            "region": self.region,
        }

    def _cancel(self, process: object) -> None:
        with contextlib.suppress(Exception), self._connected() as other:
            other.cursor().execute(f"SELECT pg_cancel_backend({int(str(process))})")

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """The one place where the driver's errors become ours."""
        try:
            yield
        except TimeoutError as error:
            raise out_of_time(str(self), self.statement_seconds) from error
        except (redshift_connector.Error, OSError) as error:
            raise self._translated(error) from error

    def _translated(self, error: BaseException) -> MlbatchError:
        if found := _told_by_server(error):
            return refused(str(found["C"]), str(found.get("M", "")), str(self))
        told = error.args[0] if error.args else ""
        said = str(told).splitlines()[0] if str(told) else type(error).__name__
        if "refuses SSL" in said:
            hint = f"look whether {_PLACE} name a Redshift: every one of them speaks TLS"
            return SettingsError(f"{self}: {said}", hint=hint)
        if "certificate" in said or "SSL" in said:
            hint = "warehouse.ca must hold the authority that signed the server's certificate"
            return SettingsError(f"{self}: {said}", hint=hint)
        # Of a server that is not there the driver tells no more than "communication error".
        why = f": {cause}" if (cause := reason(error)) else ""
        return TemporaryError(f"{self}: {said}{why}", hint=advice(error, _PLACE, _AGAIN))


def _told_by_server(error: BaseException) -> dict[str, object]:
    """The fields of the server's own error, after which it runs nothing; none for any other."""
    told = error.args[0] if error.args else None
    return told if isinstance(told, dict) and "C" in told else {}


@contextlib.contextmanager
def _trusted(ca: Path | None) -> Iterator[None]:
    """The driver trusts the system's certificates and knows no other way to name one.

    Afterwards all other connections of this process trust what they did.
    """
    if ca is None:
        yield
        return
    with _CERTIFICATES:
        before = os.environ.get("SSL_CERT_FILE")
        os.environ["SSL_CERT_FILE"] = str(ca)
        try:
            yield
        finally:
            os.environ.pop("SSL_CERT_FILE")
            if before is not None:
                os.environ["SSL_CERT_FILE"] = before


_CERTIFICATES = threading.Lock()
_OIDS = {
    16: "bool",
    20: "int8",
    21: "int2",
    23: "int4",
    700: "float4",
    701: "float8",
    1082: "date",
    1083: "time",
    1114: "timestamp",
    1184: "timestamptz",
    3000: "geometry",
    3001: "geography",
    6551: "varbyte",
}
_NUMERIC = 1700


def _table(cursor: Any) -> pa.Table:  # noqa: ANN401
    rows = cursor.fetchall()
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(cursor.description)
    arrays = [
        _array(values, described[0], described[1])
        for values, described in zip(columns, cursor.description, strict=True)
    ]
    return pa.table(arrays, names=[_name(described[0]) for described in cursor.description])


def _array(values: Sequence[object], label: str | bytes, oid: int) -> pa.Array:
    try:
        made = pa.array(values, _arrow_type(oid))
    except (pa.ArrowTypeError, pa.ArrowInvalid) as error:
        message = f"the column {_name(label)} is of a type that mlbatch does not read: {error}"
        raise DeclarationError(message, hint="cast it in the SELECT, as to VARCHAR") from error
    # Arrow learns a number's digits from values; without any it is a number all the same.
    return made.cast(pa.decimal128(38, 0)) if pa.types.is_null(made.type) else made


def _arrow_type(oid: int) -> pa.DataType | None:
    return None if oid == _NUMERIC else ARROW.get(_OIDS.get(oid, ""), pa.string())


def _name(label: str | bytes) -> str:
    return label.decode() if isinstance(label, bytes) else label


def _scalar(connection: Any, query: str) -> object:  # noqa: ANN401
    cursor = connection.cursor()
    cursor.execute(query)
    value: object = cursor.fetchone()[0]
    return value
