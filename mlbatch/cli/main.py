"""Commands by name, each loaded when it is called, so that ``--help`` is instant."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from difflib import get_close_matches
from importlib import import_module

import click

from mlbatch import __version__
from mlbatch.cli.answer import (
    JSON,
    end_facts,
    error_facts,
    show_error,
    tell,
    tell_with_profile,
    typeable,
)
from mlbatch.errors import (
    ExitCode,
    MlbatchError,
    OutOfResources,
    astray,
    barred,
    out_of_resources,
)

FINISH_SECONDS = 20.0
"""Schedulers kill some 30 s after they asked for the end."""
_COMMANDS = {
    "run": ("mlbatch.cli.work", "Train or infer one job."),
    "plan": ("mlbatch.cli.plan", "Show what an inference would do; writes nothing."),
    "register": ("mlbatch.cli.work", "Register a fitted model that the registry did not take."),
    "switch": ("mlbatch.cli.switch", "Bring a table to another model, or back, in one step."),
    "list": ("mlbatch.cli.look", "The project's jobs, and what is wrong with them."),
    "show": ("mlbatch.cli.show", "One job: features, output table, models, last runs."),
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
@click.option(
    "--profile",
    metavar="NAME",
    help="Which [profiles.NAME] of mlbatch.toml to use; MLBATCH_PROFILE by default.",
)
@click.version_option(__version__, prog_name="mlbatch")
@click.pass_context
def cli(ctx: click.Context, profile: str | None) -> None:
    """Train on the warehouse, write predictions back, exactly once."""
    ctx.obj = profile
    # The private servers are the same whatever the profile.
    tell_with_profile(profile, _COMMANDS.keys() - {"devstack"})


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


_GOES_ON = "what was committed stays, run again to go on"
_UNFORESEEN = "nobody foresaw this; stderr has the traceback"


def main() -> None:
    """Entry point: run the command line and turn errors into one message and one exit code."""
    signal.signal(signal.SIGTERM, _terminate)
    _hold_streams()
    try:
        code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code, hint = error.exit_code, _hint(error)
        if hint:
            click.echo(f"hint: {typeable(hint)}", err=True)
        told = end_facts("UsageError", error.format_message(), code, hint or "look at --help")
        _for_machines(told)
    except (click.Abort, KeyboardInterrupt):
        code = _cut_short("interrupted", ExitCode.INTERRUPTED)
    except Terminated:
        code = _cut_short("terminated", ExitCode.TERMINATED)
    except MlbatchError as error:
        code = _fail(error)
    except Exception as error:
        known = _foreseen(error)
        if known is None:
            _for_machines(end_facts(type(error).__name__, str(error), ExitCode.FAILED, _UNFORESEEN))
            raise
        code = _fail(known)
    sys.exit(int(code or 0))


_MISSING = {
    "job": "mlbatch list names the jobs",
    "training": "the error of the training whose model was not registered names it",
}


def _hint(error: click.ClickException) -> str | None:
    """What click's own words leave open to whoever meets these commands first."""
    if isinstance(error, click.NoSuchOption) and error.option_name == "--profile":
        return "it stands before the command: mlbatch --profile NAME COMMAND"
    if isinstance(error, click.MissingParameter) and error.param:
        return _MISSING.get(str(error.param.name))
    typed = str(getattr(error, "command_name", ""))
    near = get_close_matches(typed, _COMMANDS, n=1)
    return f"did you mean `{near[0]}`?" if near else None


def _hold_streams() -> None:
    """The number of a closed stream would go to the next file, and what is told into that file."""
    inheritable = True
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), inheritable)


def _foreseen(error: Exception) -> MlbatchError | None:
    """What can happen anywhere: disk, memory and files run out, or a path is not ours to use."""
    if isinstance(error, MemoryError):
        return out_of_resources(error)
    if isinstance(error, OSError):
        return out_of_resources(error) or barred(error) or astray(error)
    return None


def _fail(error: MlbatchError) -> int:
    show_error(error)
    _for_machines(error_facts(error))
    return error.exit_code


def _cut_short(how: str, code: ExitCode) -> int:
    click.echo(f"\n{how}; {_GOES_ON}", err=True)
    _for_machines(end_facts(how.capitalize(), how, code, _GOES_ON))
    return code


def _for_machines(facts: dict[str, object]) -> None:
    """Who asked for JSON gets an object in any case, also where the options were not understood."""
    if JSON in sys.argv[1:]:
        # The code tells what happened before, and so does stderr.
        with suppress(OutOfResources):
            tell(facts, "", as_json=True)
