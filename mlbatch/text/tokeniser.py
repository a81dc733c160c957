"""Normalising and tokenising Japanese text with MeCab and the ipadic dictionary."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import re
import threading
import unicodedata
from functools import lru_cache
from pathlib import Path

import ipadic
import MeCab

_WAKATI = "-Owakati"
# One C call a text. -O "" makes MeCab use these formats whatever the dictionary's own dicrc says.
_LEMMA = r'-O "" -F "%f[0],%f[1]\t%m\t%f[6]\n" -U "x,\t%m\t%m\n" -E ""'
_CONTENT = frozenset(("名詞", "動詞", "形容詞", "副詞", "感動詞", "x"))
_NUMERAL = "名詞,数"
_NOTHING_LIKE_IT = "*"
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")

_local = threading.local()


def normalise(text: str) -> str:
    """``text`` in NFKC and lower case, as every feature reads it.

    Half-width kana become full-width, full-width digits plain ones. NUL, behind which MeCab would
    silently stop, and lone surrogates, which it cannot take, become spaces.
    """
    plain = unicodedata.normalize("NFKC", text).lower().replace("\0", " ")
    return plain if plain.isascii() else _LONE_SURROGATE.sub(" ", plain)


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


def lemmas(text: str) -> list[str]:
    """Base forms of a normalised text's content words: nouns but numerals, verbs, adjectives, adverbs."""
    found = []
    for line in _parse(_LEMMA, " ".join(text.split())).split("\n")[:-1]:
        kind, surface, lemma = line.split("\t")
        if kind.partition(",")[0] in _CONTENT and kind != _NUMERAL:
            found.append(surface if lemma == _NOTHING_LIKE_IT else lemma)
    return found


def _parse(arguments: str, text: str) -> str:
    parsed: str | None = _tagger(arguments).parse(text)
    if parsed is None:
        message = f"MeCab cannot take a text of {len(text):,} characters"
        raise ValueError(message)
    return parsed


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
