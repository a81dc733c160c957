"""`devstack up`, `devstack down` and `devstack status`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from mlbatch.cli.answer import tell
from mlbatch.devstack.stack import Stack, as_toml, settings
from mlbatch.devstack.state import Face
from mlbatch.errors import ExitCode
from mlbatch.project import find_root
from mlbatch.settings import DEVSTACK, HOME

if TYPE_CHECKING:
    from mlbatch.devstack.stack import Status


@click.group("devstack")
def devstack_command() -> None:
    """Private servers for the whole production path: Redshift, S3, MySQL and MLflow stand-ins."""


@devstack_command.command("up")
@click.option(
    "--warehouse",
    type=click.Choice(get_args(Face)),
    help="By which face of Redshift to read; data_api at first, then the last choice.",
)
def up_command(warehouse: Face | None) -> int:
    """Start what does not run yet, and print the settings to use it. Progress goes to stderr."""
    state = _stack().up(warehouse, lambda name, text: click.echo(f"  {name:<10} {text}", err=True))
    click.echo(f"# The servers run. Use them: mlbatch --profile {DEVSTACK} doctor")
    click.echo("# The profile is found by its name; these lines are for another mlbatch.toml.")
    click.echo(as_toml(settings(state), DEVSTACK), nl=False)
    return ExitCode.DONE


@devstack_command.command("down")
@click.option("--keep", is_flag=True, help="Keep the data for the next start; S3 forgets anyway.")
def down_command(keep: bool) -> int:  # noqa: FBT001  click passes flags by name
    """Stop the servers and remove their data."""
    stopped = _stack().down(keep=keep)
    click.echo(f"Stopped: {', '.join(stopped)}." if stopped else "Nothing ran.")
    return ExitCode.DONE


@devstack_command.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def status_command(as_json: bool) -> int:  # noqa: FBT001
    """Each server: whether it runs, its ports, its process and since when."""
    found = _stack().status()
    facts = {"schema": "mlbatch.devstack/1", "servers": [_facts(one) for one in found]}
    tell(facts, "\n".join(_lines(found)), as_json=as_json)
    ill = any(one.state in ("dead", "silent") for one in found)
    return ExitCode.FAILED if ill else ExitCode.DONE


def _stack() -> Stack:
    return Stack(find_root(Path.cwd()) / HOME / DEVSTACK)


def _facts(one: Status) -> dict[str, object]:
    since = one.since.isoformat(timespec="seconds") if one.since else None
    return {
        "server": one.name,
        "state": one.state,
        "ports": dict(one.ports),
        "pid": one.pid,
        "since": since,
    }


def _lines(found: list[Status]) -> list[str]:
    lines = [f"{'SERVER':<10} {'STATE':<8} {'PID':<8} {'SINCE (UTC)':<20} PORTS"]
    for one in found:
        since = f"{one.since:%Y-%m-%d %H:%M:%S}" if one.since else "-"
        ports = ", ".join(f"{name} {port}" for name, port in one.ports.items()) or "-"
        lines.append(f"{one.name:<10} {one.state:<8} {one.pid or '-':<8} {since:<20} {ports}")
        if one.state in ("dead", "silent"):
            lines.append(f"{'':<10} its log is {one.log}; start it again: mlbatch devstack up")
    return lines
