"""Text and MeCab; numbers as in docs/bad-inputs.md."""

from __future__ import annotations

import re
import subprocess
import sys
import unicodedata
from concurrent.futures import ThreadPoolExecutor

import pytest
from bad_inputs import ACCEPTED, QUARANTINED, bad_input
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbatch.text import (
    dictionary_fingerprint,
    dictionary_name,
    lemmas,
    normalise,
    surfaces,
    tokeniser,
)


@bad_input(outcome=ACCEPTED)
@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("", [], id="63-empty"),
        pytest.param(" 　\t", [], id="64-spaces"),
        pytest.param("切る\r\n焼く\t煮る\n", ["切る", "焼く", "煮る"], id="65-line-ends"),
        pytest.param("切る\0焼く", ["切る", "焼く"], id="66-nul-cuts-nothing-off"),
        pytest.param("切る\ud800焼く", ["切る", "焼く"], id="67-lone-surrogate"),
        pytest.param("塩は?\ud800焼く", ["塩", "は", "?", "焼く"], id="67-question-marks-stay"),
        pytest.param("EOS\n切る", ["eos", "切る"], id="69-the-end-marker-as-text"),
        pytest.param("ﾌﾗｲﾊﾟﾝで焼く", ["フライパン", "で", "焼く"], id="74-half-width-kana"),
        pytest.param("ハ\u3099ター", ["バター"], id="74-combining-mark"),
        pytest.param("１２３", ["123"], id="74-full-width-digits"),
        pytest.param("<script>", ["<", "script", ">"], id="78-html"),
        pytest.param("Boil the water", ["boil", "the", "water"], id="84-english"),
    ],
)
def test_words(text, words):
    assert surfaces(normalise(text)) == words


@bad_input(outcome=ACCEPTED)
@pytest.mark.parametrize(
    "text",
    [
        pytest.param("👩‍🍳🍳", id="73-emoji"),
        pytest.param("𠮷野家", id="75-astral-kanji"),
        pytest.param("\u202e右から\u200b左", id="76-override-and-zero-width"),
        pytest.param("\uffff\ufeff", id="77-noncharacters"),
        pytest.param("9" * 10_000, id="70-digits-at-the-limit"),
        pytest.param("a" * 10_000, id="72-letters-at-the-limit"),
        pytest.param("あ" * 10_000, id="71-kana-at-the-limit"),
        pytest.param("🍳" * 10_000, id="71-emoji-at-the-limit"),
    ],
)
def test_accepted(text):
    assert isinstance(surfaces(normalise(text)), list)
    assert isinstance(lemmas(normalise(text)), list)


@bad_input(70, outcome=QUARANTINED, says="100,000 characters")
def test_70_a_text_beyond_mecab_is_refused_not_lost():
    with pytest.raises(ValueError, match="100,000 characters"):
        surfaces("1" * 100_000)


@bad_input(68, outcome=QUARANTINED)
def test_68_what_is_no_text_is_an_error():
    for value in (None, b"x", 3):
        with pytest.raises((TypeError, AttributeError)):
            normalise(value)


WIDTHS = st.text(
    "水ガはＡｂ１２（）！～\u3000々「」『』・ー ｶﾞﾊﾟ\u3099\u309a\u0301①㌔…々、a1éÖЙ각가\u11a8🇯🥹",
    max_size=40,
)


@settings(deadline=None)
@given(st.text(max_size=40) | WIDTHS)
def test_the_normal_form_is_pythons_own(text):
    plain = unicodedata.normalize("NFKC", text).lower().replace("\0", " ")
    assert normalise(text) == " ".join(re.sub("[\ud800-\udfff]", " ", plain).split())


SPACED = st.text("あア１☆①♪ \u3000\t\n\0\1Σς❤\ufe0f👩\u200d🍳", max_size=12)


