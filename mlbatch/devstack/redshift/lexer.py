"""PostgreSQL's words in a statement: enough to split, to name and to bind, without a grammar."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from mlbatch.devstack.redshift.refusal import Refusal

Kind = Literal["space", "text", "name", "word", "number", "parameter", "sign"]

_PATTERN = re.compile(
    r"""
    (?P<space>\s+|--[^\n]*|/\*.*?\*/)
  | (?P<dollar>\$(?P<tag>(?:[^\W\d]\w*)?)\$.*?\$(?P=tag)\$)
  | (?P<quote>'(?:[^'\\]|''|\\.)*')
  | (?P<name>"(?:[^"]|"")*")
  | (?P<parameter>\$\d+|(?<![:\w]):[^\W\d]\w*)
  | (?P<word>[^\W\d][\w$]*)
  | (?P<number>\d+(?:\.\d*)?|\.\d+)
  | (?P<sign>::|.)
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPED = re.compile(r"['\\](.)", re.DOTALL)
_MEANINGS = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of a statement's text."""

    kind: Kind
    raw: str
    """As written."""
    value: str
    """A text without its quotes, a word in upper case, anything else as written."""
    start: int
    end: int


def tokens(sql: str) -> Iterator[Token]:
    """Every piece of ``sql``, spaces and comments too."""
    for match in _PATTERN.finditer(sql):
        group = match.lastgroup or "sign"
        raw = match.group()
        if group in ("tag", "dollar"):
            length = raw.index("$", 1) + 1
            yield Token("text", raw, raw[length:-length], *match.span())
        elif group == "quote":
            yield Token("text", raw, _unescape(raw[1:-1]), *match.span())
        elif raw in ("'", '"'):
            raise Refusal("42601", f"unterminated quoted string at or near {raw!r}")
        else:
            yield _plain(group, raw, match.span())


def _plain(group: str, raw: str, span: tuple[int, int]) -> Token:
    if group == "word":
        return Token("word", raw, raw.upper(), *span)
    if group == "name":
        return Token("name", raw, raw[1:-1].replace('""', '"'), *span)
    kinds: dict[str, Kind] = {"space": "space", "parameter": "parameter", "number": "number"}
    return Token(kinds.get(group, "sign"), raw, raw, *span)


def _unescape(inside: str) -> str:
    return _ESCAPED.sub(lambda found: _MEANINGS.get(found.group(1), found.group(1)), inside)


def words(sql: str) -> list[Token]:
    """The pieces that mean something."""
    return [token for token in tokens(sql) if token.kind != "space"]


def split(sql: str) -> list[str]:
    """The statements of a text, without their semicolons; empty ones are left out."""
    statements, start, filled = [], 0, False
    for token in tokens(sql):
        if token.raw == ";":
            statements += [sql[start : token.start]] if filled else []
            start, filled = token.end, False
        elif token.kind != "space":
            filled = True
    return statements + ([sql[start:]] if filled else [])
