"""Values in the two formats of the PostgreSQL protocol: a result's columns, and bound parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Context, Decimal, InvalidOperation
from struct import Struct
from struct import error as StructError  # noqa: N812  the module calls it plainly "error"
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mlbatch.devstack.redshift.refusal import Refusal

BINARY = 1
BINARY_PROTOCOL = 2
"""The driver's protocol from which on numerics go as scaled integers."""
UNKNOWN = 705
_BOOL, _INT8, _INT2, _INT4, _FLOAT4, _FLOAT8 = 16, 20, 21, 23, 700, 701
_DATE, _TIME, _TIMESTAMP, _TIMESTAMPTZ, _NUMERIC = 1082, 1083, 1114, 1184, 1700
_TEXTS = frozenset([0, 18, 19, 25, UNKNOWN, 1042, 1043])
_VARCHAR = (1043, -1)
_KNOWN = {
    pa.bool_(): (_BOOL, 1),
    pa.int16(): (_INT2, 2),
    pa.int32(): (_INT4, 4),
    pa.int64(): (_INT8, 8),
    pa.float32(): (_FLOAT4, 4),
    pa.float64(): (_FLOAT8, 8),
    pa.date32(): (_DATE, 4),
    pa.time64("us"): (_TIME, 8),
    pa.timestamp("us"): (_TIMESTAMP, 8),
    pa.timestamp("us", "UTC"): (_TIMESTAMPTZ, 8),
    pa.binary(): (6551, -1),
}
_FIXED = {
    _BOOL: "?", _INT2: "h", _INT4: "i", _INT8: "q", _FLOAT4: "f", _FLOAT8: "d",
    _DATE: "i", _TIME: "q", _TIMESTAMP: "q", _TIMESTAMPTZ: "q",
}  # fmt: skip
# Arrow counts from 1970, the protocol from 2000.
_DAY, _MOMENT = date(2000, 1, 1), datetime(2000, 1, 1, tzinfo=UTC)
_EPOCHS = {_DATE: 10_957, _TIMESTAMP: 946_684_800_000_000, _TIMESTAMPTZ: 946_684_800_000_000}
_NARROW_DIGITS, _NARROW_BYTES, _WIDE_BYTES = 18, 8, 16
_EXACT = Context(prec=76)
_NULL = Struct("!i").pack(-1)
_SIZE = Struct("!i")


def wire_type(kind: pa.DataType) -> tuple[int, int, int]:
    """Redshift's number, size and modifier for a column's type."""
    if pa.types.is_decimal(kind):
        return _NUMERIC, -1, (kind.precision << 16 | kind.scale) + 4
    return *_KNOWN.get(kind, _VARCHAR), -1


def cells(column: pa.Array, form: int, protocol: int) -> list[bytes]:
    """Every value with its length in front, in format ``form``."""
    oid = wire_type(column.type)[0]
    if form == BINARY and oid in _FIXED:
        return _fixed(column, oid)
    if form == BINARY and oid == _NUMERIC:
        return _sized(column, _scaled(column.type, protocol))
    return _sized(column, _TEXT_OF.get(oid, str))


def _fixed(column: pa.Array, oid: int) -> list[bytes]:
    pack = Struct(f"!i{_FIXED[oid]}").pack
    size = _KNOWN[column.type][1]
    if oid in _EPOCHS or oid == _TIME:
        whole = column.cast(pa.int32() if oid == _DATE else pa.int64())
        column = pc.subtract(whole, pa.scalar(_EPOCHS.get(oid, 0), whole.type))
    return [_NULL if value is None else pack(size, value) for value in column.to_pylist()]


def _sized(column: pa.Array, encode: Callable[[Any], str | bytes]) -> list[bytes]:
    return [_NULL if value is None else _cell(encode(value)) for value in column.to_pylist()]


