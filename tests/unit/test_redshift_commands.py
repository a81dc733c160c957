"""What the stand-in reads out of UNLOAD and COPY statements, option by option."""

from __future__ import annotations

import pytest

from mlbatch.devstack.redshift.command_reader import CommandReader
from mlbatch.devstack.redshift.copy_command import CopyCommand, parse_copy
from mlbatch.devstack.redshift.refusal import Refusal
from mlbatch.devstack.redshift.unload_command import UnloadCommand, parse_unload

MB = 1 << 20
HEAD = "UNLOAD ('SELECT 1') TO 's3://b/p' "


def unload(options):
    return parse_unload(HEAD + options)


def copy(options):
    return parse_copy("COPY t FROM 's3://b/p' " + options)


def refusal(read, text):
    with pytest.raises(Refusal) as caught:
        read(text)
    return caught.value.sqlstate, caught.value.message


@pytest.mark.parametrize(
    ("options", "meant"),
    [
        ("", {}),
        ("PARQUET", {"format": "parquet"}),
        ("FORMAT PARQUET", {"format": "parquet"}),
        ("FORMAT AS PARQUET", {"format": "parquet"}),
        ("format as parquet", {"format": "parquet"}),
        ("CSV", {"format": "csv"}),
        ("FORMAT AS CSV HEADER", {"format": "csv", "header": True}),
        ("CSV DELIMITER ';' NULL 'x'", {"format": "csv", "delimiter": ";", "null_as": "x"}),
        ("GZIP", {"compression": "gzip"}),
        ("ZSTD", {"compression": "zstd"}),
        ("ESCAPE ADDQUOTES", {"escape": True, "add_quotes": True}),
        ("HEADER", {"header": True}),
        ("NULL AS ''", {"null_as": ""}),
        ("NULL '@'", {"null_as": "@"}),
        ("MANIFEST", {"manifest": True}),
        ("MANIFEST VERBOSE", {"manifest": True, "verbose": True}),
        ("ALLOWOVERWRITE", {"allow_overwrite": True}),
        ("CLEANPATH", {"clean_path": True}),
        ("ENCRYPTED", {}),
        ("ENCRYPTED AUTO", {}),
        ("KMS_KEY_ID 'k'", {}),
        ("REGION AS 'eu-west-1'", {}),
        ("MASTER_SYMMETRIC_KEY 'k'", {}),
        ("EXTENSION 'txt'", {"extension": "txt"}),
        ("PARALLEL", {"parallel": True}),
        ("PARALLEL ON", {"parallel": True}),
        ("PARALLEL TRUE", {"parallel": True}),
        ("PARALLEL OFF", {"parallel": False}),
        ("PARALLEL FALSE", {"parallel": False}),
        ("PARALLEL OFF GZIP", {"parallel": False, "compression": "gzip"}),
        ("PARALLEL GZIP", {"parallel": True, "compression": "gzip"}),
        ("MAXFILESIZE 5", {"max_file_bytes": 5 * MB}),
        ("MAXFILESIZE 5 MB", {"max_file_bytes": 5 * MB}),
        ("MAXFILESIZE AS 5.5 MB", {"max_file_bytes": 5 * MB + MB // 2}),
        ("MAXFILESIZE 6.2 GB", {"max_file_bytes": int(6.2 * 1024 * MB)}),
        ("MAXFILESIZE 1 GB MANIFEST", {"max_file_bytes": 1024 * MB, "manifest": True}),
        ("PARQUET ROWGROUPSIZE 32 MB", {"format": "parquet", "group_bytes": 32 * MB}),
        ("PARQUET ROWGROUPSIZE 128", {"format": "parquet", "group_bytes": 128 * MB}),
        ("IAM_ROLE DEFAULT", {}),
        ("IAM_ROLE default PARQUET", {"format": "parquet"}),
        ("IAM_ROLE 'arn:aws:iam::1:role/r'", {}),
        ("CREDENTIALS 'c'", {}),
        ("WITH CREDENTIALS AS 'c'", {}),
        ("ACCESS_KEY_ID 'a' SECRET_ACCESS_KEY 's' SESSION_TOKEN 't'", {}),
    ],
)
def test_options_of_unload(options, meant):
    assert unload(options) == UnloadCommand("SELECT 1", "s3://b/p", **meant)


@pytest.mark.parametrize(
    ("options", "sqlstate", "text"),
    [
        ("PARQUET GZIP", "0A000", "GZIP, ZSTD, DELIMITER and ESCAPE"),
        ("PARQUET ZSTD", "0A000", "GZIP, ZSTD, DELIMITER and ESCAPE"),
        ("PARQUET DELIMITER '|'", "0A000", "GZIP, ZSTD, DELIMITER and ESCAPE"),
        ("ESCAPE PARQUET", "0A000", "GZIP, ZSTD, DELIMITER and ESCAPE"),
        ("PARQUET HEADER", "0A000", "HEADER, ADDQUOTES and NULL AS"),
        ("PARQUET ADDQUOTES", "0A000", "HEADER, ADDQUOTES and NULL AS"),
        ("PARQUET NULL AS ''", "0A000", "HEADER, ADDQUOTES and NULL AS"),
        ("CSV ESCAPE", "0A000", "ESCAPE and ADDQUOTES"),
        ("CSV ADDQUOTES", "0A000", "ESCAPE and ADDQUOTES"),
        ("ALLOWOVERWRITE CLEANPATH", "0A000", "cannot be given together"),
        ("ROWGROUPSIZE 32 MB", "0A000", "ROWGROUPSIZE is only"),
        ("CSV ROWGROUPSIZE 32 MB", "0A000", "ROWGROUPSIZE is only"),
        ("PARQUET ROWGROUPSIZE 31 MB", "22023", "between 32 MB and 128 MB"),
        ("PARQUET ROWGROUPSIZE 129 MB", "22023", "between 32 MB and 128 MB"),
        ("PARQUET ROWGROUPSIZE 1 GB", "22023", "between 32 MB and 128 MB"),
        ("MAXFILESIZE 4.9 MB", "22023", "between 5 MB and 6.2 GB"),
        ("MAXFILESIZE 0", "22023", "between 5 MB and 6.2 GB"),
        ("MAXFILESIZE 6.3 GB", "22023", "between 5 MB and 6.2 GB"),
        ("MAXFILESIZE", "42601", "end of input"),
        ("MAXFILESIZE '5'", "42601", "'5'"),
        ("PARTITION BY (a)", "0A000", "PARTITION of UNLOAD"),
        ("BZIP2", "0A000", "BZIP2 of UNLOAD"),
        ("FIXEDWIDTH 'a:1'", "0A000", "FIXEDWIDTH of UNLOAD"),
        ("FORMAT JSON", "0A000", "JSON of UNLOAD"),
        ("DELIMITER '||'", "0A000", "single ASCII character"),
        ("DELIMITER ''", "0A000", "single ASCII character"),
        ("DELIMITER '、'", "0A000", "single ASCII character"),
        (r"DELIMITER '\n'", "0A000", "single ASCII character"),
        ("DELIMITER |", "42601", '"|"'),
        ("NULL", "42601", "end of input"),
        ("EXTENSION txt", "42601", '"txt"'),
        ("VERBOSE", "42601", '"VERBOSE"'),
        ("REGION", "42601", "end of input"),
        ("IAM_ROLE arn", "42601", '"arn"'),
        ("IAM_ROLE", "42601", "end of input"),
        ("FORMAT AS", "42601", "end of input"),
        ("nonsense", "42601", '"nonsense"'),
        (", PARQUET", "42601", '","'),
    ],
)
def test_options_that_unload_refuses(options, sqlstate, text):
    state, message = refusal(unload, options)
    assert state == sqlstate
    assert text in message


@pytest.mark.parametrize(
    ("sql", "near"),
    [
        ("UNLOAD", "end of input"),
        ("UNLOAD 'SELECT 1' TO 's3://b/p'", "'SELECT 1'"),
        ("UNLOAD (SELECT 1) TO 's3://b/p'", '"SELECT"'),
        ("UNLOAD ('SELECT 1' TO 's3://b/p'", '"TO"'),
        ("UNLOAD ('SELECT 1') INTO 's3://b/p'", '"INTO"'),
        ("UNLOAD ('SELECT 1') TO", "end of input"),
        ("UNLOAD ('SELECT 1') TO s3", '"s3"'),
        ("UNLOAD (", "end of input"),
    ],
)
def test_a_broken_unload_names_the_place(sql, near):
    state, message = refusal(parse_unload, sql)
    assert state == "42601"
    assert message.startswith("syntax error at ")
    assert near in message


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("'SELECT 1'", "SELECT 1"),
        ("'SELECT ''x'''", "SELECT 'x'"),
        (r"'SELECT \'x\''", "SELECT 'x'"),
        (r"'SELECT \'\\\\\''", r"SELECT '\\'"),
        ("$$SELECT 'x'$$", "SELECT 'x'"),
        ("$q$SELECT '$$'$q$", "SELECT '$$'"),
        ("$q$\nSELECT 1 -- end\n$q$", "\nSELECT 1 -- end\n"),
        ("$日本$SELECT 1$日本$", "SELECT 1"),
    ],
)
def test_the_query_of_an_unload_is_what_stands_between_the_quotes(written, meant):
    assert parse_unload(f"UNLOAD ({written}) TO 's3://b/p'").select == meant


