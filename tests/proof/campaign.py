"""Kills, sleepers and lost replies: ``python -m proof.campaign --help``.

Every round changes the source, sometimes the model, and starts the run; the run's processes are
killed, stopped or cut off from the database at random moments, and started again, until it is
through. Then the table must hold exactly what the source says. All of it follows from the seed.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from mlbatch.connectors.mysql.address import MysqlAddress
from mlbatch.connectors.mysql.statements import Way
from mlbatch.connectors.password import FixedPassword
from mlbatch.connectors.sqlite import SqliteSink
from mlbatch.devstack.mariadb import MariaDb, private_mariadb
from proof import deaths
from proof.links import ONE_IN, linked
from proof.points import strike_all
from proof.proxy import Proxy
from proof.world import AGAIN, DONE, FAILED, ForkingEngine, WitnessedSink, World, hasten, wait_until

KINDS = ("kills", "workers", "zombies", "network", "storage", "warehouse", "failpoints", "pairs")
ATTEMPTS = 60
PATIENCE_SECONDS = 60


@dataclass
class Tally:
    """What was done, and what came of it."""

    kind: str
    sink: str
    seed: int
    strikes: int
    """As many as were asked for."""
    rounds: int = 0
    struck: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    wrong: int = 0
    seconds: float = 0.0

    @property
    def is_clean(self) -> bool:
        return not self.wrong and not any(self.faults.values())

    @property
    def replay(self) -> str:
        """The command that does the same again."""
        given = f"{self.kind} --sink {self.sink} --strikes {self.strikes} --seed {self.seed}"
        return f"python -m proof.campaign {given}"

    def row(self) -> str:
        """A line of the table in docs/proof.md."""
        struck = ", ".join(f"{n:,} {what}" for what, n in sorted(self.struck.items()))
        faults = " / ".join(str(self.faults[name]) for name in ("lost", "stale", "twice"))
        cells = (self.kind, self.sink, self.rounds, struck, faults, self.wrong)
        told = " | ".join(str(cell) for cell in cells)
        return f"| {told} | {self.seconds:.0f} | `{self.replay}` |"


HEADER = (
    "| campaign | sink | runs judged | strikes | rows lost / stale / twice"
    " | unexpected errors | seconds | again |\n|---|---|---|---|---|---|---|---|"
)


def start(world: World, sink: object, *, full: bool) -> int:
    """An attempt in a process group of its own; its exit code is how it ended."""
    child = os.fork()
    # Both do it, so that the group is there for whoever of them goes on first.
    with contextlib.suppress(OSError):
        os.setpgid(child, child)
    if child:
        return child
    hasten()
    quiet = os.open(world.folder / "children.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(quiet, 2)
    # A process that hangs can be asked where. No watch that is set here would live in its forks, which set
    # one of their own and would wait for it.
    faulthandler.register(signal.SIGUSR1, file=quiet, all_threads=True)
    os._exit(world.attempt(sink, full=full))  # type: ignore[arg-type]


def end_of(child: int) -> int | None:
    """How a process ended; None while it lives."""
    found, status = os.waitpid(child, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def signalled(child: int, number: int) -> bool:
    """Send a signal to the whole group; False when it is gone."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, number)
        return True
    return False


def kill_one_round(world: World, tally: Tally, *, full: bool, kills: int) -> None:
    """Kill the run, again and again, and let it come through at last."""
    for number in range(ATTEMPTS):
        child = start(world, world.sink, full=full)
        if number < kills:
            time.sleep(world.random.uniform(0.05, 0.6))
            code = end_of(child)
            if code is None and signalled(child, signal.SIGKILL):
                os.waitpid(child, 0)
                tally.struck["kill -9"] += 1
                continue
        else:
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code == DONE:
            return
        tally.wrong += code != AGAIN
        time.sleep(0.2)
    tally.wrong += 1


def stop_one_round(world: World, tally: Tally, *, full: bool, kills: int) -> None:
    """Stop the run in its work, let another take over, and wake the sleeper: it must do nothing."""
    sleepers = []
    for _ in range(kills):
        child = start(world, world.sink, full=full)
        time.sleep(world.random.uniform(0.3, 0.8))
        if end_of(child) is None and signalled(child, signal.SIGSTOP):
            sleepers.append(child)
            tally.struck["SIGSTOP"] += 1
    finished = False
    for _ in range(ATTEMPTS):
        child = start(world, world.sink, full=full)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        finished = finished or code == DONE
        if finished:
            break
        tally.wrong += code != AGAIN
        # A sleeper may hold the warehouse's file, which no database server can take from it.
        if sleepers and not wait_until(lambda: False, 0.5) and world.random.random() < 0.3:
            signalled(world.random.choice(sleepers), signal.SIGCONT)
    tally.wrong += not finished
    for child in sleepers:
        signalled(child, signal.SIGCONT)
        _bury(child, tally)


def _bury(child: int, tally: Tally) -> None:
    codes: list[int] = []

    def is_over() -> bool:
        code = end_of(child)
        codes.extend([code] if code is not None else [])
        return code is not None

    if not wait_until(is_over, PATIENCE_SECONDS):
        signalled(child, signal.SIGKILL)
        os.waitpid(child, 0)
        tally.wrong += 1
    elif codes[0] not in (DONE, AGAIN):
        tally.wrong += 1


