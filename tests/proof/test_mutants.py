"""Mutants change what is there: `python -m proof.mutants` tries them, this only looks for their text."""

from __future__ import annotations

import pytest

from proof.mutants import MUTANTS, ROOT


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_text_that_a_mutant_changes_is_there_once(mutant):
    assert (ROOT / mutant.file).read_text(encoding="utf-8").count(mutant.old) == 1
    assert mutant.new != mutant.old


def test_their_names_are_different():
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
