"""The PostgreSQL face with values of every type, in both formats, and with messages cut in pieces."""

from __future__ import annotations

import io
import socket
import struct
import time as clocks
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

import pyarrow as pa
import pytest
import wire_client
from hypothesis import given, settings
from hypothesis import strategies as st
from wire_client import SYNC, Client, bind, code, execute, kinds, parse, query

from mlbatch.devstack.redshift import wire_messages as messages
from mlbatch.devstack.redshift.faults import Fault
from mlbatch.devstack.redshift.refusal import Refusal
from mlbatch.devstack.redshift.wire import WireServer
from mlbatch.devstack.redshift.wire_messages import Body, ProtocolViolation, message, read_message
from mlbatch.devstack.redshift.wire_types import argument, cells, retyped, rows, sample, wire_type

DESCRIBE = message(b"D", b"P\0")


@pytest.fixture(scope="module")
def engine(lasting_engine):
    return lasting_engine


@pytest.fixture(scope="module")
def face(engine):
    made = WireServer(engine, users={"awsuser": "sesame"})
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def shared(face):
    """One connection for many questions, in the protocol with binary numerics."""
    made = Client(face, client_protocol_version="2")
    yield made
    made.close()


@pytest.fixture
def client(face):
    made = Client(face, client_protocol_version="2")
    yield made
    made.close()


def row(replies):
    """The fields of the only row."""
    (found,) = wire_client.cells(replies)
    return found


def columns(replies):
    """Name, type and format of each column described."""
    (data,) = [body for kind, body in replies if kind == b"T"]
    body, found = Body(data), []
    for _ in range(body.number("!h")):
        name = body.text()
        _, _, oid, _, _, form = (body.number(f"!{f}") for f in "ihihih")
        body.text(), body.text(), body.text(), body.number("!h")
        found.append((name, oid, form))
    return found


MOMENT = datetime(2026, 1, 2, 3, 4, 5, 600, tzinfo=UTC)
SINCE_2000 = (MOMENT - datetime(2000, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("value", "oid", "text", "binary"),
    [
        ("true", 16, b"t", b"\x01"),
        ("false", 16, b"f", b"\x00"),
        ("(-2)::SMALLINT", 21, b"-2", struct.pack("!h", -2)),
        ("7::INT", 23, b"7", struct.pack("!i", 7)),
        ("4611686018427387904::BIGINT", 20, b"4611686018427387904", struct.pack("!q", 2**62)),
        ("1.5::REAL", 700, b"1.5", struct.pack("!f", 1.5)),
        ("0.1::FLOAT8", 701, b"0.1", struct.pack("!d", 0.1)),
        ("'NaN'::FLOAT8", 701, b"NaN", struct.pack("!d", float("nan"))),
        ("'-Infinity'::FLOAT8", 701, b"-Infinity", struct.pack("!d", float("-inf"))),
        ("'Infinity'::FLOAT8", 701, b"Infinity", struct.pack("!d", float("inf"))),
        ("1.50::DECIMAL(9,2)", 1700, b"1.50", struct.pack("!q", 150)),
        ("(-1.50)::DECIMAL(30,2)", 1700, b"-1.50", (-150).to_bytes(16, "big", signed=True)),
        ("'日本'", 1043, "日本".encode(), "日本".encode()),
        ("''", 1043, b"", b""),
        ("DATE '2026-01-02'", 1082, b"2026-01-02", struct.pack("!i", 9_498)),
        ("TIME '01:02:03'", 1083, b"01:02:03", struct.pack("!q", 3_723_000_000)),
        ("TIMESTAMP '2026-01-02 03:04:05.0006'", 1114, b"2026-01-02 03:04:05.0006",
         struct.pack("!q", SINCE_2000)),
        ("TIMESTAMPTZ '2026-01-02 03:04:05.0006+00'", 1184, b"2026-01-02 03:04:05.0006+00",
         struct.pack("!q", SINCE_2000)),
        ("NULL::INT", 23, None, None),
        ("NULL::VARCHAR", 1043, None, None),
    ],
)  # fmt: skip
def test_a_result_in_both_formats(shared, value, oid, text, binary):
    for form, expected in ((0, text), (1, binary)):
        replies = shared.ask(
            parse(f"SELECT {value} AS v"), bind(results=(form,)), DESCRIBE, execute(), SYNC
        )
        assert kinds(replies) == "12TDCZ"
        assert columns(replies) == [("v", oid, form)]
        assert row(replies) == [expected]


def test_each_column_may_have_its_own_format(shared):
    replies = shared.ask(
        parse("SELECT 1::INT AS a, 2::INT AS b"), bind(results=(0, 1)), execute(), SYNC
    )
    assert row(replies) == [b"1", struct.pack("!i", 2)]


@pytest.mark.parametrize("formats", [(0, 1), (1, 1, 1)])
def test_a_wrong_number_of_formats_is_refused(shared, formats):
    replies = shared.ask(parse("SELECT 1 AS a, 2 AS b, 3 AS c, 4 AS d"), bind(results=formats), execute(),
                         SYNC)  # fmt: skip
    assert code(replies) == "08P01"


PARAMETERS = [
    (16, "!?", st.booleans()),
    (21, "!h", st.integers(-(2**15), 2**15 - 1)),
    (23, "!i", st.integers(-(2**31), 2**31 - 1)),
    (20, "!q", st.integers(-(2**63), 2**63 - 1)),
    (701, "!d", st.floats(allow_nan=False)),
    (700, "!f", st.floats(width=32, allow_nan=False)),
]


@pytest.mark.parametrize(
    ("oid", "form", "values"), PARAMETERS, ids=lambda v: v if type(v) is int else ""
)
def test_a_binary_parameter_comes_back_bit_for_bit(shared, oid, form, values):
    @settings(max_examples=12, deadline=None)
    @given(values)
    def check(value):
        sent = struct.pack(form, value)
        replies = shared.ask(
            parse("SELECT $1 AS v", oid), bind(sent, formats=(1,), results=(1,)), execute(), SYNC
        )
        (found,) = row(replies)
        # A literal's type is the smallest that holds it, and a bound real is a double.
        widths = {2: "!h", 4: "!i", 8: "!q"} if form in ("!h", "!i", "!q") else {1: "!?", 8: "!d"}
        assert struct.unpack(widths[len(found)], found) == struct.unpack(form, sent)

    check()


@settings(max_examples=25, deadline=None)
@given(value=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20))
def test_any_text_comes_back_as_it_went(shared, value):
    replies = shared.ask(parse("SELECT $1 AS v", 1043), bind(value.encode()), execute(), SYNC)
    assert row(replies) == [value.encode()]


