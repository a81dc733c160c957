"""A source that changes, a job over it, and what its table must then hold."""

from __future__ import annotations

import os
import random
import sqlite3
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from toy.harness import DAY_ONE, ToyHarness, note
from toy.job import Toy
from toy.model import Obedient

from mlbatch import leasing, worker
from mlbatch.connectors.database import lease_store
from mlbatch.connectors.mysql import address as mysql_address
from mlbatch.connectors.mysql.address import connect
from mlbatch.connectors.mysql.session import MysqlPartSession
from mlbatch.connectors.mysql.sink import MysqlSink
from mlbatch.connectors.mysql.statements import Way
from mlbatch.connectors.sqlite import SqliteSink
from mlbatch.engine import Engine, PartOutcome, PartTask
from mlbatch.errors import Busy, Fenced, MlbatchError, RunFailed, TemporaryError
from mlbatch.inference import infer
from mlbatch.ledger import Run
from mlbatch.planner import Request
from mlbatch.table import OutputTable
from proof.links import LinkedHarness, Links, hasten_links

BATCH_ROWS = 10
PART_ROWS = 60
WORKERS = 3
DONE, AGAIN, FAILED, WRONG = 0, 75, 3, 1
"""How an attempt may end: through, to be started again, as failed by the rules, or with an error
that should not be."""


@dataclass(frozen=True, slots=True)
class WitnessedSink(MysqlSink):
    """Writes by a fixed way, although the witness's triggers would make it choose the other."""

    chosen: Way = Way.LOAD

    @contextmanager
    def session(self, table: OutputTable, run: Run) -> Iterator[MysqlPartSession]:
        """A session that does not ask which way to take."""
        session = MysqlPartSession(self.address, table, run, self.chosen)
        try:
            yield session
        finally:
            session.close()


@dataclass(frozen=True, slots=True)
class ForkingEngine:
    """Workers as forks of this process, so that an attempt starts in milliseconds."""

    workers: int = WORKERS

    def warm_up(self) -> None:
        """Nothing to do: an attempt is a process of its own."""

    def run(
        self,
        work: Callable[[PartTask], PartOutcome],
        tasks: Sequence[PartTask],
        on_death: object,
        *,
        isolated: bool = False,
    ) -> Iterator[PartOutcome]:
        children = [self._fork(work, tasks[n :: self.workers]) for n in range(self.workers)]
        ends = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        if any(ends):
            harmless = not {WRONG, FAILED} & set(ends)
            raise Busy if harmless else MlbatchError(f"workers ended with {ends}")
        yield from (PartOutcome(task.part_number, {}) for task in tasks)

    def _fork(self, work: Callable[[PartTask], PartOutcome], tasks: Sequence[PartTask]) -> int:
        child = os.fork()
        if child:
            return child
        os._exit(ended(lambda: [work(task) for task in tasks]))


def ended(work: Callable[[], object]) -> int:
    """Run ``work`` and tell how it ended."""
    try:
        work()
    except (TemporaryError, Fenced):
        return AGAIN
    except RunFailed:
        traceback.print_exc()
        return FAILED
    except BaseException:  # noqa: BLE001  a child's last words
        traceback.print_exc()
        return WRONG
    return DONE


def hasten() -> None:
    """Leases and sessions that end in seconds, and batches of few rows: for child processes."""
    lease_store.LEASE_SECONDS = 1
    # A heart that beats while workers are forked would leave its locks in them.
    leasing.HEARTBEAT_SECONDS = 3_600
    mysql_address._SESSION = mysql_address._SESSION.replace(
        "wait_timeout = 30, innodb_lock_wait_timeout = 5",
        "wait_timeout = 3, innodb_lock_wait_timeout = 2",
    )
    worker.score_part.__kwdefaults__["batch_rows"] = BATCH_ROWS


