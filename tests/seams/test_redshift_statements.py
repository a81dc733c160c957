"""The texts that go to Redshift: nothing in a query can end the quotes it stands in."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbatch.connectors.redshift.statements import (
    UnloadOptions,
    copy,
    create_table,
    replace_rows,
    stage_table,
    unload,
)
from mlbatch.errors import DeclarationError, UsageError

OPTIONS = UnloadOptions("arn:aws:iam::1:role/r", 64)
PREFIX = "s3://b/p/"


def lexed(text):
    """Tokens as PostgreSQL 8's lexer makes them, backslashes in quotes included."""
    found, place = [], 0
    while place < len(text):
        here = text[place]
        if here == "$" and (end := _dollar_tag(text, place)) is not None:
            tag = text[place:end]
            close = text.index(tag, end)
            found.append(("string", text[end:close]))
            place = close + len(tag)
        elif here == "'":
            value, place = _quoted(text, place + 1)
            found.append(("string", value))
        elif text.startswith("--", place):
            place = text.find("\n", place) if "\n" in text[place:] else len(text)
        elif here.isspace():
            place += 1
        else:
            found.append(("other", here))
            place += 1
    return found


def _dollar_tag(text, place):
    end = place + 1
    while end < len(text) and (text[end].isalnum() or text[end] == "_") and text[end].isascii():
        end += 1
    named = text[place + 1 : end]
    return end + 1 if text[end : end + 1] == "$" and not named[:1].isdigit() else None


def _quoted(text, place):
    value = ""
    while True:
        if text[place] == "\\":
            value, place = value + text[place + 1], place + 2
        elif text.startswith("''", place):
            value, place = value + "'", place + 2
        elif text[place] == "'":
            return value, place + 1
        else:
            value, place = value + text[place], place + 1


NASTY = st.lists(
    st.one_of(
        st.sampled_from(
            ["'", "''", "\\", "$", "$$", "$t", "$t0$", "$tag$", "--", "/*", "*/", ";", "\n", '"',
             "select", " ", "牛丼", "$1", ":a", "%s", ")", "TO 's3://evil/'", "\\'", "😀"]
        ),
        st.text(max_size=4),
    ),
    max_size=12,
).map("".join)  # fmt: skip


@settings(max_examples=2_000)
@given(select=NASTY.filter(lambda text: "\0" not in text))
def test_2_000_queries_come_out_of_their_quotes_as_they_went_in(select):
    tokens = lexed(unload(select, PREFIX, OPTIONS))
    strings = [value for kind, value in tokens if kind == "string"]
    expected = select.strip().removesuffix(";")
    assert strings == [f"\n{expected}\n", PREFIX, "arn:aws:iam::1:role/r"]


@settings(max_examples=300)
@given(prefix=NASTY)
def test_a_prefix_stays_a_string(prefix):
    tokens = lexed(unload("SELECT 1", prefix, OPTIONS))
    assert [value for kind, value in tokens if kind == "string"][1] == prefix


def test_a_tag_that_the_query_holds_is_not_taken():
    tags = iter(["t1", "t2", "t3"])
    text = unload("SELECT '$t1$', '$t2$'", PREFIX, OPTIONS, tag=lambda: next(tags))
    assert text.startswith("UNLOAD ($t3$\n")


def test_nothing_is_ever_overwritten_or_cleaned():
    options = UnloadOptions("default", 5, "arn:kms", "us-east-1")
    text = unload("SELECT 1", PREFIX, options)
    assert "ALLOWOVERWRITE" not in text
    assert "CLEANPATH" not in text
    for clause in (
        "IAM_ROLE default", "FORMAT AS PARQUET", "MANIFEST VERBOSE", "MAXFILESIZE AS 5 MB",
        "KMS_KEY_ID 'arn:kms' ENCRYPTED", "REGION AS 'us-east-1'",
    ):  # fmt: skip
        assert clause in text
    assert "CREDENTIALS" not in text + copy("t", PREFIX + "manifest", options)


def test_what_redshift_would_not_take_is_refused_here():
    with pytest.raises(DeclarationError, match="NUL"):
        unload("SELECT '\0'", PREFIX, OPTIONS)
    with pytest.raises(DeclarationError, match="100,000"):
        unload("SELECT '" + "牛" * 40_000 + "'", PREFIX, OPTIONS)
    with pytest.raises(UsageError, match="list"):
        create_table("t", pa.schema([("a", pa.list_(pa.int64()))]))


def test_tables_are_made_and_replaced_by_quoted_names():
    schema = pa.schema([("id", pa.int64()), ("at", pa.timestamp("us"))])
    assert create_table("t", schema) == (
        'CREATE TABLE IF NOT EXISTS "t" ("id" BIGINT, "at" TIMESTAMP)'
    )
    assert stage_table("s", schema) == 'CREATE TEMPORARY TABLE "s" ("id" BIGINT, "at" TIMESTAMP)'
    delete, insert = replace_rows("t", "s", ("at", "id", "x"), ("id", "at"))
    assert delete == ('DELETE FROM "t" USING "s" WHERE "t"."id" = "s"."id" AND "t"."at" = "s"."at"')
    assert insert == 'INSERT INTO "t" ("at", "id", "x") SELECT "at", "id", "x" FROM "s"'
