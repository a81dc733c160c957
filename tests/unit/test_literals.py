"""Values and names in SQL, read back by a database: nothing is lost and nothing gets out."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlbatch.dialect import to_duckdb
from mlbatch.errors import DeclarationError, UsageError
from mlbatch.sql import bind, literal, parse_select, placeholders, quote_identifier, render

CONNECTION = duckdb.connect()
PRINTABLE = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=20)
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)


def value_of(select):
    return CONNECTION.sql(to_duckdb(select)).fetchall()[0][0]


def through(value):
    return value_of(render(bind(parse_select("SELECT :p AS a"), {"p": value})))


@given(st.integers(-(2**63), 2**63 - 1) | st.booleans() | st.none() | PRINTABLE | st.dates())
def test_a_value_comes_back_as_it_went(value):
    assert through(value) == value


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_comes_back_as_near_as_decimals_are(value):
    found = float(value_of(f"SELECT CAST({render(literal(value))} AS DOUBLE PRECISION) AS a"))
    assert found == pytest.approx(value, rel=1e-15)


@given(
    st.decimals(
        allow_nan=False, allow_infinity=False, min_value=-(10**15), max_value=10**15, places=3
    )
)
def test_a_decimal_comes_back_digit_by_digit(value):
    assert Decimal(through(value)) == value


@given(
    st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1)),
    st.integers(-14 * 60, 14 * 60),
)
def test_an_instant_comes_back_as_utc(naive, minutes):
    value = naive.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    assert through(value) == value.astimezone(UTC).replace(tzinfo=None)


@pytest.mark.parametrize(("year", "hours"), [(1, 9), (9999, -9)])
def test_an_instant_without_a_date_in_utc_is_refused(year, hours):
    edge = datetime(1, 1, 1) if year == 1 else datetime(9999, 12, 31, 23)
    with pytest.raises(UsageError, match="beyond the years"):
        literal(edge.replace(tzinfo=timezone(timedelta(hours=hours))))


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=6), st.integers(-5, 5))
def test_a_list_is_a_list_of_its_values(values, wanted):
    select = bind(
        parse_select("SELECT :wanted IN :values AS a"), {"wanted": wanted, "values": values}
    )
    assert value_of(render(select)) == (wanted in values)


@given(NAMES)
def test_any_name_is_one_name(name):
    """Whatever it holds: quotes, semicolons, comments, other alphabets."""
    quoted = quote_identifier(name)
    found = CONNECTION.sql(f"SELECT 1 AS {quoted}")
    assert found.columns == [name]


@given(NAMES, NAMES)
def test_different_names_stay_different(one, other):
    assert (quote_identifier(one) == quote_identifier(other)) == (one == other)


@given(st.dictionaries(st.from_regex(r"[a-z][a-z_]{0,8}", fullmatch=True), PRINTABLE, min_size=1))
def test_values_that_look_like_placeholders_are_not_bound_again(values):
    """A value such as ``:other`` stays a text."""
    values = {f"p_{name}": f":p_{text}" for name, text in values.items()}
    items = ", ".join(f":{name} AS a{n}" for n, name in enumerate(values))
    bound = bind(parse_select(f"SELECT {items}"), values)
    assert placeholders(bound) == ()
    assert CONNECTION.sql(to_duckdb(render(bound))).fetchall() == [tuple(values.values())]


def test_a_query_that_nests_too_deeply_is_refused_with_its_file():
    text = "SELECT " + "(" * 5_000 + "1" + ")" * 5_000 + " AS a"
    with pytest.raises(DeclarationError, match="nests too deeply") as caught:
        parse_select(text, file="deep.sql")
    assert caught.value.file == "deep.sql"
    assert caught.value.hint


@pytest.mark.parametrize("value", [b"x", {1}, {"a": 1}, 1j, date, ["\0"], [datetime(2026, 1, 1)]])
def test_what_has_no_literal_is_refused_whole(value):
    with pytest.raises(UsageError):
        literal(value)
