"""The files of an UNLOAD over a real S3 server: their names, sizes, counts and what was there before."""

from __future__ import annotations

import gzip
import io
import itertools
import json
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbatch.devstack.redshift.engine import Engine, EngineOptions
from mlbatch.devstack.redshift.faults import Fault
from mlbatch.devstack.redshift.part_files import ParquetPart, Slice, TextPart
from mlbatch.devstack.redshift.refusal import Refusal
from mlbatch.devstack.redshift.unload_command import UnloadCommand

NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def store(lasting_store):
    return lasting_store


@pytest.fixture(scope="module")
def engines(store):
    """An engine for each set of options, kept for the whole module."""
    made = {}

    def of(**options):
        key = tuple(sorted(options.items()))
        if key not in made:
            made[key] = Engine(None, store, options=EngineOptions(**options))
        return made[key]

    yield of
    for engine in made.values():
        engine.close()


@pytest.fixture
def place(store):
    return f"s3://{store.bucket}/{next(NUMBERS)}/x_"


@pytest.fixture
def unload(engines, place):
    """Unload; the answer. A session of its own, ended with the test."""
    opened = []

    def of(select, options="", **engine_options):
        session = engines(**engine_options).session()
        opened.append(session)
        return session.execute(f"UNLOAD ($q${select}$q$) TO '{place}' IAM_ROLE DEFAULT {options}")

    yield of
    for session in opened:
        session.close()


@pytest.fixture
def files(store, place):
    """What lies there: names without the prefix, and contents."""

    def of():
        return {one.uri.removeprefix(place): store.get(one.uri) for one in store.list(place)}

    return of


def series(count):
    return f"SELECT i::INT AS i, 'n' || i AS s FROM generate_series(1, {count}) g(i) ORDER BY i"


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ("", ["0000_part_00", "0001_part_00"]),
        ("GZIP", ["0000_part_00.gz", "0001_part_00.gz"]),
        ("ZSTD", ["0000_part_00.zst", "0001_part_00.zst"]),
        ("CSV", ["0000_part_00", "0001_part_00"]),
        ("CSV GZIP", ["0000_part_00.gz", "0001_part_00.gz"]),
        ("PARQUET", ["0000_part_00.parquet", "0001_part_00.parquet"]),
        ("PARALLEL OFF", ["000"]),
        ("PARALLEL OFF GZIP", ["000.gz"]),
        ("PARALLEL OFF PARQUET", ["000.parquet"]),
        ("PARALLEL ON MANIFEST", ["0000_part_00", "0001_part_00", "manifest"]),
        ("EXTENSION 'csv.gz' CSV GZIP", ["0000_part_00.csv.gz", "0001_part_00.csv.gz"]),
        ("EXTENSION '.txt' PARALLEL OFF", ["000.txt"]),
        ("PARQUET EXTENSION 'pq'", ["0000_part_00.pq", "0001_part_00.pq"]),
    ],
)
def test_the_names_of_the_files(unload, files, options, names):
    answer = unload(series(5), options)
    assert answer.rows == 5
    assert sorted(files()) == names


@pytest.mark.parametrize(
    ("options", "content"),
    [
        ("", "1|n1\n2|n2\n3|n3\n"),
        ("HEADER", "i|s\n1|n1\n2|n2\n3|n3\n"),
        ("DELIMITER ',' HEADER ADDQUOTES", '"i","s"\n"1","n1"\n"2","n2"\n"3","n3"\n'),
        ("CSV HEADER", "i,s\n1,n1\n2,n2\n3,n3\n"),
        (r"DELIMITER '\t'", "1\tn1\n2\tn2\n3\tn3\n"),
    ],
)
def test_parallel_off_keeps_the_order(unload, files, options, content):
    unload(series(3), f"PARALLEL OFF {options}")
    assert files() == {"000": content.encode()}


@pytest.mark.parametrize(("options", "unpack"), [("GZIP", gzip.decompress),
                                                 ("ZSTD", lambda d: pa.input_stream(
                                                     pa.BufferReader(d), compression="zstd").read())])  # fmt: skip
