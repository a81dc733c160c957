"""The author's SELECT, wrapped: run on DuckDB to see that it means what it says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import duckdb
import pytest
from bad_inputs import ACCEPTED, NOTICED, REFUSED, bad_input

from mlbatch.dialect import CONNECTION_SETTINGS, to_duckdb
from mlbatch.errors import DeclarationError, UsageError
from mlbatch.query import FeatureQuery, training_query
from mlbatch.window import Window

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def run():
    with duckdb.connect() as made:
        for setting in CONNECTION_SETTINGS:
            made.execute(setting)
        made.execute(
            'CREATE TABLE t (id BIGINT, "mixed case" VARCHAR, seen TIMESTAMP, gone TIMESTAMP)'
        )
        made.execute("CREATE TABLE labels (id BIGINT, label VARCHAR)")
        for number in range(1, 5):
            seen = (NOON + number * HOUR).replace(tzinfo=None)
            made.execute("INSERT INTO t VALUES (?, ?, ?, NULL)", [number, f"n{number}", seen])
            made.execute("INSERT INTO labels VALUES (?, ?)", [number, "x"])
        made.execute(
            "INSERT INTO t VALUES (9, 'no cursor', NULL, NULL), (NULL, 'no key', NULL, NULL)"
        )
        yield lambda sql: made.sql(to_duckdb(sql)).to_arrow_table()


QUERY = FeatureQuery.parse('SELECT id, "mixed case", seen, gone FROM t')


def ids(table):
    return sorted(n for n in table["id"].to_pylist() if n is not None)


def test_everything_has_no_condition(run):
    assert ids(run(QUERY.windowed(Window(), cursor="seen"))) == [1, 2, 3, 4, 9]


def test_a_window_is_half_open_and_keeps_rows_without_a_cursor(run):
    window = Window(NOON + 2 * HOUR, NOON + 4 * HOUR)
    assert ids(run(QUERY.windowed(window, cursor="seen"))) == [2, 3, 9]
    assert ids(run(QUERY.windowed(window, cursor="seen", null_cursor="never"))) == [2, 3]


def test_bounds_are_written_in_the_cursor_s_zone(run):
    window = Window(NOON + 3 * HOUR - 9 * HOUR)
    select = QUERY.windowed(window, cursor="seen", zone="Asia/Tokyo", null_cursor="never")
    assert ids(run(select)) == [3, 4]


def test_columns_are_projected_by_name(run):
    table = run(QUERY.windowed(Window(), cursor="seen", columns=["mixed case", "id"]))
    assert table.column_names == ["mixed case", "id"]


def test_the_newest_row_of_a_key_is_kept_and_rows_without_one_stay(run):
    twice = FeatureQuery.parse(
        "SELECT 7 AS id, seen FROM t WHERE id < 5 UNION ALL SELECT NULL, seen FROM t"
    )
    table = run(twice.windowed(Window(), cursor="seen", newest_of=("id",)))
    rows = table.to_pylist()
    assert [row["seen"] for row in rows if row["id"] == 7] == [
        (NOON + 4 * HOUR).replace(tzinfo=None)
    ]
    assert len([row for row in rows if row["id"] is None]) == 6


def test_a_query_may_place_the_window_itself(run):
    query = FeatureQuery.parse("SELECT id, seen FROM t WHERE seen >= :since AND seen < :until")
    window = Window(NOON + 2 * HOUR)
    assert ids(run(query.windowed(window, cursor="seen", null_cursor="never"))) == [2, 3, 4]
    assert ids(run(query.windowed(Window(), cursor="seen"))) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "text",
    [
        "SELECT ADD_MONTHS(seen, 1) AS seen, id::text AS id FROM t",
        "SELECT id, seen FROM t -- the last line's comment ends nothing",
        "SELECT /* of (all */ id, seen\n  FROM t\n WHERE 'a\\'b;' <> ';'",
        "WITH u AS (SELECT * FROM t) SELECT id, seen FROM u UNION ALL SELECT 1, NULL FROM t",
    ],
)
def test_the_author_s_words_stand_in_every_statement(text):
    query = FeatureQuery.parse(f"\ufeff;{text}\n;\n-- no more of it; really\n;")
    window = Window(NOON, NOON + HOUR)
    key = {"key": ("id",), "cursor": "seen"}
    for select in (
        query.windowed(window, cursor="seen", newest_of=("id",)),
        query.probe(window, **key),
        query.empty(),
        query.of_keys([(1,)], key=("id",), columns=("id", "seen"), gone=[(2,)]),
    ):
        assert f"(\n{text}\n) AS q" in select
        assert "no more of it" not in select
        FeatureQuery.parse(select)


def test_a_window_in_the_author_s_words_is_all_that_changes_in_them(run):
    text = "SELECT id, seen, ':since' AS s FROM t /* :until */ WHERE seen::TIMESTAMP>=:since"
    query = FeatureQuery.parse(text)
    select = query.windowed(Window(NOON + 3 * HOUR), cursor="seen", null_cursor="never")
    bound = text.replace(">=:since", ">=CAST('2026-01-01 15:00:00.000000' AS TIMESTAMP)")
    assert f"(\n{bound}\n) AS q" in select
    assert ids(run(select)) == [3, 4]


def test_a_placeholder_of_another_name_is_refused():
    query = FeatureQuery.parse("SELECT id, seen FROM t WHERE id < :top")
    with pytest.raises(UsageError, match=":top has no value"):
        query.windowed(Window(), cursor="seen")


def test_probe_counts_rows_keys_and_what_is_newer(run):
    select = QUERY.probe(Window(), key=("id",), cursor="seen", newer_than=NOON + 3 * HOUR)
    counts = {"rows": 6, "keyed_rows": 5, "distinct_keys": 5, "newer": 1, "future": 0}
    assert run(select).to_pylist() == [counts]
    select = QUERY.probe(Window(NOON + 2 * HOUR), key=("id",), cursor="seen")
    assert run(select)["newer"].to_pylist() == [5]
    select = QUERY.probe(Window(), key=("id",), cursor="seen", clock=NOON + 3 * HOUR)
    assert run(select)["future"].to_pylist() == [1]


def test_probe_of_nothing_is_zero(run):
    select = QUERY.probe(Window(NOON + 99 * HOUR), key=("id",), cursor="seen", null_cursor="never")
    counts = dict.fromkeys(("rows", "keyed_rows", "distinct_keys", "newer", "future"), 0)
    assert run(select).to_pylist() == [counts]


def test_empty_tells_the_types(run):
    table = run(QUERY.empty())
    assert table.num_rows == 0
    assert str(table.schema.field("seen").type) == "timestamp[us]"


def test_training_rows_come_in_the_order_of_a_hash(run):
    labels = FeatureQuery.parse("SELECT id, label FROM labels")
    select = training_query(
        QUERY,
        labels,
        key=("id",),
        split_by=("id", "mixed case"),
        cursor="seen",
        tombstone="gone",
        feature_columns=["id", "mixed case"],
        label="label",
    )
    assert select.count("AS VARCHAR(65535))") == 3
    assert "AS VARCHAR)" not in select, "no more than 256 bytes of a key"
    table = run(select)
    assert table.column_names == ["id", "mixed case", "label", "mlbatch_order", "mlbatch_split"]
    order = table["mlbatch_order"].to_pylist()
    assert order == sorted(order)
    assert table["id"].to_pylist() != sorted(table["id"].to_pylist())
    assert len(table) == 4


def test_fingerprints_ignore_layout_and_comments_but_not_literals():
    first = FeatureQuery.parse("SELECT a, 'x' AS b FROM t -- why")
    assert first.fingerprint == FeatureQuery.parse("select a,\n'x' as b from t").fingerprint
    assert first.fingerprint != FeatureQuery.parse("SELECT a, 'y' AS b FROM t").fingerprint


@bad_input(15, outcome=REFUSED, says="did you mean `title`?")
def test_15_a_missing_column_is_named_with_its_neighbour():
    with pytest.raises(DeclarationError) as caught:
        FeatureQuery.parse("SELECT title FROM t", file="x.sql").require(
            ["titel"], because="it must"
        )
    assert caught.value.hint == "did you mean `title`? It gives: title"
    assert caught.value.location == "x.sql:1"
    with pytest.raises(DeclarationError) as caught:
        FeatureQuery.parse("SELECT title FROM t").require(["zzz"], because="it must")
    assert caught.value.hint == "It gives: title"


@bad_input(17, outcome=ACCEPTED)
def test_17_the_order_of_columns_does_not_matter():
    FeatureQuery.parse("SELECT b, a FROM t").require(["a", "b"], because="it must")


@bad_input(22, outcome=NOTICED, says="gives another answer")
def test_22_notices_name_what_differs_from_run_to_run():
    (notice,) = FeatureQuery.parse("SELECT GETDATE() AS a FROM t").notices
    assert notice.startswith("GETDATE() gives another answer")


def test_a_file_that_is_not_utf8_is_refused(tmp_path):
    file = tmp_path / "x.sql"
    file.write_bytes(b"SELECT '\xff' AS a")
    with pytest.raises(DeclarationError, match="not UTF-8"):
        FeatureQuery.load(file)
