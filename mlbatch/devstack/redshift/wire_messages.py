"""Messages of the PostgreSQL protocol, version 3, as Redshift speaks it: framing and values."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import BinaryIO

import pyarrow as pa

PROTOCOL = 196_608
SSL_REQUEST = 80_877_103
CANCEL_REQUEST = 80_877_102
MAX_MESSAGE_BYTES = 64 << 20
BINARY = 1
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_DAY = date(2000, 1, 1)

OIDS = {
    pa.bool_(): (16, 1),
    pa.int16(): (21, 2),
    pa.int32(): (23, 4),
    pa.int64(): (20, 8),
    pa.float32(): (700, 4),
    pa.float64(): (701, 8),
    pa.string(): (1043, -1),
    pa.date32(): (1082, 4),
    pa.time64("us"): (1083, 8),
    pa.timestamp("us"): (1114, 8),
    pa.timestamp("us", "UTC"): (1184, 8),
}
"""Type number and size of an Arrow type; text for all others, numeric apart."""
NUMERIC = (1700, -1)
_FORMATS = {16: "?", 21: "!h", 23: "!i", 20: "!q", 700: "!f", 701: "!d"}


def oid_of(kind: pa.DataType) -> tuple[int, int]:
    """Redshift's number and size for a column's type."""
    return NUMERIC if pa.types.is_decimal(kind) else OIDS.get(kind, OIDS[pa.string()])


def message(kind: bytes, body: bytes = b"") -> bytes:
    """One message, framed."""
    return kind + struct.pack("!i", len(body) + 4) + body


def read_exactly(stream: BinaryIO, size: int) -> bytes:
    """``size`` bytes; EOFError where the other side hung up before."""
    data = stream.read(size)
    if data is None or len(data) < size:
        raise EOFError
    return data


def read_message(stream: BinaryIO) -> tuple[bytes, bytes]:
    """The next message's kind and body."""
    kind = read_exactly(stream, 1)
    (length,) = struct.unpack("!i", read_exactly(stream, 4))
    if not 4 <= length <= MAX_MESSAGE_BYTES:  # noqa: PLR2004  the length counts itself
        raise EOFError
    return kind, read_exactly(stream, length - 4)


class Body:
    """Reads the fields of a message's body, in order."""

    def __init__(self, data: bytes) -> None:
        """At its first byte."""
        self._data, self._place = data, 0

    def text(self) -> str:
        """Up to the next NUL."""
        end = self._data.index(b"\0", self._place)
        found = self._data[self._place : end].decode()
        self._place = end + 1
        return found

    def take(self, size: int) -> bytes:
        """So many."""
        found = self._data[self._place : self._place + size]
        self._place += size
        return found

    def number(self, form: str = "!h") -> int:
        """An integer of `struct`'s ``form``."""
        (value,) = struct.unpack(form, self.take(struct.calcsize(form)))
        return int(value)

    def numbers(self, form: str = "!h") -> list[int]:
        """A counted list."""
        return [self.number(form) for _ in range(self.number("!h"))]

    def rest(self) -> bytes:
        """What is left."""
        return self._data[self._place :]


def row_description(schema: pa.Schema) -> bytes:
    """The columns of a result."""
    body = struct.pack("!h", len(schema))
    for column in schema:
        oid, size = oid_of(column.type)
        body += column.name.encode() + b"\0"
        body += struct.pack("!ihihih", 0, 0, oid, size, _modifier(column.type), 0)
    return message(b"T", body)


def _modifier(kind: pa.DataType) -> int:
    return (kind.precision << 16 | kind.scale) + 4 if pa.types.is_decimal(kind) else -1


def data_rows(table: pa.Table, formats: Sequence[int]) -> Iterator[bytes]:
    """Every row, in the formats that Bind asked for: none, one for all, or one for each."""
    wanted = list(formats) * len(table.schema) if len(formats) == 1 else list(formats)
    wanted = wanted or [0] * len(table.schema)
    oids = [oid_of(column.type)[0] for column in table.schema]
    for batch in table.to_batches(max_chunksize=1_000):
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            cells = [_cell(v, o, f) for v, o, f in zip(row, oids, wanted, strict=True)]
            yield message(b"D", struct.pack("!h", len(cells)) + b"".join(cells))


def _cell(value: object, oid: int, form: int) -> bytes:
    if value is None:
        return struct.pack("!i", -1)
    data = _binary(value, oid) if form == BINARY else _text(value).encode()
    return struct.pack("!i", len(data)) + data


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, datetime):
        zone = "+00" if value.tzinfo else ""
        return value.replace(tzinfo=None).isoformat(" ") + zone
    return str(value)


def _binary(value: object, oid: int) -> bytes:
    if oid in _FORMATS:
        return struct.pack(_FORMATS[oid], value)
    if isinstance(value, datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=UTC)
        since = aware - _EPOCH
        return struct.pack("!q", (since.days * 86_400 + since.seconds) * 10**6 + since.microseconds)
    if isinstance(value, date):
        return struct.pack("!i", (value - _DAY).days)
    if isinstance(value, time):
        seconds = (value.hour * 60 + value.minute) * 60 + value.second
        return struct.pack("!q", seconds * 10**6 + value.microsecond)
    return _text(value).encode()


def argument(data: bytes, oid: int, form: int) -> object:
    """A bound parameter as a Python value."""
    if form == BINARY and oid in _FORMATS:
        (value,) = struct.unpack(_FORMATS[oid], data)
        return value
    text = data.decode()
    if oid in (20, 21, 23):
        return int(text)
    if oid in (700, 701):
        return float(text)
    if oid == NUMERIC[0]:
        return Decimal(text)
    return text


def error_response(sqlstate: str, text: str) -> bytes:
    """A failure that the session survives."""
    fields = (b"SERROR", b"C" + sqlstate.encode(), b"M" + text.encode())
    return message(b"E", b"\0".join(fields) + b"\0\0")


def notice_response(text: str) -> bytes:
    """What the server tells beside the answer."""
    fields = (b"SINFO", b"C00000", b"M" + text.encode())
    return message(b"N", b"\0".join(fields) + b"\0\0")


def parameter_status(name: str, value: str) -> bytes:
    """A setting of the server, told at the start."""
    return message(b"S", f"{name}\0{value}\0".encode())