@pytest.mark.parametrize(
    "select",
    ["SELECT 1 LIMIT 5", "SELECT a FROM t ORDER BY a LIMIT 1", "(SELECT 1 LIMIT 1)",
     "SELECT 1 UNION ALL SELECT 2 LIMIT 1", "WITH x AS (SELECT 1) SELECT * FROM x LIMIT 2"],
)  # fmt: skip
def test_a_limit_outside_is_refused(select):
    if select.startswith("("):
        assert parse_unload(f"UNLOAD ($${select}$$) TO 's3://b/p'").select == select
        return
    assert refusal(parse_unload, f"UNLOAD ($${select}$$) TO 's3://b/p'") == (
        "0A000", "Limit clause is not supported",
    )  # fmt: skip


@pytest.mark.parametrize(
    "select",
    ["SELECT * FROM (SELECT 1 LIMIT 5)", "SELECT 'LIMIT 5'", "SELECT 1 -- LIMIT 5\n",
     "WITH x AS (SELECT 1 LIMIT 1) SELECT * FROM x", "SELEC nonsense LIMIT ("],
)  # fmt: skip
def test_a_limit_inside_or_in_a_text_is_none_of_unloads_business(select):
    assert parse_unload(f"UNLOAD ($q${select}$q$) TO 's3://b/p'").select == select


