"""`run`, `register` and `plan`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from mlbatch.cli.session import Session
from mlbatch.errors import ExitCode, UsageError
from mlbatch.inference import Inference, Preview, infer, preview
from mlbatch.planner import Request
from mlbatch.registering import Registered, register
from mlbatch.reporting import counted
from mlbatch.window import utc

if TYPE_CHECKING:
    from mlbatch.job import Job
    from mlbatch.training import Trained

_RETRY = "mlbatch retry --quarantined"
_LEFT = "An earlier start had left this run; what you asked for beyond it takes another run."


def _instant(_: click.Context, __: click.Parameter, value: str | None) -> datetime | None:
    if value is None:
        return None
    try:
        return utc(datetime.fromisoformat(value))
    except ValueError as error:
        message = f"{value!r} is not an instant: {error}"
        raise UsageError(message, hint="write it as 2026-11-23T04:00:00+09:00") from error


_REQUEST_OPTIONS = (
    click.option("--full", is_flag=True, help="Read everything again, not only the delta."),
    click.option("--in-place", is_flag=True, help="Let a new model rewrite the table that serves."),
    click.option("--until", callback=_instant, help="Read rows changed before this instant only."),
    click.option(
        "--slot", help="Logical date (YYYY-MM-DD) from the scheduler: done once per date."
    ),
    click.option("--supersede", is_flag=True, help="Give an unfinished run up and start anew."),
    click.option("--accept-code-change", is_flag=True, help="Resume with code that has changed."),
)


def _with_request(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_REQUEST_OPTIONS):
        command = option(command)
    return command


@click.command("run")
@click.argument("job")
@click.option("--mode", type=click.Choice(["train", "infer"]), required=True)
@_with_request
@click.option(
    "--model", default="champion", show_default=True, help="Alias or version to infer with."
)
@click.option("--workers", type=click.IntRange(min=1), help="Processes; one per core by default.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
@click.pass_obj
def run_command(
    profile: str | None,
    /,
    job: str,
    mode: str,
    model: str,
    workers: int | None,
    as_json: bool,  # noqa: FBT001  click passes flags by name
    **request: Any,  # noqa: ANN401
) -> int:
    """Train or infer JOB. Results go to stdout, progress to stderr."""
    if mode == "train":
        _refuse_options_of_inference(click.get_current_context())
    session = Session.open(profile, workers=workers)
    started = time.monotonic()
    if mode == "train":
        return _train(session, session.job(job), started, as_json=as_json)
    ended = infer(session.job(job), Request(**request), session.tools(at_work=True), model=model)
    seconds = time.monotonic() - started
    _tell(_inference_facts(ended, seconds), _inference_text(ended, seconds), as_json=as_json)
    return ExitCode.QUARANTINED if ended.totals.quarantined else ExitCode.DONE


def _refuse_options_of_inference(context: click.Context) -> None:
    """Training always reads every labelled row and makes a version of its own."""
    of_training = {"job", "mode", "workers", "as_json"}
    given = [
        option.opts[0]
        for option in context.command.params
        if option.name not in of_training
        and context.get_parameter_source(str(option.name)) is ParameterSource.COMMANDLINE
    ]
    if given:
        message = f"{' and '.join(given)} would do nothing with --mode train"
        raise UsageError(message, hint="leave it out, or infer: --mode infer")


def _train(session: Session, job: type[Job], started: float, *, as_json: bool) -> int:
    # Learning imports scipy and more of scikit-learn, which inference does not need.
    from mlbatch.training import train  # noqa: PLC0415

    trained = train(job, session.tools(at_work=True))
    seconds = time.monotonic() - started
    _tell(
        _training_facts(job, trained, seconds),
        _training_text(job, trained, seconds),
        as_json=as_json,
    )
    trained.require_promotion(job.name)
    return ExitCode.DONE


@click.command("register")
@click.argument("job")
@click.argument("training")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
@click.pass_obj
def register_command(profile: str | None, /, job: str, training: str, as_json: bool) -> int:  # noqa: FBT001
    """Register the model that TRAINING fitted for JOB, and promote it when its gates hold."""
    session = Session.open(profile)
    done = register(session.job(job), training, session.tools())
    facts = {
        "schema": "mlbatch.register/1",
        "ok": done.promoted,
        "job": job,
        "model_version": done.version.version,
        "promoted": done.promoted,
        "gates": [str(verdict) for verdict in done.verdicts],
    }
    lines = [f"gate: {verdict}" for verdict in done.verdicts]
    lines.append(f"{job} · model v{done.version.version}; {_standing(done)}.")
    _tell(facts, "\n".join(lines), as_json=as_json)
    done.require_promotion(job)
    return ExitCode.DONE


def _standing(done: Registered) -> str:
    return "it is the champion now" if done.promoted else "NOT promoted"


def _tell(facts: dict[str, object], text: str, *, as_json: bool) -> None:
    click.echo(json.dumps(facts, ensure_ascii=False) if as_json else text)


def _inference_facts(ended: Inference, seconds: float) -> dict[str, object]:
    run, totals = ended.run, ended.totals
    return {
        "schema": "mlbatch.run/1",
        "ok": True,
        "run": run.run_id,
        "job": run.new.job,
        "kind": str(run.new.kind),
        "table": run.new.output_table,
        "model_version": run.new.model.version,
        "rows_read": totals.expected,
        "rows_written": totals.written,
        "rows_deleted": totals.deleted,
        "rows_quarantined": totals.quarantined,
        "rows_filtered": totals.filtered,
        "parts_quarantined": [asdict(part) for part in ended.parts_aside],
        "resumed": ended.plan.resume is not None,
        "nothing_to_do": ended.plan.done is not None,
        "seconds": round(seconds, 2),
        "stage_seconds": {k: round(v, 2) for k, v in ended.stage_seconds.items()},
    }


def _inference_text(ended: Inference, seconds: float) -> str:
    run, totals = ended.run, ended.totals
    if ended.plan.done is not None:
        return f"Nothing to do: {ended.plan.reason} (model v{run.new.model.version})."
    if not totals.expected:
        return f"Nothing to do: no row of {run.new.output_table} changed. Took {seconds:.1f} s."
    counts = f"{counted(totals.expected, 'row')} read: {totals.written:,} written, {totals.deleted:,} deleted"
    if totals.filtered:
        counts += f", {totals.filtered:,} repeated"
    if totals.quarantined:
        counts += f", {totals.quarantined:,} quarantined (see mlbatch show {run.new.job})"
    overlap = ""
    if ended.probe is not None and run.new.watermark_low is not None:
        overlap = f" {ended.probe.newer:,} of them are newer than the watermark."
    aside = "".join(f"\n{part}; try again: {_RETRY} {run.new.job}" for part in ended.parts_aside)
    head = f"{run.new.job} · {run.new.kind} · run {run.run_id} · model v{run.new.model.version}"
    done = f"Done in {seconds:.1f} s{_stages(ended.stage_seconds)}. Table: {run.new.output_table}"
    left = "" if ended.plan.resume is None else f"\n{_LEFT}"
    return f"{head}\n{counts}.{overlap}{aside}\n{done}{left}"


def _stages(seconds: dict[str, float]) -> str:
    """Where the workers' time went; they are several, and their stages overlap."""
    told = ", ".join(f"{stage} {spent:.1f}" for stage, spent in seconds.items())
    return f" (workers: {told})" if told else ""


