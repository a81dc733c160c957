"""`run` and `register`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from mlbatch.cli.answer import error_facts, say, show_error, tell
from mlbatch.cli.asking import typed_beside, with_request
from mlbatch.cli.session import Session
from mlbatch.errors import ExitCode, GateRefused, UsageError
from mlbatch.inference import Inference, infer
from mlbatch.planner import Request, answers
from mlbatch.registering import Registered, register
from mlbatch.reporting import counted

if TYPE_CHECKING:
    from mlbatch.job import Job
    from mlbatch.tools import Tools
    from mlbatch.training import Trained

_RETRY = "mlbatch retry --quarantined"
_LEFT = "An earlier start had left this run"


@click.command("run")
@click.argument("job")
@click.option(
    "--mode",
    type=click.Choice(["train", "infer"]),
    required=True,
    help="Learn a new model from labelled rows, or predict what is new.",
)
@with_request
@click.option(
    "--model",
    metavar="ALIAS|VERSION",
    default="champion",
    show_default=True,
    help="Model of the first run, or of one in place.",
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
    """Train or infer JOB. Results go to stdout, progress to stderr.

    With --mode train, of the options only --workers and --json.
    """
    if mode == "train":
        _refuse_options_of_inference()
    session = Session.open(profile, workers=workers)
    if mode == "train":
        return _train(session, session.job(job), as_json=as_json)
    asked, tools = Request(**request), session.tools(at_work=True)
    return _infer(_runs(session.job(job), asked, tools, model), asked, as_json=as_json)


def _runs(
    job: type[Job], request: Request, tools: Tools, model: str
) -> Iterator[tuple[Inference, float]]:
    """What was left, and then what was asked for; each with the seconds that it took."""
    goes_on = True
    while goes_on:
        started = time.monotonic()
        ended = infer(job, request, tools, model=model)
        goes_on = ended.plan.resume is not None and not answers(ended.run, request)
        yield ended, time.monotonic() - started


def _infer(runs: Iterator[tuple[Inference, float]], request: Request, *, as_json: bool) -> int:
    told: list[dict[str, object]] = []
    aside = 0
    for ended, seconds in runs:
        told.append(_inference_facts(ended, seconds))
        # Whoever did the slot was told of its rows then.
        aside += 0 if ended.plan.done else ended.totals.quarantined
        if not as_json:
            say(f"{_inference_text(ended, seconds)}{_left(ended, request)}")
    if as_json:
        before, resumed = told[:-1], any(facts["resumed"] for facts in told)
        tell(told[-1] | {"resumed": resumed, "finished_first": before}, "", as_json=True)
    return ExitCode.QUARANTINED if aside else ExitCode.DONE


def _left(ended: Inference, request: Request) -> str:
    if ended.plan.resume is None:
        return ""
    if not answers(ended.run, request):
        asked = f"slot {request.slot}" if request.slot else "the full run"
        return f"\n{_LEFT}; {asked} comes next.\n"
    if request.slot is None:
        return f"\n{_LEFT}; what you asked for beyond it takes another run."
    return f"\n{_LEFT}."


def _refuse_options_of_inference() -> None:
    """Training always reads every labelled row and makes a version of its own."""
    surplus = typed_beside({"job", "mode", "workers", "as_json"})
    if surplus:
        message = f"{surplus} would do nothing with --mode train"
        raise UsageError(message, hint="leave it out, or infer: --mode infer")


def _train(session: Session, job: type[Job], *, as_json: bool) -> int:
    # Learning imports scipy and more of scikit-learn, which inference does not need.
    from mlbatch.training import train  # noqa: PLC0415

    started = time.monotonic()
    trained = train(job, session.tools(at_work=True))
    seconds = time.monotonic() - started
    facts, text = _training_facts(job, trained, seconds), _training_text(job, trained, seconds)
    return _tell_standing(trained, job.name, facts, text, as_json=as_json)


def _tell_standing(
    done: Registered, job: str, facts: dict[str, object], text: str, *, as_json: bool
) -> int:
    """What came of a fitted model, in one object also where a gate refused it."""
    try:
        done.require_promotion(job)
    except GateRefused as refused:
        # What was learnt is told nevertheless, in the same object.
        tell(error_facts(refused) | facts, text, as_json=as_json)
        show_error(refused)
        return refused.exit_code
    tell(facts, text, as_json=as_json)
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
    facts: dict[str, object] = {
        "schema": "mlbatch.register/1",
        "ok": done.promoted,
        "job": job,
        "model_version": done.version.version,
        "promoted": done.promoted,
        "gates": [str(verdict) for verdict in done.verdicts],
    }
    lines = [f"gate: {verdict}" for verdict in done.verdicts]
    lines.append(f"{job} · model v{done.version.version}; {_standing(done)}.")
    return _tell_standing(done, job, facts, "\n".join(lines), as_json=as_json)


def _standing(done: Registered) -> str:
    return "it is the champion now" if done.promoted else "NOT promoted"


def _inference_facts(ended: Inference, seconds: float) -> dict[str, object]:
    run, totals = ended.run, ended.totals
    return {
        "schema": "mlbatch.run/1",
        "ok": True,
        "run": run.run_id,
        "job": run.new.job,
        "kind": str(run.new.kind),
        "slot": None if run.new.slot == run.run_id else run.new.slot,
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
    return f"{head}\n{counts}.{overlap}{aside}\n{done}"


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
