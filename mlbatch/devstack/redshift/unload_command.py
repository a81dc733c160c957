"""What an UNLOAD statement asks for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from mlbatch.devstack.redshift.command_reader import CommandReader, Meaning, accept_authorization
from mlbatch.devstack.redshift.lexer import split, words
from mlbatch.devstack.redshift.refusal import Refusal, unsupported

Format = Literal["text", "csv", "parquet"]
Compression = Literal["", "gzip", "zstd"]
LARGEST_FILE = int(6.2 * (1 << 30))
SMALLEST_FILE = 5 << 20
GROUP_BYTES = 32 << 20
LARGEST_GROUP = 128 << 20


@dataclass(frozen=True, slots=True)
class UnloadCommand:
    """The parts of the statement."""

    select: str
    target: str
    format: Format = "text"
    compression: Compression = ""
    delimiter: str | None = None
    escape: bool = False
    add_quotes: bool = False
    header: bool = False
    null_as: str | None = None
    manifest: bool = False
    verbose: bool = False
    max_file_bytes: int = LARGEST_FILE
    group_bytes: int | None = None
    parallel: bool = True
    allow_overwrite: bool = False
    clean_path: bool = False
    extension: str | None = None


def parse_unload(sql: str) -> UnloadCommand:
    """Read a whole UNLOAD statement; a Refusal as Redshift gives it for what is wrong."""
    reader = CommandReader(sql)
    reader.expect("UNLOAD", "(")
    select = reader.text()
    reader.expect(")", "TO")
    command = UnloadCommand(select, reader.text())
    while reader:
        if not accept_authorization(reader):
            command = replace(command, **_option(reader))
    _check(command)
    return command


_FLAGS: dict[tuple[str, ...], Meaning] = {
    ("PARQUET",): {"format": "parquet"},
    ("CSV",): {"format": "csv"},
    ("GZIP",): {"compression": "gzip"},
    ("ZSTD",): {"compression": "zstd"},
    ("ESCAPE",): {"escape": True},
    ("ADDQUOTES",): {"add_quotes": True},
    ("HEADER",): {"header": True},
    ("MANIFEST", "VERBOSE"): {"manifest": True, "verbose": True},
    ("MANIFEST",): {"manifest": True},
    ("ALLOWOVERWRITE",): {"allow_overwrite": True},
    ("CLEANPATH",): {"clean_path": True},
    ("ENCRYPTED", "AUTO"): {},
    ("ENCRYPTED",): {},
}
_IGNORED_TEXTS = ("KMS_KEY_ID", "REGION", "MASTER_SYMMETRIC_KEY")


def _option(reader: CommandReader) -> Meaning:
    if reader.accept("FORMAT"):
        reader.accept("AS")
    flag = reader.flag_of(_FLAGS)
    if flag is not None:
        return flag
    return {} if reader.skips(_IGNORED_TEXTS) else _valued(reader)


def _valued(reader: CommandReader) -> Meaning:
    layout = reader.text_layout()
    if layout is not None:
        return layout
    if reader.accept("EXTENSION"):
        return {"extension": reader.text()}
    if reader.accept("MAXFILESIZE"):
        return {"max_file_bytes": reader.size()}
    if reader.accept("ROWGROUPSIZE"):
        return {"group_bytes": reader.size()}
    if reader.accept("PARALLEL"):
        return {"parallel": reader.flag()}
    reader.refuse(("PARTITION", "BZIP2", "FIXEDWIDTH", "JSON"), "UNLOAD")
    raise reader.error()


def _check(command: UnloadCommand) -> None:
    is_parquet = command.format == "parquet"
    if is_parquet and (command.compression or command.delimiter or command.escape):
        raise unsupported("Options GZIP, ZSTD, DELIMITER and ESCAPE are not supported for PARQUET")
    if is_parquet and (command.header or command.add_quotes or command.null_as is not None):
        raise unsupported("Options HEADER, ADDQUOTES and NULL AS are not supported for PARQUET")
    if command.group_bytes is not None and not is_parquet:
        raise unsupported("ROWGROUPSIZE is only supported for PARQUET")
    if command.format == "csv" and (command.escape or command.add_quotes):
        raise unsupported("Options ESCAPE and ADDQUOTES are not supported for CSV")
    if command.allow_overwrite and command.clean_path:
        raise unsupported("ALLOWOVERWRITE and CLEANPATH cannot be given together")
    if not GROUP_BYTES <= (command.group_bytes or GROUP_BYTES) <= LARGEST_GROUP:
        raise Refusal("22023", "ROWGROUPSIZE must be between 32 MB and 128 MB")
    if not SMALLEST_FILE <= command.max_file_bytes <= LARGEST_FILE:
        raise Refusal("22023", "MAXFILESIZE must be between 5 MB and 6.2 GB")
    _check_select(command.select)


def _check_select(select: str) -> None:
    statements = split(select)
    if len(statements) > 1:
        raise Refusal("42601", f'syntax error at or near "{words(statements[1])[0].raw}"')
    try:
        tree = sqlglot.parse_one(statements[0] if statements else "", read="redshift")
    except SqlglotError:
        return  # the engine says what is wrong with it
    if not isinstance(tree, (exp.Select, exp.SetOperation, exp.Subquery)):
        # DuckDB would run it there and then.
        raise Refusal("42601", f'syntax error at or near "{words(select)[0].raw}"')
    if tree.args.get("limit") is not None:
        raise unsupported("Limit clause is not supported")
