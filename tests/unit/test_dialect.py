"""Redshift's idioms on DuckDB: each with the value that Redshift documents."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import duckdb
import pytest

from mlbatch.dialect import CONNECTION_SETTINGS, to_duckdb
from mlbatch.errors import UsageError

A = datetime(2026, 1, 2, 3, 4, 5)
B = datetime(2026, 3, 4, 5, 6, 7)


@pytest.fixture(scope="module")
def connection():
    with duckdb.connect() as made:
        for setting in CONNECTION_SETTINGS:
            made.execute(setting)
        made.execute(
            "CREATE TABLE recipes (id BIGINT, title VARCHAR, user_id BIGINT, "
            "created_at TIMESTAMP, updated_at TIMESTAMP, j VARCHAR)"
        )
        rows = [
            (1, "カレー a b", 2, A, B, '{"a":{"b":"x"}}'),
            (2, "肉じゃが", 3, A, B, '{"a":{"b":"y"}}'),
            (4, "肉じゃが", 3, A, B, None),
        ]
        made.executemany("INSERT INTO recipes VALUES (?, ?, ?, ?, ?, ?)", rows)
        yield made


ONE = " FROM recipes WHERE id = 1"
IDIOMS = [
    ("SELECT DATEADD(day, -1, CAST('2026-01-02' AS DATE))", datetime(2026, 1, 1)),
    ("SELECT DATEDIFF(day, created_at, updated_at)" + ONE, 61),
    ("SELECT NVL(NULL, 'x')", "x"),
    ("SELECT NVL2(title, 1, 0)" + ONE, 1),
    ("SELECT DECODE(user_id, 2, 'x', 'y')" + ONE, "x"),
    (
        "SELECT LISTAGG(title, ',') WITHIN GROUP (ORDER BY id) FROM recipes",
        "カレー a b,肉じゃが,肉じゃが",
    ),
    ("SELECT LISTAGG(DISTINCT user_id::varchar, ',') FROM recipes WHERE id > 1", "3"),
    ("SELECT LISTAGG(CASE WHEN id = 1 THEN 'x' END, ',') FROM recipes", "x"),
    ("SELECT CONVERT_TIMEZONE('Asia/Tokyo', created_at)" + ONE, datetime(2026, 1, 2, 12, 4, 5)),
    (
        "SELECT CONVERT_TIMEZONE('UTC', 'Asia/Tokyo', created_at)" + ONE,
        datetime(2026, 1, 2, 12, 4, 5),
    ),
    ("SELECT JSON_EXTRACT_PATH_TEXT(j, 'a', 'b')" + ONE, "x"),
    ("SELECT APPROXIMATE COUNT(DISTINCT user_id) FROM recipes", 2),
    ("SELECT LEN(title)" + ONE, 7),
    ("SELECT CHARINDEX('a', title)" + ONE, 5),
    ("SELECT STRPOS(title, 'カ')" + ONE, 1),
    ("SELECT REGEXP_SUBSTR(title, '[ァ-ヶ]+')" + ONE, "カレ"),
    ("SELECT REGEXP_REPLACE(title, '[ ]', '_')" + ONE, "カレー_a_b"),
    ("SELECT REGEXP_REPLACE(title, '[ ]')" + ONE, "カレーab"),
    ("SELECT REGEXP_COUNT(title, '[ァ-ヶ]')" + ONE, 2),
    ("SELECT SPLIT_PART(title, ' ', 1)" + ONE, "カレー"),
    ("SELECT MD5('a')", "0cc175b9c0f1b6a831c399e269772661"),
    ("SELECT TRUNC(created_at)" + ONE, date(2026, 1, 2)),
    ("SELECT TRUNC(2.9)", 2.0),
    ("SELECT TRUNC(111.86, 1)", Decimal("111.8")),
    ("SELECT TRUNC(-43.19, 0)", Decimal(-43)),
    ("SELECT TRUNC(12345, -2)", 12300),
    ("SELECT TRUNC(CAST(-1.29 AS FLOAT), 1)", -1.2),
    ("SELECT TRUNC(GETDATE()) <= GETDATE()", True),
    ("SELECT DATE_TRUNC('week', created_at)" + ONE, datetime(2025, 12, 29)),
    ("SELECT EXTRACT(epoch FROM created_at)" + ONE, 1767323045),
    ("SELECT TO_CHAR(created_at, 'YYYY-MM-DD HH24:MI:SS')" + ONE, "2026-01-02 03:04:05"),
    ("SELECT TO_CHAR(created_at, 'YYYY\"年\"DDD-DDTHH12.US')" + ONE, "2026年002-02T03.000000"),
    ("SELECT TO_DATE('2026-01-02', 'YYYY-MM-DD')", date(2026, 1, 2)),
    ("SELECT title ILIKE '%A%'" + ONE, True),
    ("SELECT title SIMILAR TO '%(レ|魚)%'" + ONE, True),
    ("SELECT title SIMILAR TO 'カレー'" + ONE, False),
    ("SELECT title SIMILAR TO 'カ_ー%'" + ONE, True),
    ("SELECT title ~ 'レ'" + ONE, True),
    (r"SELECT 'a_b' LIKE 'a\\_b'", True),
    (r"SELECT 'axb' LIKE 'a\\_b'", False),
    (r"SELECT 'axb' NOT ILIKE 'A\\_b'", True),
    (r"SELECT '5 %' LIKE REPLACE('5 x', 'x', '\\%')", True),
    ("SELECT 'a_b' LIKE 'a^_b' ESCAPE '^'", True),
    ("SELECT MEDIAN(id) FROM recipes", 2),
    ("SELECT RATIO_TO_REPORT(id) OVER ()" + ONE, 1.0),
    ("SELECT BTRIM(' x ')", "x"),
    ("SELECT ISNULL(NULL, 'x')", "x"),
    ("SELECT id::varchar(64)" + ONE, "1"),
    ("SELECT CAST('caterpillar' AS CHAR(4))", "cate"),
    ("SELECT title::varchar(8)" + ONE, "カレ"),
    ("SELECT title::varchar(9)" + ONE, "カレー"),
    ("SELECT '🍜🍜'::varchar(7)", "🍜"),
    ("SELECT NULL::varchar(3)", None),
    ("SELECT title::varchar(max)" + ONE, "カレー a b"),
    ("SELECT LEN(title::varchar(3)::varchar(2))" + ONE, 0),
    ("SELECT DATE_PART(dow, created_at)" + ONE, 5),
    ("SELECT LAST_DAY(created_at)" + ONE, date(2026, 1, 31)),
    ("SELECT ADD_MONTHS(created_at, 1)" + ONE, datetime(2026, 2, 2, 3, 4, 5)),
    ("SELECT ADD_MONTHS('2024-02-29'::date, 1)", datetime(2024, 3, 31)),
    ("SELECT ADD_MONTHS('2008-04-30 10:30:01'::timestamp, -2)", datetime(2008, 2, 29, 10, 30, 1)),
    ("SELECT ADD_MONTHS('2024-01-31', 1)", datetime(2024, 2, 29)),
    ("SELECT ADD_MONTHS('2024-01-30', 13)", datetime(2025, 2, 28)),
    ("SELECT DATEADD(month, 1, '2024-02-29'::date)", datetime(2024, 3, 29)),
    ("SELECT GREATEST(1, 2) + LEAST(1, 2)", 3),
    ("SELECT GREATEST(NULL, 1)", 1),
    ("SELECT PERCENTILE_CONT(0.5) WITHIN GROUP (ORDER BY id) FROM recipes", 2.0),
    ("SELECT COUNT(*) FROM (SELECT id FROM recipes MINUS SELECT 2) q", 2),
    ("SELECT CAST(id AS decimal(18,2))" + ONE, Decimal("1.00")),
    ("SELECT CONCAT(title, 'x')" + ONE, "カレー a bx"),
    ("SELECT CONCAT('a', NULL)", None),
    ("SELECT title || NULL" + ONE, None),
    ("SELECT REPLACE(title, ' ', '')" + ONE, "カレーab"),
    ("SELECT LEFT(title, 3) || RIGHT(title, 2)" + ONE, "カレー b"),
    ("SELECT OCTET_LENGTH(title)" + ONE, 13),
    ("SELECT CHR(65)", "A"),
    ("SELECT ASCII('A')", 65),
    ("SELECT BOOL_OR(id > 3) FROM recipes", True),
    ("SELECT COUNT(*) FILTER (WHERE id > 1) FROM recipes", 2),
    ("SELECT a FROM (SELECT 1 AS a, 2 AS b) t(a, b)", 1),
    ("SELECT TIMEZONE('Asia/Tokyo', created_at)" + ONE, datetime(2026, 1, 1, 18, 4, 5, tzinfo=UTC)),
    ("SELECT DATE(created_at)" + ONE, date(2026, 1, 2)),
    ("SELECT created_at::date - 1" + ONE, date(2026, 1, 1)),
    ("SELECT created_at + INTERVAL '1 day'" + ONE, datetime(2026, 1, 3, 3, 4, 5)),
    ("SELECT DATE_PART_YEAR(created_at::date)" + ONE, 2026),
    ("SELECT TEXTLEN(title)" + ONE, 7),
    ("SELECT CAST('a' AS SUPER)", '"a"'),
    ("SELECT JSON_PARSE(j)" + ONE, '{"a":{"b":"x"}}'),
    ("SELECT 7 / 2", 3),
    ("SELECT -7 / 2", -3),
    ("SELECT 7.0 / 2", 3.5),
    ("SELECT AVG(id) FROM recipes", 2),
    ("SELECT AVG(id * 1.0) FROM recipes", pytest.approx(7 / 3)),
    ("SELECT AVG(id) OVER (PARTITION BY user_id) FROM recipes ORDER BY id DESC", 3),
    ("SELECT AVG(id * 1.5) OVER () FROM recipes", 3.5),
    ("SELECT AVG(TRUNC(id * 1.55, 1)) FROM recipes", pytest.approx(10.8 / 3)),
    ("SELECT SUM(id) FROM recipes", 7),
    ("SELECT SUM(OCTET_LENGTH(title)) FROM recipes", 37),
    ("SELECT SUM(CAST(0.0000004 AS DECIMAL(38, 10))) FROM recipes", Decimal("0.0000012")),
    ("SELECT SUM(DISTINCT user_id) FROM recipes", 5),
    ("SELECT TITLE AS T" + ONE, "カレー a b"),
    ("SELECT MAX(id) FROM (SELECT TOP 1 id FROM recipes ORDER BY id) q", 1),
    ("SELECT MAX(id) FROM (SELECT id FROM recipes ORDER BY id LIMIT 5 OFFSET 1) q", 4),
    (
        "SELECT COUNT(*) FROM (SELECT id FROM recipes QUALIFY "
        "ROW_NUMBER() OVER (PARTITION BY user_id ORDER BY id DESC) = 1) q",
        2,
    ),
    ("SELECT MONTHS_BETWEEN('2026-03-02'::date, '2026-01-02'::date)", 2.0),
]


@pytest.mark.parametrize(("redshift", "documented"), IDIOMS, ids=[i[0][7:60] for i in IDIOMS])
def test_idiom(connection, redshift, documented):
    table = connection.sql(to_duckdb(redshift)).to_arrow_table()
    assert table.column(0)[0].as_py() == documented


@pytest.mark.parametrize("call", ["GETDATE()", "SYSDATE", "CURRENT_TIMESTAMP"])
def test_the_clock_is_utc_without_a_zone(connection, call):
    now = connection.sql(to_duckdb(f"SELECT {call}")).fetchall()[0][0]
    assert now.tzinfo is None
    assert abs((now.replace(tzinfo=UTC) - datetime.now(UTC)).total_seconds()) < 60


def test_sums_of_integers_are_bigint(connection):
    table = connection.sql(
        to_duckdb("SELECT SUM(id) AS a, AVG(id) AS b FROM recipes")
    ).to_arrow_table()
    assert [str(field.type) for field in table.schema] == ["int64", "int64"]


def test_random_is_a_number(connection):
    assert 0 <= connection.sql(to_duckdb("SELECT RANDOM()")).fetchall()[0][0] < 1


@pytest.mark.parametrize(
    "call",
    [
        "FNV_HASH(title)", "STRTOL('ff', 16)", "CRC32('a')", "FARMHASH64('a')", "CHECKSUM('a')",
        "TRUNC(id, user_id)", "AVG(DISTINCT id)", "AVG(id) FILTER (WHERE id > 1)",
        "SUM(id) FILTER (WHERE id > 1)", "TO_CHAR(created_at, 'Day')", "TO_CHAR(created_at, 'D')",
        "TO_CHAR(created_at, 'WW')", "TO_CHAR(created_at, 'HH24:MI AM')", "TO_CHAR(id, '999')",
        "TO_CHAR(created_at, title)", r"title SIMILAR TO 'a\\_'",
    ],
)  # fmt: skip
def test_what_has_no_exact_twin_is_refused(call):
    with pytest.raises(UsageError, match="embedded warehouse cannot run"):
        to_duckdb(f"SELECT {call} FROM recipes")


def test_a_pattern_must_be_literal():
    with pytest.raises(UsageError, match="literal pattern"):
        to_duckdb("SELECT title SIMILAR TO j FROM recipes")


@pytest.mark.parametrize(
    ("order", "values"),
    [
        ("v", [1, 2, None]),
        ("v ASC", [1, 2, None]),
        ("v DESC", [None, 2, 1]),
        ("v NULLS LAST", [1, 2, None]),
        ("v NULLS FIRST", [None, 1, 2]),
        ("v DESC NULLS LAST", [2, 1, None]),
        ("v DESC NULLS FIRST", [None, 2, 1]),
    ],
)
def test_null_stands_where_redshift_puts_it(connection, order, values):
    """In the order of a query as well as in a window function's."""
    rows = "(SELECT 1 AS v UNION ALL SELECT NULL UNION ALL SELECT 2) q"
    plain = f"SELECT v FROM {rows} ORDER BY {order}"
    ranked = f"SELECT v, ROW_NUMBER() OVER (ORDER BY {order}) AS n FROM {rows}"
    assert [row[0] for row in connection.sql(to_duckdb(plain)).fetchall()] == values
    numbered = {n: v for v, n in connection.sql(to_duckdb(ranked)).fetchall()}
    assert [numbered[n] for n in (1, 2, 3)] == values
