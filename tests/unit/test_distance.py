from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlbatch.distance import Distance, distance, limit_for


def table(*rows):
    keys, labels, scores = zip(*rows, strict=True) if rows else ((), (), ())
    return pa.table(
        {
            "id": pa.array(keys, pa.int64()),
            "label": pa.array(labels, pa.string()),
            "score": pa.array(scores, pa.float64()),
        }
    )


def apart(before, after):
    return distance(before.to_reader(), after.to_reader(), ("id",), "label", "score")


def test_a_table_is_at_no_distance_from_itself():
    same = table((1, "a", 0.1), (2, "b", 0.9))
    assert apart(same, same) == apart(table(), table()) == Distance(0.0, 0.0, 0.0)


def test_nothing_in_common_is_one():
    assert apart(table((1, "a", 0.1)), table((1, "b", 0.9))) == Distance(1.0, 1.0, 1.0)
    assert apart(table(), table((1, "b", 0.9))) == Distance(1.0, 1.0, 0.0)


def test_labels_that_change_places_are_told_from_labels_that_move():
    before = table((1, "a", 0.5), (2, "b", 0.5), (3, "a", 0.5), (4, "b", 0.5))
    found = apart(before, table((1, "b", 0.5), (2, "a", 0.5), (3, "a", 0.5), (9, "b", 0.5)))
    assert (found.labels, found.scores) == (0.0, 0.0)
    assert found.changed == pytest.approx(2 / 3)
    assert apart(before, table((7, "a", 0.5))).labels == pytest.approx(0.5)


def test_scores_are_compared_by_their_cumulated_shares():
    before = table(*[(n, "a", n / 10) for n in range(10)])
    after = table(*[(n, "a", 0.25 + n / 20) for n in range(10)])
    assert apart(before, after).scores == pytest.approx(0.3)


def test_yes_or_no_is_a_label_too():
    one = table((1, "a", 0.1)).set_column(1, "label", pa.array([True]))
    other = table((1, "a", 0.1)).set_column(1, "label", pa.array([False]))
    assert apart(one, other).changed == 1.0


@pytest.mark.parametrize(
    ("share", "told"),
    [(0.2917, "0.30"), (0.68, "0.68"), (0.07, "0.07"), (0.9958, "1.0"), (0.00041, "0.00041")],
)
def test_a_limit_that_is_told_is_short(share, told):
    assert limit_for(share) == told


@given(st.floats(0, 1))
def test_a_limit_that_is_told_lets_pass_what_it_was_told_for(share):
    assert share <= float(limit_for(share)) <= 1
