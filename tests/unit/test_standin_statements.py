"""Statements on their way to DuckDB: words, bound values, definitions, names, refusals."""

from __future__ import annotations

import errno
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlglot.errors import ParseError

from mlbatch.devstack.redshift.faults import Fault, Faults
from mlbatch.devstack.redshift.lexer import split, tokens, words
from mlbatch.devstack.redshift.literals import sql_literal
from mlbatch.devstack.redshift.object_store import place
from mlbatch.devstack.redshift.parameters import Parameters
from mlbatch.devstack.redshift.queuery_query import bind_marks
from mlbatch.devstack.redshift.refusal import Refusal, translated, unsupported
from mlbatch.devstack.redshift.statement import (
    SYSTEM_FUNCTIONS,
    bind_names,
    bind_positions,
    for_duckdb,
    one_statement,
)
from mlbatch.errors import UsageError


def nothing(name, arguments):
    """A system that knows every function's value: its name and arguments."""
    return f"{name}({','.join(map(str, arguments))})"


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("SELECT a", [("word", "SELECT"), ("word", "A")]),
        ('"A ""b"""', [("name", 'A "b"')]),
        ("'it''s'", [("text", "it's")]),
        (r"'it\'s'", [("text", "it's")]),
        (r"'a\nb\tc\\d'", [("text", "a\nb\tc\\d")]),
        (r"'\b\f\r\q'", [("text", "\b\f\rq")]),
        ("$$a'b$$", [("text", "a'b")]),
        ("$x$a$$b$x$", [("text", "a$$b")]),
        ("$1", [("parameter", "$1")]),
        ("$12 :name", [("parameter", "$12"), ("parameter", ":name")]),
        ("a::int", [("word", "A"), ("sign", "::"), ("word", "INT")]),
        ("1.5 .5 5.", [("number", "1.5"), ("number", ".5"), ("number", "5.")]),
        ("a<=b", [("word", "A"), ("sign", "<"), ("sign", "="), ("word", "B")]),
        ("a -- 'b\n c", [("word", "A"), ("word", "C")]),
        ("a /* ' */ c", [("word", "A"), ("word", "C")]),
        ("a--b", [("word", "A")]),
        ("日本 é1", [("word", "日本"), ("word", "É1")]),
        ("a$b", [("word", "A$B")]),
        ("", []),
        (" \n\t", []),
    ],
)
def test_words(sql, found):
    assert [(token.kind, token.value) for token in words(sql)] == found


@pytest.mark.parametrize("sql", ["'open", "SELECT 'a' || 'b", '"open', "'a\\'", "a ' b -- '\n"[:4]])
def test_an_open_quote_is_refused(sql):
    with pytest.raises(Refusal, match="unterminated quoted string") as caught:
        list(tokens(sql))
    assert caught.value.sqlstate == "42601"


@pytest.mark.parametrize(
    ("sql", "statements"),
    [
        ("", []), (";", []), (" ; ; ", []), ("-- nothing", []), ("/* ; */;", []),
        ("a", ["a"]), ("a;", ["a"]), ("a;b", ["a", "b"]), (";a;;b;", ["a", "b"]),
        ("a -- ;\n;b", ["a -- ;\n", "b"]), ("';';a", ["';'", "a"]), ("$$;$$", ["$$;$$"]),
        ('";";b', ['";"', "b"]),
    ],
)  # fmt: skip
def test_statements_end_at_semicolons(sql, statements):
    assert split(sql) == statements