def _training_facts(job: type[Job], trained: Trained, seconds: float) -> dict[str, object]:
    return {
        "schema": "mlbatch.train/1",
        "ok": trained.promoted,
        "job": job.name,
        "model_version": trained.version.version,
        "promoted": trained.promoted,
        "rows": trained.rows,
        "left_out": dict(trained.left_out),
        "metrics": trained.result.evaluation.metrics(),
        "gates": [str(verdict) for verdict in trained.verdicts],
        "seconds": round(seconds, 2),
    }


def _training_text(job: type[Job], trained: Trained, seconds: float) -> str:
    lines = [f"{job.name} · model v{trained.version.version} · {trained.rows:,} labelled rows"]
    lines.append(trained.result.evaluation.report().rstrip())
    lines += [f"gate: {verdict}" for verdict in trained.verdicts]
    lines += [f"left out: {n:,} rows ({reason})" for reason, n in trained.left_out.items()]
    lines.append(f"Done in {seconds:.1f} s; {_standing(trained)}.")
    return "\n".join(lines)


def _model_text(facts: dict[str, Any]) -> str:
    version, champion = facts["model_version"], facts["champion"]
    if version is None:
        return "none yet: train first"
    role = "champion" if version == champion else f"as the table is; the champion is {champion}"
    return f"version {version} ({role})"


