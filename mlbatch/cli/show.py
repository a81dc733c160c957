"""`show`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from mlbatch.cli.answer import tell
from mlbatch.cli.look import run_facts
from mlbatch.cli.session import Session
from mlbatch.errors import ExitCode
from mlbatch.generation import Active, Generation, GenerationState, beside
from mlbatch.ledger import QuarantinedRow, Run, Totals
from mlbatch.nurse import PartAside, parts_aside
from mlbatch.reporting import counted
from mlbatch.tracking import ModelVersion

if TYPE_CHECKING:
    from mlbatch.job import Job
    from mlbatch.sink import Ledger
    from mlbatch.tools import Tools

LAST_RUNS = 5


@dataclass(frozen=True, slots=True)
class _RunSeen:
    """One of the last runs, and what it set aside."""

    run: Run
    totals: Totals
    parts: tuple[PartAside, ...]
    rows: tuple[QuarantinedRow, ...]
    """The first of them."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """What registry and ledger know of a job."""

    champion: ModelVersion | None
    active: Active | None
    others: tuple[Generation, ...]
    """Generations that do not serve and whose table is there."""
    dropped: int
    """Generations whose table is gone."""
    runs: tuple[_RunSeen, ...]
    """Newest first."""


@click.command("show")
@click.argument("job")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
@click.pass_obj
def show_command(profile: str | None, job: str, as_json: bool) -> int:  # noqa: FBT001
    """One job: what it reads, what each column of its table means, its model and last runs."""
    session = Session.open(profile)
    declared, tools = session.job(job), session.tools()
    seen = _look(declared, tools)
    facts = {"schema": "mlbatch.show/1", **_declared_facts(declared), **_seen_facts(seen)}
    text = "\n".join([*_declared(declared), *_served(declared, seen)])
    tell(facts, text, as_json=as_json)
    return ExitCode.DONE


def _look(job: type[Job], tools: Tools) -> _Seen:
    table, ledger = job.output.table.name, tools.sink.ledger()
    active = ledger.active(table)
    rest = [g for g in ledger.generations(table) if active and g.name != active.generation]
    others = tuple(
        g
        for g in rest
        if g.state is GenerationState.BUILDING or tools.sink.holds(beside(table, g.name))
    )
    return _Seen(
        champion=tools.tracking.resolve(job.name),
        active=active,
        others=others,
        dropped=len(rest) - len(others),
        runs=tuple(_run_seen(run, ledger) for run in ledger.runs(table, limit=LAST_RUNS)),
    )


def _run_seen(run: Run, ledger: Ledger) -> _RunSeen:
    totals, parts = Totals.of(ledger.parts(run.run_id)), parts_aside(run.run_id, ledger)
    return _RunSeen(run, totals, parts, ledger.quarantined(run.run_id, LAST_RUNS))


def _declared_facts(job: type[Job]) -> dict[str, object]:
    view, table = job.features.view, job.output.table
    return {
        "job": job.name,
        "description": job.description,
        "owner": job.owner,
        "view": view.name,
        "view_description": view.description,
        "inputs": list(job.inputs),
        "cursor": view.cursor,
        "table": table.name,
        "table_description": table.description,
        "key": list(table.key),
        "columns": [
            {"name": c.name, "type": str(c.type), "description": c.description}
            for c in table.all_columns
        ],
        "gates": [str(gate) for gate in job.gates],
    }


def _seen_facts(seen: _Seen) -> dict[str, Any]:
    champion, active = seen.champion, seen.active
    return {
        "champion": champion.version if champion else None,
        "champion_metrics": dict(champion.metrics) if champion else {},
        "generation": active.generation if active else None,
        "model_version": active.model_version if active else None,
        "other_generations": [
            {"generation": g.name, "state": str(g.state), "model_version": g.model_version}
            for g in seen.others
        ],
        "generations_dropped": seen.dropped,
        "runs": [
            run_facts(one.run, one.totals)
            | {
                "parts_quarantined": [asdict(part) for part in one.parts],
                "first_quarantined": [asdict(row) for row in one.rows],
            }
            for one in seen.runs
        ],
    }


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


def _served(job: type[Job], seen: _Seen) -> list[str]:
    model = _champion_line(seen.champion) if seen.champion else "none yet"
    lines = [f"Model   {model}", *_generations(job.output.table.name, seen)]
    for one in seen.runs:
        lines.append(f"Run     {_run_line(one)}")
        lines += [f"        {part}" for part in one.parts]
        lines += [f"        quarantined {row}" for row in one.rows]
    return lines


def _champion_line(champion: ModelVersion) -> str:
    score = champion.metrics.get("f1_macro")
    return f"v{champion.version}" + ("" if score is None else f", macro F1 {score:.3f}")


def _generations(table: str, seen: _Seen) -> list[str]:
    """What serves, and what is beside it; those whose table is gone are counted."""
    active = seen.active
    if active is None:
        return []
    lines = [f"Serves  {table}: generation {active.generation}, model v{active.model_version}"]
    lines += [f"        {g.name}: {g.state}, model v{g.model_version}" for g in seen.others]
    dropped = f"        {counted(seen.dropped, 'generation')} dropped"
    return [*lines, dropped] if seen.dropped else lines


def _run_line(one: _RunSeen) -> str:
    run, totals = one.run, one.totals
    counts = f"{totals.done:,}/{totals.expected:,} rows, {totals.quarantined:,} quarantined"
    line = f"{run.run_id} {run.created_at:%Y-%m-%d %H:%M} UTC {run.new.kind} {run.state} {counts}"
    return f"{line}: {run.error}" if run.error else line