@pytest.mark.parametrize(
    ("sql", "text", "verb"),
    [
        ("", "", ""),
        ("-- nothing\n", "", ""),
        ("select 1", "select 1", "SELECT"),
        ("  -- why\n select 1 ;", "select 1", "SELECT"),
        ("start transaction", "start transaction", "BEGIN"),
        ("end", "end", "COMMIT"),
        ("ABORT", "ABORT", "ROLLBACK"),
        ("(select 1)", "(select 1)", "("),
        ("/* x */ copy t from 'x'", "copy t from 'x'", "COPY"),
    ],
)
def test_one_statement_and_its_verb(sql, text, verb):
    found = one_statement(sql)
    assert (found.sql, found.verb) == (text, verb)
    assert found.is_query == (verb in ("SELECT", "("))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "NULL"),
        (True, "TRUE"),
        (False, "FALSE"),
        (5, "5"),
        (-5, "(-5)"),
        (Decimal("1.50"), "1.50"),
        (Decimal("-0.1"), "(-0.1)"),
        (1.5, "CAST('1.5' AS DOUBLE PRECISION)"),
        (float("inf"), "CAST('inf' AS DOUBLE PRECISION)"),
        (float("-inf"), "CAST('-inf' AS DOUBLE PRECISION)"),
        (float("nan"), "CAST('nan' AS DOUBLE PRECISION)"),
        (date(2026, 1, 2), "CAST('2026-01-02' AS DATE)"),
        (time(1, 2, 3), "CAST('01:02:03' AS TIME)"),
        (datetime(2026, 1, 2), "CAST('2026-01-02 00:00:00' AS TIMESTAMP)"),
        (datetime(2026, 1, 2, 9, tzinfo=timezone(timedelta(hours=9))),
         "CAST('2026-01-02 00:00:00+00:00' AS TIMESTAMPTZ)"),
        (b"\x00\xff", "unhex('00ff')"),
        (bytearray(b"a"), "unhex('61')"),
        ("it's", "'it''s'"),
        ("a\\b", "'a\\\\b'"),
        ("日本", "'日本'"),
    ],
)  # fmt: skip
def test_a_value_as_redshift_writes_it(value, text):
    assert sql_literal(value) == text


@pytest.mark.parametrize(
    ("sql", "values", "bound"),
    [
        ("SELECT $1", [1], "SELECT 1"),
        ("SELECT $2, $1", [1, "a"], "SELECT 'a', 1"),
        ("SELECT $1 + $1", [-1], "SELECT (-1) + (-1)"),
        ("SELECT '$1', $1", ["x"], "SELECT '$1', 'x'"),
        ('SELECT "$1", $1', ["x"], "SELECT \"$1\", 'x'"),
        ("SELECT $1 -- $2", [1], "SELECT 1 -- $2"),
        ("SELECT :a, $1", [1], "SELECT :a, 1"),
    ],
)
def test_positions_are_bound_outside_of_texts(sql, values, bound):
    assert bind_positions(sql, values) == bound


@pytest.mark.parametrize(
    ("sql", "values", "bound"),
    [
        ("SELECT :a", {"a": "1"}, "SELECT '1'"),
        ("SELECT :a::int", {"a": "1"}, "SELECT '1'::int"),
        ("SELECT b::int, :a", {"a": "1"}, "SELECT b::int, '1'"),
        ("SELECT ':a', :a", {"a": "1"}, "SELECT ':a', '1'"),
        ("SELECT :a -- :b", {"a": "1"}, "SELECT '1' -- :b"),
        ("SELECT $1, :a", {"a": "1"}, "SELECT $1, '1'"),
    ],
)
def test_names_are_bound_outside_of_texts_and_casts(sql, values, bound):
    assert bind_names(sql, values) == bound


@pytest.mark.parametrize(
    ("bind", "sql", "name"),
    [(lambda s: bind_positions(s, [1]), "SELECT $2", "$2"),
     (lambda s: bind_names(s, {"a": 1}), "SELECT :b", ":b")],
)  # fmt: skip
def test_a_parameter_without_a_value_is_named(bind, sql, name):
    with pytest.raises(Refusal) as caught:
        bind(sql)
    assert (caught.value.sqlstate, caught.value.message) == (
        "42P02", f"there is no parameter {name}",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("select", "values", "bound"),
    [
        ("SELECT ?", [], "SELECT ?"),
        ("SELECT ?", ["a"], "SELECT 'a'"),
        ("SELECT ?, ?", ["a", "b"], "SELECT 'a', 'b'"),
        ("SELECT '?', ?", ["it's"], "SELECT '?', 'it''s'"),
        ("SELECT ? -- ?", ["a"], "SELECT 'a' -- ?"),
        ("SELECT ?", ["?"], "SELECT '?'"),
    ],
)
def test_question_marks_of_queuery(select, values, bound):
    assert bind_marks(select, values) == bound


@pytest.mark.parametrize(("select", "values"), [("SELECT ?, ?", ["a"]), ("SELECT 1", ["a"]),
                                                ("SELECT '?'", ["a"]), ("SELECT ?", ["a", "b"])])  # fmt: skip