@pytest.mark.parametrize(
    ("options", "meant"),
    [
        (r"DELIMITER '\t'", {"delimiter": "\t"}),
        (r"DELIMITER '\\t'", {"delimiter": "\t"}),
        (r"DELIMITER AS '\001'", {"delimiter": "\x01"}),
        (r"DELIMITER '\\036'", {"delimiter": "\x1e"}),
        ("DELIMITER '~' NULL 'NULL'", {"delimiter": "~", "null_as": "NULL"}),
        ("CSV", {"format": "csv"}),
        ("FORMAT AS CSV", {"format": "csv"}),
        ("CSV QUOTE '%'", {"format": "csv", "quote": "%"}),
        ("CSV DELIMITER ';' QUOTE AS '%'", {"format": "csv", "delimiter": ";", "quote": "%"}),
        ("ACCEPTINVCHARS", {"invalid_as": "?"}),
        ("ACCEPTINVCHARS AS '^'", {"invalid_as": "^"}),
        ("ACCEPTINVCHARS '^' GZIP", {"invalid_as": "^", "compression": "gzip"}),
        ("ACCEPTINVCHARS GZIP", {"invalid_as": "?", "compression": "gzip"}),
        ("ENCODING UTF8", {}),
        ("ENCODING AS UTF16", {"encoding": "utf-16"}),
        ("ENCODING 'utf16le'", {"encoding": "utf-16-le"}),
        ("ENCODING AS 'UTF16BE'", {"encoding": "utf-16-be"}),
        ("NOLOAD", {"no_load": True}),
        ("ROUNDEC", {"round_decimals": True}),
        ("ACCEPTANYDATE", {"accept_any_date": True}),
        ("EXPLICIT_IDS", {}),
        ("COMPROWS 1000", {}),
        ("COMPUPDATE", {}),
        ("COMPUPDATE PRESET GZIP", {"compression": "gzip"}),
        ("STATUPDATE FALSE", {}),
        ("MAXERROR AS 100000", {"max_errors": 100_000}),
        ("TIMEFORMAT 'auto' DATEFORMAT AS 'YYYY-MM-DD'", {}),
        ("REGION 'eu-west-1'", {}),
        ("IAM_ROLE DEFAULT ZSTD", {"compression": "zstd"}),
    ],
)
def test_options_of_copy(options, meant):
    assert copy(options) == CopyCommand("t", "s3://b/p", **meant)


