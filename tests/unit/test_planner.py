from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from bad_inputs import ACCEPTED, REFUSED, bad_input

from mlbatch.errors import MlbatchError, UsageError
from mlbatch.job import Delta
from mlbatch.ledger import ModelPin, NewRun, Run, RunKind, RunState, check_transition
from mlbatch.planner import (
    Facts,
    Repair,
    Request,
    answers,
    check_slot,
    decide,
    since_done,
    spell,
    with_model,
)
from mlbatch.window import Watermark, Window

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def a_run(state, *, slot="r1", digest="code"):
    new = NewRun(
        "r1", "job", "table", "g1", RunKind.BACKFILL, slot, ModelPin("job", 1, "d"), "q", "SELECT 1",
        digest, "0", None, NOON,
    )  # fmt: skip
    return Run(new, 1, state, 5, 1, NOON, None, None, None, None, None, None)


def facts(*runs, watermark=None):
    return Facts(runs, watermark, NOON, "code")


def test_the_first_run_is_a_backfill():
    plan = decide(Request(), facts(), Delta())
    assert (plan.kind, plan.window.is_everything) == (RunKind.BACKFILL, True)
    assert plan.watermark_high == NOON


def test_a_failed_backfill_is_followed_by_a_backfill():
    assert decide(Request(), facts(a_run(RunState.FAILED)), Delta()).kind is RunKind.BACKFILL


def test_then_come_deltas_with_overlap_and_lag():
    delta = Delta(overlap=timedelta(hours=2), lag=timedelta(minutes=10))
    plan = decide(Request(), facts(a_run(RunState.DONE), watermark=Watermark(NOON)), delta)
    assert plan.kind is RunKind.DELTA
    assert plan.window.since == NOON - timedelta(hours=2)
    assert plan.window.until is None
    assert plan.watermark_high == NOON - timedelta(minutes=10)
    assert "2 h" in plan.reason


def test_a_delta_after_an_empty_backfill_reads_everything():
    plan = decide(Request(), facts(a_run(RunState.DONE)), Delta())
    assert (plan.kind, plan.window.is_everything) == (RunKind.DELTA, True)


@pytest.mark.parametrize(
    ("asked", "left", "answered"),
    [
        (Request(), RunKind.DELTA, True),
        (Request(full=True), RunKind.DELTA, False),
        (Request(full=True), RunKind.REPAIR, False),
        (Request(full=True), RunKind.FULL, True),
        (Request(full=True), RunKind.BACKFILL, True),
        (Request(slot="2026-01-01"), RunKind.DELTA, True),
        (Request(slot="2026-01-02"), RunKind.DELTA, False),
        # A slot is done once, whatever its run reads.
        (Request(slot="2026-01-01", full=True), RunKind.DELTA, True),
    ],
)
def test_what_was_left_is_or_is_not_what_is_asked_for(asked, left, answered):
    run = a_run(RunState.WRITING, slot="2026-01-01")
    assert answers(replace(run, new=replace(run.new, kind=left)), asked) is answered


def test_full_on_request():
    plan = decide(
        Request(full=True), facts(a_run(RunState.DONE), watermark=Watermark(NOON)), Delta()
    )
    assert plan.kind is RunKind.FULL


def of_model(run, version):
    return replace(run, new=replace(run.new, model=ModelPin("job", version, "d")))


def test_another_model_in_place_reads_everything():
    runs = (a_run(RunState.DONE),)
    plan = decide(Request(), facts(*runs, watermark=Watermark(NOON)), Delta())
    assert with_model(plan, runs, 1) is plan
    changed = with_model(plan, runs, 2)
    assert (changed.kind, changed.window) == (RunKind.FULL, Window())
    assert "model v2 takes the place of v1" in changed.reason


@pytest.mark.parametrize("full", [False, True])
def test_a_window_with_an_end_would_leave_rows_of_two_models(full):
    done = a_run(RunState.DONE)
    plan = decide(Request(until=NOON, full=full), facts(done, watermark=Watermark(NOON)), Delta())
    assert with_model(plan, (done,), 1) is plan
    left = of_model(a_run(RunState.FAILED), 2)
    for runs, version in (((done,), 2), ((left, done), 1)):
        with pytest.raises(UsageError, match="would stay as they are"):
            with_model(plan, runs, version)


def test_what_an_ended_run_of_another_model_left_is_read_over():
    done = a_run(RunState.DONE)
    plan = decide(Request(), facts(done, watermark=Watermark(NOON)), Delta())
    for state in (RunState.FAILED, RunState.SUPERSEDED):
        runs = (a_run(state), of_model(a_run(state), 2), done)
        assert "run r1 may have left rows of model v2" in with_model(plan, runs, 1).reason
        assert with_model(plan, (a_run(state), done), 1) is plan
        # A run that was done since then read everything.
        assert with_model(plan, (done, *runs), 1) is plan


def of_kind(run, kind):
    return replace(run, new=replace(run.new, kind=kind))


def test_a_repair_that_is_done_has_not_read_over_what_others_left():
    done, left = a_run(RunState.DONE), of_model(a_run(RunState.FAILED), 2)
    plan = decide(Request(), facts(done, watermark=Watermark(NOON)), Delta())
    runs = (of_kind(done, RunKind.REPAIR), left, done)
    assert since_done(runs) == runs[:2]
    assert with_model(plan, runs, 1).kind is RunKind.FULL


