"""One query that Queuery runs: an UNLOAD to text in a thread of its own."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from mlbatch.devstack.redshift.lexer import tokens
from mlbatch.devstack.redshift.literals import sql_literal
from mlbatch.devstack.redshift.refusal import Refusal
from mlbatch.devstack.redshift.session import Session

# Official clients fail on any other name.
_KNOWN_TYPES = frozenset([
    "smallint", "integer", "bigint", "numeric", "double precision", "character",
    "character varying", "date", "timestamp without time zone", "timestamp with time zone",
    "boolean",
])  # fmt: skip


@dataclass(slots=True)
class Query:
    """What was asked, and how it fares."""

    number: int
    account: str
    select: str
    values: Sequence[str]
    prefix: str
    has_manifest: bool
    status: Literal["pending", "running", "success", "failed"] = "pending"
    error: str | None = None
    files: tuple[str, ...] = ()
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    _session: Session | None = None
    _thread: threading.Thread | None = None
    _ended: threading.Event = field(default_factory=threading.Event)
    _was_asked: bool = False

    @property
    def manifest_uri(self) -> str | None:
        """Where the manifest is, once there is one."""
        return f"{self.prefix}manifest" if self.has_manifest and self.files else None

    def start(self, session: Session) -> None:
        """Begin; ``session`` is closed in the end. A Refusal for values that do not fit."""
        statement = unload_statement(bind_marks(self.select, self.values), self)
        self._session = session
        self._thread = threading.Thread(target=self._run, args=(session, statement))
        self._thread.start()

    def wait_once(self, seconds: float) -> None:
        """Until it ends, but not longer than so, and only the first time."""
        if not self._was_asked:
            self._was_asked = True
            self._ended.wait(seconds)

    def stop(self) -> None:
        """Cancel and wait."""
        while self._thread is not None and self._thread.is_alive():
            if self._session is not None:
                self._session.interrupt()
            self._thread.join(0.02)

    def _run(self, session: Session, statement: str) -> None:
        self.status = "running"
        try:
            session.execute(statement)
            self.files = self._written(session)
            self.status = "success"
        except Refusal as refusal:
            self.error, self.status = f"ERROR: {refusal.message}", "failed"
        finally:
            session.close()
            self._ended.set()

    def _written(self, session: Session) -> tuple[str, ...]:
        store = session.engine.store
        manifest = f"{self.prefix}manifest"
        if self.has_manifest:
            store.put(manifest, _known_types(store.get(manifest)))
        return tuple(item.uri for item in store.list(self.prefix) if item.uri != manifest)


def unload_statement(select: str, query: Query) -> str:
    """The UNLOAD that Queuery sends."""
    tag = f"$t{secrets.token_hex(8)}$"
    manifest = " MANIFEST VERBOSE" if query.has_manifest else ""
    target = sql_literal(query.prefix)
    return (
        f"UNLOAD ({tag}\n{select.rstrip().removesuffix(';')}\n{tag}) TO {target} IAM_ROLE DEFAULT "
        f"GZIP ALLOWOVERWRITE DELIMITER ',' ESCAPE ADDQUOTES{manifest}"
    )


def bind_marks(select: str, values: Sequence[str]) -> str:
    """``select`` with each ? outside texts replaced by the next value; untouched without any."""
    if not values:
        return select
    waiting = list(values)
    pieces = []
    for token in tokens(select):
        if token.raw == "?":
            if not waiting:
                break
            pieces.append(sql_literal(waiting.pop(0)))
        else:
            pieces.append(token.raw)
    else:
        if not waiting:
            return "".join(pieces)
    message = f"wrong number of bind variables ({len(values)}) in: {select}"
    raise Refusal("42P02", message)


def _known_types(manifest: bytes) -> bytes:
    document = json.loads(manifest)
    for element in document["schema"]["elements"]:
        kind = element["type"]
        if kind["base"] == "real":
            element["type"] = {"base": "double precision"}
        elif kind["base"] not in _KNOWN_TYPES:
            element["type"] = {"base": "character varying", "max_length": 65_535}
    return json.dumps(document, ensure_ascii=False).encode()
