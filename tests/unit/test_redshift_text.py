"""Text and CSV files, field by field: how COPY reads them, and how UNLOAD writes them."""

from __future__ import annotations

import csv
import io
from datetime import UTC, date, datetime, time
from decimal import Decimal

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbatch.devstack.redshift.copy_command import CopyCommand
from mlbatch.devstack.redshift.text_format import read_lines
from mlbatch.devstack.redshift.unload_command import UnloadCommand
from mlbatch.devstack.redshift.unload_text import delimiter_of, header_line, lines_query


def fields(text, **options):
    return [line.fields for line in read_lines(CopyCommand("t", "s3://b/p", **options), text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("a\n", [["a"]]),
        ("a", [["a"]]),
        ("a|b\n", [["a", "b"]]),
        ("a|b", [["a", "b"]]),
        ("a|\n", [["a", ""]]),
        ("a|", [["a", ""]]),
        ("|a\n", [["", "a"]]),
        ("|", [["", ""]]),
        ("||\n", [["", "", ""]]),
        ("a\nb\n", [["a"], ["b"]]),
        ("\n", [[""]]),
        ("a\n\nb", [["a"], [""], ["b"]]),
        ("\\N|\\N\n", [[None, None]]),
        ("x\\N|a", [["x\\N", "a"]]),
        ("'a'|\"b\"\n", [["'a'", '"b"']]),
        ("a,b\n", [["a,b"]]),
        ("日本|🍣\n", [["日本", "🍣"]]),
        (" a | b \n", [[" a ", " b "]]),
        ("a\r\n", [["a\r"]]),
        ("a\\|b\n", [["a\\", "b"]]),
    ],
)
def test_delimited_text(text, expected):
    assert fields(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\\|b|c\n", [["a|b", "c"]]),
        ("a\\\nb|c\n", [["a\nb", "c"]]),
        ("a\\\\|c\n", [["a\\", "c"]]),
        ("a\\\\\\|b\n", [["a\\|b"]]),
        ("\\a\\b\n", [["ab"]]),
        ("\\012\n", [["012"]]),  # no octal: the documentation says so
        ("\\N\n", [[None]]),
        ("\\\\N\n", [["\\N"]]),
        ("a\\\r\\\nb\n", [["a\r\nb"]]),
        ("\\'a\\'\n", [["'a'"]]),
        ("\\日|b\n", [["日", "b"]]),
    ],
)
def test_escapes_count_only_where_they_are_asked_for(text, expected):
    assert fields(text, escape=True) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("'a'|\"b\"\n", [["a", "b"]]),
        ("'a|b'|c\n", [["a|b", "c"]]),
        ('"a\nb"|c\n', [["a\nb", "c"]]),
        ("''\n", [[""]]),
        ('""|x\n', [["", "x"]]),
        ("'it\"s'\n", [['it"s']]),
        ("a'b'|c\n", [["a'b'", "c"]]),
        ("Blue'\n", [["Blue'"]]),
        ("'\\N'|x\n", [[None, "x"]]),
        ("'日本'\n", [["日本"]]),
    ],
)
def test_quotes_around_a_field_are_removed_where_they_are_asked_for(text, expected):
    assert fields(text, remove_quotes=True) == expected


@pytest.mark.parametrize(
    ("text", "open_lines"),
    [("'Blue\n", [1]), ('"Blue|x\n', [1]), ("a|'b\nc|d\n", [1]), ("a\n'b'\n'c\n", [3]),
     ("'\n", [1]), ("'a'|b'\n", []), ("Blue'\n", [])],
)  # fmt: skip
def test_a_quote_that_nothing_closes_is_noticed(text, open_lines):
    command = CopyCommand("t", "s3://b/p", remove_quotes=True)
    assert [line.number for line in read_lines(command, text) if line.is_open] == open_lines


def test_quotes_are_nothing_special_without_removequotes():
    (line,) = read_lines(CopyCommand("t", "s3://b/p"), "'Blue|x\n")
    assert not line.is_open
    assert line.fields == ["'Blue", "x"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("'A Midsummer Night\\'s Dream'\n", [["A Midsummer Night's Dream"]]),
        ('"a\\"b"|c\n', [['a"b', "c"]]),
        ('"a\\\\"|c\n', [["a\\", "c"]]),
        ('"a\\\nb"\n', [["a\nb"]]),
        ("'a|b'|'c\\'|d'\n", [["a|b", "c'|d"]]),
    ],
)
def test_escapes_count_inside_quotes_too(text, expected):
    assert fields(text, escape=True, remove_quotes=True) == expected