def test_after_a_full_run_that_changed_rows_and_failed_everything_is_read_again():
    left = of_kind(a_run(RunState.FAILED), RunKind.FULL)
    known = replace(facts(left, a_run(RunState.DONE), watermark=Watermark(NOON)), halfway=left)
    plan = decide(Request(), known, Delta())
    assert (plan.kind, plan.window) == (RunKind.FULL, Window())
    assert plan.reason == "run r1, a full that did not finish, has changed rows"
    for request in (Request(until=NOON), Request(until=NOON, full=True)):
        with pytest.raises(UsageError, match="later rows would stay as they are"):
            decide(request, known, Delta())
    # Rows that somebody names are mended all the same.
    mend = Request(repair=Repair(((1,),), (), "x"))
    assert decide(mend, known, Delta()).kind is RunKind.REPAIR


def test_a_first_run_and_a_repair_read_what_they_read():
    first = decide(Request(), facts(), Delta())
    assert with_model(first, (), 7) is first
    mend = Request(repair=Repair(((1,),), (), "x"))
    repair = decide(mend, facts(a_run(RunState.DONE), watermark=Watermark(NOON)), Delta())
    assert with_model(repair, (a_run(RunState.DONE),), 1) is repair


def test_only_a_plan_that_resumes_has_an_unfinished_run():
    left = a_run(RunState.WRITING)
    assert decide(Request(), facts(left), Delta()).unfinished is left
    with pytest.raises(MlbatchError, match="resumes no run"):
        _ = decide(Request(), facts(), Delta()).unfinished


@pytest.mark.parametrize("state", [s for s in RunState if not s.is_terminal])
def test_an_unfinished_run_comes_first(state):
    plan = decide(Request(full=True), facts(a_run(state)), Delta())
    assert plan.resume.state is state
    assert str(state) in plan.reason


def test_changed_code_needs_a_word():
    left = a_run(RunState.WRITING, digest="old")
    with pytest.raises(UsageError, match="code has changed"):
        decide(Request(), facts(left), Delta())
    assert decide(Request(accept_code_change=True), facts(left), Delta()).resume is left
    plan = decide(Request(supersede=True), facts(left), Delta())
    assert (plan.supersede, plan.kind) == (left, RunKind.BACKFILL)


def test_a_done_slot_is_done():
    done = a_run(RunState.DONE, slot="2026-01-01")
    known = replace(facts(done), slot_done=done)
    assert decide(Request(slot="2026-01-01"), known, Delta()).done is done
    assert decide(Request(slot="2026-01-02"), facts(done), Delta()).done is None


def test_everything_is_not_read_again_for_a_slot_that_is_done():
    done = a_run(RunState.DONE, slot="2026-01-01")
    known = replace(facts(done), slot_done=done)
    asked = Request(slot="2026-01-01", full=True)
    # Asked again by its scheduler, it is done as well.
    again = decide(asked, known, Delta())
    assert again.done is done
    assert "which read everything; without --slot" in again.reason
    delta = of_kind(done, RunKind.DELTA)
    with pytest.raises(UsageError, match="was done by run r1, a delta") as caught:
        decide(asked, replace(known, slot_done=delta), Delta())
    assert "leave --slot out" in caught.value.hint


def test_what_is_superseded_is_given_up_although_the_slot_is_done():
    done, left = a_run(RunState.DONE, slot="2026-01-01"), a_run(RunState.WRITING)
    known = replace(facts(left, done), slot_done=done)
    plan = decide(Request(slot="2026-01-01", supersede=True), known, Delta())
    assert (plan.done, plan.supersede) == (done, left)
    assert "which was left writing, is given up" in plan.reason


@bad_input(121, outcome=REFUSED, says="slot")
@pytest.mark.parametrize("text", ["2026-02-29", "2026-01-02", "x", "20260101T00"])
def test_121_wrong_slots(text):
    with pytest.raises(UsageError, match="slot"):
        check_slot(text, datetime(2026, 1, 1, tzinfo=UTC))


def test_a_slot_may_be_the_day_of_any_zone():
    night = datetime(2026, 11, 23, 17, tzinfo=UTC)  # 02:00 of the 24th in Tokyo
    assert check_slot("2026-11-24", night) == "2026-11-24"
    with pytest.raises(UsageError, match=r"everywhere .* says 2026-11-23 09:59 UTC"):
        check_slot("2026-11-24", datetime(2026, 11, 23, 9, 59, tzinfo=UTC))


@bad_input(121, outcome=ACCEPTED)
def test_121_a_leap_day_is_a_day():
    assert check_slot("2024-02-29", datetime(2026, 1, 1, tzinfo=UTC)) == "2024-02-29"


def test_spans_are_spelt_for_people():
    spans = [timedelta(days=2), timedelta(hours=1), timedelta(minutes=90), timedelta(seconds=7)]
    assert [spell(span) for span in spans] == ["2 d", "1 h", "90 min", "7 s"]


def test_terminal_states_stay():
    for state in (RunState.DONE, RunState.FAILED, RunState.SUPERSEDED):
        for to in RunState:
            with pytest.raises(MlbatchError, match="cannot go"):
                check_transition(state, to)


def test_the_way_of_a_run():
    way = [RunState.CREATED, RunState.UNLOADING, RunState.PLANNED, RunState.WRITING]
    way += [RunState.VERIFYING, RunState.DONE]
    for here, there in pairwise(way):
        check_transition(here, there)
        if not here.is_terminal:
            check_transition(here, RunState.FAILED)
    with pytest.raises(MlbatchError):
        check_transition(RunState.CREATED, RunState.WRITING)
    assert replace(a_run(RunState.DONE)).run_id == "r1"
