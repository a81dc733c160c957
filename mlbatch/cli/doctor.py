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
    codes = []
    for finding in examine(session.tools(), list(session.project.jobs.values())):
        mark = ("ok" if finding.is_well else "NO") if finding.looked else "--"
        click.echo(f"{mark:<3} {finding.name:<24} {finding.detail}")
        if finding.hint:
            click.echo(f"{'':<29}hint: {finding.hint}")
        codes.append(finding.exit_code)
    for name, fault in session.project.faults.items():
        click.echo(f"NO  job {name:<20} {fault}")
        codes.append(fault.exit_code)
    first = next((code for code in codes if code is not ExitCode.DONE), ExitCode.DONE)
    click.echo("\nAll is well." if first is ExitCode.DONE else "\nMend what says NO, top first.")
    return first
