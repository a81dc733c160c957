"""Edges of small rooms: what happens where nothing usual does."""

from __future__ import annotations

import errno
import json
import sys
import time
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from sqlalchemy import MetaData, create_engine
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.schema import CreateTable
from toy.job import Mood, Toy

from mlbatch.cli.answer import show_error
from mlbatch.cli.main import Terminated, cli, main
from mlbatch.cli.session import Voice
from mlbatch.connectors.database.liveness import is_surely_dead, this_process
from mlbatch.connectors.database.tables import RUN, Instant, microseconds, output_table, storable
from mlbatch.engine import PartTask, WorkerDied
from mlbatch.errors import Busy, DeclarationError, MlbatchError
from mlbatch.ledger import PartState
from mlbatch.nurse import Nurse
from mlbatch.scoring import cursor_in_utc
from mlbatch.snapshot import Part
from mlbatch.text import Pick
from mlbatch.worker import suitable_rows

NOON = datetime(2026, 1, 1, 12, 0, 0, 1, tzinfo=UTC)


def test_instants_are_integers_on_sqlite_and_datetimes_on_mysql():
    kind = Instant()
    there = kind.process_bind_param(NOON, sqlite.dialect())
    assert there == microseconds(NOON) == 1767268800000001
    assert kind.process_result_value(there, sqlite.dialect()) == NOON
    naive = kind.process_bind_param(NOON, mysql.dialect())
    assert naive == NOON.replace(tzinfo=None)
    assert kind.process_result_value(naive, mysql.dialect()) == NOON
    for dialect in (sqlite.dialect(), mysql.dialect()):
        assert kind.process_bind_param(None, dialect) is None
        assert kind.process_result_value(None, dialect) is None


def test_tables_are_ready_for_mysql_with_their_comments():
    table = output_table(Mood.table, MetaData())
    ddl = str(CreateTable(table).compile(dialect=mysql.dialect()))
    assert "DATETIME(6) NOT NULL COMMENT" in ddl
    assert "VARCHAR(4) NOT NULL COMMENT 'Its mood.'" in ddl
    assert "COMMENT='The mood of a note, as predicted.'" in ddl
    assert "MEDIUMTEXT" in str(CreateTable(RUN).compile(dialect=mysql.dialect()))
    create_engine("sqlite://").connect().execute(CreateTable(table))


def test_values_that_sqlite_has_no_type_for():
    assert storable(date(2026, 1, 2)) == "2026-01-02"
    assert storable(NOON.replace(tzinfo=None)) == microseconds(NOON)
    assert storable("x") == "x"


def test_liveness_of_strangers(monkeypatch):
    me = this_process("x")

    def forbidden(*_):
        raise PermissionError

    monkeypatch.setattr("os.kill", forbidden)
    assert not is_surely_dead(me)
    monkeypatch.undo()
    monkeypatch.setattr("mlbatch.connectors.database.liveness._fields", lambda _: [])
    assert not is_surely_dead(replace(me, started_at=""))


def test_cursors_of_another_zone_become_utc():
    local = pa.array([datetime(2026, 1, 1, 9), None], pa.timestamp("us"))
    found = cursor_in_utc(local, "Asia/Tokyo").to_pylist()
    assert found == [datetime(2026, 1, 1), datetime(1970, 1, 1)]
    twice = pa.array([datetime(2026, 11, 1, 1, 30)], pa.timestamp("us"))
    assert cursor_in_utc(twice, "America/New_York").to_pylist() == [datetime(2026, 11, 1, 5, 30)]


def test_pick_has_nothing_to_learn():
    batch = pa.record_batch({"a": ["x", None]})
    pick = Pick("a")
    assert pick.fit(batch).transform(batch) == ["x", ""]
    assert pick.__sklearn_is_fitted__()


A_RUN = SimpleNamespace(run_id="r")


class FakeLedger:
    """Parts whose position a test sets."""

    def __init__(self):
        self.done = 0
        self.kept = {}

    def parts(self, _):
        return (PartState(0, "u", "e", 1, 10_000, done=self.done),)

    def strikes(self, _):
        return tuple(self.kept.values())

    def strike(self, _, strikes):
        self.kept[strikes.part_number] = strikes


