"""What a part has done to its workers is not forgotten, and what is left of it is accounted for."""

from __future__ import annotations

from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from seams.test_sink import ME, TABLE, ids, new_run, rows
from toy.harness import NOTES
from toy.job import Toy

from mlbatch.connectors.folder import FolderStorage
from mlbatch.connectors.sqlite import SqliteSink
from mlbatch.engine import PartTask, Surrender, WorkerDied
from mlbatch.errors import QuarantineLimitError, RunFailed, TemporaryError
from mlbatch.job import Limits
from mlbatch.ledger import BatchCommit, PartState, Progress, RunState, Strikes, check_conservation
from mlbatch.nurse import ROWS_ALONE, Nurse, parts_aside
from mlbatch.quarantine import set_part_aside
from mlbatch.snapshot import Part, Snapshot


class Memory:
    """A ledger of a few parts of so many rows."""

    def __init__(self, *rows, done=0):
        self.rows, self.done, self.kept = rows, done, {}
        self.written = 0

    def parts(self, _):
        return tuple(
            PartState(n, f"u{n}", "e", 1, rows, done=self.done, written=self.written)
            for n, rows in enumerate(self.rows)
        )

    def progress(self, _):
        return Progress(len(self.rows), sum(self.rows), self.done * len(self.rows))

    def strikes(self, _):
        return tuple(self.kept.values())

    def strike(self, _, strikes):
        self.kept[strikes.part_number] = strikes


def nurse_on(memory, trial=lambda _: True, **limits):
    class Limited(Toy):
        """The toy with other limits."""

    Limited.limits = Limits(**limits)
    return Nurse(Limited, SimpleNamespace(run_id="r"), memory, lambda *_: None, trial)


def dying(nurse, task, times):
    for _ in range(times):
        task = nurse.on_death(WorkerDied(task, -9))
    return task


def test_the_largest_parts_come_first_and_those_of_a_like_size_in_their_order():
    sizes = [20, 21, 1_000, 19, 900, 50_000, 22]
    parts = [PartState(n, "u", "e", size, rows_expected=10) for n, size in enumerate(sizes)]
    parts.append(PartState(7, "u", "e", 100_000, rows_expected=10, done=9))
    parts.append(PartState(8, "u", "e", 60_000, rows_expected=10, done=10))
    memory = Memory()
    memory.parts = lambda _: tuple(parts)
    order = [task.part_number for task in nurse_on(memory).tasks()]
    assert order == [5, 7, 2, 4, 0, 1, 3, 6]


def test_a_new_nurse_goes_on_where_the_last_one_was():
    memory = Memory(1_000)
    assert nurse_on(memory, parts_share=1).tasks() == [PartTask(0)]
    dying(nurse_on(memory), PartTask(0), 1)
    # One death was an accident; another at the same row is not, whoever sees it.
    (again,) = nurse_on(memory).tasks()
    assert (again.careful_rows, again.careful_until) == (125, 8_192)
    found = dying(nurse_on(memory), again, 3)
    assert (found.set_aside, memory.kept[0].set_aside) == (0, 0)
    assert nurse_on(memory).tasks() == [PartTask(0, 1, 1, set_aside=0)]
    given_up = dying(nurse_on(memory, parts_share=1), found, 1)
    assert given_up == PartTask(0, surrender=Surrender.KEYS) == nurse_on(memory).tasks()[0]
    assert memory.kept[0] == Strikes(0, 5, 0, 0, 0)
    memory.done = 1_000
    assert nurse_on(memory).tasks() == []


def test_rows_that_kill_are_set_aside_one_by_one_and_the_part_with_one_too_many():
    memory = Memory(1_000, done=500)
    memory.kept[0] = Strikes(0, 6, died_at=20, set_aside=20)
    nurse = nurse_on(memory)
    (task,) = nurse.tasks()
    assert task == PartTask(0)
    # An accident, then 62, 7 and 1 rows at once; from there on each is found by one death.
    task = dying(nurse, task, 5)
    for _ in range(ROWS_ALONE - 2):
        assert (task.set_aside, memory.kept[0].set_aside) == (memory.done, memory.done)
        memory.done += 3
        task = dying(nurse, task, 1)
    assert memory.kept[0].given_up_from is None
    memory.done += 3
    assert dying(nurse, task, 1) == PartTask(0, surrender=Surrender.KEYS)
    assert memory.kept[0].given_up_from == memory.done


def test_what_kills_without_reading_is_not_held_against_the_part():
    memory = Memory(1_000)
    memory.kept[0] = Strikes(0, 8, died_at=0, set_aside=0, given_up_from=0)
    nurse = nurse_on(memory)
    unread = dying(nurse, nurse.tasks()[0], 1)
    assert unread == PartTask(0, surrender=Surrender.UNREAD)
    with pytest.raises(TemporaryError, match="read nothing"):
        dying(nurse, unread, 1)
    assert nurse_on(memory).tasks() == [PartTask(0)]


def found_to_kill(**limits):
    """A nurse, and the death after which part 1 of 3 is to be set aside from row 40 on."""
    memory = Memory(100, 100, 100, done=40)
    memory.kept = {1: Strikes(1, 8, died_at=40, set_aside=40)}
    nurse = nurse_on(memory, **limits)
    return memory, lambda: nurse.on_death(WorkerDied(PartTask(1, 8_192, 1, set_aside=40), -9))


