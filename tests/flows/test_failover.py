"""A fail-over to a server that lacks the last commits: the data folder of a moment before, for real."""

from __future__ import annotations

import shutil

import pytest
from servers import mariadb, writer_of
from toy.harness import ToyHarness, note, notes
from toy.job import Toy
from toy.model import Obedient

from mlbatch import inference
from mlbatch.connectors.database import ledger_store
from mlbatch.connectors.mysql.session import MysqlPartSession
from mlbatch.connectors.mysql.sink import MysqlSink
from mlbatch.connectors.mysql.takeover import MysqlLedger
from mlbatch.errors import ExitCode, Fenced, TemporaryError
from mlbatch.ledger import RunState


class Cluster:
    """A server whose replica stands still from one moment on, and then takes its place."""

    def __init__(self, server):
        self.server = server
        self._replica = server.folder / "replica"

    def stop_replicating(self):
        self.server.stop()
        shutil.copytree(self.server.folder / "data", self._replica)
        self.server.start()

    def fail_over(self):
        self.server.kill()
        shutil.rmtree(self.server.folder / "data")
        self._replica.rename(self.server.folder / "data")
        self.server.start()


@pytest.fixture
def cluster(tmp_path):
    with mariadb(tmp_path / "mysql") as running:
        yield Cluster(running)


@pytest.fixture
def harness(tmp_path, cluster):
    made = ToyHarness(Toy, tmp_path, part_rows=10, sink=MysqlSink(writer_of(cluster.server)))
    return made.given_model(Obedient()).notes(notes(45))


def undisturbed(folder, rows):
    folder.mkdir()
    return ToyHarness(Toy, folder).given_model(Obedient()).notes(rows)


def strike(monkeypatch, owner, name, events):
    """After the n-th call of ``owner.name``, do what ``events`` has for it."""
    real, calls = getattr(owner, name), []

    def struck(*arguments):
        answer = real(*arguments)
        calls.append(1)
        events.get(len(calls), lambda: None)()
        return answer

    monkeypatch.setattr(owner, name, struck)


def states(harness):
    return [run.state for run in harness.tools.sink.ledger().runs("mood")]


def test_a_worker_whose_last_commits_were_lost_stops_and_the_next_run_repeats_them(
    harness, cluster, tmp_path, monkeypatch
):
    other = undisturbed(tmp_path / "other", notes(45))
    other.infer()
    monkeypatch.setattr("mlbatch.worker.MOST_BATCH_ROWS", 4)
    monkeypatch.setattr("mlbatch.worker.LEAST_BATCH_ROWS", 4)
    with monkeypatch.context() as struck:
        # The batches of a part of ten rows have 4, 4 and 2.
        events = {1: cluster.stop_replicating, 2: cluster.fail_over}
        strike(struck, MysqlPartSession, "commit", events)
        with pytest.raises(Fenced, match="at row 4, not at row 8: its database lost") as caught:
            harness.infer()
    assert caught.value.exit_code is ExitCode.TEMPORARY
    assert states(harness) == [RunState.WRITING]
    assert harness.infer().totals.written == 45
    assert harness.rows() == other.rows()


def test_a_part_that_was_through_is_not_taken_for_a_defect(harness, cluster, monkeypatch):
    with monkeypatch.context() as struck:
        # Five parts of one batch each; what is lost is the last one.
        events = {4: cluster.stop_replicating, 5: cluster.fail_over}
        strike(struck, MysqlPartSession, "commit", events)
        with pytest.raises(TemporaryError, match="part 4 is at row 0 of 5 again") as caught:
            harness.infer()
    assert "run again" in caught.value.hint
    assert states(harness) == [RunState.WRITING]
    assert harness.infer().totals.written == 45
    assert len(harness.rows()) == 45


@pytest.mark.parametrize(
    ("owner", "after"), [(ledger_store, "check_through"), (MysqlLedger, "verify")]
)
def test_a_part_that_is_lost_while_the_run_is_verified_is_no_defect(
    harness, cluster, monkeypatch, owner, after
):
    with monkeypatch.context() as struck:
        strike(struck, MysqlPartSession, "commit", {4: cluster.stop_replicating})
        strike(struck, owner, after, {1: cluster.fail_over})
        with pytest.raises(TemporaryError):
            harness.infer()
    assert states(harness) == [RunState.WRITING]
    assert harness.infer().totals.written == 45
    assert len(harness.rows()) == 45


@pytest.mark.parametrize(
    ("since", "told"), [("", "was taken over"), ("after_create", "is created again")]
)
def test_a_run_that_was_lost_from_its_beginning_is_not_ended(
    harness, cluster, monkeypatch, since, told
):
    harness.infer()
    harness.notes([note(900, "good", minutes=9_000)])
    events = {since: cluster.stop_replicating, "before_verify": cluster.fail_over}
    events.pop("", lambda: None)()
    reach = inference.reach
    with monkeypatch.context() as struck:
        struck.setattr(
            inference, "reach", lambda place: (reach(place), events.get(place, lambda: None)())
        )
        with pytest.raises(TemporaryError, match=told):
            harness.infer()
    assert states(harness)[-1:] == [RunState.DONE]
    assert harness.infer().run.run_no == 2
    assert [row["note_id"] for row in harness.rows()] == [*range(1, 46), 900]


def test_an_end_that_was_lost_is_come_to_again(harness, cluster, monkeypatch):
    with monkeypatch.context() as struck:
        events = {"before_finish": cluster.stop_replicating, "after_finish": cluster.fail_over}
        reach = inference.reach
        struck.setattr(
            inference, "reach", lambda place: (reach(place), events.get(place, lambda: None)())
        )
        harness.infer()
    assert states(harness) == [RunState.VERIFYING]
    assert harness.tools.sink.ledger().watermark("toy", "g1") is None
    harness.notes([note(900, "good", minutes=9_000)])
    ended = harness.infer()
    assert (ended.run.run_no, ended.run.state, ended.totals.written) == (1, RunState.DONE, 45)
    assert harness.infer().run.run_no == 2
    assert len(harness.rows()) == 46
