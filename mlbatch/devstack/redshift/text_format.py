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
    raw: str
    """As it stands in the file, without its end."""
    fields: list[str | None]
    is_open: bool = False
    """Whether a field begins with a quote that nothing closes."""


def read_lines(command: CopyCommand, text: str) -> Iterator[Line]:
    """The records of ``text`` after its header; NULL AS and escapes are resolved."""
    records = _csv(command, text) if command.format == "csv" else _delimited(command, text)
    for line in records:
        is_blank = line.raw.rstrip("\r") == ""
        if line.number > command.ignore_header and not (is_blank and command.ignore_blank_lines):
            yield line


def _csv(command: CopyCommand, text: str) -> Iterator[Line]:
    csv.field_size_limit(_LARGEST_FIELD)
    delimiter = command.delimiter or DELIMITERS["csv"]
    read: list[str] = []
    rows = csv.reader(_noted(text, read), delimiter=delimiter, quotechar=command.quote)
    for number, row in enumerate(rows, start=1):
        raw = "".join(read).rstrip("\r\n")
        read.clear()
        yield Line(number, raw, [None if field == command.null_as else field for field in row])


def _noted(text: str, read: list[str]) -> Iterator[str]:
    for line in io.StringIO(text, newline=""):
        read.append(line)
        yield line


def _delimited(command: CopyCommand, text: str) -> Iterator[Line]:
    """Escapes count inside quotes as well as outside."""
    pattern = _field_pattern(command)
    delimiter = command.delimiter or DELIMITERS["text"]
    fields: list[str | None] = []
    number, begin, place, is_open = 1, 0, 0, False
    while place < len(text):
        found = pattern.match(text, place)
        raw = found.group() if found else ""
        is_open = is_open or (command.remove_quotes and _is_open(raw))
        fields.append(_field(command, raw))
        place += len(raw)
        if text[place : place + 1] == delimiter:
            place += 1
            if place < len(text):
                continue
            fields.append("")
        yield Line(number, text[begin:place], fields, is_open)
        fields, is_open = [], False
        number, begin = number + 1, place + 1
        place += 1


def _is_open(raw: str) -> bool:
    return raw[:1] in ("'", '"') and not _is_quoted(raw)


def _is_quoted(raw: str) -> bool:
    return raw[:1] in ("'", '"') and raw[-1:] == raw[:1] and len(raw) > 1


def _field_pattern(command: CopyCommand) -> re.Pattern[str]:
    delimiter = re.escape(command.delimiter or DELIMITERS["text"])
    escaped = r"\\.|" if command.escape else ""
    slash = r"\\" if command.escape else ""
    # A backslash that ends the file escapes nothing and stays.
    last = r"\\\Z|" if command.escape else ""
    plain = rf"(?:{escaped}{last}[^{delimiter}\n{slash}])*"
    if not command.remove_quotes:
        return re.compile(plain, re.DOTALL)
    quoted = rf"\"(?:{escaped}[^\"{slash}])*\"|'(?:{escaped}[^'{slash}])*'"
    return re.compile(rf"(?:{quoted})(?=[{delimiter}\n]|\Z)|{plain}", re.DOTALL)


def _field(command: CopyCommand, raw: str) -> str | None:
    if raw == command.null_as:
        return None
    inside = raw[1:-1] if command.remove_quotes and _is_quoted(raw) else raw
    if inside == command.null_as:
        return None
    return re.sub(r"\\(.)", r"\1", inside, flags=re.DOTALL) if command.escape else inside
