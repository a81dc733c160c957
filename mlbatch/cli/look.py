"""`list`, `show` and `status`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from mlbatch.cli.session import Session
from mlbatch.errors import ExitCode
from mlbatch.ledger import RunState, Totals
from mlbatch.nurse import parts_aside

if TYPE_CHECKING:
    from mlbatch.job import Job
    from mlbatch.ledger import Run
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
    lines = [f"Model   {model}", *_generations(job, ledger)]
    for run in ledger.runs(job.output.table.name, limit=LAST_RUNS):
        lines.append(f"Run     {_run_line(run, ledger)}")
        lines += [f"        {part}" for part in parts_aside(run.run_id, ledger)]
        lines += [f"        quarantined {row}" for row in ledger.quarantined(run.run_id, LAST_RUNS)]
    return lines


def _champion_line(champion: ModelVersion) -> str:
    score = champion.metrics.get("f1_macro")
    return f"v{champion.version}" + ("" if score is None else f", macro F1 {score:.3f}")


def _generations(job: type[Job], ledger: Ledger) -> list[str]:
    table = job.output.table.name
    active = ledger.active(table)
    if active is None:
        return []
    lines = [f"Serves  {table}: generation {active.generation}, model v{active.model_version}"]
    return lines + [
        f"        {generation.name}: {generation.state}, model v{generation.model_version}"
        for generation in ledger.generations(table)
        if generation.name != active.generation
    ]


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
    ledger = session.tools().sink.ledger()
    rows = [_status(job, ledger) for job in session.project.jobs.values()]
    if as_json:
        click.echo(json.dumps({"schema": "mlbatch.status/1", "jobs": rows}, ensure_ascii=False))
        return ExitCode.DONE
    click.echo(f"{'JOB':<24} {'LAST RUN':<14} {'FRESH TO (UTC)':<20} STATE")
    for row in rows:
        click.echo(
            f"{row['job']:<24} {row['run'] or '-':<14} {row['fresh_to'] or '-':<20} {row['state']}"
        )
    return ExitCode.DONE


def _status(job: type[Job], ledger: Ledger) -> dict[str, Any]:
    serving = ledger.serving(job.output.table.name)
    runs = ledger.runs(job.output.table.name, serving, limit=1)
    mark = ledger.watermark(job.name, serving)
    return {
        "job": job.name,
        "run": runs[0].run_id if runs else None,
        "fresh_to": f"{mark.value:%Y-%m-%d %H:%M:%S}" if mark else None,
        "state": _state(job, runs[0] if runs else None, ledger),
    }


def _state(job: type[Job], run: Run | None, ledger: Ledger) -> str:
    if run is None:
        return "never run"
    holder = ledger.holder(job.output.table.name)
    if holder is not None:
        return f"running: {holder}"
    totals = Totals.of(ledger.parts(run.run_id))
    if run.state is RunState.DONE:
        return f"done: {totals.written:,} written, {totals.quarantined:,} quarantined"
    if run.state.is_terminal:
        return f"{run.state}: {run.error}"
    return f"left {run.state} at {totals.done:,} of {totals.expected:,} rows; run it again to go on"
