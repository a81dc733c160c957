"""The stand-in's readers of what clients send: any input is understood or refused, never worse."""

from __future__ import annotations

import io
import struct
from datetime import date, datetime, time
from decimal import Decimal

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbatch.devstack.redshift.copy_command import CopyCommand, parse_copy
from mlbatch.devstack.redshift.lexer import split, tokens, words
from mlbatch.devstack.redshift.literals import sql_literal
from mlbatch.devstack.redshift.parameters import Parameters
from mlbatch.devstack.redshift.refusal import Refusal
from mlbatch.devstack.redshift.statement import bind_names, bind_positions, one_statement
from mlbatch.devstack.redshift.text_format import read_lines
from mlbatch.devstack.redshift.unload_command import UnloadCommand, parse_unload
from mlbatch.devstack.redshift.unload_text import lines_query
from mlbatch.devstack.redshift.wire_messages import Body, ProtocolViolation, message, read_message
from mlbatch.devstack.redshift.wire_types import argument, cells, wire_type
from mlbatch.dialect import to_duckdb

SQL = st.text(st.sampled_from("ab1 \n'\"$;:-/*\\.,()²日"), max_size=30)
PIECES = st.sampled_from([
    "UNLOAD", "(", ")", "'select 1'", "TO", "'s3://b/p'", "COPY", "t", "FROM", "IAM_ROLE", "DEFAULT",
    "PARQUET", "CSV", "QUOTE", "AS", "GZIP", "ZSTD", "MANIFEST", "VERBOSE", "DELIMITER", "'|'", "NULL",
    "ESCAPE", "ADDQUOTES", "REMOVEQUOTES", "HEADER", "IGNOREHEADER", "1", "²", "1.5", "MAXFILESIZE",
    "100", "MB", "GB", "PARALLEL", "OFF", "ON", "MAXERROR", "FORMAT", "TIMEFORMAT", "'auto'", ",", ".",
    "COMPUPDATE", "PRESET", "PARTITION", "BY", "CLEANPATH", "ALLOWOVERWRITE", "REGION", "EXTENSION",
    "WITH", "CREDENTIALS", "ROWGROUPSIZE", "JSON", '"A"',
])  # fmt: skip


@given(SQL)
def test_words_are_cut_out_of_a_text_and_nothing_of_it_is_lost(sql):
    try:
        found = list(tokens(sql))
    except Refusal as refused:
        assert refused.sqlstate == "42601"  # noqa: PT017  an open quote
        return
    assert "".join(token.raw for token in found) == sql
    assert [(t.start, t.end) for t in found] == [(t.start, t.start + len(t.raw)) for t in found]


@given(st.lists(st.sampled_from(["SELECT ';'", "SELECT $$;$$", "-- ;\nx", "/* ; */ y", "z"])))
def test_a_text_is_split_at_its_semicolons_only(statements):
    assert [s.strip() for s in split(";".join(statements))] == statements
    if len(statements) > 1:
        with pytest.raises(Refusal, match="multiple commands"):
            one_statement(";".join(statements))


@given(st.lists(PIECES, max_size=12), st.sampled_from(["UNLOAD ('select 1') TO 's3://b/p' ", ""]))
def test_any_words_are_an_unload_or_refused(pieces, head):
    sql = head + " ".join(pieces)
    try:
        command = parse_unload(sql)
    except Refusal as refused:
        assert refused.sqlstate in ("42601", "0A000", "22023")  # noqa: PT017
    else:
        assert (command.select, command.target) == ("select 1", "s3://b/p")


@given(st.lists(PIECES, max_size=12), st.sampled_from(["COPY a.t (x, y) FROM 's3://b/p' ", ""]))
def test_any_words_are_a_copy_or_refused(pieces, head):
    try:
        command = parse_copy(head + " ".join(pieces))
    except Refusal as refused:
        assert refused.sqlstate in ("42601", "0A000", "22023")  # noqa: PT017
    else:
        assert command.source
        assert command.columns == (("x", "y") if head else command.columns)


@pytest.mark.parametrize(
    ("options", "meant"),
    [
        ("", {}),
        ("FORMAT AS PARQUET MANIFEST", {"format": "parquet", "manifest": True}),
        ("CSV QUOTE AS '%' DELIMITER ';'", {"format": "csv", "quote": "%", "delimiter": ";"}),
        ("CSV QUOTE ''''", {"format": "csv", "quote": "'"}),
        ("DELIMITER '\\t' NULL AS 'x'", {"delimiter": "\t", "null_as": "x"}),
        ("GZIP IGNOREHEADER AS 2 MAXERROR 5", {
            "compression": "gzip", "ignore_header": 2, "max_errors": 5}),
        ("BLANKSASNULL EMPTYASNULL TRIMBLANKS FILLRECORD IGNOREBLANKLINES TRUNCATECOLUMNS", {
            "blanks_as_null": True, "empty_as_null": True, "trim_blanks": True, "fill_record": True,
            "ignore_blank_lines": True, "truncate_columns": True}),
        ("COMPUPDATE OFF STATUPDATE ON COMPUPDATE PRESET REGION 'x' ENCODING AS 'utf8'", {}),
        ("DATEFORMAT 'auto' TIMEFORMAT AS 'YYYY-MM-DD HH:MI:SS' ROUNDEC ACCEPTANYDATE", {
            "round_decimals": True, "accept_any_date": True}),
        ("ACCESS_KEY_ID 'a' SECRET_ACCESS_KEY 'b' SESSION_TOKEN 'c'", {}),
    ],
)  # fmt: skip
def test_options_of_copy(options, meant):
    found = parse_copy(f"COPY t FROM 's3://b/p' IAM_ROLE DEFAULT {options}")
    assert found == CopyCommand("t", "s3://b/p", **meant)


