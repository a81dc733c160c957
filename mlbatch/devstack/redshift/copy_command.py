"""What a COPY statement asks for."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mlbatch.devstack.redshift.command_reader import CommandReader, Meaning, accept_authorization
from mlbatch.devstack.redshift.refusal import Refusal, unsupported
from mlbatch.devstack.redshift.unload_command import Compression, Format

MOST_ERRORS = 100_000


@dataclass(frozen=True, slots=True)
class CopyCommand:
    """The parts of the statement."""

    table: str
    source: str
    columns: tuple[str, ...] = ()
    format: Format = "text"
    compression: Compression = ""
    manifest: bool = False
    delimiter: str | None = None
    quote: str = '"'
    null_as: str = "\\N"
    ignore_header: int = 0
    escape: bool = False
    remove_quotes: bool = False
    empty_as_null: bool = False
    blanks_as_null: bool = False
    truncate_columns: bool = False
    trim_blanks: bool = False
    fill_record: bool = False
    ignore_blank_lines: bool = False
    round_decimals: bool = False
    accept_any_date: bool = False
    encoding: str = "utf-8"
    invalid_as: str | None = None
    """What stands for a byte that is no UTF-8; None makes it an error."""
    no_load: bool = False
    max_errors: int = 0


def parse_copy(sql: str) -> CopyCommand:
    """Read a whole COPY statement."""
    reader = CommandReader(sql)
    reader.expect("COPY")
    table = reader.name()
    columns = _columns(reader)
    reader.expect("FROM")
    command = CopyCommand(table, reader.text(), columns)
    while reader:
        if not accept_authorization(reader):
            command = replace(command, **_option(reader))
    if command.max_errors > MOST_ERRORS:
        raise Refusal("22023", f"MAXERROR must be between 0 and {MOST_ERRORS}")
    return command


def _columns(reader: CommandReader) -> tuple[str, ...]:
    if not reader.accept("("):
        return ()
    names = [reader.name()]
    while reader.accept(","):
        names.append(reader.name())
    reader.expect(")")
    return tuple(names)


_FLAGS: dict[tuple[str, ...], Meaning] = {
    ("PARQUET",): {"format": "parquet"},
    ("GZIP",): {"compression": "gzip"},
    ("ZSTD",): {"compression": "zstd"},
    ("MANIFEST",): {"manifest": True},
    ("ESCAPE",): {"escape": True},
    ("REMOVEQUOTES",): {"remove_quotes": True},
    ("EMPTYASNULL",): {"empty_as_null": True},
    ("BLANKSASNULL",): {"blanks_as_null": True},
    ("TRUNCATECOLUMNS",): {"truncate_columns": True},
    ("TRIMBLANKS",): {"trim_blanks": True},
    ("FILLRECORD",): {"fill_record": True},
    ("IGNOREBLANKLINES",): {"ignore_blank_lines": True},
    ("ACCEPTANYDATE",): {"accept_any_date": True},
    ("EXPLICIT_IDS",): {},
    ("ROUNDEC",): {"round_decimals": True},
    ("NOLOAD",): {"no_load": True},
}
_ENCODINGS = {"UTF8": "utf-8", "UTF16": "utf-16", "UTF16LE": "utf-16-le", "UTF16BE": "utf-16-be"}
_TIMES = ("TIMEFORMAT", "DATEFORMAT")
_SWITCHES = ("COMPUPDATE", "STATUPDATE")
_REFUSED = ("AVRO", "ORC", "JSON", "FIXEDWIDTH", "BZIP2", "LZOP", "SSH", "SHAPEFILE", "READRATIO")


def _option(reader: CommandReader) -> Meaning:
    if reader.accept("FORMAT"):
        reader.accept("AS")
    if reader.accept("CSV"):
        quote = reader.text() if reader.accept("QUOTE") else '"'
        return {"format": "csv", "quote": quote}
    flag = reader.flag_of(_FLAGS)
    if flag is not None:
        return flag
    reader.refuse(_REFUSED, "COPY")
    return _valued(reader)


def _valued(reader: CommandReader) -> Meaning:
    layout = reader.text_layout()
    if layout is not None:
        return layout
    if reader.accept("QUOTE"):
        return {"quote": reader.text()}
    if reader.accept("ENCODING"):
        return {"encoding": _encoding(reader.word_or_text())}
    if reader.accept("ACCEPTINVCHARS"):
        return {"invalid_as": reader.text_if_any("?")}
    return _counted(reader)


def _counted(reader: CommandReader) -> Meaning:
    if reader.accept("IGNOREHEADER"):
        return {"ignore_header": reader.number()}
    if reader.accept("MAXERROR"):
        return {"max_errors": reader.number()}
    if reader.accept("COMPROWS"):
        reader.number()
        return {}
    return _meaningless_here(reader)


def _encoding(name: str) -> str:
    if name.upper() not in _ENCODINGS:
        raise Refusal("22023", f"ENCODING must be one of {', '.join(_ENCODINGS)}, not {name}")
    return _ENCODINGS[name.upper()]


def _meaningless_here(reader: CommandReader) -> Meaning:
    for name in _TIMES:
        if reader.accept(name):
            if reader.text().lower() not in ("auto", "yyyy-mm-dd", "yyyy-mm-dd hh:mi:ss"):
                raise unsupported(f"{name} other than 'auto' is not supported by this stand-in")
            return {}
    if reader.skips(("REGION",)):
        return {}
    for name in _SWITCHES:
        if reader.accept(name):
            reader.accept("PRESET")
            reader.flag()
            return {}
    raise reader.error()
