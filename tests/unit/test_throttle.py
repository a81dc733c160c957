"""When a run holds back, and how it finds out that it may go on."""

from __future__ import annotations

import logging

import pyarrow as pa
import pytest

from mlbatch.errors import TemporaryError
from mlbatch.throttle import LEAST_ROWS, Limits, Pace, Pressure, Throttle


@pytest.mark.parametrize(
    ("pressure", "reason"),
    [
        (Pressure(), None),
        (Pressure(lag_seconds=1.0, threads_running=25), None),
        (Pressure(lag_seconds=1.1), "replicas are 1.1 s behind, over 1.0 s"),
        (Pressure(threads_running=26), "the database works on 26 statements, over 25"),
        (Pressure(lag_seconds=0, threads_running=26), "the database works on 26 statements"),
        (Pressure(lag_seconds=9, threads_running=0), "replicas are 9.0 s behind"),
    ],
)
def test_any_reason_is_enough_and_none_overrules_another(pressure, reason):
    found = Limits().reason(pressure)
    assert found is None if reason is None else found.startswith(reason)


def test_a_long_history_pauses_where_a_limit_was_set():
    assert Limits().reason(Pressure(history_length=10**9)) is None
    limits = Limits(history_length=1_000)
    assert limits.reason(Pressure()) is None
    assert limits.reason(Pressure(history_length=1_000)) is None
    told = limits.reason(Pressure(history_length=1_001))
    assert told == "the database keeps the old rows of 1,001 transactions, over 1,000"


def test_a_flag_file_pauses(tmp_path):
    limits = Limits(flag_file=tmp_path / "pause")
    assert limits.reason(Pressure()) is None
    limits.flag_file.touch()
    assert limits.reason(Pressure()) == f"{limits.flag_file} exists"


def test_above_the_ceiling_the_run_ends_as_busy():
    with pytest.raises(TemporaryError, match="works on 51 statements") as caught:
        Limits().reason(Pressure(threads_running=51))
    assert "throttle.threads_running_most is 50" in caught.value.hint


class Time:
    """A clock that only sleeping moves, and a database whose lag follows it."""

    def __init__(self, *lags):
        self.now, self.lags, self.looks = 0.0, list(lags), []

    def look(self):
        self.looks.append(self.now)
        return Pressure(lag_seconds=self.lags[min(int(self.now), len(self.lags) - 1)])

    def sleep(self, seconds):
        self.now += seconds

    def throttle(self):
        return Throttle(Limits(), self.look, clock=lambda: self.now, sleep=self.sleep)


def test_it_waits_until_the_reason_is_gone_and_says_so_once(caplog):
    time = Time(5, 5, 5, 0)
    with caplog.at_level(logging.WARNING, "mlbatch"):
        time.throttle().wait()
    assert time.now == 3.0
    assert [r.getMessage() for r in caplog.records] == [
        "paused: replicas are 5.0 s behind, over 1.0 s",
        "goes on",
    ]


def test_it_looks_once_a_second_at_most(caplog):
    time = Time(0)
    throttle = time.throttle()
    for _ in range(100):
        throttle.look()
        throttle.wait()
        time.sleep(0.1)
    assert 9 <= len(time.looks) <= 11
    assert not caplog.records


def test_a_pause_holds_before_the_first_write():
    assert Time(5).throttle().reason is not None


def test_long_transactions_get_fewer_rows_and_quick_ones_more_again():
    pace = Pace(1_024, 0.5)
    steps = ((1.2, 512), (0.6, 256), (0.4, 256), (0.3, 320), (0.3, 400), (0.4, 400), (0.1, 500))
    for seconds, rows in steps:
        pace.took(seconds, pace.rows)
        assert pace.rows == rows
    for _ in range(20):
        pace.took(pace.rows / 50, pace.rows)
    assert pace.rows == LEAST_ROWS


def test_transactions_grow_again_after_a_slow_moment():
    pace = Pace(8_192, 0.5)
    pace.took(0.6, 8_192)
    pace.took(0.5, 4_096)
    for _ in range(4):
        pace.took(0.35 * pace.rows / 8_192, pace.rows)
    assert pace.rows == 8_192


def test_fewer_rows_are_no_help_where_a_transaction_itself_is_slow():
    """Replicas that have to confirm, a slow disk: 64 rows would take as long as 8,192."""
    pace, clock, rows = Pace(8_192, 0.5), 0.0, 0
    while rows < 100_000:
        seconds, done = 0.55 + pace.rows * 2e-5, pace.rows
        pace.took(seconds, done)
        clock, rows = clock + seconds, rows + done
    best = 8_192 / (0.55 + 8_192 * 2e-5)
    assert rows / clock > 0.7 * best


def test_a_small_batch_that_was_quick_tells_nothing():
    pace = Pace(1_024, 0.5)
    pace.took(0.6, 1_024)
    pace.took(0.01, 10)
    assert pace.rows == 512


def test_a_batch_is_cut_as_the_pace_says_at_that_moment():
    pace = Pace(400, 0.5)
    batch = pa.record_batch({"a": range(1_000)})
    sizes = []
    for piece in pace.pieces(batch):
        sizes.append(piece.num_rows)
        pace.took(0.6 if len(sizes) == 1 else 0.4, piece.num_rows)
    assert sizes == [400, 200, 200, 200]
