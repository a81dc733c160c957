"""Two projects that call their jobs and tables alike, on one database."""

from __future__ import annotations

import pytest
from toy.harness import ToyHarness, note
from toy.job import Toy

from mlbatch.connectors.mysql.sink import MysqlSink
from mlbatch.connectors.sqlite import SqliteSink
from mlbatch.errors import ModelTampered
from mlbatch.repair import reconcile


@pytest.fixture(params=["sqlite", "mysql"])
def shared(request, tmp_path):
    if request.param == "mysql":
        return MysqlSink(request.getfixturevalue("mysql_address"))
    return SqliteSink(tmp_path / "outputs.db")


def project(sink, folder, words):
    """A project with a registry, a warehouse and a model of its own."""
    folder.mkdir()
    made = ToyHarness(Toy, folder, part_rows=64, sink=sink)
    numbers = range(200)
    made.notes([note(n, f"{words[n % 2]} {n}", minutes=n) for n in numbers])
    labels = [{"note_id": n, "label": "good" if n % 2 else "bad"} for n in numbers]
    made.given("moods", labels, key="note_id").train()
    return made


def test_the_second_is_stopped_by_the_model_that_it_has_not_before_any_row(shared, tmp_path):
    first = project(shared, tmp_path / "one", ("sad", "good"))
    second = project(shared, tmp_path / "two", ("awful", "lovely"))
    assert first.infer().totals.written == 200
    rows, ledger = first.rows(), shared.ledger()
    runs = ledger.runs()
    # One for the next delta, and one that came late, for a comparison.
    second.notes([note(900, "lovely", minutes=9_000), note(899, "lovely", minutes=1)])
    for start in (
        second.infer,
        lambda: second.infer(full=True),
        lambda: reconcile(Toy, second.tools),
    ):
        with pytest.raises(ModelTampered) as caught:
            start()
        assert "where another project made mood" in caught.value.hint
    assert (first.rows(), ledger.runs()) == (rows, runs)
    assert ledger.holder("mood") is None
    first.notes([note(901, "good", minutes=9_000)])
    assert first.infer().totals.written >= 1
