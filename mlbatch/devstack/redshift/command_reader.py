"""Reading UNLOAD and COPY, which no SQL parser knows: words one after another."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mlbatch.devstack.redshift.lexer import Token, words
from mlbatch.devstack.redshift.refusal import Refusal, unsupported

Meaning = dict[str, Any]
"""Fields of a command, and what they become."""

_OCTAL = re.compile(r"'\\{1,2}([0-7]{3})'")
_SIZES = {"MB": 1 << 20, "GB": 1 << 30}


class CommandReader:
    """A place in a statement's words."""

    def __init__(self, sql: str) -> None:
        """At the first word."""
        self._words = words(sql)
        self._next = 0

    def __bool__(self) -> bool:
        """Whether words are left."""
        return self._next < len(self._words)

    @property
    def current(self) -> Token:
        """The next word; a Refusal at the end."""
        if not self:
            raise self.error()
        return self._words[self._next]

    def take(self) -> Token:
        """The next word, and go on."""
        token = self.current
        self._next += 1
        return token

    def accept(self, *wanted: str) -> bool:
        """Whether the next words are these, and if so go on after them."""
        ahead = self._words[self._next : self._next + len(wanted)]
        if [w.value if w.kind in ("word", "sign") else None for w in ahead] != list(wanted):
            return False
        self._next += len(wanted)
        return True

    def expect(self, *wanted: str) -> None:
        """These words and no others."""
        for word in wanted:
            if not self.accept(word):
                raise self.error()

    def text(self) -> str:
        """A quoted text, with or without AS in front."""
        self.accept("AS")
        if self.current.kind != "text":
            raise self.error()
        return self.take().value

    def number(self) -> int:
        """A whole number, with or without AS in front."""
        self.accept("AS")
        if not self.current.raw.isdecimal():
            raise self.error()
        return int(self.take().raw)

    def size(self) -> int:
        """A number of bytes in MB or GB; MB when it does not say."""
        self.accept("AS")
        if self.current.kind != "number":
            raise self.error()
        number = float(self.take().raw)
        unit = next((bytes_ for name, bytes_ in _SIZES.items() if self.accept(name)), _SIZES["MB"])
        return int(number * unit)

    def word_or_text(self) -> str:
        """One word, quoted or not, with or without AS in front."""
        self.accept("AS")
        if self.current.kind not in ("word", "text"):
            raise self.error()
        return self.take().value

    def text_if_any(self, default: str) -> str:
        """A quoted text, with or without AS in front; ``default`` where there is none."""
        has_text = self.accept("AS") or (bool(self) and self.current.kind == "text")
        return self.text() if has_text else default

    def flag(self) -> bool:
        """ON, OFF, TRUE or FALSE, or nothing, which is ON."""
        if self.accept("OFF") or self.accept("FALSE"):
            return False
        return self.accept("ON") or self.accept("TRUE") or True

    def name(self) -> str:
        """A table's or column's name, folded as Redshift does; with a schema as ``a.b``."""
        parts = [self._identifier()]
        while self.accept("."):
            parts.append(self._identifier())
        return ".".join(parts)

    def _identifier(self) -> str:
        token = self.take()
        if token.kind not in ("word", "name"):
            raise Refusal("42601", f'syntax error at or near "{token.raw}"')
        return token.raw.lower() if token.kind == "word" else token.value

    def flag_of(self, flags: Mapping[tuple[str, ...], Meaning]) -> Meaning | None:
        """What the next words mean, by the first of ``flags`` that they are."""
        return next((meaning for words, meaning in flags.items() if self.accept(*words)), None)

    def skips(self, names: Sequence[str]) -> bool:
        """Whether the next word is one of ``names`` and a text, which are then passed over."""
        if not any(self.accept(name) for name in names):
            return False
        self.text()
        return True

    def text_layout(self) -> Meaning | None:
        """DELIMITER or NULL, which both commands have."""
        if self.accept("DELIMITER"):
            return {"delimiter": self._delimiter()}
        return {"null_as": self.text()} if self.accept("NULL") else None

    def _delimiter(self) -> str:
        self.accept("AS")
        octal = _OCTAL.fullmatch(self.current.raw)
        text = self.text().replace("\\t", "\t")
        delimiter = chr(int(octal.group(1), 8)) if octal else text
        if len(delimiter) != 1 or not delimiter.isascii() or delimiter in "\r\n":
            raise unsupported("The delimiter must be a single ASCII character")
        return delimiter

    def refuse(self, names: Sequence[str], command: str) -> None:
        """A Refusal where the next word is one of ``names``, which the stand-in does not know."""
        for name in names:
            if self.accept(name):
                raise unsupported(f"{name} of {command} is not supported by this stand-in")

    def error(self) -> Refusal:
        """A Refusal that names the next word."""
        place = f'or near "{self.current.raw}"' if self else "end of input"
        return Refusal("42601", f"syntax error at {place}")


def accept_authorization(reader: CommandReader) -> bool:
    """The clauses that say as whom S3 is used; a stand-in trusts all of them."""
    if reader.accept("IAM_ROLE"):
        if not reader.accept("DEFAULT"):
            reader.text()
        return True
    for phrase in (("WITH", "CREDENTIALS"), ("CREDENTIALS",), ("ACCESS_KEY_ID",),
                   ("SECRET_ACCESS_KEY",), ("SESSION_TOKEN",)):  # fmt: skip
        if reader.accept(*phrase):
            reader.text()
            return True
    return False
