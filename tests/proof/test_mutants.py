"""Mutants change what is there: `python -m proof.mutants` tries them, this only looks for their text."""

from __future__ import annotations

import pytest

from proof.mutants import ROOT, chosen
from proof.mutations import MUTANTS


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_text_that_a_mutant_changes_is_there_once(mutant):
    assert (ROOT / mutant.file).read_text(encoding="utf-8").count(mutant.old) == 1
    assert mutant.new != mutant.old


def test_their_names_are_different():
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


def test_some_are_chosen_by_words_and_all_are_put_into_another_order():
    assert chosen([]) == [*MUTANTS]
    assert [mutant.name for mutant in chosen(["keys are padded", "window.py"])] == [
        "keys are padded",
        "the watermark moves to the frozen instant, whatever was read",
        "the watermark goes back",
        "the overlap is ignored",
    ]
    assert chosen([], 1) != [*MUTANTS]
    assert sorted(chosen([], 1), key=MUTANTS.index) == [*MUTANTS]
    assert chosen(["no mutant has this in it"]) == []