def joining_characters():
    """Those that may become one with what stands before them."""
    found = (unicodedata.decomposition(chr(n)).split() for n in range(sys.maxunicode + 1))
    return {chr(int(pair[1], 16)) for pair in found if len(pair) == 2 and "<" not in pair[0]}


def test_what_is_normalised_by_itself_never_joins_what_stands_before_it():
    joining = joining_characters()
    for number in range(sys.maxunicode + 1):
        character = chr(number)
        is_stable = re.match(f"[{tokeniser._STABLE}]", character)
        if is_stable or re.match(f"[{tokeniser._WIDE}]", character):
            normal = unicodedata.normalize("NFKC", character)
            assert len(normal) == 1
            assert normal == character if is_stable else normal.isascii()
            assert normal not in joining
            assert not unicodedata.combining(normal)


@settings(deadline=None)
@given(st.lists(st.text(max_size=20) | WIDTHS | SPACED, max_size=8))
def test_many_texts_have_the_normal_form_of_each(texts):
    assert tokeniser.normalised(texts) == [normalise(text) for text in texts]


def test_what_a_table_folds_is_so_whatever_stands_beside_it():
    folded, joining = tokeniser._folding(), joining_characters()
    table = {chr(n): chr(to) for n, to in enumerate(folded) if n and to != ord(tokeniser._OTHER)}
    assert len(table) > 20_000
    assert folded[-1] == ord(tokeniser._OTHER)
    for character, to in table.items():
        assert unicodedata.normalize("NFKC", character).lower() == to
        assert not {character, to} & joining
        assert not unicodedata.combining(character)
        assert not unicodedata.combining(to)
    # What joins with them is no part of the table, and neither is what depends on its neighbours.
    assert not {"\u3099", "\u0338", "\u03a3", "\ud800", "\0", "\1"} & set(table)


def test_every_character_has_one_normal_form_alone_and_among_many():
    characters = [f"Ａ{chr(number)} １" for number in range(sys.maxunicode + 1)]
    for low in range(0, len(characters), 4_096):
        texts = characters[low : low + 4_096]
        assert tokeniser.normalised(texts) == [normalise(text) for text in texts]


def test_lemmas_are_base_forms_of_content_words():
    assert lemmas("玉ねぎを切ってください") == ["玉ねぎ", "切る", "くださる"]
    assert lemmas("ズッキーニョ炒め") == ["ズッキーニョ", "炒める"]


@settings(deadline=None)  # the first text loads the dictionary
@given(st.text(max_size=200))
def test_any_text_is_read_to_its_end(text):
    plain = normalise(text + "終わり")
    words = surfaces(plain)
    assert "".join(words) == "".join(plain.split())
    assert isinstance(lemmas(plain), list)


@bad_input(79, outcome=ACCEPTED)
def test_79_words_that_no_dictionary_knows():
    made_up = " ".join(f"xq{n}zw" for n in range(1_000))
    assert len(surfaces(made_up)) >= 1_000


@bad_input(81, outcome=ACCEPTED)
def test_81_one_tagger_a_thread():
    texts = [f"玉ねぎを{n}個切る" for n in range(200)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(surfaces, texts)) == [surfaces(text) for text in texts]


FORK = """
import os
from mlbatch.text import surfaces, tokeniser
before = surfaces("玉ねぎを切る")
inherited = set(tokeniser._local.taggers)
if child := os.fork():
    raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
same = surfaces("玉ねぎを切る") == before
os._exit(0 if same and len(set(tokeniser._local.taggers) - inherited) == 1 else 1)
"""


@bad_input(81, outcome=ACCEPTED)
def test_81_a_fork_makes_its_own():
    # In a process of its own: this one may have threads, and forking those is another matter.
    assert subprocess.run([sys.executable, "-c", FORK], timeout=60, check=False).returncode == 0


def test_80_the_dictionary_has_a_fingerprint():
    assert len(dictionary_fingerprint()) == 64
    assert dictionary_name().startswith("ipadic ")
