"""The pure rules, against a plain reading of the same facts: gates, states, plans, reconciliation."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, time, timedelta

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlbatch.errors import ConservationError, Fenced, MlbatchError, UsageError
from mlbatch.gates import Gate, judge
from mlbatch.job import Delta
from mlbatch.ledger import (
    BatchCommit,
    ModelPin,
    NewRun,
    Owner,
    PartState,
    QuarantinedRow,
    Run,
    RunKind,
    RunState,
    Totals,
    check_conservation,
    check_transition,
    taken_over,
)
from mlbatch.planner import Facts, Repair, Request, check_slot, decide, spell
from mlbatch.reconciliation import compare
from mlbatch.reporting import counted, expected_seconds
from mlbatch.window import Watermark

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SHARES = st.floats(0, 1)


@given(SHARES, SHARES)
def test_an_absolute_gate_is_a_lower_bound(value, bound):
    (verdict,) = judge([Gate("f1", at_least=bound)], {"f1": value}, {"f1": 1.0})
    assert verdict.passed == (value >= bound)
    assert verdict.bound == bound


@given(SHARES, SHARES, SHARES)
def test_a_relative_gate_follows_the_champion(value, champion, slack):
    gate = Gate("f1", not_worse_than_champion_by=slack)
    assert gate.check({"f1": value}, {"f1": champion}).passed == (value >= champion - slack)
    assert gate.check({"f1": value}, {}).passed
    assert gate.check({"f1": value}, {"accuracy": champion}).bound is None


@given(SHARES, SHARES, SHARES)
def test_of_a_loss_less_is_better(value, champion, slack):
    gate = Gate("log_loss", not_worse_than_champion_by=slack)
    verdict = gate.check({"log_loss": value}, {"log_loss": champion})
    assert verdict.passed == (value <= champion + slack)
    assert gate.check({"log_loss": value}, {}).passed
    (verdict,) = judge([Gate("log_loss", at_most=champion)], {"log_loss": value}, {})
    assert verdict.passed == (value <= champion)


@pytest.mark.parametrize(
    "gate",
    [
        Gate("f1", at_least=0.0),
        Gate("f1", at_most=1.0),
        Gate("f1", not_worse_than_champion_by=1.0),
        Gate("log_loss", not_worse_than_champion_by=1.0),
    ],
)
@pytest.mark.parametrize(
    "metrics", [{}, {"accuracy": 1.0}, {"f1": float("nan"), "log_loss": float("nan")}]
)
def test_what_was_not_measured_passes_no_gate(gate, metrics):
    for champion in ({}, {"f1": 0.0, "log_loss": 9.0}):
        assert not gate.check(metrics, champion).passed


def test_verdicts_are_spelt_for_people():
    gates = [
        Gate("f1", at_least=0.8),
        Gate("f1", not_worse_than_champion_by=0.1),
        Gate("x", at_least=1),
        Gate("log_loss", at_most=0.5),
        Gate("log_loss", not_worse_than_champion_by=0.02),
    ]
    metrics, champion = {"f1": 0.75, "log_loss": 5.0}, {"log_loss": 0.2}
    told = [str(verdict) for verdict in judge(gates, metrics, champion)]
    assert told == [
        "f1 0.750 (at least 0.800): refused",
        "f1 0.750 (no champion yet): ok",
        "x not measured (at least 1.000): refused",
        "log_loss 5.000 (at most 0.500): refused",
        "log_loss 5.000 (at most 0.220): refused",
    ]


@pytest.mark.parametrize(
    ("gate", "told"),
    [
        (Gate("f1_macro", at_least=0.6), "f1_macro at least 0.60"),
        (Gate("rows_judged", at_least=200), "rows_judged at least 200"),
        (Gate("accuracy", at_least=0.9925), "accuracy at least 0.9925"),
        (Gate("log_loss", at_most=0.5), "log_loss at most 0.50"),
        (
            Gate("log_loss", not_worse_than_champion_by=0.02),
            "log_loss at most 0.02 above the champion's",
        ),
        (
            Gate("f1_macro", not_worse_than_champion_by=0.02),
            "f1_macro at most 0.02 below the champion's",
        ),
        (
            Gate("f1_macro", not_worse_than_champion_by=0),
            "f1_macro at most 0.00 below the champion's",
        ),
    ],
)
def test_gates_are_spelt_for_people(gate, told):
    assert str(gate) == told


@pytest.mark.parametrize(("number", "told"), [(0, "0 parts"), (1, "1 part"), (2000, "2,000 parts")])
def test_one_part_is_no_parts(number, told):
    assert counted(number, "part") == told


@pytest.mark.parametrize(
    "conditions",
    [
        {},
        {"at_least": 0.1, "not_worse_than_champion_by": 0.1},
        {"at_least": 0.1, "at_most": 0.9},
    ],
)
def test_a_gate_has_exactly_one_condition(conditions):
    with pytest.raises(UsageError, match="the gate on 'f1' needs exactly one condition"):
        Gate("f1", **conditions)


@pytest.mark.parametrize("bound", [float("nan"), float("inf"), "0.8"])
def test_a_gate_compares_with_a_number(bound):
    with pytest.raises(UsageError, match="which no value passes"):
        Gate("f1", at_least=bound)


ALLOWED = {
    ("created", "unloading"), ("unloading", "unloading"), ("unloading", "planned"),
    ("planned", "writing"), ("writing", "writing"), ("writing", "verifying"),
    ("verifying", "verifying"), ("verifying", "done"),
} | {
    (state, end)
    for state in ("created", "unloading", "planned", "writing", "verifying")
    for end in ("failed", "superseded")
}  # fmt: skip


@pytest.mark.parametrize("current", RunState)
@pytest.mark.parametrize("to", RunState)
def test_a_run_takes_the_steps_of_the_protocol_and_no_other(current, to):
    if (current.value, to.value) in ALLOWED:
        check_transition(current, to)
    else:
        with pytest.raises(MlbatchError, match=f"cannot go from {current} to {to}"):
            check_transition(current, to)


def test_whoever_was_taken_over_is_told_that_nothing_is_lost():
    error = taken_over("run r1")
    assert isinstance(error, Fenced)
    assert "run r1 was taken over" in error.message
    assert "nothing of it is lost" in error.hint
    assert str(Owner("o", "host", 7, "s")) == "process 7 on host"


COUNTS = st.integers(0, 5)


@given(COUNTS, COUNTS, COUNTS, COUNTS, st.integers(-2, 2))
def test_a_batch_is_refused_unless_every_row_is_accounted_for(
    upserts, deleted, filtered, bad, error
):
    keys = pa.record_batch({"id": pa.array(range(upserts), pa.int64())})
    rows = tuple(QuarantinedRow(n, "", "x", "y") for n in range(bad))
    high = 10 + upserts + deleted + filtered + bad + error

    def commit():
        return BatchCommit(0, 10, high, keys, keys.slice(0, 0), deleted, filtered, rows, 0)

    if error:
        with pytest.raises(ConservationError, match="accounted for"):
            commit()
    else:
        assert commit().high == high


@st.composite
def complete_parts(draw):
    written, deleted, quarantined, filtered = (draw(COUNTS) for _ in range(4))
    rows = written + deleted + quarantined + filtered
    checksum = draw(st.integers(0, 2**63 - 1))
    return PartState(0, "u", "e", 1, rows, rows, written, deleted, quarantined, filtered, checksum)


@given(st.lists(complete_parts(), max_size=5))
def test_a_run_adds_its_parts_up_in_any_order(parts):
    totals = check_conservation(tuple(parts))
    assert totals == Totals.of(tuple(reversed(parts)))
    assert totals.expected == totals.written + totals.deleted + totals.quarantined + totals.filtered
    assert 0 <= totals.checksum < 2**63


def a_run(number, state, *, slot="s", digest="code", seconds=0, rows=None):
    new = NewRun(
        f"r{number}", "job", "t", "g", RunKind.DELTA, slot, ModelPin("job", 1, "d"), "q", "SELECT",
        digest, "0", None, NOON,
    )  # fmt: skip
    ended = NOON + timedelta(seconds=seconds) if state.is_terminal else None
    return Run(new, number, state, 5, 1, NOON, ended, None, None, rows, None, None)


ENDED = st.sampled_from([s for s in RunState if s.is_terminal])
OPEN = st.sampled_from([s for s in RunState if not s.is_terminal])
REPAIR = Repair(((1,),), (), "found")
REQUESTS = st.builds(
    Request,
    full=st.booleans(),
    slot=st.none() | st.sampled_from(["s", "other"]),
    supersede=st.booleans(),
    accept_code_change=st.booleans(),
    repair=st.none() | st.just(REPAIR),
)


@given(
    REQUESTS, st.lists(ENDED, max_size=3), st.none() | OPEN, st.sampled_from(["code", "old"]),
    st.none() | st.just(Watermark(NOON)),
)  # fmt: skip
def test_a_plan_is_always_one_thing_and_says_why(request, ended, left, digest, mark):
    runs = [a_run(len(ended) - n, state) for n, state in enumerate(ended)]
    if left is not None:
        runs.insert(0, a_run(len(runs) + 1, left, digest=digest))
    done = [run for run in runs if run.state is RunState.DONE and run.new.slot == request.slot]
    facts = Facts(tuple(runs), mark, NOON, "code", done[0] if done else None)
    if left and not request.supersede and digest == "old" and not request.accept_code_change:
        with pytest.raises(UsageError, match="code has changed"):
            decide(request, facts, Delta())
        return
    if done and request.full and (request.supersede or not left):
        # `a_run` is a delta, which read less than --full asks for.
        with pytest.raises(UsageError, match="--full would read nothing"):
            decide(request, facts, Delta())
        return
    plan = decide(request, facts, Delta())
    assert plan.reason
    assert plan.watermark_high <= NOON
    assert not (plan.resume and (plan.done or plan.supersede))
    if left and not request.supersede:
        assert plan.resume is runs[0]
    elif request.slot == "s" and RunState.DONE in ended:
        assert plan.done.state is RunState.DONE
    else:
        assert plan.supersede is (runs[0] if left else None)
        first = RunState.DONE not in ended
        kinds = {RunKind.BACKFILL: first, RunKind.REPAIR: request.repair and not first}
        assert all((plan.kind is kind) == bool(wanted) for kind, wanted in kinds.items())
        assert (plan.repair is REPAIR) == (plan.kind is RunKind.REPAIR)


@given(st.timedeltas(timedelta(seconds=1), timedelta(days=90)))
def test_a_span_is_spelt_so_that_it_can_be_read_back(span):
    number, unit = spell(span).split(" ")
    seconds = {"d": 86_400, "h": 3_600, "min": 60, "s": 1}
    assert int(number) * seconds[unit] == int(span.total_seconds())


@given(st.dates(max_value=date(9999, 12, 30)))
def test_a_slot_is_its_day_however_it_is_written(day):
    now = datetime.combine(day, time(), UTC)
    for written in (day.isoformat(), day.isoformat().replace("-", "")):
        assert check_slot(written, now) == day.isoformat()


def test_a_full_run_s_time_is_not_guessed_by_the_last_delta():
    """A delta of few rows is all start-up; at its pace, a full run would seem to take for ever."""
    delta = a_run(3, RunState.DONE, seconds=5, rows=20)
    backfill = a_run(1, RunState.DONE, seconds=105, rows=100_020)
    least, most = expected_seconds(100_020, (delta, backfill))
    assert (least, most) == (105.0, 105.0)
    assert expected_seconds(50_020, (delta, backfill)) == (55.0, 55.0)
    assert expected_seconds(3, (delta, backfill)) == (5.0, 5.0)
    assert expected_seconds(200_020, (delta, backfill)) == (205.0, 205.0)


def test_after_one_run_nobody_knows_how_much_of_it_was_start_up():
    only = (a_run(1, RunState.DONE, seconds=10, rows=1_000),)
    assert expected_seconds(100, only) == (1.0, 10.0)
    assert expected_seconds(2_000, only) == (20.0, 20.0)
    assert expected_seconds(1, (a_run(1, RunState.DONE, seconds=4, rows=0),)) == (4.0, 4.0)
    assert expected_seconds(9, (a_run(1, RunState.WRITING), a_run(2, RunState.FAILED))) is None


def test_a_pause_before_a_resume_is_not_taken_for_work():
    quick = a_run(1, RunState.DONE, seconds=10, rows=1_000)
    over_the_weekend = a_run(2, RunState.DONE, seconds=200_000, rows=1_000)
    assert expected_seconds(1_000, (over_the_weekend, quick)) == (10.0, 10.0)


TIMES = st.integers(0, 3).map(lambda hours: datetime(2026, 1, 1, hours))
SOURCE = st.dictionaries(st.integers(0, 8) | st.none(), TIMES, max_size=8)
TABLE = st.dictionaries(
    st.integers(0, 8), st.tuples(st.none() | TIMES, st.integers(1, 2)), max_size=8
)


@given(SOURCE, TABLE, st.none() | st.integers(1, 2))
def test_differences_are_those_of_a_plain_comparison(source, table, version):
    left = pa.table(
        {
            "id": pa.array(list(source), pa.int64()),
            "source_at": pa.array(list(source.values()), pa.timestamp("us")),
        }
    )
    right = pa.table(
        {
            "id": pa.array(list(table), pa.int64()),
            "label": pa.array(["x"] * len(table), pa.string()),
            "src_updated_at": pa.array([at for at, _ in table.values()], pa.timestamp("us")),
            "model_version": pa.array([v for _, v in table.values()], pa.int64()),
        }
    )
    found = compare(left, right, ("id",), version)
    live = {key: at for key, at in source.items() if key is not None}
    both = sorted(live.keys() & table.keys())
    assert found.missing.first == tuple((k,) for k in sorted(live.keys() - table.keys()))
    assert found.gone.first == tuple((k,) for k in sorted(table.keys() - live.keys()))
    assert found.stale.first == tuple((k,) for k in both if table[k][0] and table[k][0] != live[k])
    wrong = [k for k in both if version is not None and table[k][1] != version]
    assert found.outdated.first == tuple((k,) for k in wrong)
    assert max(Counter(found.wanting.first).values(), default=1) == 1
    assert (found.source_rows, found.table_rows) == (len(source), len(table))


def test_composite_keys_are_compared_as_a_whole():
    at = pa.array([datetime(2026, 1, 1)] * 3, pa.timestamp("us"))
    left = pa.table({"a": [1, 1, 2], "b": ["x", "y", "x"], "source_at": at})
    right = pa.table(
        {"a": [1, 2, 2], "b": ["x", "x", "y"], "src_updated_at": at, "model_version": [1, 1, 1]}
    )
    found = compare(left, right, ("a", "b"), 1)
    assert (found.missing.first, found.gone.first) == (((1, "y"),), ((2, "y"),))
    assert (found.stale.count, found.outdated.count) == (0, 0)
