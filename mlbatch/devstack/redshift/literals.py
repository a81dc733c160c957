"""Bound values as literals of their exact type."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, time
from decimal import Decimal


def sql_literal(value: object) -> str:  # noqa: PLR0911  one line a type
    """``value`` as Redshift's SQL writes it."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, (int, Decimal)):
        return f"({value})" if value < 0 else str(value)
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, datetime):
        return _timestamp(value)
    if isinstance(value, (date, time)):
        return f"CAST('{value.isoformat()}' AS {type(value).__name__.upper()})"
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"unhex('{bytes(value).hex()}')"
    escaped = str(value).replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'"


def _float(value: float) -> str:
    text = repr(value) if math.isfinite(value) else str(value)
    return f"CAST('{text}' AS DOUBLE PRECISION)"


def _timestamp(value: datetime) -> str:
    if value.tzinfo is None:
        return f"CAST('{value.isoformat(sep=' ')}' AS TIMESTAMP)"
    return f"CAST('{value.astimezone(UTC).isoformat(sep=' ')}' AS TIMESTAMPTZ)"
