"""Statements that the Data API runs on its own, while the client only asks how they fare."""

from __future__ import annotations

import threading
import time
import uuid
from dataclasses import dataclass, field
from typing import Literal

from mlbatch.devstack.redshift.answer import Answer
from mlbatch.devstack.redshift.refusal import CANCELLED, Refusal
from mlbatch.devstack.redshift.session import Session

Status = Literal["SUBMITTED", "PICKED", "STARTED", "FINISHED", "FAILED", "ABORTED"]
ENDED = frozenset(["FINISHED", "FAILED", "ABORTED"])


@dataclass(slots=True)
class SubStatement:
    """One SQL statement and its outcome."""

    sql: str
    bound: str
    """With the parameters' values in it."""
    status: Status = "SUBMITTED"
    answer: Answer | None = None
    error: str | None = None
    query: int = 0
    created: float = field(default_factory=time.time)
    updated: float = field(default_factory=time.time)
    nanoseconds: int = 0


@dataclass(frozen=True, slots=True)
class Request:
    """What ExecuteStatement or BatchExecuteStatement was called with."""

    statements: tuple[SubStatement, ...]
    is_batch: bool
    database: str
    user: str
    place: dict[str, str]
    """ClusterIdentifier or WorkgroupName, SecretArn."""
    parameters: list[dict[str, str]]
    name: str | None = None
    is_transaction: bool = True


class Execution:
    """One call's statements under way, in a thread of their own."""

    def __init__(self, request: Request, session: Session, session_id: str | None) -> None:
        """``session`` is closed afterwards unless it has an id by which it is asked for again."""
        self.id = str(uuid.uuid4())
        self.request, self.session, self.session_id = request, session, session_id
        self.status: Status = "SUBMITTED"
        self.error: str | None = None
        self.created = self.updated = time.time()
        self._cancelled = False
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Whether it ended, after at most so long."""
        return self._ended.wait(seconds)

    def join(self) -> None:
        """Until its thread is gone."""
        self._thread.join()

    def cancel(self) -> bool:
        """End it; False when it has ended already."""
        with self._lock:
            if self.status in ENDED:
                return False
            self._cancelled = True
        # The thread may be between two statements, where there is nothing to interrupt.
        while not self._ended.wait(0.02):
            self.session.interrupt()
        return True

    def _run(self) -> None:
        self._move("STARTED")
        try:
            if self.request.is_batch and self.request.is_transaction:
                self._run_together()
            else:
                self._run_each()
        except Refusal as refusal:
            self._fail(refusal)
        else:
            self._move("FINISHED")
        finally:
            if self.session_id is None:
                self.session.close()
            self._ended.set()

    def _run_together(self) -> None:
        self.session.execute("BEGIN")
        for number, statement in enumerate(self.request.statements, start=1):
            self._run_one(number, statement)
        self.session.execute("COMMIT")

    def _run_each(self) -> None:
        """Each on its own: one that fails does not keep the others from running."""
        first: Refusal | None = None
        for number, statement in enumerate(self.request.statements, start=1):
            try:
                self._run_one(number, statement)
            except Refusal as refusal:
                first = first or refusal
        if first is not None:
            raise first

    def _run_one(self, number: int, statement: SubStatement) -> None:
        if self._cancelled:
            raise Refusal(CANCELLED, "Query cancelled on user's request")
        statement.status, statement.updated = "STARTED", time.time()
        began = time.perf_counter_ns()
        try:
            statement.answer = self.session.execute(statement.bound)
            statement.status = "FINISHED"
        except Refusal as refusal:
            statement.status, statement.error = self._outcome(), _text(refusal)
            if self.request.is_batch:
                message = f"Query #{number} failed with {_text(refusal)}"
                raise Refusal(refusal.sqlstate, message) from refusal
            raise
        finally:
            statement.query = self.session.query
            statement.updated = time.time()
            statement.nanoseconds = time.perf_counter_ns() - began

    def _fail(self, refusal: Refusal) -> None:
        if self.session.in_transaction:
            self.session.execute("ROLLBACK")
        for statement in self.request.statements:
            if statement.status not in ENDED:
                statement.status = "ABORTED"
        self.error = refusal.message if self.request.is_batch else _text(refusal)
        self._move(self._outcome())

    def _outcome(self) -> Status:
        """A time limit is a failure; only the client's own wish is an abortion."""
        return "ABORTED" if self._cancelled else "FAILED"

    def _move(self, status: Status) -> None:
        with self._lock:
            self.status, self.updated = status, time.time()


def _text(refusal: Refusal) -> str:
    detail = f"\n  Detail: {refusal.detail}" if refusal.detail else ""
    return f"ERROR: {refusal.message}{detail}"
