"""Manifests come from outside: whatever they hold, there are entries or one clear refusal."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlbatch.errors import SnapshotError
from mlbatch.snapshot import ManifestEntry, Part, Snapshot, read_manifest, write_manifest

PREFIX = "s3://b/run/"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
COUNTS = st.integers(0, 2**60)
NAMES = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="/."), min_size=1),
    max_size=6,
    unique=True,
)


def document(**changed):
    meta = {"content_length": 10, "record_count": 2} | changed
    return json.dumps({"entries": [{"url": PREFIX + "0", "meta": meta}]}).encode()


def read(content):
    return read_manifest(content, uri="m", prefix=PREFIX)


@given(st.data(), NAMES)
def test_what_is_written_is_read(data, names):
    entries = tuple(
        ManifestEntry(PREFIX + name, data.draw(COUNTS), data.draw(COUNTS)) for name in names
    )
    assert read(write_manifest(entries)) == entries


@given(st.binary(max_size=60))
def test_any_bytes_are_refused_with_the_manifest_s_name(content):
    with pytest.raises(SnapshotError, match=r"^m is not a verbose manifest"):
        read(content)


@given(JSON)
def test_any_other_document_is_refused(value):
    for content in (value, {"entries": value}, {"entries": [value]}):
        try:
            assert read(json.dumps(content).encode()) == ()
        except SnapshotError as error:
            assert error.message.startswith("m ")  # noqa: PT017  an empty list is a manifest


@pytest.mark.parametrize("count", ["record_count", "content_length"])
@pytest.mark.parametrize("value", [-1, None, "many", [], {}, float("inf"), float("nan")])
def test_counts_that_are_none_are_refused(count, value):
    with pytest.raises(SnapshotError, match="not a verbose manifest"):
        read(document(**{count: value}))


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"a":' * 100_000], ids=["lists", "tables"])
def test_a_bomb_of_brackets_is_refused(content):
    with pytest.raises(SnapshotError, match="not a verbose manifest: RecursionError"):
        read(content)


@given(st.text(max_size=20))
def test_nothing_outside_the_unload_s_own_path_is_read(url):
    content = json.dumps(
        {"entries": [{"url": url, "meta": {"content_length": 1, "record_count": 1}}]}
    )
    with pytest.raises(SnapshotError, match="outside"):
        read(content.encode())


@given(st.permutations(range(4)), st.integers(0, 3), st.sampled_from(["rows", "bytes", "etag"]))
def test_a_fingerprint_follows_every_part_and_their_order(order, which, field):
    parts = [Part(n, f"{PREFIX}{n}", n + 1, 10 + n, f"e{n}") for n in range(4)]
    whole = Snapshot(PREFIX, tuple(parts), None).fingerprint
    shuffled = Snapshot(PREFIX, tuple(parts[n] for n in order), None).fingerprint
    assert (shuffled == whole) == (order == [0, 1, 2, 3])
    values = {name: getattr(parts[which], name) for name in Part.__dataclass_fields__}
    values[field] = "other" if field == "etag" else 99
    parts[which] = Part(**values)
    assert Snapshot(PREFIX, tuple(parts), None).fingerprint != whole


def test_a_fingerprint_does_not_depend_on_where_the_unload_went():
    def snapshot(prefix):
        return Snapshot(prefix, (Part(0, prefix + "0", 1, 2, "e"),), None)

    assert snapshot("s3://b/one/").fingerprint == snapshot("s3://b/two/").fingerprint
