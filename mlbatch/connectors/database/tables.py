"""The ledger's tables, and the table of an output declaration.

Instants are UTC without exception: integer microseconds on SQLite, where mixed text timestamps
compare wrongly, and DATETIME(6) on MySQL. No unique constraint relies on a nullable column, since
two NULLs are not equal there.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    Double,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeDecorator, TypeEngine

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect

    from mlbatch.declaration import Column as Declared
    from mlbatch.table import OutputTable

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def microseconds(instant: datetime) -> int:
    """Microseconds since 1970 of an aware datetime, exactly."""
    return (instant - EPOCH) // timedelta(microseconds=1)


class Instant(TypeDecorator[datetime]):
    """An aware UTC datetime with microseconds."""

    impl = BigInteger
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """DATETIME(6) on MySQL and MariaDB, an integer elsewhere."""
        if dialect.name in ("mysql", "mariadb"):
            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        return dialect.type_descriptor(BigInteger())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> object:
        """To the database's form."""
        if value is None:
            return None
        if dialect.name in ("mysql", "mariadb"):
            return value.astimezone(UTC).replace(tzinfo=None)
        return microseconds(value)

    def process_result_value(self, value: object, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Back to an aware datetime."""
        if value is None:
            return None
        if isinstance(value, datetime):
            return value.replace(tzinfo=UTC)
        return EPOCH + timedelta(microseconds=int(str(value)))


# Two keys that differ in case, accent or a trailing space are two keys, so the collation compares
# bytes and pads nothing. Commit and rollback need InnoDB.
STORAGE: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_0900_bin",
    "mariadb_engine": "InnoDB",
    "mariadb_charset": "utf8mb4",
    "mariadb_collate": "utf8mb4_nopad_bin",
    "sqlite_with_rowid": False,
}

METADATA = MetaData()

LEASE = Table(
    "mlbatch_lease",
    METADATA,
    Column("output_table", String(64), primary_key=True),
    Column("job", String(64), nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("run_id", String(32)),
    Column("owner_id", String(36), nullable=False),
    Column("host", String(255), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("started_at", String(32), nullable=False),
    Column("heartbeat_at", Instant, nullable=False),
    Column("ttl_seconds", Integer, nullable=False),
    **STORAGE,
)

CONNECTION = Table(
    "mlbatch_connection",
    METADATA,
    Column("output_table", String(64), primary_key=True),
    Column("generation", String(16), primary_key=True),
    Column("token", String(64), primary_key=True),
    Column("run_id", String(32), nullable=False),
    Column("server", String(255), nullable=False),
    Column("connection_id", BigInteger, nullable=False),
    Column("user_name", String(128), nullable=False),
    Column("client", String(255), nullable=False),
    Column("connected_at", Instant, nullable=False),
    **STORAGE,
)

RUN = Table(
    "mlbatch_run",
    METADATA,
    Column("run_id", String(32), primary_key=True),
    Column("run_no", BigInteger, nullable=False),
    Column("job", String(64), nullable=False),
    Column("output_table", String(64), nullable=False),
    Column("generation", String(16), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("slot", String(64), nullable=False),
    Column("retry_no", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("model_name", String(64), nullable=False),
    Column("model_version", BigInteger, nullable=False),
    Column("model_digest", String(64), nullable=False),
    Column("query_digest", String(64), nullable=False),
    Column("query", Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb"), nullable=False),
    Column("job_code_digest", String(64), nullable=False),
    Column("code_version", String(64), nullable=False),
    Column("watermark_low", Instant),
    Column("watermark_high", Instant, nullable=False),
    Column("unload_attempt", String(64)),
    Column("snapshot_digest", String(64)),
    Column("highest_cursor", Instant),
    Column("rows_expected", BigInteger),
    Column("tracking_run_id", String(64)),
    Column("error", Text),
    Column("created_at", Instant, nullable=False),
    Column("finished_at", Instant),
    UniqueConstraint("output_table", "run_no"),
    # Refuses nothing that the one above takes. It finds the runs that the tracking server lacks, and
    # is part of CREATE TABLE, where CREATE INDEX would ask for a right of its own.
    UniqueConstraint("output_table", "tracking_run_id", "run_no"),
    UniqueConstraint("job", "generation", "kind", "slot", "retry_no"),
    **STORAGE,
)

PART = Table(
    "mlbatch_part",
    METADATA,
    Column("run_id", String(32), primary_key=True),
    Column("part_no", Integer, primary_key=True),
    Column("uri", String(1024), nullable=False),
    Column("etag", String(128), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("rows_expected", BigInteger, nullable=False),
    Column("done", BigInteger, nullable=False),
    Column("written", BigInteger, nullable=False),
    Column("deleted", BigInteger, nullable=False),
    Column("quarantined", BigInteger, nullable=False),
    Column("filtered", BigInteger, nullable=False),
    Column("checksum", BigInteger, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    **STORAGE,
)

STRIKES = Table(
    "mlbatch_strikes",
    METADATA,
    Column("run_id", String(32), primary_key=True),
    Column("part_no", Integer, primary_key=True),
    Column("deaths", Integer, nullable=False),
    Column("died_at", BigInteger),
    Column("set_aside", BigInteger),
    Column("given_up_from", BigInteger),
    **STORAGE,
)

QUARANTINE = Table(
    "mlbatch_quarantine",
    METADATA,
    Column("run_id", String(32), primary_key=True),
    Column("part_no", Integer, primary_key=True),
    Column("row_offset", BigInteger, primary_key=True),
    Column("entity_key", String(255), nullable=False),
    Column("reason", String(64), nullable=False),
    Column("detail", String(255), nullable=False),
    **STORAGE,
)

WATERMARK = Table(
    "mlbatch_watermark",
    METADATA,
    Column("job", String(64), primary_key=True),
    Column("generation", String(16), primary_key=True),
    Column("watermark", Instant),
    Column("run_id", String(32), nullable=False),
    **STORAGE,
)

ACTIVE = Table(
    "mlbatch_active",
    METADATA,
    Column("output_table", String(64), primary_key=True),
    Column("generation", String(16), nullable=False),
    Column("model_version", BigInteger, nullable=False),
    Column("run_id", String(32), nullable=False),
    Column("switching", String(16)),
    **STORAGE,
)


GENERATION = Table(
    "mlbatch_generation",
    METADATA,
    Column("output_table", String(64), primary_key=True),
    Column("generation", String(16), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("model_version", BigInteger, nullable=False),
    Column("replaced", String(16)),
    Column("changed_at", Instant, nullable=False),
    **STORAGE,
)


def output_table(declared: OutputTable, metadata: MetaData) -> Table:
    """The SQL table of an output declaration, with its comments."""
    columns = [_column(column, declared) for column in declared.all_columns]
    return Table(
        declared.name,
        metadata,
        *columns,
        comment=declared.description.splitlines()[0],
        **STORAGE,
    )


def _column(column: Declared, table: OutputTable) -> Column[Any]:
    return Column(
        column.name,
        _type(column, table.characters(column)),
        primary_key=column.name in table.key,
        autoincrement=False,
        nullable=column.nullable,
        comment=column.description,
    )


def _type(column: Declared, characters: int | None) -> TypeEngine[Any]:
    if pa.types.is_string(column.type):
        return Text() if characters is None else String(characters)
    if pa.types.is_timestamp(column.type):
        return Instant()
    types: dict[pa.DataType, TypeEngine[Any]] = {
        pa.bool_(): Boolean(),
        pa.int64(): BigInteger(),
        pa.float64(): Double(),
        pa.date32(): Date(),
    }
    return types[column.type]


def storable(value: object) -> object:
    """A Python value of an output row in SQLite's form."""
    if isinstance(value, datetime):
        return microseconds(value if value.tzinfo else value.replace(tzinfo=UTC))
    if isinstance(value, date):
        return value.isoformat()
    return value
