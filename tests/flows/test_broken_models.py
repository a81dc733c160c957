"""A model that does not work, or a machine on which it cannot: the table keeps its predictions."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass

import numpy as np
import pytest
from toy.harness import QuickHarness, ToyHarness, interrupted, note, notes
from toy.job import Toy
from toy.model import Obedient

from mlbatch import worker
from mlbatch.errors import ExitCode, OutOfResources, QuarantineLimitError, RunFailed
from mlbatch.ledger import RunKind, RunState
from mlbatch.model import Prediction
from mlbatch.repair import retry


@dataclass(frozen=True)
class Broken:
    """Raises ``error`` for each row of a text with ``word``, or answers nonsense without one."""

    error: Exception | None = None
    word: str = ""

    def predict(self, batch):
        texts = batch.column("text").to_pylist()
        if any(self.word in text for text in texts):
            if self.error is None:
                return Prediction(["good"] * len(texts), np.full(len(texts), np.nan))
            raise self.error
        return Obedient().predict(batch)


NO_DICTIONARY = FileNotFoundError("the dictionary is not there")
NO_FILES = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
NO_DISK = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def harness(tmp_path):
    """Seven hundred notes, predicted, in one part as a rule."""
    made = QuickHarness(Toy, tmp_path).given_model(Obedient()).notes(notes(700))
    made.infer()
    return made


@pytest.mark.parametrize(
    ("error", "told"),
    [(NO_DICTIONARY, "FileNotFoundError: the dictionary"), (None, "score is NaN or infinite")],
)
def test_a_model_that_predicts_nothing_takes_nothing_from_the_table(harness, error, told):
    before = harness.rows()
    harness._predictor = Broken(error)
    with pytest.raises(RunFailed, match=rf"predicts no row of part 0, 700 were tried.*{told}"):
        harness.infer(full=True)
    (run, _) = harness.tools.sink.ledger().runs("mood")
    assert (run.state, harness.quarantined(run.run_id)) == (RunState.FAILED, ())
    assert harness.rows() == before
    # Nothing was changed, so that nothing is to be done again.
    harness._predictor = Obedient()
    assert harness.infer().plan.kind is RunKind.DELTA


def test_with_many_workers_a_broken_model_takes_nothing_either(tmp_path):
    harness = ToyHarness(Toy, tmp_path, part_rows=50, workers=2).given_model(Obedient())
    harness.notes(notes(200)).infer()
    before = harness.rows()
    harness._predictor = Broken(NO_DICTIONARY)
    with pytest.raises(RunFailed, match="predicts no row of part"):
        harness.infer(full=True)
    assert harness.rows() == before


def test_a_delta_of_a_few_bad_rows_sets_them_aside_and_goes_on(harness):
    """All that the delta reads, with its overlap of an hour; as many as go whatever their share."""
    ended = harness.notes([note(n, "!raise", minutes=7_000 + n) for n in range(694, 704)]).infer()
    assert (ended.totals.written, ended.totals.quarantined) == (0, 10)
    assert ended.run.state is RunState.DONE


def test_a_batch_beyond_the_limit_is_not_committed(harness, monkeypatch):
    """The model predicts what comes first, and the part is long."""
    monkeypatch.setattr(worker, "MOST_BATCH_ROWS", worker.LEAST_BATCH_ROWS)
    harness.notes(notes(3_000)).infer()
    before = harness.rows()
    harness.notes([note(n, "!raise", minutes=40_000) for n in range(1_500, 3_001)])
    with pytest.raises(QuarantineLimitError, match="of 3,000 rows were quarantined") as caught:
        harness.infer(full=True)
    assert "mlbatch show toy" in caught.value.hint
    lost = len(before) - len(harness.rows())
    run, *_ = harness.tools.sink.ledger().runs("mood")
    (part,) = harness.tools.sink.ledger().parts(run.run_id)
    assert part.written
    assert lost == part.quarantined <= 30


@pytest.mark.parametrize(
    ("error", "word"), [(NO_FILES, ""), (NO_DISK, "now"), (MemoryError("x"), "now")]
)
def test_what_the_machine_lacks_is_no_row_s_fault(harness, error, word):
    before = harness.rows()
    harness.notes([note(n, "good now", minutes=50_000 + n) for n in (3, 800)])
    harness._predictor = Broken(error, word)
    with pytest.raises(OutOfResources, match=r"toy: in predict, at the row \d+: ") as caught:
        harness.infer()
    assert caught.value.exit_code is ExitCode.TEMPORARY
    # What is always too large must not stop the nights without a way out.
    assert ("--supersede" in caught.value.hint) is isinstance(error, MemoryError)
    (left, _) = harness.tools.sink.ledger().runs("mood")
    assert (left.state, harness.quarantined(left.run_id)) == (RunState.WRITING, ())
    assert harness.rows() == before
    harness._predictor = Obedient()
    ended = harness.infer()
    assert (ended.run.run_id, len(harness.rows())) == (left.run_id, 701)


def test_a_row_whose_text_speaks_of_full_disks_is_a_bad_row(harness):
    harness._predictor = Broken(ValueError(os.strerror(errno.ENOSPC)), "now")
    ended = harness.notes([note(3, "good now", minutes=50_000)]).infer()
    assert ended.totals.quarantined == 1


@pytest.mark.parametrize("superseded", [False, True])
def test_after_a_full_run_that_took_rows_and_did_not_end_everything_is_read(
    harness, monkeypatch, superseded
):
    """A delta would never read again what it set aside."""
    harness._part_rows = 350
    harness._predictor = Broken(NO_DICTIONARY, "sad note 12")
    if superseded:
        interrupted(harness, monkeypatch, 1, full=True)
        harness._predictor = Obedient()
        ended = harness.infer(supersede=True)
    else:
        harness.notes([note(n, "!short", minutes=10 * n) for n in range(690, 701)])
        with pytest.raises(RunFailed, match="rows the model gave"):
            harness.infer(full=True)
        assert len(harness.rows()) < 700
        harness._predictor = Obedient()
        harness.notes([note(n, "good", minutes=10 * n) for n in range(690, 701)])
        # What is named by somebody does not make up for it.
        harness.notes([note(12, "good", minutes=120)])
        assert retry(Toy, harness.tools) is None
        ended = harness.infer()
    assert ended.run.new.kind is RunKind.FULL
    assert "a full that did not finish, has changed rows" in ended.plan.reason
    assert len(harness.rows()) == 700
    assert harness.infer().plan.kind is RunKind.DELTA
