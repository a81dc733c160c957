"""How every command answers: facts as one JSON object or as text on stdout, errors on stderr too."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from mlbatch.errors import DeclarationError, ExitCode, MlbatchError

if TYPE_CHECKING:
    from collections.abc import Mapping

JSON = "--json"


def tell(facts: Mapping[str, object], text: str, *, as_json: bool) -> None:
    """What came out, on stdout: ``facts`` as one JSON object, or else ``text``."""
    click.echo(json.dumps(facts, ensure_ascii=False) if as_json else text)


def show_error(error: MlbatchError) -> None:
    """What happened, where, and what to do next, on stderr."""
    click.echo(f"error: {error.message}", err=True)
    if isinstance(error, DeclarationError) and error.location:
        click.echo(f"  --> {error.location}", err=True)
    if error.hint:
        click.echo(f"hint: {error.hint}", err=True)


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
        "hint": hint,
        "location": None,
        "exit_code": int(code),
        "try_again": code == ExitCode.TEMPORARY,
    }