@pytest.mark.parametrize(
    ("options", "sqlstate", "text"),
    [
        ("AVRO", "0A000", "AVRO of COPY"),
        ("FORMAT JSON", "0A000", "JSON of COPY"),
        ("TIMEFORMAT 'epochsecs'", "0A000", "TIMEFORMAT other than"),
        ("MAXERROR", "42601", "end of input"),
        ("MAXERROR '1'", "42601", "'1'"),
        ("MAXERROR ²", "42601", "²"),
        ("DELIMITER", "42601", "end of input"),
        ("NONSENSE", "42601", "NONSENSE"),
    ],
)
def test_options_that_copy_does_not_have(options, sqlstate, text):
    with pytest.raises(Refusal) as caught:
        parse_copy(f"COPY t FROM 's3://b/p' {options}")
    assert caught.value.sqlstate == sqlstate
    assert text in caught.value.message


FIELDS = st.none() | st.text(st.sampled_from("ab|,\"'\\\n\r\t 日🍣"), max_size=6)
FORMATS = [
    ({"escape": True}, {"escape": True}),
    ({"escape": True, "delimiter": ","}, {"escape": True, "delimiter": ","}),
    ({"escape": True, "add_quotes": True}, {"escape": True, "remove_quotes": True}),
    ({"format": "csv"}, {"format": "csv"}),
    ({"format": "csv", "delimiter": "|"}, {"format": "csv", "delimiter": "|"}),
]


@settings(max_examples=60)
@given(st.lists(st.tuples(FIELDS, FIELDS), min_size=1, max_size=6), st.sampled_from(FORMATS))
def test_what_unload_writes_as_text_copy_reads(rows, options):
    written, read = options
    unload = UnloadCommand("", "", null_as="@", **written)
    table = pa.table([list(c) for c in zip(*rows, strict=True)], names=["x", "y"])
    schema = pa.schema([("x", pa.string()), ("y", pa.string())])
    with duckdb.connect() as connection:
        connection.register("t", table.cast(schema))
        lines = connection.sql(lines_query(unload, "SELECT * FROM t", schema)).fetchall()
    text = "".join(line + "\n" for (line,) in lines)
    found = list(read_lines(CopyCommand("t", "", null_as="@", **read), text))
    assert [tuple(line.fields) for line in found] == rows
    assert [line.number for line in found] == list(range(1, len(rows) + 1))


VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=10)
    | st.dates()
    | st.times()
    | st.datetimes(datetime(1000, 1, 1))
    | st.binary(max_size=8)
)


@given(VALUES)
def test_a_bound_value_comes_back_as_it_went(value):
    sql = bind_positions("SELECT $1 AS a", [value])
    assert sql == bind_names("SELECT :p AS a", {"p": value})
    assert duckdb.sql(to_duckdb(sql)).fetchall() == [(value,)]


@given(st.floats())
def test_a_bound_float_comes_back_to_the_last_bit(value):
    ((found,),) = duckdb.sql(to_duckdb(f"SELECT {sql_literal(value)} AS a")).fetchall()
    assert repr(found) == repr(value)


def test_a_value_that_looks_like_a_parameter_is_not_bound_again():
    assert bind_positions("SELECT $1, $2", ["$2", "x"]) == "SELECT '$2', 'x'"
    assert bind_names("SELECT :a, ':b', a::int", {"a": ":b"}) == "SELECT ':b', ':b', a::int"
    with pytest.raises(Refusal, match="there is no parameter"):
        bind_positions("SELECT $3", [1, 2])


OIDS = [16, 20, 21, 23, 25, 700, 701, 705, 1043, 1082, 1083, 1114, 1184, 1700, 6551]


