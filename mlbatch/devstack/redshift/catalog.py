"""The system tables and views that clients look into, on DuckDB's own catalog."""

# ruff: noqa: S608  constants of this module make up its queries

from __future__ import annotations

SCHEMA = "redshift_catalog"
USER_SCHEMAS = f"schema_name NOT IN ('information_schema', 'pg_catalog', '{SCHEMA}', 'main')"

_TYPE = """CASE
  WHEN data_type LIKE 'DECIMAL%' THEN 'numeric(' || numeric_precision || ',' || numeric_scale || ')'
  WHEN data_type = 'VARCHAR' THEN 'character varying(' || coalesce(length, 65535) || ')'
  WHEN data_type = 'DOUBLE' THEN 'double precision' WHEN data_type = 'FLOAT' THEN 'real'
  WHEN data_type = 'TIMESTAMP' THEN 'timestamp without time zone'
  WHEN data_type = 'TIMESTAMP WITH TIME ZONE' THEN 'timestamp with time zone'
  WHEN data_type = 'TIME' THEN 'time without time zone' WHEN data_type = 'JSON' THEN 'super'
  WHEN data_type = 'BLOB' THEN 'binary varying' ELSE lower(data_type) END"""

# A declared length is a CHECK here, for DuckDB enforces none.
_LENGTHS = r"""SELECT schema_name, table_name, constraint_column_names[1] AS column_name,
  min(CAST(regexp_extract(expression, '<= (\d+)', 1) AS INTEGER)) AS length
  FROM duckdb_constraints()
  WHERE constraint_type = 'CHECK' AND expression LIKE '(strlen(%' GROUP BY ALL"""

VIEWS = {
    "columns": f"""SELECT database_name AS table_catalog, schema_name AS table_schema, table_name,
  column_name, column_index AS ordinal_position, column_default,
  CASE WHEN is_nullable THEN 'YES' ELSE 'NO' END AS is_nullable,
  regexp_replace({_TYPE}, '\\(.*\\)', '') AS data_type,
  CASE WHEN data_type = 'VARCHAR' THEN coalesce(length, 65535) END AS character_maximum_length,
  numeric_precision, numeric_scale, comment AS remarks, {_TYPE} AS full_type
  FROM duckdb_columns() LEFT JOIN ({_LENGTHS}) USING (schema_name, table_name, column_name)
  WHERE {USER_SCHEMAS}""",
    "tables": f"""SELECT database_name AS table_catalog, schema_name AS table_schema, table_name,
  CASE WHEN temporary THEN 'LOCAL TEMPORARY' ELSE 'BASE TABLE' END AS table_type,
  comment AS remarks FROM duckdb_tables() WHERE {USER_SCHEMAS}
  UNION ALL SELECT database_name, schema_name, view_name, 'VIEW', comment FROM duckdb_views()
  WHERE {USER_SCHEMAS} AND NOT internal""",
    "svv_columns": f"SELECT * FROM {SCHEMA}.columns",
    "svv_tables": f"SELECT * FROM {SCHEMA}.tables",
    "svv_table_info": f"""SELECT database_name AS database, schema_name AS schema,
  table_oid AS table_id, table_name AS "table", estimated_size AS tbl_rows,
  CAST(1 AS BIGINT) AS size, 'EVEN' AS diststyle, CAST(NULL AS VARCHAR) AS sortkey1
  FROM duckdb_tables() WHERE {USER_SCHEMAS}""",
    "pg_table_def": f"""SELECT table_schema AS schemaname, table_name AS tablename,
  column_name AS "column", full_type AS type, 'none' AS encoding, false AS distkey,
  0 AS sortkey, is_nullable = 'NO' AS notnull FROM {SCHEMA}.columns""",
}
TABLES = {
    "stl_load_errors": """userid INTEGER, slice INTEGER, tbl INTEGER, starttime TIMESTAMP,
  session INTEGER, query INTEGER, filename VARCHAR, line_number BIGINT, colname VARCHAR,
  type VARCHAR, col_length VARCHAR, position INTEGER, raw_line VARCHAR, raw_field_value VARCHAR,
  err_code INTEGER, err_reason VARCHAR""",
    "stl_unload_log": """userid INTEGER, query INTEGER, slice INTEGER, pid INTEGER, path VARCHAR,
  start_time TIMESTAMP, end_time TIMESTAMP, line_count BIGINT, transfer_size BIGINT,
  file_format VARCHAR""",
}
NAMES = frozenset([*VIEWS, *TABLES])
SHADOWED = frozenset(["columns", "tables"])
"""Views that stand for those of information_schema, and for nothing else."""


def definitions() -> list[str]:
    """Statements that lay the catalog."""
    made = [f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}", "CREATE SCHEMA IF NOT EXISTS public"]
    for name, columns in TABLES.items():
        made.append(f"CREATE TABLE IF NOT EXISTS {SCHEMA}.{name} ({columns})")
        # A database of an earlier version has fewer of them.
        made += [
            f"ALTER TABLE {SCHEMA}.{name} ADD COLUMN IF NOT EXISTS {column.strip()}"
            for column in columns.split(",")
        ]
    return made + [f"CREATE OR REPLACE VIEW {SCHEMA}.{n} AS {q}" for n, q in VIEWS.items()]
