"""`doctor`."""

from __future__ import annotations

from collections.abc import Iterator

import click

from mlbatch.cli.answer import say, tell, typeable
from mlbatch.cli.session import Session
from mlbatch.doctor import Finding, examine
from mlbatch.errors import ExitCode


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
@click.pass_obj
def doctor_command(profile: str | None, as_json: bool) -> int:  # noqa: FBT001
    """Check versions, connections and rights of the profile one by one, with what to do."""
    found = []
    for finding in _findings(Session.open(profile)):
        found.append(finding)
        if not as_json:
            # Each at once: the next may take a server's time to answer.
            _say(finding)
    codes = [finding.exit_code for finding in found]
    first = next((code for code in codes if code is not ExitCode.DONE), ExitCode.DONE)
    end = "\nAll is well." if first is ExitCode.DONE else "\nMend what says NO, top first."
    tell(_facts(found, first), end, as_json=as_json)
    return first


def _findings(session: Session) -> Iterator[Finding]:
    yield from examine(session.tools(), list(session.project.jobs.values()))
    for name, fault in session.project.faults.items():
        yield Finding(f"job {name}", fault.exit_code, str(fault), fault.hint)


def _say(finding: Finding) -> None:
    mark = ("ok" if finding.is_well else "NO") if finding.looked else "--"
    say(f"{mark:<3} {finding.name:<24} {finding.detail}")
    if finding.hint:
        say(f"{'':<29}hint: {finding.hint}")


def _facts(found: list[Finding], first: ExitCode) -> dict[str, object]:
    checks = [
        {
            "check": one.name,
            "ok": one.is_well if one.looked else None,
            "detail": one.detail,
            "hint": typeable(one.hint) if one.hint else None,
            "exit_code": int(one.exit_code),
        }
        for one in found
    ]
    return {
        "schema": "mlbatch.doctor/1",
        "ok": first is ExitCode.DONE,
        "checks": checks,
        "exit_code": int(first),
        "try_again": first is ExitCode.TEMPORARY,
    }
