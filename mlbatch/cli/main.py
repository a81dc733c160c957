"""Commands by name, each loaded when it is called, so that ``--help`` is instant."""

from __future__ import annotations

import os
import signal
import sys
from importlib import import_module

import click

from mlbatch import __version__
from mlbatch.errors import DeclarationError, ExitCode, MlbatchError, out_of_resources

FINISH_SECONDS = 20.0
"""Schedulers kill some 30 s after they asked for the end."""
_COMMANDS = {
    "run": ("mlbatch.cli.work", "Train or infer one job."),
    "plan": ("mlbatch.cli.work", "Show what an inference would do; writes nothing."),
    "register": ("mlbatch.cli.work", "Register a fitted model that the registry did not take."),
    "switch": ("mlbatch.cli.switch", "Bring a table to another model, or back, in one step."),
    "list": ("mlbatch.cli.look", "The project's jobs, and what is wrong with them."),
    "show": ("mlbatch.cli.look", "One job: features, output table, models, last runs."),
    "status": ("mlbatch.cli.look", "Every job: fresh, running, left unfinished."),
    "reconcile": ("mlbatch.cli.mend", "Find and mend what the delta cannot have seen."),
    "retry": ("mlbatch.cli.mend", "Predict rows again that were quarantined."),
    "doctor": ("mlbatch.cli.doctor", "Check connections and rights one by one, with what to do."),
    "devstack": (
        "mlbatch.cli.devstack",
        "Private servers like the real ones, to try everything on.",
    ),
}


class _LazyGroup(click.Group):
    """Knows names and one-line helps by heart; imports a command only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """In the order in which people meet them."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command itself, imported now."""
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(
            import_module(_COMMANDS[cmd_name][0]), f"{cmd_name}_command"
        )
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The list of commands, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 failed, 2 usage or declaration, 3 a gate refused, "
    "4 done with quarantined rows, 75 busy or temporary: try again, 130 interrupted, 143 terminated.",
)
@click.option("--profile", help="Which [profiles.NAME] of mlbatch.toml to use.")
@click.version_option(__version__, prog_name="mlbatch")
@click.pass_context
def cli(ctx: click.Context, profile: str | None) -> None:
    """Train on the warehouse, write predictions back, exactly once."""
    ctx.obj = profile


class Terminated(BaseException):
    """The scheduler wants this process to end: leases are given back on the way out."""


def _terminate(*_: object) -> None:
    """Leave in order: open transactions are finished, leases given back, for so many seconds."""
    for late in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(late, _leave_at_once)
    signal.setitimer(signal.ITIMER_REAL, FINISH_SECONDS)
    raise Terminated


def _leave_at_once(*_: object) -> None:
    """What is open is rolled back by the server; the lease runs out by itself."""
    os._exit(ExitCode.TERMINATED)


def main() -> None:
    """Entry point: run the command line and turn errors into one message and one exit code."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("\ninterrupted; what was committed stays, run again to go on", err=True)
        code = ExitCode.INTERRUPTED
    except Terminated:
        click.echo("\nterminated; what was committed stays, run again to go on", err=True)
        code = ExitCode.TERMINATED
    except MlbatchError as error:
        show_error(error)
        code = error.exit_code
    except (OSError, MemoryError) as error:
        code = _show_shortage(error)
    sys.exit(int(code or 0))


def _show_shortage(error: Exception) -> int:
    """Disk, memory and files can run out anywhere; any other error of the system is a defect."""
    short = out_of_resources(error)
    if short is None:
        raise error
    show_error(short)
    return short.exit_code


def show_error(error: MlbatchError) -> None:
    """What happened, where, and what to do next, on stderr."""
    click.echo(f"error: {error.message}", err=True)
    if isinstance(error, DeclarationError) and error.location:
        click.echo(f"  --> {error.location}", err=True)
    if error.hint:
        click.echo(f"hint: {error.hint}", err=True)
