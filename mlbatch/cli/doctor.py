"""`doctor`."""

from __future__ import annotations

import click

from mlbatch.cli.session import Session
from mlbatch.doctor import examine
from mlbatch.errors import ExitCode


@click.command("doctor")
@click.pass_obj
def doctor_command(profile: str | None) -> int:
    """Check versions, connections and rights of the profile one by one, with what to do."""
    session = Session.open(profile)
    worst = ExitCode.DONE
    for finding in examine(session.tools(), list(session.project.jobs.values())):
        click.echo(f"{'ok' if finding.is_well else 'NO':<3} {finding.name:<24} {finding.detail}")
        if finding.hint:
            click.echo(f"{'':<29}hint: {finding.hint}")
        worst = worst if finding.is_well or worst is not ExitCode.DONE else finding.exit_code
    for name, fault in session.project.faults.items():
        click.echo(f"NO  job {name:<20} {fault}")
        worst = worst if worst is not ExitCode.DONE else ExitCode.USAGE
    click.echo("\nAll is well." if worst is ExitCode.DONE else "\nMend what says NO, top first.")
    return worst
