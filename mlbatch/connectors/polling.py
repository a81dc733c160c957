"""How long to wait before asking again how something stands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def growing(seconds: Sequence[float]) -> Iterator[float]:
    """Each of ``seconds`` once, then the last one for ever."""
    yield from seconds
    while True:
        yield seconds[-1]
