"""A run's row, written and read."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TYPE_CHECKING

from mlbatch.ledger import ModelPin, NewRun, Run, RunKind, RunState

if TYPE_CHECKING:
    from sqlalchemy import RowMapping

UNFINISHED = tuple(state.value for state in RunState if not state.is_terminal)

_PIN = {"model_name": "name", "model_version": "version", "model_digest": "digest"}


def new_values(new: NewRun) -> dict[str, object]:
    """What the columns of a new run hold of it."""
    values = asdict(new)
    pin = values.pop("model")
    return values | {column: pin[name] for column, name in _PIN.items()} | {"kind": new.kind.value}


def run_of(row: RowMapping) -> Run:
    """A row as a value."""
    pin = ModelPin(**{name: row[column] for column, name in _PIN.items()})
    plain = {f.name: row[f.name] for f in fields(NewRun) if f.name not in ("model", "kind")}
    new = NewRun(**plain, model=pin, kind=RunKind(row["kind"]))
    rest = {f.name: row[f.name] for f in fields(Run) if f.name not in ("new", "state")}
    return Run(new=new, state=RunState(row["state"]), **rest)
