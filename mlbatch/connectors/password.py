"""Passwords that are asked for when a connection is opened, and never shown."""

from __future__ import annotations

import re
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


def without_log_in(text: str) -> str:
    """``text``, which may be a URL or hold some, without the user and password of any."""
    return _LOG_IN.sub("", text)


_LOG_IN = re.compile(r"(?<=://)[^/\s]*@")
