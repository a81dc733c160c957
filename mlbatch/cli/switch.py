"""`switch`."""

from __future__ import annotations

import math
import sys
import time
from typing import Any

import click

from mlbatch import switching
from mlbatch.cli.answer import tell
from mlbatch.cli.asking import typed_beside
from mlbatch.cli.session import Session
from mlbatch.errors import ExitCode, UsageError
from mlbatch.generation import beside
from mlbatch.planner import Request
from mlbatch.switching import Switched


class _Share(click.FloatRange):
    """A share from 0 to 1. NaN is none: nothing is more than it, so no limit would hold."""

    def convert(
        self,
        value: Any,  # noqa: ANN401  as click has it
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> float:
        """Refuse what click's own comparisons let through."""
        share: float = super().convert(value, param, ctx)
        if math.isnan(share):
            self.fail(f"{value} is not a number from 0 to 1.", param, ctx)
        return share


@click.command("switch")
@click.argument("job")
@click.option(
    "--model",
    metavar="ALIAS|VERSION",
    help="Alias or version to switch to; the champion by default.",
)
@click.option("--roll-back", is_flag=True, help="Let the generation before serve again.")
@click.option("--drop-kept", is_flag=True, help="Drop the generations that do not serve.")
@click.option("--yes", is_flag=True, help="Do not ask before anything is dropped.")
@click.option(
    "--max-distance",
    type=_Share(0, 1),
    help="Share of labels that may move; the job's limit, 0.2, by default.",
)
@click.option(
    "--max-deletes",
    type=click.IntRange(min=0),
    help="Most rows whose loss by the source is meant; one in a hundred, or ten, by default.",
)
@click.option("--supersede", is_flag=True, help="Give an unfinished run up and start it anew.")
@click.option("--accept-code-change", is_flag=True, help="Resume with code that has changed.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes; one per core by default.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
@click.pass_obj
def switch_command(
    profile: str | None,
    /,
    job: str,
    model: str | None,
    max_distance: float | None,
    max_deletes: int | None,
    workers: int | None,
    as_json: bool,  # noqa: FBT001  click passes flags by name
    **request: Any,  # noqa: ANN401
) -> int:
    """Bring JOB's table to another model: filled beside it, looked over, renamed in one step.

    Typed again, it goes on where it was cut short.
    """
    roll_back, drop_kept = request.pop("roll_back"), request.pop("drop_kept")
    sure = request.pop("yes")
    _refuse_surplus(job, drop_kept=drop_kept, roll_back=roll_back)
    session = Session.open(profile, workers=workers)
    if drop_kept:
        return _drop_kept(session, job, sure=sure, as_json=as_json)
    started = time.monotonic()
    declared, tools = session.job(job), session.tools(at_work=True)
    asked: dict[str, Any] = {"request": Request(**request), "max_deletes": max_deletes}
    if roll_back:
        ended = switching.roll_back(declared, tools, **asked)
    else:
        ended = switching.switch(declared, tools, model=model, max_distance=max_distance, **asked)
    seconds = time.monotonic() - started
    tell(_facts(job, ended, seconds), _text(job, ended, seconds), as_json=as_json)
    return ExitCode.QUARANTINED if ended.set_aside else ExitCode.DONE


def _refuse_surplus(job: str, *, drop_kept: bool, roll_back: bool) -> None:
    """Nobody who types a limit or a model is to believe that it was heeded where it was not."""
    of_switch = {str(option.name) for option in switch_command.params} - {"yes"}
    heeded, doing, hint = of_switch, ": only --drop-kept asks", "leave it out"
    if drop_kept:
        heeded, hint = {"job", "drop_kept", "yes", "as_json"}, f"mlbatch switch {job} --drop-kept"
        doing = " with --drop-kept, which drops what switches left behind, and switches nothing"
    elif roll_back:
        heeded, hint = of_switch - {"model", "max_distance"}, f"mlbatch switch {job} --roll-back"
        doing = " with --roll-back, which goes to the generation before, with the model that it has"
    surplus = typed_beside(heeded)
    if surplus:
        message = f"{surplus} would do nothing{doing}"
        raise UsageError(message, hint=hint)


def _drop_kept(session: Session, job: str, *, sure: bool, as_json: bool) -> int:
    declared, tools = session.job(job), session.tools()
    table, generations = declared.output.table.name, switching.kept(declared, tools)
    names = [beside(table, generation) for generation in generations]
    told = ", ".join(names)
    if not names:
        text, dropped = f"Nothing to drop: {table} alone has rows.", False
    elif not sure and not _agreed(f"Drop {told}? There is no way back then", job):
        text, dropped = "Nothing was dropped.", False
    else:
        switching.drop_kept(declared, tools, generations)
        text, dropped = f"Dropped {told}.", True
    facts: dict[str, object] = {
        "schema": "mlbatch.drop_kept/1",
        "job": job,
        "table": table,
        "dropped": names if dropped else [],
        "kept": [] if dropped else names,
    }
    tell(facts, text, as_json=as_json)
    return ExitCode.DONE


def _agreed(question: str, job: str) -> bool:
    try:
        return click.confirm(question, err=True)
    except (click.Abort, RuntimeError) as abort:
        # Whoever types an end of file, or stops the command, was asked; a closed stdin is None.
        if sys.stdin and (sys.stdin.isatty() or isinstance(abort.__context__, KeyboardInterrupt)):
            raise
        message = "there is nobody to ask: stdin is no terminal, and has no answer either"
        raise UsageError(message, hint=f"mlbatch switch {job} --drop-kept --yes") from abort


def _facts(job: str, ended: Switched, seconds: float) -> dict[str, object]:
    found = ended.inspection
    return {
        "schema": "mlbatch.switch/1",
        "job": job,
        "table": ended.table,
        "switched": ended.idle is None,
        "generation": ended.after.generation,
        "model_version": ended.after.model_version,
        "model_version_before": ended.before.model_version,
        "kept": ended.kept if ended.idle is None else None,
        "rows": found.rows if found else None,
        "rows_quarantined": ended.set_aside,
        "rescored": found.rescored if found else None,
        "label_distance": round(found.distance.labels, 4) if found else None,
        "score_distance": round(found.distance.scores, 4) if found else None,
        "labels_changed": round(found.distance.changed, 4) if found else None,
        "seconds": round(seconds, 2),
    }


def _text(job: str, ended: Switched, seconds: float) -> str:
    after, before, found = ended.after, ended.before, ended.inspection
    if ended.idle is not None:
        return f"Nothing to do for {ended.table}: {ended.idle}."
    lines = [
        f"{job} · {ended.table} is of model v{after.model_version} (was v{before.model_version})"
    ]
    if found is not None:
        apart = found.distance
        lines.append(
            f"{found.rows:,} rows; {found.rescored:,} predicted once more and the same. "
            f"{apart.changed:.1%} of the labels changed; distance of labels {apart.labels:.3f}, "
            f"of scores {apart.scores:.3f}."
        )
    if ended.set_aside:
        lines.append(f"{ended.set_aside:,} rows are quarantined (see mlbatch show {job}).")
    lines.append(
        f"Done in {seconds:.1f} s. {ended.kept} keeps the rows of model v{before.model_version}"
    )
    if found is not None:
        lines[-1] += f"; back: mlbatch switch {job} --roll-back"
    return "\n".join(lines) + "."
