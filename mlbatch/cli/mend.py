"""`reconcile` and `retry`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from mlbatch.cli.answer import tell
from mlbatch.cli.session import Session
from mlbatch.errors import ExitCode, UsageError
from mlbatch.keys import text
from mlbatch.reconciliation import Differences, Found
from mlbatch.repair import reconcile, retry, without_key
from mlbatch.reporting import counted

if TYPE_CHECKING:
    from mlbatch.inference import Inference

SHOWN = 3


@click.command("reconcile")
@click.argument("job")
@click.option("--dry-run", is_flag=True, help="Only tell what is not as it should be.")
@click.option(
    "--max-deletes",
    type=click.IntRange(min=0),
    help="Most predictions to remove whose row has vanished; one in a hundred, or ten, by default.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
@click.pass_obj
def reconcile_command(
    profile: str | None,
    /,
    job: str,
    dry_run: bool,  # noqa: FBT001  click passes flags by name
    max_deletes: int | None,
    as_json: bool,  # noqa: FBT001
) -> int:
    """Compare source and table by key; predict again what the delta cannot have seen."""
    session = Session.open(profile)
    tools = session.tools(at_work=True)
    done = reconcile(session.job(job), tools, dry_run=dry_run, max_deletes=max_deletes)
    mended, aside = bool(done.runs), sum(run.totals.quarantined for run in done.runs)
    facts = _facts(job, done.found, aside, mended=mended)
    tell(facts, _text(job, done.found, aside, mended=mended), as_json=as_json)
    return ExitCode.QUARANTINED if aside or done.found.set_aside.count else ExitCode.DONE


def _facts(job: str, found: Differences, aside: int, *, mended: bool) -> dict[str, object]:
    return {
        "schema": "mlbatch.reconcile/1",
        "job": job,
        "source_rows": found.source_rows,
        "table_rows": found.table_rows,
        "missing": found.missing.count,
        "stale": found.stale.count,
        "outdated": found.outdated.count,
        "gone": found.gone.count,
        "set_aside": found.set_aside.count,
        "mended": mended and not aside,
        "rows_quarantined": aside,
    }


def _text(job: str, found: Differences, aside: int, *, mended: bool) -> str:
    lines = [f"{found.source_rows:,} live rows in the source, {found.table_rows:,} predictions."]
    meanings = {
        "missing": "without a prediction",
        "stale": "changed since they were predicted",
        "outdated": "predicted by another version of the model",
        "gone": "predicted, and no longer in the source",
    }
    for name, meaning in meanings.items():
        kind: Found = getattr(found, name)
        if kind.count:
            first = ", ".join(text(key) for key in kind.first[:SHOWN])
            more = " ..." if kind.count > SHOWN else ""
            lines.append(f"{kind.count:>8,} {meaning}: {first}{more}")
    if found.set_aside.count:
        again = f"mlbatch run {job} --mode infer --full tries them again"
        lines.append(
            f"{found.set_aside.count:>8,} set aside by earlier runs and unchanged since: {again}"
        )
    if not (found.wanting.count or found.gone.count):
        lines.append(
            f"Nothing {'else ' * bool(found.set_aside.count)}is missing, stale or surplus."
        )
    elif aside:
        lines.append(f"{aside:,} of these rows are quarantined (see mlbatch show {job}).")
    elif mended:
        lines.append("All of it is mended.")
    else:
        lines.append("Nothing was changed. Without --dry-run it is mended.")
    return "\n".join(lines)


@click.command("retry")
@click.argument("job")
@click.option("--quarantined", is_flag=True, help="What the last finished run set aside.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
@click.pass_obj
def retry_command(profile: str | None, /, job: str, quarantined: bool, as_json: bool) -> int:  # noqa: FBT001
    """Predict rows again that were quarantined, after source or model were mended."""
    if not quarantined:
        message = "say what to retry"
        raise UsageError(message, hint=f"mlbatch retry {job} --quarantined")
    session = Session.open(profile)
    declared, tools = session.job(job), session.tools(at_work=True)
    ended = retry(declared, tools)
    keyless = 0 if ended else without_key(declared, tools)
    tell(_retry_facts(job, ended, keyless), _retry_text(job, ended, keyless), as_json=as_json)
    return ExitCode.QUARANTINED if keyless or _left_aside(ended) else ExitCode.DONE


def _left_aside(ended: Inference | None) -> int:
    return ended.totals.quarantined if ended else 0


def _retry_facts(job: str, ended: Inference | None, keyless: int) -> dict[str, object]:
    return {
        "schema": "mlbatch.retry/1",
        "ok": True,
        "job": job,
        "run": ended.run.run_id if ended else None,
        "rows_read": ended.totals.expected if ended else 0,
        "rows_written": ended.totals.written if ended else 0,
        "rows_quarantined": _left_aside(ended),
        "rows_without_key": keyless,
        "parts_quarantined": [asdict(part) for part in ended.parts_aside] if ended else [],
        "nothing_to_do": ended is None,
    }


def _retry_text(job: str, ended: Inference | None, keyless: int) -> str:
    if keyless:
        rows = f"{counted(keyless, 'row')} without a key, by which it could be tried again"
        return f"Nothing was tried again: the last finished run set aside {rows} (see mlbatch show {job})."
    if ended is None:
        return "Nothing to do: the last finished run set no row aside."
    totals = ended.totals
    told = (
        f"{counted(totals.expected, 'row')} tried again: {totals.written:,} written, "
        f"{totals.quarantined:,} still in quarantine."
    )
    return "\n".join([told, *map(str, ended.parts_aside)])
