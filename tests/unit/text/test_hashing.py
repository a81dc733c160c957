"""The fast way gives scikit-learn's own matrix, over any Unicode, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.utils import murmurhash3_32

from mlbatch.text import lemmas, normalise, surfaces
from mlbatch.text.hashing import TextHasher
from mlbatch.text.murmur import murmur3
from mlbatch.text.spans import character_spans, word_spans

JAPANESE = st.text(
    "玉ねぎを切っ。、 たニンジンﾄﾝｶﾂ数1２*名詞,\t\n\r\u3000👩‍🍳𠮷は\u3099\0\x1c\x85", max_size=60
)
TEXTS = st.lists(st.text(max_size=60) | JAPANESE, min_size=1, max_size=8)
OPTIONS = {
    "words": {"tokenizer": surfaces, "token_pattern": None},
    "words and pairs": {"tokenizer": surfaces, "token_pattern": None, "ngram_range": (1, 2)},
    "pairs alone": {"tokenizer": surfaces, "token_pattern": None, "ngram_range": (2, 2)},
    "lemmas": {"tokenizer": lemmas, "token_pattern": None},
    "pairs of lemmas": {"tokenizer": lemmas, "token_pattern": None, "ngram_range": (1, 2)},
    "characters": {"analyzer": "char_wb", "ngram_range": (2, 4)},
    "long runs of characters": {"analyzer": "char_wb", "ngram_range": (5, 6)},
    "scikit-learn's words": {},
}
FAST = (
    "words",
    "words and pairs",
    "lemmas",
    "pairs of lemmas",
    "characters",
    "long runs of characters",
)


def vectorisers(name, **more):
    options = {"preprocessor": normalise, "lowercase": False, "alternate_sign": False, **more}
    options |= OPTIONS[name]
    return TextHasher(**options), HashingVectorizer(**options)


def assert_same(ours, theirs):
    assert ours.shape == theirs.shape
    for part in ("indptr", "indices", "data"):
        assert np.array_equal(getattr(ours, part), getattr(theirs, part)), part
        assert getattr(ours, part).dtype == getattr(theirs, part).dtype


@settings(deadline=None)
@pytest.mark.parametrize("name", OPTIONS)
@given(texts=TEXTS, binary=st.booleans(), norm=st.sampled_from(["l1", "l2", None]))
def test_the_matrix_is_scikit_learns(name, texts, binary, norm):
    ours, theirs = vectorisers(name, binary=binary, norm=norm, n_features=2**18)
    assert_same(ours.transform(texts), theirs.transform(texts))


@pytest.mark.parametrize("name", OPTIONS)
def test_it_is_so_with_few_columns_and_other_numbers(name):
    texts = ["豚汁を煮る", "", "豚汁 豚汁 トン汁", "a", "  "]
    ours, theirs = vectorisers(name, n_features=7, dtype=np.float32)
    assert_same(ours.transform(texts), theirs.transform(texts))


@pytest.mark.parametrize("name", FAST)
def test_it_is_so_block_by_block(name, monkeypatch):
    monkeypatch.setattr("mlbatch.text.hashing.BLOCK_CHARACTERS", 9)
    ours, theirs = vectorisers(name)
    for texts in (["豚汁を煮る", "", "豚汁 豚汁 トン汁", "a", "  "] * 3, ["", ""]):
        assert_same(ours.transform(texts), theirs.transform(texts))


@pytest.mark.parametrize("name", FAST)
def test_the_fast_way_is_taken(name, monkeypatch):
    monkeypatch.setattr(HashingVectorizer, "transform", None)
    assert vectorisers(name)[0].transform(["豚汁を煮る"]).nnz


@pytest.mark.parametrize(
    "more", [{"alternate_sign": True}, {"stop_words": ["豚汁"]}, {"preprocessor": str.strip}]
)
def test_what_it_does_not_know_goes_scikit_learns_way(more):
    ours, theirs = vectorisers("words", **more)
    assert_same(ours.transform([" 豚汁を煮る "]), theirs.transform([" 豚汁を煮る "]))


def test_a_single_text_is_refused_as_scikit_learn_does():
    with pytest.raises(ValueError, match="raw text documents"):
        vectorisers("words")[0].transform("豚汁")


@given(st.lists(st.binary(max_size=23), max_size=20))
def test_murmur_is_scikit_learns(tokens):
    length = np.array([len(token) for token in tokens], dtype=np.int64)
    hashes = murmur3(b"".join(tokens), np.cumsum(length) - length, length)
    assert hashes.tolist() == [murmurhash3_32(token) for token in tokens]


def test_spans_name_tokens_and_their_texts():
    spans = word_spans("玉ねぎ を \n\nb c \n".encode(), pairs=True)
    places = zip(spans.start.tolist(), spans.length.tolist(), strict=True)
    tokens = [spans.data[start : start + length].decode() for start, length in places]
    assert tokens == ["玉ねぎ", "を", "b", "c", "玉ねぎ を", "b c"]
    assert spans.row.tolist() == [0, 0, 2, 2, 0, 2]


def test_a_word_shorter_than_the_run_is_one_token():
    spans = character_spans(["a bcd", ""], 4, 5)
    places = zip(spans.start.tolist(), spans.length.tolist(), strict=True)
    tokens = [spans.data[start : start + length].decode() for start, length in places]
    assert sorted(tokens) == [" a ", " bcd", " bcd ", "bcd "]
    assert set(spans.row.tolist()) == {0}