@settings(max_examples=25, deadline=None)
@given(value=st.datetimes(datetime(1000, 1, 1), datetime(9000, 1, 1)))
def test_any_moment_comes_back_as_it_went(shared, value):
    replies = shared.ask(parse("SELECT $1 AS v", 1114), bind(str(value).encode()), execute(), SYNC)
    assert datetime.fromisoformat(row(replies)[0].decode()) == value


def test_null_is_no_empty_text(shared):
    replies = shared.ask(
        parse("SELECT $1 AS a, $2 AS b", 1043, 1043), bind(None, b""), execute(), SYNC
    )
    assert row(replies) == [None, b""]


@pytest.mark.parametrize("size", [1, 3, 7])
def test_messages_may_come_in_pieces(client, size):
    """TCP keeps no boundaries."""
    sent = query("SELECT 'in pieces' AS v") + parse("SELECT 2 AS v") + bind() + execute() + SYNC
    client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for start in range(0, len(sent), size):
        client.socket.sendall(sent[start : start + size])
    first, second = client.replies(), client.replies()
    assert row(first) == [b"in pieces"]
    assert row(second) == [b"2"]


@pytest.mark.parametrize("kept", [0, 1, 4, 5, 9])
def test_a_message_that_breaks_off_ends_the_connection_and_the_session(face, engine, kept):
    client = Client(face)
    before = len(engine._sessions)
    client.socket.sendall(query("SELECT 1 AS a")[:kept])
    client.close()
    until = clocks.monotonic() + 10
    while len(engine._sessions) >= before and clocks.monotonic() < until:
        clocks.sleep(0.01)
    assert len(engine._sessions) == before - 1


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("", "IZ"),
        (" ; -- nothing\n;", "IZ"),
        ("SELECT 1 AS a", "TDCZ"),
        ("SELECT 1 AS a; SELECT 2 AS a", "TDCTDCZ"),
        ("SELECT 1 AS a WHERE false", "TCZ"),
        ("CREATE TEMP TABLE s1 (a INT)", "CZ"),
        ("BEGIN; SELECT 1 AS a; COMMIT", "CTDCCZ"),
        ("SELECT 1 AS a; SELECT nothing; SELECT 2 AS a", "TDCEZ"),
        ("COMMIT", "NCZ"),
        ("BEGIN; BEGIN; ROLLBACK", "CNCCZ"),
        ("SET query_group TO x; SHOW query_group", "CTDCZ"),
        ("'open", "EZ"),
    ],
)
def test_the_answers_to_a_simple_query(shared, sql, expected):
    assert kinds(shared.ask(query(sql))) == expected