def test_a_wrong_number_of_question_marks_is_refused(select, values):
    with pytest.raises(Refusal, match=rf"wrong number of bind variables \({len(values)}\)"):
        bind_marks(select, values)


# Definitions


@pytest.mark.parametrize(
    ("columns", "too_long", "fits"),
    [
        ("a VARCHAR(3)", "日本", "日"),
        ("a VARCHAR", "x" * 257, "x" * 256),
        ("a TEXT", "x" * 257, "x" * 256),
        ("a CHAR", "xy", "x"),
        ("a CHAR(2)", "xyz", "xy"),
        ("a NVARCHAR(2)", "xyz", "xy"),
        ("a BPCHAR(3)", "xyzw", "xyz"),
        ("a VARCHAR(MAX)", "x" * 65_536, "x" * 65_535),
    ],
)
def test_a_length_is_in_bytes_and_has_redshifts_default(columns, too_long, fits):
    with duckdb.connect() as connection:
        for sql in for_duckdb(f"CREATE TABLE t ({columns})", nothing):
            connection.execute(sql)
        connection.execute("INSERT INTO t VALUES (?)", [fits])
        with pytest.raises(duckdb.ConstraintException):
            connection.execute("INSERT INTO t VALUES (?)", [too_long])


@pytest.mark.parametrize(
    "definition",
    [
        "CREATE TABLE t (a INT DISTKEY SORTKEY)",
        "CREATE TABLE t (a INT ENCODE az64 NOT NULL)",
        "CREATE TABLE t (a INT PRIMARY KEY)",
        "CREATE TABLE t (a INT UNIQUE)",
        "CREATE TABLE t (a INT REFERENCES other (b))",
        "CREATE TABLE t (a INT) DISTKEY(a) SORTKEY(a)",
        "CREATE TABLE t (a INT) DISTSTYLE ALL",
        "CREATE TABLE t (a INT) DISTSTYLE EVEN COMPOUND SORTKEY (a)",
        "CREATE TABLE t (a INT, PRIMARY KEY (a))",
        "CREATE TABLE t (a INT, UNIQUE (a))",
        "CREATE TABLE t (a INT, CONSTRAINT k PRIMARY KEY (a))",
        "CREATE TABLE IF NOT EXISTS t (a INT)",
        "CREATE TEMP TABLE t (a INT)",
        "CREATE TEMPORARY TABLE t (a INTEGER)",
        "CREATE TABLE t (a INT) BACKUP NO",
    ],
)
def test_keys_and_places_are_believed_and_not_checked(definition):
    """Redshift's keys are advice: the same row twice is stored twice."""
    with duckdb.connect() as connection:
        for sql in for_duckdb(definition, nothing):
            connection.execute(sql)
        connection.execute("INSERT INTO t VALUES (1), (1)")
        assert connection.execute("SELECT a FROM t").fetchall() == [(1,), (1,)]


@pytest.mark.parametrize(
    ("column", "expected"),
    [("IDENTITY(1, 1)", [1, 2, 3]), ("IDENTITY(10, 5)", [10, 15, 20]),
     ("GENERATED BY DEFAULT AS IDENTITY(7, 1)", [7, 8, 9])],
)  # fmt: skip
def test_an_identity_counts(column, expected):
    with duckdb.connect() as connection:
        connection.execute("CREATE SCHEMA public")
        for sql in for_duckdb(f"CREATE TABLE t (id BIGINT {column}, a INT)", nothing):
            connection.execute(sql)
        connection.execute("INSERT INTO t (a) VALUES (1), (2), (3)")
        assert [
            n for (n,) in connection.execute("SELECT id FROM t ORDER BY a").fetchall()
        ] == expected


def test_like_copies_columns_lengths_and_not_null():
    """Through the definition that the session looks up; keys and places of its own are dropped."""
    asked = []

    def system(name, arguments):
        asked.append((name, tuple(arguments)))
        return "CREATE TABLE s.b(a INTEGER NOT NULL, c VARCHAR, CHECK((strlen(c) <= 3)))"

    (sql,) = for_duckdb("CREATE TEMP TABLE IF NOT EXISTS n (LIKE S.B)", system)
    assert asked == [("create_table", ("s", "b"))]
    with duckdb.connect() as connection:
        connection.execute(sql)
        connection.execute(sql)
        connection.execute("INSERT INTO n VALUES (1, 'abc')")
        for row in ((None, "a"), (1, "abcd")):
            with pytest.raises(duckdb.ConstraintException):
                connection.execute("INSERT INTO n VALUES (?, ?)", row)


