"""Rules that make the local Redshift misbehave on purpose, changed while it runs."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Kind = Literal["delay", "error", "drop", "lose_reply", "abort_unload_after_parts", "http"]


class Dropped(Exception):
    """The face closes the connection without a reply."""


@dataclass(slots=True)
class Fault:
    """One rule: what happens to statements that match, and how often."""

    kind: Kind
    pattern: str = ""
    """Regular expression, found anywhere in the statement, whatever its case."""
    times: int = 1
    """How often it happens; -1 is for ever."""
    seconds: float = 0.0
    sqlstate: str = "XX000"
    message: str = "made to fail"
    parts: int = 0
    """`abort_unload_after_parts`: parts that are written before the failure."""
    status: int = 400
    code: str = "ThrottlingException"
    """`http`: what an HTTP face answers, matched on ``OPERATION statement``."""

    def __post_init__(self) -> None:
        """A rule that can never match is refused."""
        if self.kind not in get_args(Kind):
            message = f"a fault's kind is one of {', '.join(get_args(Kind))}, not {self.kind!r}"
            raise ValueError(message)
        re.compile(self.pattern)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Fault:
        """A rule out of JSON; ValueError says what is wrong with it."""
        try:
            return cls(**document)
        except (TypeError, re.error) as error:
            message = f"not a fault: {error}"
            raise ValueError(message) from error


@dataclass(slots=True)
class Faults:
    """The rules in force, shared by every session and face."""

    rules: list[Fault] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, fault: Fault) -> None:
        """From now on."""
        with self._lock:
            self.rules.append(fault)

    def clear(self) -> None:
        """Behave again."""
        with self._lock:
            self.rules.clear()

    def take(self, kind: Kind, statement: str) -> Fault | None:
        """The first rule of ``kind`` that matches, used up by one time."""
        with self._lock:
            for rule in self.rules:
                if rule.kind == kind and rule.times and _matches(rule, statement):
                    rule.times -= 1
                    return rule
        return None


def _matches(rule: Fault, statement: str) -> bool:
    return re.search(rule.pattern, statement, re.IGNORECASE | re.DOTALL) is not None
