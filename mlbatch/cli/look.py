"""`list` and `status`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mlbatch.cli.answer import tell, typeable
from mlbatch.cli.session import Session
from mlbatch.errors import ExitCode
from mlbatch.ledger import RunState, Totals

if TYPE_CHECKING:
    from mlbatch.job import Job
    from mlbatch.ledger import Owner, Run
    from mlbatch.project import Project
    from mlbatch.sink import Ledger


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
@click.pass_obj
def list_command(profile: str | None, as_json: bool) -> int:  # noqa: FBT001
    """The project's jobs; a faulty one is named with its fault and hides no other."""
    project = Session.open(profile).project
    lines = [
        f"{name:<24} -> {job.output.table.name:<20} {job.description.splitlines()[0]}"
        for name, job in project.jobs.items()
    ]
    if lines or as_json:
        tell(_list_facts(project), "\n".join(lines), as_json=as_json)
    for name, fault in project.faults.items():
        click.echo(f"{name:<24} !! {fault.message}", err=True)
        if fault.location:
            click.echo(f"{'':<24}    --> {fault.location}", err=True)
        if fault.hint:
            click.echo(f"{'':<24}    hint: {fault.hint}", err=True)
    if not project.jobs and not project.faults:
        click.echo(f"no jobs in {project.root}/jobs", err=True)
    return ExitCode.USAGE if project.faults else ExitCode.DONE


def _list_facts(project: Project) -> dict[str, object]:
    jobs = [
        {
            "job": name,
            "table": job.output.table.name,
            "description": job.description,
            "owner": job.owner,
        }
        for name, job in project.jobs.items()
    ]
    faults = [
        {"job": name, "message": fault.message, "hint": fault.hint, "location": fault.location}
        for name, fault in project.faults.items()
    ]
    return {"schema": "mlbatch.list/1", "ok": not faults, "jobs": jobs, "faulty_jobs": faults}


@click.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
@click.pass_obj
def status_command(profile: str | None, as_json: bool) -> int:  # noqa: FBT001
    """Every job: how fresh its table is, and what its last run came to."""
    session = Session.open(profile)
    ledger, faulty = session.tools().sink.ledger(), list(session.project.faults)
    rows = [_status(job, ledger) for job in session.project.jobs.values()]
    lines = [f"{'JOB':<24} {'LAST RUN':<14} {'FRESH TO (UTC)':<20} STATE"]
    lines += [
        f"{row['job']:<24} {row['run'] or '-':<14} {row['fresh_to'] or '-':<20} {row['text']}"
        for row in rows
    ]
    facts = {"schema": "mlbatch.status/2", "jobs": rows, "faulty_jobs": faulty}
    tell(facts, "\n".join(lines), as_json=as_json)
    for name in faulty:
        click.echo(typeable(f"{name:<24} cannot be loaded: mlbatch list says why"), err=True)
    return ExitCode.DONE


def _status(job: type[Job], ledger: Ledger) -> dict[str, Any]:
    table = job.output.table.name
    serving, holder = ledger.serving(table), ledger.holder(table)
    run = next(iter(ledger.runs(table, serving, limit=1)), None)
    mark = ledger.watermark(job.name, serving)
    totals = Totals.of(ledger.parts(run.run_id) if run else ())
    return {
        "job": job.name,
        "table": table,
        "generation": serving,
        "held_by": str(holder) if holder else None,
        "fresh_to": f"{mark.value:%Y-%m-%d %H:%M:%S}" if mark else None,
        "watermark": mark.value.isoformat() if mark else None,
        **run_facts(run, totals),
        "text": _state_text(run, totals, holder),
    }


def run_facts(run: Run | None, totals: Totals) -> dict[str, Any]:
    """A run's figures; every name is there, also before the first run."""
    new = run.new if run else None
    finished = run.finished_at if run else None
    return {
        "run": run.run_id if run else None,
        "state": str(run.state) if run else None,
        "kind": str(new.kind) if new else None,
        "slot": new.slot if new and new.slot != new.run_id else None,
        "model_version": new.model.version if new else None,
        "since": run.created_at.isoformat() if run else None,
        "finished_at": finished.isoformat() if finished else None,
        "error": run.error if run else None,
        "rows_expected": run.rows_expected if run else None,
        "rows_done": totals.done,
        "rows_written": totals.written,
        "rows_deleted": totals.deleted,
        "rows_quarantined": totals.quarantined,
    }


def _state_text(run: Run | None, totals: Totals, holder: Owner | None) -> str:
    if holder is not None:
        return f"running: {holder}"
    if run is None:
        return "never run"
    if run.state is RunState.DONE:
        return f"done: {totals.written:,} written, {totals.quarantined:,} quarantined"
    if run.state.is_terminal:
        return f"{run.state}: {run.error}"
    return f"left {run.state} at {totals.done:,} of {totals.expected:,} rows; run it again to go on"
