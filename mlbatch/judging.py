"""Judges rows: which may be scored, which predictions keep the output's contract.

A row that fails is set aside with a reason; the others go on. Nothing here looks at the sink.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlbatch.keys import BROKEN, MISSING
from mlbatch.table import TEXT_BYTES
from mlbatch.window import EARLIEST, LATEST

if TYPE_CHECKING:
    from mlbatch.declaration import Column
    from mlbatch.table import OutputTable


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a row was set aside."""

    reason: str
    """A short code, the same wherever the same thing is wrong."""
    detail: str


Faults = dict[int, Fault]
"""Row number within the batch to its fault; the first fault of a row counts."""


def judge_input(
    batch: pa.RecordBatch, columns: Sequence[Column], key: Sequence[str], text_characters: int
) -> Faults:
    """Rows of ``batch`` that must not reach the model, of the ``columns`` it reads.

    NULL keys, NULL in a column that is not declared ``| None``, bytes that are not UTF-8, NaN or
    infinite numbers, texts longer than ``text_characters``, and times before the year 1 or after
    9999 in any column, which no database of ours can hold.
    """
    faults = judge_keys(batch, key)
    for name in batch.schema.names:
        _judge_time(faults, name, batch.column(name))
    for column in columns:
        values = batch.column(column.name)
        if not column.nullable:
            _add(faults, pc.is_null(values), Fault("missing_value", f"{column.name} is NULL"))
        if pa.types.is_string(values.type):
            _judge_text(faults, column.name, values, text_characters)
        elif pa.types.is_floating(values.type):
            wild = pc.invert(pc.is_finite(values))
            _add(faults, wild, Fault("not_finite", f"{column.name} is NaN or infinite"))
    return faults


def judge_keys(batch: pa.RecordBatch, key: Sequence[str]) -> Faults:
    """Rows without a ``key`` that a table could hold, whatever else is wrong with them."""
    faults: Faults = {}
    for name in key:
        values = batch.column(name)
        _add(faults, pc.is_null(values), Fault(MISSING, f"{name} is NULL"))
        if pa.types.is_string(values.type):
            _judge_bytes(faults, name, values, reason=BROKEN)
        _judge_time(faults, name, values)
    return faults


def condemn(batch: pa.RecordBatch, key: Sequence[str], fault: Fault) -> Faults:
    """``fault`` for every row of ``batch``. One without a key keeps that as its reason: nothing else tells."""
    keyless = judge_keys(batch, key).items()
    told = {row: Fault(own.reason, f"{own.detail}; {fault.detail}") for row, own in keyless}
    return dict.fromkeys(range(batch.num_rows), fault) | told


def _judge_time(faults: Faults, name: str, values: pa.Array) -> None:
    if not (pa.types.is_timestamp(values.type) or pa.types.is_date(values.type)):
        return
    beyond = pc.or_(
        pc.less(values, pa.scalar(EARLIEST, values.type)),
        pc.greater(values, pa.scalar(LATEST, values.type)),
    )
    _add(faults, beyond, Fault("out_of_range", f"{name} is not in the years 1 to 9999"))


def _judge_text(faults: Faults, name: str, values: pa.Array, text_characters: int) -> None:
    broken = _judge_bytes(faults, name, values)
    # Characters are counted in what has some.
    values = values if broken is None else pc.if_else(broken, None, values)
    too_long = pc.greater(pc.utf8_length(values), text_characters)
    _add(faults, too_long, Fault("too_long", f"{name} has more than {text_characters} characters"))


def _judge_bytes(
    faults: Faults, name: str, values: pa.Array, *, reason: str = "not_utf8"
) -> pa.Array | None:
    """Which ``values`` are not UTF-8; None where all are."""
    try:
        values.validate(full=True)
    except pa.ArrowInvalid:
        broken = [not _is_utf8(value) for value in values.cast(pa.binary()).to_pylist()]
        _add(faults, pa.array(broken), Fault(reason, f"{name} is not UTF-8"))
        return pa.array(broken)
    return None


def _is_utf8(value: bytes | None) -> bool:
    try:
        (value or b"").decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _add(faults: Faults, mask: pa.Array, fault: Fault) -> None:
    for row in np.flatnonzero(pc.fill_null(mask, False).to_numpy(zero_copy_only=False)):  # noqa: FBT003
        faults.setdefault(int(row), fault)


def judge_output(rows: pa.RecordBatch, table: OutputTable) -> Faults:
    """Rows whose values break the contract of the output's declaration."""
    faults: Faults = {}
    for column in table.columns:
        values = rows.column(column.name)
        _judge_column(faults, column, values)
        if pa.types.is_string(column.type):
            _judge_length(faults, column.name, values, table.characters(column))
    return faults


def _judge_column(faults: Faults, column: Column, values: pa.Array) -> None:
    name = column.name
    if not column.nullable:
        _add(faults, pc.is_null(values), Fault("missing_value", f"{name} is NULL"))
    if pa.types.is_floating(values.type):
        wild = pc.invert(pc.is_finite(values))
        _add(faults, wild, Fault("not_finite", f"{name} is NaN or infinite"))
    if column.choices and not pa.types.is_boolean(column.type):
        unknown = pc.invert(pc.is_in(values, value_set=pa.array(column.choices, values.type)))
        _add(faults, unknown, Fault("unknown_label", f"{name} is none of the declared values"))
    for bound, outside, word in (
        (column.lower, pc.less, "below"),
        (column.upper, pc.greater, "above"),
    ):
        if bound is not None:
            fault = Fault("out_of_range", f"{name} is {word} {bound:g}")
            _add(faults, outside(values, bound), fault)


def _judge_length(faults: Faults, name: str, values: pa.Array, characters: int | None) -> None:
    if characters is None:
        long = pc.greater(pc.binary_length(values), TEXT_BYTES)
        _add(faults, long, Fault("too_long", f"{name} has more than {TEXT_BYTES:,} bytes"))
    else:
        long = pc.greater(pc.utf8_length(values), characters)
        _add(faults, long, Fault("too_long", f"{name} has more than {characters} characters"))


def judge_duplicates(batch: pa.RecordBatch, key: Sequence[str], cursor: str) -> np.ndarray:
    """True for rows that a later row of the same key outdoes: the highest cursor wins, then the last.

    ``batch`` holds no NULL keys.
    """
    one = batch.column(key[0]) if len(key) == 1 else None
    if one is not None and pc.count_distinct(one, mode="all").as_py() == len(one):
        # Without a tuple a row, so many of which set the garbage collector off.
        return np.zeros(len(one), dtype=bool)
    keys = list(zip(*(batch.column(name).to_pylist() for name in key), strict=True))
    if len(set(keys)) == len(keys):
        return np.zeros(len(keys), dtype=bool)
    cursors = batch.column(cursor).cast(pa.timestamp("us")).cast(pa.int64()).fill_null(-(2**63))
    best: dict[tuple[object, ...], tuple[int, int]] = {}
    for row, (entity, value) in enumerate(zip(keys, cursors.to_pylist(), strict=True)):
        best[entity] = max(best.get(entity, (value, row)), (value, row))
    winners = {row for _, row in best.values()}
    return np.array([row not in winners for row in range(len(keys))])
