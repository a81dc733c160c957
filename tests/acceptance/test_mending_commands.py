"""What a person types when something is not as it should be, on a small project."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from datetime import datetime, timedelta
from pathlib import Path

import duckdb
import pytest
from test_command_line import DAY, MLBATCH, load, make_project, note, type_in
from toy import early

from mlbatch.settings import load_settings
from mlbatch.wiring import connect


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A project with a champion, and a table that is as it should be."""
    root = make_project(tmp_path_factory.mktemp("template"))
    for mode in ("train", "infer"):
        typed = [MLBATCH, "run", "toy", "--mode", mode]
        subprocess.run(typed, cwd=root, check=True, capture_output=True)
    return root


@pytest.fixture
def served(template, tmp_path):
    """The same as nobody else changes it; its models stay where they were registered."""
    return shutil.copytree(template, tmp_path / "project")


@pytest.fixture
def mlbatch(served, monkeypatch, capfd):
    return type_in(served, monkeypatch, capfd)


def killed_at(root, place, *arguments):
    """Type a command whose process dies at a named place."""
    with early.command(root, *arguments, armed=f"{place}:kill") as typed:
        _, told = typed.communicate()
    assert typed.returncode == -signal.SIGKILL, told


def delete(root, numbers):
    listed = ", ".join(map(str, numbers))
    with duckdb.connect(str(load_settings(root).path(load_settings(root).warehouse.path))) as there:
        there.execute(f"DELETE FROM notes WHERE id IN ({listed})")


def late(number):
    """A row that was loaded with a time long before the watermark."""
    return note(number, "good late") | {"updated_at": DAY - timedelta(days=30)}


def test_where_nothing_is_wrong_nothing_is_done(served, mlbatch):
    told = mlbatch("reconcile", "toy").stdout
    assert "200 live rows in the source, 200 predictions." in told
    assert "Nothing is missing, stale or surplus." in told
    assert "Nothing to do" in mlbatch("retry", "toy", "--quarantined").stdout


def test_a_late_row_is_told_and_then_mended(served, mlbatch):
    load(served, [late(900)])
    dry = mlbatch("reconcile", "toy", "--dry-run").stdout
    assert "1 without a prediction: 900" in dry
    assert "Nothing was changed. Without --dry-run it is mended." in dry
    facts = json.loads(mlbatch("reconcile", "toy", "--json").stdout)
    assert (facts["schema"], facts["missing"], facts["mended"]) == ("mlbatch.reconcile/1", 1, True)
    facts = json.loads(mlbatch("reconcile", "toy", "--json").stdout)
    assert (facts["missing"], facts["mended"]) == (0, False)


def test_a_row_that_cannot_be_predicted_is_not_called_mended(served, mlbatch):
    load(served, [late(901) | {"text": "x" * 10_001}])
    told = mlbatch("reconcile", "toy", code=4).stdout
    assert "1 of these rows are quarantined (see mlbatch show toy)." in told
    assert "mended" not in told
    told = mlbatch("--profile", "tiny", "reconcile", "toy", code=4).stdout
    assert "quarantined (see mlbatch --profile tiny show toy)." in told
    facts = json.loads(mlbatch("reconcile", "toy", "--json", code=4).stdout)
    assert (facts["missing"], facts["mended"], facts["rows_quarantined"]) == (1, False, 1)


def test_what_was_left_is_finished_and_then_the_slot_that_was_asked_for(served, mlbatch):
    load(served, [note(902)])
    killed_at(served, "after_create", "run", "toy", "--mode", "infer")
    slot = ("toy", "--slot", "2026-01-09")
    assert "Then    slot 2026-01-09, by the same command" in mlbatch("plan", *slot).stdout
    told = mlbatch("run", *slot, "--mode", "infer").stdout
    assert "An earlier start had left this run; slot 2026-01-09 comes next." in told
    assert told.count("Table: mood") == 2
    # One day is one slot, however it is written.
    again = ("run", "toy", "--mode", "infer", "--slot", "20260109", "--json")
    facts = json.loads(mlbatch(*again).stdout)
    assert (facts["slot"], facts["nothing_to_do"], facts["resumed"]) == ("2026-01-09", True, False)
    assert facts["finished_first"] == []