def test_a_super_column_is_kept_as_json_and_added_columns_lose_their_keys():
    with duckdb.connect() as connection:
        for sql in (
            "CREATE TABLE t (a SUPER, b INT)",
            "ALTER TABLE t ADD COLUMN c INT ENCODE zstd",
        ):
            for one in for_duckdb(sql, nothing):
                connection.execute(one)
        kinds = connection.execute("SELECT data_type FROM duckdb_columns() WHERE table_name = 't'")
        assert [kind for (kind,) in kinds.fetchall()] == ["JSON", "INTEGER", "INTEGER"]


def test_several_tables_are_dropped_one_after_another():
    assert for_duckdb("DROP TABLE IF EXISTS a, b", nothing) == (
        "DROP TABLE IF EXISTS a", "DROP TABLE IF EXISTS b",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("SELECT 1", "?column?"), ("SELECT 'a'", "?column?"), ("SELECT 1 + 1", "?column?"), ("SELECT COUNT(*)", "count"),
        ("SELECT 1 AS a", "a"), ("SELECT MAX(x) FROM (SELECT 1 AS x)", "max"),
        ("SELECT CASE WHEN true THEN 1 END", "case"), ("SELECT x FROM (SELECT 1 AS x)", "x"),
        ("SELECT MIN(x) OVER () FROM (SELECT 1 AS x)", "min"), ("SELECT 'a' || 'b'", "?column?"),
        ("(SELECT 1)", "?column?"), ("SELECT 1 UNION SELECT 2", "?column?"),
        ("SELECT my_udf(1)", "my_udf"),
    ],
)  # fmt: skip
def test_a_column_without_a_name_gets_redshifts(query, name):
    (sql,) = for_duckdb(query, nothing)
    if name == "my_udf":
        assert sql.endswith('AS "my_udf"')
        return
    assert duckdb.sql(sql).columns == [name]


@pytest.mark.parametrize("function", sorted(SYSTEM_FUNCTIONS - {"version", "current_database",
                                                                "current_schema"}))  # fmt: skip
def test_system_functions_are_asked_of_the_session(function):
    (sql,) = for_duckdb(f"SELECT {function}('x', 5) AS a", nothing)
    assert duckdb.sql(sql).fetchall() == [(f"{function}(x,5)",)]


@pytest.mark.parametrize("written", ["CURRENT_USER", "USER", "SESSION_USER", "CURRENT_USER_ID"])
def test_the_user_is_asked_of_the_session(written):
    (sql,) = for_duckdb(f"SELECT {written} AS a", nothing)
    number = "_id" if written.endswith("ID") else ""
    assert duckdb.sql(sql).fetchall() == [(f"current_user{number}()",)]


@pytest.mark.parametrize(
    ("table", "found"),
    [
        ("svv_columns", "redshift_catalog.svv_columns"),
        ("PG_TABLE_DEF", "redshift_catalog.PG_TABLE_DEF"),
        ("pg_catalog.pg_table_def", "redshift_catalog.pg_table_def"),
        ("stl_load_errors", "redshift_catalog.stl_load_errors"),
        ("information_schema.columns", "redshift_catalog.columns"),
        ("information_schema.tables", "redshift_catalog.tables"),
        ("information_schema.schemata", "information_schema.schemata"),
        ("columns", "columns"),
        ("mine.svv_columns", "mine.svv_columns"),
    ],
)
def test_tables_of_the_catalogue_are_found_where_they_are(table, found):
    (sql,) = for_duckdb(f"SELECT 1 AS a FROM {table}", nothing)
    assert sql.lower().replace('"', "") == f"select 1 as a from {found.lower()}"


@pytest.mark.parametrize("sql", ["SELEC 1", "SELECT FROM WHERE", "CREATE TABLE", "x", "x y", "SELECT (",
                                 "INSERT INTO", "FOO BAR BAZ"])  # fmt: skip