@dataclass
class World:
    """One of many independent ones; everything follows from ``seed``."""

    folder: Path
    sink: MysqlSink | SqliteSink
    seed: int
    source: dict[int, str] = field(default_factory=dict)
    version: int = 0
    clock: int = 0
    links: Links | None = None
    """Where warehouse and store are servers, one of them behind faults."""
    engine: Callable[[], Engine] = ForkingEngine
    """Called in the process of an attempt, before anything is opened there."""

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        if self.links is None:
            self.harness = ToyHarness(Toy, self.folder, part_rows=PART_ROWS, sink=self.sink)
        else:
            self.harness = LinkedHarness(Toy, self.folder, sink=self.sink)
            self.harness.links = self.links
        self.sink.ledger()
        self.sink.prepare(Toy.output.table)
        self._run_sql(WITNESS_MYSQL if self._is_mysql else WITNESS_SQLITE)

    @property
    def _is_mysql(self) -> bool:
        return isinstance(self.sink, MysqlSink)

    def change(self, rows: int) -> None:
        """Rows appear, change and go."""
        changes = []
        for _ in range(rows):
            self.clock += 1
            number = self.random.randrange(1, 2_000)
            gone = number in self.source and self.random.random() < 0.15
            text = f"{self.random.choice(('good', 'sad'))} note {self.random.randrange(10**6)}"
            at = DAY_ONE + timedelta(minutes=self.clock)
            changes.append(note(number, text, minutes=self.clock, deleted=at if gone else None))
            if gone:
                del self.source[number]
            else:
                self.source[number] = text
        # The last word about a number is what the source holds.
        self.harness.notes({row["id"]: row for row in changes}.values())

    def new_model(self) -> None:
        """Another version, by which a full run predicts everything again."""
        self.version += 1
        self.harness.given_model(Obedient())

    def attempt(self, sink: MysqlSink | SqliteSink, *, full: bool) -> int:
        """One try at the run, in this process; see `ended`."""
        engine = self.engine()
        tools = self.harness.tools
        if self.links is not None:
            hasten_links()
            tools = self.links.struck(tools)
        tools = replace(tools, sink=sink, engine=engine)
        return ended(lambda: infer(Toy, Request(full=full, in_place=True), tools))

    def faults(self) -> dict[str, int]:
        """Rows that are not as they must be: lost, stale, surplus, or applied twice."""
        table = {
            row["note_id"]: row for row in self.sink.rows(Toy.output.table).read_all().to_pylist()
        }
        lost = set(self.source) - set(table)
        stale = [
            number
            for number, row in table.items()
            if number in self.source
            and (
                row["label"] != ("good" if "good" in self.source[number] else "bad")
                or row["model_version"] != self.version
            )
        ]
        return {
            "lost": len(lost),
            "stale": len(stale) + len(set(table) - set(self.source)),
            "twice": int(self._scalar(TWICE) or 0),
        }

    def set_aside(self) -> int:
        """How many rows were set aside, of whatever run."""
        return int(self._scalar("SELECT COUNT(*) FROM mlbatch_quarantine") or 0)

    def _run_sql(self, statements: tuple[str, ...]) -> None:
        if isinstance(self.sink, MysqlSink):
            with closing(connect(self.sink.address)) as connection:
                for statement in statements:
                    connection.query(statement)
            return
        with closing(sqlite3.connect(self.sink.path)) as connection:
            for statement in statements:
                connection.execute(statement)

    def _scalar(self, query: str) -> Any:
        if isinstance(self.sink, MysqlSink):
            with closing(connect(self.sink.address)) as connection:
                return mysql_address.scalar(connection, query)
        with closing(sqlite3.connect(self.sink.path)) as connection:
            return connection.execute(query).fetchone()[0]


TWICE = """
SELECT COUNT(*) FROM
  (SELECT note_id FROM witness GROUP BY note_id, run_no HAVING COUNT(*) > 1) AS repeated
"""
WITNESS_MYSQL = (
    "CREATE TABLE witness (id BIGINT AUTO_INCREMENT PRIMARY KEY, note_id BIGINT, run_no BIGINT)",
    "CREATE TRIGGER seen_insert AFTER INSERT ON mood FOR EACH ROW"
    " INSERT INTO witness (note_id, run_no) VALUES (NEW.note_id, NEW.run_no)",
    "CREATE TRIGGER seen_update AFTER UPDATE ON mood FOR EACH ROW"
    " INSERT INTO witness (note_id, run_no) VALUES (NEW.note_id, NEW.run_no)",
)
WITNESS_SQLITE = (
    "CREATE TABLE witness (id INTEGER PRIMARY KEY, note_id INTEGER, run_no INTEGER)",
    "CREATE TRIGGER seen_insert AFTER INSERT ON mood BEGIN"
    " INSERT INTO witness (note_id, run_no) VALUES (NEW.note_id, NEW.run_no); END",
    "CREATE TRIGGER seen_update AFTER UPDATE ON mood BEGIN"
    " INSERT INTO witness (note_id, run_no) VALUES (NEW.note_id, NEW.run_no); END",
)


def wait_until(what: Callable[[], bool], seconds: float) -> bool:
    """Whether ``what`` came true in time."""
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True