def test_what_was_left_is_finished_and_then_everything_is_read_again(served, mlbatch):
    load(served, [note(909)])
    killed_at(served, "after_create", "run", "toy", "--mode", "infer")
    assert (
        "Then    everything again, by the same command" in mlbatch("plan", "toy", "--full").stdout
    )
    facts = json.loads(mlbatch("run", "toy", "--mode", "infer", "--full", "--json").stdout)
    (before,) = facts["finished_first"]
    assert (before["kind"], facts["kind"], facts["rows_written"]) == ("delta", "full", 201)


def test_both_runs_are_told_to_machines_and_a_quarantine_in_either(served, mlbatch):
    load(served, [note(903, "x" * 10_001)])
    killed_at(served, "after_create", "run", "toy", "--mode", "infer", "--slot", "2026-01-08")
    load(served, [note(903, "good and short"), note(904)])
    slot = ("run", "toy", "--mode", "infer", "--slot", "2026-01-09", "--json")
    facts = json.loads(mlbatch(*slot).stdout)
    (before,) = facts["finished_first"]
    assert (facts["slot"], facts["resumed"], facts["nothing_to_do"]) == ("2026-01-09", True, False)
    assert (before["slot"], before["resumed"]) == ("2026-01-08", True)
    assert before["run"] != facts["run"]


def test_a_quarantine_of_what_was_left_is_not_forgotten(served, mlbatch):
    load(served, [note(905, "x" * 10_001)])
    killed_at(served, "after_adopt", "run", "toy", "--mode", "infer")
    load(served, [note(905, "good and short")])
    slot = ("run", "toy", "--mode", "infer", "--slot", "2026-01-09", "--json")
    facts = json.loads(mlbatch(*slot, code=4).stdout)
    assert (facts["finished_first"][0]["rows_quarantined"], facts["rows_quarantined"]) == (1, 0)


def test_a_slot_that_was_done_tells_of_its_quarantine_once(served, mlbatch):
    load(served, [note(910, "x" * 10_001)])
    slot = ("run", "toy", "--mode", "infer", "--slot", "2026-01-09", "--json")
    assert json.loads(mlbatch(*slot, code=4).stdout)["rows_quarantined"] == 1
    assert json.loads(mlbatch(*slot).stdout)["nothing_to_do"]


def test_where_the_run_that_was_left_is_of_the_slot_nothing_comes_after_it(served, mlbatch):
    load(served, [note(906)])
    slot = ("run", "toy", "--mode", "infer", "--slot", "2026-01-09")
    killed_at(served, "after_create", *slot)
    told = mlbatch(*slot).stdout
    assert told.endswith("An earlier start had left this run.\n")
    assert told.count("Table: mood") == 1


def test_what_was_given_up_for_a_slot_is_not_finished_first(served, mlbatch):
    load(served, [note(907)])
    killed_at(served, "after_create", "run", "toy", "--mode", "infer")
    slot = ("run", "toy", "--mode", "infer", "--slot", "2026-01-09", "--supersede", "--json")
    facts = json.loads(mlbatch(*slot).stdout)
    assert (facts["slot"], facts["resumed"], facts["finished_first"]) == ("2026-01-09", False, [])