def test_what_is_no_sql_is_a_syntax_error(sql):
    with pytest.raises(Refusal) as caught:
        for_duckdb(sql, nothing)
    assert caught.value.sqlstate == "42601"
    assert sql.split()[0] in caught.value.message


@pytest.mark.parametrize("function", ["FNV_HASH('a')", "STRTOL('ff', 16)", "CRC32('a')"])
def test_what_has_no_exact_twin_is_refused_loudly(function):
    with pytest.raises(Refusal) as caught:
        for_duckdb(f"SELECT {function} AS a", nothing)
    assert caught.value.sqlstate == "0A000"


# Refusals


@pytest.mark.parametrize(
    ("sql", "sqlstate", "message"),
    [
        ("SELECT * FROM nowhere", "42P01", 'relation "nowhere" does not exist'),
        ("SELECT b FROM t", "42703", 'column "b" does not exist'),
        ("SELECT x.a FROM t", "42P01", 'missing FROM-clause entry for "x"'),
        ("CREATE TABLE t (a INT)", "42P07", 'Relation "t" already exists'),
        ("CREATE SCHEMA main", "42P06", 'schema "main" already exists'),
        ("SELECT nofunction(a) FROM t", "42883", "function nofunction() does not exist"),
        ("SELECT CAST('x' AS INT)", "22P02", 'invalid input syntax for type integer: "x"'),
        ("SELECT CAST('x' AS BOOLEAN)", "22P02", 'invalid input syntax for type boolean: "x"'),
        ("INSERT INTO t VALUES (NULL)", "23502", "Cannot insert a NULL value into column a"),
        (
            "INSERT INTO t VALUES (1, 2)",
            "42601",
            "INSERT has more or fewer expressions than target columns",
        ),
        ("SELECT a, COUNT(*) FROM t", "42803", None),
        ("SELECT CAST(99999 AS SMALLINT)", "22003", None),
        (
            "INSERT INTO k VALUES (1), (1)",
            "23505",
            "duplicate key value violates unique constraint",
        ),
        (
            "INSERT INTO l VALUES ('toolong')",
            "22001",
            "value too long for type character varying(3)",
        ),
        ("SELECT FROM", "42601", None),
        ("ALTER TABLE t ADD COLUMN a INT", "42701", 'column "a" already exists'),
        ("SELECT * FROM nowhere.t", None, None),
    ],
)
def test_duckdbs_errors_in_redshifts_words(sql, sqlstate, message):
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE t (a INT NOT NULL)")
        connection.execute("CREATE TABLE k (a INT PRIMARY KEY)")
        connection.execute("CREATE TABLE l (a VARCHAR, CHECK (strlen(a) <= 3))")
        with pytest.raises(duckdb.Error) as caught:
            connection.execute(sql)
    found = translated(caught.value)
    assert "\n" not in found.message
    assert " Error: " not in found.message
    if sqlstate:
        assert found.sqlstate == sqlstate
    if message:
        assert found.message == message