@pytest.mark.parametrize(
    ("null_as", "text", "expected"),
    [
        ("", "a||b\n", [["a", None, "b"]]),
        ("NULL", "NULL|null\n", [[None, "null"]]),
        ("@", "@|@@\n", [[None, "@@"]]),
        ("\\N", "\\N|N\n", [[None, "N"]]),
    ],
)
def test_null_as(null_as, text, expected):
    assert fields(text, null_as=null_as) == expected


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("a,b\n", {}, [["a", "b"]]),
        ('"a,b",c\n', {}, [["a,b", "c"]]),
        ('"a ""b""",c\n', {}, [['a "b"', "c"]]),
        ('"a\nb",c\n', {}, [["a\nb", "c"]]),
        ('"a\r\nb"\r\n', {}, [["a\r\nb"]]),
        ("a,\n", {}, [["a", ""]]),
        (",\n", {}, [["", ""]]),
        ("\\N,x\n", {}, [[None, "x"]]),
        ("a;b\n", {"delimiter": ";"}, [["a", "b"]]),
        ("%a,b%,c\n", {"quote": "%"}, [["a,b", "c"]]),
        ("@,a\n", {"null_as": "@"}, [[None, "a"]]),
        ("a\\,b\n", {}, [["a\\", "b"]]),
        ("'a',b\n", {}, [["'a'", "b"]]),
        ("日,🍣\n", {}, [["日", "🍣"]]),
    ],
)
def test_csv(text, options, expected):
    assert fields(text, format="csv", **options) == expected


@pytest.mark.parametrize(
    ("format_", "text", "ignored", "expected"),
    [
        ("text", "h\na\nb\n", 0, [(1, "h"), (2, "a"), (3, "b")]),
        ("text", "h\na\nb\n", 1, [(2, "a"), (3, "b")]),
        ("text", "h\na\nb\n", 2, [(3, "b")]),
        ("text", "h\na\n", 9, []),
        ("csv", "h\na\nb\n", 1, [(2, "a"), (3, "b")]),
        ("csv", '"h\nh"\na\n', 1, [(2, "a")]),
    ],
)
def test_a_header_is_passed_over_and_still_counts(format_, text, ignored, expected):
    command = CopyCommand("t", "s3://b/p", format=format_, ignore_header=ignored)
    assert [(line.number, line.fields[0]) for line in read_lines(command, text)] == expected


@pytest.mark.parametrize("format_", ["text", "csv"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_blank_lines_are_passed_over_only_where_asked(format_, end):
    text = f"a{end}{end}b{end}"
    skipping = CopyCommand("t", "s3://b/p", format=format_, ignore_blank_lines=True)
    assert [line.number for line in read_lines(skipping, text)] == [1, 3]
    keeping = CopyCommand("t", "s3://b/p", format=format_)
    assert [line.number for line in read_lines(keeping, text)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("format_", "text", "raws"),
    [
        ("text", "a|b\nc\n", ["a|b", "c"]),
        ("text", "a|b", ["a|b"]),
        ("text", "a|\n\n|", ["a|", "", "|"]),
        ("csv", 'a,"b\nc"\nd\n', ['a,"b\nc"', "d"]),
        ("csv", "a,b\r\nc\r\n", ["a,b", "c"]),
    ],
)
def test_a_line_knows_how_it_stood_in_the_file(format_, text, raws):
    command = CopyCommand("t", "s3://b/p", format=format_)
    assert [line.raw for line in read_lines(command, text)] == raws


TEXT = st.text(st.sampled_from("ab|,\"'\\\n\r\t 日🍣N"), max_size=12)


@settings(deadline=None)
@given(TEXT, st.booleans(), st.booleans(), st.sampled_from([None, ",", "\t"]))
def test_any_text_is_read_to_its_end(text, escape, remove_quotes, delimiter):
    """Nothing is lost: the raw lines are the text, and their numbers run on."""
    command = CopyCommand(
        "t", "s3://b/p", escape=escape, remove_quotes=remove_quotes, delimiter=delimiter
    )
    lines = list(read_lines(command, text))
    assert [line.number for line in lines] == list(range(1, len(lines) + 1))
    joined = "\n".join(line.raw for line in lines)
    assert text in (joined, joined + "\n")


@settings(deadline=None)
@given(st.lists(st.lists(TEXT, min_size=2, max_size=2), max_size=5), st.sampled_from(",;|"))
def test_what_pythons_csv_writes_copy_reads(rows, delimiter):
    sink = io.StringIO()
    csv.writer(sink, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(
        rows
    )
    found = fields(sink.getvalue(), format="csv", delimiter=delimiter, null_as="\0")
    assert found == rows


# UNLOAD


def written(values, kinds=None, **options):
    """The lines that UNLOAD makes of one row."""
    table = pa.table({f"c{n}": pa.array([v], kinds[n] if kinds else None)
                      for n, v in enumerate(values)})  # fmt: skip
    query = lines_query(UnloadCommand("", "", **options), "SELECT * FROM t", table.schema)
    with duckdb.cursor() as cursor:
        cursor.register("t", table)
        ((line,),) = cursor.sql(query).fetchall()
    return line


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (True, pa.bool_(), "t"),
        (False, pa.bool_(), "f"),
        (None, pa.bool_(), ""),
        (-5, pa.int16(), "-5"),
        (2**31 - 1, pa.int32(), "2147483647"),
        (-(2**63), pa.int64(), "-9223372036854775808"),
        (1.0, pa.float64(), "1"),
        (1.5, pa.float64(), "1.5"),
        (-0.1, pa.float64(), "-0.1"),
        (100.0, pa.float32(), "100"),
        (float("nan"), pa.float64(), "nan"),
        (Decimal("1.50"), pa.decimal128(5, 2), "1.50"),
        (Decimal("-0.01"), pa.decimal128(5, 2), "-0.01"),
        (date(2026, 1, 2), pa.date32(), "2026-01-02"),
        (time(1, 2, 3), pa.time64("us"), "01:02:03"),
        (datetime(2026, 1, 2, 3, 4, 5), pa.timestamp("us"), "2026-01-02 03:04:05"),
        (datetime(2026, 1, 2, 3, 4, 5, 600), pa.timestamp("us"), "2026-01-02 03:04:05.0006"),
        (datetime(2026, 1, 2, tzinfo=UTC), pa.timestamp("us", "UTC"), "2026-01-02 00:00:00+00"),
        (b"\x00\xff", pa.binary(), "00ff"),
        ("日本", pa.string(), "日本"),
        ("", pa.string(), ""),
        (None, pa.string(), ""),
    ],
)
def test_each_type_as_text(value, kind, text):
    assert written([value], [kind]) == text
    assert written([value], [kind], add_quotes=True) == f'"{text}"'


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({}, "a|b|1|"),
        ({"delimiter": ","}, "a|b,1,"),
        ({"null_as": "NULL"}, "a|b|1|NULL"),
        ({"add_quotes": True}, '"a|b"|"1"|""'),
        ({"add_quotes": True, "null_as": "N"}, '"a|b"|"1"|"N"'),
        ({"escape": True}, "a\\|b|1|"),
        ({"escape": True, "delimiter": "1"}, "a|b111"),
        ({"format": "csv"}, "a|b,1,"),
        ({"format": "csv", "delimiter": "|"}, '"a|b"|1|'),
        ({"format": "csv", "null_as": "it's"}, "a|b,1,it's"),
    ],
)
def test_options_of_a_row(options, line):
    """ESCAPE is for CHAR and VARCHAR columns: the number 1 stays, whatever the delimiter."""
    assert written(["a|b", 1, None], [pa.string(), pa.int64(), pa.string()], **options) == line


