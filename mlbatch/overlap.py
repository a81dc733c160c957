"""Reading ahead and writing behind: one thread each beside the one that computes.

Arrow and the drivers let go of the interpreter while they read, decode and wait, so a process that
computes all the time still reads and writes. One item is under way on either side, never more.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Generic, Self, TypeVar

Item = TypeVar("Item")


def read_ahead(items: Iterable[Item]) -> Generator[Item, None, None]:
    """The same ``items``, each made in another thread while the one before is worked on.

    Who leaves early closes it, which waits for what is being read: where a forgotten one is closed by
    Python, a signal's exception would be lost.
    """
    iterator = iter(items)
    end = object()
    with ThreadPoolExecutor(1, "mlbatch-read") as thread:
        coming = thread.submit(next, iterator, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, iterator, end)
            yield item  # type: ignore[misc]


class WriteBehind(Generic[Item]):
    """Calls ``write`` for one item after another, in order, in a thread of its own.

    Used as a context, whose end waits for what is under way: no write is ever cut off by an error
    in the computing thread.
    """

    def __init__(self, write: Callable[[Item], None]) -> None:
        """Nothing runs yet."""
        self._write = write
        self._thread = ThreadPoolExecutor(1, "mlbatch-write")
        self._under_way: Future[None] | None = None
        self._last: Future[None] | None = None

    def put(self, item: Item) -> None:
        """Begin to write ``item`` once the one before is written; raises what that one raised."""
        self.wait()
        self._under_way = self._last = self._thread.submit(self._write, item)

    def wait(self) -> None:
        """Return when everything put is written; raises what the last write raised."""
        if self._under_way is not None:
            under_way, self._under_way = self._under_way, None
            under_way.result()

    def __enter__(self) -> Self:
        """Ready."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Wait; an error of the last write is raised unless another one is on its way."""
        self._thread.shutdown(wait=False)
        under_way = [self._last] if self._last is not None else []
        try:
            wait(under_way)
        finally:
            # A signal's exception ends the first wait, but must not cut the write off.
            wait(under_way)
        if error is None:
            self.wait()