def test_compressed_files_are_whole(unload, files, options, unpack):
    unload(series(1_000), f"PARALLEL OFF {options}")
    ((content),) = files().values()
    assert unpack(content).decode().splitlines() == [f"{n}|n{n}" for n in range(1, 1_001)]


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ("", ["0000_part_00"]), ("CSV", ["0000_part_00"]), ("GZIP", ["0000_part_00.gz"]),
        ("PARALLEL OFF", ["000"]), ("MANIFEST", ["0000_part_00", "manifest"]), ("PARQUET", []),
        ("PARQUET MANIFEST VERBOSE", []), ("PARQUET PARALLEL OFF", []),
    ],
)  # fmt: skip
def test_no_rows(unload, files, options, names):
    answer = unload(series(0), options)
    assert (answer.rows, answer.notices) == (
        0,
        ("UNLOAD completed, 0 record(s) unloaded successfully.",),
    )
    assert sorted(files()) == names


def test_no_rows_have_a_header_all_the_same(unload, files):
    unload(series(0), "HEADER CSV PARALLEL OFF")
    assert files() == {"000": b"i,s\n"}


@pytest.mark.parametrize("parallel", ["ON", "OFF"])
def test_no_rows_leave_the_schema_where_the_engine_says_so(unload, files, parallel):
    unload(series(0), f"PARQUET MANIFEST VERBOSE PARALLEL {parallel}", empty_unload="schema_file")
    found = files()
    document = json.loads(found.pop("manifest"))
    ((content),) = found.values()
    table = pq.read_table(io.BytesIO(content))
    assert (table.num_rows, table.column_names) == (0, ["i", "s"])
    assert document["meta"] == {"content_length": len(content), "record_count": 0}


@pytest.mark.parametrize(("slices", "part_rows", "rows"), [
    (1, 1, 3), (1, 2, 3), (2, 1, 5), (3, 2, 17), (4, 10, 7), (2, 5, 10), (5, 3, 1),
])  # fmt: skip
def test_rows_over_slices_and_parts(unload, files, place, slices, part_rows, rows):
    unload(series(rows), "PARQUET MANIFEST VERBOSE", slices=slices, part_rows=part_rows)
    found = files()
    document = json.loads(found.pop("manifest"))
    tables = {name: pq.read_table(io.BytesIO(content)) for name, content in found.items()}
    assert max(table.num_rows for table in tables.values()) <= part_rows
    assert sorted(i for t in tables.values() for i in t["i"].to_pylist()) == list(
        range(1, rows + 1)
    )
    assert {e["url"].removeprefix(place): e["meta"] for e in document["entries"]} == {
        name: {"content_length": len(found[name]), "record_count": table.num_rows}
        for name, table in tables.items()
    }
    per_slice = Counter(name[:4] for name in tables)
    assert len(per_slice) <= slices
    for number, count in per_slice.items():
        assert {f"{number}_part_{n:02d}.parquet" for n in range(count)} <= set(tables)


def test_a_manifest_counts_the_header_as_a_row(unload, files):
    """The documentation says so; the answer still counts rows."""
    answer = unload(series(5), "CSV HEADER MANIFEST VERBOSE")
    document = json.loads(files()["manifest"])
    assert answer.rows == 5
    assert sorted(e["meta"]["record_count"] for e in document["entries"]) == [3, 4]
    assert document["meta"]["record_count"] == 7


@pytest.mark.parametrize(
    ("kind", "described"),
    [
        ("SMALLINT", {"base": "smallint"}), ("INT", {"base": "integer"}), ("BIGINT", {"base": "bigint"}),
        ("REAL", {"base": "real"}), ("FLOAT8", {"base": "double precision"}), ("BOOL", {"base": "boolean"}),
        ("DECIMAL(9,2)", {"base": "numeric", "precision": 9, "scale": 2}),
        ("VARCHAR(9)", {"base": "character varying", "max_length": 65_535}), ("DATE", {"base": "date"}),
        ("TIME", {"base": "time without time zone"}), ("TIMESTAMP", {"base": "timestamp without time zone"}),
        ("TIMESTAMPTZ", {"base": "timestamp with time zone"}),
    ],
)  # fmt: skip
def test_a_manifest_describes_each_type(unload, files, kind, described):
    unload(f"SELECT NULL::{kind} AS a", "MANIFEST VERBOSE")
    (element,) = json.loads(files()["manifest"])["schema"]["elements"]
    assert element == {"name": "a", "type": described}