def test_whoever_is_at_work_is_named_and_what_a_run_would_end_with(served, mlbatch):
    load(served, [note(908)])
    killed_at(served, "after_adopt", "run", "toy", "--mode", "infer")
    assert "was left planned and is finished first" in mlbatch("plan", "toy").stdout
    tools = connect(load_settings(served), print)
    ledger, me = tools.sink.ledger(), str(tools.owner)
    lease = ledger.acquire("mood", "toy", tools.owner, 7)
    planned = mlbatch("plan", "toy").stdout
    assert f"{me} works on run" in planned
    assert f"Busy    {me} works on mood: a run now would exit 75" in planned
    assert "When that is through: mlbatch run toy --mode infer" in planned
    assert "was left" not in planned
    code = served / "jobs/toy/job.py"
    code.write_text(code.read_text() + "\n# changed meanwhile\n")
    facts = json.loads(mlbatch("plan", "toy", "--json").stdout)
    assert (facts["held_by"], facts["model_version"]) == (me, 1)
    for command in (("run", "toy", "--mode", "infer"), ("reconcile", "toy")):
        busy = json.loads(mlbatch(*command, "--json", code=75).stdout)
        assert (busy["error"], busy["try_again"]) == ("Busy", True)
        assert me in busy["message"]
    assert me in mlbatch("retry", "toy", "--quarantined", code=75).stderr
    ledger.release(lease, 8)
    assert (
        json.loads(mlbatch("plan", "toy", "--accept-code-change", "--json").stdout)["held_by"]
        is None
    )


def test_the_plan_names_the_command_that_does_it(mlbatch):
    told = mlbatch("plan", "toy", "--full", "--until", "2030-01-01T00:00:00+09:00").stdout
    assert "Run it: mlbatch run toy --mode infer --full --until 2029-12-31T15:00:00" in told
    assert "names the champion" in mlbatch("switch", "toy", "--model", "v1", code=2).stderr


def test_many_rows_are_told_by_the_first_ones(served, mlbatch):
    load(served, [late(number) for number in range(910, 915)])
    told = mlbatch("reconcile", "toy").stdout
    assert "5 without a prediction: 910, 911, 912 ..." in told
    assert "All of it is mended." in told


def test_a_source_that_lost_much_is_not_followed_unasked(served, mlbatch):
    delete(served, range(11))
    refused = mlbatch("reconcile", "toy", code=3).stderr
    assert "11 of 200 predictions have no row in the source, more than 10" in refused
    assert "hint: look at the source; --max-deletes N allows more" in refused
    told = mlbatch("reconcile", "toy", "--max-deletes", "11").stdout
    assert "11 predicted, and no longer in the source: 0, 1, 2 ..." in told
    assert json.loads(mlbatch("reconcile", "toy", "--json").stdout)["table_rows"] == 189


def test_a_quarantined_row_is_tried_again_until_it_is_mended(served, mlbatch):
    load(served, [note(950, "x" * 10_001)])
    assert "1 quarantined" in mlbatch("run", "toy", "--mode", "infer", code=4).stdout
    unsaid = mlbatch("retry", "toy", code=2).stderr
    assert "hint: mlbatch retry toy --quarantined" in unsaid
    again = mlbatch("retry", "toy", "--quarantined", code=4).stdout
    assert "1 row tried again: 0 written, 1 still in quarantine." in again
    facts = json.loads(mlbatch("retry", "toy", "--quarantined", "--json", code=4).stdout)
    assert (facts["rows_read"], facts["rows_quarantined"], facts["nothing_to_do"]) == (1, 1, False)
    load(served, [note(950, "good and short")])
    mended = mlbatch("retry", "toy", "--quarantined").stdout
    assert "1 row tried again: 1 written, 0 still in quarantine." in mended
    assert "set no row aside" in mlbatch("retry", "toy", "--quarantined").stdout
    facts = json.loads(mlbatch("retry", "toy", "--quarantined", "--json").stdout)
    assert (facts["nothing_to_do"], facts["run"]) == (True, None)


def test_rows_without_a_key_are_told_where_nothing_else_is_to_be_tried_again(served, mlbatch):
    load(served, [note(951) | {"id": None}])
    mlbatch("run", "toy", "--mode", "infer", code=4)
    told = mlbatch("retry", "toy", "--quarantined", code=4).stdout
    assert "1 row without a key" in told
    assert "mlbatch show toy" in told
    facts = json.loads(mlbatch("retry", "toy", "--quarantined", "--json", code=4).stdout)
    assert (facts["rows_without_key"], facts["nothing_to_do"], facts["run"]) == (1, True, None)


