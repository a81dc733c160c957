"""How far the predictions of two models are apart. Pure: tables in, figures out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True, slots=True)
class Distance:
    """Each figure is 0 where both are alike and 1 where they have nothing in common."""

    labels: float
    """Share of the rows that had to go to another label for both to count alike."""
    scores: float
    """Greatest difference of the scores' cumulative shares, after Kolmogorov and Smirnov."""
    changed: float
    """Share of the keys that both have whose label is another one."""


def distance(
    before: pa.Table, after: pa.Table, key: tuple[str, ...], label: str, score: str
) -> Distance:
    """Compare two tables of predictions; an empty one is as far as can be from one with rows."""
    if not (before.num_rows and after.num_rows):
        apart = float(before.num_rows != after.num_rows)
        return Distance(apart, apart, 0.0)
    return Distance(
        _shares_apart(before[label], after[label]),
        _cumulated_apart(before[score], after[score]),
        _changed(before, after, key, label),
    )


def _shares_apart(before: pa.ChunkedArray, after: pa.ChunkedArray) -> float:
    one, other = _shares(before), _shares(after)
    return sum(abs(one.get(name, 0.0) - other.get(name, 0.0)) for name in {*one, *other}) / 2


def _shares(labels: pa.ChunkedArray) -> dict[object, float]:
    counted = pc.value_counts(labels.combine_chunks()).to_pylist()
    return {one["values"]: one["counts"] / len(labels) for one in counted}


def _cumulated_apart(before: pa.ChunkedArray, after: pa.ChunkedArray) -> float:
    one, other = (np.sort(scores.to_numpy()) for scores in (before, after))
    at = np.concatenate([one, other])
    shares = [np.searchsorted(scores, at, side="right") / len(scores) for scores in (one, other)]
    return float(np.abs(shares[0] - shares[1]).max())


def _changed(before: pa.Table, after: pa.Table, key: tuple[str, ...], label: str) -> float:
    renamed = after.select([*key, label]).rename_columns([*key, "mlbatch_after"])
    both = before.select([*key, label]).join(
        renamed, list(key), join_type="inner", use_threads=False
    )
    if not both.num_rows:
        return 0.0
    return float(pc.mean(pc.not_equal(both[label], both["mlbatch_after"])).as_py())
