"""The laws that every job obeys, for its author's tests::

    @pytest.mark.parametrize("law", checks.LAWS, ids=lambda law: law.__name__)
    def test_laws(law, harness):
        law(harness)

``harness`` has its source rows and a champion. A broken law raises LawBroken and says how.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from mlbatch.errors import MlbatchError

if TYPE_CHECKING:
    from mlbatch.scoring import Predictor
    from mlbatch.testing import JobHarness

NASTY_TEXTS = (
    "", " ", "\n", "\0", "EOS", "👩‍🍳", "ﾌﾗｲﾊﾟﾝ", "𠮷", "\u202e", "<script>", "a" * 1_000, "9" * 1_000,
)  # fmt: skip


class LawBroken(MlbatchError):
    """A job breaks a law that mlbatch relies on."""


def check_running_twice_changes_nothing(harness: JobHarness) -> None:
    """The same rows and the same model make the same predictions."""
    harness.infer()
    before = _predictions(harness)
    harness.infer(full=True)
    if _predictions(harness) != before:
        raise LawBroken("a second run over the same rows wrote other predictions")


def check_batches_do_not_matter(harness: JobHarness) -> None:
    """A row's prediction does not depend on which rows stand beside it."""
    model, batch = _model(harness), _inputs(harness)
    whole = model.predict(batch)
    for row in range(batch.num_rows):
        alone = model.predict(batch.slice(row, 1))
        if alone.labels[0] != whole.labels[row] or alone.scores[0] != whole.scores[row]:
            raise LawBroken(f"row {row} is predicted otherwise when it stands alone")


def check_any_text_is_answered(harness: JobHarness) -> None:
    """No text breaks the model, and every score is a probability."""
    job = harness.job
    schema = pa.schema([job.features.view.column(name).field for name in job.inputs])
    rows = [
        {f.name: text if pa.types.is_string(f.type) else None for f in schema}
        for text in NASTY_TEXTS
    ]
    answer = _model(harness).predict(pa.RecordBatch.from_pylist(rows, schema=schema))
    scores = np.asarray(answer.scores)
    if len(answer.labels) != len(rows) or not ((scores >= 0) & (scores <= 1)).all():
        raise LawBroken("some text is not answered with a probability")


LAWS = (
    check_running_twice_changes_nothing,
    check_batches_do_not_matter,
    check_any_text_is_answered,
)


def _model(harness: JobHarness) -> Predictor:
    tools, name = harness.tools, harness.job.name
    champion = tools.tracking.resolve(name)
    if champion is None:
        raise LawBroken(f"{name} has no champion to check")
    folder = tools.tracking.fetch(champion, tools.models / name / str(champion.version))
    return tools.load_model(harness.job, folder, champion.digest)


def _inputs(harness: JobHarness) -> pa.RecordBatch:
    table = harness.query().select(list(harness.job.inputs))
    return table.combine_chunks().to_batches()[0].slice(0, 100)


def _predictions(harness: JobHarness) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "run_no"} for row in harness.rows()]