@click.command("plan")
@click.argument("job")
@_with_request
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
@click.pass_obj
def plan_command(profile: str | None, /, job: str, as_json: bool, **request: Any) -> int:  # noqa: ANN401, FBT001
    """Show what `run JOB --mode infer` would do, and why. Writes nothing."""
    session = Session.open(profile)
    found = preview(session.job(job), Request(**request), session.tools())
    # Other warehouses cut parts by bytes, which nobody knows before the unload.
    part_rows = getattr(session.settings.warehouse, "part_rows", None)
    facts = _preview_facts(job, found, part_rows)
    text = _preview_text(facts, session.job(job), _typed(profile, job, request))
    _tell(facts, text, as_json=as_json)
    return ExitCode.DONE


def _typed(profile: str | None, job: str, request: dict[str, Any]) -> str:
    """The command that does what was previewed, with everything that was asked for."""
    words = ["mlbatch", *(("--profile", profile) if profile else ()), "run", job, "--mode", "infer"]
    for name, value in request.items():
        option = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(option)
        elif value:
            words += [option, value.isoformat() if isinstance(value, datetime) else str(value)]
    return " ".join(words)


def _preview_facts(job: str, found: Preview, part_rows: int | None) -> dict[str, object]:
    plan, probe = found.plan, found.probe
    rows = probe.rows if probe else None
    seconds = rows / found.rows_per_second if rows is not None and found.rows_per_second else None
    return {
        "schema": "mlbatch.plan/1",
        "job": job,
        "kind": str(plan.kind),
        "reason": plan.reason,
        "window": str(plan.window),
        "rows": rows,
        "newer": probe.newer if probe else None,
        "duplicates": probe.duplicates if probe else None,
        "parts": None if rows is None or part_rows is None else -(-rows // part_rows),
        "model_version": found.model.version if found.model else None,
        "champion": found.champion,
        "seconds": None if seconds is None else round(seconds, 1),
        "nothing_to_do": plan.done is not None,
        "resumes": plan.resume.run_id if plan.resume else None,
    }


def _preview_text(facts: dict[str, Any], job: type[Job], command: str) -> str:
    lines = [f"{facts['job']} · {facts['kind']} · {facts['reason']}"]
    if facts["nothing_to_do"]:
        return f"{lines[0]}\nNothing to do."
    if facts["resumes"]:
        lines.append(f"Resume  run {facts['resumes']}: its window, model and parts are its own")
    else:
        lines.append(f"Read    {job.features.view.name}, {facts['window']}")
        known_parts = facts["parts"] is not None
        parts = f", about {counted(facts['parts'], 'part')}" if known_parts else ""
        lines.append(f"        {counted(facts['rows'], 'row')}{parts}")
        if facts["duplicates"]:
            lines.append(f"        {facts['duplicates']:,} rows repeat a key; the newest is taken")
    table = job.output.table
    lines.append(f"Write   {table.name}, upsert by {', '.join(table.key)}")
    lines.append(f"Model   {_model_text(facts)}")
    known = facts["seconds"] is not None
    lines.append(
        f"Time    {facts['seconds']} s at the last run's pace"
        if known
        else "Time    unknown before the first run"
    )
    lines.append(f"\nNothing was written. Run it: {command}")
    return "\n".join(lines)
