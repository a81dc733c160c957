"""Lines of text into fields, the way COPY reads them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass

from mlbatch.devstack.redshift.copy_command import CopyCommand
from mlbatch.devstack.redshift.unload_text import DELIMITERS

LINE_END = "\n"
_LARGEST_FIELD = 16 << 20


@dataclass(frozen=True, slots=True)
class Line:
    """One record of a file."""

    number: int
    fields: list[str | None]


def read_lines(command: CopyCommand, text: str) -> Iterator[Line]:
    """The records of ``text`` after its header; NULL AS and escapes are resolved."""
    records = _csv(command, text) if command.format == "csv" else _delimited(command, text)
    for number, fields in enumerate(records, start=1):
        is_blank = fields in ([], [""])
        if number > command.ignore_header and not (is_blank and command.ignore_blank_lines):
            yield Line(number, fields)


def _csv(command: CopyCommand, text: str) -> Iterator[list[str | None]]:
    csv.field_size_limit(_LARGEST_FIELD)
    delimiter = command.delimiter or DELIMITERS["csv"]
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quotechar=command.quote)
    for row in rows:
        yield [None if field == command.null_as else field for field in row]


def _delimited(command: CopyCommand, text: str) -> Iterator[list[str | None]]:
    """Escapes count inside quotes as well as outside."""
    pattern = _field_pattern(command)
    delimiter = command.delimiter or DELIMITERS["text"]
    fields: list[str | None] = []
    place = 0
    while place < len(text):
        found = pattern.match(text, place)
        raw = found.group() if found else ""
        fields.append(_field(command, raw))
        place += len(raw)
        if text[place : place + 1] == delimiter:
            place += 1
            if place < len(text):
                continue
            fields.append("")
        yield fields
        fields = []
        place += 1


def _field_pattern(command: CopyCommand) -> re.Pattern[str]:
    delimiter = re.escape(command.delimiter or DELIMITERS["text"])
    escaped = r"\\.|" if command.escape else ""
    slash = r"\\" if command.escape else ""
    plain = rf"(?:{escaped}[^{delimiter}\n{slash}])*"
    if not command.remove_quotes:
        return re.compile(plain, re.DOTALL)
    quoted = rf"\"(?:{escaped}[^\"{slash}])*\"|'(?:{escaped}[^'{slash}])*'"
    return re.compile(rf"(?:{quoted})(?=[{delimiter}\n]|\Z)|{plain}", re.DOTALL)


def _field(command: CopyCommand, raw: str) -> str | None:
    if raw == command.null_as:
        return None
    is_quoted = raw[:1] in ("'", '"') and raw[-1:] == raw[:1] and len(raw) > 1
    inside = raw[1:-1] if command.remove_quotes and is_quoted else raw
    if inside == command.null_as:
        return None
    return re.sub(r"\\(.)", r"\1", inside, flags=re.DOTALL) if command.escape else inside