@pytest.mark.parametrize("options", ["PARQUET", "CSV", "GZIP", "MANIFEST PARALLEL OFF"])
@pytest.mark.parametrize("there", ["0000_part_00", "other", "manifest", "deep/er"])
def test_a_place_that_is_not_empty_is_refused(unload, store, place, files, options, there):
    store.put(place + there, b"before")
    with pytest.raises(Refusal, match="is not empty") as caught:
        unload(series(3), options)
    assert caught.value.sqlstate == "XX000"
    assert files() == {there: b"before"}


def test_allowoverwrite_leaves_what_has_another_name(unload, store, place, files):
    for name in ("000", "other", "manifest"):
        store.put(place + name, b"before")
    unload(series(1), "ALLOWOVERWRITE PARALLEL OFF MANIFEST")
    found = files()
    assert (found["000"], found["other"]) == (b"1|n1\n", b"before")
    assert json.loads(found["manifest"]) == {"entries": [{"url": place + "000"}]}


def test_cleanpath_removes_what_was_there(unload, store, place, files):
    for name in ("000", "other", "deep/er"):
        store.put(place + name, b"before")
    store.put(place.removesuffix("x_") + "elsewhere", b"stays")
    unload(series(1), "CLEANPATH PARALLEL OFF")
    assert files() == {"000": b"1|n1\n"}
    assert store.get(place.removesuffix("x_") + "elsewhere") == b"stays"


@pytest.mark.parametrize(
    "select", ["SELECT * FROM nowhere", "SELECT nothing", "SELEC 1", "DELETE FROM t"]
)
def test_a_query_that_fails_cleans_nothing(unload, store, place, files, select):
    store.put(place + "old", b"before")
    with pytest.raises(Refusal):
        unload(select, "CLEANPATH")
    assert files() == {"old": b"before"}


def test_a_value_that_fails_midway_is_a_failure(unload, files):
    with pytest.raises(Refusal) as caught:
        unload(
            "SELECT CAST('x' || i AS INT) AS a FROM generate_series(1, 5) g(i)", "PARQUET MANIFEST"
        )
    assert caught.value.sqlstate == "22P02"
    assert "manifest" not in files()


@pytest.mark.parametrize("parts", [0, 1, 3])
def test_an_unload_can_be_made_to_break_off(engines, unload, files, parts):
    engine = engines(slices=1, part_rows=2)
    engine.faults.add(Fault("abort_unload_after_parts", "UNLOAD", parts=parts, sqlstate="57P01"))
    with pytest.raises(Refusal, match="made to fail") as caught:
        unload(series(9), "MANIFEST", slices=1, part_rows=2)
    assert caught.value.sqlstate == "57P01"
    assert len(files()) == parts
    assert unload(series(9), "MANIFEST ALLOWOVERWRITE", slices=1, part_rows=2).rows == 9
    assert len(files()) == 6


def test_stl_unload_log_has_a_row_for_each_file(engines, place, files, rows):
    session = engines(slices=2, part_rows=2).session()
    last = "SELECT pg_last_unload_id(), pg_last_unload_count()"
    assert rows(session, last) == [(-1, 0)]
    session.execute(f"UNLOAD ($${series(5)}$$) TO '{place}' IAM_ROLE DEFAULT CSV HEADER MANIFEST")
    number = session.last_unload
    assert rows(session, last) == [(number, 5)]
    found = rows(session, "SELECT path, line_count, transfer_size, slice, pid, file_format, userid"
                          f" FROM stl_unload_log WHERE query = {number} ORDER BY path")  # fmt: skip
    written = {name: content for name, content in files().items() if name != "manifest"}
    assert [(path.removeprefix(place), size) for path, _, size, *_ in found] == [
        (name, len(content)) for name, content in sorted(written.items())
    ]
    assert sum(lines for _, lines, *_ in found) == 5
    assert {(slice_, pid, kind, user) for *_, slice_, pid, kind, user in found} == {
        (0, session.pid, "csv", 100), (1, session.pid, "csv", 100),
    }  # fmt: skip
    session.close()


