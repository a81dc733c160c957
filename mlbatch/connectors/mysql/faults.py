"""What MySQL's errors mean: the only place that knows their numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pymysql
from sqlalchemy.exc import DBAPIError

from mlbatch.connectors.mysql.address import MysqlAddress
from mlbatch.connectors.unreached import advice, lasts
from mlbatch.errors import MlbatchError, RunFailed, SettingsError, TemporaryError

LOCK_WAIT = 1205
ROLLED_BACK = frozenset({LOCK_WAIT, 1213})
"""Lock wait and deadlock: nothing was committed, and the same may go through now."""
LOST = frozenset({0, 1053, 1152, 1158, 1159, 1160, 1161, 1317, 1927, 2006, 2013, 2014, 2055, 4031})
"""The connection is gone, and with it the answer."""
READ_ONLY = frozenset({1290, 1792, 1836, 1874})
UNREACHABLE = frozenset({1040, 1129, 1203, 1226, 2002, 2003, 2005, 2012})
_FULL = frozenset({1021, 1030, 1041, 1114, 1037, 1038})
UNDONE = frozenset({1180, 1206, 1637, 1969, 3024, 3101})
"""A COMMIT that failed, no room for locks or transactions, a limit of the statement's time, a veto of
the replication: the position says what became of the batch, and the same may go through now."""
LACKS_RIGHT = 1227
_RETIRED = 1020  # "Record has changed since last read", MariaDB's snapshot isolation

_TLS = 2026

_TOO_WIDE = (
    "the declared texts are too long for one row or key: lower their MaxLen, or leave it out"
)
_HINTS = {
    1071: _TOO_WIDE,
    1074: _TOO_WIDE,
    1117: _TOO_WIDE,
    1118: _TOO_WIDE,
    1044: "grant the user its rights on the database: deploy/mysql holds the statements",
    1045: "check sink.user and its password, token or secret",
    1049: "create the database, or mend sink.database",
    1142: "grant the user this right: deploy/mysql holds the statements",
    LACKS_RIGHT: "grant the user this right: deploy/mysql holds the statements",
    1251: "the server wants a log-in that this client does not have",
    1698: "this user may not log in over the network",
    _TLS: "sink.ca must hold the certificate authority that signed the server's certificate",
    3159: "the server refuses connections without TLS: leave sink.tls at verify",
}
_AGAIN = "run again, it goes on from there"
_RESUMES = f"what was committed stays; {_AGAIN}"


def number(error: BaseException) -> int:
    """MySQL's error number; 0 where the driver lost the connection without one."""
    first = error.args[0] if error.args else 0
    return first if isinstance(first, int) else 0


def is_passing(error: BaseException) -> bool:
    """Whether the same transaction may go through on a new connection."""
    if not isinstance(error, pymysql.err.Error):
        return isinstance(error, OSError)
    if isinstance(error, pymysql.err.InterfaceError):
        return True
    return number(error) in ROLLED_BACK | LOST | READ_ONLY | UNREACHABLE | UNDONE | {_RETIRED}


def is_lock_wait(error: BaseException) -> bool:
    """Whether ``error``, one of ours, tells of a lock that somebody else would not give up."""
    cause = error.__cause__
    found = cause.orig if isinstance(cause, DBAPIError) else cause
    return found is not None and number(found) == LOCK_WAIT


def translate(error: BaseException, address: MysqlAddress, writing: str = "") -> MlbatchError:
    """One of ours, for an error of the driver or of SQLAlchemy around it.

    ``writing`` says, for people, what there was no room for.
    """
    if isinstance(error, DBAPIError) and error.orig is not None:
        return translate(error.orig, address, writing)
    code = number(error)
    said = " ".join(str(part) for part in error.args).splitlines()[0] if error.args else ""
    # A certificate that is refused comes under the number of a server that is away; so does TLS that
    # breaks off, which another try may mend.
    code = _TLS if lasts(error) else code
    if code in _HINTS:
        return SettingsError(f"MySQL at {address} refuses: {said}", hint=_HINTS[code])
    if is_passing(error):
        away = code in UNREACHABLE
        hint = advice(error, "sink.host and sink.port", _AGAIN) if away else _RESUMES
        return TemporaryError(f"MySQL at {address} does not answer: {said}", hint=hint)
    if code in _FULL:
        wanted = f" for {writing}" if writing else ""
        hint = f"make room on the server; {_RESUMES}"
        return TemporaryError(f"MySQL at {address} has no room{wanted}: {said}", hint=hint)
    hint = "nothing of the open batch was written; run again once the cause is mended"
    return RunFailed(f"MySQL at {address}: {said}", hint=hint)


@contextmanager
def translated(address: MysqlAddress) -> Iterator[None]:
    """The one place where MySQL's errors become ours."""
    try:
        yield
    except (DBAPIError, pymysql.err.Error, OSError) as error:
        raise translate(error, address) from error