def test_parts_are_counted_before_they_are_set_aside():
    memory, die = found_to_kill()
    assert die().surrender is Surrender.KEYS
    (aside,) = parts_aside("r", memory)
    assert (aside.number, aside.rows, aside.deaths) == (1, 60, 9)


def test_a_part_beyond_the_limit_of_parts_is_left_alone():
    memory, die = found_to_kill(quarantined_parts=0)
    with pytest.raises(QuarantineLimitError, match="1 of 3 parts with 60 of 300 rows") as caught:
        die()
    assert "`parts_share` and `quarantined_parts` of the job's Limits" in caught.value.hint
    assert parts_aside("r", memory) == ()


def test_a_part_beyond_the_share_of_rows_is_left_alone():
    memory, die = found_to_kill(parts_share=0.19)
    with pytest.raises(QuarantineLimitError, match=r"part 1 .u1. killed 9 workers"):
        die()
    assert parts_aside("r", memory) == ()
    _, die = found_to_kill(parts_share=0.2)
    assert die().surrender is Surrender.KEYS


def test_no_row_is_to_blame_before_another_was_predicted():
    memory, tried = Memory(10, 20, 30, 40, 50, done=4), []
    nurse = nurse_on(memory, tried.append)
    with pytest.raises(RunFailed, match=r"row 4 of part 1 \(exit -9\)"):
        dying(nurse, PartTask(1), 9)
    # Halves of other parts, then what is left of its own, without the row itself.
    assert [(task.part_number, task.trial) for task in tried] == [
        (0, (5, 10)), (3, (20, 40)), (1, (12, 20)), (1, (5, 20)), (1, (0, 4)),
    ]  # fmt: skip
    assert memory.kept[1].set_aside is None


def test_what_was_predicted_before_this_start_says_nothing_about_this_machine():
    memory = Memory(100, done=50)
    memory.written = 50
    with pytest.raises(TemporaryError, match="no worker predicts any row"):
        dying(nurse_on(memory, lambda _: False), PartTask(0), 9)
    # Nor is it held against the part.
    assert nurse_on(memory).tasks() == [PartTask(0)]
    nurse = nurse_on(memory, lambda _: pytest.fail("there is no need to try"))
    memory.written = 51
    assert dying(nurse, PartTask(0), 4).set_aside == 50


def test_a_part_that_is_given_up_counts_at_once():
    memory = Memory(1_000, 1_000, done=500)
    nurse = nurse_on(memory)
    task = PartTask(1, surrender=Surrender.KEYS)
    dying(nurse, task, 1)
    # Its rows are not counted one by one, and neither before they are set aside.
    memory.done = 1_000
    memory.progress = lambda _: Progress(2, 2_000, 2_000, quarantined=500)
    nurse.check_limits()
    memory.progress = lambda _: Progress(2, 2_000, 2_000, quarantined=900)
    with pytest.raises(QuarantineLimitError, match="400 of 2,000 rows"):
        nurse.check_limits()


@pytest.mark.parametrize(
    ("how", "reasons", "left"),
    [
        (Surrender.KEYS, {"part_killed_worker", "missing_key"}, [2]),
        (Surrender.UNREAD, {"part_unreadable"}, [1, 2, 3]),
    ],
)
def test_the_rest_of_a_part_is_quarantined_and_loses_its_predictions(tmp_path, how, reasons, left):
    """Rows 1, 2 and 3 are predicted; 2 was read before the part was given up."""
    sink, storage = SqliteSink(tmp_path / "outputs.db"), FolderStorage(tmp_path)
    part = part_of(storage, [2, 3, None, 1])
    ledger = sink.ledger()
    lease = ledger.acquire("mood", "toy", ME, 11)
    sink.prepare(TABLE)
    run = ledger.attempt(ledger.create(lease, new_run()), "a1")
    run = ledger.adopt(run, Snapshot(storage.prefix, (part,), None))
    run = ledger.advance(run, RunState.WRITING)
    with sink.session(TABLE, run) as session:
        first = rows(2).select(["note_id"]).slice(0, 0)
        session.commit(BatchCommit(0, 0, 1, rows(1, 2, 3).slice(1, 1), first, 0, 0, (), 7))
    with sink.session(TABLE, run) as session:
        session._connection.executemany(session._upsert, before(1, 3))
        set_part_aside(PartTask(0, surrender=how), session, storage, Toy)
    totals = check_conservation(ledger.parts("r1"))
    assert (totals.written, totals.quarantined) == (1, 3)
    assert {row.reason for row in ledger.quarantined("r1", 10)} == reasons
    assert ids(sink) == left


def part_of(storage, numbers):
    table = pa.table({"note_id": pa.array(numbers, pa.int64())})
    file = storage.root / "part.parquet"
    pq.write_table(table.append_column("text", pa.array(["x"] * len(numbers))), file)
    uri = file.as_uri()
    assert "text" in NOTES.names
    found = storage.stat(uri)
    return Part(0, uri, len(numbers), found.bytes, found.etag)


def before(*numbers):
    """Rows as an older run left them."""
    return [tuple(row.values()) for row in _values(rows(*numbers, run_no=0))]


def _values(batch):
    for row in batch.to_pylist():
        yield row | {"src_updated_at": 0}