@pytest.mark.parametrize(
    ("options", "sqlstate", "text"),
    [
        *((name, "0A000", f"{name} of COPY") for name in (
            "AVRO", "ORC", "JSON", "FIXEDWIDTH", "BZIP2", "LZOP", "SSH", "SHAPEFILE", "READRATIO")),
        ("ENCODING UTF32", "22023", "ENCODING must be one of UTF8, UTF16, UTF16LE, UTF16BE"),
        ("ENCODING", "42601", "end of input"),
        ("ENCODING 8", "42601", '"8"'),
        ("ACCEPTINVCHARS AS", "42601", "end of input"),
        ("MAXERROR 100001", "22023", "between 0 and 100000"),
        ("MAXERROR -1", "42601", '"-"'),
        ("MAXERROR 1.5", "42601", '"1.5"'),
        ("IGNOREHEADER", "42601", "end of input"),
        ("COMPROWS many", "42601", '"many"'),
        ("DATEFORMAT 'MM-DD-YYYY'", "0A000", "DATEFORMAT other than 'auto'"),
        ("TIMEFORMAT 'epochmillisecs'", "0A000", "TIMEFORMAT other than 'auto'"),
        ("TIMEFORMAT auto", "42601", '"auto"'),
        ("DELIMITER 'ab'", "0A000", "single ASCII character"),
        ("CSV QUOTE", "42601", "end of input"),
        ("QUOTE q", "42601", '"q"'),
        ("REGION eu", "42601", '"eu"'),
        ("COMPUPDATE MAYBE", "42601", '"MAYBE"'),
        ("FORMAT XML", "42601", '"XML"'),
    ],
)  # fmt: skip
def test_options_that_copy_refuses(options, sqlstate, text):
    state, message = refusal(copy, options)
    assert state == sqlstate
    assert text in message


@pytest.mark.parametrize(
    ("head", "table", "columns"),
    [
        ("COPY t", "t", ()),
        ("copy T", "t", ()),
        ('COPY "T"', "T", ()),
        ('COPY "a ""b"""', 'a "b"', ()),
        ("COPY Public.Notes", "public.notes", ()),
        ('COPY a."B"', "a.B", ()),
        ("COPY t (A)", "t", ("a",)),
        ('COPY t (a, "B", c)', "t", ("a", "B", "c")),
    ],
)
def test_names_are_folded_unless_quoted(head, table, columns):
    found = parse_copy(f"{head} FROM 's3://b/p'")
    assert (found.table, found.columns) == (table, columns)


@pytest.mark.parametrize(
    "sql",
    ["COPY", "COPY t", "COPY t ( FROM 's3://b/p'", "COPY t (a FROM 's3://b/p'",
     "COPY t (a,) FROM 's3://b/p'", "COPY t () FROM 's3://b/p'", "COPY t. FROM 's3://b/p'",
     "COPY t INTO 's3://b/p'", "COPY t FROM stdin", "COPY 1 FROM 's3://b/p'", "UNLOAD t"],
)  # fmt: skip
def test_a_broken_copy_is_a_syntax_error(sql):
    assert refusal(parse_copy, sql)[0] == "42601"


def test_a_reader_knows_whether_words_are_left():
    reader = CommandReader("A 'b' 3")
    assert bool(reader)
    assert reader.current.value == "A"
    assert not reader.accept("A", "B")
    assert reader.accept("A")
    assert (reader.text(), reader.number()) == ("b", 3)
    assert not reader
    assert reader.error().message == "syntax error at end of input"
    with pytest.raises(Refusal, match="syntax error at end of input"):
        reader.take()


def test_a_quoted_word_is_no_keyword():
    """The name "from" is a name, and the text 'FROM' a text."""
    reader = CommandReader("\"FROM\" 'FROM' FROM")
    assert not reader.accept("FROM")
    assert reader.name() == "FROM"
    assert not reader.accept("FROM")
    assert reader.text() == "FROM"
    assert reader.accept("FROM")


@pytest.mark.parametrize(
    ("select", "near"),
    [
        ("DELETE FROM t", "DELETE"), ("INSERT INTO t VALUES (1)", "INSERT"), ("DROP TABLE t", "DROP"),
        ("UPDATE t SET a = 1", "UPDATE"), ("CREATE TABLE x AS SELECT 1", "CREATE"), ("VACUUM", "VACUUM"),
        ("t", "t"), ("SELECT 1; DROP TABLE t", "DROP"), ("SELECT 1; SELECT 2;", "SELECT"),
    ],
)  # fmt: skip
def test_only_one_query_is_unloaded(select, near):
    """Whatever else is in the quotes is refused, not run."""
    assert refusal(parse_unload, f"UNLOAD ($${select}$$) TO 's3://b/p'") == (
        "42601", f'syntax error at or near "{near}"',
    )  # fmt: skip


@pytest.mark.parametrize(
    "select",
    ["SELECT 1;", "SELECT 1; -- the end", " SELECT 1 ; ", "SELECT 1 -- x;\n;", "SELECT ';'"],
)
def test_a_semicolon_at_the_end_of_a_query_is_fine(select):
    assert parse_unload(f"UNLOAD ($q${select}$q$) TO 's3://b/p'").select == select