@pytest.mark.parametrize(
    ("error", "sqlstate"),
    [
        (duckdb.ParserException("Parser Error: x"), "42601"),
        (duckdb.ConversionException("Conversion Error: x"), "22P02"),
        (duckdb.OutOfRangeException("x"), "22003"),
        (duckdb.NotImplementedException("x"), "0A000"),
        (duckdb.BinderException("x"), "42601"),
        (duckdb.CatalogException("x"), "42601"),
        (duckdb.ConstraintException("x"), "23514"),
        (duckdb.PermissionException("x"), "42501"),
        (duckdb.OutOfMemoryException("x"), "53200"),
        (duckdb.TransactionException("x"), "XX000"),
        (duckdb.IOException("IO Error: No space left on device"), "53100"),
        (OSError(errno.ENOSPC, "full"), "53100"),
        (OSError(errno.EIO, "broken"), "XX000"),
        (ParseError("x"), "42601"),
        (UsageError("x"), "0A000"),
        (RuntimeError("x"), "XX000"),
        (RuntimeError(""), "XX000"),
        (ValueError("date field value out of range"), "22007"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value,
)
def test_every_error_has_a_state(error, sqlstate):
    found = translated(error)
    assert found.sqlstate == sqlstate
    assert found.message


def test_two_writers_are_redshifts_1023():
    found = translated(duckdb.TransactionException("Conflict on tuple"))
    assert (found.sqlstate, found.message) == ("XX000", "1023")
    assert found.detail.startswith("Serializable isolation violation on table")


def test_a_refusal_is_its_message():
    assert str(unsupported("no such thing")) == "no such thing"
    assert unsupported("x").detail is None


# Places, parameters, faults


@pytest.mark.parametrize(
    ("uri", "found"),
    [("s3://b/k", ("b", "k")), ("s3://b", ("b", "")), ("s3://b/", ("b", "")),
     ("s3://b/a/b c/日", ("b", "a/b c/日")), ("s3://b//k", ("b", "/k")), ("s3://b/a?b#c", ("b", "a?b#c"))],
)  # fmt: skip
def test_bucket_and_key(uri, found):
    assert place(uri) == found


@pytest.mark.parametrize("uri", ["", "b/k", "http://b/k", "s3:/b/k", "s3://", "s3:///k", "S3//b/k"])
def test_an_address_that_is_none_is_refused(uri):
    with pytest.raises(Refusal) as caught:
        place(uri)
    assert (caught.value.sqlstate, caught.value.message) == (
        "22023", f"The S3 path is invalid: {uri}",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("path", "schemas"),
    [
        (None, "public,redshift_catalog,main"),
        ("other", "other,redshift_catalog,main"),
        ("'$user', public, other", "public,other,redshift_catalog,main"),
        ("a, b ,c", "a,b,c,redshift_catalog,main"),
        ("''", "redshift_catalog,main"),
    ],
)
def test_the_schemas_of_a_search_path(path, schemas):
    parameters = Parameters()
    if path is not None:
        parameters.set(words(f"SET search_path TO {path}"))
    assert parameters.schemas == schemas


@pytest.mark.parametrize(
    ("sql", "milliseconds"),
    [("SET statement_timeout TO 0", 0), ("SET statement_timeout = '1500'", 1500),
     ("SET LOCAL statement_timeout TO 7", 7), ("SET statement_timeout TO DEFAULT", 0)],
)  # fmt: skip
def test_the_time_limit(sql, milliseconds):
    parameters = Parameters()
    parameters.set(words(sql))
    assert parameters.timeout_ms == milliseconds


@pytest.mark.parametrize(
    "document",
    [{}, {"kind": "nonsense"}, {"kind": "error", "pattern": "("}, {"kind": "error", "more": 1},
     {"pattern": "x"}],
)  # fmt: skip
def test_a_rule_that_is_none_is_refused(document):
    with pytest.raises(ValueError, match="fault"):
        Fault.of(document)


@given(st.integers(0, 5), st.integers(0, 8))
@settings(deadline=None)
def test_a_rule_happens_as_often_as_it_says(times, tries):
    faults = Faults([Fault("error", "select", times=times)])
    happened = [faults.take("error", "SELECT 1") is not None for _ in range(tries)]
    assert happened == [number < times for number in range(tries)]


@pytest.mark.parametrize(
    ("pattern", "statement", "matches"),
    [("", "anything", True), ("unload", "UNLOAD ('x')", True), ("^copy", "-- x\ncopy", False),
     ("a.b", "a\nb", True), ("nothing", "SELECT 1", False)],
)  # fmt: skip
def test_a_rule_matches_anywhere_in_any_case(pattern, statement, matches):
    faults = Faults([Fault("delay", pattern, times=-1)])
    assert (faults.take("delay", statement) is not None) == matches
    assert (faults.take("delay", statement) is not None) == matches
    assert faults.take("error", statement) is None


def test_rules_are_taken_in_order_and_cleared():
    faults = Faults()
    faults.add(Fault("error", "a", message="first"))
    faults.add(Fault("error", "", message="second", times=-1))
    assert [faults.take("error", "a").message for _ in range(3)] == ["first", "second", "second"]
    faults.clear()
    assert faults.take("error", "a") is None


@given(st.datetimes(timezones=st.just(UTC), min_value=datetime(1970, 1, 2)))
@settings(deadline=None)
def test_a_moment_is_bound_in_utc_whatever_its_zone(moment):
    tokyo = moment.astimezone(timezone(timedelta(hours=9)))
    assert sql_literal(moment) == sql_literal(tokyo)
