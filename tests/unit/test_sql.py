"""SQL text. The numbers in the ids are those of the catalogue of bad inputs, docs/bad-inputs.md."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import duckdb
import pytest
import sqlglot
from bad_inputs import ACCEPTED, NOTICED, REFUSED, bad_input
from hypothesis import given
from hypothesis import strategies as st
from sqlglot import exp

from mlbatch.dialect import to_duckdb
from mlbatch.errors import DeclarationError, UsageError
from mlbatch.sql import (
    bind,
    literal,
    nondeterministic,
    output_columns,
    parse_select,
    placeholders,
    quote_identifier,
    render,
)

CONNECTION = duckdb.connect()


def value_of(redshift):
    return CONNECTION.sql(to_duckdb(redshift)).fetchall()[0][0]


@bad_input(outcome=ACCEPTED)
@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("SELECT 'it''s' AS a", "it's", id="1-single-quote"),
        pytest.param(r"SELECT 'a\\b\\' AS a", "a\\b\\", id="2-backslashes"),
        pytest.param("SELECT '$$ $t$' AS a", "$$ $t$", id="3-dollars"),
        pytest.param("SELECT '% %s :name ?' AS a", "% %s :name ?", id="4-placeholders-in-text"),
        pytest.param("SELECT /* ' */ 1 AS a -- '\n", 1, id="5-quotes-in-comments"),
        pytest.param("SELECT 1 AS a -- the end", 1, id="6-final-comment"),
        pytest.param("SELECT 1 AS a;", 1, id="7-semicolon"),
        pytest.param("SELECT 1 AS a; -- bye\n", 1, id="7-semicolon-and-comment"),
        pytest.param('SELECT 1 AS "Select"', 1, id="14-reserved-word"),
        pytest.param("\ufeffSELECT 1 AS a", 1, id="19-byte-order-mark"),
        pytest.param("SELECT\u00a01 AS a", 1, id="19-no-break-space"),
        pytest.param("SELECT '\u2028' AS a", "\u2028", id="19-line-separator-in-text"),
        pytest.param("WITH t AS (SELECT 1 AS a) SELECT a FROM t", 1, id="with"),
        pytest.param("SELECT 1 AS a UNION ALL SELECT 1", 1, id="union"),
        pytest.param("SELECT a FROM (SELECT 1 AS a LIMIT 1) q", 1, id="inner-limit"),
        pytest.param("SELECT '1'::int AS a", 1, id="cast"),
    ],
)
def test_accepted_exactly(text, value):
    assert value_of(render(parse_select(text))) == value


@bad_input(outcome=REFUSED)
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("SELECT 1 AS a; DROP TABLE t", "2 statements", id="8-two-statements"),
        pytest.param("UNLOAD ('select 1') TO 's3://x'", "one SELECT", id="9-unload"),
        pytest.param("SELECT * FROM (UNLOAD ('x') TO 'y') q", "parsed", id="9-nested-unload"),
        pytest.param("DELETE FROM t", "DELETE", id="10-delete"),
        pytest.param("CREATE TABLE t (a int)", "CREATE", id="10-create"),
        pytest.param(
            "WITH x AS (DELETE FROM t RETURNING a) SELECT a FROM x", "DELETE", id="10-with"
        ),
        pytest.param("COPY t FROM 's3://x' IAM_ROLE 'y'", "COPY", id="10-copy"),
        pytest.param("SELECT a INTO b FROM t", "INTO", id="10-into"),
        pytest.param("SELECT a FROM t LIMIT 5", "LIMIT", id="11-limit"),
        pytest.param("SELECT TOP 5 a FROM t", "LIMIT", id="11-top"),
        pytest.param("SELECT a FROM t OFFSET 5", "OFFSET", id="11-offset"),
        pytest.param("SELECT 1 AS a" + " " * 100_001, "100,000", id="18-too-long"),
        pytest.param("SELECT '\0' AS a", "NUL", id="19-nul"),
        pytest.param("", "0 statements", id="empty"),
        pytest.param("SELECT FROM WHERE", "parsed", id="nonsense"),
        pytest.param("SELECT 'open", "parsed", id="open-quote"),
    ],
)
def test_refused_at_plan_time(text, reason):
    with pytest.raises(DeclarationError, match=reason):
        parse_select(text, file="x.sql")


@bad_input(outcome=REFUSED)
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("SELECT a, b AS a FROM t", "twice", id="12-duplicate"),
        pytest.param("SELECT a, A FROM t", "twice", id="12-duplicate-by-folding"),
        pytest.param('SELECT a AS "NoteId" FROM t', "capital", id="capitals"),
        pytest.param("SELECT a + 1 FROM t", "no name", id="13-unnamed"),
        pytest.param("SELECT * FROM t", r"\*", id="star"),
        pytest.param("SELECT t.* FROM t", r"\*", id="star-of-a-table"),
    ],
)
def test_output_columns_are_refused(text, reason):
    with pytest.raises(DeclarationError, match=reason):
        output_columns(parse_select(text))


def test_errors_point_at_the_line():
    with pytest.raises(DeclarationError) as caught:
        output_columns(parse_select("SELECT a\n     , b\n     , b\n  FROM t"), file="x.sql")
    assert caught.value.location == "x.sql:3"
    with pytest.raises(DeclarationError) as caught:
        parse_select("SELECT a,\n  FROM\n WHERE", file="x.sql")
    assert caught.value.line is not None


@bad_input(14, outcome=ACCEPTED)
def test_14_names_fold_to_lower_case():
    names = output_columns(parse_select('SELECT A, b AS "mixed case", "order", t.C AS D FROM t'))
    assert names == ("a", "mixed case", "order", "d")


@bad_input(20, outcome=ACCEPTED)
@given(st.text())
def test_20_any_text_is_only_data(text):
    if "\0" in text:
        with pytest.raises(UsageError):
            literal(text)
        return
    bound = bind(parse_select("SELECT :p AS a"), {"p": text})
    again = sqlglot.parse_one(render(bound), read="redshift")
    assert again.find(exp.Literal).this == text
    if text.isprintable():
        assert value_of(render(bound)) == text


@bad_input(20, outcome=ACCEPTED)
def test_20_an_injection_is_data():
    bound = bind(parse_select("SELECT :p AS a"), {"p": "'; drop table x; --"})
    assert value_of(render(bound)) == "'; drop table x; --"


@bad_input(21, outcome=ACCEPTED)
def test_21_a_parameter_never_names_a_table():
    bound = bind(parse_select("SELECT :t AS a"), {"t": "users"})
    assert value_of(render(bound)) == "users"
    with pytest.raises(DeclarationError):
        parse_select("SELECT a FROM :t LIMIT 1")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "NULL"),
        (True, "TRUE"),
        (-3, "-3"),
        (2**62, str(2**62)),
        (1.5, "1.5"),
        (Decimal("-0.10"), "-0.10"),
        (date(2026, 1, 2), "CAST('2026-01-02' AS DATE)"),
        (
            datetime(2026, 1, 2, 3, tzinfo=timezone(timedelta(hours=9))),
            "CAST('2026-01-01 18:00:00.000000' AS TIMESTAMP)",
        ),
        ([1, "a"], "(1, 'a')"),
    ],
)
def test_literals(value, text):
    assert render(literal(value)) == text


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), Decimal("NaN"), datetime(2026, 1, 1), object(), [], "\0"]
)
def test_values_without_an_exact_literal_are_refused(value):
    with pytest.raises(UsageError):
        literal(value)


def test_placeholders_are_bound_by_name():
    select = parse_select("SELECT a FROM t WHERE b >= :since AND c = :shard AND d = ':in text'")
    assert placeholders(select) == ("since", "shard")
    bound = bind(select, {"since": datetime(2026, 1, 1, tzinfo=UTC), "shard": 3})
    assert "':in text'" in render(bound)
    assert placeholders(bound) == ()
    assert placeholders(select) == ("since", "shard")


def test_missing_and_surplus_values_are_refused():
    select = parse_select("SELECT a FROM t WHERE b = :shard")
    with pytest.raises(UsageError) as caught:
        bind(select, {"shrd": 1})
    assert caught.value.hint == "did you mean `:shrd`?"
    with pytest.raises(UsageError, match="no parameter :x"):
        bind(select, {"shard": 1, "x": 2})
    with pytest.raises(UsageError) as caught:
        bind(select, {})
    assert caught.value.hint == "given: none"


@bad_input(22, outcome=NOTICED)
def test_22_what_differs_from_run_to_run_is_found():
    select = parse_select(
        "SELECT GETDATE() AS a, RANDOM() AS b, SYSDATE AS c, t.sysdate AS d FROM t"
    )
    assert nondeterministic(select) == ("GETDATE()", "RANDOM()", "SYSDATE")
    assert nondeterministic(parse_select("SELECT upper(a) AS a FROM t")) == ()


def test_identifiers():
    assert quote_identifier('a"b') == '"a""b"'
    for name in ("", "a\0b"):
        with pytest.raises(UsageError):
            quote_identifier(name)