@pytest.mark.parametrize(
    ("sql", "state"),
    [("BEGIN", b"T"), ("BEGIN; SELECT 1 AS a", b"T"), ("SELECT 1 AS a", b"I"), ("COMMIT", b"I")],
)
def test_the_state_of_the_transaction_is_told(client, sql, state):
    assert client.ask(query(sql))[-1] == (b"Z", state)


def test_a_failed_transaction_is_told_until_it_ends(client):
    client.ask(query("BEGIN"))
    assert client.ask(query("SELECT nothing"))[-1] == (b"Z", b"E")
    failed = client.ask(query("SELECT 1 AS a"))
    assert (code(failed), failed[-1]) == ("25P02", (b"Z", b"E"))
    assert client.ask(query("COMMIT"))[-2:] == [(b"C", b"ROLLBACK\0"), (b"Z", b"I")]


@pytest.mark.parametrize(
    ("sql", "tag"),
    [
        ("CREATE TEMP TABLE tags (a INT)", "CREATE TABLE"), ("INSERT INTO tags VALUES (1), (2)", "INSERT 0 2"),
        ("UPDATE tags SET a = 3 WHERE a = 1", "UPDATE 1"), ("SELECT a FROM tags", "SELECT"),
        ("DELETE FROM tags", "DELETE 2"), ("DROP TABLE tags", "DROP TABLE"), ("BEGIN", "BEGIN"),
        ("END", "COMMIT"), ("SET query_group TO 'x'", "SET"), ("RESET query_group", "RESET"),
        ("SHOW query_group", "SHOW"), ("ANALYZE", "ANALYZE"), ("VACUUM", "VACUUM"),
        ("CREATE SCHEMA tag_schema", "CREATE SCHEMA"), ("DROP SCHEMA tag_schema", "DROP SCHEMA"),
        ("CREATE VIEW tag_view AS SELECT 1 AS a", "CREATE VIEW"), ("DROP VIEW tag_view", "DROP VIEW"),
        ("CREATE TEMP TABLE made AS SELECT 1 AS a", "SELECT"),
        ("TRUNCATE made", "TRUNCATE TABLE and COMMIT TRANSACTION"),
        ("ALTER TABLE made ADD COLUMN b INT", "ALTER TABLE"),
        ("COMMENT ON TABLE made IS 'x'", "COMMENT"), ("CANCEL 1", "CANCEL"), ("EXPLAIN SELECT 1 AS a", "EXPLAIN"),
    ],
)  # fmt: skip
def test_the_tag_of_every_statement(shared, sql, tag):
    replies = shared.ask(query(sql))
    assert [body for kind, body in replies if kind == b"C"] == [tag.encode() + b"\0"]


@pytest.mark.parametrize("verb", ["CALL x()", "DECLARE c CURSOR FOR SELECT 1", "FETCH 1 FROM c", "CLOSE c",
                                  "PREPARE p AS SELECT 1", "EXECUTE p"])  # fmt: skip
def test_what_the_stand_in_does_not_do_is_refused_by_name(shared, verb):
    replies = shared.ask(query(verb))
    assert code(replies) == "0A000"
    assert verb.split()[0].encode() in replies[0][1]


@pytest.mark.parametrize("sql", ["CANCEL", "CANCEL x", "CANCEL 1 2", "SHOW", "NONSENSE 1"])
def test_a_command_without_its_object_is_a_syntax_error(shared, sql):
    assert code(shared.ask(query(sql))) == "42601"


def test_rows_in_portions_are_all_of_them(client):
    ask = [parse("SELECT i AS i FROM generate_series(1, 5) g(i) ORDER BY i"), bind()]
    replies = client.ask(query("BEGIN"))
    replies = client.ask(*ask, execute(2), execute(2), execute(2), SYNC)
    assert kinds(replies) == "12DDsDDsDCZ"
    assert kinds(client.ask(execute(0), SYNC)) == "CZ"