def _cell(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return _SIZE.pack(len(data)) + data


def _scaled(kind: pa.DataType, protocol: int) -> Callable[[Decimal], bytes]:
    if protocol < BINARY_PROTOCOL:
        raise Refusal("0A000", "a binary numeric needs client_protocol_version 2")
    width = _NARROW_BYTES if kind.precision <= _NARROW_DIGITS else _WIDE_BYTES

    def encode(value: Decimal) -> bytes:
        # The default context would round what has more than 28 digits.
        return int(value.scaleb(kind.scale, _EXACT)).to_bytes(width, "big", signed=True)

    return encode


def _float_text(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return repr(value)


def _moment_text(value: datetime) -> str:
    text = value.replace(tzinfo=None).isoformat(" ")
    return (text.rstrip("0") if "." in text else text) + ("+00" if value.tzinfo else "")


_TEXT_OF: dict[int, Callable[[Any], str | bytes]] = {
    _BOOL: lambda value: "t" if value else "f",
    _FLOAT4: _float_text,
    _FLOAT8: _float_text,
    _NUMERIC: lambda value: format(value, "f"),
    _TIMESTAMP: _moment_text,
    _TIMESTAMPTZ: _moment_text,
    6551: lambda value: value.hex(),
}


_SAMPLES: dict[int, object] = {
    _BOOL: True,
    _INT2: 1,
    _INT4: 1,
    _INT8: 2**31,
    _FLOAT4: 1.0,
    _FLOAT8: 1.0,
    _NUMERIC: Decimal("1234567890123456789012345678.0123456789"),
    _DATE: _DAY,
    _TIME: time(),
    _TIMESTAMP: _MOMENT.replace(tzinfo=None),
    _TIMESTAMPTZ: _MOMENT,
}


def sample(oid: int) -> object:
    """A value of a parameter's type, for describing a statement before there are any."""
    return _SAMPLES.get(oid)


def argument(data: bytes, oid: int, form: int) -> object:
    """A bound parameter as a Python value."""
    try:
        return _binary_argument(data, oid) if form == BINARY else _text_argument(data.decode(), oid)
    except UnicodeDecodeError as error:
        raise Refusal("22021", "invalid byte sequence for encoding UTF8") from error
    except (ValueError, InvalidOperation) as error:
        text = f"invalid input syntax for parameter of type {oid}: {data.decode()!r}"
        raise Refusal("22P02", text) from error
    except (StructError, OverflowError) as error:
        raise Refusal("22P03", f"incorrect binary data format of type {oid}") from error


def _text_argument(text: str, oid: int) -> object:
    read = _READERS.get(oid)
    return read(text) if read else text


def _boolean(text: str) -> bool:
    word = text.strip().lower()
    if word not in ("t", "true", "y", "yes", "1", "f", "false", "n", "no", "0"):
        raise ValueError(text)
    return word[0] in "ty1"


_READERS: dict[int, Callable[[str], object]] = {
    _BOOL: _boolean,
    _INT2: int,
    _INT4: int,
    _INT8: int,
    _FLOAT4: float,
    _FLOAT8: float,
    _NUMERIC: Decimal,
    _DATE: date.fromisoformat,
    _TIME: time.fromisoformat,
    _TIMESTAMP: datetime.fromisoformat,
    _TIMESTAMPTZ: datetime.fromisoformat,
}


def _binary_argument(data: bytes, oid: int) -> object:
    if oid in _TEXTS:
        return data.decode()
    if oid not in _FIXED:
        raise Refusal("0A000", f"a binary parameter of type {oid} is not supported")
    (value,) = Struct("!" + _FIXED[oid]).unpack(data)
    if oid == _DATE:
        return _DAY + timedelta(days=value)
    if oid == _TIME:
        return (_MOMENT + timedelta(microseconds=value)).time()
    if oid in _EPOCHS:
        moment = _MOMENT + timedelta(microseconds=value)
        return moment if oid == _TIMESTAMPTZ else moment.replace(tzinfo=None)
    return value


def retyped(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """``table`` in the types that the client was told before."""
    if table.schema.names != schema.names:
        raise Refusal("0A000", "cached plan must not change result type")
    try:
        return table.cast(schema)
    except pa.ArrowException as error:
        text = f"a value does not fit the type described before: {str(error).splitlines()[0]}"
        raise Refusal("22000", text) from error


def rows(table: pa.Table, formats: list[int], protocol: int) -> Iterator[bytes]:
    """The body of every row's message; ``formats`` has one for each column."""
    count = Struct("!h").pack(table.num_columns)
    for batch in table.to_batches(max_chunksize=1_000):
        columns = [cells(c, f, protocol) for c, f in zip(batch.columns, formats, strict=True)]
        for row in zip(*columns, strict=True):
            yield count + b"".join(row)
