"""`list`, `show` and `status`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mlbatch.cli.answer import tell
from mlbatch.cli.session import Session
from mlbatch.errors import ExitCode
from mlbatch.generation import GenerationState, beside
from mlbatch.ledger import RunState, Totals
from mlbatch.nurse import parts_aside
from mlbatch.reporting import counted

if TYPE_CHECKING:
    from mlbatch.job import Job
    from mlbatch.ledger import Owner, Run
    from mlbatch.sink import Ledger
    from mlbatch.tools import Tools
    from mlbatch.tracking import ModelVersion

LAST_RUNS = 5


@click.command("list")
@click.pass_obj
def list_command(profile: str | None) -> int:
    """The project's jobs; a faulty one is named with its fault and hides no other."""
    project = Session.open(profile).project
    for name, job in project.jobs.items():
        click.echo(f"{name:<24} -> {job.output.table.name:<20} {job.description.splitlines()[0]}")
    for name, fault in project.faults.items():
        click.echo(f"{name:<24} !! {fault.message}", err=True)
        if fault.location:
            click.echo(f"{'':<24}    --> {fault.location}", err=True)
        if fault.hint:
            click.echo(f"{'':<24}    hint: {fault.hint}", err=True)
    if not project.jobs and not project.faults:
        click.echo(f"no jobs in {project.root}/jobs", err=True)
    return ExitCode.USAGE if project.faults else ExitCode.DONE


@click.command("show")
@click.argument("job")
@click.pass_obj
def show_command(profile: str | None, job: str) -> int:
    """One job: what it reads, what each column of its table means, its model and last runs."""
    session = Session.open(profile)
    declared, tools = session.job(job), session.tools()
    click.echo("\n".join([*_declared(declared), *_served(declared, tools)]))
    return ExitCode.DONE


def _declared(job: type[Job]) -> list[str]:
    view, table = job.features.view, job.output.table
    lines = [f"{job.name}: {job.description}", f"Owner   {job.owner}"]
    lines.append(f"Reads   {view.name}: {view.description.splitlines()[0]}")
    lines.append(f"        {', '.join(job.inputs)}; delta by {view.cursor}")
    lines.append(f"Writes  {table.name}: {table.description.splitlines()[0]}")
    for column in table.all_columns:
        key = " (key)" if column.name in table.key else ""
        lines.append(f"        {column.name:<16} {column.type!s:<14} {column.description}{key}")
    lines += [f"Gate    {gate}" for gate in job.gates]
    return lines


def _served(job: type[Job], tools: Tools) -> list[str]:
    champion = tools.tracking.resolve(job.name)
    ledger = tools.sink.ledger()
    model = _champion_line(champion) if champion else "none yet"
    lines = [f"Model   {model}", *_generations(job, tools)]
    for run in ledger.runs(job.output.table.name, limit=LAST_RUNS):
        lines.append(f"Run     {_run_line(run, ledger)}")
        lines += [f"        {part}" for part in parts_aside(run.run_id, ledger)]
        lines += [f"        quarantined {row}" for row in ledger.quarantined(run.run_id, LAST_RUNS)]
    return lines


def _champion_line(champion: ModelVersion) -> str:
    score = champion.metrics.get("f1_macro")
    return f"v{champion.version}" + ("" if score is None else f", macro F1 {score:.3f}")


def _generations(job: type[Job], tools: Tools) -> list[str]:
    """What serves, and what is beside it; those whose table is gone are counted."""
    table, ledger = job.output.table.name, tools.sink.ledger()
    active = ledger.active(table)
    if active is None:
        return []
    lines = [f"Serves  {table}: generation {active.generation}, model v{active.model_version}"]
    others = [g for g in ledger.generations(table) if g.name != active.generation]
    there = [
        g
        for g in others
        if g.state is GenerationState.BUILDING or tools.sink.holds(beside(table, g.name))
    ]
    lines += [f"        {g.name}: {g.state}, model v{g.model_version}" for g in there]
    dropped = len(others) - len(there)
    return [*lines, f"        {counted(dropped, 'generation')} dropped"] if dropped else lines


def _run_line(run: Run, ledger: Ledger) -> str:
    totals = Totals.of(ledger.parts(run.run_id))
    counts = f"{totals.done:,}/{totals.expected:,} rows, {totals.quarantined:,} quarantined"
    line = f"{run.run_id} {run.created_at:%Y-%m-%d %H:%M} UTC {run.new.kind} {run.state} {counts}"
    return f"{line}: {run.error}" if run.error else line


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
        click.echo(f"{name:<24} cannot be loaded: mlbatch list says why", err=True)
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
        **_run_facts(run, totals),
        "text": _state_text(run, totals, holder),
    }


def _run_facts(run: Run | None, totals: Totals) -> dict[str, Any]:
    """The last run's figures; every name is there, also before the first run."""
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