def test_closing_forgets_and_asks_no_questions(client):
    close = message(b"C", b"Snamed\0"), message(b"C", b"P\0"), message(b"C", b"Snever\0")
    replies = client.ask(parse("SELECT 1 AS a", name=b"named"), *close, SYNC)
    assert kinds(replies) == "1333Z"
    assert code(client.ask(bind(name=b"named"), SYNC)) == "26000"
    assert code(client.ask(execute(), SYNC)) == "34000"
    assert code(client.ask(message(b"D", b"Snamed\0"), SYNC)) == "26000"


def test_a_statement_is_described_before_it_has_values(client):
    replies = client.ask(parse("SELECT $1 AS a, $2 AS b", 23, 1082), message(b"D", b"S\0"), SYNC)
    assert kinds(replies) == "1tTZ"
    assert replies[1][1] == struct.pack("!hii", 2, 23, 1082)
    assert [oid for _, oid, _ in columns(replies)] == [23, 1082]


def test_what_returns_nothing_is_described_as_nothing(client):
    replies = client.ask(parse("CREATE TEMP TABLE nothing (a INT)"), message(b"D", b"S\0"), SYNC)
    assert kinds(replies) == "1tnZ"
    assert code(client.ask(query("SELECT * FROM nothing"))) == "42P01"


@pytest.mark.parametrize("kind", ["drop", "lose_reply"])
def test_a_lost_connection_ends_without_a_word(face, engine, kind):
    client = Client(face)
    engine.faults.add(Fault(kind, "lost_words"))
    client.socket.sendall(query("SELECT 'lost_words' AS a"))
    assert client.stream.read() == b""
    client.close()


# Types and messages by themselves


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (pa.bool_(), (16, 1, -1)), (pa.int16(), (21, 2, -1)), (pa.int32(), (23, 4, -1)),
        (pa.int64(), (20, 8, -1)), (pa.float32(), (700, 4, -1)), (pa.float64(), (701, 8, -1)),
        (pa.string(), (1043, -1, -1)), (pa.date32(), (1082, 4, -1)), (pa.time64("us"), (1083, 8, -1)),
        (pa.timestamp("us"), (1114, 8, -1)), (pa.timestamp("us", "UTC"), (1184, 8, -1)),
        (pa.binary(), (6551, -1, -1)), (pa.decimal128(18, 4), (1700, -1, (18 << 16 | 4) + 4)),
    ],
    ids=str,
)  # fmt: skip
def test_the_number_of_each_type(kind, expected):
    assert wire_type(kind) == expected


def test_a_binary_numeric_needs_the_newest_protocol():
    column = pa.array([Decimal("1.5")], pa.decimal128(5, 1))
    with pytest.raises(Refusal, match="client_protocol_version 2"):
        cells(column, 1, 1)
    assert cells(column, 0, 0) == [b"\0\0\0\x031.5"]


@pytest.mark.parametrize(
    ("data", "oid", "form", "state"),
    [
        (b"x", 23, 0, "22P02"), (b"", 23, 0, "22P02"), (b"1.5", 23, 0, "22P02"), (b"maybe", 16, 0, "22P02"),
        (b"x", 1700, 0, "22P02"), (b"2026-13-01", 1082, 0, "22P02"), (b"25:00", 1083, 0, "22P02"),
        (b"\xff", 25, 0, "22021"), (b"\xff", 25, 1, "22021"), (b"\0", 23, 1, "22P03"),
        (b"\0" * 9, 20, 1, "22P03"), (b"", 16, 1, "22P03"), (b"\x7f" * 8, 1114, 1, "22P03"),
        (b"\x7f" * 4, 1082, 1, "22P03"), (b"1", 1700, 1, "0A000"), (b"1", 9999, 1, "0A000"),
    ],
)  # fmt: skip
def test_a_parameter_that_cannot_be_read(data, oid, form, state):
    with pytest.raises(Refusal) as caught:
        argument(data, oid, form)
    assert caught.value.sqlstate == state


