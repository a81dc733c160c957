"""One session's messages after the log-in: simple queries, and prepared ones in their steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import BinaryIO

import pyarrow as pa

from mlbatch.devstack.redshift import lexer
from mlbatch.devstack.redshift import wire_messages as messages
from mlbatch.devstack.redshift.engine import Answer, Refusal, Session
from mlbatch.devstack.redshift.faults import Dropped
from mlbatch.devstack.redshift.wire_messages import Body, ProtocolViolation, message
from mlbatch.devstack.redshift.wire_types import UNKNOWN, argument, retyped, rows, sample

FULL_BYTES = 64 << 10
_OWN_TRANSACTION = frozenset(["BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT"])


@dataclass(slots=True)
class _Prepared:
    sql: str
    oids: list[int]
    schema: pa.Schema | None = None
    is_described: bool = False


@dataclass(slots=True)
class _Portal:
    prepared: _Prepared
    values: list[object]
    formats: list[int]
    answer: Answer | None = None
    rows: Iterator[bytes] = field(default_factory=lambda: iter(()))


class Conversation:
    """Answers ``session``'s client through ``send``, in the driver's ``protocol`` 0, 1 or 2."""

    def __init__(self, session: Session, send: Callable[[bytes], None], protocol: int) -> None:
        """Nothing is sent before `run`."""
        self._session, self._send_out, self._protocol = session, send, protocol
        self._waiting = bytearray()
        self._prepared: dict[str, _Prepared] = {}
        self._portals: dict[str, _Portal] = {}
        self._skipping = False
        self._steps: dict[bytes, Callable[[Body], None]] = {
            b"P": self._parse,
            b"B": self._bind,
            b"D": self._describe,
            b"E": self._execute,
            b"C": self._close,
        }

    def run(self, stream: BinaryIO) -> None:
        """Until the client says good-bye, or breaks the protocol."""
        self._ready()
        try:
            while self._obey(*messages.read_message(stream)):
                pass
        except ProtocolViolation as error:
            self._send(messages.error_response(Refusal("08P01", str(error)), "FATAL"))
            self._flush()

    def _obey(self, kind: bytes, data: bytes) -> bool:
        if kind == b"S":
            self._skipping = False
            self._ready()
        elif kind == b"Q":
            self._skipping = False
            self._guarded(self._query, Body(data))
            self._ready()
        elif kind == b"H":
            self._flush()
        elif kind in self._steps:
            # After an error everything is passed over up to the next Sync.
            if not self._skipping:
                self._skipping = not self._guarded(self._steps[kind], Body(data))
        elif kind not in b"Xdcf":
            text = f"invalid frontend message type {kind[0]}"
            raise ProtocolViolation(text)
        return kind != b"X"

    def _guarded(self, step: Callable[[Body], None], body: Body) -> bool:
        try:
            step(body)
        except ProtocolViolation:
            raise
        except Dropped as dropped:
            raise EOFError from dropped
        except Refusal as refusal:
            self._fail(refusal)
            return False
        except (ValueError, OverflowError) as error:
            # A value out of the bounds of Python's types; the client would wait for ever.
            self._fail(Refusal("XX000", f"cannot send the result: {error}"))
            return False
        return True

    def _fail(self, refusal: Refusal) -> None:
        self._session.failed = self._session.in_transaction
        self._send(messages.error_response(refusal))
        self._flush()

    def _send(self, data: bytes) -> None:
        self._waiting += data
        if len(self._waiting) >= FULL_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            data = bytes(self._waiting)
            self._waiting.clear()
            self._send_out(data)

    def _ready(self) -> None:
        if not self._session.in_transaction:
            self._portals.clear()
        open_state = b"E" if self._session.failed else b"T"
        state = open_state if self._session.in_transaction else b"I"
        self._send(message(b"Z", state))
        self._flush()

    def _query(self, body: Body) -> None:
        statements = lexer.split(body.text())
        if not statements:
            self._send(message(b"I"))
        elif len(statements) == 1 or self._has_transaction(statements):
            for sql in statements:
                self._simple(sql)
        else:
            self._together(statements)

    def _has_transaction(self, statements: list[str]) -> bool:
        firsts = {lexer.words(sql)[0].value for sql in statements}
        return self._session.in_transaction or bool(firsts & _OWN_TRANSACTION)

    def _together(self, statements: list[str]) -> None:
        # Several statements in one message are one transaction.
        self._session.execute("BEGIN")
        try:
            for sql in statements:
                self._simple(sql)
        except Exception:
            self._session.execute("ROLLBACK")
            raise
        if self._session.in_transaction:
            self._session.execute("COMMIT")

    def _simple(self, sql: str) -> None:
        answer = self._session.execute(sql)
        if answer.table is not None:
            formats = [0] * answer.table.num_columns
            self._send(messages.row_description(answer.table.schema, formats, self._protocol))
            for row in rows(answer.table, formats, self._protocol):
                self._send(message(b"D", row))
        self._complete(answer)

    def _complete(self, answer: Answer) -> None:
        for text in answer.notices:
            self._send(messages.notice_response(text))
        empty = answer.tag == "" and answer.table is None
        self._send(message(b"I") if empty else message(b"C", answer.tag.encode() + b"\0"))

    def _parse(self, body: Body) -> None:
        name, sql = body.text(), body.text()
        declared = body.numbers("!i")
        highest = max((n for n in map(_position, lexer.tokens(sql)) if n), default=0)
        oids = declared + [0] * (highest - len(declared))
        self._prepared[name] = _Prepared(sql, [oid or UNKNOWN for oid in oids])
        self._send(message(b"1"))

    def _described(self, prepared: _Prepared) -> pa.Schema | None:
        if not prepared.is_described:
            samples = [sample(oid) for oid in prepared.oids]
            prepared.schema = self._session.describe(prepared.sql, len(samples), samples)
            prepared.is_described = True
        return prepared.schema

    def _describe(self, body: Body) -> None:
        kind, name = body.take(1), body.text()
        portal = None if kind == b"S" else self._portal(name)
        prepared = self._statement(name) if portal is None else portal.prepared
        schema = self._described(prepared)
        if portal is None:
            self._send(messages.parameter_description(prepared.oids))
        if schema is None:
            self._send(message(b"n"))
            return
        formats = _spread(portal.formats if portal else [], len(schema))
        self._send(messages.row_description(schema, formats, self._protocol))

    def _bind(self, body: Body) -> None:
        portal, prepared = body.text(), self._statement(body.text())
        formats, count = body.numbers("!h"), body.number("!h")
        if count != len(prepared.oids):
            text = f"bind message supplies {count} parameters, {len(prepared.oids)} are needed"
            raise Refusal("08P01", text)
        values: list[object] = []
        for oid, form in zip(prepared.oids, _spread(formats, count), strict=True):
            size = body.number("!i")
            values.append(None if size < 0 else argument(body.take(size), oid, form))
        self._portals[portal] = _Portal(prepared, values, body.numbers("!h"))
        self._send(message(b"2"))

    def _execute(self, body: Body) -> None:
        portal, limit = self._portal(body.text()), body.number("!i")
        answer = portal.answer or self._started(portal)
        sent = 0
        for row in islice(portal.rows, limit if limit > 0 else None):
            self._send(message(b"D", row))
            sent += 1
        if limit > 0 and sent == limit:
            self._send(message(b"s"))
        else:
            self._complete(answer)

    def _started(self, portal: _Portal) -> Answer:
        answer = self._session.execute(portal.prepared.sql, portal.values)
        schema = portal.prepared.schema
        table = answer.table
        if table is not None:
            if schema is not None and table.schema != schema:
                # The client was told these types; rows in others would be misread.
                table = retyped(table, schema)
            formats = _spread(portal.formats, table.num_columns)
            portal.rows = rows(table, formats, self._protocol)
        # The rows are in the iterator, which lets go of what is sent.
        portal.answer = Answer(answer.tag, None, answer.notices, answer.rows)
        return portal.answer

    def _close(self, body: Body) -> None:
        kind, name = body.take(1), body.text()
        if kind == b"S":
            self._prepared.pop(name, None)
        else:
            self._portals.pop(name, None)
        self._send(message(b"3"))

    def _statement(self, name: str) -> _Prepared:
        if name not in self._prepared:
            raise Refusal("26000", f'prepared statement "{name}" does not exist')
        return self._prepared[name]

    def _portal(self, name: str) -> _Portal:
        if name not in self._portals:
            raise Refusal("34000", f'portal "{name}" does not exist')
        return self._portals[name]


def _position(token: lexer.Token) -> int:
    is_ours = token.kind == "parameter" and token.raw.startswith("$")
    return int(token.raw[1:]) if is_ours else 0


def _spread(formats: list[int], count: int) -> list[int]:
    """Formats as Bind has them, none, one for all or one for each, made one for each."""
    if len(formats) == count:
        return formats
    if len(formats) > 1:
        raise Refusal("08P01", f"{len(formats)} formats for {count} values")
    return (formats or [0]) * count
