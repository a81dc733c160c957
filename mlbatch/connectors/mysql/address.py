"""Where a MySQL server is and how to log in, and connections to it that are set up alike."""

from __future__ import annotations

import ssl
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymysql
from pymysql.connections import Connection, MySQLResult
from pymysql.constants import CR

from mlbatch.connectors.password import Password
from mlbatch.errors import TemporaryError

CONNECT_SECONDS = 10
GREETING_SECONDS = 20
"""Whoever listens and says nothing for so long is no MySQL, or none that will answer."""
ANSWER_SECONDS = 120
"""A statement that takes longer counts as lost."""
LOAD_CHUNK_BYTES = 1 << 19
"""Half of the smallest max_allowed_packet that is met: a longer packet ends the connection."""

# ANSI_QUOTES lets one quoting of identifiers serve every database. A short wait_timeout makes the
# server end the open transaction of a worker that sleeps, which would block its successor. Readers
# wait behind whoever waits for a table's lock, so nobody does so for long.
_SESSION = (
    "SET SESSION sql_mode = 'ANSI_QUOTES,STRICT_TRANS_TABLES,STRICT_ALL_TABLES,"
    "NO_ZERO_IN_DATE,NO_ZERO_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION'"
    ", time_zone = '+00:00', wait_timeout = 30, innodb_lock_wait_timeout = 5"
    ", lock_wait_timeout = 5"
    # Else servers may be told to keep warnings to themselves, to cut answers short, or to chain commits.
    ", max_error_count = 64, sql_notes = 1, sql_select_limit = 18446744073709551615"
    ", sql_big_selects = 1, sql_quote_show_create = 1, completion_type = 0"
    # A server's limit of a statement's time would end the same batch, or the same reading of a whole
    # table, at every start. MariaDB's variable reads MariaDB alone, and MySQL's MySQL alone.
    " /*M! , max_statement_time = 0 */ /*!50708 , max_execution_time = 0 */"
)
_ISOLATION = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE"


@dataclass(frozen=True, slots=True)
class MysqlAddress:
    """One database on one server, and how to log in."""

    host: str
    port: int
    database: str
    user: str
    password: Password
    verify_tls: bool = True
    """False sends everything in the clear: for a server on this machine only."""
    ca: Path | None = None
    """Certificates to trust instead of the system's, such as the RDS bundle."""
    local_infile: bool = True
    """Whether LOAD DATA LOCAL may be used where the server allows it."""

    def __str__(self) -> str:
        """For messages."""
        return f"{self.host}:{self.port}/{self.database}"


class LoadingConnection(Connection):  # type: ignore[misc]
    """Sends prepared bytes for LOAD DATA LOCAL, and never a file.

    The protocol lets the server name the file it wants, so a hostile one could read this machine's.
    """

    load_data: bytes = b""
    _read_timeout: float

    def connect(self, sock: Any = None) -> None:  # noqa: ANN401  a socket, which nobody hands in
        """Log in; the driver would wait for a greeting as long as for a statement."""
        statement, self._read_timeout = self._read_timeout, GREETING_SECONDS
        try:
            super().connect(sock)
        except pymysql.err.OperationalError as error:
            if isinstance(error.__context__, TimeoutError):
                message = f"it is connected to, and timed out after {GREETING_SECONDS} s of silence"
                raise pymysql.err.OperationalError(CR.CR_CONN_HOST_ERROR, message) from error
            raise
        finally:
            self._read_timeout = statement

    def _read_query_result(self, unbuffered: bool = False) -> Any:  # noqa: ANN401, FBT001, FBT002
        if unbuffered:
            return super()._read_query_result(unbuffered=True)
        self._result = None
        result = _LoadingResult(self)
        result.read()
        self._result = result
        if result.server_status is not None:
            self.server_status = result.server_status
        return result.affected_rows


class _LoadingResult(MySQLResult):  # type: ignore[misc]
    def _read_load_local_packet(self, first_packet: object) -> None:  # noqa: ARG002  the name asked for
        connection = self.connection
        data, connection.load_data = connection.load_data, b""
        for start in range(0, len(data), LOAD_CHUNK_BYTES):
            connection.write_packet(data[start : start + LOAD_CHUNK_BYTES])
        connection.write_packet(b"")
        self._read_ok_packet(connection._read_packet())  # noqa: SLF001


def connect(
    address: MysqlAddress,
    *,
    answer_seconds: float | None = None,
    **options: Any,  # noqa: ANN401
) -> LoadingConnection:
    """A new connection, outside any transaction, with the session settings of the protocol.

    A statement may take ``answer_seconds``, or `ANSWER_SECONDS`. Raises `pymysql.err.Error` as it
    comes; callers translate.
    """
    tls: dict[str, Any] = {"ssl_disabled": True}
    answer_seconds = answer_seconds or ANSWER_SECONDS
    if address.verify_tls:
        tls = {"ssl": ssl.create_default_context(cafile=address.ca)}
    connection = LoadingConnection(
        host=address.host,
        port=address.port,
        database=address.database,
        user=address.user,
        password=address.password(),
        charset="utf8mb4",
        autocommit=True,
        connect_timeout=CONNECT_SECONDS,
        read_timeout=answer_seconds,
        write_timeout=min(answer_seconds, ANSWER_SECONDS),
        local_infile=address.local_infile,
        program_name="mlbatch",
        **tls,
        **options,
    )
    for statement in (_SESSION, _ISOLATION):
        connection.query(statement)
    return connection


def connect_to_writer(address: MysqlAddress, **options: Any) -> LoadingConnection:  # noqa: ANN401
    """As `connect`; a server that only reads raises TemporaryError."""
    connection = connect(address, **options)
    # After a fail-over the name may still lead to the demoted writer. `read_only` alone does not
    # stop a user with more rights, whose rows would be lost with that server.
    for setting in ("@@innodb_read_only", "@@read_only"):
        if scalar(connection, f"SELECT {setting}") not in (0, "OFF"):
            connection.close()
            message = f"{address} is a reader: it is read-only"
            raise TemporaryError(message, hint="name the cluster's writer endpoint in sink.host")
    return connection


def scalar(connection: pymysql.Connection[Any], query: str, *arguments: object) -> Any:  # noqa: ANN401
    """The first column of the first row; None where there is none."""
    with closing(connection.cursor()) as cursor:
        cursor.execute(query, arguments or None)
        row = cursor.fetchone()
    return row[0] if row else None