@given(st.binary(max_size=20), st.sampled_from(OIDS), st.sampled_from([0, 1]))
def test_any_bytes_are_a_parameter_or_refused(data, oid, form):
    try:
        argument(data, oid, form)
    except Refusal as refused:
        assert refused.sqlstate in ("22021", "22P02", "22P03", "0A000")  # noqa: PT017


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (pa.bool_(), st.booleans()),
        (pa.int16(), st.integers(-(2**15), 2**15 - 1)),
        (pa.int32(), st.integers(-(2**31), 2**31 - 1)),
        (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
        (pa.float32(), st.floats(width=32, allow_nan=False)),
        (pa.float64(), st.floats(allow_nan=False)),
        (pa.date32(), st.dates()),
        (pa.time64("us"), st.times()),
        (pa.timestamp("us"), st.datetimes()),
        (pa.string(), st.text(st.characters(codec="utf-8"), max_size=9)),
    ],
    ids=str,
)
@pytest.mark.parametrize("form", [0, 1], ids=["text", "binary"])
def test_what_goes_out_as_a_column_comes_back_as_a_parameter(kind, values, form):
    oid = wire_type(kind)[0]

    @given(st.lists(st.none() | values, min_size=1, max_size=5))
    @settings(max_examples=40)
    def check(column):
        sent = cells(pa.array(column, kind), form, 2)
        for value, cell in zip(column, sent, strict=True):
            (length,) = struct.unpack("!i", cell[:4])
            assert length == (-1 if value is None else len(cell) - 4)
            if value is not None:
                assert argument(cell[4:], oid, form) == value

    check()


@given(st.integers(1, 38), st.data())
def test_a_numeric_keeps_every_digit(precision, data):
    scale = data.draw(st.integers(0, precision))
    units = data.draw(st.integers(-(10**precision) + 1, 10**precision - 1))
    value = Decimal(f"{units}E-{scale}")
    column = pa.array([value], pa.decimal128(precision, scale))
    (text,) = cells(column, 0, 2)
    assert Decimal(text[4:].decode()) == value
    (binary,) = cells(column, 1, 2)
    assert int.from_bytes(binary[4:], "big", signed=True) == units


@given(st.binary(min_size=1, max_size=1), st.binary(max_size=40), st.binary(max_size=10))
def test_a_message_is_read_as_it_was_framed(kind, body, after):
    stream = io.BytesIO(message(kind, body) + after)
    assert read_message(stream) == (kind, body)
    assert stream.read() == after


@given(st.binary(max_size=40))
def test_any_stream_is_a_message_or_the_end(data):
    stream = io.BytesIO(data)
    try:
        while True:
            read_message(stream)
    except (EOFError, ProtocolViolation):
        assert stream.tell() <= len(data)


@given(st.binary(max_size=30), st.lists(st.sampled_from(["text", "number", "numbers", "take"])))
def test_any_body_is_read_or_refused(data, fields):
    body = Body(data)
    read = {"text": body.text, "number": body.number, "numbers": body.numbers,
            "take": lambda: body.take(3)}  # fmt: skip
    try:
        for field in fields:
            read[field]()
    except (ProtocolViolation, Refusal):
        return
    assert data.endswith(body.rest())


@pytest.mark.parametrize(
    ("sql", "name", "shown"),
    [
        ("SET query_group TO 'x'", "query_group", "x"),
        ("SET SESSION query_group = x", "query_group", "x"),
        ("SET statement_timeout TO 5000", "statement_timeout", "5000"),
        ("SET query_group TO DEFAULT", "query_group", "unset"),
        ("SET search_path TO Other, public", "search_path", "other,public"),
    ],
)
def test_a_parameter_is_shown_as_it_was_set(sql, name, shown):
    parameters = Parameters()
    assert parameters.set(words(sql)) == name
    assert parameters.show(name.upper()) == shown


@pytest.mark.parametrize(
    ("sql", "sqlstate"),
    [("SET query_group", "42601"), ("SET query_group TO", "42601"),
     ("SET statement_timeout TO soon", "22023")],
)  # fmt: skip
def test_a_parameter_that_is_set_wrongly_is_refused(sql, sqlstate):
    parameters = Parameters()
    with pytest.raises(Refusal) as caught:
        parameters.set(words(sql))
    assert caught.value.sqlstate == sqlstate
    assert parameters.changed == {}


def test_parameters_go_back_one_by_one_or_all_together():
    parameters = Parameters()
    for name in ("query_group", "application_name"):
        parameters.set(words(f"SET {name} TO x"))
    parameters.reset(words("RESET query_group"))
    assert (parameters.show("query_group"), parameters.show("application_name")) == ("unset", "x")
    parameters.reset(words("RESET ALL"))
    assert parameters.show("application_name") == ""
    assert parameters.set(words("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")) is None
    with pytest.raises(Refusal, match="unrecognized configuration parameter"):
        parameters.show("nonsense")


@pytest.mark.parametrize(
    ("data", "oid", "value"),
    [
        (b"yes", 16, True), (b" F ", 16, False), (b"-7", 20, -7), (b"1.50", 1700, Decimal("1.50")),
        (b"2026-01-02", 1082, date(2026, 1, 2)), (b"10:11", 1083, time(10, 11)),
        (b"2026-01-02 03:04", 1114, datetime(2026, 1, 2, 3, 4)), (b"any", 705, "any"),
    ],
)  # fmt: skip
def test_parameters_as_text(data, oid, value):
    assert argument(data, oid, 0) == value
