"""Generations of an output table. One serves, under the declared name; others stand beside it.

A new model is never mixed into the table that serves: it fills a generation of its own, which takes
the declared name when it is complete. The one before keeps its rows, for the way back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

FIRST = "g1"
"""Serves from a table's first run on, and wherever a ledger says nothing else."""
_BESIDE = re.compile(r".+__g[0-9]+")


class GenerationState(StrEnum):
    """What became of a generation. Which one serves, `Active` alone tells."""

    BUILDING = "building"
    """Filled by a switch that is not through."""
    SERVED = "served"
    """Serves, or did so until another took its place; kept for the way back."""
    ROLLED_BACK = "rolled_back"
    """Served, until the one before was put back."""
    ABANDONED = "abandoned"
    """Given up before it ever served."""


@dataclass(frozen=True, slots=True)
class Generation:
    """One row of the generation table; the first generation of a table may have none."""

    name: str
    state: GenerationState
    model_version: int
    replaced: str | None
    """The generation that it took the place of; None as long as it never served."""


@dataclass(frozen=True, slots=True)
class Active:
    """What serves under the declared name."""

    generation: str
    model_version: int
    run_id: str
    """The last run that was finished in it."""
    switching: str | None = None
    """The generation that was about to take over when somebody was cut short."""


def number(generation: str) -> int:
    """Generations count up from 1, as long as a table lives."""
    return int(generation[1:])


def after(generations: Iterable[str]) -> str:
    """The first name that none of ``generations`` has had."""
    return f"g{max(map(number, generations), default=number(FIRST)) + 1}"


def beside(table: str, generation: str) -> str:
    """The name of a generation that does not serve: fits 64 characters, since ``table`` has 48."""
    return f"{table}__{generation}"


def is_beside(table: str) -> bool:
    """Whether a table of this name would be taken for another table's generation."""
    return _BESIDE.fullmatch(table) is not None
