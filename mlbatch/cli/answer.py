"""How every command answers: facts as one JSON object or as text on stdout, errors on stderr too."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from mlbatch.errors import DeclarationError, ExitCode, MlbatchError, OutOfResources

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

JSON = "--json"


@dataclass(slots=True)
class _Spelling:
    """How commands are told in this process."""

    command: re.Pattern[str] | None = None
    prefix: str = ""


_SPELLING = _Spelling()


def tell_with_profile(profile: str | None, commands: Iterable[str]) -> None:
    """Let ``commands`` be told with ``profile`` from now on; None where it was not typed.

    Who copies what a hint says would otherwise act on another database than the one it speaks of.
    """
    known = "|".join(map(re.escape, commands))
    _SPELLING.command = re.compile(rf"(?<![\w./-])mlbatch (?=(?:{known})(?![\w-]))")
    _SPELLING.prefix = f"mlbatch --profile {shlex.quote(profile)} " if profile else "mlbatch "


def typeable(text: str) -> str:
    """``text``, with the commands in it as they are to be typed."""
    spelling = _SPELLING
    return spelling.command.sub(lambda _: spelling.prefix, text) if spelling.command else text


def say(text: str) -> None:
    """Tell people ``text`` on stdout."""
    _write(typeable(text))


def _write(text: str) -> None:
    """On stdout; OutOfResources where it takes no more, which says nothing of the work itself."""
    try:
        click.echo(text)
    except BrokenPipeError:
        # Who read it has seen enough; click ends quietly then.
        raise
    except OSError as error:
        # Python tries what is left once more at its end, and so does whoever tells of this error.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        message = f"the output of this command cannot be written to stdout: {error}"
        hint = "what it did is done, only the report is lost: make room there; mlbatch status tells the state"
        raise OutOfResources(message, hint=hint) from error


def tell(facts: Mapping[str, object], text: str, *, as_json: bool) -> None:
    """What came out, on stdout: ``facts`` as one JSON object, or else ``text``."""
    if as_json:
        _write(json.dumps(facts, ensure_ascii=False))
    else:
        say(text)


def show_error(error: MlbatchError) -> None:
    """What happened, where, and what to do next, on stderr."""
    click.echo(f"error: {error.message}", err=True)
    if isinstance(error, DeclarationError) and error.location:
        click.echo(f"  --> {error.location}", err=True)
    if error.hint:
        click.echo(f"hint: {typeable(error.hint)}", err=True)


def error_facts(error: MlbatchError) -> dict[str, object]:
    """The same for machines; ``error`` names the class in `mlbatch.errors`."""
    location = error.location if isinstance(error, DeclarationError) else None
    kind = type(error).__name__
    return end_facts(kind, error.message, error.exit_code, error.hint) | {"location": location}


def end_facts(kind: str, message: str, code: int, hint: str | None) -> dict[str, object]:
    """Why a command came to no result."""
    return {
        "schema": "mlbatch.error/1",
        "ok": False,
        "error": kind,
        "message": message,
        "hint": typeable(hint) if hint else None,
        "location": None,
        "exit_code": int(code),
        "try_again": code == ExitCode.TEMPORARY,
    }
