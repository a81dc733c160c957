"""Passwords that are asked for when a connection is opened, and never shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

Password = Callable[[], str]
"""Gives the password of the moment; a token is made anew for each connection. Picklable."""


@dataclass(frozen=True, slots=True)
class FixedPassword:
    """A password that settings hold. Its representation does not show it."""

    value: str = field(repr=False)

    def __call__(self) -> str:
        """See `Password`."""
        return self.value
