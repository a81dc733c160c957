"""Normalising and tokenising Japanese text with MeCab and the ipadic dictionary."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import re
import threading
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import cast

import ipadic
import MeCab
import numpy as np

_WAKATI = "-Owakati"
# One C call a text. -O "" makes MeCab use these formats whatever the dictionary's own dicrc says.
_LEMMA = r'-O "" -F "%f[0],%f[1]\t%m\t%f[6]\n" -U "x,\t%m\t%m\n" -E ""'
CONTENT = frozenset(("名詞", "動詞", "形容詞", "副詞", "感動詞", "x"))
"""Parts of speech that `lemmas` keeps; x is a word that the dictionary does not know."""
NUMERAL = "名詞,数"
NO_LEMMA = "*"
# What NFKC leaves alone: plain ASCII, kana, kanji and their full stops. None of it joins with what
# stands before it, so a text may be taken apart in front of each; what follows may join with it.
_STABLE = r" -~、。々「-』ぁ-ゖァ-ヺ・ー一-鿿"
_UNSTABLE = re.compile(f"[{_STABLE}]?[^{_STABLE}]+")
# What becomes plain ASCII one by one, and does not join with what stands before it either.
_WIDE = "！-～\u3000"
_WIDE_RUN, _NEITHER = re.compile(f"[{_WIDE}]+"), re.compile(f"[^{_STABLE}{_WIDE}]")
_VOICED = "\u3099"
"""The mark that turns か into が, where it is a character of its own."""
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
# Symbols, line ends, half-width marks and other people's letters that are one character before and
# after, whatever else of all this stands beside them; most texts are made of nothing else.
_SYMBOLS = "\t\n\r°×÷‐‒-‖‘-‟※←-↙①-⑨■-➿〃-〠\uff61-\uff65\u200d\ufe0f"
_SYMBOLS += "À-ÖØ-öø-ÿА-яЁё가-힣\U0001f1e6-\U0001f1ff\U0001f300-\U0001faff"
_OTHER = "\1"
"""In a folded text: any character that takes more than a table."""

_local = threading.local()


def normalise(text: str) -> str:
    """``text`` in NFKC and lower case, with single spaces between its words and none around them.

    As every feature reads it: half-width kana become full-width, full-width digits plain ones. NUL,
    behind which MeCab would silently stop, and lone surrogates, which it cannot take, are spaces.
    """
    plain = _nfkc(text).lower().replace("\0", " ")
    if not plain.isascii():
        plain = _LONE_SURROGATE.sub(" ", plain)
    return " ".join(plain.split())


def normalised(texts: Sequence[str]) -> list[str]:
    """`normalise` of each of ``texts``: a table's work, but for those with rarer characters."""
    folded = _folding().take(_codes("\0".join(texts)), mode="clip")
    lines = str(folded.data, "utf-32-le").split("\0")
    if len(lines) != len(texts):  # one of them holds a NUL
        return [normalise(text) for text in texts]
    return [
        normalise(text) if _OTHER in plain else " ".join(plain.split())
        for text, plain in zip(texts, lines, strict=True)
    ]


@lru_cache(maxsize=1)
def _folding() -> np.ndarray:
    """What each character becomes, by its number: itself, another one, or `_OTHER`, as all beyond."""
    found = re.findall("(.)(?:-(.))?", _STABLE + _WIDE + _SYMBOLS, re.DOTALL)
    characters = "".join(chr(n) for a, b in found for n in range(ord(a), ord(b or a) + 1))
    table = np.full(ord(max(characters)) + 2, ord(_OTHER), "<u4")
    table[0] = 0
    table[_codes(characters)] = _codes(_nfkc(characters).lower())
    return table


def _codes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def _nfkc(text: str) -> str:
    """``text`` in NFKC; Python's own way through a whole text takes a third of MeCab's time."""
    if unicodedata.is_normalized("NFKC", text):
        return text
    if _VOICED in text:
        # A text that is taken apart into kana and marks is so everywhere.
        return unicodedata.normalize("NFKC", text)
    # Most texts that need it at all need it for full-width digits and brackets alone.
    unstable = _UNSTABLE if _NEITHER.search(text) else _WIDE_RUN
    return unstable.sub(_run_nfkc, text)


def _run_nfkc(run: re.Match[str]) -> str:
    return unicodedata.normalize("NFKC", run[0])


def _tagger(arguments: str) -> MeCab.Tagger:
    # A tagger is neither shared between threads nor carried over a fork.
    key = (os.getpid(), arguments)
    taggers = _local.__dict__.setdefault("taggers", {})
    if key not in taggers:
        taggers[key] = MeCab.Tagger(f"{ipadic.MECAB_ARGS} {arguments}")
    return taggers[key]


def surfaces(text: str) -> list[str]:
    """The words of a normalised text as they stand there, in order.

    Raises ValueError for a text that MeCab refuses as too long (some 65,000 characters).
    """
    return _parse(_WAKATI, text).split()


def surface_lines(texts: Sequence[str]) -> bytes:
    """The words of many normalised texts: a line a text, a space behind each word."""
    return "".join(_parsed(_WAKATI, texts)).encode()


def lemmas(text: str) -> list[str]:
    """Base forms of a normalised text's content words: nouns but numerals, verbs, adjectives, adverbs."""
    found = []
    for line in _parse(_LEMMA, text).split("\n")[:-1]:
        kind, surface, lemma = line.split("\t")
        if kind.partition(",")[0] in CONTENT and kind != NUMERAL:
            found.append(surface if lemma == NO_LEMMA else lemma)
    return found


def lemma_rows(texts: Sequence[str]) -> bytes:
    """What `lemmas` reads of many normalised texts: their lines, and an empty one behind each text."""
    return "".join([f"{lines}\n" for lines in _parsed(_LEMMA, texts)]).encode()


def _parse(arguments: str, text: str) -> str:
    return _parsed(arguments, [text])[0]


def _parsed(arguments: str, texts: Sequence[str]) -> list[str]:
    parse = _tagger(arguments).parse
    parsed: list[str | None] = [parse(text) for text in texts]
    for text, answer in zip(texts, parsed, strict=True):
        if answer is None:
            message = f"MeCab cannot take a text of {len(text):,} characters"
            raise ValueError(message)
    return cast("list[str]", parsed)


def dictionary_name() -> str:
    """Name and version of the dictionary."""
    return f"ipadic {importlib.metadata.version('ipadic')}"


@lru_cache(maxsize=1)
def dictionary_fingerprint() -> str:
    """SHA-256 over the dictionary's files: another dictionary makes other words."""
    digest = hashlib.sha256()
    for file in sorted(Path(ipadic.DICDIR).iterdir()):
        if file.is_file():
            digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
            with file.open("rb") as opened:
                digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()
