"""Every named place of a run is struck: at its first, middle and last hit, or two places in turn."""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from mlbatch import failpoint
from proof.world import AGAIN, DONE, World, wait_until

if TYPE_CHECKING:
    from proof.campaign import Tally

Start = Callable[[], int]
IN_WORKERS = ("before_score", "after_score", "after_move", "after_rows", "before_commit",
              "after_commit")  # fmt: skip
ATTEMPTS = 10
SECONDS = 60


class _Everywhere:
    """Stands for the armed place: is none of them, and writes each down that is reached."""

    def __init__(self, file: Path) -> None:
        self._file = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def __ne__(self, place: object) -> bool:
        os.write(self._file, f"{os.getpid()} {place}\n".encode())
        return True

    def __eq__(self, place: object) -> bool:
        return False

    __hash__ = None  # type: ignore[assignment]


def hits(world: World, start: Start) -> dict[str, int]:
    """How often one process reaches each place in a run that nobody disturbs."""
    log = world.folder / "places.log"
    armed, failpoint._armed = failpoint._armed, SimpleNamespace(place=_Everywhere(log))
    try:
        child = start()
    finally:
        failpoint._armed = armed
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code == DONE, code
    counts = Counter(log.read_text().splitlines())
    most: dict[str, int] = dict.fromkeys(failpoint.PLACES, 0)
    for line, count in counts.items():
        place = line.split()[1]
        most[place] = max(most[place], count)
    return most


def single(most: dict[str, int]) -> Iterator[tuple[str, ...]]:
    """Each place at its first, middle and last hit."""
    for place, count in most.items():
        for hit in sorted({1, (count + 1) // 2, count} - {0}):
            yield (f"{place}:kill:{hit}",)


def pairs(most: dict[str, int]) -> Iterator[tuple[str, ...]]:
    """All ordered pairs: one place, and on the resume another, or the same again."""
    for first, second in product(most, repeat=2):
        yield (f"{first}:kill:1", f"{second}:kill:1")


def strike_all(world: World, tally: Tally, start: Start, strikes: int) -> None:
    """Strike so many of what ``tally`` names, in an order that follows from the seed."""
    world.new_model()
    world.change(300)
    most = hits(world, start)
    chosen = list(single(most) if tally.kind == "failpoints" else pairs(most))
    random.Random(tally.seed).shuffle(chosen)
    for places in chosen[:strikes]:
        world.change(20)
        for place in places:
            _strike(tally, start, place)
        _come_through(tally, start)
        tally.rounds += 1
        found = world.faults()
        tally.faults.update(found)
        if not tally.is_clean:
            tally.struck["at " + " then ".join(places)] += 1
            return


def _strike(tally: Tally, start: Start, text: str) -> None:
    code = _ended(start, text)
    tally.struck["not reached" if code == DONE else "kill -9"] += 1
    # A killed worker is seen by its parent, which gives up; any other process is gone at once.
    killed = AGAIN if text.split(":", maxsplit=1)[0] in IN_WORKERS else -signal.SIGKILL
    tally.wrong += code not in (killed, DONE)


def _come_through(tally: Tally, start: Start) -> None:
    for _ in range(ATTEMPTS):
        code = _ended(start, "")
        if code == DONE:
            return
        tally.wrong += code != AGAIN
    tally.wrong += 1


def _ended(start: Start, text: str) -> int | None:
    """How an attempt with this failpoint ends; None where it does not."""
    failpoint.arm(text)
    try:
        child = start()
    finally:
        failpoint.arm("")
    codes: list[int] = []

    def is_over() -> bool:
        found, status = os.waitpid(child, os.WNOHANG)
        codes.extend([os.waitstatus_to_exitcode(status)] if found else [])
        return bool(found)

    if wait_until(is_over, SECONDS):
        return codes[0]
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None