def test_a_run_that_was_killed_is_told_by_every_command_and_finished_by_the_next(served, mlbatch):
    load(served, [note(number) for number in range(300, 320)])
    killed_at(served, "after_adopt", "run", "toy", "--mode", "infer")
    assert "left planned at 0 of" in mlbatch("status").stdout
    planned = mlbatch("plan", "toy").stdout
    assert "Resume  run" in planned
    assert "its window, model and parts are its own" in planned
    for command in (("reconcile", "toy"), ("retry", "toy", "--quarantined")):
        refused = mlbatch(*command, code=2).stderr
        assert "is unfinished" in refused
        assert "hint: finish it first: mlbatch run toy --mode infer" in refused
    assert "written" in mlbatch("run", "toy", "--mode", "infer").stdout
    assert "done: " in mlbatch("status").stdout


def test_an_unfinished_run_can_be_given_up(served, mlbatch):
    load(served, [note(330)])
    killed_at(served, "after_adopt", "run", "toy", "--mode", "infer")
    facts = json.loads(mlbatch("run", "toy", "--mode", "infer", "--supersede", "--json").stdout)
    assert facts["rows_written"] >= 1
    assert "superseded: superseded on request" not in mlbatch("status").stdout
    assert "superseded" in mlbatch("show", "toy").stdout


def test_rows_that_repeat_a_key_are_told_before_anything_is_written(served, mlbatch):
    with duckdb.connect(str(served / ".mlbatch/warehouse.duckdb")) as there:
        there.execute("INSERT INTO notes SELECT * FROM notes WHERE id = 33")
    assert "1 rows repeat a key; the newest is taken" in mlbatch("plan", "toy", "--full").stdout
    told = mlbatch("run", "toy", "--mode", "infer", "--full").stdout
    assert "quarantined" not in told


def test_a_champion_without_a_score_is_a_champion(served, mlbatch):
    tracking = connect(load_settings(served), print).tracking
    client, run = tracking._client, tracking.resolve("toy").run_id
    assert "macro F1" in mlbatch("show", "toy").stdout
    client.log_metric(run, "f1_macro", 0.0)
    assert "Model   v1, macro F1 0.000" in mlbatch("show", "toy").stdout


def test_doctor_says_what_to_mend_first(served, mlbatch):
    assert "All is well." in mlbatch("doctor").stdout
    broken = served / "jobs" / "broken"
    broken.mkdir()
    (broken / "job.py").write_text("x = 1 / 0\n")
    told = mlbatch("doctor", code=2).stdout
    assert "NO  job broken" in told
    assert "Mend what says NO, top first." in told
    found = json.loads(mlbatch("doctor", "--json", code=2).stdout)
    assert (found["ok"], found["exit_code"], found["try_again"]) == (False, 2, False)
    (ill,) = [check for check in found["checks"] if not check["ok"]]
    assert (ill["check"], ill["exit_code"]) == ("job broken", 2)
    assert f"{broken}/job.py:1" in ill["detail"]


def test_doctor_tells_a_dead_warehouse_once(served, mlbatch):
    (served / ".mlbatch/warehouse.duckdb").write_text("no database\n" * 999)
    told = mlbatch("doctor", code=1).stdout
    assert sum(line.startswith("NO ") for line in told.splitlines()) == 1
    for name in ("clock", "unload", "job toy"):
        assert f"--  {name:<24} not looked at: it needs the warehouse" in told
    assert f"ok  {'ledger':<24} 1 run, 0 unfinished" in told
    assert "Mend what says NO, top first." in told
    found = json.loads(mlbatch("doctor", "--json", code=1).stdout)["checks"]
    assert [check["check"] for check in found if check["ok"] is False] == ["warehouse"]
    assert [check["check"] for check in found if check["ok"] is None] == [
        "clock",
        "unload",
        "job toy",
    ]