@pytest.mark.parametrize(
    ("value", "oid", "packed"),
    [
        (date(2026, 1, 2), 1082, struct.pack("!i", 9_498)),
        (date(1999, 12, 31), 1082, struct.pack("!i", -1)),
        (time(1, 2, 3), 1083, struct.pack("!q", 3_723_000_000)),
        (MOMENT, 1184, struct.pack("!q", SINCE_2000)),
        (MOMENT.replace(tzinfo=None), 1114, struct.pack("!q", SINCE_2000)),
        ("日", 1043, "日".encode()), (True, 16, b"\x01"),
    ],
)  # fmt: skip
def test_a_binary_parameter(value, oid, packed):
    assert argument(packed, oid, 1) == value


def test_samples_are_of_the_type_that_they_stand_for():
    for oid in (16, 20, 21, 23, 700, 701, 1082, 1083, 1114, 1184, 1700):
        assert sample(oid) is not None
    assert sample(1043) is None


def test_rows_are_cast_to_what_was_described_or_refused():
    table = pa.table({"a": pa.array([1], pa.int64())})
    wanted = pa.schema([("a", pa.int32())])
    assert retyped(table, wanted).schema == wanted
    with pytest.raises(Refusal, match="cached plan must not change") as caught:
        retyped(table, pa.schema([("b", pa.int64())]))
    assert caught.value.sqlstate == "0A000"
    large = pa.table({"a": pa.array([2**40], pa.int64())})
    with pytest.raises(Refusal, match="does not fit the type described before") as caught:
        retyped(large, wanted)
    assert caught.value.sqlstate == "22000"


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.none() | st.integers(0, 99), st.none() | st.text(max_size=3)), max_size=5)
)
def test_a_row_has_all_of_its_cells_in_order(values):
    table = pa.table({"a": pa.array([a for a, _ in values], pa.int64()),
                      "b": pa.array([b for _, b in values], pa.string())})  # fmt: skip
    found = []
    for data in rows(table, [1, 0], 2):
        body = Body(data)
        assert body.number("!h") == 2
        cells_ = [None if (n := body.number("!i")) < 0 else body.take(n) for _ in range(2)]
        assert body.rest() == b""
        found.append((None if cells_[0] is None else struct.unpack("!q", cells_[0])[0],
                      None if cells_[1] is None else cells_[1].decode()))  # fmt: skip
    assert found == values


@pytest.mark.parametrize("length", [0, 3, -1, -(2**31), (64 << 20) + 1, 2**31 - 1])
def test_a_length_that_cannot_be_is_no_message(length):
    with pytest.raises(ProtocolViolation, match="invalid message length"):
        read_message(io.BytesIO(b"Q" + struct.pack("!i", length)))


@pytest.mark.parametrize("data", [b"", b"Q", b"Q\0\0", b"Q\0\0\0\x08ab"])
def test_a_stream_that_ends_is_at_its_end(data):
    with pytest.raises(EOFError):
        read_message(io.BytesIO(data))


@pytest.mark.parametrize(
    ("data", "read"),
    [
        (b"abcd", lambda body: body.take(5)), (b"abcd", lambda body: body.take(-1)),
        (b"abcd", lambda body: body.number("!q")), (b"abcd", lambda body: body.text()),
        (b"", lambda body: body.number("!h")), (b"\0\x02\0\x01", lambda body: body.numbers("!h")),
    ],
)  # fmt: skip
def test_a_body_that_is_too_short_breaks_the_protocol(data, read):
    with pytest.raises(ProtocolViolation):
        read(Body(data))


def test_an_error_has_its_detail_and_no_nul():
    kind, body = read_message(io.BytesIO(messages.error_response(Refusal("XX000", "a\0b", "why"))))
    assert (kind, body) == (b"E", b"SERROR\0CXX000\0Ma b\0Dwhy\0\0")
    kind, body = read_message(io.BytesIO(messages.notice_response("told")))
    assert (kind, body) == (b"N", b"SINFO\0C00000\0Mtold\0\0")


@pytest.mark.parametrize("value", ["DATE '20000-01-01'", "TIMESTAMP '20000-01-01 00:00:00'"])
def test_a_value_beyond_pythons_calendar_is_refused_and_the_session_goes_on(shared, value):
    assert code(shared.ask(query(f"SELECT {value} AS v"))) == "XX000"
    assert code(shared.ask(parse(f"SELECT {value} AS v"), bind(), execute(), SYNC)) == "XX000"
    assert row(shared.ask(query("SELECT 1 AS v"))) == [b"1"]