def test_a_nurse_narrows_down_to_the_row_and_then_lets_go():
    ledger, said = FakeLedger(), []
    nurse = Nurse(Toy, A_RUN, ledger, lambda *line: said.append(line), lambda _: True)
    task = PartTask(0)
    sizes = []
    for _ in range(10):
        task = nurse.on_death(WorkerDied(task, -9))
        sizes.append(task.careful_rows if task.careful_until else None)
        if task.set_aside is not None:
            break
        if task.careful_until:
            ledger.done = min(700, task.careful_until)
    assert sizes[:5] == [None, 1_024, 128, 16, 2]
    assert task.set_aside == 700
    assert len(said) >= 5
    ledger.done = 9_000
    assert nurse.on_death(WorkerDied(task, -9)) == PartTask(0)


def test_the_voice_is_quiet_about_progress(capsys, monkeypatch):
    voice = Voice()
    voice("features", "3 rows")
    voice("progress", "1 of 3")
    voice.last = time.monotonic() - 11
    voice("progress", "2 of 3")
    voice("progress", "3 of 3")
    told = capsys.readouterr().err
    assert "features   3 rows" in told
    assert ("1 of 3" in told, "2 of 3" in told, "3 of 3" in told) == (False, True, False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    voice("progress", "4 of 4")
    assert capsys.readouterr().err.endswith("4 of 4\r")


def test_errors_are_shown_with_place_and_hint(capsys):
    show_error(DeclarationError("wrong", hint="mend it", file="a.py", line=3, column=4))
    assert capsys.readouterr().err == "error: wrong\n  --> a.py:3:4\nhint: mend it\n"
    show_error(MlbatchError())
    assert capsys.readouterr().err == "error: Something failed.\n"
    assert str(DeclarationError("wrong", file="a.py", line=3)) == "a.py:3: wrong"
    assert str(DeclarationError("wrong")) == "wrong"


def test_an_interrupt_keeps_what_is_committed(monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "main", interrupted)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
    assert "run again to go on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("raised", "kind", "code"),
    [
        (KeyboardInterrupt(), "Interrupted", 130),
        (Terminated(), "Terminated", 143),
        (Busy("at work", hint="wait"), "Busy", 75),
        (OSError(errno.ENOSPC, "no space"), "OutOfResources", 75),
        (ZeroDivisionError("a defect"), "ZeroDivisionError", None),
    ],
)
def test_whatever_ends_a_command_is_an_object_where_json_was_asked_for(
    monkeypatch, capsys, raised, kind, code
):
    def ending(*_, **__):
        raise raised

    monkeypatch.setattr(cli, "main", ending)
    monkeypatch.setattr(sys, "argv", ["mlbatch", "status", "--json"])
    with pytest.raises(SystemExit if code else ZeroDivisionError) as ended:
        main()
    facts = json.loads(capsys.readouterr().out)
    assert (facts["ok"], facts["error"], facts["exit_code"]) == (False, kind, code or 1)
    assert facts["try_again"] == (code == 75)
    assert code is None or ended.value.code == code


def test_a_job_knows_what_it_reads():
    from mlbatch.job import required_columns, required_schema

    assert required_columns(Toy) == ("note_id", "text", "updated_at", "deleted_at")
    assert required_schema(Toy).field("updated_at").type == pa.timestamp("us")
    assert Toy.limits.allows(10, 20)
    assert not Toy.limits.allows(11, 20)
    assert Toy.limits.allows(100, 10_000)
    assert Toy.delta.overlap == timedelta(hours=1)
    assert np.isfinite(Toy.training.holdout)


@pytest.mark.parametrize(
    ("rows", "size", "expected"),
    [
        (0, 0, 1_024),
        (20_000, 20_000 * 464, 1_129),
        (20_000, 20_000 * 74, 7_084),
        (20_000, 20_000 * 20, 8_192),
        (10, 10 * 1_000_000, 1_024),
    ],
)
def test_a_batch_has_as_many_rows_as_their_size_allows(rows, size, expected):
    assert suitable_rows(Part(0, "u", rows, size, "e")) == expected
