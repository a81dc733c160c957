"""Messages of the PostgreSQL protocol, version 3, as Redshift speaks it: their framing."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import BinaryIO

import pyarrow as pa

from mlbatch.devstack.redshift.refusal import Refusal
from mlbatch.devstack.redshift.wire_types import wire_type

SSL_REQUEST = 80_877_103
GSS_REQUEST = 80_877_104
CANCEL_REQUEST = 80_877_102
MAJOR_VERSION = 3
MAX_MESSAGE_BYTES = 64 << 20
MAX_STARTUP_BYTES = 10_000
EXTENDED_METADATA = 1
"""The driver's protocol from which on a column tells where it comes from."""
_NULLABLE = 1


class ProtocolViolation(ValueError):
    """What came is not a message of the protocol; the connection ends."""


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
        message = f"invalid message length {length}"
        raise ProtocolViolation(message)
    return kind, read_exactly(stream, length - 4)


class Body:
    """Reads the fields of a message's body, in order."""

    def __init__(self, data: bytes) -> None:
        """At its first byte."""
        self._data, self._place = data, 0

    def text(self) -> str:
        """Up to the next NUL."""
        end = self._data.find(b"\0", self._place)
        if end < 0:
            message = "invalid string in message"
            raise ProtocolViolation(message)
        found = self.take(end - self._place)
        self._place += 1
        try:
            return found.decode()
        except UnicodeDecodeError as error:
            raise Refusal("22021", "invalid byte sequence for encoding UTF8") from error

    def take(self, size: int) -> bytes:
        """So many."""
        end = self._place + size
        if size < 0 or end > len(self._data):
            message = "insufficient data left in message"
            raise ProtocolViolation(message)
        found = self._data[self._place : end]
        self._place = end
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


def row_description(schema: pa.Schema, formats: Sequence[int], protocol: int) -> bytes:
    """The columns of a result."""
    fields = [_column(c, f, protocol) for c, f in zip(schema, formats, strict=True)]
    return message(b"T", struct.pack("!h", len(schema)) + b"".join(fields))


def _column(column: pa.Field, form: int, protocol: int) -> bytes:
    label = column.name.encode() + b"\0"
    described = label + struct.pack("!ihihih", 0, 0, *wire_type(column.type), form)
    if protocol < EXTENDED_METADATA:
        return described
    # Schema, table and catalog are told as unknown, as for an expression.
    return described + b"\0\0" + label + b"\0" + struct.pack("!h", _NULLABLE * column.nullable)


def parameter_description(oids: Sequence[int]) -> bytes:
    """The types of a statement's parameters."""
    return message(b"t", struct.pack(f"!h{len(oids)}i", len(oids), *oids))


def error_response(refusal: Refusal, severity: str = "ERROR") -> bytes:
    """A failure; the session survives it unless ``severity`` is FATAL."""
    fields = {"S": severity, "C": refusal.sqlstate, "M": refusal.message}
    return _report(b"E", fields | ({"D": refusal.detail} if refusal.detail else {}))


def notice_response(text: str) -> bytes:
    """What the server tells beside the answer."""
    return _report(b"N", {"S": "INFO", "C": "00000", "M": text})


def _report(kind: bytes, fields: dict[str, str]) -> bytes:
    # A NUL inside would end the field early.
    told = "".join(f"{letter}{text}".replace("\0", " ") + "\0" for letter, text in fields.items())
    return message(kind, told.encode() + b"\0")


def parameter_status(name: str, value: str) -> bytes:
    """A setting of the server, told at the start."""
    return message(b"S", f"{name}\0{value}\0".encode())