def cut_one_round(world: World, tally: Tally, proxy: Proxy, *, full: bool) -> None:
    """Let the run come through a network that loses commits and their replies."""
    assert isinstance(world.sink, WitnessedSink)
    behind = replace(world.sink, address=replace(world.sink.address, port=proxy.port))
    for _ in range(ATTEMPTS):
        child = start(world, behind, full=full)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code == DONE:
            return
        tally.wrong += code != AGAIN
    tally.wrong += 1


def strike_one_round(world: World, tally: Tally, *, full: bool) -> None:
    """Let the run come through although its store or its warehouse is hard to reach."""
    allowed = {AGAIN}
    if tally.kind == "warehouse":
        # A warehouse that never answers has used up its time, and the run fails: the next is new.
        allowed.add(FAILED)
    for _ in range(ATTEMPTS):
        child = start(world, world.sink, full=full)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code == DONE:
            return
        tally.wrong += code not in allowed
    tally.wrong += 1


def judge(world: World, tally: Tally) -> None:
    """Count what is wrong with the table."""
    tally.rounds += 1
    tally.faults.update(world.faults())


def rounds(world: World) -> Iterator[bool]:
    """The source as it changes; says whether the run must be full."""
    world.new_model()
    world.change(400)
    yield True
    while True:
        world.change(world.random.randrange(20, 300))
        new = world.random.random() < 0.4
        if new:
            world.new_model()
        yield new


def campaign(kind: str, sink: str, seed: int, strikes: int, folder: Path) -> Tally:
    """One campaign of ``strikes`` kills, stops or commits."""
    tally, started = Tally(kind, sink, seed, strikes), time.monotonic()
    with _world(kind, sink, seed, folder) as world:
        if kind in ("failpoints", "pairs"):
            strike_all(world, tally, lambda: start(world, world.sink, full=True), strikes)
            tally.seconds = time.monotonic() - started
            return tally
        world.engine = deaths.early_engine if kind == "workers" else ForkingEngine
        proxy = Proxy(world.sink.address.port, seed) if kind == "network" else None
        for full in rounds(world):
            if proxy is not None:
                cut_one_round(world, tally, proxy, full=full)
                tally.struck = Counter(proxy.counts.struck) + Counter(commits=proxy.counts.commits)
            elif world.links is not None:
                strike_one_round(world, tally, full=full)
                tally.struck = Counter(world.links.dice.struck)
            elif kind == "workers":
                deaths.strike_one_round(world, tally, partial(start, world, world.sink, full=full))
            elif kind == "zombies":
                stop_one_round(world, tally, full=full, kills=world.random.randrange(1, 3))
            else:
                kill_one_round(world, tally, full=full, kills=world.random.randrange(1, 7))
            judge(world, tally)
            # A wrong table stays wrong: what follows would be counted again and again.
            if not tally.is_clean or _struck(tally) >= strikes:
                break
        if proxy is not None:
            proxy.close()
    tally.seconds = time.monotonic() - started
    return tally


def last_words(tally: Tally, folder: Path) -> str:
    """What the processes of a campaign said that ended with an error that should not be."""
    log = folder / "children.log"
    return f"{log.read_text()[-6_000:]}\n" if tally.wrong and log.exists() else ""


def _struck(tally: Tally) -> int:
    return tally.struck["commits"] or sum(tally.struck.values())


@contextlib.contextmanager
def _world(kind: str, sink: str, seed: int, folder: Path) -> Iterator[World]:
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        links = stack.enter_context(linked(folder, kind, seed)) if kind in ONE_IN else None
        if sink == "sqlite":
            yield World(folder, SqliteSink(folder / "outputs.db"), seed, links=links)
            return
        server = stack.enter_context(private_mariadb(folder / "mysql"))
        way = Way.LOAD if seed % 2 else Way.ROWS
        yield World(folder, WitnessedSink(_address(server), chosen=way), seed, links=links)


def _address(server: MariaDb) -> MysqlAddress:
    password = FixedPassword(server.admin_password)
    return MysqlAddress(
        server.host, server.port, server.database, server.admin, password, verify_tls=False
    )


def main() -> int:
    """Run one campaign and print its line; exit code 1 when anything was wrong."""
    parser = argparse.ArgumentParser(prog="python -m proof.campaign")
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--sink", choices=["mysql", "sqlite"], default="mysql")
    parser.add_argument(
        "--strikes", type=int, default=60, help="kills, stops, commits, connections"
    )
    parser.add_argument("--seed", type=int, default=int(time.time()))
    given = parser.parse_args()
    asked = Tally(given.kind, given.sink, given.seed, given.strikes)
    print(f"replay: {asked.replay}", file=sys.stderr)
    with tempfile.TemporaryDirectory() as place:
        tally = campaign(given.kind, given.sink, given.seed, given.strikes, Path(place))
        print(last_words(tally, Path(place)), end="", file=sys.stderr)
    print(HEADER)
    print(tally.row())
    return not tally.is_clean


if __name__ == "__main__":
    sys.exit(main())