def test_an_unload_that_fails_midway_counts_nothing(engines, place, rows):
    engine = engines(slices=1, part_rows=2)
    session = engine.session()
    last = "SELECT pg_last_unload_id(), pg_last_unload_count()"
    session.execute(f"UNLOAD ($${series(4)}$$) TO '{place}a' IAM_ROLE DEFAULT")
    good = session.last_unload
    with pytest.raises(Refusal):  # refused before it begins
        session.execute(f"UNLOAD ($${series(4)}$$) TO '{place}a' IAM_ROLE DEFAULT")
    assert rows(session, last) == [(good, 4)]
    engine.faults.add(Fault("abort_unload_after_parts", "UNLOAD", parts=1))
    with pytest.raises(Refusal):
        session.execute(f"UNLOAD ($${series(4)}$$) TO '{place}b' IAM_ROLE DEFAULT")
    ((failed, count),) = rows(session, last)
    assert failed > good
    assert count == 0
    session.close()


# Part files by themselves


@settings(deadline=None, max_examples=60)
@given(batches=st.lists(st.integers(0, 9), max_size=6), part_rows=st.none() | st.integers(1, 4))
def test_a_slice_loses_no_row_and_numbers_its_files(tmp_path_factory, batches, part_rows):
    folder = tmp_path_factory.mktemp("slice")
    command = UnloadCommand("", "")
    finished = []

    def begin(number):
        return TextPart(folder / str(number), "", command)

    one = Slice(
        begin, lambda number, part: finished.append((number, part.rows)), command, part_rows
    )
    sent = []
    for size in batches:
        lines = [f"{len(sent) + n}" for n in range(size)]
        sent += lines
        one.write(pa.record_batch({"line": pa.array(lines, pa.string())}))
    one.finish()
    one.finish()  # a second time changes nothing
    assert [number for number, _ in finished] == list(range(len(finished)))
    assert all(1 <= rows <= (part_rows or len(sent)) for _, rows in finished)
    read = "".join((folder / str(number)).read_text() for number, _ in finished)
    assert read.splitlines() == sent


def test_a_full_file_is_followed_by_another(tmp_path):
    command = UnloadCommand("", "", max_file_bytes=4_000)
    finished = []
    one = Slice(
        lambda number: TextPart(tmp_path / str(number), "", command),
        lambda number, part: finished.append((number, part.rows)),
        command, None,
    )  # fmt: skip
    batch = pa.record_batch({"line": pa.array([f"{n:0100d}" for n in range(200)], pa.string())})
    one.write(batch)
    one.finish()
    sizes = [(tmp_path / str(number)).stat().st_size for number, _ in finished]
    assert max(sizes) <= 4_000
    assert len(sizes) > 4
    assert sum(rows for _, rows in finished) == 200


@pytest.mark.parametrize(("group_bytes", "groups"), [(None, 1), (32 << 20, 1), (1, 5)])
def test_row_groups_are_as_large_as_asked(tmp_path, group_bytes, groups):
    schema = pa.schema([("a", pa.int64())])
    part = ParquetPart(tmp_path / "p", schema, UnloadCommand("", "", group_bytes=group_bytes))
    for number in range(5):
        part.write(pa.record_batch({"a": pa.array([number], pa.int64())}))
        assert part.bytes() > 0
    part.close()
    found = pq.ParquetFile(tmp_path / "p")
    assert (found.num_row_groups, part.rows) == (groups, 5)
    assert found.read()["a"].to_pylist() == list(range(5))
    assert found.metadata.row_group(0).column(0).compression == "SNAPPY"