@pytest.mark.parametrize(
    ("value", "escaped", "escaped_quoted", "as_csv"),
    [
        ("plain", "plain", '"plain"', "plain"),
        ('say "a"', 'say "a"', '"say \\"a\\""', '"say ""a"""'),
        ("it's", "it's", '"it\\\'s"', "it's"),
        ("a\nb", "a\\\nb", '"a\\\nb"', '"a\nb"'),
        ("a\rb", "a\\\rb", '"a\\\rb"', '"a\rb"'),
        ("a\\b", "a\\\\b", '"a\\\\b"', "a\\b"),
        ("a|b", "a\\|b", '"a\\|b"', "a|b"),
        ("a,b", "a,b", '"a,b"', '"a,b"'),
        ("\t", "\t", '"\t"', "\t"),
        ("", "", '""', '""'),
        ("🍣|", "🍣\\|", '"🍣\\|"', "🍣|"),
    ],
)
def test_what_is_escaped_where(value, escaped, escaped_quoted, as_csv):
    kinds = [pa.string()]
    assert written([value], kinds, escape=True) == escaped
    assert written([value], kinds, escape=True, add_quotes=True) == escaped_quoted
    assert written([value], kinds, format="csv") == as_csv


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({}, 'a|b,c|d"e|f|g'),
        ({"delimiter": ","}, 'a,b,c,d"e,f|g'),
        ({"add_quotes": True}, '"a"|"b,c"|"d"e"|"f|g"'),
        ({"escape": True}, 'a|b,c|d"e|f\\|g'),
        ({"escape": True, "add_quotes": True}, '"a"|"b,c"|"d\\"e"|"f\\|g"'),
        ({"format": "csv"}, 'a,"b,c","d""e",f|g'),
        ({"format": "csv", "delimiter": "|"}, 'a|b,c|"d""e"|"f|g"'),
    ],
)
def test_the_header_is_written_like_a_row(options, line):
    """Text transformation options apply to the header line too."""
    schema = pa.schema([(name, pa.string()) for name in ("a", "b,c", 'd"e', "f|g")])
    assert header_line(UnloadCommand("", "", **options), schema) == line


@pytest.mark.parametrize(
    ("options", "delimiter"),
    [({}, "|"), ({"format": "csv"}, ","), ({"delimiter": "\t"}, "\t"),
     ({"format": "csv", "delimiter": ";"}, ";")],
)  # fmt: skip
def test_the_delimiter_follows_the_format(options, delimiter):
    assert delimiter_of(UnloadCommand("", "", **options)) == delimiter
