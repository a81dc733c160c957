"""Ready-made features, and what saving a pipeline of them must trust."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from sklearn.linear_model import SGDClassifier
from sklearn.pipeline import make_pipeline, make_union
from sklearn.utils.validation import check_is_fitted
from skops import io as skops_io

from mlbatch.text import TRUSTED, Pick, characters, lemmas, words

SMALL = {"n_features": 2**10}
BATCH = pa.record_batch({"title": ["豚汁", None, "ﾄﾝｶﾂ"], "steps": ["切って煮る", "", "切った"]})


def columns_of(features, text):
    row = features.transform(pa.record_batch({"title": [text]}))
    return dict(zip(row.indices.tolist(), row.data.tolist(), strict=True))


def test_a_column_becomes_texts_and_a_missing_one_is_empty():
    pick = Pick("title")
    check_is_fitted(pick)
    assert pick.fit(BATCH) is pick
    assert pick.transform(BATCH) == ["豚汁", "", "ﾄﾝｶﾂ"]


@pytest.mark.parametrize("make", [words, characters])
def test_features_need_no_fitting_and_keep_the_rows(make):
    features = make("title", **SMALL)
    assert features.transform(BATCH).shape == (3, 2**10)
    assert features.transform(BATCH)[1].nnz == 0


def test_a_row_has_the_same_features_in_any_batch():
    features = make_union(words("title", **SMALL), characters("steps", **SMALL))
    whole = features.transform(BATCH).toarray()
    single = np.vstack([features.transform(BATCH.slice(n, 1)).toarray() for n in range(3)])
    assert np.array_equal(whole, single)


@pytest.mark.parametrize("make", [words, characters])
def test_74_width_and_case_do_not_matter(make):
    features = make("title", **SMALL)
    assert columns_of(features, "ﾄﾝｶﾂ ＡＢ") == columns_of(features, "トンカツ ab")


def test_pairs_and_lemmas_are_a_choice():
    assert len(columns_of(words("title", **SMALL), "玉ねぎを切る")) == 5
    assert len(columns_of(words("title", pairs=False, **SMALL), "玉ねぎを切る")) == 3
    bases = words("title", tokeniser=lemmas, pairs=False, **SMALL)
    assert columns_of(bases, "玉ねぎを切った") == columns_of(bases, "玉ねぎを切る")


def test_trusted_is_exactly_what_such_a_pipeline_holds(tmp_path):
    features = make_union(
        words("title", **SMALL), words("steps", tokeniser=lemmas, **SMALL), characters("title")
    )
    pipeline = make_pipeline(features, SGDClassifier(loss="log_loss", random_state=0))
    pipeline.fit(BATCH, [True, False, True])
    file = tmp_path / "model.skops"
    skops_io.dump(pipeline, file)
    assert set(TRUSTED) == set(skops_io.get_untrusted_types(file=file))
    again = skops_io.load(file, trusted=list(TRUSTED))
    assert np.array_equal(again.decision_function(BATCH), pipeline.decision_function(BATCH))
