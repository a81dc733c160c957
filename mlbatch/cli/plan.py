"""`plan`."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from mlbatch.cli.answer import tell
from mlbatch.cli.asking import with_request
from mlbatch.cli.session import Session
from mlbatch.errors import ExitCode
from mlbatch.inference import Preview, preview
from mlbatch.ledger import RunKind
from mlbatch.planner import Request, answers
from mlbatch.reporting import counted, expected_seconds

if TYPE_CHECKING:
    from mlbatch.job import Job
    from mlbatch.ledger import Owner, Run

LONG_SECONDS = 120


@click.command("plan")
@click.argument("job")
@with_request
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
@click.pass_obj
def plan_command(profile: str | None, /, job: str, as_json: bool, **asked: Any) -> int:  # noqa: ANN401, FBT001
    """Show what `run JOB --mode infer` would do, and why. Writes nothing."""
    session, request = Session.open(profile), Request(**asked)
    declared, tools = session.job(job), session.tools()
    holder = tools.sink.ledger().holder(declared.output.table.name)
    if holder is not None:
        # Whoever is at work goes on with the code that it has.
        request = replace(request, accept_code_change=True)
    found = preview(declared, request, tools)
    # Other warehouses cut parts by bytes, which nobody knows before the unload.
    part_rows = getattr(session.settings.warehouse, "part_rows", None)
    facts = _facts(job, found, request, part_rows, holder)
    tell(facts, _text(facts, declared, _typed(job, asked)), as_json=as_json)
    return ExitCode.DONE


def _typed(job: str, request: dict[str, Any]) -> str:
    """The command that does what was previewed, with everything that was asked for."""
    words = ["mlbatch", "run", job, "--mode", "infer"]
    for name, value in request.items():
        option = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(option)
        elif value:
            words += [option, value.isoformat() if isinstance(value, datetime) else str(value)]
    return " ".join(words)


def _facts(
    job: str, found: Preview, request: Request, part_rows: int | None, holder: Owner | None
) -> dict[str, object]:
    plan, probe = found.plan, found.probe
    rows = probe.rows if probe else None
    seconds = None if rows is None else expected_seconds(rows, found.runs)
    model = plan.resume.new.model if plan.resume else found.model
    goes_on = plan.resume is not None and not answers(plan.resume, request)
    return {
        "schema": "mlbatch.plan/1",
        "job": job,
        "kind": str(plan.kind),
        "reason": _at_work(plan.resume, holder) if plan.resume and holder else plan.reason,
        "window": str(plan.window),
        "rows": rows,
        "newer": probe.newer if probe else None,
        "duplicates": probe.duplicates if probe else None,
        "parts": None if rows is None or part_rows is None else -(-rows // part_rows),
        "model_version": model.version if model else None,
        "champion": found.champion,
        "seconds": round(seconds[1], 1) if seconds else None,
        "seconds_at_least": round(seconds[0], 1) if seconds else None,
        "nothing_to_do": plan.done is not None,
        "resumes": plan.resume.run_id if plan.resume else None,
        "then_slot": request.slot if goes_on else None,
        "then_full": goes_on and request.full,
        "held_by": str(holder) if holder else None,
    }


def _at_work(run: Run, holder: Owner) -> str:
    return f"{holder} works on run {run.run_id}, which is {run.state}"


def _text(facts: dict[str, Any], job: type[Job], command: str) -> str:
    lines = [f"{facts['job']} · {facts['kind']} · {facts['reason']}"]
    if facts["held_by"]:
        lines.append(
            f"Busy    {facts['held_by']} works on {job.output.table.name}: "
            f"a run now would exit {ExitCode.TEMPORARY:d}"
        )
    if facts["nothing_to_do"]:
        return "\n".join([*lines, "Nothing to do."])
    table = job.output.table
    lines += [*_reading(facts, job), f"Write   {table.name}, upsert by {', '.join(table.key)}"]
    lines.append(f"Model   {_model_text(facts)}")
    if facts["rows"] is not None:
        lines.append(f"Time    {_time_text(facts)}")
    when, then = "Run it", command
    if facts["model_version"] is None:
        when, then = "Train it", f"mlbatch run {facts['job']} --mode train"
    if facts["held_by"]:
        when = "When that is through"
    lines.append(f"\nNothing was written. {when}: {then}")
    return "\n".join(lines)


def _reading(facts: dict[str, Any], job: type[Job]) -> list[str]:
    if facts["resumes"]:
        lines = [f"Resume  run {facts['resumes']}: its window, model and parts are its own"]
        slot = f"slot {facts['then_slot']}" if facts["then_slot"] else None
        then = slot or ("everything again" if facts["then_full"] else None)
        return [*lines, f"Then    {then}, by the same command"] if then else lines
    parts = "" if facts["parts"] is None else f", about {counted(facts['parts'], 'part')}"
    overlaps = facts["kind"] == RunKind.DELTA and facts["newer"] is not None
    newer = f"; {facts['newer']:,} newer than the watermark" if overlaps else ""
    lines = [
        f"Read    {job.features.view.name}, {facts['window']}",
        f"        {counted(facts['rows'], 'row')}{parts}{newer}",
    ]
    if facts["duplicates"]:
        lines.append(f"        {facts['duplicates']:,} rows repeat a key; the newest is taken")
    return lines


def _model_text(facts: dict[str, Any]) -> str:
    version, champion = facts["model_version"], facts["champion"]
    if version is None:
        return "none yet: train first"
    role = "champion" if version == champion else f"as the table is; the champion is {champion}"
    return f"version {version} ({role})"


def _time_text(facts: dict[str, Any]) -> str:
    least, most = facts["seconds_at_least"], facts["seconds"]
    if most is None:
        return "unknown before the first run"
    span = _span(most) if least == most else f"{_span(least)} to {_span(most)}"
    return f"about {span}, as earlier runs went"


def _span(seconds: float) -> str:
    if seconds < LONG_SECONDS:
        return f"{seconds:.0f} s" if seconds >= 1 else f"{seconds:.1f} s"
    return f"{seconds / 60:,.0f} min"