def test_status_tells_machines_what_it_tells_people(served, mlbatch):
    (job,) = json.loads(mlbatch("status", "--json").stdout)["jobs"]
    assert (job["state"], job["kind"], job["slot"]) == ("done", "backfill", None)
    assert (job["rows_expected"], job["rows_done"], job["rows_written"]) == (200, 200, 200)
    assert (job["table"], job["generation"], job["model_version"]) == ("mood", "g1", 1)
    assert job["since"] < job["finished_at"]
    assert datetime.fromisoformat(job["watermark"]).tzinfo is not None
    assert job["text"] == "done: 200 written, 0 quarantined"
    load(served, [note(320)])
    killed_at(served, "after_adopt", "run", "toy", "--mode", "infer", "--slot", "2026-01-09")
    (job,) = json.loads(mlbatch("status", "--json").stdout)["jobs"]
    assert (job["state"], job["slot"], job["rows_done"]) == ("planned", "2026-01-09", 0)
    assert (job["finished_at"], job["held_by"], job["rows_expected"]) == (None, None, 3)
    tools = connect(load_settings(served), print)
    lease = tools.sink.ledger().acquire("mood", "toy", tools.owner, 7)
    (job,) = json.loads(mlbatch("status", "--json").stdout)["jobs"]
    assert (job["state"], job["held_by"]) == ("planned", str(tools.owner))
    tools.sink.ledger().release(lease, 8)


def test_show_tells_machines_what_it_tells_people(served, mlbatch):
    load(served, [note(321, "x" * 10_001)])
    mlbatch("run", "toy", "--mode", "infer", code=4)
    facts = json.loads(mlbatch("show", "toy", "--json").stdout)
    assert (facts["schema"], facts["job"], facts["table"]) == ("mlbatch.show/1", "toy", "mood")
    assert (facts["key"], facts["inputs"], facts["cursor"]) == (["note_id"], ["text"], "updated_at")
    score = {"name": "score", "type": "double", "description": "How sure the model is."}
    assert score in facts["columns"]
    assert facts["gates"] == ["f1_macro at least 0.50"]
    assert (facts["champion"], facts["generation"], facts["model_version"]) == (1, "g1", 1)
    assert facts["champion_metrics"]["f1_macro"] > 0.5
    assert (facts["other_generations"], facts["generations_dropped"]) == ([], 0)
    delta, backfill = facts["runs"]
    assert (delta["kind"], delta["rows_quarantined"], delta["parts_quarantined"]) == (
        "delta",
        1,
        [],
    )
    (row,) = delta["first_quarantined"]
    assert (row["key"], row["reason"]) == ("321", "too_long")
    assert (backfill["kind"], backfill["first_quarantined"]) == ("backfill", [])


def test_status_names_the_jobs_that_it_cannot_tell_of(served, mlbatch):
    (served / "jobs/broken").mkdir()
    (served / "jobs/broken/job.py").write_text("x = 1 / 0\n")
    told = mlbatch("status", "--json")
    assert json.loads(told.stdout)["faulty_jobs"] == ["broken"]
    assert "cannot be loaded: mlbatch list says why" in told.stderr
    listed = json.loads(mlbatch("list", "--json", code=2).stdout)
    (job,), (fault,) = listed["jobs"], listed["faulty_jobs"]
    assert (job["job"], job["table"], listed["ok"]) == ("toy", "mood", False)
    assert (fault["job"], fault["location"]) == ("broken", f"{served}/jobs/broken/job.py:1")
    assert "cannot be imported" in fault["message"]


def test_a_project_without_jobs_says_so(tmp_path):
    (tmp_path / "mlbatch.toml").touch()
    done = subprocess.run(
        [MLBATCH, "list"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert f"no jobs in {tmp_path}/jobs" in done.stderr


@pytest.mark.parametrize("asked", [[], ["--json"]])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_output_that_cannot_be_written_is_not_told_as_a_run_that_failed(
    served, mlbatch, asked, unbuffered
):
    load(served, [note(960)])
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [MLBATCH, "run", "toy", "--mode", "infer", *asked],
            cwd=served,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 75, done.stderr
    assert "error: the output of this command cannot be written to stdout: " in done.stderr
    assert "hint: what it did is done, only the report is lost" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert "done: " in mlbatch("status").stdout


def test_a_refusal_that_cannot_be_written_for_machines_keeps_its_code(served):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [MLBATCH, "show", "tyo", "--json"],
            cwd=served,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr.endswith("hint: did you mean `toy`? Jobs here: toy\n")
