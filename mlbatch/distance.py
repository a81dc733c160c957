"""How far the predictions of two models are apart. Pure: rows in, figures out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from decimal import ROUND_CEILING, Context

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlbatch.buckets import together

SCORE_UNITS = 10_000
"""Scores are told apart by so many steps to one."""


@dataclass(frozen=True, slots=True)
class Distance:
    """Each figure is 0 where both are alike and 1 where they have nothing in common."""

    labels: float
    """Share of the rows that had to go to another label for both to count alike."""
    scores: float
    """Greatest difference of the scores' cumulative shares, after Kolmogorov and Smirnov."""
    changed: float
    """Share of the keys that both have whose label is another one."""
    rows_before: int = field(default=0, compare=False)
    lacking: int = field(default=0, compare=False)
    """Of these, rows whose key the other has not."""


def limit_for(share: float) -> str:
    """The least limit of two digits that ``share`` is not above, as people type it."""
    return f"{Context(prec=2, rounding=ROUND_CEILING).create_decimal(repr(share)):f}"


def distance(
    before: pa.RecordBatchReader,
    after: pa.RecordBatchReader,
    key: tuple[str, ...],
    label: str,
    score: str,
    *,
    until: datetime | None = None,
) -> Distance:
    """Compare two tables of predictions; an empty one is as far as can be from one with rows.

    ``after`` lacks nothing that changed later than ``until``, naive UTC.
    """
    one, other = _Counts(), _Counts()
    common = changed = lacking = 0
    for old, new in together((before, after), key):
        one.add(old[label], old[score])
        other.add(new[label], new[score])
        both, without = _both(old, new, key, label)
        lacking += _older(without, until).num_rows
        common += both.num_rows
        changed += pc.sum(pc.not_equal(both[label], both[_AFTER])).as_py() or 0
    if not (one.rows and other.rows):
        apart = float(one.rows != other.rows)
        return Distance(apart, apart, 0.0, one.rows, lacking)
    return Distance(
        _shares_apart(one, other),
        _cumulated_apart(one, other),
        changed / common if common else 0.0,
        one.rows,
        lacking,
    )


_AFTER = "mlbatch_after"


def _both(
    before: pa.Table, after: pa.Table, key: tuple[str, ...], label: str
) -> tuple[pa.Table, pa.Table]:
    """The rows of ``before`` whose key ``after`` has, with its label, and the others."""
    renamed = after.select([*key, label]).rename_columns([*key, _AFTER])
    joined = before.join(renamed, list(key), join_type="left outer", use_threads=False)
    has = pc.is_valid(joined[_AFTER])
    return joined.filter(has), joined.filter(pc.invert(has))


def _older(rows: pa.Table, until: datetime | None) -> pa.Table:
    if until is None:
        return rows
    at = rows["src_updated_at"]
    return rows.filter(pc.less_equal(at, pa.scalar(until, at.type)))


@dataclass(slots=True)
class _Counts:
    """How often each label and each score came up."""

    rows: int = 0
    labels: Counter[object] = field(default_factory=Counter)
    scores: Counter[float] = field(default_factory=Counter)
    """By the score in `SCORE_UNITS`."""

    def add(self, labels: pa.ChunkedArray, scores: pa.ChunkedArray) -> None:
        self.rows += len(labels)
        for one in pc.value_counts(labels.combine_chunks()).to_pylist():
            self.labels[one["values"]] += one["counts"]
        values, counts = np.unique(np.round(scores.to_numpy() * SCORE_UNITS), return_counts=True)
        self.scores.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))


def _shares_apart(one: _Counts, other: _Counts) -> float:
    names = one.labels.keys() | other.labels.keys()
    return sum(abs(one.labels[n] / one.rows - other.labels[n] / other.rows) for n in names) / 2


def _cumulated_apart(one: _Counts, other: _Counts) -> float:
    at = sorted(one.scores.keys() | other.scores.keys())
    shares = [np.cumsum([side.scores[v] for v in at]) / side.rows for side in (one, other)]
    return float(np.abs(shares[0] - shares[1]).max())
